"""Models of one op over blocks that are stored alone, and what it should compute."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir
from onnx import helper, numpy_helper

from qcc.ir.encoding.algebra import Part, inside
from qcc.ir.encoding.reference import NumpyOps
from qcc.ir.kernel.op import NUMBER, LinearOp
from qcc.ir.onnx.emit.kernel_body import kernel_function
from tests.codegen_models import REFERENCE, quantize

EPSILON = 1e-5


@dataclass(frozen=True)
class BlockLayer:
    """What an op stores: tiles in any order, numbers, vectors of steps; and the dense matrix ``[out, in]``."""

    op: LinearOp
    stored: dict[str, np.ndarray]
    dense: np.ndarray


def drawn(op: LinearOp, down: int, across: int, keep: float, seed: int) -> BlockLayer:
    """A layer of so many tiles; at times a row of them is gone."""
    assert op.tile is not None
    random = np.random.default_rng(seed)
    stays = random.random((down, across)) < keep
    stays[random.integers(down)] &= seed % 2 == 0
    stays[0, 0] = True
    count, (high, wide) = int(stays.sum()), op.tile
    number = np.zeros((down, across), np.uint16 if seed % 3 else np.int32)
    number[stays] = 1 + random.permutation(count)
    shape = count, high * wide
    parts = {name: _random(name, part, random) for name, part in op.encoding.parts(shape).items()}
    tiles = op.encoding.decode(NumpyOps(), parts.__getitem__, shape)
    every = np.concatenate([np.zeros((1, high * wide), np.float32), tiles])[number]
    dense = every.reshape(down, across, high, wide).swapaxes(1, 2).reshape(down * high, across * wide)
    names = [name for name, kind in op.step_inputs if kind == "vector"]
    vectors = {name: random.standard_normal(down * high).astype(np.float32) for name in names}
    step = {"input_scale": np.array(random.uniform(0.005, 0.05), np.float32)} if op.static else {}
    return BlockLayer(op, {**op.arrays({**inside(parts, "tiles"), NUMBER: number}), **step, **vectors}, dense)


def _random(name: str, part: Part, random: np.random.Generator) -> np.ndarray:
    if name == "zero":
        return random.integers(-7, 8, part.shape).astype(np.int8)
    if part.floats:  # bfloat16 of about 1
        return (random.standard_normal(part.shape, np.float32).view(np.uint32) >> 16).astype(part.dtype)
    if part.dtype is np.uint8:
        low, high = (118, 124) if name.startswith("scale") else (0, 1 << part.bits)
        return random.integers(low, high, part.shape).astype(np.uint8)
    values = random.uniform(0.01, 0.02, part.shape) if name.startswith("scale") else random.standard_normal(part.shape)
    return values.astype(part.dtype)


def model(op: LinearOp, stored: dict[str, np.ndarray]) -> onnx.ModelProto:
    """One node, and the function that it calls."""
    free = [name for name in op.inputs if name not in stored]
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in free]
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in op.outputs]
    node = helper.make_node(op.name, op.inputs, op.outputs, domain="qcc")
    if op.steps[-1:] == ("layer_norm",):
        node.attribute.append(helper.make_attribute("epsilon", EPSILON))
    held = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    for one in held[: op.is_float]:
        one.data_type = onnx.TensorProto.BFLOAT16  # numpy has no such type
    graph = helper.make_graph([node], "g", inputs, outputs, held)
    function = onnx_ir.serde.serialize_function(kernel_function(op, 21))
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("qcc", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[function])


def wanted(layer: BlockLayer, feeds: dict[str, np.ndarray], chunk: int = 0) -> np.ndarray:
    """The first output in float64; with a ``chunk``, of inputs that are rounded to int8 by so many neighbours."""
    x, stored = feeds["x"].astype(np.float64), layer.stored
    if chunk:
        codes, steps = quantize(feeds["x"], chunk)
        x = (codes * steps.astype(np.float64)).reshape(x.shape)
    if layer.op.static:
        known = stored["input_scale"]
        x = (np.clip(np.rint(feeds["x"] * (np.float32(1) / known)), -128, 127) * known).astype(np.float64)
    value = x @ layer.dense.T.astype(np.float64)
    for step in layer.op.steps:
        if step == "bias":
            value = value + stored["bias"]
        elif step == "add":
            value = value + feeds["added"]
        elif step == "layer_norm":
            centred = value - value.mean(-1, keepdims=True)
            value = (
                centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + EPSILON) * stored["gain"]
                + stored["shift"]
            )
        elif step != "keep":
            value = REFERENCE[step](value)
    return value
