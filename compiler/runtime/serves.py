"""Which ops a kernel library takes: each is tried, and nothing that a library says of itself is believed."""

from collections.abc import Iterable, Mapping, Sequence

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from qcc.compiler.runtime.register import register
from qcc.ir.encoding.algebra import inside
from qcc.ir.encoding.format import numbers_below
from qcc.ir.kernel.attend_op import AttendOp
from qcc.ir.kernel.chain_op import ChainOp
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.ir.kernel.op import CHUNK, JOINED_ROWS, NUMBER, STEPS, TILES, LinearOp
from qcc.ir.onnx.file.domain import DOMAIN, VERSION
from qcc.ir.onnx.file.runtime import onnxruntime, usable

OPSET, IR_VERSION = 21, 10


def serves(library: str, ops: Iterable[KernelOp], providers: Sequence[str] = ()) -> set[KernelOp]:
    """Those of these ops that a library takes.

    A library that needs instructions which the processor lacks takes none, and one that was built for another model
    takes what it knows. So a model of the smallest node of each op, but without its function, is loaded, which only
    works if the library takes the node.

    Args:
        library: as `loadable` spells it.
        ops: to try.
        providers: the runtime's, by which they are run.
    """
    return {op for op in ops if _loads(_alone(op), library, providers)}


def _alone(op: KernelOp) -> onnx.ModelProto:
    """A model of one node, of the fewest outputs and inputs; constants are ones: steps of activations are not 0."""
    constants = _constants(op) if isinstance(op, LinearOp) else {}
    constants = _chain_constants(op) if isinstance(op, ChainOp) else constants
    kind = onnx.TensorProto.UINT8 if isinstance(op, ChainOp) else onnx.TensorProto.FLOAT
    types = {"kept": onnx.TensorProto.BOOL} if isinstance(op, AttendOp) else {}
    values = {name: helper.make_tensor_value_info(name, types.get(name, kind), None) for name in op.inputs}
    inputs = [value for name, value in values.items() if name not in constants]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name in op.outputs]
    node = helper.make_node(op.name, list(op.inputs), list(op.outputs), domain=DOMAIN)
    if isinstance(op, LinearOp) and any(STEPS[step].whole for step in op.steps):
        node.attribute.append(helper.make_attribute("epsilon", 1e-5))
    held = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([node], "probe", inputs, outputs, held)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def _chain_constants(op: ChainOp) -> Mapping[str, np.ndarray]:
    """All that a convolution of bytes reads but values."""
    whole: dict[str, np.ndarray] = {
        "codes": np.ones((1, 1, *op.kernel), np.int8),
        "scale": np.ones(1, np.float32),
        "zero": np.ones(1, np.int8),
    }
    whole |= {"bias": np.ones(1, np.int32), "bias_scale": np.ones(1, np.float32)}
    numbers = {name: np.ones((), np.uint8 if name.endswith("zero") else np.float32) for name in op.inputs}
    return {name: whole.get(name, array) for name, array in numbers.items() if name not in ("x", "other")}


def _constants(op: LinearOp) -> Mapping[str, np.ndarray]:
    """What the op reads of its weight, and the vectors of its steps."""
    outputs = JOINED_ROWS if op.beside else 1 if op.tile is None else op.tile[0]
    if op.tile is None:
        parts = dict(op.encoding.parts((outputs, op.group or CHUNK)))
    else:
        inner = op.encoding.parts((1, op.tile[0] * op.tile[1]))
        parts = {**inside(inner, TILES.rstrip(".")), NUMBER: numbers_below(2, (1, 1))}
    found = op.arrays({name: np.ones(part.shape, part.dtype) for name, part in parts.items()})
    if op.is_float:
        found["weight"] = found["weight"].astype(ml_dtypes.bfloat16)
    found |= {"input_scale": np.ones((), np.float32)} if op.static else {}
    found = dict(zip(op.weight_inputs, [*found.values()] * len(op.members), strict=True))
    return found | {name: np.ones(outputs, np.float32) for name, kind in op.step_inputs if kind == "vector"}


def _loads(model: onnx.ModelProto, library: str, providers: Sequence[str]) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    register(options, library, providers)
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=usable(providers))
    except Exception:  # the runtime raises a dozen unrelated classes
        return False
    return True
