"""Weights that come compressed: decoded while a model is worked on, put back as they came when it is written.

What lies between the constants of a file and a layer, be it a DequantizeLinear or a function that unpacks bits, is a
piece that computes one weight of constants. While the model is worked on, a constant stands in its place whose numbers
are computed when somebody asks (`Given`), so that to passes it is a weight like any other. If it is still there when
the model is written, nobody has changed it, and the piece goes back, to the byte. A product that holds its weight
itself (MatMulNBits) is taken apart and put together in the same way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from qcc.ir.errors import ModelError, first_line
from qcc.ir.onnx.file.runtime import onnxruntime

DEFAULT = ("", "ai.onnx")
IR_VERSION = 10  # the first that knows integers of four bits; the runtime reads later ones by its own version


@dataclass(frozen=True)
class Decoding:
    """Nodes that make one value of constants alone.

    Args:
        nodes: in order; they are of no graph.
        reads: the constants, with their tensors.
        makes: the value.
        opsets: that the nodes are of.
        functions: that they call.
        unit: a constant that no file holds: the unit matrix, by which a product gives what it holds itself.
    """

    nodes: tuple[ir.Node, ...]
    reads: tuple[ir.Value, ...]
    makes: ir.Value
    opsets: Mapping[str, int]
    functions: tuple[ir.Function, ...] = ()
    unit: ir.Value | None = None

    @property
    def size_bytes(self) -> int:
        """Of the constants."""
        return sum(value.const_value.nbytes for value in self.reads if value.const_value is not None)

    def copied(self, known: dict[ir.Value, ir.Value]) -> list[ir.Node]:
        """The nodes anew; ``known`` says what the constants are there, and is told of all that is made."""
        made = []
        for node in self.nodes:
            for output in node.outputs:
                known[output] = ir.Value(name=output.name, type=output.type, shape=output.shape)
            reads = [None if value is None else known[value] for value in node.inputs]
            outputs = [known[output] for output in node.outputs]
            attributes = list(node.attributes.values())
            made.append(ir.Node(node.domain, node.op_type, reads, attributes, outputs=outputs, name=node.name))
        return made

    def computed(self) -> np.ndarray:
        """What it makes, as the runtime computes it.

        Raises:
            ModelError: the runtime does not take it.
        """
        known: dict[ir.Value, ir.Value] = {}
        for at, value in enumerate((*self.reads, *([] if self.unit is None else [self.unit]))):
            assert value.const_value is not None
            tensor = ir.Tensor(value.const_value.numpy(), dtype=ir.DataType(value.const_value.dtype), name=f"c{at}")
            shape = ir.Shape(tensor.shape.numpy())
            known[value] = ir.Value(name=f"c{at}", type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
        held = list(known.values())
        nodes = self.copied(known)
        made = known[self.makes]
        graph = ir.Graph([], [made], nodes=nodes, initializers=held, opset_imports=dict(self.opsets), name="given")
        return _run(ir.Model(graph, ir_version=IR_VERSION, functions=self.functions))


class Given(ir.LazyTensor):
    """The numbers of a weight that comes compressed; they are computed each time.

    Args:
        piece: what decodes it.
        dtype: of the numbers.
        shape: theirs.
        product: the op that holds it itself, where one does; what it multiplies is left out of its inputs.
    """

    def __init__(self, piece: Decoding, dtype: ir.DataType, shape: ir.Shape, product: ir.Node | None = None) -> None:
        super().__init__(partial(_tensor, piece, dtype), dtype=dtype, shape=shape)
        self.piece = piece
        self.product = product


def given_of(value: ir.Value) -> Given | None:
    """The weight that comes compressed that a value is, if it is one."""
    return value.const_value if isinstance(value.const_value, Given) else None


def alike(value: ir.Value) -> ir.Value:
    """A constant of no graph with the same tensor."""
    return ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=value.const_value)


def register(graph: ir.Graph, value: ir.Value, name: str, taken: set[str]) -> None:
    """Make a value a constant of a graph under a name that is free."""
    value.name = name
    taken.add(name)
    graph.register_initializer(value)


def _tensor(piece: Decoding, dtype: ir.DataType) -> ir.Tensor[np.ndarray]:
    return ir.Tensor(piece.computed(), dtype=dtype)


def _run(model: ir.Model) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        source = ir.serde.serialize_model(model).SerializeToString()
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {})[0])
    except Exception as error:  # the runtime raises a dozen unrelated classes
        raise ModelError("Q405", f"ONNX Runtime cannot decode a weight of the model: {first_line(error)}") from error
