"""The Graph face over ONNX."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from qcc.ir import onnx_load, onnx_save
from qcc.ir.encoding import Encoded
from qcc.ir.errors import Refused
from qcc.ir.forms import Form
from qcc.ir.graph import Array, Feeds, Graph, Kind, Op, Runner, Value, Weight
from qcc.ir.onnx_encode import Forms, required_opset
from qcc.ir.onnx_functions import DOMAIN
from qcc.ir.onnx_kinds import kind_of
from qcc.ir.onnx_layers import find_weights
from qcc.ir.onnx_run import OnnxRunner
from qcc.ir.onnx_opset import raise_opset
from qcc.ir.onnx_save_options import ExternalData


class OnnxGraph(Graph):
    """An ONNX model; its weights stay on disk until they are looked at."""

    def __init__(self, model: ir.Model, folder: Path, name: str = "") -> None:
        self.model = model
        self.folder = folder
        self.name = name
        self._weights: tuple[Weight, ...] | None = None

    @classmethod
    def load(cls, path: Path) -> "OnnxGraph":
        """Open a file.

        Raises:
            ModelError: see `onnx_load.load`.
        """
        return cls(onnx_load.load(path), path.parent, path.name)

    @property
    def opset(self) -> int:
        """The version of the default operator set."""
        return self.model.opset_imports.get("", 1)

    @property
    def inputs(self) -> tuple[Value, ...]:
        return tuple(_value(value) for value in self.model.graph.inputs if not value.is_initializer())

    @property
    def outputs(self) -> tuple[Value, ...]:
        return tuple(_value(value) for value in self.model.graph.outputs)

    def ops(self) -> tuple[Op, ...]:
        layers = {layer.op: layer.kind for weight in self.weights() for layer in weight.layers}
        return tuple(_op(node, layers.get(node.name or "")) for node in self.model.graph)

    def value(self, name: str) -> Value:
        return _value(self._find(name))

    def constant(self, name: str) -> Array | None:
        value = self.model.graph.initializers.get(name)
        return None if value is None else onnx_load.array_of(value)

    def weights(self) -> tuple[Weight, ...]:
        if self._weights is None:
            self._weights = find_weights(self.model.graph)
        return self._weights

    def copy(self) -> "OnnxGraph":
        return OnnxGraph(self.model.clone(), self.folder, self.name)

    def simplify(self) -> list[str]:
        before = self.model.graph.num_nodes(), len(self.model.graph.initializers)
        for step in (
            common.InlinePass(lambda function: function.domain != DOMAIN),
            common.RemoveInitializersFromInputsPass(),
            common.IdentityEliminationPass(),
            common.DeduplicateHashedInitializersPass(),
            common.CommonSubexpressionEliminationPass(),
            common.RemoveUnusedNodesPass(),
            common.RemoveUnusedFunctionsPass(),
            common.RemoveUnusedOpsetsPass(),
            common.ShapeInferencePass(),
        ):
            step(self.model)
        self._weights = None
        after = self.model.graph.num_nodes(), len(self.model.graph.initializers)
        names = ("ops", "constants")
        return [f"{name}: {b} -> {a}" for name, b, a in zip(names, before, after, strict=True) if a != b]

    def replace_constant(self, name: str, array: Array) -> None:
        value = self.model.graph.initializers[name]
        old = value.const_value
        if old is None or tuple(old.shape.numpy()) != array.shape or old.dtype.numpy() != array.dtype:
            raise Refused(f"`{name}` cannot take an array {array.dtype} {array.shape}")
        value.const_value = ir.Tensor(array, name=name)

    def encode(self, weight: Weight, encoded: Encoded, form: Form) -> None:
        needed = required_opset(encoded, form)
        if self.opset < needed:
            raise_opset(self.model, needed)
        Forms(self.model, weight, encoded).emit(form)
        self._weights = None

    def require_opset(self, opset: int) -> None:
        """Raise the model's default opset.

        Raises:
            ModelError: a node has no equivalent there.
        """
        if self.opset < opset:
            raise_opset(self.model, opset)
            self._weights = None

    def runner(self, inputs: Sequence[str], outputs: Sequence[str], free: Iterable[str] = ()) -> Runner:
        graph = ir.convenience.extract(self.model.graph, list(inputs), list(outputs))
        for name in free:
            if name in graph.initializers and graph.initializers[name] not in graph.inputs:
                graph.inputs.append(graph.initializers[name])
        model = ir.Model(graph, ir_version=max(self.model.ir_version, 4), functions=tuple(self.model.functions.values()))
        return OnnxRunner(ir.serde.serialize_model(model), self.folder)

    def size_bytes(self) -> int:
        """The size of the file that `save` would write, without writing it."""
        return onnx_save.size_bytes(self.model)

    def data_files(self) -> list[str]:
        """The files beside the model in which it keeps weights."""
        tensors = (value.const_value for value in self.model.graph.initializers.values())
        found = {str(tensor.location) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}
        return sorted(found - {self.name})

    def save(self, path: Path, external: ExternalData = "auto", metadata: Mapping[str, str] | None = None) -> onnx_save.Written:
        """Write the model, all of it or nothing; node metadata and doc strings are left out.

        Raises:
            ModelError: the place cannot be written to.
        """
        model = self.model.clone()
        common.ClearMetadataAndDocStringPass()(model)
        model.ir_version = onnx_save.ir_version(self.opset, model.ir_version)
        model.metadata_props.update(metadata or {})
        return onnx_save.save(model, path, external)

    def _find(self, name: str) -> ir.Value:
        values = ir.convenience.create_value_mapping(self.model.graph, include_subgraphs=False)
        return values[name]


def _value(value: ir.Value) -> Value:
    shape = value.shape
    sizes = None if shape is None else tuple(size if isinstance(size, int) else size.value for size in shape)
    dtype = "" if value.dtype is None or value.dtype is ir.DataType.UNDEFINED else _dtype(value.dtype)
    return Value(value.name or "", sizes, dtype)


def _dtype(dtype: ir.DataType) -> str:
    return "string" if dtype is ir.DataType.STRING else np.dtype(dtype.numpy()).name


def _op(node: ir.Node, layer: Kind | None) -> Op:
    return Op(
        node.name or "",
        layer or kind_of(node),
        node.op_type,
        tuple(value.name or "" if value is not None else "" for value in node.inputs),
        tuple(value.name or "" for value in node.outputs),
    )
