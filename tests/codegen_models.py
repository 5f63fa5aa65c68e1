"""Models of one kernel op, and what they should compute."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import FunctionProto, ModelProto, TensorProto, helper, numpy_helper
from scipy.special import erf

from qcc.codegen.cpu.processors.processors import VNNI, CpuProcessor, named, native
from qcc.codegen.target.target import NATIVE
from qcc.codegen.tir.codes import codes_of
from qcc.ir.encoding.blocked import Blocked, Floats
from qcc.ir.encoding.blocks import Block
from qcc.ir.encoding.grid import IntGrid, TableGrid
from qcc.ir.kernel.op import BF16, BIAS, KEEP, STEPS, LinearOp
from tests.amx import emulated

TINY = np.float32(1e-30)
STEP = np.float32(0.03)


def linear(
    bits: int,
    group: int | None = None,
    symmetric: bool = True,
    steps: tuple[str, ...] = (),
    pointwise: bool = False,
    static: bool = False,
) -> LinearOp:
    """An op over integers; over bfloat16 weights where there are 16 bits."""
    if bits == 16:
        return LinearOp(BF16, steps, pointwise, static)
    return LinearOp(Blocked(IntGrid(bits, symmetric), Block(1, group or 0)), steps, pointwise, static)


def logistic(v: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-v)))


REFERENCE: dict[str, Callable[..., np.ndarray]] = {
    "bias": np.add,
    "add": np.add,
    "mul": np.multiply,
    "relu": lambda v: np.where(v < 0, 0, v),
    "gelu": lambda v: v * (0.5 * (1 + erf(v / np.sqrt(2)))),
    "gelu_tanh": lambda v: v * (0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3)))),
    "silu": lambda v: v * logistic(v),
    "sigmoid": logistic,
    "tanh": np.tanh,
    "hard_swish": lambda v: v * np.clip(v / 6 + 0.5, 0, 1),
    "relu6": lambda v: np.clip(v, 0, 6),
}
"""The steps in float64, as their ONNX ops have them."""


@dataclass(frozen=True)
class Outputs:
    """What an op should give, in float64, and how far rounding in float32 may move the largest value.

    ``reach`` is the largest magnitude on the way, at least 1: before a norm times what the norm multiplies it by, and
    the norm's own result.
    """

    arrays: list[np.ndarray]
    reach: float


@dataclass(frozen=True)
class Layer:
    """An encoded matrix: codes and zeros are offset binary and centred, as the op takes them.

    Where weights are bfloat16 themselves, they are the ``codes``, in float32, and every scale is 1. Scales that are
    bytes are such here, too.
    """

    kernel: LinearOp
    codes: np.ndarray
    stored_scale: np.ndarray
    zero: np.ndarray | None
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)
    epsilon: float = 1e-5
    input_scale: np.float32 = STEP

    @property
    def scale(self) -> np.ndarray:
        """The scales as numbers."""
        scales = None if self.kernel.is_float else self.kernel.blocked.scales
        return scales.grid.numbers(self.stored_scale) if isinstance(scales, Blocked) else self.stored_scale

    @property
    def middle(self) -> int:
        """The code of zero where there is no zero point."""
        return 0 if self.kernel.is_float else 1 << (self.kernel.blocked.bits - 1)

    @property
    def numbers(self) -> np.ndarray:
        """What codes stand for but for zero points ``[out, in]``, float64."""
        grid = self.kernel.blocked.grid
        if isinstance(grid, TableGrid):
            return grid.numbers(self.codes).astype(np.float64)
        return self.codes.astype(np.float64) - self.middle

    @property
    def centred(self) -> np.ndarray:
        """Codes less zeros ``[out, groups, in of the group]``, float64."""
        blocks = self.numbers.reshape(*self.scale.shape, -1)
        return blocks if self.zero is None else blocks - self.zero[..., None]

    def product(self, x: np.ndarray) -> np.ndarray:
        """The product in float64, without the steps."""
        if self.kernel.static:
            x = self.integers(x) * np.float64(self.input_scale)
        weight = (self.centred * self.scale.astype(np.float64)[..., None]).reshape(self.codes.shape)
        if self.kernel.pointwise:
            result: np.ndarray = np.einsum("oi,ni...->no...", weight, x.astype(np.float64))
            return result
        return x.astype(np.float64) @ weight.T

    def integers(self, x: np.ndarray) -> np.ndarray:
        """Activations of a static op, in float64; NaN is the lowest."""
        with np.errstate(invalid="ignore", over="ignore"):
            near = np.rint(x * (np.float32(1) / self.input_scale)).astype(np.float64)
        return np.clip(np.nan_to_num(near, nan=-128, posinf=127, neginf=-128), -128, 127)

    def exact(self, x: np.ndarray) -> np.ndarray:
        """The op's first output in float64; of steps that take no tensors."""
        return self.after(self.product(x)).arrays[0]

    def after(self, product: np.ndarray, tensors: Mapping[str, np.ndarray] | None = None) -> Outputs:
        """The steps behind a product, in float64."""
        operands = {**self.vectors, **(tensors or {})}
        names = iter(name for name, _ in self.kernel.step_inputs)
        value, kept, reach = product.astype(np.float64), [], 1.0
        with np.errstate(all="ignore"):
            for step in self.kernel.steps:
                taken = [operands[next(names)].astype(np.float64) for _ in STEPS[step].operands]
                if step == BIAS and self.kernel.pointwise:
                    taken = [taken[0].reshape(-1, *(1,) * (value.ndim - 2))]
                if step == KEEP:
                    kept = [value]
                elif STEPS[step].whole:
                    value, divided = self._norm(step, value, *taken)
                    before_shift = value - (taken[1] if len(taken) > 1 else 0)
                    ends = [float(np.abs(end).max(initial=0)) for end in (value, before_shift)]
                    reach = max(reach * divided, *ends)
                else:
                    value = REFERENCE[step](value, *taken)
                    reach = max(reach, float(np.abs(value).max(initial=0)))
        return Outputs([value, *kept], reach)

    def _norm(
        self, step: str, value: np.ndarray, gain: np.ndarray, shift: np.ndarray | float = 0.0
    ) -> tuple[np.ndarray, float]:
        centred = value - value.mean(-1, keepdims=True) if step == "layer_norm" else value
        root = np.sqrt(np.square(centred).mean(-1, keepdims=True) + self.epsilon)
        return centred / root * gain + shift, max(1.0, float((np.abs(gain).max() / root).max(initial=0)))

    def magnitude(self, x: np.ndarray) -> float:
        """The largest sum of the terms' magnitudes: what rounding errors are a fraction of."""
        scale = self.scale.astype(np.float64)[..., None]
        blocks = np.abs(self.numbers.reshape(*self.scale.shape, -1))
        blocks = blocks if self.zero is None else blocks + np.abs(self.zero.astype(np.float64))[..., None]
        return float((np.abs(x).astype(np.float64) @ (blocks * scale).reshape(self.codes.shape).T).max())

    def rounded(self, x: np.ndarray, width: int = 32) -> np.ndarray:
        """The product with activations rounded to int8, a step for so many, as kernels do it; the rest in float64."""
        codes, steps = quantize(x, width)
        return self.exact((codes * steps.astype(np.float64)).reshape(x.shape))

    def _arrays(self) -> list[np.ndarray]:
        """The weight as the op takes it."""
        if self.kernel.is_float:
            return [(self.codes.view(np.uint32) >> 16).astype(np.uint16)]
        step = [np.array(self.input_scale)] if self.kernel.static else []
        scale = "scale.codes" if self.stored_scale.dtype == np.uint8 else "scale.values"
        parts = {"codes": self.codes, scale: self.stored_scale} | ({} if self.zero is None else {"zero": self.zero})
        return [*self.kernel.arrays(parts).values(), *step]

    def model(self, constant: bool = True, body: FunctionProto | None = None) -> ModelProto:
        """One node; with ``body``, a function of that name stands beside it."""
        stored = dict(zip(self.kernel.weight_inputs, self._arrays(), strict=True)) | dict(self.vectors)
        constants = [numpy_helper.from_array(array, name) for name, array in stored.items()]
        for one in constants[: self.kernel.is_float]:
            one.data_type = TensorProto.BFLOAT16  # numpy has no such type
        given = [name for name in self.kernel.inputs if name not in stored]
        inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in given]
        if not constant:
            inputs += [helper.make_tensor_value_info(c.name, c.data_type, c.dims) for c in constants]
        node = helper.make_node(self.kernel.name, self.kernel.inputs, self.kernel.outputs, domain="qcc")
        if any(STEPS[step].whole for step in self.kernel.steps[-1:]):
            node.attribute.append(helper.make_attribute("epsilon", self.epsilon))
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.kernel.outputs]
        graph = helper.make_graph([node], "g", inputs, outputs, constants if constant else [])
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("qcc", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[body] if body else [])


@dataclass(frozen=True)
class InWholeNumbers(Layer):
    """A layer as it is multiplied with activations in int8: tables are looked up as whole numbers up to ``most``."""

    most: int = 127

    @property
    def numbers(self) -> np.ndarray:
        """What these stand for, float64."""
        codes = codes_of(self.kernel.encoding)
        if codes.table is None:
            return super().numbers
        terms = codes.terms(self.most)
        whole = sum(term.weight * np.array(term.table, np.float64)[self.codes] for term in terms.parts)
        return np.asarray((whole - terms.zero) * terms.factor)


def in_whole_numbers(layer: Layer, target: CpuProcessor) -> InWholeNumbers:
    """A layer as rows of activations in int8 are multiplied with it on a processor."""
    from qcc.codegen.cpu.rows import gemv_avx2, gemv_int8  # load TVM

    most = gemv_int8.MOST if target.has(*VNNI) else gemv_avx2.MOST
    return InWholeNumbers(**vars(layer), most=most)


def quantize(x: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers ``[rows, blocks, width]`` and steps ``[rows, blocks, 1]`` of rounded activations, in float32."""
    blocks = x.reshape(-1, x.shape[-1] // width, width)
    most = np.abs(blocks).max(-1, keepdims=True)
    inverse = np.divide(np.float32(127), most, out=np.zeros_like(most), where=most > TINY)
    return np.rint(blocks * inverse), most * np.float32(1 / 127)


def by_rows(layer: "Layer", x: np.ndarray) -> np.ndarray:
    """What a step a row gives: the integer product and its two float32 factors, in the kernels' order."""
    codes, steps = quantize(x, x.shape[-1])
    dots = codes[:, 0].astype(np.int64) @ layer.centred[:, 0].astype(np.int64).T
    return np.asarray(dots.astype(np.float32) * (layer.scale.astype(np.float32).T * steps[:, 0]))


def check_to_the_last_bit(library: Path, op: LinearOp, shape: tuple[int, ...]) -> None:
    """A step a row, of ``rows, outputs, chunks, seed, threads``."""
    rows, outputs, chunks, seed, threads = shape
    layer = draw(op, outputs, chunks * 32, seed)
    x = unaligned(np.random.default_rng(seed).standard_normal((rows, chunks * 32)).astype(np.float32))
    result = session(layer.model(), library, threads).run(None, {"x": x})[0]
    np.testing.assert_array_equal(result, by_rows(layer, x))


def draw(kernel: LinearOp, outputs: int, inputs: int, seed: int = 0, scale: Any = np.float16) -> Layer:
    """A random layer of that shape; a scale for each row is of the type that is asked for."""
    random = np.random.default_rng(seed)
    groups = inputs // (kernel.group or inputs)
    if kernel.is_float:
        weight = random.standard_normal((outputs, inputs)).astype(np.float32).view(np.uint32) & 0xFFFF0000
        return Layer(
            kernel, weight.view(np.float32), np.ones((outputs, 1), scale), None, _vectors(kernel, outputs, random)
        )
    encoding = kernel.blocked
    middle = 1 << (encoding.bits - 1)
    zero = None if encoding.symmetric else random.integers(-middle, middle, (outputs, groups)).astype(np.int8)
    if isinstance(encoding.scales, Blocked):  # powers of two about 1/64
        scales = random.integers(118, 124, (outputs, groups)).astype(np.uint8)
    else:
        kind = encoding.scales.dtype if isinstance(encoding.scales, Floats) and kernel.group else scale
        scales = random.uniform(0.01, 0.02, (outputs, groups)).astype(kind)
    codes = random.integers(0, 1 << encoding.bits, (outputs, inputs)).astype(np.uint8)
    return Layer(kernel, codes, scales, zero, _vectors(kernel, outputs, random))


def _vectors(kernel: LinearOp, outputs: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        name: random.standard_normal(outputs).astype(np.float32)
        for name, kind in kernel.step_inputs
        if kind == "vector"
    }


def tried(target: str) -> CpuProcessor:
    """The processor of that name, with its tiles emulated where those alone are missing here.

    Skips the test where more is missing, and where it is this machine's own, which is tried as `native`.
    """
    wanted = named(target)
    if wanted == native() and target != NATIVE:
        pytest.skip("the processor is it, and tried as `native`")
    return emulated(wanted) if wanted.obstacle else wanted


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
