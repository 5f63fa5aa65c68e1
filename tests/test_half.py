"""Half precision of the whole graph: what loses its numbers stays float32, and the file computes what it says."""

from collections.abc import Mapping
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import qcc
from qcc.compiler.files.open_model import cleaned_model
from qcc.compiler.measure.half_bounds import value_bounds
from qcc.compiler.plan.bind import bind
from qcc.compiler.plan.costs import SIZE
from qcc.compiler.plan.policy import load_policy
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.text import to_text
from qcc.compiler.report.console import write_report
from qcc.compiler.report.failures import failed_bounds
from qcc.compiler.report.result import Result
from qcc.compiler.runtime import half_served
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.diagnostics.source import Source
from qcc.ir.errors import Refused
from qcc.ir.graph.ops import Array
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.model import OnnxModel
from qcc.ir.open_file import open_file
from qcc.passes.contract.contract import Context
from qcc.passes.half.half import Half
from qcc.passes.half.sides import CAST_BYTES, FLOAT_BYTES, Flowing, sides
from tests.onnx_models import parse, random

BODY = """
g (float[N, 8] x) => (float[N, 4] y) {
    h = MatMul (x, w)
    r = Relu (h)
    big = Mul (r, thousands)
    less = Mul (big, thousandth)
    y = MatMul (less, v)
}
"""
WEIGHTS = {
    "w": random(8, 32),
    "v": random(32, 4, seed=1),
    "thousands": np.array(1e5, np.float32),
    "thousandth": np.array(1e-5, np.float32),
}
SMALL = "g (float[N, 8] x) => (float[N, 4] y) { h = MatMul (x, w)\n r = Relu (h)\n y = MatMul (r, v) }"
LARGE = {"w": random(8, 512), "v": random(512, 4)}
NORM = "g (float[N, 8] x) => (float[N, 8] y) { s = Softmax (x)\n t = Mul (s, s)\n y = Softmax (t) }"


def written(body: str, folder: Path, weights: Mapping[str, Array] | None = None) -> Path:
    path = folder / "net.onnx"
    onnx.save(parse(body, weights), path)
    return path


def compiled(path: Path, policy: str, rows: int = 16) -> tuple[Result, onnx.ModelProto]:
    x = np.random.default_rng(0).standard_normal((rows, 8), np.float32)
    result = qcc.compile(path, f"qpolicy 1\n{policy}\n", data=[{"x": one[None]} for one in x])
    return result, onnx.load(result.output)


def types(model: onnx.ModelProto) -> dict[str, int]:
    return {one.name: one.data_type for one in model.graph.initializer}


def casts(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "Cast" for node in model.graph.node)


def test_whole_graph(tmp_path: Path) -> None:
    result, model = compiled(
        written(SMALL, tmp_path, {"w": WEIGHTS["w"], "v": WEIGHTS["v"]}), "graph fp16\nverify { cosine >= 0.9999 }"
    )
    assert result.passed and set(types(model).values()) == {onnx.TensorProto.FLOAT16}
    assert casts(model) == 2
    fed, returned = model.graph.input[0].type.tensor_type, model.graph.output[0].type.tensor_type
    assert fed.elem_type == returned.elem_type == onnx.TensorProto.FLOAT
    assert "3 of 3 ops compute in fp16, between 2 casts" in result.notes
    assert {row.format for row in result.layers} == {"float16"}  # and so they are told
    assert sum(row.size_bytes for row in result.layers) == 2 * (8 * 32 + 32 * 4)


def test_what_overflows_stays_float(tmp_path: Path) -> None:
    result, model = compiled(written(BODY, tmp_path, WEIGHTS), "graph fp16\nverify { cosine >= 0.9999 }")
    assert result.passed
    kept = {name for name, dtype in types(model).items() if dtype == onnx.TensorProto.FLOAT}
    assert kept == {"thousands", "thousandth"} and casts(model) == 4
    assert any("2 stay float32, since their numbers overflow" in note for note in result.notes)


def test_bf16_has_the_range_and_is_not_run_here(tmp_path: Path) -> None:
    result, model = compiled(written(BODY, tmp_path, WEIGHTS), "graph bf16\nverify { cosine >= 0.999 }")
    assert set(types(model).values()) == {onnx.TensorProto.BFLOAT16} and casts(model) == 2
    assert result.passed and result.times is None
    assert [one.code for one in result.warnings] == ["Q542"]


@pytest.mark.parametrize(("floats", "codes"), [("fp16", []), ("bf16", ["Q542"])])
def test_what_is_too_large_to_be_looked_at_is_still_tried(
    floats: str, codes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that lie apart count: that the runtime cannot write all of it out is no fault of the model."""
    monkeypatch.setattr(half_served, "MOST_BYTES", 8 * 32 * 2)
    policy = f"graph {floats}\nexport {{ external_data = always }}"
    result, _ = compiled(written(SMALL, tmp_path, {"w": WEIGHTS["w"], "v": WEIGHTS["v"]}), policy)
    assert result.data is not None and [one.code for one in result.warnings if one.code == "Q542"] == codes
    assert not any("with casts of its own" in note for note in result.notes)


@pytest.mark.parametrize(("floats", "told"), [("graph fp16", True), ("", False)])
def test_what_was_run_in_place_of_the_file_is_told_everywhere(
    floats: str, told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, _ = compiled(written(SMALL, tmp_path, LARGE), f"{floats}\nrule linear {{ weights = int8 }}")
    copy = "a copy of it whose ops each round what they make to fp16"
    assert result.verification.stand_in.startswith(copy) == told
    write_report(result)
    places = {
        "console": " ".join(capsys.readouterr().out.split()),
        "page": result.report.read_text(encoding="utf-8"),
        "lock": result.lock.read_text(encoding="utf-8"),
        "notebook": result._repr_html_(),
    }
    assert {name for name, text in places.items() if copy in text} == (set(places) if told else set())
    assert ("The written file and the original" in places["page"]) != told


def test_a_failure_tells_what_was_run(tmp_path: Path) -> None:
    path = written(SMALL, tmp_path, {"w": WEIGHTS["w"], "v": WEIGHTS["v"]})
    result = qcc.compile(path, "qpolicy 1\ngraph fp16\nverify { sqnr >= 140 dB }\n")
    (one,) = failed_bounds(result)
    assert "not the file was run, but a copy of it" in (one.note or "")


def test_with_encoded_weights(tmp_path: Path) -> None:
    policy = "graph fp16\nrule linear { weights = int8 channel }\nverify { cosine >= 0.999 }"
    result, _ = compiled(written(SMALL, tmp_path, LARGE), policy)
    assert result.passed and {row.format for row in result.layers} == {"int8 channel sym scale fp16"}
    assert any(note.startswith("3 of 3 ops compute in fp16") for note in result.notes)


def test_epsilon_that_becomes_zero_stays(tmp_path: Path) -> None:
    body = "g (float[N, 8] x) => (float[N, 8] y) { s = Mul (x, x)\n t = Mul (s, z)\n u = Add (t, e)\n y = Div (x, u) }"
    weights: dict[str, Array] = {"e": np.array(1e-9, np.float32), "z": np.array(0, np.float32)}
    result, model = compiled(written(body, tmp_path, weights), "graph fp16\nverify { cosine >= 0.99 }")
    assert result.passed and types(model)["e"] == onnx.TensorProto.FLOAT


def test_without_data_softmax_stays_unless_bounded(tmp_path: Path) -> None:
    result = qcc.compile(written(NORM, tmp_path), "qpolicy 1\ngraph fp16\n")
    lines = [note for note in result.notes if "nothing bounds" in note]
    assert len(lines) == 1 and lines[0].startswith("1 stays")  # the second one's operand is at most one


@pytest.mark.sampled
@pytest.mark.parametrize("op", ["ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceProd"])
def test_without_data_every_sum_stays(op: str, tmp_path: Path) -> None:
    body = f"g (float[N, 8] x) => (float[N, 4] y, float[N, 1] z) {{ y = MatMul (x, v)\n z = {op} <axes = [1]> (x) }}"
    result = qcc.compile(written(body, tmp_path, {"v": random(8, 4)}), "qpolicy 1\ngraph fp16\n")
    assert any(note.startswith("1 stays float32, since without data nothing bounds") for note in result.notes)


def test_emulation_rounds_every_result(tmp_path: Path) -> None:
    """A sum of four numbers, op by op, is numpy's in float16; the runtime leaves the roundings between out."""
    body = "g (float[N] x) => (float[N] y) { a = Add (x, p)\n b = Add (a, q)\n y = Sub (b, p) }"
    path = written(body, tmp_path, {"p": np.array(2048, np.float32), "q": np.array(0.75, np.float32)})
    graph = OnnxGraph.load(path)
    graph.simplify()
    half, _ = Half("fp16").apply(graph, (), Context(halves=dict.fromkeys(graph.castable("float16"), "")))
    half.save(tmp_path / "half.onnx")
    x = np.linspace(-3, 3, 33, dtype=np.float32)
    found = OnnxModel(path).emulation(tmp_path / "half.onnx")({"x": x})["y"]
    wanted = ((x.astype(np.float16) + np.float16(2048)) + np.float16(0.75)) - np.float16(2048)
    np.testing.assert_array_equal(found, wanted.astype(np.float32))


def test_constant_that_others_read_stays_for_them(tmp_path: Path) -> None:
    body = "g (float[N, 8] x) => (float[N, 8] y, float[8] z) { y = Mul (x, c)\n z = Mul (c, d) }"
    graph = OnnxGraph.load(written(body, tmp_path, {"c": random(8), "d": random(8)}))
    graph.simplify()
    one = next(op.name for op in graph.ops() if "x" in op.inputs)
    graph.cast({one}, "float16")
    assert graph.value("c").dtype == "float32"
    graph.save(tmp_path / "cast.onnx")
    onnx.checker.check_model(tmp_path / "cast.onnx", full_check=True)


def test_cast_reject(tmp_path: Path) -> None:
    graph = OnnxGraph.load(written(SMALL, tmp_path, {"w": WEIGHTS["w"], "v": WEIGHTS["v"]}))
    before = graph.digest()
    with pytest.raises(Refused, match="`nothing` cannot compute in float16"):
        graph.cast({"nothing"}, "float16")
    assert graph.digest() == before


def _moved(values: Flowing, half: frozenset[str]) -> int:
    """What a choice costs, told from its definition."""
    total = 0
    for op in set(values.made.values()) - half:
        around = {name for name in values.sizes if values.made.get(name) == op or op in values.read[name]}
        total += FLOAT_BYTES * (values.weights.get(op, 0) + sum(values.sizes[name] for name in around))
    for name, op in values.made.items():
        sides_of = {reader in half for reader in values.read[name]}
        total += CAST_BYTES * values.sizes[name] * len(sides_of - {op in half})
    return total


@pytest.mark.parametrize("seed", range(12))
def test_casts_are_fewest(seed: int) -> None:
    """No choice of up to eight ops moves fewer bytes: all are tried."""
    rng = np.random.default_rng(seed)
    ops = [f"op{at}" for at in range(8)]
    made = {f"v{at}": op for at, op in enumerate(ops)}
    read: dict[str, list[str]] = {name: [] for name in ("x", *made)}
    for at, op in enumerate(ops):
        for name in {str(rng.choice(["x", *[f"v{one}" for one in range(at)]])) for _ in range(2)}:
            read[name].append(op)
    sizes = {name: int(rng.integers(1, 50)) for name in read}
    weights = {op: int(rng.choice([0, 0, 60])) for op in ops}
    values = Flowing(made, read, sizes, weights)
    free = {op for op in ops if rng.random() < 0.75}
    tried = chain.from_iterable(combinations(sorted(free), count) for count in range(len(free) + 1))
    assert _moved(values, sides(values, free)) == min(_moved(values, frozenset(one)) for one in tried)


def test_bounds_hold(tmp_path: Path) -> None:
    body = """
    g (float[N, 8] x) => (float[N, 4] y) {
        s = Sigmoid (x)
        h = MatMul (s, w)
        r = Relu (h)
        d = Sub (r, s2)
        n = LayerNormalization (d, gain, shift)
        m = Mul (n, n)
        y = MatMul (m, v)
    }
    """
    weights = {"w": random(8, 32), "v": random(32, 4), "s2": random(32), "gain": random(32), "shift": random(32)}
    graph = OnnxGraph.load(written(body, tmp_path, weights))
    graph.simplify()
    found = value_bounds(graph)
    names = [name for op in graph.ops() for name in op.outputs]
    seen = graph.runner(["x"], names)({"x": 100 * random(200, 8, seed=3)})
    assert all(np.abs(seen[name]).max() <= found[name] for name in names)
    assert np.isfinite(found["y"])


TRAPS: dict[str, tuple[str, dict[str, Array]]] = {
    "clipped up": ("y = Clip (s, lo, hi)", {"lo": np.array(5, np.float32), "hi": np.array(9, np.float32)}),
    "clipped down": ("y = Clip (s, , hi)", {"hi": np.array(-5, np.float32)}),
    "a weight on the left": ("y = MatMul (w, s)", {"w": random(8, 8) / 100}),
    "a scaled product": ("y = Gemm <alpha = 7.0> (s, w)", {"w": random(8, 8)}),
    "a scaled bias": ("y = Gemm <beta = 9.0> (s, w, b)", {"w": random(8, 8), "b": 30 * random(8)}),
    "a norm of two axes": ("t = Mul (x, spike)\n y = LayerNormalization <axis = 0> (t, one)",
                           {"one": np.ones((8, 8), np.float32), "spike": np.diag(np.eye(8, dtype=np.float32)[0])}),
    "a norm's mean": ("t, y, u = LayerNormalization (x, one)", {"one": np.ones(8, np.float32)}),
    "a mean of two": ("t = Mul (s, big)\n y = Mean (s, t)", {"big": np.array(500, np.float32)}),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAPS)
def test_bounds_hold_of_what_looks_bounded(name: str, tmp_path: Path) -> None:
    text, weights = TRAPS[name]
    body = f"g (float[8, 8] x) => (float[8, m] y) {{ s = Sigmoid (x)\n {text} }}"
    graph = OnnxGraph.load(written(body, tmp_path, weights))
    graph.simplify()
    seen = graph.runner(["x"], ["y"])({"x": 100 * random(8, 8, seed=3)})["y"]
    assert np.abs(seen).max() <= value_bounds(graph)["y"] * (1 + 1e-6)  # both are sums of float32


@pytest.mark.parametrize(
    ("text", "bound"), [("y = Clip (s, lo, hi)", 1), ("y = Conv (s, w)", 12), ("y = Conv (s, w, b)", 14)]
)
def test_bounds_are_near(text: str, bound: float, tmp_path: Path) -> None:
    weights = {"lo": np.array(-3, np.float32), "hi": np.array(3, np.float32), "w": np.ones((2, 4, 3), np.float32)}
    body = f"g (float[1, 4, 8] x) => (float[1, n, m] y) {{ s = Sigmoid (x)\n {text} }}"
    weights["b"] = np.full(2, 2, np.float32)
    graph = OnnxGraph.load(written(body, tmp_path, {one: array for one, array in weights.items() if one in text}))
    graph.simplify()
    assert value_bounds(graph)["y"] == bound


@pytest.mark.slow
def test_plan_reads_back(tmp_path: Path) -> None:
    result, model = compiled(
        written(SMALL, tmp_path, {"w": WEIGHTS["w"], "v": WEIGHTS["v"]}), "graph fp16\nrule any { keep }"
    )
    text = to_text(result.plan)
    assert "half(floats = fp16)" in text and from_text(Source("plan", text)) == result.plan
    again = qcc.compile(tmp_path / "net.onnx", output=tmp_path / "again.onnx", plan=result.plan)
    assert types(onnx.load(again.output)) == types(model)


def test_float_takes_it_back(tmp_path: Path) -> None:
    (tmp_path / "base.qpolicy").write_text("qpolicy 1\ngraph fp16\nrule any { keep }\n", encoding="utf-8")
    main = tmp_path / "main.qpolicy"
    main.write_text('qpolicy 1\nuse "base.qpolicy"\ngraph float\n', encoding="utf-8")
    assert load_policy(main).floats is None
    assert load_policy(tmp_path / "base.qpolicy").floats is not None


def test_a_word_still_names_what_it_named() -> None:
    """`graph` begins a statement and is a value elsewhere."""
    policy = load_policy('qpolicy 1\ngraph fp16\nrule embedding { rows = graph("links.npz", resolution = 2) }\n')
    assert policy.rules[0].assignments[0].text.startswith("graph(")


def test_nothing_in_half_reject(tmp_path: Path) -> None:
    body = "g (float16[N, 8] x) => (float16[N, 8] y) { y = Relu (x) }"
    with pytest.raises(qcc.QccError) as caught:
        qcc.compile(written(body, tmp_path), "qpolicy 1\ngraph fp16\n")
    assert [one.code for one in caught.value.diagnostics] == ["Q541"]


@pytest.mark.slow
def test_module_reject(tmp_path: Path) -> None:
    with pytest.raises(qcc.QccError) as caught:
        qcc.compile(
            torch.nn.Linear(8, 8),
            "qpolicy 1\ngraph fp16\n",
            example_inputs=(torch.zeros(1, 8),),
            output=tmp_path / "a.pt2",
        )
    assert [one.code for one in caught.value.diagnostics] == ["Q541"]


def test_what_stays_float_takes_two_bytes_for_the_allocator(tmp_path: Path) -> None:
    path = written(SMALL, tmp_path, {"w": WEIGHTS["w"], "v": WEIGHTS["v"]})
    sizes = {}
    for graph in ("float", "fp16"):
        text = f"qpolicy 1\ngraph {graph}\nrule any {{ weights = float | int8 channel }}\nbudget {{ bits <= 20 }}\n"
        (tmp_path / "open.qpolicy").write_text(text, encoding="utf-8")
        opened = cleaned_model(open_file(path), path)
        plan = bind(load_policy(tmp_path / "open.qpolicy"), opened.graph, opened.size_bytes, Diagnostics())
        assert plan.allocate is not None
        sizes[graph] = [one.candidates[0].costs[SIZE] for one in plan.allocate.options]
    assert sizes["fp16"] == [one / 2 for one in sizes["float"]]
