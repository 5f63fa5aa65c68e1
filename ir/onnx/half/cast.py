"""Letting ops compute in another float type, with casts at the borders."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from qcc.ir.errors import Refused
from qcc.ir.onnx.file.bodies import inside
from qcc.ir.onnx.file.load import array_of
from qcc.ir.onnx.graph.edit import OnnxEditor

SHAPES = frozenset({"Shape", "Size"})  # they read numbers of any type, and look at none
BORDERS = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast", "CastLike"})  # between floats and other numbers
FLOAT = ir.DataType.FLOAT
_SCHEMA = "tensor({})"


def castable(model: ir.Model, dtype: str) -> frozenset[str]:
    """The nodes of the main graph that may compute in a float type, by its numpy name."""
    return frozenset(node.name or "" for node in model.graph if _castable(node, model, dtype))


def check_castable(model: ir.Model, names: Collection[str], dtype: str) -> None:
    """See that nodes may compute in a float type.

    Raises:
        Refused: one cannot.
    """
    if wrong := sorted(set(names) - castable(model, dtype)):
        raise Refused(f"`{wrong[0]}` cannot compute in {dtype}")


def cast(model: ir.Model, names: Collection[str], dtype: str) -> int:
    """Let nodes compute in a float type; how many casts that takes."""
    return _Caster(model, names, ir.DataType[dtype.upper()]).run()


def _castable(node: ir.Node, model: ir.Model, dtype: str) -> bool:
    if node.op_type in SHAPES and not node.domain:
        return _is_float(node.inputs[0])
    if node.domain or node.op_type in BORDERS or any(True for _ in inside(node)):
        return False
    places = _Places.of(node, model)
    if places is None or dtype not in places.types:
        return False
    floats = [at for at, value in enumerate(node.outputs) if _is_float(value)]
    return bool(places.inputs and floats) and set(floats) == set(places.outputs)


@dataclass(frozen=True)
class _Places:
    """The operands and results of a node whose float type may be another, and which types that may be."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    types: frozenset[str]

    @classmethod
    def of(cls, node: ir.Node, model: ir.Model) -> "_Places | None":
        """As the op's definition says; None where there is none."""
        try:
            schema = onnx.defs.get_schema(node.op_type, model.graph.opset_imports.get("", 1), "")
        except onnx.defs.SchemaError:
            return None
        allowed = {one.type_param_str: set(one.allowed_type_strs) for one in schema.type_constraints}
        reads = [(at, _type(schema.inputs, at)) for at, value in enumerate(node.inputs) if _is_float(value)]
        free = [(at, one) for at, one in reads if one in allowed]
        kinds = {one for _, one in free}
        makes = [(at, _type(schema.outputs, at)) for at, value in enumerate(node.outputs) if _is_float(value)]
        types = set.intersection(*(allowed[one] for one in kinds)) if kinds else set()
        inputs, outputs = tuple(at for at, _ in free), tuple(at for at, one in makes if one in kinds)
        return cls(inputs, outputs, frozenset(one.removeprefix("tensor(").removesuffix(")") for one in types))


def _type(listed: "Sequence[onnx.defs.OpSchema.FormalParameter]", at: int) -> str:
    """The type variable of an operand or result; the last stands for all behind it."""
    return str(listed[min(at, len(listed) - 1)].type_str) if listed else ""


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and isinstance(value.type, ir.TensorType) and value.type.dtype is FLOAT


@dataclass
class _Caster:
    model: ir.Model
    names: Collection[str]
    dtype: ir.DataType
    made: dict[str, ir.Value] = field(default_factory=dict)
    """What values were cast to, by their names, and constants of the type."""
    casts: int = 0

    def __post_init__(self) -> None:
        self.editor = OnnxEditor(self.model.graph)
        self.nodes = [node for node in self.model.graph if (node.name or "") in self.names]
        found = {node: _Places.of(node, self.model) for node in self.nodes if node.op_type not in SHAPES}
        self.places = {node: places for node, places in found.items() if places is not None}

    def run(self) -> int:
        inner = {node.outputs[at] for node, places in self.places.items() for at in places.outputs}
        for node, places in self.places.items():
            for at in places.inputs:
                value = node.inputs[at]
                assert value is not None
                if value not in inner:
                    node.replace_input_with(at, self._read(value))
        for node, places in self.places.items():
            for at in places.outputs:
                self._return(node, node.outputs[at])
        return self.casts

    def _read(self, value: ir.Value) -> ir.Value:
        """What stands for a value that is made elsewhere."""
        name = value.name or ""
        if name not in self.made:
            self.made[name] = self._constant(value) if value.is_initializer() else self._cast(value, self.dtype)
        return self.made[name]

    def _constant(self, value: ir.Value) -> ir.Value:
        """A constant in the type; in its place if all that read it want it so."""
        array = array_of(value)
        if array is None or value.is_graph_input():
            return self._cast(value, self.dtype)
        with np.errstate(over="ignore"):
            narrow = array.astype(self.dtype.numpy())
        shared = any(not self._wants(node, at) for node, at in value.uses()) or value.is_graph_output()
        if shared:
            return self.editor.constant(f"{value.name}.{self._word}", narrow)
        value.const_value = ir.Tensor(narrow, name=value.name)
        value.type = ir.TensorType(self.dtype)
        return value

    def _wants(self, node: ir.Node, at: int) -> bool:
        return node.op_type in SHAPES or (node in self.places and at in self.places[node].inputs)

    def _return(self, node: ir.Node, value: ir.Value) -> None:
        """Let what is made be of the type, and others read it cast back."""
        others = [(reader, at) for reader, at in value.uses() if not self._wants(reader, at)]
        if not others and not value.is_graph_output():
            value.type = ir.TensorType(self.dtype)
            return
        back = self._cast(value, FLOAT)
        value.type = ir.TensorType(self.dtype)
        for reader, at in others:
            reader.replace_input_with(at, back)
        if value.is_graph_output():
            self.editor.take_name(value, back)

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        name = f"{value.name}.{self._word if dtype is self.dtype else 'float'}"
        found = self.editor.node("Cast", [value], name, value.producer(), [ir.AttrInt64("to", dtype.value)])
        found.type, found.shape = ir.TensorType(dtype), value.shape
        self.casts += 1
        return found

    @property
    def _word(self) -> str:
        return {"FLOAT16": "fp16", "BFLOAT16": "bf16"}.get(self.dtype.name, self.dtype.name.lower())
