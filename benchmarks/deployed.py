"""Whole models with their kernels against ONNX Runtime's own ways: time, size, task metric.

    python -m benchmarks.deployed --models MODELS --evaluate EVALUATE --data DATA [--only NAME ...]

MODELS is a folder with ``minilm.onnx`` and ``smollm2.onnx``, EVALUATE a script that takes ``TASK model.onnx
[--custom-ops LIBRARY]`` and prints a JSON line with the metric, DATA a folder with ``TASK.npz`` calibration arrays.
Times are those of ``qcc bench``: one thread, in turns, ratios to the float model in the same rounds.
"""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from benchmarks.processes import children
from benchmarks.processes.timing import machine

POLICIES = Path(__file__).parent / "policies"
QCC = Path(sys.executable).with_name("qcc")


def dynamic_int8(model: Path, out: Path) -> None:
    """ONNX Runtime's dynamic quantisation: activations and weights in int8."""
    proto = onnx.load(model)
    del proto.graph.value_info[:]  # of the exporter; the tool infers its own
    quantize_dynamic(proto, out)


def four_bits(model: Path, out: Path) -> None:
    """ONNX Runtime's 4-bit tool: blocks of 32, activations rounded to int8."""
    quantizer = MatMulNBitsQuantizer(str(model), block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    quantizer.model.save_model_to_file(str(out))


@dataclass(frozen=True)
class Model:
    """A model with its task, the sizes that it is timed at, the policies, and the runtime's own tools."""

    task: str
    settings: tuple[str, ...]
    policies: tuple[str, ...]
    tools: tuple[Callable[[Path, Path], None], ...]
    rows: int


MODELS = {
    "minilm": Model(
        "stsb",
        ("--batch 1,16 --sequence 32",),
        ("kernels-int8", "kernels-int8-bf16", "kernels-int4", "kernels-bf16"),
        (dynamic_int8, four_bits),
        32,
    ),
    "smollm2": Model("ppl", ("--batch 1 --sequence 64", "--batch 1 --sequence 1"), ("kernels-int4",), (four_bits,), 64),
}


def main() -> None:
    """Print a table a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--models", "--evaluate", "--data"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(MODELS))
    arguments = parser.parse_args()
    logging.disable(logging.INFO)  # the tool tells of every node
    print(f"# {machine()}\n# python -m benchmarks.deployed", flush=True)
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            report(name, MODELS[name], arguments, Path(folder))


def report(name: str, model: Model, arguments: argparse.Namespace, folder: Path) -> None:
    """Make all the files of a model, then time them together."""
    source = arguments.models / f"{name}.onnx"
    made = {name: source}
    for tool in model.tools:
        made[tool.__name__] = folder / f"{tool.__name__}.onnx"
        tool(source, made[tool.__name__])
    for policy in model.policies:
        made[policy] = folder / f"{policy}.onnx"
        command = [QCC, "compile", source, "-p", POLICIES / f"{policy}.qpolicy", "-o", made[policy], "-q"]
        command += ["-D", f"rows={model.rows}", "--data", arguments.data / f"{model.task}.npz"]
        children.output(command)
    times = {shape: cells for setting in model.settings for shape, cells in timed(made.values(), setting).items()}
    print("\n| model | file, MB | library, kB | metric, plain | with kernels | " + " | ".join(times) + " |")
    print("|---|---|---|---|---|" + "---|" * len(times))
    for at, (label, path) in enumerate(made.items()):
        library = path.with_name(f"{path.stem}.kernels.so")
        beside = f"{library.stat().st_size / 1e3:.0f}" if library.exists() else ""
        fast = f"{metric(model.task, path, arguments.evaluate, library):.2f}" if beside else ""
        plain = metric(model.task, path, arguments.evaluate, None)
        cells = " | ".join(found[at] for found in times.values())
        size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")) / 1e6
        print(f"| {label} | {size:.1f} | {beside} | {plain:.2f} | {fast} | {cells} |", flush=True)


def timed(models: Iterable[Path], setting: str) -> dict[str, list[str]]:
    """Milliseconds and the ratio to the first of every model, a column for each batch."""
    command = [QCC, "bench", *models, "--threads", "1", *setting.split(), "--rounds", "25", "--format", "json"]
    text = children.output(command)
    columns = {}
    for run in json.loads(text)["settings"]:
        shape = "x".join(map(str, next(iter(run["shapes"].values()))))
        columns[shape] = [f"{one['median_ms']:.3g} ms, {one['ratio']:.2f}x" for one in run["times"]]
    return columns


def metric(task: str, model: Path, evaluate: Path, library: Path | None) -> float:
    """What the task says of a model."""
    command = [sys.executable, evaluate, task, model, *(["--custom-ops", library] if library else [])]
    text = children.output(command)
    return next(value for value in json.loads(text).values() if isinstance(value, float))


if __name__ == "__main__":
    main()
