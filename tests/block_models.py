"""Models of one op over blocks that are stored alone, and what it should compute."""

import numpy as np
import onnx
import onnx_ir
from onnx import helper, numpy_helper

from qcc.ir.kernel.op import LinearOp
from qcc.ir.onnx.emit.kernel_body import kernel_function
from tests.codegen_models import REFERENCE

EPSILON = 1e-5


def drawn(op: LinearOp, down: int, across: int, keep: float, seed: int) -> dict[str, np.ndarray]:
    """Tiles and their numbers, in any order, and the vectors of steps; at times a row or a column of tiles is gone."""
    assert op.tile is not None
    random = np.random.default_rng(seed)
    stays = random.random((down, across)) < keep
    stays[random.integers(down)] &= seed % 2 == 0
    count = int(stays.sum())
    number = np.zeros((down, across), np.uint16 if seed % 3 else np.int32)
    number[stays] = 1 + random.permutation(count)
    values = random.standard_normal((count, op.tile[0] * op.tile[1])).astype(np.float32)
    names = [name for name, kind in op.step_inputs if kind == "vector"]
    vectors = {name: random.standard_normal(down * op.tile[0]).astype(np.float32) for name in names}
    return {"values": values, "number": number, **vectors}


def matrix(op: LinearOp, stored: dict[str, np.ndarray]) -> np.ndarray:
    """The dense matrix ``[out, in]``."""
    assert op.tile is not None
    (down, across), (high, wide) = stored["number"].shape, op.tile
    tiles = np.concatenate([np.zeros((1, high * wide), np.float32), stored["values"]])[stored["number"]]
    return np.asarray(tiles.reshape(down, across, high, wide).swapaxes(1, 2).reshape(down * high, across * wide))


def model(op: LinearOp, stored: dict[str, np.ndarray]) -> onnx.ModelProto:
    """One node, and the function that it calls."""
    free = [name for name in op.inputs if name not in stored]
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in free]
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in op.outputs]
    node = helper.make_node(op.name, op.inputs, op.outputs, domain="qcc")
    if op.steps[-1:] == ("layer_norm",):
        node.attribute.append(helper.make_attribute("epsilon", EPSILON))
    held = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph([node], "g", inputs, outputs, held)
    function = onnx_ir.serde.serialize_function(kernel_function(op, 21))
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("qcc", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[function])


def wanted(op: LinearOp, stored: dict[str, np.ndarray], feeds: dict[str, np.ndarray]) -> np.ndarray:
    """The first output in float64."""
    value = feeds["x"].astype(np.float64) @ matrix(op, stored).T.astype(np.float64)
    for step in op.steps:
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
