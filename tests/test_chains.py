"""What stands between layers on whole numbers: it joins them where all that it reads is rounded, and only there."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.compiler.runtime.session import Session
from qcc.dsl.load import load_text
from qcc.ir.encoding.value import STATIC_BYTES, EncodedValue
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.regions.flow import Flow
from qcc.passes.contract.chains import joined
from tests import onnx_models
from tests.onnx_models import random
from tests.test_static_conv import cleaned, optimised

POLICY = "qpolicy 1\nrule any { weights = int8 channel }\nrule linear, conv { activations = static }\n"
BODIES = {
    "residual": "c = Conv <pads = [1, 1, 1, 1]> (x, w3) a = Relu(c) d = Conv(a, w1) s = Add(a, d) r = Relu(s) "
    "y = Conv(r, w1)",
    "shortcut": "c = Conv <pads = [1, 1, 1, 1]> (x, w3) a = Relu(c) h = Slice(a, begin, end, axes, two) "
    "p = Pad(h, pads) d = Conv <strides = [2, 2]> (a, wide) s = Add(d, p) y = Conv(s, w2)",
    "padded": "a = Conv(x, w1) p = Pad <mode = \"reflect\"> (a, pads4) y = Conv(p, w3)",
    "gate": "a = Conv(x, w1) m = GlobalAveragePool(a) e = Conv(m, w1) g = Sigmoid(e) s = Mul(a, g) y = Conv(s, w1)",
    "shuffle": "a = Conv(x, w1) l, r = Split <axis = 1> (a, halves) h = Conv(r, half) "
    "t = Concat <axis = 1> (l, h) y = Conv(t, w1)",
    "bias": "a = Conv(x, w1) s = Add(a, apart) r = Relu(s) y = Conv(r, w1)",
    "pools": "a = Conv(x, w1) m = MaxPool <kernel_shape = [2, 2]> (a) p = AveragePool <kernel_shape = [2, 2]> (m) "
    "y = Conv(p, w1)",
    "head": "a = Conv(x, w1) m = GlobalAveragePool(a) f = Flatten(m) z = Gemm <transB = 1> (f, fc, b) "
    "y = Unsqueeze(z, axes)",
}  # fmt: skip
ARRAYS = {
    "w1": random(64, 64, 1, 1), "w3": random(64, 64, 3, 3, seed=1), "wide": random(128, 64, 1, 1, seed=2),
    "w2": random(64, 128, 1, 1, seed=3), "half": random(32, 32, 1, 1, seed=4), "apart": random(1, 64, 1, 1, seed=5),
    "fc": random(64, 64, seed=6), "b": random(64, seed=7), "begin": np.array([0, 0]), "end": np.array([99, 99]),
    "axes": np.array([2, 3]), "two": np.array([2, 2]), "pads": np.array([0, 32, 0, 0, 0, 32, 0, 0]),
    "halves": np.array([32, 32]), "pads4": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
}  # fmt: skip
FLOATS = {
    "Conv",
    "FusedConv",
    "Relu",
    "Add",
    "Mul",
    "Concat",
    "Sigmoid",
    "AveragePool",
    "GlobalAveragePool",
    "Gemm",
    "MatMul",
}


def saved(body: str, path: Path) -> Path:
    text = f"g (float[n, 64, 8, 8] x) => (float[n, c, k, l] y) {{ {body} }}"
    used = {name: array for name, array in ARRAYS.items() if name in body}
    onnx.save(onnx_models.parse(text, used, opset=21, ir_version=10), path)
    return path


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize("name", BODIES)
def test_a_chain_stays_in_integers(name: str, tmp_path: Path) -> None:
    """By the runtime's own optimised graph: one value is rounded, the input, and one is decoded, the result."""
    path, x = saved(BODIES[name], tmp_path / "g.onnx"), random(12, 64, 8, 8, seed=9)
    result = qcc.compile(path, load_text(POLICY, schema()), data=[{"x": x}])
    ops = optimised(result.output, tmp_path)
    linear = name == "head"  # makes floats of integers itself, and adds its bias to them
    assert ops.count("QuantizeLinear") == 1 and ops.count("DequantizeLinear") == (not linear)
    assert not (FLOATS - {"Add"} if linear else FLOATS) & {*ops}
    found, wanted = Session(result.output, False).run({"x": x})["y"], Session(path, False).run({"x": x})["y"]
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)


def rounded(body: str, *names: str) -> list[str]:
    """The values that join where some are rounded."""
    with tempfile.TemporaryDirectory() as folder:
        flow = Flow(OnnxGraph.load(saved(body, Path(folder) / "g.onnx")))
    return [result for one in joined(flow, names) for result in one.results]


def test_what_joins() -> None:
    residual = "s = Add(x, apart) r = Relu(s) t = Transpose <perm = [0, 1, 3, 2]> (r) y = Conv(t, w1)"
    assert rounded(residual, "x", "t") == ["r", "t"]
    assert rounded("s = Add(x, x) y = Conv(s, w1)", "x", "s") == ["s"]


@pytest.mark.parametrize(
    "body",
    [
        "e = Exp(x) s = Add(x, e) y = Conv(s, w1)",
        "s = Div(x, x) y = Conv(s, w1)",
        "s = Softmax(x) y = Conv(s, w1)",
        "s = Sum(x, x, x) y = Conv(s, w1)",
    ],
)
def test_what_does_not_join_reject(body: str) -> None:
    """What has no op of integers, or reads floats beside rounded values."""
    assert rounded(body, "x", "s") == []


def test_what_leads_to_no_integers_reject() -> None:
    assert rounded("s = Add(x, x) y = Exp(s)", "x") == []


@pytest.mark.parametrize(("largest", "joins"), [(1.5, ["s"]), (300.0, [])])
def test_factors_that_are_uneven_reject(largest: float, joins: list[str]) -> None:
    """Steps of channels would be lost: what is multiplied has one step for all, before and behind."""
    factors = np.ones((1, 64, 1, 1), np.float32)
    factors[0, 0] = largest
    with tempfile.TemporaryDirectory() as folder:
        text = "g (float[n, 64, 8, 8] x) => (float[n, c, k, l] y) { s = Mul(x, factors) y = Conv(s, w1) }"
        path = Path(folder) / "g.onnx"
        onnx.save(onnx_models.parse(text, {"factors": factors, "w1": ARRAYS["w1"]}, opset=21, ir_version=10), path)
        flow = Flow(OnnxGraph.load(path))
    assert [result for one in joined(flow, ("x", "s")) for result in one.results] == joins


def test_a_pad_of_other_numbers_reject() -> None:
    """Zeros alone have a code in every range."""
    body = "seven = Constant <value = float {7}> () p = Pad(x, pads4, seven) y = Conv(p, w1)"
    assert rounded(body, "x", "p") == []
    assert rounded("p = Pad(x, pads4) y = Conv(p, w1)", "x", "p") == ["p"]


def test_numbers_that_are_moved_are_rounded_once(tmp_path: Path) -> None:
    """In any order of asking the codes move, and what made others before goes."""
    how = EncodedValue(STATIC_BYTES, np.float32(0.05), 100)
    body, x = "s = Relu(x) p = Pad(s, pads4) y = Relu(p)", random(3, 64, 8, 8)
    for before in (False, True):
        graph = cleaned(saved(body, tmp_path / "g.onnx"))
        last = next(op.name for op in graph.ops() if op.inputs[:1] == ("p",))
        asked: list[tuple[str, list[tuple[str, int]] | None]] = [("s", None), ("p", None)]
        for name, readers in ([("p", [(last, 0)])] if before else []) + asked:
            graph.encode_value(name, how, readers)
        ops = [op.function for op in graph.ops()]
        assert ops.count("QuantizeLinear") == 1 and ops.count("pad") == 1
        found = graph.runner(["x"], ["y"])({"x": x})["y"]
        wanted = np.pad(how.rounded(np.maximum(x, 0)), ((0, 0), (0, 0), (1, 1), (1, 1)))
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.slow
def test_a_small_weight_does_not_cut_a_chain(tmp_path: Path) -> None:
    """Encoded it takes more bytes; without activations it is kept for that."""
    body = "a = Conv(x, w1) b = Conv <group = 64> (a, d) y = Conv(b, w1)"
    text = f"g (float[n, 64, 8, 8] x) => (float[n, c, k, l] y) {{ {body} }}"
    arrays = {"w1": ARRAYS["w1"], "d": random(64, 1, 1, 1)}
    onnx.save(onnx_models.parse(text, arrays, opset=21, ir_version=10), tmp_path / "g.onnx")
    x = random(12, 64, 8, 8, seed=9)
    result = qcc.compile(tmp_path / "g.onnx", load_text(POLICY, schema()), data=[{"x": x}])
    assert [row.form for row in result.layers] == ["bytes", "bytes"]
    off = load_text(POLICY + "rule conv { activations = off }", schema())
    result = qcc.compile(tmp_path / "g.onnx", off, data=[{"x": x}])
    assert [row.form for row in result.layers] == ["decoded", ""]
