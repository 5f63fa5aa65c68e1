"""Which ops a kernel library takes: each is tried, and nothing that a library says of itself is believed."""

from collections.abc import Iterable, Sequence

import onnx
from onnx import helper, numpy_helper

from qcc.compiler.runtime.register import register
from qcc.ir.kernel.kernel_op import KernelOp
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
    constants = op.constants()
    inputs = [_value(op, name) for name in op.inputs if name not in constants]
    outputs = [_value(op, name) for name in op.outputs]
    node = helper.make_node(op.name, list(op.inputs), list(op.outputs), domain=DOMAIN)
    node.attribute.extend(helper.make_attribute(key, number) for key, number in op.attributes.items())
    held = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([node], "probe", inputs, outputs, held)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def _value(op: KernelOp, name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(op.dtype(name)), None)


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
