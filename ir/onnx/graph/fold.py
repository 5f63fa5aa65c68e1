"""Computing constants that are made of constants, so that weights are found where exporters leave arithmetic on them.

The runtime computes what it would compute itself when a session starts. Only what makes the file no larger is taken:
neither a table that is spread out, nor codes that are decoded, nor a transposed copy of what is read elsewhere too.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qcc.ir.errors import ModelError
from qcc.ir.onnx.file.bodies import bodies
from qcc.ir.onnx.file.load import array_of
from qcc.ir.onnx.given.tensor import given_of
from qcc.ir.onnx.graph.kinds import DEFAULT_DOMAINS
from qcc.ir.onnx.graph.run import OnnxRunner

MOST_GROWTH = 128  # bytes by which folding may enlarge the file, for each constant that it makes: about what ops take
MOST_SPREAD = 8  # times what it is made of: no value on the way is larger
SMALL_BYTES = 4096  # constants up to this size tie nothing together: an exponent, an axis
LEFT = ("DequantizeLinear",)  # it tells the runtime of integers
RANDOM = (
    *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"),
    *("Multinomial", "Bernoulli", "Dropout"),
)
VIEWS = ("Identity", "Cast", "Transpose")  # layers see through them: as the last ops they are left


@dataclass
class ConstantPart:
    """Ops that hang together, what they read and what others read of them."""

    nodes: list[ir.Node]
    reads: list[ir.Value]
    makes: list[ir.Value]

    @property
    def gone(self) -> list[ir.Value]:
        """The constants that nobody else reads."""
        mine = set(self.nodes)
        alone = [value for value in self.reads if all(node in mine for node, _ in value.uses())]
        return [value for value in alone if not value.is_graph_output()]

    @property
    def gain_bytes(self) -> int:
        """By how much smaller the file gets."""
        return sum(map(size_of, self.gone)) - sum(size_of(value) - MOST_GROWTH for value in self.makes)

    @property
    def names(self) -> dict[ir.Value, str]:
        """What the results are called: a weight that is only turned or scaled keeps its name, which is its path."""
        large = [value for value in self.gone if 8 * size_of(value) >= sum(map(size_of, self.makes))]
        if len(self.makes) == len(large) == 1:
            return {self.makes[0]: large[0].name or ""}
        return {value: value.name or "" for value in self.makes}


class FoldConstants(ir.passes.InPlacePass):
    """Compute what is made of constants alone."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in place."""
        if not any(is_constant(node, {}) for node in model.graph.all_nodes()):
            return ir.passes.PassResult(model, False)
        found = _candidates(model.graph)
        taken = [part for part in parts(found) if part.makes and part.gain_bytes >= 0]
        for part in taken:
            _fold(model, part)
        return ir.passes.PassResult(model, bool(taken))


def _candidates(graph: ir.Graph) -> list[ir.Node]:
    """The nodes that could be computed, in order; those at the end that only show a constant otherwise are left."""
    found: dict[ir.Node, None] = {}
    for node in ordered(graph):
        if is_constant(node, found) and _fits(node):
            found[node] = None
    for node in reversed(list(found)):
        ends = not any(reader in found for output in node.outputs for reader in output.consumers())
        if ends and node.op_type in VIEWS:
            del found[node]
    return list(found)


def ordered(graph: ir.Graph) -> Iterator[ir.Node]:
    """The nodes with those in their bodies, each after what it reads."""
    for node in graph:
        for body in bodies(node):
            yield from ordered(body)
        yield node


def is_constant(node: ir.Node, made: Container[ir.Node | None]) -> bool:
    """A node whose result is known: it draws nothing, and reads constants or what such nodes make."""
    if node.domain not in DEFAULT_DOMAINS or node.op_type in (*RANDOM, *LEFT) or any(bodies(node)):
        return False
    reads = [value for value in node.inputs if value is not None]
    fixed = (
        one.const_value is not None and one.is_initializer() and not one.is_graph_input() and given_of(one) is None
        for one in reads
    )
    return bool(reads) and all(known or one.producer() in made for known, one in zip(fixed, reads, strict=True))


def _fits(node: ir.Node) -> bool:
    """Its results are of known size, and none is much larger than what they are made of."""
    if not is_sized(node):
        return False
    outputs = [value for value in node.outputs if value.name or value.uses()]
    limit = MOST_SPREAD * sum(max(size_of(value), 0) for value in node.inputs if value is not None) + SMALL_BYTES
    return all(size_of(one) <= limit for one in outputs)


def is_sized(node: ir.Node) -> bool:
    """Its results are tensors of known size, and no output of a graph."""
    outputs = [value for value in node.outputs if value.name or value.uses()]
    sized = all(isinstance(one.type, ir.TensorType) and size_of(one) >= 0 for one in outputs)
    return sized and bool(outputs) and not any(one.is_graph_output() for one in outputs)


def size_of(value: ir.Value) -> int:
    """Bytes of a tensor; -1 where its size is not known, or it holds no numbers."""
    tensor = value.const_value
    shape, dtype = (value.shape, value.dtype) if tensor is None else (tensor.shape, tensor.dtype)
    if shape is None or dtype in (None, ir.DataType.STRING, ir.DataType.UNDEFINED):
        return -1
    sizes = [size for size in shape if isinstance(size, int) and size >= 0]
    assert dtype is not None
    return int(np.prod(sizes, dtype=np.int64) * dtype.bitwidth // 8) if len(sizes) == len(shape) else -1


def parts(nodes: list[ir.Node]) -> list[ConstantPart]:
    """Parts of the nodes that share no value but small ones."""
    known, above = set[ir.Node | None](nodes), dict[ir.Node | ir.Value, ir.Node | ir.Value]()

    def root(one: ir.Node | ir.Value) -> ir.Node | ir.Value:
        while above.setdefault(one, one) is not one:
            one = above[one]
        return one

    for node in nodes:
        for value in (*node.inputs, *node.outputs):
            if value is not None and (value.producer() in known or size_of(value) > SMALL_BYTES):
                above[root(value)] = root(node)
    found: dict[ir.Node | ir.Value, list[ir.Node]] = {}
    for node in nodes:
        found.setdefault(root(node), []).append(node)
    return [_part(part) for part in found.values()]


def _part(nodes: list[ir.Node]) -> ConstantPart:
    mine = set(nodes)
    reads = dict.fromkeys(value for node in nodes for value in node.inputs if value is not None)
    makes = [value for node in nodes for value in node.outputs if any(reader not in mine for reader, _ in value.uses())]
    return ConstantPart(nodes, [value for value in reads if value.producer() not in mine], makes)


def _fold(model: ir.Model, part: ConstantPart) -> None:
    """Compute a part and put constants in its place."""
    try:
        arrays = _computed(model, part)
    except ModelError:  # the runtime does not take it: it will say so of the model
        return
    graph, names = model.graph, part.names
    for value, array in zip(part.makes, arrays, strict=True):
        tensor = ir.Tensor(np.asarray(array, order="C"), dtype=value.dtype)  # a scalar stays one
        constant = ir.Value(type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        value.replace_all_uses_with(constant)
        names[constant] = names.pop(value)
    for node in reversed(part.nodes):
        if node.graph is not None:
            node.graph.remove(node, safe=True)
    for value in part.reads:
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[value.name or ""]
    for constant, name in names.items():
        constant.name = name
        graph.register_initializer(constant)


def _computed(model: ir.Model, part: ConstantPart) -> list[np.ndarray]:
    """What a part makes, in the order of ``makes``."""
    values: dict[ir.Value, ir.Value] = {
        value: ir.Value(name=f"v{at}", type=ir.TensorType(_dtype(value)), shape=_shape(value))
        for at, value in enumerate(part.reads)
    }
    inputs, nodes = list(values.values()), []
    for node in part.nodes:
        for output in node.outputs:
            values[output] = ir.Value(name=f"v{len(values)}", type=output.type, shape=output.shape)
        reads = [None if value is None else values[value] for value in node.inputs]
        made = [values[output] for output in node.outputs]
        nodes.append(ir.Node(node.domain, node.op_type, reads, list(node.attributes.values()), outputs=made))
    outputs = [values[value] for value in part.makes]
    graph = ir.Graph(inputs, outputs, nodes=nodes, opset_imports=dict(model.graph.opset_imports), name="constants")
    run = OnnxRunner(ir.serde.serialize_model(ir.Model(graph, ir_version=model.ir_version)))
    found = run({one.name or "": _array(value) for one, value in zip(inputs, part.reads, strict=True)})
    return [found[value.name or ""] for value in outputs]


def _array(value: ir.Value) -> np.ndarray:
    array = array_of(value)
    assert array is not None
    return array


def _dtype(value: ir.Value) -> ir.DataType:
    assert value.const_value is not None
    return ir.DataType(value.const_value.dtype)


def _shape(value: ir.Value) -> ir.Shape:
    assert value.const_value is not None
    return ir.Shape(value.const_value.shape.numpy())
