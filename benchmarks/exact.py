"""Hold every exact pass to its word on many models, and time the axis analysis.

    python -m benchmarks.exact MODEL_OR_FOLDER ... [--data NPZ]
    python -m benchmarks.exact --nodes 50000

The first prints a row a model: the groups that the analysis finds (free of all, by action), and for each pass alone and
for all of them together how many sites were treated and the largest relative error of an output against the original
model. The second analyses a chain of transformer blocks with about so many places of axes.
"""

import argparse
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

import qcc
from benchmarks.processes.timing import machine
from qcc.compiler.files.open_model import open_model
from qcc.ir.axes.axes import Action, Axes
from qcc.ir.onnx.adapter import OnnxGraph

PASSES = {
    "fold_norm": "fold_norm = on",
    "rotate": "fold_norm = on; rotate = hadamard",
    "permute": "permute = magnitude",
    "equalize": "equalize = on",
    "query_key": "query_key = on",
    "fold": "fold = smoothquant(alpha = 0.5)",
}
ALL = "; ".join(dict.fromkeys(part for text in PASSES.values() for part in text.split("; ")))
WIDTH, HEADS = 64, 4
BLOCK = """
{y}p = Pow({x}, two)
{y}m = ReduceMean<keepdims=1>({y}p, last)
{y}e = Add({y}m, small)
{y}r = Sqrt({y}e)
{y}d = Div({x}, {y}r)
{y}n = Mul({y}d, gain)
{y}q = MatMul({y}n, square)
{y}k = MatMul({y}n, square)
{y}v = MatMul({y}n, square)
{y}qr = Reshape({y}q, heads)
{y}kr = Reshape({y}k, heads)
{y}vr = Reshape({y}v, heads)
{y}qt = Transpose<perm=[0,2,1,3]>({y}qr)
{y}kt = Transpose<perm=[0,2,3,1]>({y}kr)
{y}vt = Transpose<perm=[0,2,1,3]>({y}vr)
{y}s = MatMul({y}qt, {y}kt)
{y}w = Softmax<axis=-1>({y}s)
{y}o = MatMul({y}w, {y}vt)
{y}ot = Transpose<perm=[0,2,1,3]>({y}o)
{y}f = Reshape({y}ot, flat)
{y}a = MatMul({y}f, square)
{y} = Add({x}, {y}a)
"""


@dataclass(frozen=True)
class Outcome:
    """What a policy of exact passes did to a model: sites treated, and the relative error against the original."""

    sites: int
    error: float
    seconds: float

    @property
    def text(self) -> str:
        """One cell."""
        return f"{self.sites}: {self.error:.0e}" if self.sites else "-"


def main() -> None:
    """Print one row a model, or the time of one analysis."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--data", type=Path, help="calibration arrays for all models; without, data is generated")
    parser.add_argument("--nodes", type=int, help="analyse a chain of blocks with so many places of axes")
    arguments = parser.parse_args()
    print(f"# {machine()}\n# python -m benchmarks.exact")
    if arguments.nodes:
        print(analysis(arguments.nodes))
        return
    files = [file for path in arguments.models for file in (sorted(path.glob("*.onnx")) if path.is_dir() else [path])]
    print(f"| model | {' | '.join(Action)} | {' | '.join(PASSES)} | all | seconds |")
    print(f"|{' --- |' * (len(Action) + len(PASSES) + 3)}")
    worst = 0.0
    for file in files:
        try:
            text, error = row(file, arguments.data)
        except qcc.QccError as failure:
            text, error = f"| {file.stem} | {str(failure).splitlines()[0]} |", math.inf
        worst = max(worst, error)
        print(text, flush=True)
    print(f"\n{len(files)} models, largest relative error {worst:.1e}")


def row(model: Path, data: Path | None) -> tuple[str, float]:
    """One model: its groups, and each pass; with the largest error."""
    axes = Axes.of(open_model(model).graph)
    found = [axes.groups(action) for action in Action]
    cells = [f"{sum(not group.fixed for group in groups)} of {len(groups)}" for groups in found]
    outcomes = [outcome(model, rules, data) for rules in (*PASSES.values(), ALL)]
    cells += [one.text for one in outcomes]
    cells.append(f"{outcomes[-1].seconds:.1f}")
    return f"| {model.stem} | {' | '.join(cells)} |", max(one.error for one in outcomes)


def outcome(model: Path, rules: str, data: Path | None) -> Outcome:
    """Compile a model with these properties for all layers; weights stay float."""
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "exact.qpolicy"
        policy.write_text(f"qpolicy 1\nrule any {{ {rules} }}\n", encoding="utf-8")
        start = time.perf_counter()
        result = qcc.compile(model, policy, output=Path(folder) / model.name, data=data)
        seconds = time.perf_counter() - start
    treated = sum(len(one.treated) for one in result.rewrites if one.action != "clean")
    errors = [one.error for one in result.rewrites] + [one.relative_error for one in result.verification.outputs]
    return Outcome(treated, max(errors, default=0.0), seconds)


def analysis(nodes: int) -> str:
    """Build a chain of blocks and analyse it for all actions."""
    graph = chain(1)
    places = _places(graph)
    graph = chain(max(nodes // places, 1))
    start = time.perf_counter()
    axes = Axes.of(graph)
    groups = [axes.groups(action) for action in Action]
    seconds = time.perf_counter() - start
    cells = f"{len(graph.ops()):,} | {_places(graph):,} | {sum(map(len, groups)):,} | {seconds:.1f}"
    return f"| ops | places of axes | groups | seconds |\n| --- | --- | --- | --- |\n| {cells} |"


def chain(blocks: int) -> OnnxGraph:
    """Attention blocks one after the other; all read the same few constants, which the analysis does not mind."""
    names = ["x", *(f"h{at}" for at in range(1, blocks)), "y"]
    body = "".join(BLOCK.format(x=names[at], y=names[at + 1]) for at in range(blocks))
    kind = f"float[n,8,{WIDTH}]"
    text = f'<ir_version: 10, opset_import: ["" : 21]>\nchain ({kind} x) => ({kind} y) {{{body}}}'
    model = onnx.parser.parse_model(text)
    numbers = {
        "two": np.float32(2),
        "small": np.float32(1e-5),
        "last": np.array([-1]),
        "gain": np.linspace(0.5, 1.5, WIDTH, dtype=np.float32),
        "square": np.eye(WIDTH, dtype=np.float32),
        "heads": np.array([0, 8, HEADS, WIDTH // HEADS]),
        "flat": np.array([0, 8, WIDTH]),
    }
    for name, number in numbers.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(number), name))
    graph = OnnxGraph(ir.serde.deserialize_model(model), Path())
    graph.simplify()  # gives names and shapes
    return graph


def _places(graph: OnnxGraph) -> int:
    """Axes of all computed values."""
    return sum(len(graph.value(name).shape or ()) for op in graph.ops() for name in op.outputs)


if __name__ == "__main__":
    main()
