"""A model of one kernel op with its library beside it, as a compilation would leave them."""

import importlib.util
from pathlib import Path

import onnx
import pytest
from onnx import helper

from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import CpuProcessor, native
from qcc.ir.kernel.op import LinearOp, parse
from tests.codegen_models import draw

OP, OTHER = "linear_int4_group32", "linear_int8_channel_bias"
INPUTS, OUTPUTS = 768, 768

needs_tvm = pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason="needs TVM")


def library(path: Path, *ops: str, target: CpuProcessor | None = None) -> Path:
    """The library of these ops, built or from the cache."""
    return build([parse(op) for op in ops], (target or native(),), path)


def body(kernel: LinearOp) -> onnx.FunctionProto:
    """A function of the kernel's name that gives back its input, so that one sees who ran."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return helper.make_function("qcc", kernel.name, kernel.inputs, ["y"], nodes, [helper.make_opsetid("", 21)])


def model(path: Path, *ops: str, image: bool = False) -> Path:
    """A chain of layers ``x [N, 768] -> y``; with ``image``, of ``image [1, 1, 28, 28]`` cut to size, to ``logits``."""
    nodes, constants = [], []
    if image:
        for name, values in (("flat", [1, 784]), ("start", [0]), ("stop", [INPUTS]), ("axis", [1])):
            constants.append(helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], values))
        nodes = [helper.make_node("Reshape", ["image", "flat"], ["row"])]
        nodes += [helper.make_node("Slice", ["row", "start", "stop", "axis"], ["v0"])]
    for at, op in enumerate(ops):
        single = draw(parse(op), OUTPUTS, INPUTS, seed=at).model()
        for tensor in single.graph.initializer:
            tensor.name = f"layer{at}.{tensor.name}"
            constants.append(tensor)
        start = f"v{at}" if image or at else "x"
        end = f"v{at + 1}" if at + 1 < len(ops) else "logits" if image else "y"
        names = [f"layer{at}.{name}" for name in single.graph.node[0].input[1:]]
        nodes.append(helper.make_node(op, [start, *names], [end], f"layer{at}", domain="qcc"))
    name, shape = ("image", (1, 1, 28, 28)) if image else ("x", ("N", INPUTS))
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("qcc", 1)]
    functions = [body(parse(op)) for op in dict.fromkeys(ops)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions), path)
    return path
