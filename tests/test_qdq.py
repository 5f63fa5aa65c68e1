"""Graphs for other execution providers: what is written keeps their rules, and each rule is seen when broken."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.__main__ import main
from qcc.compiler.plan.catalog import schema
from qcc.compiler.report.result import Result
from qcc.compiler.runtime.session import Session
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import load_text
from qcc.ir.forms.qdq_rules import qdq_rules
from qcc.ir.onnx.qdq.check_qdq import qdq_faults
from tests import onnx_models
from tests.onnx_models import random

BODY = """net (float[n, 16, 8, 8] x) => (float[n, 10] y) {
    a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, wa, ba)  r = Relu(a)
    d = Conv <kernel_shape = [3, 3], group = 32, pads = [1, 1, 1, 1]> (r, wd, bd)
    s = Add(d, r)  p = GlobalAveragePool(s)  f = Flatten(p)
    g = Gemm <transB = 1> (f, wg, bg)  t = Tanh(g)  y = MatMul(t, wm)
}"""
WEIGHTS = {
    "wa": random(32, 16, 3, 3), "ba": random(32, seed=1), "wd": random(32, 1, 3, 3, seed=2), "bd": random(32, seed=3),
    "wg": random(64, 32, seed=4) / 8, "bg": random(64, seed=5), "wm": random(64, 10, seed=6),
}  # fmt: skip
POLICIES = {
    "tensorrt": "rule any { weights = int8 channel; activations = static }",
    "openvino": "rule any { weights = int8 channel; activations = static }",
    "qnn": "rule any { weights = int8 tensor; activations = static }\nrule conv { weights = int8 channel }",
}
NOISE = 0.01  # of the signal: eight bits everywhere, weights of one scale among them


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qdq") / "net.onnx"
    onnx.save(onnx_models.parse(BODY, WEIGHTS, opset=17), path)
    return path


def compiled(net: Path, provider: str, out: Path, policy: str = "") -> Result:
    text = f"qpolicy 1\ntarget qdq({provider})\n{policy or POLICIES[provider]}\n"
    return qcc.compile(net, text, data=[{"x": random(1, 16, 8, 8, seed=at)} for at in range(8)], output=out)


@pytest.mark.parametrize("provider", qdq_rules())
def test_what_is_written_keeps_the_rules_and_computes_the_same(net: Path, provider: str, tmp_path: Path) -> None:
    result = compiled(net, provider, tmp_path / "out.onnx")
    assert {row.form for row in result.layers} == {f"qdq_{provider}"}
    assert not qdq_faults(tmp_path / "out.onnx", qdq_rules()[provider])
    feeds = {"x": random(1, 16, 8, 8, seed=0)}
    wanted, found = (Session(path, False).run(feeds)["y"] for path in (net, tmp_path / "out.onnx"))
    assert np.square(found - wanted).sum() <= NOISE * np.square(wanted).sum()
    assert result.times is None  # nothing of it is what the provider takes


def test_values_of_sixteen_bits(net: Path, tmp_path: Path) -> None:
    """QNN takes them, also where an op must have a step of its own."""
    policy = POLICIES["qnn"].replace("static", "static(bits = 16)")
    result = compiled(net, "qnn", tmp_path / "out.onnx", policy)
    assert {row.form for row in result.layers} == {"qdq_qnn"}
    assert not qdq_faults(tmp_path / "out.onnx", qdq_rules()["qnn"])
    assert {"uint16"} == {str(one) for one in _codes_of_values(tmp_path / "out.onnx")}
    feeds = {"x": random(1, 16, 8, 8, seed=0)}
    wanted, found = (Session(path, False).run(feeds)["y"] for path in (net, tmp_path / "out.onnx"))
    assert np.square(found - wanted).sum() <= NOISE / 2 * np.square(wanted).sum()


def _codes_of_values(path: Path) -> set[np.dtype]:
    graph = onnx.load(path).graph
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    return {arrays[node.input[2]].dtype for node in graph.node if node.op_type == "QuantizeLinear"}


@pytest.mark.parametrize(("provider", "bits"), [("openvino", 16), ("qnn", 12), ("qnn", 4), ("tensorrt", 4)])
def test_values_of_other_bits_reject(net: Path, provider: str, bits: int, tmp_path: Path) -> None:
    policy = POLICIES["openvino"].replace("static", f"static(bits = {bits})")
    result = compiled(net, provider, tmp_path / "out.onnx", policy)
    told = {one.message for one in result.warnings if one.code == "Q313"}
    assert any(f"takes values of {'8 or 16' if provider == 'qnn' else 8} bits" in one for one in told)


def test_other_providers_take_less(net: Path, tmp_path: Path) -> None:
    compiled(net, "openvino", tmp_path / "out.onnx")
    assert any("and must be 0" in one for one in qdq_faults(tmp_path / "out.onnx", qdq_rules()["tensorrt"]))
    assert any("its bias must be codes" in one for one in qdq_faults(tmp_path / "out.onnx", qdq_rules()["qnn"]))


def test_channels_where_the_provider_has_none_stay_float(net: Path, tmp_path: Path) -> None:
    result = compiled(net, "qnn", tmp_path / "out.onnx", POLICIES["tensorrt"])
    told = [one.message for one in result.warnings if one.code == "Q313"]
    assert any("one scale for all of a weight of MatMul" in one for one in told)
    assert {row.form for row in result.layers if "conv" in row.kinds} == {"qdq_qnn"}


def test_a_target_names_one_provider_reject() -> None:
    for words in ("", "(tensorrt, qnn)"):
        with pytest.raises(QccError) as caught:
            load_text(f"qpolicy 1\ntarget qdq{words}\nrule any {{ weights = int8 }}", schema())
        assert [one.code for one in caught.value.diagnostics] == ["Q250"]
    with pytest.raises(QccError) as caught:
        load_text("qpolicy 1\ntarget qdq(cuda)\nrule any { weights = int8 }", schema())
    assert [one.code for one in caught.value.diagnostics] == ["Q226"]


def test_a_model_that_breaks_the_rules_itself_reject(tmp_path: Path) -> None:
    body = (
        "net (float[n, 64] x) => (float[n, 64] y) { c = QuantizeLinear(x, s, z) d = DequantizeLinear(c, s, z) "
        "y = MatMul(d, w) }"
    )
    own: dict[str, np.ndarray] = {"s": np.array(0.1, np.float32), "z": np.array(3, np.uint8), "w": random(64, 64)}
    onnx.save(onnx_models.parse(body, own), tmp_path / "m.onnx")
    text = "qpolicy 1\ntarget qdq(tensorrt)\nrule any { weights = int8 channel }"
    with pytest.raises(QccError) as caught:
        qcc.compile(tmp_path / "m.onnx", text, output=tmp_path / "o.onnx")
    assert caught.value.diagnostics[0].code == "Q662" and not (tmp_path / "o.onnx").exists()


def coded(kind: type, zero: int, opset: int = 21, scale: object = 0.1, then: str = "Relu") -> onnx.ModelProto:
    """A value that is rounded and read by one op."""
    ops = f"c = QuantizeLinear(x, s, z) d = DequantizeLinear(c, s, z) y = {then}(d)"
    body = f"n (float[2, 4] x) => (float[2, 4] y) {{ {ops} }}"
    scales = np.asarray(scale, np.float32)
    return onnx_models.parse(body, {"s": scales, "z": np.full(scales.shape, zero, kind)}, opset=opset, ir_version=10)


def layer(op: str, axis: int, bias: str = "float", weight: type = np.int8, scale: float = 0.02) -> onnx.ModelProto:
    """A layer whose weight has codes, and a bias that is stored in one of some ways."""
    shape, fed = ((4, 4, 1, 1), "2, 4, 5, 5") if op.startswith("Conv") else ((4, 4), "2, 4")
    decoded = {"float": "", "int32": "bb = DequantizeLinear <axis = 0> (b, bs) "}[bias]
    body = (
        f"n (float[{fed}] x) => (float y) {{ c = QuantizeLinear(x, s, z) d = DequantizeLinear(c, s, z) "
        f"ww = DequantizeLinear <axis = {axis}> (w, ws, wz) {decoded}y = {op}(d, ww, {'bb' if decoded else 'b'}) }}"
    ).replace("MatMul(d, ww, b)", "MatMul(d, ww)")
    stored = np.ones(4, np.int32) if decoded else np.ones(4, np.float32)
    arrays: dict[str, np.ndarray] = {
        "s": np.array(0.1, np.float32), "z": np.array(0, np.int8), "w": np.ones(shape, weight), "b": stored,
        "ws": np.full(4, 0.2, np.float32), "wz": np.zeros(4, weight), "bs": np.full(4, scale, np.float32),
    }  # fmt: skip
    return onnx_models.parse(body, arrays, opset=21, ir_version=10)


BROKEN = {
    "zeros": ("tensorrt", coded(np.int8, 3), "the code of zero is 3"),
    "types": ("tensorrt", coded(np.uint8, 0), "codes are uint8, and must be int8"),
    "sixteen bits": ("openvino", coded(np.uint16, 0), "codes are uint16"),
    "a scale a channel of a value": ("openvino", coded(np.uint8, 0, scale=[0.1] * 4), "4 scales"),
    "the axis": ("tensorrt", layer("Conv", 1), "lie along axis 1, and must along 0"),
    "the other axis": ("openvino", layer("MatMul", 0), "lie along axis 0, and must along 1"),
    "no axis": ("qnn", layer("MatMul", 1), "MatMul takes one scale for all"),
    "types of weights": ("tensorrt", layer("Conv", 0, weight=np.uint8), "codes are uint8, and must be int8"),
    "a bias of codes": ("tensorrt", layer("Conv", 0, "int32"), "its bias has codes"),
    "a bias of floats": ("qnn", layer("Conv", 0), "its bias must be codes in int32"),
    "a bias of another scale": ("qnn", layer("Conv", 0, "int32", scale=0.03), "the scale of its bias"),
    "results": ("qnn", layer("Conv", 0, "int32"), "what it makes is not rounded"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_every_rule_is_seen_when_broken_reject(name: str, tmp_path: Path) -> None:
    provider, model, told = BROKEN[name]
    onnx.save(model, tmp_path / "m.onnx")
    assert any(told in one for one in qdq_faults(tmp_path / "m.onnx", qdq_rules()[provider]))


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("tensorrt", coded(np.int8, 0)),
        ("openvino", coded(np.uint8, 7)),
        ("qnn", coded(np.uint16, 7)),
        ("tensorrt", layer("Conv", 0)),
        ("openvino", layer("MatMul", 1)),
    ],
)
def test_what_keeps_the_rules_is_taken(provider: str, model: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(model, tmp_path / "m.onnx")
    assert not qdq_faults(tmp_path / "m.onnx", qdq_rules()[provider])


@pytest.mark.parametrize(("step", "good"), [(1 / 65536, True), (1 / 256, False)])
def test_sigmoids_of_sixteen_bits_have_one_step(step: float, good: bool, tmp_path: Path) -> None:
    ops = "a = Sigmoid(x) c = QuantizeLinear(a, s, z) y = DequantizeLinear(c, s, z)"
    body = f"n (float[2, 4] x) => (float[2, 4] y) {{ {ops} }}"
    arrays: dict[str, np.ndarray] = {"s": np.array(step, np.float32), "z": np.array(0, np.uint16)}
    onnx.save(onnx_models.parse(body, arrays, opset=21, ir_version=10), tmp_path / "m.onnx")
    assert bool(qdq_faults(tmp_path / "m.onnx", qdq_rules()["qnn"])) != good


def test_sixteen_bits_before_they_were_standard(tmp_path: Path) -> None:
    onnx.save(coded(np.uint16, 0, opset=19), tmp_path / "m.onnx")
    assert any("com.microsoft" in one for one in qdq_faults(tmp_path / "m.onnx", qdq_rules()["qnn"]))


def test_inspect_lists_what_breaks_the_rules(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compiled(net, "openvino", tmp_path / "out.onnx")
    assert main(["inspect", str(tmp_path / "out.onnx"), "--provider", "openvino"]) == 0
    assert main(["inspect", str(tmp_path / "out.onnx"), "--provider", "tensorrt"]) == 3
    assert "codes are uint8" in capsys.readouterr().out
