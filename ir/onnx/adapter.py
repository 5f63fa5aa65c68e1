"""The Graph face over ONNX."""

# ruff: noqa: D102 - the face documents the methods that it asks for

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from qcc.ir.encoding.cached.kept import CacheForm, StoredRows
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.value import DYNAMIC_INT8, EncodedValue, ValueEncoding
from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention, AttentionForm
from qcc.ir.graph.edits import (
    NUMBERED,
    check_borders,
    check_bypass,
    check_constant,
    check_insert,
    check_instead,
    check_product,
    check_region,
    check_type,
    check_value,
    keep_names,
    layer_names,
    operand_name,
)
from qcc.ir.graph.form import Form
from qcc.ir.graph.graph import Graph, Readers, Runner
from qcc.ir.graph.in_pieces import InPieces, pieces_of
from qcc.ir.graph.ops import Array, Op, Resized, Value, Weight
from qcc.ir.graph.resized import check_resized, sized_ops
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.ir.kernel.op import LinearOp
from qcc.ir.kernel.region import NO_REGIONS, Region
from qcc.ir.model.model import Written
from qcc.ir.model.options import ExternalData
from qcc.ir.onnx.attention.attend import write_attends
from qcc.ir.onnx.attention.store import check_stored, store_caches
from qcc.ir.onnx.attention.write import check_attention, write_attention
from qcc.ir.onnx.chain.write import write_chains
from qcc.ir.onnx.emit.follow import put_together
from qcc.ir.onnx.emit.spill import Spill
from qcc.ir.onnx.emit.tabled import tabled_opset, write_tabled
from qcc.ir.onnx.emit.write import write
from qcc.ir.onnx.file import load as onnx_load
from qcc.ir.onnx.file import save as onnx_save
from qcc.ir.onnx.file.bodies import sink
from qcc.ir.onnx.file.external import open_in, relative_to
from qcc.ir.onnx.file.opset import raise_opset
from qcc.ir.onnx.given.put_back import put_back
from qcc.ir.onnx.graph.edit import OnnxEditor
from qcc.ir.onnx.graph.kinds import value_of
from qcc.ir.onnx.graph.layers import find_weights, op_of
from qcc.ir.onnx.graph.resize import resize
from qcc.ir.onnx.graph.run import in_pieces, part_runner
from qcc.ir.onnx.graph.simplify import lift, simplify
from qcc.ir.onnx.half.cast import cast, castable, check_castable
from qcc.ir.onnx.values.write import multiply_rounded, value_opset, write_rounded
from qcc.ir.vocabulary.tabled import Tabled

GIVEN_NAME = re.compile(r"node(_\d+)?")  # what the library calls an op that has no name
LAYER = "qcc.layer"  # metadata of a node: what its layer is called, however its weight is


class OnnxGraph(Graph):
    """An ONNX model; its weights stay on disk until they are looked at.

    Args:
        model: the model.
        folder: of its files.
        data_files: the names of those that its weights lie in.
        note_bytes: of what only people read in the file that it came from; none of it is written again.
    """

    def __init__(self, model: ir.Model, folder: Path, data_files: tuple[str, ...] = (), note_bytes: int = 0) -> None:
        self.model, self.folder = model, folder
        self.note_bytes = note_bytes
        self._data_files = data_files
        self._weights: tuple[Weight, ...] | None = None
        self._values: Mapping[str, ir.Value] | None = None
        self._ops: tuple[Op, ...] | None = None
        self._rounded: dict[str, ValueEncoding] = {}  # by the names of what `encode_value` made
        self._encoded_values: dict[str, EncodedValue] = {}
        self._spill: Spill | None = None

    @classmethod
    def load(cls, path: Path) -> "OnnxGraph":
        """Open a file.

        Raises:
            ModelError: see `onnx_load.load`.
        """
        loaded = onnx_load.load(path)
        return cls(loaded.model, loaded.folder, loaded.data_files, loaded.note_bytes)

    @property
    def opset(self) -> int:
        """The version of the default operator set."""
        return self.model.opset_imports.get("", 1)

    @property
    def inputs(self) -> tuple[Value, ...]:
        return tuple(value_of(value) for value in self.model.graph.inputs if not value.is_initializer())

    @property
    def outputs(self) -> tuple[Value, ...]:
        return tuple(value_of(value) for value in self.model.graph.outputs)

    def ops(self) -> tuple[Op, ...]:
        if self._ops is None:
            layers = {layer.op: layer for weight in self.weights() for layer in weight.layers}
            self._ops = tuple(op_of(node, layers.get(node.name or ""), self.opset) for node in self.model.graph)
        return self._ops

    def value(self, name: str) -> Value:
        return value_of(self._find(name))

    def constant(self, name: str) -> Array | None:
        value = self.model.graph.initializers.get(name)
        return None if value is None else onnx_load.array_of(value)

    def weights(self) -> tuple[Weight, ...]:
        if self._weights is None:
            kept = {node.name or "": node.metadata_props.get(LAYER, "") for node in self.model.graph}
            found = keep_names(find_weights(self.model.graph), {op: name for op, name in kept.items() if name})
            self._weights = tuple(map(self._told_of_rounding, found)) if self._rounded else found
        return self._weights

    def _told_of_rounding(self, weight: Weight) -> Weight:
        layers = [replace(layer, rounded=self._rounded.get(layer.input)) for layer in weight.layers]
        return replace(weight, layers=tuple(layers))

    def copy(self) -> Self:
        other = type(self)(self.model.clone(), self.folder, self._data_files, self.note_bytes)
        other._rounded, other._encoded_values, other._spill = {**self._rounded}, {**self._encoded_values}, self._spill
        return other

    def simplify(self) -> list[str]:
        try:
            return simplify(self.model)
        finally:
            self._forget()
            onnx_load.release(self.model)

    def replace_constant(self, name: str, array: Array) -> None:
        value = self.model.graph.initializers[name]
        old = value.const_value
        if old is None or tuple(old.shape.numpy()) != array.shape or old.dtype.numpy() != array.dtype:
            raise Refused(f"`{name}` cannot take an array {array.dtype} {array.shape}")
        value.const_value = ir.Tensor(array, name=name)
        self._ops = None  # it may be a size, an axis, a bound

    def set_operand(self, op: str, position: int, array: Array) -> str:
        editor = OnnxEditor(self.model.graph)
        name = operand_name(self, self.weights(), op, editor.inputs(op), position, array)
        self._keep_names()
        return editor.set_operand(op, position, array, name)

    def insert(self, function: str, value: str, array: Array, readers: Readers = None, name: str = "") -> str:
        check_insert(self, function, value, array)
        self._keep_names()
        return OnnxEditor(self.model.graph).insert(function, value, array, readers, name)

    def bypass(self, op: str, position: int = 0) -> None:
        editor = OnnxEditor(self.model.graph)
        source, result = editor.through(op, position)
        if result is not None:
            check_bypass(self.value(source), self.value(result))
        self._keep_names()
        editor.bypass(op, position)

    def use_constant(self, op: str, position: int, name: str) -> None:
        editor = OnnxEditor(self.model.graph)
        check_constant(self, op, editor.inputs(op), position, name)
        self._keep_names()
        editor.use_constant(op, position, name)

    def remove(self, value: str, instead: str) -> None:
        check_instead(self, value, instead)
        self._keep_names()
        OnnxEditor(self.model.graph).remove(value, instead)

    def replace_region(self, value: str, source: str, matrix: Array, bias: Array | None = None, name: str = "") -> str:
        check_region(self, value, source, matrix, bias)
        self._keep_names()
        return OnnxEditor(self.model.graph).replace_region(value, source, matrix, bias, name)

    def resize(self, resized: Resized) -> None:
        after = self.copy()
        after._keep_names()
        resize(after.model, sized_ops(self, resized), resized)
        check_resized(self, after, resized)
        self.model = after.model
        self._forget()

    def between(self, inputs: Sequence[str], outputs: Sequence[str]) -> Self:
        check_borders(self, inputs, outputs)
        other = self.copy()
        other._keep_names()
        OnnxEditor(other.model.graph).cut(inputs, outputs)
        common.RemoveUnusedNodesPass()(other.model)
        other._forget()
        return other

    def retype(self, value: str, dtype: str) -> None:
        check_type(self, value, dtype)
        self._keep_names()
        OnnxEditor(self.model.graph).retype(value, ir.DataType.from_numpy(np.dtype(dtype)))

    def castable(self, dtype: str) -> frozenset[str]:
        return castable(self.model, dtype)

    def cast(self, ops: Collection[str], dtype: str) -> int:
        check_castable(self.model, ops, dtype)
        self._keep_names()
        return cast(self.model, ops, dtype)

    def write_attention(self, one: Attention, how: AttentionForm) -> None:
        self.require_opset(check_attention(self, one, how))
        self._keep_names()
        write_attention(self.model, one, how)
        self._forget()

    def write_tabled(self, one: Tabled) -> None:
        self.require_opset(tabled_opset(one))
        self._keep_names()
        write_tabled(self.model, one)
        self._forget()

    def store_cache(self, one: Attention, keys: StoredRows, values: StoredRows, how: CacheForm = "decoded") -> None:
        self.require_opset(check_stored(self, one, keys, values, how))
        self._keep_names()
        store_caches(self.model, one, keys, values, how)
        self._forget()

    def encode_value(self, value: str, encoded: EncodedValue, readers: Sequence[tuple[str, int]] | None = None) -> str:
        check_value(self, value, encoded.encoding, readers)
        if self._rounded.get(value) == encoded.encoding:
            return value
        self.require_opset(value_opset(encoded.encoding))
        name = write_rounded(OnnxEditor(self.model.graph), value, encoded, readers).name or ""
        self._rounded[name] = encoded.encoding
        self._encoded_values |= {value: encoded, name: encoded}
        self._forget()
        return name

    def multiply_rounded(self, value: str) -> None:
        check_product(self, value)
        self.require_opset(value_opset(DYNAMIC_INT8))
        self._keep_names()
        multiply_rounded(editor := OnnxEditor(self.model.graph), editor.value(value))
        self._forget()

    def encoded_values(self) -> Mapping[str, EncodedValue]:
        return self._encoded_values

    def encode(
        self, weight: Weight, encoded: Encoded, form: Form, regions: Mapping[str, Region] = NO_REGIONS
    ) -> tuple[LinearOp, ...]:
        form.check(weight, encoded)
        self.require_opset(form.opset(encoded.encoding, encoded.shape))
        numbered = any(NUMBERED in one.name for one in self._weights or ())  # `net#2` is `net` without the first
        (self._keep_names if numbered else self._forget)()
        ops = write(form, self.model, weight, encoded, regions)
        if self._spill is not None:
            self._spill.take(self.model.graph)
        return ops

    def join_products(self) -> Sequence[tuple[KernelOp, tuple[LinearOp, ...]]]:
        return put_together(self.model)

    def chain(self, serves: Callable[[KernelOp], bool]) -> tuple[KernelOp, ...]:
        self._keep_names()
        found: tuple[KernelOp, ...] = (*write_chains(self.model, serves), *write_attends(self.model, serves))
        self._forget()
        return found

    def require_opset(self, opset: int) -> tuple[str, ...]:
        """Raise the model's default opset where it is lower; the types of the ops whose definitions differ then.

        Raises:
            ModelError: a node has no equivalent there; the model is as it was.
        """
        if self.opset >= opset:
            return ()
        self._forget()
        given = put_back(self.model)  # what decodes weights is raised as well
        try:
            return raise_opset(self.model, opset)
        finally:
            if given:
                lift(self.model, given)

    def runner(
        self, inputs: Sequence[str], outputs: Sequence[str], free: Iterable[str] = (), optimise: bool = True
    ) -> Runner:
        free, prepare = frozenset(free), partial(part_runner, self.model, self.folder)
        found = pieces_of(self, inputs, outputs, free) if in_pieces(self.model) else []
        if len(found) < 2:
            return prepare(inputs, outputs, free, optimise)
        return InPieces(found, outputs, lambda one: prepare(one.reads, one.makes, free & {*one.reads}, optimise))

    def spill(self, path: Path) -> None:
        self._spill = Spill(path)

    def digest(self) -> str:
        found = hashlib.sha256(self._proto().SerializeToString(deterministic=True))
        for name, value in self.model.graph.initializers.items():
            array = onnx_load.array_of(value) if isinstance(value.const_value, ir.ExternalTensor) else None
            found.update(name.encode())
            if array is not None:
                found.update(np.ascontiguousarray(array).data.cast("B"))
        return found.hexdigest()

    def _proto(self, part: ir.Model | None = None) -> onnx.ModelProto:
        proto = ir.serde.serialize_model(part or self.model)
        relative_to(proto, self.folder)
        return proto

    def __reduce__(self) -> tuple[object, ...]:
        """Another process reads the large weights from the same files."""
        return _revived, (self._proto().SerializeToString(), self.folder, self._data_files, self.note_bytes)

    def size_bytes(self) -> int:
        """Of the file that `save` would write."""
        return onnx_save.size_bytes(self._stripped())

    def data_files(self) -> list[str]:
        """The files beside the model in which it keeps weights, as it names them."""
        return list(self._data_files)

    def save(
        self,
        path: Path,
        external: ExternalData | Path = "auto",
        metadata: Mapping[str, str] | None = None,
        given_names: bool = True,
    ) -> Written:
        """Write the model, all of it or nothing; node metadata and doc strings are left out.

        Args:
            path: of the file.
            external: whether large weights lie in a file of their own, or the one in which they lie already.
            metadata: what the file says of its origin.
            given_names: ops that had no name keep the one that they got here.

        Raises:
            ModelError: the place cannot be written to.
        """
        model = self._stripped()
        for node in model.graph if not given_names else ():
            node.name = None if GIVEN_NAME.fullmatch(node.name or "") else node.name
        model.metadata_props.update(metadata or {})
        return onnx_save.save(model, path, external)

    def _stripped(self) -> ir.Model:
        """The model without what only people read, and with the versions that it needs."""
        model = self.model.clone()
        put_back(model)
        sink(model.graph)
        common.ClearMetadataAndDocStringPass()(model)
        common.RemoveUnusedOpsetsPass()(model)
        model.opset_imports.setdefault("", self.opset)
        model.ir_version = onnx_save.ir_version(self.opset, model.ir_version)
        return model

    def _find(self, name: str) -> ir.Value:
        if self._values is None:
            self._values = ir.convenience.create_value_mapping(self.model.graph, include_subgraphs=False)
        return self._values[name]

    def _keep_names(self) -> None:
        """The graph is edited: layers are called the same after it."""
        names = layer_names(self.weights())
        for node in self.model.graph:
            if node.name in names:
                node.metadata_props[LAYER] = names[node.name]
        self._forget()

    def _forget(self) -> None:
        """The graph changes: what was found out about it holds no more."""
        self._weights = self._values = self._ops = None


def _revived(content: bytes, folder: Path, data_files: tuple[str, ...], note_bytes: int) -> OnnxGraph:
    """The graph that was pickled."""
    model = ir.serde.deserialize_model(onnx.ModelProto.FromString(content))
    open_in(model, folder)
    return OnnxGraph(model, folder, data_files, note_bytes)
