"""The same policy on a PyTorch module and on its ONNX export: the same plan, the same parts, the same numbers?

    python -m benchmarks.architectures.parity [--only NAME ...] [--policy NAME ...] [--rounds N] [--jobs N]
    python -m benchmarks.architectures.parity --program PT2 --data NPZ [--policy NAME ...]

Takes the modules of `benchmarks.architectures`, those of transformers where that is installed, each in a process of its
own where there are several jobs; or a program of yours, and data of its inputs' names. A row is a model under a
policy: whether the plans are one text, which share of the stored numbers differs, how far the outputs are apart at most
over eight inputs (of the largest one; the export runs op by op) and of how many they are within 1e-5 if not of all,
where activations are rounded how many of their numbers come out as others of the same numbers and how near they lie to
the middle of two steps (`fences`), and the processor seconds of both compilations, without the export: of one, or the
median of several rounds. What one of them refuses is told in its place. The row `float` is of neither compiled.
"""

import argparse
import gc
import logging
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.architectures import export
from benchmarks.architectures.fences import fences
from benchmarks.exact import ALL
from benchmarks.processes.timing import machine
from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.compilation import Compilation
from qcc.compiler.console.phases import silent
from qcc.compiler.plan.text import to_text
from qcc.compiler.repeat import loaded_policy
from qcc.compiler.report.result import Result
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.errors import ModelError
from qcc.ir.onnx.file.runtime import onnxruntime
from qcc.ir.open_file import load_object, save_object, write_as_onnx

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

BATCHES, HELD, INPUTS = 8, 99, 8
NEAR = 1e-5
POLICIES = {
    "int4 gptq": "rule any { weights = int4 group 16; rounding = gptq }",
    "static": "rule any { weights = int8 channel; activations = static }",
    "exact": f"rule any {{ weights = int8 channel; {ALL} }}",
    "blocks": "rule any { weights = blocks(8x8, keep = 50%, int8 channel) }",
    "bands": "rule any { weights = bands(int5 channel, int2 channel, share = 50%) }",
}


@dataclass(frozen=True)
class Side:
    """What became of one of the two."""

    result: Result
    encoded: Mapping[str, Encoded]
    seconds: float


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--policy", nargs="+", metavar="NAME", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--program", type=Path, metavar="PT2")
    parser.add_argument("--data", type=Path, metavar="NPZ")
    parser.add_argument("--bare", action="store_true", help="rows alone")
    arguments = parser.parse_args()
    if (arguments.program is None) != (arguments.data is None):
        raise SystemExit("a program and its data come together")
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    if not arguments.bare:
        print(f"# {machine()}\n# python -m benchmarks.architectures.parity")
        print("| model | policy | weights | plans | numbers apart | outputs apart | rounded apart | torch, s | ONNX |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    if arguments.program is None:
        _models(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        for line in _of_program(arguments, Path(folder)):
            print(line, flush=True)


def _models(arguments: argparse.Namespace) -> None:
    """Print the rows of architectures."""
    builders = {name: one for name, one in export.catalogue().items() if not name.endswith(export.UNFUSED)}
    names = arguments.only or list(builders)
    if unknown := sorted(set(names) - set(builders)):
        raise SystemExit(f"no such architecture: {', '.join(unknown)}; there are {', '.join(builders)}")
    if arguments.jobs > 1:
        again = ["--bare", "--rounds", str(arguments.rounds), "--policy", *arguments.policy]
        command = [sys.executable, "-m", "benchmarks.architectures.parity", *again, "--only"]
        with ThreadPoolExecutor(arguments.jobs) as pool:  # a row is printed in one piece by whoever made it
            list(pool.map(lambda name: subprocess.run([*command, name], check=False), names))
        return
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            for line in rows(name, builders[name], Path(folder), arguments.policy, arguments.rounds):
                print(line, flush=True)
        gc.collect()


def _of_program(arguments: argparse.Namespace, folder: Path) -> Iterator[str]:
    """The rows of a program: the last samples of the data are those on which outputs are compared."""
    with np.load(arguments.data) as data:
        given = {name: data[name] for name in data.files}
    samples = [{name: array[at : at + 1] for name, array in given.items()} for at in range(BATCHES + INPUTS)]
    program, onnx = folder / "model.pt2", folder / "model.onnx"
    program.symlink_to(arguments.program.absolute())  # what is compiled is written beside it
    write_as_onnx(program, onnx)
    yield f"| {arguments.program.stem} | float | | | | {_told(_apart(program, onnx, samples[BATCHES:]))} | | | |"
    for policy in arguments.policy:
        pair = program, onnx, POLICIES[policy], samples[:BATCHES], samples[BATCHES:], arguments.rounds
        yield f"| {arguments.program.stem} | {policy} | {_compared(*pair)} |"


def rows(name: str, builder: export.Builder, folder: Path, policies: Sequence[str], rounds: int = 1) -> Iterator[str]:
    """The rows of a model, as they are made."""
    program, onnx = folder / "model.pt2", folder / "model.onnx"
    try:
        batches, others = _written(name, builder, program)
        write_as_onnx(program, onnx)
    except Exception as problem:  # whatever a library or an exporter may raise
        yield f"| {name} | | | FAILED: {type(problem).__name__}: {export.first_line(problem)} | | | | | |"
        return
    yield f"| {name} | float | | | | {_told(_apart(program, onnx, others))} | | | |"
    for policy in policies:
        yield f"| {name} | {policy} | {_compared(program, onnx, POLICIES[policy], batches, others, rounds)} |"


def _written(name: str, builder: export.Builder, path: Path) -> tuple[list[Batch], list[Batch]]:
    """Export a module; data to calibrate on, and to compare on."""
    import torch

    seed = zlib.crc32(name.encode())
    torch.manual_seed(seed)
    module, shapes = builder()
    export.randomise(module.eval(), shapes, seed)
    program = _program(module, shapes)
    save_object(program, None, path)
    names = program.graph_signature.user_inputs

    def drawn(seed: int) -> Batch:
        given = export.inputs(shapes, export.BATCH, None, seed)
        return {str(one): array.numpy() for one, array in zip(names, given, strict=True)}

    return [drawn(seed) for seed in range(BATCHES)], [drawn(HELD + at) for at in range(INPUTS)]


def _program(module: object, shapes: export.Shapes) -> "ExportedProgram":
    """With as many free axes as torch takes."""
    import torch

    assert isinstance(module, torch.nn.Module)
    arguments = export.inputs(shapes, export.BATCH, None, 1)
    tries = export.AXES if any(name in export.TEXT for name in shapes) else export.AXES[1:]
    for axes in tries:
        dims = {name: torch.export.Dim(name) for name in axes}
        tokens = {1: dims["sequence"]} if "sequence" in axes else {}
        free = tuple({0: dims["batch"], **(tokens if name in export.TEXT else {})} for name in shapes) if axes else None
        try:
            with torch.no_grad():
                return torch.export.export(module, arguments, dynamic_shapes=free)
        except Exception:  # whatever torch may raise; the last try's is told
            if axes == tries[-1]:
                raise
    raise AssertionError


def _compared(
    program: Path, onnx: Path, rules: str, batches: Sequence[Batch], others: Sequence[Batch], rounds: int
) -> str:
    """The cells of a row, from the count of weights on."""
    policy = f"qpolicy 1\n{rules}\nverify {{ cosine >= 0 }}"
    try:
        pairs = [[_compiled(path, policy, batches) for path in (program, onnx)] for _ in range(rounds)]
    except (QccError, ModelError) as error:
        return f"| refused: {export.first_line(error)} | | | | |"
    torch, exported = pairs[-1]
    seconds = [median(one.seconds for one in side) for side in zip(*pairs, strict=True)]
    plans = "the same" if to_text(torch.result.plan) == to_text(exported.result.plan) else "OTHER"
    outputs = torch.result.output, exported.result.output
    told, rounded = _told(_apart(*outputs, others)), fences(load_object(outputs[0]), outputs[1], others, onnx.parent)
    differ = _differing(torch.encoded, exported.encoded)
    cells = len(torch.result.layers), plans, differ, told, rounded.text, *(f"{one:.2f}" for one in seconds)
    return " | ".join(map(str, cells))


def _told(apart: Sequence[float]) -> str:
    """How far outputs are apart, and how many are near where not all are."""
    near = sum(one < NEAR for one in apart)
    return f"{max(apart):.1e}" + ("" if near == len(apart) else f", {near} of {len(apart)} near")


def _compiled(path: Path, policy: str, batches: Sequence[Batch]) -> Side:
    output = path.with_name(f"out{path.suffix}")
    start = time.process_time()
    compilation = Compilation.prepare(path, loaded_policy(policy, None, None), output, batches, None, silent)
    result = compilation.run(None)
    assert compilation.evidence is not None
    return Side(result, compilation.evidence.stored, time.process_time() - start)


def _differing(one: Mapping[str, Encoded], other: Mapping[str, Encoded]) -> str:
    if one.keys() != other.keys():
        return f"OTHER WEIGHTS: {', '.join(sorted(one.keys() ^ other.keys())[:3])}"
    pairs = [(part, other[name].parts[key]) for name, found in one.items() for key, part in found.parts.items()]
    if any(left.shape != right.shape for left, right in pairs):
        return "OTHER SHAPES"
    count = sum(left.size for left, _ in pairs)
    return f"{sum(int((left != right).sum()) for left, right in pairs) / max(count, 1):.2%}"


def _apart(program: Path, onnx: Path, inputs: Sequence[Batch]) -> list[float]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # what the file says
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    module, found = load_object(program), []
    for feeds in inputs:
        wanted = session.run(None, {one.name: feeds[one.name] for one in session.get_inputs()})
        pairs = zip(export.reference(module, _tensors(feeds)), wanted, strict=True)
        found.append(max(export.distance(left, right) for left, right in pairs))
    return found


def _tensors(feeds: Batch) -> tuple["Tensor", ...]:
    import torch

    return tuple(torch.from_numpy(np.asarray(array)) for array in feeds.values())


if __name__ == "__main__":
    main()
