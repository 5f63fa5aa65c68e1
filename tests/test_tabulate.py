"""Functions by tables: the file computes the reference, which is near the function; who asks in vain is told."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.text import to_text
from qcc.compiler.report.lock import plan_of
from qcc.dsl.diagnostics.source import Source
from qcc.ir.encoding.value import STATIC_BYTES
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.regions.functions import FUNCTIONS, functions
from qcc.ir.vocabulary.tabled import LookupTable
from qcc.passes.activations.static import Static
from qcc.passes.contract.contract import Context, Edit
from qcc.passes.contract.magnitudes import Magnitudes
from qcc.passes.tables.entries import REACHES, exponential_table, function_table, root_table
from qcc.passes.tables.tabulate import Tabulate
from tests import onnx_models
from tests.onnx_models import random
from tests.test_static_conv import optimised

ERF = "a = Div (z, root) b = Erf (a) c = Add (b, one) d = Mul (z, c) f = Mul (d, half)"
BODIES = {
    "gelu": ("gelu", ERF),
    "silu": ("silu", "s = Sigmoid (z) f = Mul (z, s)"),
    "sigmoid": ("sigmoid", "f = Sigmoid (z)"),
    "tanh": ("tanh", "f = Tanh (z)"),
    "exp": ("exp", "f = Exp (z)"),
    "softmax": ("softmax", "f = Softmax <axis = -1> (z)"),
    "softmax across": ("softmax", "f = Softmax <axis = 1> (z)"),
    "norm": ("norm", "f = LayerNormalization <axis = -1, epsilon = 1e-5> (z, gain, shift)"),
    "rms": (
        "norm",
        """p = Pow (z, two) m = ReduceMean <axes = [-1], keepdims = 1> (p) e = Add (m, small) r = Sqrt (e)
        n = Div (z, r) f = Mul (n, gain)""",
    ),
}
X = random(4, 6, 16)
NUMBERS = {"root": 2**0.5, "one": 1.0, "half": 0.5, "two": 2.0, "small": 1e-5}
CONSTANTS = {
    **{name: np.array(number, np.float32) for name, number in NUMBERS.items()},
    "w": random(16, 16, seed=1),
    "v": random(16, 8, seed=2),
    "gain": np.abs(random(16, seed=3)) + 0.5,
    "shift": random(16, seed=4),
}
FLOAT_SLACK = 2e-6  # of 1: the runtime's own exponential and division against numpy's


def made(body: str, folder: Path) -> OnnxGraph:
    text = f"g (float[n, 6, 16] x) => (float[n, 6, 8] y) {{ z = MatMul (x, w)\n{body}\ny = MatMul (f, v) }}"
    onnx.save(onnx_models.parse(text, CONSTANTS, opset=17), folder / "m.onnx")
    graph = OnnxGraph.load(folder / "m.onnx")
    graph.simplify()
    return graph


def watch(graph: Graph, names: Sequence[str], _: bool) -> Iterator[dict[str, Array]]:
    return iter([graph.runner(["x"], names)({"x": X})])


def written(name: str, folder: Path, how: Tabulate) -> tuple[OnnxGraph, OnnxGraph, list[Edit]]:
    graph = made(BODIES[name][1], folder)
    graph.require_opset(how.opset)
    (site,) = functions(graph, (BODIES[name][0],))
    after, edits = how.apply(graph, [site.name], Context(watch=watch))
    return graph, after, edits


def values(graph: OnnxGraph, *names: str, x: Array = X) -> list[Array]:
    found = graph.runner(["x"], names)({"x": x})
    return [found[name] for name in names]


@pytest.mark.parametrize("size", [16, 100, 256, 257, 4096])
@pytest.mark.parametrize("name", BODIES)
def test_a_table_is_near_the_function(name: str, size: int, tmp_path: Path) -> None:
    """Within half a step, where the function is no steeper than its input; of the rest as fine as the table is."""
    graph, after, (edit,) = written(name, tmp_path, Tabulate(size, "always"))
    assert (edit.refused, edit.what) == (False, BODIES[name][0])
    (z, wanted), (found,) = values(graph, "z", "f"), values(after, "f")
    step = (z.max() - z.min()) / (size - 1)
    if name in ("gelu", "silu", "sigmoid", "tanh"):
        assert np.abs(found - wanted).max() <= 1.13 * step / 2 + FLOAT_SLACK
    elif name == "exp":
        assert np.abs(found / wanted - 1).max() <= np.expm1(step / 2) + 1e-5
    elif BODIES[name][0] == "norm":
        assert np.abs(found - wanted).max() <= 0.5 * 3 / (size - 1) / 2 * np.abs(wanted).max() * 2
    else:
        assert np.abs(found - wanted).max() <= np.expm1(REACHES[-1] / (size - 1)) / 2 + 1e-3


@pytest.mark.parametrize("name", BODIES)
def test_the_graph_is_the_reference(name: str, tmp_path: Path) -> None:
    """What is written computes what the table says, on numbers beyond its ends, too."""
    graph, after, _ = written(name, tmp_path, Tabulate(64, "always"))
    far = 3 * X
    (z,), (found,) = values(graph, "z", x=far), values(after, "f", x=far)
    (seen,) = values(graph, "z")
    if BODIES[name][0] == "softmax":
        axis = 1 if name == "softmax across" else -1
        rows = np.moveaxis(seen, axis, -1).reshape(-1, seen.shape[axis])
        table = exponential_table(64, rows[:: max(len(rows) // 512, 1)])
        e = table(z - z.max(axis, keepdims=True))
        assert np.abs(found - e / e.sum(axis, keepdims=True)).max() <= 0.02  # rounded to the next code in few places
    elif BODIES[name][0] != "norm":
        table = function_table(64, Magnitudes.of(seen), lambda x: _evaluated(graph, x))
        wanted = table(z)
        assert np.mean(np.abs(found - wanted) > FLOAT_SLACK * np.abs(wanted).max()) < 0.01


def _evaluated(graph: OnnxGraph, x: Array) -> Array:
    padded = np.resize(x, (-(-x.size // 96), 6, 16)).astype(np.float32)
    return graph.runner(["z"], ["f"])({"z": padded})["f"].reshape(-1)[: x.size]


def test_norms_need_no_range(tmp_path: Path) -> None:
    """A row's power may be anything: the table is of what is left of it between two powers of four."""
    graph, after, _ = written("norm", tmp_path, Tabulate(256, "always"))
    for scale in (1e-3, 1.0, 1e6, 1e12):
        (wanted,), (found,) = values(graph, "f", x=X * np.float32(scale)), values(after, "f", x=X * np.float32(scale))
        assert np.abs(found - wanted).max() <= 0.004 * np.abs(wanted).max()


def test_hidden_scores_weigh_nothing() -> None:
    rows = np.where(np.tri(8, dtype=bool), random(8, 8), -np.inf)
    table = exponential_table(256, rows)
    assert table.numbers[0] == 0 and table(np.array([-np.inf, -1e30, 0.0])).tolist() == [0, 0, 1]


@pytest.mark.parametrize("size", [16, 256, 4096])
def test_roots(size: int) -> None:
    x = np.linspace(1, 4, 1000)
    assert np.abs(root_table(size)(x - 1) * np.sqrt(x) - 1).max() <= 3 / (size - 1) / 4 + 1e-6


def test_what_reads_whole_numbers_reads_a_table_of_them(tmp_path: Path) -> None:
    """Nothing between the codes of what goes in and those of what comes out is float."""
    _, after, _ = written("gelu", tmp_path, Tabulate(256, "always"))
    (f,) = values(after, "f")
    how = Static().encoded(STATIC_BYTES, Magnitudes.of(f))
    (reader,) = (op for op in after.ops() if "f" in op.inputs)
    after.encode_value("f", how, [(reader.name, 0)])
    (y,) = values(after, "y")
    assert np.abs(y - how.rounded(f) @ CONSTANTS["v"]).max() <= 1e-4
    after.save(tmp_path / "after.onnx")
    gathers = [node for node in onnx.load(tmp_path / "after.onnx").graph.node if node.op_type == "Gather"]
    held = {one.name: one.data_type for one in onnx.load(tmp_path / "after.onnx").graph.initializer}
    assert [held[node.input[0]] for node in gathers] == [onnx.TensorProto.UINT8]


def test_slower_tables_are_not_written(tmp_path: Path) -> None:
    graph = made(BODIES["gelu"][1], tmp_path)
    graph.require_opset(18)
    (site,) = functions(graph, ("gelu",))
    for share, refused in ((3.0, True), (1.0, True), (0.5, False)):
        race = lambda _one, _other, _feeds, share=share: share  # noqa: E731 - of three
        after, (edit,) = Tabulate(256).apply(graph, [site.name], Context(watch=watch, race=race))
        assert edit.refused is refused and ("Gather" in _ops(after)) is not refused
        assert not refused or edit.code == "Q700"
    _, (edit,) = Tabulate(256).apply(graph, [site.name], Context(watch=watch))
    assert edit.refused and "nothing was timed" in edit.text


def _ops(graph: OnnxGraph) -> list[str]:
    return [node.op_type for node in graph.model.graph]


def test_infinite_entries_reject(tmp_path: Path) -> None:
    graph = made("f = Reciprocal (z)", tmp_path)
    graph.require_opset(18)
    (site,) = functions(graph, ("reciprocal",))
    _, (edit,) = Tabulate(256, "always").apply(graph, [site.name], Context(watch=watch))
    assert edit.refused and edit.text == "it is not finite on all of its range, zero among it"


def test_what_cuts_off_is_no_function() -> None:
    assert {"gelu", "silu", "sigmoid", "tanh", "exp", "softmax", "norm"} <= {*FUNCTIONS}
    assert not {"relu", "clip", "abs", "neg", "cast", "identity"} & {*FUNCTIONS}
    assert {*FUNCTIONS} <= {*schema().subjects}


def policy(rules: str, folder: Path) -> Path:
    np.savez(folder / "data.npz", x=random(16, 6, 16))
    path = folder / "a.qpolicy"
    path.write_text(f'calibrate "data.npz"\n{rules}\n', encoding="utf-8")
    return path


ALL = ERF + "\ng = Softmax <axis = -1> (f)\nh = LayerNormalization <axis = -1, epsilon = 1e-5> (g, gain, shift)"


def _model(folder: Path) -> Path:
    text = f"g (float[n, 6, 16] x) => (float[n, 6, 8] y) {{ z = MatMul (x, w)\n{ALL}\ny = MatMul (h, v) }}"
    onnx.save(onnx_models.parse(text, CONSTANTS, opset=17), folder / "m.onnx")
    return folder / "m.onnx"


def test_a_policy_asks_for_classes_of_ops(tmp_path: Path) -> None:
    rules = "rule linear { weights = int8 channel; activations = static }\n"
    rules += "rule gelu, softmax, norm { table = 256; when = always }"
    result = qcc.compile(_model(tmp_path), policy(rules, tmp_path), output=tmp_path / "out.onnx")
    assert [line for line in result.notes if "looked up" in line] == [
        f"1 {what}: looked up in 256 entries" for what in ("gelu", "softmax", "norm")
    ]
    ops = optimised(result.output, tmp_path)
    assert ops.count("Gather") == 3 and not {"Erf", "Gelu", "Softmax", "LayerNormalization"} & {*ops}
    plan = plan_of(result.lock)
    assert from_text(Source("p", to_text(plan))) == plan
    assert "tabulate(table = 256, when = always)" in to_text(plan)


def test_without_speed_it_stays_and_is_told(tmp_path: Path) -> None:
    rules = "rule any { weights = int8 channel }\nrule gelu, softmax { table = 64 }"
    result = qcc.compile(_model(tmp_path), policy(rules, tmp_path), output=tmp_path / "out.onnx")
    codes = [one.code for one in result.warnings]
    assert codes.count("Q700") == 2 - sum("looked up" in line for line in result.notes)


def test_a_rule_without_a_table_reject(tmp_path: Path) -> None:
    with pytest.raises(qcc.QccError, match="Q691"):
        qcc.compile(_model(tmp_path), policy("rule gelu { when = always }", tmp_path), output=tmp_path / "out.onnx")


@pytest.mark.parametrize("text", ["table = 8", "table = 5000"])
def test_sizes_reject(text: str, tmp_path: Path) -> None:
    with pytest.raises(qcc.QccError, match="from 16 to 4096"):
        qcc.compile(_model(tmp_path), policy(f"rule gelu {{ {text} }}", tmp_path), output=tmp_path / "out.onnx")


def test_a_table_clips() -> None:
    table = LookupTable(np.arange(4, dtype=np.float32), np.float32(0.5), 1)
    assert table(np.array([-9, -0.5, 0, 0.3, 1, 99])).tolist() == [0, 0, 1, 2, 3, 3]
    assert [float(end) for end in table.ends] == [-0.5, 1.0]
