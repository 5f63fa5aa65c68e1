"""What stands behind a product: found by what it computes, left alone where one op could not stand for it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.export import Dim

from qcc.ir.fx.graph import FxGraph
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Array
from qcc.ir.kernel.region import Region
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.regions.find import regions
from tests.models_torch import WIDTH, SmallTransformer
from tests.onnx_models import Case, loaded, random
from tests.region_models import ACTIVATIONS, IN, INPUTS, KEPT, NORMS, OPERANDS, OUT, RESULT, RMS, Block, case
from tests.torch_export import to_onnx


def found(nodes: str, folder: Path, outputs: str = RESULT, inputs: str = INPUTS, opset: int = 18) -> Region:
    graph = loaded(case(nodes, outputs, inputs, opset), folder)
    (region,) = regions(graph, graph.weights()).values()
    return region


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_by_what_they_compute(name: str, tmp_path: Path) -> None:
    step, nodes = ACTIVATIONS[name]
    region = found(nodes, tmp_path)
    assert (region.steps, region.operands, region.result, region.place) == ((step,), (), "y", "h")
    assert len(region.ops) == 1 + nodes.count("=") - nodes.count("<alpha") - nodes.count("beta =")


@pytest.mark.parametrize(
    ("nodes", "step"),
    [("y = Gelu(h)", "gelu"), ('y = Gelu <approximate = "tanh"> (h)', "gelu_tanh")],
)
def test_gelu_as_an_op(nodes: str, step: str, tmp_path: Path) -> None:
    assert found(nodes, tmp_path, opset=20).steps == (step,)


ACTIVATIONS_REJECT = {
    "quick_gelu": "a = Mul(h, quick) c = Sigmoid(a) y = Mul(h, c)",
    "leaky": "y = LeakyRelu(h)",
    "clip_of_three": "y = Clip(h, zero, three)",
    "gelu_without_half": "a = Div(h, root) c = Erf(a) d = Add(c, one) y = Mul(h, d)",
    "erf": "y = Erf(h)",
    "gelu_of_another_root": "a = Div(h, two) c = Erf(a) d = Add(c, one) e = Mul(h, d) y = Mul(e, half)",
    "scaled": "y = Mul(h, half)",
    "silu_by_vector": "a = Mul(h, gain) c = Sigmoid(a) y = Mul(h, c)",
    "softmax": "y = Softmax(h)",
    "squared": "y = Mul(h, h)",
}


@pytest.mark.parametrize("name", ACTIVATIONS_REJECT)
def test_activations_reject(name: str, tmp_path: Path) -> None:
    region = found(ACTIVATIONS_REJECT[name], tmp_path)
    assert (region.steps, region.result, region.ops) == ((), "h", (region.op,))


@pytest.mark.parametrize(
    ("nodes", "step"),
    [
        ("a = Sigmoid(h) c = Mul(h, a) y = Clip(c, least, most)", "silu"),
        ("a = Clip(h, least, most) y = LayerNormalization (a, gain, shift)", ""),
    ],
)
def test_a_clip_far_out_is_no_part_of_a_function(nodes: str, step: str, tmp_path: Path) -> None:
    region = found(nodes, tmp_path)
    assert region.steps == ((step,) if step else ()) and region.result != "y"


NORMS_REJECT = {
    "gain_twice": RMS.format(eps="eps") + " f = Div(h, e) i = Mul(f, gain) y = Mul(i, gain)",
    "two_gains": RMS.format(eps="eps") + " f = Div(h, e) i = Mul(f, gain) y = Mul(i, shift)",
    "epsilon_outside": "a = Pow(h, two) c = ReduceMean(a, last) e = Sqrt(c) d = Add(e, eps) y = Div(h, d)",
    "epsilon_twice": RMS.format(eps="eps") + " f = Add(e, eps) i = Div(h, f) y = Mul(i, gain)",
    "sum_for_mean": "a = Pow(h, two) c = ReduceSum(a, last) d = Add(c, eps) e = Sqrt(d) y = Div(h, e)",
    "another_axis": "a = Pow(h, two) c = ReduceMean(a, first) d = Add(c, eps) e = Sqrt(d) y = Div(h, e)",
    "two_axes": "y = LayerNormalization <axis = 1> (h, matrix)",
    "computed_gain": "y = LayerNormalization (h, g)",
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_by_what_they_compute(name: str, tmp_path: Path) -> None:
    step, operands, epsilon, nodes = NORMS[name]
    region = found(nodes, tmp_path)
    assert (region.steps, region.operands, region.kept, region.place) == ((step,), operands, "", "h")
    assert region.epsilon == pytest.approx(epsilon)
    assert region.result == "y"


@pytest.mark.parametrize("name", NORMS_REJECT)
def test_norms_reject(name: str, tmp_path: Path) -> None:
    inputs = INPUTS.replace("S,", "3,") if name == "two_axes" else f"{INPUTS}, float[{OUT}] g"
    region = found(NORMS_REJECT[name], tmp_path, RESULT.replace("S,", "3,") if name == "two_axes" else RESULT, inputs)
    assert "layer_norm" not in region.steps
    assert region.result != "y"


def test_the_longest_norm_is_taken_not_its_beginning(tmp_path: Path) -> None:
    """What is left of a norm with two gains is still a norm, and the second gain stays."""
    region = found(NORMS_REJECT["two_gains"], tmp_path)
    assert (region.steps, region.operands, region.result) == (("rms_norm",), ("gain",), "i")


@pytest.mark.parametrize("name", OPERANDS)
def test_operands(name: str, tmp_path: Path) -> None:
    nodes, steps, operands, place = OPERANDS[name]
    region = found(nodes, tmp_path)
    assert (region.steps, region.operands, region.place, region.result) == (steps, operands, place, "y")


OPERANDS_REJECT = {
    "scalar": "y = Add(h, one)",
    "narrow": "y = Add(h, narrow)",
    "thin": "y = Mul(h, thin)",
    "itself": "y = Add(h, h)",
    "gain": "y = Mul(h, gain)",
    "difference": "y = Sub(h, t)",
    "quotient": "y = Div(h, t)",
    "depends_on_it": "a = ReduceMax(h, first) y = Add(h, a)",
}


@pytest.mark.parametrize("name", OPERANDS_REJECT)
def test_operands_reject(name: str, tmp_path: Path) -> None:
    region = found(OPERANDS_REJECT[name], tmp_path)
    assert (region.steps, region.operands, region.result) == ((), (), "h")


def test_a_third_tensor_is_left(tmp_path: Path) -> None:
    region = found("a = Add(h, t) c = Mul(a, u) y = Add(c, t)", tmp_path)
    assert (region.steps, region.result) == (("add", "mul"), "c")


def test_nothing_follows_a_norm(tmp_path: Path) -> None:
    region = found("a = LayerNormalization (h, gain, shift) y = Relu(a)", tmp_path)
    assert (region.steps, region.result) == (("layer_norm",), "a")


SHAPES = {
    "known": ("float[2,3,64] x, float[2,3,32] t", True),
    "symbols": ("float[N,S,64] x, float[N,S,32] t", True),
    "other_symbol": ("float[N,S,64] x, float[N,R,32] t", False),
    "other_number": ("float[N,3,64] x, float[N,1,32] t", False),
    "symbol_for_number": ("float[N,3,64] x, float[N,S,32] t", False),
    "unknown": ("float[N,?,64] x, float[N,?,32] t", False),
    "lower_rank": ("float[1,S,64] x, float[S,32] t", False),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_must_be_one(name: str, tmp_path: Path) -> None:
    inputs, is_taken = SHAPES[name]
    region = found("y = Add(h, t)", tmp_path, "float[A,B,C] y", inputs)
    assert region.steps == (("add",) if is_taken else ())


@pytest.mark.parametrize("nodes", ["y = Add(h, t)", "y = Relu(h)", "y = Add(h, b)"])
def test_kernels_compute_in_float32(nodes: str, tmp_path: Path) -> None:
    plain = case(nodes, RESULT.replace("float", "double"), INPUTS.replace("float", "double"))
    weights = {name: array.astype(np.float64) for name, array in plain.weights.items()}
    graph = loaded(replace(plain, weights=weights), tmp_path)
    (region,) = regions(graph, graph.weights()).values()
    assert region.steps == ()


READ_ELSEWHERE = {
    "product": ("y = Relu(h) z = Neg(h)", ()),
    "between": ("a = Add(h, b) y = Relu(a) z = Neg(a)", ("bias",)),
    "inside": ("a = Sigmoid(h) y = Mul(h, a) z = Neg(a)", ()),
}


@pytest.mark.parametrize("name", READ_ELSEWHERE)
def test_values_that_others_read_end_a_region(name: str, tmp_path: Path) -> None:
    nodes, steps = READ_ELSEWHERE[name]
    assert found(nodes, tmp_path, f"{RESULT}, float[N,S,{OUT}] z").steps == steps


@pytest.mark.parametrize(
    ("nodes", "returned", "steps"),
    [
        ("y = Relu(h)", "h", ()),
        ("a = Add(h, b) y = Relu(a)", "a", ("bias",)),
        ("a = Sigmoid(h) y = Mul(h, a)", "a", ()),
    ],
)
def test_values_that_are_returned_end_a_region(
    nodes: str, returned: str, steps: tuple[str, ...], tmp_path: Path
) -> None:
    assert found(nodes, tmp_path, f"{RESULT}, float[N,S,{OUT}] {returned}").steps == steps


@pytest.mark.parametrize("name", KEPT)
def test_the_value_before_a_norm_is_kept(name: str, tmp_path: Path) -> None:
    nodes, other = KEPT[name]
    region = found(nodes, tmp_path, f"{RESULT}, float[N,S,{OUT}] {other}")
    assert (region.steps, region.kept, region.place) == (("add", "keep", "layer_norm"), "a", "a")
    assert region.operands == ("t", "gain", "shift")


def test_the_value_before_an_activation_is_not_kept(tmp_path: Path) -> None:
    region = found("a = Add(h, t) y = Relu(a) z = Neg(a)", tmp_path, f"{RESULT}, float[N,S,{OUT}] z")
    assert (region.steps, region.kept) == (("add",), "")


TWO = f"g (float[N,S,{IN}] x) => ({RESULT})"
SIDES = {"right": random(IN, OUT), "left": random(IN, OUT, seed=1)}
SUM = "i = MatMul(x, left) h = MatMul(x, right) y = Add(h, i)"


def _two(nodes: str, folder: Path) -> Mapping[str, Region]:
    graph = loaded(Case(f"{TWO} {{ {nodes} }}", SIDES, {}), folder)
    return regions(graph, graph.weights())


def test_every_op_belongs_to_one_region_that_of_the_first_to_run(tmp_path: Path) -> None:
    both = _two("h = MatMul(x, left) a = Sigmoid(h) s = Mul(h, a) i = MatMul(x, right) y = Mul(s, i)", tmp_path)
    assert (both["left"].steps, both["left"].operands, both["left"].place) == (("silu", "mul"), ("i",), "y")
    assert (both["right"].steps, both["right"].result) == ((), "i")


def test_layers_are_served_as_they_run(tmp_path: Path) -> None:
    both = _two(SUM, tmp_path)
    assert (both["left"].steps, both["left"].operands) == (("add",), ("h",))
    assert both["right"].steps == ()


def test_only_what_is_asked_for_takes_part(tmp_path: Path) -> None:
    graph = loaded(Case(f"{TWO} {{ {SUM} }}", SIDES, {}), tmp_path)
    (weight,) = (weight for weight in graph.weights() if weight.name == "right")
    assert regions(graph, [weight])["right"].steps == ("add",)


GEMMS = {
    "none": ("Gemm(x, w)", {}, ("relu",), ()),
    "bias": ("Gemm(x, w, b)", {"b": random(OUT)}, ("bias", "relu"), ("b",)),
    "row": ("Gemm(x, w, b)", {"b": random(1, OUT)}, ("bias", "relu"), ("b",)),
    "tensor": ("Gemm(x, w, t)", {}, ("add", "relu"), ("t",)),
}
GEMMS_REJECT = {
    "scalar": ("Gemm(x, w, b)", {"b": np.array(1, np.float32)}),
    "matrix": ("Gemm(x, w, b)", {"b": random(5, OUT)}),
    "narrow": ("Gemm(x, w, u)", {}),
}


def _gemm(nodes: str, weights: Mapping[str, Array], folder: Path) -> Mapping[str, Region]:
    inputs = f"float[N,{IN}] x, float[N,{OUT}] t, float[1,{OUT}] u"
    body = f"g ({inputs}) => (float[N,{OUT}] y) {{ h = {nodes} y = Relu(h) }}"
    graph = loaded(Case(body, {"w": random(IN, OUT), **weights}, {}), folder)
    return regions(graph, graph.weights())


@pytest.mark.parametrize("name", GEMMS)
def test_what_a_product_adds_itself(name: str, tmp_path: Path) -> None:
    nodes, weights, steps, operands = GEMMS[name]
    (region,) = _gemm(nodes, weights, tmp_path).values()
    assert (region.steps, region.operands, region.place) == (steps, operands, "h")


@pytest.mark.parametrize("name", GEMMS_REJECT)
def test_what_a_product_adds_itself_reject(name: str, tmp_path: Path) -> None:
    nodes, weights = GEMMS_REJECT[name]
    assert _gemm(nodes, weights, tmp_path) == {}


def test_what_subgraphs_read_is_read(tmp_path: Path) -> None:
    branches = f"""z = If (yes) <then_branch = a () => (float[N,S,{OUT}] p) {{ p = Identity(h) }},
                          else_branch = c () => (float[N,S,{OUT}] q) {{ q = Neg(h) }}>"""
    outputs, inputs = f"{RESULT}, float[N,S,{OUT}] z", f"{INPUTS}, bool yes"
    assert found(f"y = Relu(h) {branches}", tmp_path, outputs, inputs).steps == ()


class Counting(OnnxGraph):
    """A graph that counts what it runs."""

    made = 0

    def runner(self, *args: object, **kwargs: object) -> Runner:
        """Count, and run."""
        type(self).made += 1
        return super().runner(*args, **kwargs)  # type: ignore[arg-type]  # handed on as given


def test_equal_pieces_are_run_once(tmp_path: Path) -> None:
    nodes, weights, last = [], dict[str, Array](), "x"
    for at in range(6):
        nodes.append(f"h{at} = MatMul({last}, w{at}) a{at} = Sigmoid(h{at}) s{at} = Mul(h{at}, a{at})")
        nodes.append(f"l{at} = LayerNormalization (s{at}, g{at})")
        weights |= {f"w{at}": random(32, 32, seed=at), f"g{at}": random(32, seed=at)}
        last = f"l{at}"
    body = f"g (float[N,S,32] x) => (float[N,S,32] {last}) {{ {' '.join(nodes)} }}"
    plain = loaded(Case(body, weights, {}), tmp_path)
    graph = Counting(plain.model, plain.folder)
    assert {region.steps for region in regions(graph, graph.weights()).values()} == {("silu", "layer_norm")}
    assert Counting.made <= 4  # silu, the norm, both together, and silu with the norm's beginning


BLOCK = {
    "gate": (("silu", "mul"), None),
    "up": ((), None),
    "down": (("add", "keep", "rms_norm"), 1e-5),
    "one": (("bias", "gelu", "add"), None),
    "two": (("bias", "gelu_tanh"), None),
    "three": (("bias", "hard_swish", "layer_norm"), 1e-4),
}


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["fx", "onnx18", "onnx20"])
def test_adapters_agree(adapter: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, example = Block().eval(), torch.zeros(2, 3, 32)
    shapes = ({0: Dim("batch"), 1: Dim("length")},)
    graph: Graph
    if adapter == "fx":
        graph = FxGraph.export(module, (example,), dynamic_shapes=shapes)
    else:
        path, opset = tmp_path / "model.onnx", int(adapter[4:])
        to_onnx(module, (example,), path, dynamic_shapes=shapes, opset_version=opset)
        graph = OnnxGraph.load(path)
    graph.simplify()
    told = {name: (region.steps, region.epsilon) for name, region in regions(graph, graph.weights()).items()}
    assert told == BLOCK


@pytest.mark.slow
def test_a_block_that_runs_twice_and_a_tied_head() -> None:
    torch.manual_seed(0)
    graph = FxGraph.export(SmallTransformer().eval(), (torch.zeros(2, 5, dtype=torch.int64),))
    graph.simplify()
    told = {name: region.steps for name, region in regions(graph, graph.weights()).items()}
    assert told["attention.out"] == ("add", "keep", "rms_norm")
    assert told["mlp.gate"] == told["mlp.gate#2"] == ("silu", "mul")
    assert told["mix"] == ("gelu",)
    assert told["head"] == ()
    assert WIDTH % 32 == 0


CONV = "float[N,32,4,8] x, float[N,8,4,8] t, float[N,8,1,1] narrow"
CONV_REGIONS = {
    "own_bias": ("y = Conv(x, w, c)", ("bias",), ("c",)),
    "bias_relu6": ("h = Conv(x, w, c) y = Clip(h, zero, six)", ("bias", "relu6"), ("c",)),
    "residual": ("h = Conv(x, w, c) d = Add(t, h) y = Relu(d)", ("bias", "add", "relu"), ("c", "t")),
    "a_constant_along_the_last_axis": ("h = Conv(x, w) y = Add(h, c)", (), ()),
    "a_bias_and_another": ("h = Conv(x, w, c) y = Add(h, c)", ("bias",), ("c",)),
    "of_another_shape": ("h = Conv(x, w) y = Mul(h, narrow)", (), ()),
    "a_norm": ("h = Conv(x, w) y = LayerNormalization(h, c)", (), ()),
}


@pytest.mark.parametrize("name", CONV_REGIONS)
def test_behind_a_convolution_of_one_point(name: str, tmp_path: Path) -> None:
    nodes, steps, operands = CONV_REGIONS[name]
    weights = {"w": random(8, 32, 1, 1), "c": random(8), "zero": np.float32(0), "six": np.float32(6)}
    given = {key: np.asarray(array) for key, array in weights.items() if f" {key}" in nodes.replace("(", " ")}
    body = f"g ({CONV}) => (float[N,8,4,8] y) {{ {nodes} }}"
    graph = loaded(Case(body, given, {}, opset=18, ir_version=10), tmp_path)
    (region,) = regions(graph, graph.weights()).values()
    assert (region.steps, region.operands) == (steps, operands)


@pytest.mark.parametrize(
    ("attributes", "shape", "product"),
    [
        ("", (8, 32, 1, 1), True),
        ("<pads = [0,0,0,0], strides = [1,1]>", (8, 32, 1, 1), True),
        ("<strides = [2,2]>", (8, 32, 1, 1), False),
        ("<pads = [0,0,1,1]>", (8, 32, 1, 1), False),
        ('<auto_pad = "SAME_UPPER">', (8, 32, 1, 1), False),
        ("<group = 4>", (8, 8, 1, 1), False),
        ("", (8, 32, 1, 3), False),
    ],
)
def test_which_convolutions_are_products(
    attributes: str, shape: tuple[int, ...], product: bool, tmp_path: Path
) -> None:
    body = f"g (float[N,32,4,8] x) => (float[N,8,A,B] y) {{ y = Conv {attributes} (x, w) }}"
    graph = loaded(Case(body, {"w": random(*shape)}, {}, opset=18, ir_version=10), tmp_path)
    assert bool(regions(graph, graph.weights())) == product
