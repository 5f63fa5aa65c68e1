"""Structural edits: they do to the outputs what numpy says, alike in both adapters, and to nothing else."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.export import Dim

from qcc.ir.encoding import fit
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.errors import Refused
from qcc.ir.forms.decoded import DECODED
from qcc.ir.fx.graph import FxGraph
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Op, Resized
from qcc.ir.onnx.adapter import OnnxGraph
from tests.onnx_models import parse, random
from tests.torch_export import to_onnx

TOLERANCE = 1e-5  # float32 sums of at most 27 terms, in another order, on values of about 1
FEEDS = {"image": random(3, 3, 6, 6)}
WIDTH = 4
Results = Mapping[str, Array]


class Net(nn.Module):
    """A convolution without bias, a matrix that two products share, an output that another op reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, WIDTH, 3, bias=False)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.again = nn.Linear(WIDTH, WIDTH)
        self.again.weight = self.mix.weight
        self.gain = nn.Parameter(torch.rand(WIDTH) + 0.5)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.conv(image)).mean((2, 3))
        y = torch.tanh(self.mix(x))
        z = self.again(x) * self.gain
        return y, z.sigmoid() + y


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Graph]:
    torch.manual_seed(0)
    module, example, shapes = Net().eval(), torch.zeros(2, 3, 6, 6), ({0: Dim("batch")},)
    path = tmp_path_factory.mktemp("edits") / "model.onnx"
    _export(module, example, path, shapes)
    made: dict[str, Graph] = {
        "fx": FxGraph.export(module, (example,), dynamic_shapes=shapes),
        "onnx": OnnxGraph.load(path),
    }
    for graph in made.values():
        graph.simplify()
    return made


@pytest.fixture(params=["fx", "onnx"])
def graph(request: pytest.FixtureRequest, graphs: dict[str, Graph]) -> Graph:
    return graphs[request.param]


def _export(module: nn.Module, example: torch.Tensor, path: Path, shapes: Any = None) -> None:
    to_onnx(module, (example,), path, dynamic_shapes=shapes, external_data=False)


def _run(graph: Graph, feeds: Mapping[str, Array], outputs: Sequence[str] = ()) -> Results:
    names = list(outputs) or [value.name for value in graph.outputs]
    return graph.runner(list(feeds), names)(feeds)


def _op(graph: Graph, function: str, nth: int = 0) -> Op:
    return [op for op in graph.ops() if op.function == function][nth]


def _array(graph: Graph, name: str) -> Array:
    array = graph.constant(name)
    assert array is not None
    return array


def _with(graph: Graph, value: str, change: Callable[[Array], Array]) -> Results:
    """The outputs when a value is another."""
    ends = [output.name for output in graph.outputs]
    array = change(_run(graph, FEEDS, [value])[value])
    return graph.runner([value, *FEEDS], ends)({value: array, **FEEDS})


def _seen(graph: Graph) -> list[object]:
    constants = {name for op in graph.ops() for name in op.inputs if name and graph.constant(name) is not None}
    arrays = {name: _array(graph, name).tobytes() for name in sorted(constants)}
    return [graph.ops(), graph.inputs, graph.outputs, graph.weights(), arrays]


def _assert_equal(graph: Graph, wanted: Sequence[Array], feeds: Mapping[str, Array] = FEEDS) -> None:
    """The graph gives these outputs, is valid, and still is after it was simplified, copied and encoded."""
    for _ in range(2):
        _check(graph)
        for got, want in zip(_run(graph, feeds).values(), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)
        graph = graph.copy()
        graph.simplify()
    for weight in graph.weights():
        graph.encode(weight, fit.encode(graph.matrix(weight), Blocked(IntGrid(8), CHANNEL)), DECODED)
    _run(graph, feeds)


def _check(graph: Graph) -> None:
    known = {value.name for value in graph.inputs}
    for op in graph.ops():
        assert known.issuperset(name for name in op.inputs if name and graph.constant(name) is None), op
        known.update(op.outputs)
        assert all(graph.value(name).name == name for name in op.outputs if name)
    if isinstance(graph, OnnxGraph):
        onnx.checker.check_model(ir.serde.serialize_model(graph.model), full_check=True)


def _dump(graph: Graph) -> str:
    return str(ir.serde.serialize_model(graph.model)) if isinstance(graph, OnnxGraph) else ""


class Untouched:
    """What a graph was like before, to be compared when all is done to its copy."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self._before, self._results = graph, [*_seen(graph), _dump(graph)], _run(graph, FEEDS)

    def __enter__(self) -> Graph:
        return self._graph.copy()

    def __exit__(self, *_: object) -> None:
        assert [*_seen(self._graph), _dump(self._graph)] == self._before
        for name, array in _run(self._graph, FEEDS).items():
            np.testing.assert_array_equal(array, self._results[name])


# an operand of an op's own


@pytest.mark.slow
def test_one_reader_of_a_shared_constant_gets_its_own(graph: Graph) -> None:
    (shared,) = [weight for weight in graph.weights() if len(weight.layers) == 2]
    _, layer = shared.layers
    with Untouched(graph) as edited:
        op = next(op for op in edited.ops() if op.name == layer.op)
        array = -_array(edited, op.inputs[1])
        name = edited.set_operand(op.name, 1, array)
        np.testing.assert_array_equal(edited.constant(name), array)
        np.testing.assert_array_equal(edited.constant(shared.constant), graph.constant(shared.constant))
        names = [layer.name for weight in graph.weights() for layer in weight.layers]
        assert [[layer.name for layer in weight.layers] for weight in edited.weights()] == [[name] for name in names]
        bias = 0 if layer.bias is None else _array(graph, layer.bias)
        _assert_equal(edited, list(_with(graph, layer.output, lambda x: 2 * bias - x).values()))


@pytest.mark.slow
def test_a_constant_that_nobody_reads_goes_and_leaves_its_name(graph: Graph) -> None:
    op = _op(graph, "conv")
    with Untouched(graph) as edited:
        before = edited.weights()
        name = edited.set_operand(op.name, 1, 3 * _array(edited, op.inputs[1]))
        assert name == op.inputs[1] == "conv.weight"
        assert edited.weights() == before
        _assert_equal(edited, list(_with(graph, op.outputs[0], lambda x: 3 * x).values()))


def test_a_convolution_gets_a_bias(graph: Graph) -> None:
    op = _op(graph, "conv")
    assert len(op.inputs) == 2
    with Untouched(graph) as edited:
        bias = random(WIDTH)
        assert edited.set_operand(op.name, 2, bias) == "conv.bias"
        assert _op(edited, "conv").inputs == (*op.inputs, "conv.bias")
        assert edited.weights()[0].layers[0].bias == "conv.bias"
        _assert_equal(edited, list(_with(graph, op.outputs[0], lambda x: x + bias[:, None, None]).values()))


def test_what_is_computed_gives_way_to_a_constant(graph: Graph) -> None:
    op = _op(graph, "sigmoid")
    with Untouched(graph) as edited:
        name = edited.set_operand(op.name, 0, np.ones((1, WIDTH), np.float32))
        assert name == f"{op.name}.operand0"
        _assert_equal(edited, list(_with(graph, op.inputs[0], np.ones_like).values()))


def test_an_array_may_have_any_shape(graph: Graph) -> None:
    op = _op(graph, "mul")
    with Untouched(graph) as edited:
        gain = _array(graph, op.inputs[1]).reshape(1, WIDTH)
        name = edited.set_operand(op.name, 1, gain)
        assert edited.value(name).shape == (1, WIDTH)
        _assert_equal(edited, list(_run(graph, FEEDS).values()))


def test_what_an_op_does_not_take_is_refused(graph: Graph) -> None:
    op, conv = _op(graph, "tanh"), _op(graph, "conv")
    one = np.ones(WIDTH, np.float32)
    with Untouched(graph) as edited:
        for name, position, message in ((op.name, 1, "takes no operand 1"), (conv.name, 3, "takes no operand 3")):
            with pytest.raises(Refused, match=message):
                edited.set_operand(name, position, one)
        with pytest.raises(Refused, match="takes no operand -1"):
            edited.set_operand(op.name, -1, one)
        for position in (1, 2):
            with pytest.raises(Refused, match="is float32, the array float64"):
                edited.set_operand(conv.name, position, one.astype(np.float64))
        assert _seen(edited) == _seen(graph)


# an op put in

SCALE = random(WIDTH)
PICK = np.array([2, 0, 3, 1])
INSERTS: dict[str, tuple[Array, Callable[[Array], Array]]] = {
    "mul": (SCALE, lambda x: x * SCALE),
    "add": (SCALE[None], lambda x: x + SCALE),
    "gather": (PICK, lambda x: x[..., PICK]),
}


@pytest.mark.parametrize("function", INSERTS)
def test_an_op_behind_a_value(graph: Graph, function: str) -> None:
    array, change = INSERTS[function]
    value = _op(graph, "mean").outputs[0]
    with Untouched(graph) as edited:
        new = edited.insert(function, value, array)
        op = next(op for op in edited.ops() if new in op.outputs)
        assert (op.function, op.inputs[0]) == (function, value)
        np.testing.assert_array_equal(edited.constant(op.inputs[1]), array)
        assert (edited.value(new).shape, edited.value(new).dtype) == (graph.value(value).shape, "float32")
        assert value in new
        _assert_equal(edited, list(_with(graph, value, change).values()))


@pytest.mark.parametrize("function", INSERTS)
def test_only_the_readers_that_are_named_read_it(graph: Graph, function: str) -> None:
    array, change = INSERTS[function]
    last = graph.ops()[-1]
    y = graph.outputs[0].name
    position = last.inputs.index(y)
    with Untouched(graph) as edited:
        edited.insert(function, y, array, [(last.name, position)])
        results = list(_run(graph, FEEDS).values())
        _assert_equal(edited, [results[0], results[1] - results[0] + change(results[0])])


@pytest.mark.parametrize("function", INSERTS)
def test_outputs_keep_their_names(graph: Graph, function: str) -> None:
    array, change = INSERTS[function]
    y = graph.outputs[0].name
    with Untouched(graph) as edited:
        assert edited.insert(function, y, array) == y
        assert edited.outputs == graph.outputs
        (op,) = [op for op in edited.ops() if y in op.outputs]
        assert op.inputs[0] != y
        assert edited.value(op.inputs[0]).shape == graph.value(y).shape
        results = list(_run(graph, FEEDS).values())
        _assert_equal(edited, [change(results[0]), results[1] - results[0] + change(results[0])])


def test_edits_may_follow_one_another(graph: Graph) -> None:
    y = graph.outputs[0].name
    results = list(_run(graph, FEEDS).values())
    with Untouched(graph) as edited:
        edited.insert("mul", y, SCALE)
        middle = edited.copy()
        edited.insert("add", y, SCALE)
        edited.insert("mul", edited.inputs[0].name, np.ones(1, np.float32))
        for op in [op for op in edited.ops() if y in op.outputs]:
            edited.bypass(op.name)
        for one in (edited, middle):
            assert one.outputs == graph.outputs
            _assert_equal(one, [results[0] * SCALE, results[1] - results[0] + results[0] * SCALE])
        assert len({op.name for op in edited.ops()}) == len(edited.ops())


def test_an_op_behind_an_input(graph: Graph) -> None:
    with Untouched(graph) as edited:
        edited.insert("mul", "image", np.full((3, 1, 1), 2, np.float32))
        assert edited.inputs == graph.inputs
        _assert_equal(edited, list(_run(graph, {"image": 2 * FEEDS["image"]}).values()))


def test_an_op_behind_a_constant(graph: Graph) -> None:
    gain = _op(graph, "mul").inputs[1]
    with Untouched(graph) as edited:
        edited.insert("gather", gain, PICK)
        changed = graph.copy()
        changed.replace_constant(gain, _array(graph, gain)[PICK])
        _assert_equal(edited, list(_run(changed, FEEDS).values()))


def test_the_shape_follows_numpy(graph: Graph) -> None:
    value = _op(graph, "mean").outputs[0]
    edited = graph.copy()
    batch = (graph.value(value).shape or ())[0]
    shapes = [((2, 1, 1), (2, batch, WIDTH)), ((), (batch, WIDTH)), ((1,), (batch, WIDTH))]
    for array, shape in shapes:
        new = edited.insert("add", value, np.ones(array, np.float32), [])
        assert edited.value(new).shape == shape
    assert edited.value(edited.insert("gather", value, PICK[:2], [])).shape == (batch, 2)
    simple = edited.copy()
    simple.simplify()
    assert len(simple.ops()) == len(graph.ops())


def test_what_does_not_fit_is_refused(graph: Graph) -> None:
    value = _op(graph, "mean").outputs[0]
    add, tanh = graph.ops()[-1].name, _op(graph, "tanh").name
    refused: list[tuple[str, Array, list[tuple[str, int]] | None, str]] = [
        ("mul", SCALE.astype(np.float64), None, "is float32, the array float64"),
        ("mul", np.ones(3, np.float32), None, r"\(3,\) does not broadcast"),
        ("gather", PICK.astype(np.int32), None, "one row of int64, not int32"),
        ("gather", PICK[None], None, "one row of int64"),
        ("gather", PICK + 1, None, "indices 1 to 4 do not lie within an axis of 4"),
        ("mul", SCALE, [(tanh, 0)], "does not read"),
        ("mul", SCALE, [(add, 5)], "does not read"),
    ]
    with Untouched(graph) as edited:
        for function, array, readers, message in refused:
            with pytest.raises(Refused, match=message):
                edited.insert(function, value, array, readers)
        assert _seen(edited) == _seen(graph)


# an op left out


@pytest.mark.parametrize("function", ["mul", "sigmoid"])
def test_an_op_is_left_out(graph: Graph, function: str) -> None:
    op = _op(graph, function)
    inner = _run(graph, FEEDS, [op.inputs[0]])[op.inputs[0]]
    with Untouched(graph) as edited:
        edited.bypass(op.name)
        assert op.name not in [one.name for one in edited.ops()]
        gone = [name for name in op.inputs if graph.constant(name) is not None]
        assert not set(gone) & {name for one in edited.ops() for name in one.inputs}
        assert all(edited.constant(name) is None for name in gone)
        _assert_equal(edited, list(_with(graph, op.outputs[0], lambda _: inner).values()))


def test_an_output_is_left_out(graph: Graph) -> None:
    first, second = list(_run(graph, FEEDS).values())
    op = _op(graph, "tanh")
    inner = _run(graph, FEEDS, [op.inputs[0]])[op.inputs[0]]
    with Untouched(graph) as edited:
        edited.bypass(op.name)
        assert edited.outputs == graph.outputs
        _assert_equal(edited, [inner, second - first + inner])


def test_an_output_stays_a_copy_of_another_or_of_an_input(graph: Graph) -> None:
    with Untouched(graph) as edited:
        sigmoid = _op(edited, "sigmoid")
        edited.insert("mul", edited.outputs[0].name, SCALE, [(_op(edited, "add", -1).name, 1)])
        edited.set_operand(_op(edited, "add", -1).name, 1, np.zeros(1, np.float32))
        last = edited.ops()[-1]
        assert last.inputs[0] == sigmoid.outputs[0]
        for op in [op for op in edited.ops() if op.function == "sigmoid"]:
            edited.bypass(op.name)
        edited.bypass(edited.ops()[-1].name)
        assert edited.outputs == graph.outputs
        first = next(iter(_run(graph, FEEDS).values()))
        _assert_equal(edited, [first, _run(graph, FEEDS, [sigmoid.inputs[0]])[sigmoid.inputs[0]]])


class Sizes(nn.Module):
    """Outputs that are near to the inputs, several results of one op, numbers and types."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        left, right = x.relu().chunk(2, -1)
        return x.tanh(), x.sigmoid(), left * right, x.clamp(0.5, 2.0).to(torch.float64)


@pytest.fixture(params=["fx", "onnx"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Graph:
    if request.param == "fx":
        graph: Graph = FxGraph.export(Sizes(), (torch.zeros(3, 4),))
    else:
        path = tmp_path / "model.onnx"
        _export(Sizes().eval(), torch.zeros(3, 4), path)
        graph = OnnxGraph.load(path)
    graph.simplify()
    return graph


@pytest.mark.slow
def test_outputs_that_are_the_input(small: Graph) -> None:
    feeds = {"x": random(3, 4)}
    wanted = list(_run(small, feeds).values())
    for function in ("tanh", "sigmoid"):
        small.bypass(_op(small, function).name)
    assert [op.function for op in small.ops()].count("identity") == 2
    _assert_equal(small, [feeds["x"], feeds["x"], *wanted[2:]], feeds)
    for _ in range(2):  # nothing more can be gained
        small.bypass(_op(small, "identity").name)
    _assert_equal(small, [feeds["x"], feeds["x"], *wanted[2:]], feeds)


@pytest.mark.slow
def test_one_of_several_results(small: Graph) -> None:
    feeds, split = {"x": random(3, 4)}, _op(small, "split")
    wanted = list(_run(small, feeds).values())
    with pytest.raises(Refused, match="makes 2 values that are read"):
        small.bypass(split.name)
    small.insert("gather", split.outputs[1], PICK[1:2])
    relu = np.maximum(feeds["x"], 0)
    wanted[2] = relu[:, :2] * relu[:, 2:3]
    _assert_equal(small, wanted, feeds)


@pytest.mark.slow
def test_types_and_numbers_are_minded(small: Graph) -> None:
    cast, clip = _op(small, "cast"), _op(small, "clip")
    with pytest.raises(Refused, match=r"is float64, but `.*` is float32"):
        small.bypass(cast.name)
    two = np.array(1.5, np.float32)
    feeds = {"x": random(3, 4)}
    wanted = [*list(_run(small, feeds).values())[:3], np.maximum(feeds["x"], 1.5).clip(0, 2).astype(np.float64)]
    if isinstance(small, FxGraph):
        with pytest.raises(Refused, match=r"operand 1 of `clamp` .* is a number, never a tensor"):
            small.set_operand(clip.name, 1, two)
        with pytest.raises(Refused, match="a number in the program"):
            small.insert("mul", clip.inputs[1], two)
    else:
        small.set_operand(clip.name, 1, two)
        _assert_equal(small, wanted, feeds)


def test_what_was_encoded_gives_way() -> None:
    graph = FxGraph.export(Net(), (torch.zeros(2, 3, 6, 6),))
    before = graph.weights()
    for weight in before:
        graph.encode(weight, fit.encode(graph.matrix(weight), Blocked(IntGrid(4), CHANNEL)), DECODED)
    conv, shared = before
    array = random(*_array(graph, conv.constant).shape)
    assert graph.set_operand(conv.layers[0].op, 1, array) == conv.constant
    assert graph.weights() == (conv,)
    assert list(graph.encoded) == list(graph.forms) == [shared.name]
    graph.set_operand(shared.layers[1].op, 1, random(WIDTH, WIDTH))
    assert [weight.name for weight in graph.weights()] == [conv.name, shared.layers[1].name]


def test_layers_keep_their_names_when_a_tie_is_cut(graph: Graph) -> None:
    (shared,) = [weight for weight in graph.weights() if len(weight.layers) == 2]
    names = {layer.op: layer.name for weight in graph.weights() for layer in weight.layers}
    for gone, left in (shared.layers, shared.layers[::-1]):
        edited = graph.copy()
        edited.bypass(gone.op)
        (weight,) = [weight for weight in edited.weights() if weight.constant == shared.constant]
        assert [(layer.op, layer.name) for layer in weight.layers] == [(left.op, names[left.op])]
        edited.set_operand(_op(edited, "sigmoid").name, 0, np.ones((1, WIDTH), np.float32))
        assert names.items() >= {layer.op: layer.name for weight in edited.weights() for layer in weight.layers}.items()


# a constant that there is


def test_a_constant_is_shared(graph: Graph) -> None:
    conv, mul = _op(graph, "conv"), _op(graph, "mul")
    bias = next(layer.bias for weight in graph.weights() for layer in weight.layers if layer.bias)
    with Untouched(graph) as edited:
        edited.use_constant(mul.name, 1, bias)
        assert _op(edited, "mul").inputs == (mul.inputs[0], bias)
        assert edited.constant(mul.inputs[1]) is None
        gain, other = _array(graph, mul.inputs[1]), _array(graph, bias)
        _assert_equal(edited, list(_with(graph, mul.outputs[0], lambda x: x / gain * other).values()))
        for name, position, constant, message in (
            (mul.name, 1, mul.inputs[0], "is not a constant"),
            (mul.name, 5, bias, "reads nothing as operand 5"),
            (conv.name, 3, bias, "reads nothing as operand 3"),
        ):
            before = _seen(edited)
            with pytest.raises(Refused, match=message):
                edited.use_constant(name, position, constant)
            assert _seen(edited) == before


# a part left out


def test_a_part_is_left_out_with_all_that_only_it_needs(graph: Graph) -> None:
    x, mul = _op(graph, "mean").outputs[0], _op(graph, "mul")
    inner = _run(graph, FEEDS, [x])[x]
    with Untouched(graph) as edited:
        edited.remove(mul.outputs[0], x)
        left = {op.function for op in edited.ops()}
        assert "mul" not in left
        assert len(edited.weights()[1].layers) == 1  # the matrix that is shared stays for the other layer
        assert edited.constant(mul.inputs[1]) is None
        assert [layer.name for layer in edited.weights()[1].layers] == [graph.weights()[1].layers[0].name]
        _assert_equal(edited, list(_with(graph, mul.outputs[0], lambda _: inner).values()))


def test_an_output_is_removed_and_keeps_its_name(graph: Graph) -> None:
    x = _op(graph, "mean").outputs[0]
    inner, (first, second) = _run(graph, FEEDS, [x])[x], _run(graph, FEEDS).values()
    with Untouched(graph) as edited:
        edited.remove(edited.outputs[0].name, x)
        assert edited.outputs == graph.outputs
        assert "tanh" not in {op.function for op in edited.ops()}
        _assert_equal(edited, [inner, second - first + inner])


def test_what_could_not_stand_for_a_value_is_refused(graph: Graph) -> None:
    x, conv = _op(graph, "mean").outputs[0], _op(graph, "conv")
    last = graph.ops()[-1].outputs[0]
    with Untouched(graph) as edited:
        for value, instead, message in (
            (x, last, "is made after what reads"),
            (x, x, "is made after what reads"),
            (x, conv.outputs[0], "is"),
            (conv.inputs[0], x, "is"),
            (conv.inputs[1], conv.inputs[1], "is not computed"),
        ):
            with pytest.raises(Refused, match=message):
                edited.remove(value, instead)
        assert _seen(edited) == _seen(graph)


@pytest.mark.parametrize("biased", [False, True])
def test_a_part_becomes_a_product(graph: Graph, biased: bool) -> None:
    x, tanh = _op(graph, "mean").outputs[0], _op(graph, "tanh")
    matrix, bias = random(WIDTH, WIDTH), random(WIDTH) if biased else None
    made = _run(graph, FEEDS, [x])[x] @ matrix + (0 if bias is None else bias)
    with Untouched(graph) as edited:
        name = edited.replace_region(tanh.outputs[0], x, matrix, bias)
        assert edited.outputs == graph.outputs
        assert "tanh" not in {op.function for op in edited.ops()}
        weight = next(weight for weight in edited.weights() if weight.constant == name)
        np.testing.assert_array_equal(edited.matrix(weight), matrix.T)
        assert (weight.layers[0].bias is not None) == biased
        first, second = _run(graph, FEEDS).values()
        _assert_equal(edited, [made, second - first + made])


def test_a_product_that_does_not_fit_is_refused(graph: Graph) -> None:
    x, value = _op(graph, "mean").outputs[0], _op(graph, "tanh").outputs[0]
    refused: list[tuple[str, Array, Array | None, str]] = [
        (x, random(WIDTH, WIDTH).astype(np.float64), None, "is float32, the array float64"),
        (x, random(WIDTH, 3), None, "does not make"),
        (x, random(3, WIDTH), None, "does not make"),
        (x, random(WIDTH), None, "takes a bias"),
        (x, random(WIDTH, WIDTH), random(3), "takes a bias"),
        (graph.ops()[-1].outputs[0], random(WIDTH, WIDTH), None, "is made after what reads"),
    ]
    with Untouched(graph) as edited:
        for source, matrix, bias, message in refused:
            with pytest.raises(Refused, match=message):
                edited.replace_region(value, source, matrix, bias)
        assert _seen(edited) == _seen(graph)


# other sizes (tests/test_select.py has what ops say of them)


def test_sizes_that_do_not_fit_are_refused(graph: Graph) -> None:
    conv, x = _op(graph, "conv"), _op(graph, "mean").outputs[0]
    less, shape = _array(graph, conv.inputs[1])[:2], graph.value(conv.outputs[0]).shape or ()
    for resized in (
        Resized({conv.inputs[1]: less}),  # and nothing else: the next product cannot be
        Resized({conv.inputs[1]: less}, shapes={conv.outputs[0]: (shape[0], 3, *shape[2:])}),
        Resized(attributes={"nothing": {"groups": 2}}),
        Resized(attributes={conv.name: {"kernel": (5, 5)}}),
        Resized(shapes={x: (1, 2, 3)}),
    ):
        with Untouched(graph) as edited, pytest.raises(Refused):
            edited.resize(resized)


# ONNX alone


def _onnx(body: str, opset: int = 21, **weights: Array) -> OnnxGraph:
    return OnnxGraph(ir.serde.deserialize_model(parse(body, weights, opset, 10)), Path())


def _named(graph: OnnxGraph, function: str) -> Op:
    for at, node in enumerate(graph.model.graph):
        node.name = node.name or f"node{at}"
    return _op(graph, function)


W, X, EYE = random(4, 4), random(5, 4, seed=1), np.eye(4, dtype=np.float32)


def test_linear_ops_say_how_they_read_their_weights() -> None:
    cases = {
        "MatMul(x, w)": (),
        "Gemm <transB = 1> (x, w)": (1,),
        "Gemm <transA = 1> (x, w)": (0,),
        "Gemm <transA = 1> (w, x)": (0,),
    }
    for node, transposed in cases.items():
        graph = _onnx(f"g (float[4,4] x) => (float[4,4] y) {{ y = {node} }}", w=W)
        assert _named(graph, "linear").attributes == {"transposed": transposed}
    linear = _op(FxGraph.export(nn.Linear(4, 4), (torch.zeros(2, 4),)), "linear")
    assert linear.attributes == {"transposed": (1,)}


@pytest.mark.parametrize("node", ["Gemm(x, w)", "Gemm <transB = 1> (x, w)", "Gemm <alpha = 0.5> (x, w)"])
def test_a_gemm_gets_a_bias(node: str) -> None:
    graph = _onnx(f"g (float[N,4] x) => (float[N,4] y) {{ y = {node} }}", w=W)
    op = _named(graph, "linear")
    before = _run(graph, {"x": X})["y"]
    assert graph.set_operand(op.name, 2, W[0]) == f"{graph.weights()[0].name}.bias"
    _assert_equal(graph, [before + W[0]], {"x": X})


def test_a_bias_that_the_opset_requires_is_no_option() -> None:
    graph = _onnx("g (float[N,4] x) => (float[N,4] y) { y = Gemm(x, w, b) }", opset=9, w=W, b=W[0])
    with pytest.raises(Refused, match=r"\(Gemm\) takes no operand 3"):
        graph.set_operand(_named(graph, "linear").name, 3, W[0])


def test_operands_between_may_be_left_out() -> None:
    graph = _onnx("g (float[N,4] x) => (float[N,4] y) { y = Clip(x) }")
    op = _named(graph, "clip")
    graph.set_operand(op.name, 2, np.array(0.5, np.float32))
    assert _op(graph, "clip").inputs == ("x", "", f"{op.name}.operand2")
    _assert_equal(graph, [np.minimum(X, 0.5)], {"x": X})


def test_names_that_are_taken_are_passed_by() -> None:
    graph = _onnx(
        "g (float[N,4] x) => (float[N,4] y, float[N,4] z)"
        "{ h = Relu(x)\n s = MatMul(x, w)\n y = Add(s, h)\n z = MatMul(s, w) }",
        w=W,
    )
    first = _named(graph, "linear")
    name = graph.set_operand(first.name, 1, 2 * W)
    assert name not in ("w", "")
    assert graph.insert("mul", "s", W[0]) != graph.insert("mul", "s", W[0])
    assert graph.insert("add", "y", W[1]) == graph.insert("add", "y", W[1]) == "y"
    scaled = X @ (2 * W) * W[0] * W[0]
    _assert_equal(graph, [scaled + np.maximum(X, 0) + 2 * W[1], scaled @ W], {"x": X})


def test_subgraphs_read_the_new_value() -> None:
    graph = _onnx(
        "g (float[N,4] x, bool c) => (float[N,4] y) { h = MatMul(x, w)\n"
        "y = If (c) <then_branch = t () => (float[N,4] a) { a = Relu(h) },"
        "else_branch = e () => (float[N,4] b) { b = Identity(h) }> }",
        w=EYE,
    )
    for at, node in enumerate(graph.model.graph.all_nodes()):
        node.name = f"node{at}"
    graph.insert("mul", "h", W[0])
    feeds = {"x": X, "c": np.array(False)}
    np.testing.assert_allclose(_run(graph, feeds)["y"], X * W[0], atol=TOLERANCE)
    with pytest.raises(Refused, match="is bool"):
        graph.insert("mul", "c", W[0])
    with pytest.raises(Refused, match=r"`y` is float32, but `c` is bool"):
        graph.bypass(next(op.name for op in graph.ops() if op.function == "If"))


def test_values_that_cannot_leave_their_names() -> None:
    graph = _onnx("g (float[N,4] x) => (float[N,4] x, float[4,4] w) { }", w=W)
    for name in ("x", "w"):
        with pytest.raises(Refused, match=rf"`{name}` is returned as it is fed or stored"):
            graph.insert("mul", name, W[0])


def test_unknown_ranks_stay_unknown() -> None:
    graph = _onnx("g (float[N,4] x, int64[K] s) => (float[N,4] y) { h = Reshape(x, s)\n y = Relu(h) }")
    _named(graph, "relu")
    new = graph.insert("gather", "h", PICK)
    assert (graph.value(new).shape, graph.value("y").name) == (None, "y")
    feeds = {"x": X, "s": np.array([5, 4])}
    _assert_equal(graph, [np.maximum(X[:, PICK], 0)], feeds)


def test_a_constant_goes_with_the_input_that_could_override_it() -> None:
    graph = _onnx("g (float[N,4] x, float[4,4] w) => (float[N,4] y) { y = MatMul(x, w) }", w=W)
    graph.set_operand(_named(graph, "linear").name, 1, EYE)
    assert [value.name for value in graph.inputs] == ["x"]
    _assert_equal(graph, [X], {"x": X})


def test_new_layers_take_no_name_that_is_kept() -> None:
    graph = _onnx("g (float[4,4] x) => (float[4,4] z) { a = MatMul(x, u)\n b = MatMul(x, a)\n z = Add(a, b) }", u=W)
    _named(graph, "linear")
    (weight,) = graph.weights()
    other = next(op for op in graph.ops() if op.function == "matmul")
    graph.set_operand(other.name, 1, W)
    graph.set_operand(weight.layers[0].op, 1, 2 * W)
    names = [weight.name for weight in graph.weights()]
    assert names[0] == weight.name
    assert len({*names}) == 2


def _computed(graph: Graph, function: str) -> str:
    """The one value that ops of this function make."""
    (op,) = (one for one in graph.ops() if one.function == function)
    return op.outputs[0]


def _feeds_of(graph: Graph, known: Results) -> Results:
    return {value.name: known[value.name] for value in graph.inputs}


def test_a_graph_is_cut_in_two_at_values(graph: Graph) -> None:
    expected, before = _run(graph, FEEDS), graph.digest()
    middle = (_computed(graph, "mean"), _computed(graph, "tanh"))
    first, second = graph.split(middle[:1])
    known = {**FEEDS, **_run(first, FEEDS)}
    assert [value.name for value in first.outputs] == [value.name for value in second.inputs] == [middle[0]]
    found = _run(second, _feeds_of(second, known))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=TOLERANCE)
    assert {op.name for op in first.ops()}.isdisjoint(op.name for op in second.ops())
    assert len(first.ops()) + len(second.ops()) == len(graph.ops())
    names = [{weight.name for weight in part.weights()} for part in (first, second)]
    assert names[0] | names[1] == {weight.name for weight in graph.weights()} and not names[0] & names[1]
    assert graph.digest() == before


def test_an_output_and_an_input_are_added_and_lost(graph: Graph) -> None:
    middle, outputs = _computed(graph, "mean"), [value.name for value in graph.outputs]
    more = graph.between(["image"], [*outputs, middle])
    found = _run(more, FEEDS)
    assert list(found) == [*outputs, middle]
    less = more.between([middle], outputs[:1])
    assert [value.name for value in less.inputs] == [middle] and len(less.ops()) < len(graph.ops())
    assert less.value(middle) == graph.value(middle)
    again = _run(less, {middle: found[middle]})
    np.testing.assert_allclose(again[outputs[0]], found[outputs[0]], atol=TOLERANCE)
    copied = less.copy()
    assert [value.name for value in copied.inputs] == [middle]
    np.testing.assert_allclose(_run(copied, {middle: found[middle]})[outputs[0]], found[outputs[0]], atol=TOLERANCE)


def test_a_part_is_edited_and_written_as_any_graph(graph: Graph, tmp_path: Path) -> None:
    _, second = graph.split([_computed(graph, "mean")])
    (value,) = second.inputs
    before = _run(second, {value.name: random(3, WIDTH)})
    for weight in second.weights():
        second.encode(weight, fit.encode(second.matrix(weight), Blocked(IntGrid(8), CHANNEL)), DECODED)
    after = _run(second, {value.name: random(3, WIDTH)})
    assert all(np.abs(after[name] - before[name]).max() < 0.05 for name in before)  # eight bits of weights below 1
    if isinstance(second, OnnxGraph):
        second.save(tmp_path / "part.onnx")
        onnx.checker.check_model(str(tmp_path / "part.onnx"), full_check=True)


def test_parts_that_are_none_are_refused(graph: Graph) -> None:
    middle, (first, *_), before = _computed(graph, "mean"), graph.outputs, graph.digest()
    constant = graph.weights()[0].constant
    for inputs, outputs, why in (
        ([middle], [middle], "named twice"),
        ([constant, "image"], [first.name], "a constant"),
        ([], [first.name], "`image` is needed and not fed"),
    ):
        with pytest.raises(Refused, match=why):
            graph.between(inputs, outputs)
    for name in ("image", first.name, constant):
        with pytest.raises(Refused, match="computed on both sides"):
            graph.split([name])
    assert graph.digest() == before


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_an_input_and_an_output_are_of_another_type(graph: Graph, dtype: str) -> None:
    expected, changed = _run(graph, FEEDS), graph.copy()
    first, second = (value.name for value in graph.outputs)
    for name in ("image", first):
        changed.retype(name, dtype)
    assert [(value.name, value.dtype) for value in changed.inputs] == [("image", dtype)]
    assert [(value.name, value.dtype) for value in changed.outputs] == [(first, dtype), (second, "float32")]
    found = _run(changed, {"image": FEEDS["image"].astype(dtype)})
    assert found[first].dtype == dtype and found[second].dtype == np.float32
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=5e-3)  # half floats have eleven digits of values of about 1
    assert [weight.name for weight in changed.weights()] == [weight.name for weight in graph.weights()]


def test_types_that_nothing_is_cast_to_are_refused(graph: Graph) -> None:
    before = graph.digest()
    for value, dtype, why in (
        (_computed(graph, "mean"), "float16", "neither an input nor an output"),
        ("image", "string", "nothing is cast to or from string"),
    ):
        with pytest.raises(Refused, match=why):
            graph.retype(value, dtype)
    assert graph.digest() == before
