"""Static activations of convolutions: the file computes the reference, and the runtime computes it in integers."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.text import to_text
from qcc.compiler.report.lock import plan_of
from qcc.compiler.runtime.session import Session
from qcc.dsl.load import load_text
from qcc.ir.encoding import fit
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import TENSOR, group
from qcc.ir.encoding.encoded import Encoded, Scales, stored
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.value import DYNAMIC_INT8, STATIC_BYTES, STATIC_INT8, EncodedValue
from qcc.ir.errors import Refused
from qcc.ir.forms.bytes import BYTES
from qcc.ir.forms.integers import INTEGERS, MOST_ADDED
from qcc.ir.graph.form import Form
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.regions.flow import Flow
from qcc.passes.activations.static import Static
from qcc.passes.contract.magnitudes import Magnitudes
from qcc.passes.contract.places import places
from tests import onnx_models
from tests.onnx_models import random

INT8, INT7 = Blocked(IntGrid(8)), Blocked(IntGrid(7))
FORMS = [(BYTES, INT8), (INTEGERS, INT7), (INTEGERS, Blocked(IntGrid(4))), (INTEGERS, Blocked(IntGrid(3)))]
POLICY = "rule conv { weights = int8 channel; activations = static }\n"
ALIKE = 0.99  # of the outputs; float32 may round a value right between two integers to the other


def made(text: str, arrays: dict[str, np.ndarray]) -> OnnxGraph:
    """As it is loaded, with types and names."""
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(onnx_models.parse(text, arrays, opset=21, ir_version=10), f"{folder}/made.onnx")
        return cleaned(Path(folder) / "made.onnx")


def cleaned(path: Path) -> OnnxGraph:
    graph = OnnxGraph.load(path)
    graph.simplify()
    return graph


@dataclass(frozen=True)
class Case:
    """One convolution: its weight, its input without the batch, its attributes, and what stands behind it."""

    weight: tuple[int, ...]
    x: tuple[int, ...]
    attributes: str = ""
    behind: str = "y = Identity(c)"
    bias: bool = True
    op: str = "Conv"
    channels: int = 0
    more: dict[str, np.ndarray] = field(default_factory=dict)

    def graph(self) -> OnnxGraph:
        inputs = "x, w, b" if self.bias else "x, w"
        given = f"<{self.attributes}>" if self.attributes else ""
        x = ", ".join(map(str, ("n", *self.x)))
        y = ", ".join(f"y{at}" for at in range(len(self.x) + 1))
        text = f"g (float[{x}] x) => (float[{y}] y) {{ c = {self.op} {given} ({inputs}) {self.behind} }}"
        w = random(*self.weight, seed=1) * np.geomspace(0.05, 20, self.weight[0]).reshape(-1, *[1] * (len(self.x)))
        arrays = {"w": w.astype(np.float32), "b": random(self.channels or self.weight[0], seed=2), **self.more}
        return made(text, arrays)

    def feed(self) -> np.ndarray:
        return random(6, *self.x, seed=3)


def turned(weight: tuple[int, ...], x: tuple[int, ...], channels: int, attributes: str, bias: bool = True) -> Case:
    return Case(weight, x, attributes, bias=bias, op="ConvTranspose", channels=channels)


SIX = {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
CASES = {
    "1d": Case((8, 6, 3), (6, 20), "pads = [1, 1]"),
    "2d": Case((12, 5, 3, 3), (5, 9, 9), "pads = [1, 1, 1, 1]"),
    "3d": Case((6, 4, 2, 3, 1), (4, 5, 6, 7)),
    "point": Case((16, 24, 1, 1), (24, 7, 5)),
    "grouped": Case((12, 4, 3, 3), (16, 8, 8), "group = 4"),
    "depthwise": Case((16, 1, 3, 3), (16, 8, 8), "group = 16, pads = [1, 1, 1, 1], strides = [2, 2]"),
    "depthwise_1d": Case((8, 1, 5), (8, 16), "group = 8, pads = [2, 2]"),
    "depthwise_3d": Case((8, 1, 3, 3, 3), (8, 5, 5, 5), "group = 8"),
    "multiplied": Case((16, 1, 3, 3), (8, 8, 8), "group = 8"),
    "dilated": Case((8, 6, 3, 3), (6, 11, 11), "dilations = [2, 2], strides = [2, 1]"),
    "same": Case((8, 6, 4, 4), (6, 11, 11), 'auto_pad = "SAME_UPPER"'),
    "no_bias": Case((8, 6, 3, 3), (6, 8, 8), bias=False),
    "relu": Case((12, 5, 3, 3), (5, 9, 9), behind="y = Relu(c)"),
    "turned_1d": turned((6, 8, 4), (6, 9), 8, "strides = [2], pads = [1, 1]"),
    "turned_3": turned((5, 8, 3), (5, 9), 8, "strides = [3], pads = [0, 2], output_padding = [2]", bias=False),
    "turned_2d": turned((6, 8, 2, 2), (6, 5, 7), 8, "strides = [2, 2]"),
    "turned_odd": turned((6, 8, 3, 3), (6, 5, 7), 8, "strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1]"),
    "turned_grouped": turned((8, 3, 4, 3), (8, 5, 7), 12, "group = 4, strides = [2, 2], pads = [1, 0, 1, 1]"),
    "turned_depthwise": turned((8, 1, 4, 4), (8, 5, 7), 8, "group = 8, strides = [2, 2], pads = [1, 1, 1, 1]"),
    "turned_dilated": turned((6, 8, 3, 2), (6, 5, 7), 8, "strides = [2, 2], dilations = [2, 3], pads = [3, 1, 0, 2]"),
    "turned_3d": turned((4, 6, 2, 3, 2), (4, 4, 5, 6), 6, "pads = [1, 1, 0, 0, 2, 1]"),
    "turned_short": turned((6, 8, 2, 2), (6, 5, 7), 8, "strides = [4, 4], output_padding = [3, 3]"),
    "relu6": Case((12, 5, 3, 3), (5, 9, 9), behind="y = Clip(c, zero, six)", more=SIX),
}


def optimised(path: str | Path, folder: Path) -> list[str]:
    """The ops that the runtime runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


def encoded_values(graph: Graph, form: Form, x: np.ndarray) -> dict[str, EncodedValue]:
    """How what stands around the one convolution is encoded, by data."""
    (weight,) = graph.weights()
    found = places(Flow(graph), weight.reading(STATIC_BYTES), form)
    names = [place.value for place in found]
    seen = {**graph.runner(["x"], [name for name in names if name != "x"])({"x": x}), "x": x}
    return {name: Static().encoded(STATIC_BYTES, Magnitudes.of(seen[name])) for name in names}


def write(graph: OnnxGraph, form: Form, stored_as: Encoded, values: dict[str, EncodedValue]) -> None:
    (weight,) = graph.weights()
    for place in places(Flow(graph), weight, form):
        graph.encode_value(place.value, values[place.value], place.readers)
    (weight,) = graph.weights()
    assert weight.reads == {STATIC_BYTES}
    graph.encode(weight, stored_as, form)


@pytest.mark.sampled
@pytest.mark.parametrize(("form", "encoding"), FORMS, ids=["bytes", "int7", "int4", "int3"])
@pytest.mark.parametrize("name", CASES)
def test_integers_are_the_reference(name: str, form: Form, encoding: Blocked, tmp_path: Path) -> None:
    case = CASES[name]
    graph, x = case.graph(), case.feed()
    values = encoded_values(graph, form, x)
    (weight,) = graph.weights()
    codes = fit.encode(graph.matrix(weight), encoding)
    reference = graph.copy()
    reference.replace_constant("w", graph.as_constant(weight, codes.decode()))
    wanted = reference.runner(["x"], ["y"])({"x": values["x"].rounded(x)})["y"]
    write(graph, form, codes, values)
    graph.save(tmp_path / "made.onnx")
    found = Session(tmp_path / "made.onnx", False).run({"x": x})["y"]
    (last,) = (value for value in values if value != "x")
    steps = (found - values[last].rounded(wanted)) / values[last].step
    assert np.abs(steps).max() < 1.01 and (np.abs(steps) < 0.01).mean() > ALIKE
    ops = optimised(tmp_path / "made.onnx", tmp_path)
    assert ops.count("QLinearConv") == 1 and not {"Conv", "ConvTranspose", "FusedConv", "Relu", "Clip"} & {*ops}


CHAIN = """chain (float[n, 32, 12, 12] x) => (float[n, 32, 1, 1] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, wa, ba)  r = Relu(a)
    p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
    d = Conv <group = 32, pads = [1, 1, 1, 1]> (p, wd, bd)  s = Clip(d, zero, six)
    e = Conv(s, we)
    sum = Add(e, p)  t = Relu(sum)
    l = Conv(t, wl)  m = Conv(t, wm)  both = Concat <axis = 1> (l, m)
    o = Conv(both, wo)
    y = GlobalAveragePool(o)
}"""
WEIGHTS = {
    "wa": random(32, 32, 3, 3), "ba": random(32, seed=1), "wd": random(32, 1, 3, 3, seed=2), "bd": random(32, seed=3),
    "we": random(32, 32, 1, 1, seed=4), "wl": random(32, 32, 1, 1, seed=5), "wm": random(32, 32, 1, 1, seed=6),
    "wo": random(32, 64, 1, 1, seed=7), **SIX,
}  # fmt: skip


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    onnx.save(onnx_models.parse(CHAIN, WEIGHTS, opset=21, ir_version=10), tmp_path / "chain.onnx")
    return tmp_path / "chain.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("bits", [7, 8])
def test_a_chain_stays_in_integers(chain: Path, tmp_path: Path, bits: int) -> None:
    x = random(12, 32, 12, 12, seed=9)
    policy = load_text("qpolicy 1\n" + POLICY.replace("int8", f"int{bits}"), schema())
    result = qcc.compile(chain, policy, data=[{"x": x}])
    assert not [one.code for one in result.warnings if one.code != "Q507"]  # slower on a machine that does other work
    assert {row.form for row in result.layers} == {"bytes" if bits == 8 else "integers"}
    assert {row.format for row in result.layers} == {INT8.text if bits == 8 else INT7.text}
    ops = optimised(result.output, tmp_path)
    assert ops.count("QLinearConv") == 6 and ops.count("QLinearAdd") == 1 and ops.count("QLinearConcat") == 1
    assert ops.count("QuantizeLinear") == 1, "of the input alone"
    assert not {"Conv", "FusedConv", "Relu", "Clip", "Add", "Concat"} & {*ops}
    assert plan_of(result.lock) == result.plan and "activations = static(" in to_text(result.plan)
    found, wanted = Session(result.output, False).run({"x": x})["y"], Session(chain, False).run({"x": x})["y"]
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)


def test_each_value_is_rounded_once(chain: Path) -> None:
    """What others read too is rounded for those that run on integers alone; what a convolution makes, for all."""
    graph = cleaned(chain)
    for weight in graph.weights():
        for place in places(Flow(graph), weight.reading(STATIC_BYTES), INTEGERS):
            graph.encode_value(place.value, EncodedValue(STATIC_BYTES, np.float32(0.1), 3), place.readers)
    codes = [node.outputs[0].name for node in graph.model.graph if node.op_type == "QuantizeLinear"]
    assert len(codes) == len({*codes}) == 10  # x, r, p, s, e, t, l, m, both, o


@pytest.mark.parametrize("form", [BYTES, INTEGERS])
def test_a_bias_that_outweighs_all_else(form: Form, tmp_path: Path) -> None:
    """Channels of zeros, and of weights so small that their bias would not fit 31 bits, keep the bias."""
    case = Case((6, 5, 3, 3), (5, 9, 9))
    graph, x = case.graph(), case.feed()
    matrix = graph.matrix(graph.weights()[0]).copy()
    matrix[0], matrix[1], matrix[2] = 0, matrix[1] * 1e-9, matrix[2] * 1e-30
    (weight,) = graph.weights()
    graph.replace_constant("w", graph.as_constant(weight, matrix))
    graph.replace_constant("b", np.array([3, -2, 2.5, 0, 1, 1], np.float32))
    wanted = graph.runner(["x"], ["y"])({"x": x})["y"]
    values = encoded_values(graph, form, x)
    encoding = Blocked(IntGrid(8 if form is BYTES else 7), scale="fp32")
    write(graph, form, fit.encode(matrix, encoding), values)
    graph.save(tmp_path / "made.onnx")
    found = Session(tmp_path / "made.onnx", False).run({"x": x})["y"]
    (last,) = (values[value] for value in values if value != "x")
    assert np.abs(found[:, :3] - wanted[:, :3]).max() <= 0.51 * float(last.step or 0)


def test_steps_end_where_the_data_does() -> None:
    """Within what a clip leaves, so that the runtime finds it needless; one sign takes all codes."""
    rng = np.random.default_rng(0)
    for top in (6.0, 1.0, 0.1, 3.3):
        found = Static().encoded(STATIC_BYTES, Magnitudes.of(np.array([0, top], np.float32)))
        assert found.zero == 0 and found.step is not None
        assert np.float32(top) * 0.9999 < np.float32(255) * found.step <= np.float32(top)
        found = Static().encoded(STATIC_BYTES, Magnitudes.of(np.array([-top, 0], np.float32)))
        assert found.zero == 255
    both = rng.normal(1, 1, 1000).astype(np.float32)
    for how in (Static(), Static("mse"), Static("percentile"), Static("entropy")):
        found = how.encoded(STATIC_BYTES, Magnitudes.of(both))
        error = np.abs(found.rounded(both) - both)
        assert np.median(error) <= float(found.step or 0) / 2 and 0 < found.zero < 128
    assert Static().encoded(STATIC_BYTES, Magnitudes.of(np.zeros(3, np.float32))).step == 1


@pytest.mark.parametrize("zero", [-1, 256])
def test_zeros_are_codes_reject(zero: int) -> None:
    with pytest.raises(ValueError, match="with the zero"):
        EncodedValue(STATIC_BYTES, np.float32(1), zero)
    with pytest.raises(ValueError, match="with the zero"):
        EncodedValue(STATIC_INT8, np.float32(1), 127)


def test_what_no_convolution_of_integers_takes_reject() -> None:
    graph = CASES["2d"].graph()
    weight = graph.weights()[0].reading(STATIC_BYTES)
    for form, encoding in FORMS:
        assert not form.refuses(weight, encoding)
        assert "only where activations are rounded" in form.refuses(weight.reading(None), encoding)
        for other in (STATIC_INT8, DYNAMIC_INT8):
            assert "known before" in form.refuses(weight.reading(other), encoding)
        for block in (TENSOR, group(9)):
            assert "one scale a channel" in form.refuses(weight, Blocked(encoding.grid, block))
        assert form.refuses(weight, Blocked(IntGrid(4, False)))
    assert "have a sign" in BYTES.refuses(weight, INT7)
    wide = Case((2, MOST_ADDED // 4 + 1, 2, 2), (MOST_ADDED // 4 + 1, 2, 2)).graph().weights()[0]
    assert "up to" in INTEGERS.refuses(wide.reading(STATIC_BYTES), INT7)


@pytest.mark.parametrize(
    ("op", "given"),
    [
        ("ConvTranspose", "strides = [2, 1]"),
        ("ConvTranspose", 'auto_pad = "SAME_UPPER"'),
        ("ConvTranspose", "strides = [2, 2], output_shape = [12, 12]"),
    ],
)
def test_transposed_convolutions_that_stay_float_reject(op: str, given: str, tmp_path: Path) -> None:
    text = f"g (float[n, 4, 5, 5] x) => (float[n, 60, k, l] y) {{ y = {op} <{given}> (x, w) }}"
    onnx.save(onnx_models.parse(text, {"w": random(4, 60, 3, 3)}, opset=21, ir_version=10), tmp_path / "t.onnx")
    policy, x = load_text("qpolicy 1\n" + POLICY, schema()), random(4, 4, 5, 5)
    result = qcc.compile(tmp_path / "t.onnx", policy, data=[{"x": x}])
    assert "transposed" in next(one.message for one in result.warnings if one.code == "Q313")
    assert {row.form for row in result.layers} == {"decoded"}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("a = Conv(x, w) t = Transpose <perm = [0, 1, 3, 2]> (w) y = Conv(a, t)", "in several ways"),
        ("z = ReduceSum <keepdims = 0> (x, axes) y = Conv(x, w, z)", "bias is computed"),
    ],
)
def test_refused_as_it_is_written_reject(body: str, told: str) -> None:
    text = f"g (float[1, 6, 8, 8] x) => (float[1, 6, k, l] y) {{ {body} }}"
    arrays = {"w": random(6, 6, 3, 3), "axes": np.array([0, 2, 3])}
    graph = made(text, arrays)
    weight = next(one for one in graph.weights() if one.kinds == {"conv"})
    with pytest.raises(Refused, match=told):
        places(Flow(graph), weight, INTEGERS)


def test_all_cannot_read_what_is_fed_reject() -> None:
    graph = CASES["2d"].graph()
    before = graph.ops()
    with pytest.raises(Refused, match="fed or stored"):
        graph.encode_value("x", EncodedValue(STATIC_BYTES, np.float32(1), 5))
    assert graph.ops() == before


@pytest.mark.slow
def test_generated_data_and_dynamic_steps_are_told(chain: Path) -> None:
    policy = load_text("qpolicy 1\n" + POLICY, schema())
    assert "Q434" in [one.code for one in qcc.compile(chain, policy).warnings]
    policy = load_text("qpolicy 1\n" + POLICY.replace("static", "dynamic"), schema())
    result = qcc.compile(chain, policy)
    assert "known before" in next(one.message for one in result.warnings if one.code == "Q313")


@pytest.mark.slow
def test_an_open_choice_is_measured_with_its_activations(chain: Path) -> None:
    text = "rule conv { weights = int8 channel | int7 channel | float; activations = static }\n"
    text += "budget { output_error <= 0.1% }\nminimize size"
    x = random(12, 32, 12, 12, seed=9)
    result = qcc.compile(chain, load_text("qpolicy 1\n" + text, schema()), data=[{"x": x}])
    rounded = [row for row in result.layers if row.form in ("bytes", "integers")]
    assert rounded and all(row.loss is not None and row.loss > 0 for row in rounded)


@pytest.mark.slow
def test_torch_computes_the_same() -> None:
    torch = pytest.importorskip("torch")
    from qcc.ir.fx.graph import FxGraph

    class Two(torch.nn.Module):  # type: ignore[misc, name-defined]  # torch is optional here
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Conv2d(5, 8, 3), torch.nn.Conv2d(8, 6, 1)

        def forward(self, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            return self.b(torch.relu(self.a(x)))

    x = random(2, 5, 9, 9)
    graph = FxGraph.export(Two(), (torch.from_numpy(x),))
    plain, flow = graph.copy(), Flow(graph)
    value = EncodedValue(STATIC_BYTES, np.float32(0.05), 100)
    fed, (returned,) = graph.inputs[0].name, (one.name for one in graph.outputs)
    for weight in graph.weights():
        for place in places(flow, weight.reading(STATIC_BYTES), INTEGERS):
            graph.encode_value(place.value, value, place.readers)
    first, second = (graph.matrix(weight) for weight in plain.weights())
    bias = [plain.constant(weight.layers[0].bias or "") for weight in plain.weights()]
    with torch.no_grad():
        pieces = [torch.from_numpy(matrix.copy()) for matrix in (first.reshape(8, 5, 3, 3), second.reshape(6, 8, 1, 1))]
        added = [torch.from_numpy(np.array(one)) for one in bias]
        a = torch.relu(torch.nn.functional.conv2d(torch.from_numpy(value.rounded(x)), pieces[0], added[0])).numpy()
        b = torch.nn.functional.conv2d(torch.from_numpy(value.rounded(a)), pieces[1], added[1]).numpy()
    found = graph.runner([fed], [returned])({fed: x})[returned]
    steps = (found - value.rounded(b)) / 0.05
    assert np.abs(steps).max() < 1.01 and (np.abs(steps) < 0.01).mean() > ALIKE


def test_stored_scales_may_be_zero() -> None:
    """A channel of zeros has the scale 0 as `fit` gives it."""
    matrix = np.zeros((2, 9), np.float32)
    codes = fit.encode(matrix, INT7)
    assert not codes.decode().any()
    assert Encoded(INT7, (2, 9), stored(INT7, codes.codes, Scales(codes.scales.scale, None))).shape == (2, 9)


def test_a_convolution_and_a_transposed_one_that_share_a_weight_stay_floats(tmp_path: Path) -> None:
    """Their matrices are each other's transposes, and the codes are those of the first."""
    text = """tied (float[n, 32, 8, 8] x) => (float[n, 32, 8, 8] y) {
      a = Conv <pads = [1, 1, 1, 1]> (x, w) b = Relu (a) y = ConvTranspose <pads = [1, 1, 1, 1]> (b, w) }"""
    model, x = tmp_path / "tied.onnx", random(8, 32, 8, 8)
    onnx.save(onnx_models.parse(text, {"w": random(32, 32, 3, 3, seed=1)}, opset=17, ir_version=9), model)
    policy = load_text("rule conv { weights = int8 channel; activations = static }", schema())
    result = qcc.compile(model, policy, data=[{"x": x}], output=tmp_path / "out.onnx")
    assert "Q313" in [one.code for one in result.warnings] and "share it, as two matrices" in str(result.warnings)
    found, wanted = (Session(one, False).run({"x": x})["y"] for one in (result.output, model))
    assert ((found - wanted) ** 2).sum() < 1e-3 * (wanted**2).sum()
