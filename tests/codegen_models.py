"""Models of one kernel op, and what they should compute."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import FunctionProto, ModelProto, TensorProto, helper, numpy_helper

from qcc.ir.kernel_op import BIAS, LinearOp
from qcc.ir.packing import pack

TINY = np.float32(1e-30)


@dataclass(frozen=True)
class Layer:
    """An encoded matrix: codes and zeros are offset binary and centred, as the op takes them."""

    kernel: LinearOp
    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray | None
    bias: np.ndarray | None

    @property
    def centred(self) -> np.ndarray:
        """Codes less zeros ``[out, groups, in of the group]``, float64."""
        middle = 1 << (self.kernel.bits - 1)
        blocks = self.codes.astype(np.float64).reshape(*self.scale.shape, -1) - middle
        return blocks if self.zero is None else blocks - self.zero[..., None]

    def exact(self, x: np.ndarray) -> np.ndarray:
        """The product in float64."""
        weight = (self.centred * self.scale.astype(np.float64)[..., None]).reshape(self.codes.shape)
        return x.astype(np.float64) @ weight.T + (0 if self.bias is None else self.bias)

    def magnitude(self, x: np.ndarray) -> float:
        """The largest sum of the terms' magnitudes: what rounding errors are a fraction of."""
        middle, scale = 1 << (self.kernel.bits - 1), self.scale.astype(np.float64)[..., None]
        blocks = np.abs(self.codes.astype(np.float64).reshape(*self.scale.shape, -1) - middle)
        blocks = blocks if self.zero is None else blocks + np.abs(self.zero.astype(np.float64))[..., None]
        return float((np.abs(x).astype(np.float64) @ (blocks * scale).reshape(self.codes.shape).T).max())

    def rounded(self, x: np.ndarray) -> np.ndarray:
        """The product with activations rounded to int8 by 32, as the kernels round them; the rest in float64."""
        chunks = x.reshape(-1, x.shape[-1] // 32, 32)
        most = np.abs(chunks).max(-1, keepdims=True)
        inverse = np.divide(np.float32(127), most, out=np.zeros_like(most), where=most > TINY)
        quantized = np.rint(chunks * inverse) * (most * np.float32(1 / 127)).astype(np.float64)
        return self.exact(quantized.reshape(x.shape))

    def model(self, constant: bool = True, body: FunctionProto | None = None) -> ModelProto:
        """One node; with ``body``, a function of that name stands beside it."""
        arrays = [*pack(self.codes, self.kernel.bits), self.scale]
        arrays += [array for array in (self.zero, self.bias) if array is not None]
        constants = [numpy_helper.from_array(array, f"c{index}") for index, array in enumerate(arrays)]
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)]
        if not constant:
            inputs += [helper.make_tensor_value_info(c.name, c.data_type, c.dims) for c in constants]
        node = helper.make_node(self.kernel.name, ["x", *[c.name for c in constants]], ["y"], domain="qcc")
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
        graph = helper.make_graph([node], "g", inputs, outputs, constants if constant else [])
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("qcc", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[body] if body else [])


def draw(kernel: LinearOp, outputs: int, inputs: int, seed: int = 0, scale: Any = np.float16) -> Layer:
    """A random layer of that shape."""
    random = np.random.default_rng(seed)
    groups = inputs // (kernel.group or inputs)
    middle = 1 << (kernel.bits - 1)
    zero = None if kernel.symmetric else random.integers(-middle, middle, (outputs, groups)).astype(np.int8)
    return Layer(
        kernel,
        random.integers(0, 1 << kernel.bits, (outputs, inputs)).astype(np.uint8),
        random.uniform(0.01, 0.02, (outputs, groups)).astype(scale),
        zero,
        random.standard_normal(outputs).astype(np.float32) if BIAS in kernel.steps else None,
    )


def session(model: ModelProto, library: Path | None, threads: int = 1) -> Any:
    """ONNX Runtime with the library registered."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if library is not None:
        options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def unaligned(x: np.ndarray) -> np.ndarray:
    """The same array, four bytes past a multiple of 64."""
    raw = np.empty(x.nbytes + 128, np.uint8)
    start = -raw.ctypes.data % 64 + 4
    moved = raw[start : start + x.nbytes].view(np.float32).reshape(x.shape)
    moved[...] = x
    return moved
