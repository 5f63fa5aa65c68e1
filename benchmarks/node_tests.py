"""Compile the onnx package's own test models, and run what was written on the tests' own inputs.

    python -m benchmarks.node_tests [--part 1/4] [--sample N] [--only REGEX] [--list]

The models are those of `onnx.backend.test.case.node.collect_testcases` and of the folders `pytorch-*` and `simple` of
the package's test data; each is compiled with the presets `lossless` and `balanced`, with the test's inputs as data.
Printed is how many came to what: a row an outcome, a column a preset. Parts are every n-th model; their counts add up.
"""

import argparse
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnx.backend.test.case import node as node_cases

import qcc
from benchmarks.processes.timing import machine
from qcc.compiler.verify.translation import relative_error
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.errors import ModelError
from qcc.ir.onnx.graph.run import OnnxRunner

FOLDERS = ("simple", "pytorch-operator", "pytorch-converted")
PRESETS = ("lossless", "balanced")
BOUNDS = {"lossless": 1e-4, "balanced": 0.1}  # of an output's largest value: rounding of weights is no wrong result
RIGHT, DATA, OPSET, BOUND, REFUSED, CRASH, WRONG = (
    "right",
    "a word about the data",
    "refused for its opset",
    "over a bound",
    "refused otherwise",
    "exit 70",
    "wrong",
)
OUTCOMES = (RIGHT, DATA, OPSET, BOUND, REFUSED, CRASH, WRONG)
DATA_CODES = ("Q42", "Q406")
OPSET_CODES = ("Q402", "Q407", "Q412")
BUG = "Q490"

Feeds = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A test: a model, and inputs for it where the test has any."""

    name: str
    model: onnx.ModelProto
    feeds: Feeds | None


def cases() -> Iterator[Case]:
    """All tests, in an order that does not change."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = node_cases.collect_testcases(None)
    for one in found:
        sets = one.data_sets or []
        if one.model is not None:
            yield Case(one.name, one.model, _named(one.model, sets[0][0]) if sets else None)
    root = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for path in sorted(path for folder in FOLDERS for path in root.joinpath(folder).glob("*/model.onnx")):
        model = onnx.load(path)
        files = sorted(path.parent.glob("test_data_set_0/input_*.pb"), key=lambda one: int(one.stem.split("_")[1]))
        inputs = [_read(file, model.graph.input[at]) for at, file in enumerate(files)]
        yield Case(f"{path.parent.parent.name}/{path.parent.name}", model, _named(model, inputs))


def run(case: Case, preset: str, folder: Path) -> tuple[str, str]:
    """What comes of a test under a preset, and why; the outcome is empty where the runtime refuses the test itself."""
    path, output = folder / "model.onnx", folder / "out.onnx"
    onnx.save(case.model, path)
    output.unlink(missing_ok=True)
    if case.feeds is None:
        return "", "no data"
    try:
        wanted = OnnxRunner(path)(case.feeds)
        again = OnnxRunner(path)(case.feeds)
    except ModelError as error:
        return "", error.message
    try:
        result = qcc.compile(path, preset, output=output, data=[case.feeds])
    except QccError as error:
        return _refusal(error)
    except Exception as error:  # whatever the command would end with 70 for
        return CRASH, f"{type(error).__name__}: {error}"
    if not result.passed:
        bounds = [f"{one.bound.metric} {one.value:.3g}" for one in result.verification.bounds if not one.passed]
        return BOUND, ", ".join(bounds)
    try:
        got = OnnxRunner(output)(case.feeds)
    except ModelError as error:
        return WRONG, error.message
    return _judge(wanted, again, got, BOUNDS[preset])


def _judge(
    wanted: Mapping[str, np.ndarray], again: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray], bound: float
) -> tuple[str, str]:
    for name, array in wanted.items():
        if name not in got or got[name].dtype != array.dtype:
            return WRONG, f"`{name}` is missing or of another type"
        if _error(array, again[name]):
            continue  # it is random
        error = _error(array, got[name])
        if error > bound:
            return WRONG, f"`{name}` is off by {error:.2g}"
    return RIGHT, ""


def _error(wanted: np.ndarray, got: np.ndarray) -> float:
    if wanted.dtype.kind in "fcV" and wanted.dtype.names is None:
        return relative_error(wanted, got)
    return 0.0 if np.array_equal(wanted, got) else np.inf


def _refusal(error: QccError) -> tuple[str, str]:
    first = error.diagnostics[0]
    why = f"{first.code} {first.message}"
    if first.code == BUG:
        return CRASH, why
    if first.code in OPSET_CODES:
        return OPSET, why
    return (DATA if first.code.startswith(DATA_CODES) else REFUSED), why


def _named(model: onnx.ModelProto, inputs: Sequence[object]) -> Feeds:
    constants = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in constants]
    return dict(zip(names, inputs, strict=False))


def _read(file: Path, value: onnx.ValueInfoProto) -> object:
    if value.type.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(file.read_bytes()))
    if value.type.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(file.read_bytes()))
    return numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes()))


def main() -> None:
    """Run the tests and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="1/1", help="the i-th of n parts")
    parser.add_argument("--sample", type=int, help="so many models, evenly spread")
    parser.add_argument("--only", default="", help="names that this regular expression finds")
    parser.add_argument("--list", action="store_true", help="print every model that is not right, and why")
    args = parser.parse_args()
    part, parts = map(int, args.part.split("/"))
    chosen = [case for case in cases() if re.search(args.only, case.name)][part - 1 :: parts]
    chosen = chosen[:: max(len(chosen) // args.sample, 1)] if args.sample else chosen
    onnxruntime.set_default_logger_severity(4)
    counts: dict[str, Counter[str]] = {preset: Counter() for preset in PRESETS}
    with tempfile.TemporaryDirectory() as folder:
        for case in chosen:
            for preset in PRESETS:
                outcome, why = run(case, preset, Path(folder))
                counts[preset][outcome] += 1
                if args.list and outcome not in ("", RIGHT):
                    print(f"{preset:8}  {outcome:21}  {case.name}: {why[:200]}", flush=True)
    print(machine())
    print(f"{len(chosen)} models, {counts[PRESETS[0]]['']} of which ONNX Runtime does not run on their own inputs\n")
    print("| outcome |" + "".join(f" {preset} |" for preset in PRESETS))
    print("|---|" + "---|" * len(PRESETS))
    for outcome in OUTCOMES:
        print(f"| {outcome} |" + "".join(f" {counts[preset][outcome]} |" for preset in PRESETS))


if __name__ == "__main__":
    main()
