"""Convolutions of bytes, channels last: the kernels against whole numbers, the runtime's own integers, and the body."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import PROCESSORS, named, native
from qcc.codegen.target.target import Processor
from qcc.compiler.runtime.register import register
from qcc.compiler.runtime.serves import serves
from qcc.ir.encoding.packing import pack
from qcc.ir.kernel.chain_op import SPREAD, ChainOp, parse_chain
from qcc.ir.kernel.kernel_op import parse_kernel
from qcc.ir.kernel.window import KernelWindow, Sizes
from qcc.ir.onnx.chain.body import chain_function
from qcc.ir.onnx.file.domain import DOMAIN

pytest.importorskip("tvm")
OPSET, LEAST_ADDED = 21, 16


def op(kernel: Sizes, strides: Sizes = (), pads: Sizes = (), dilations: Sizes = (), **how: Any) -> ChainOp:
    """An op of a window."""
    return ChainOp(KernelWindow(kernel, strides, pads, dilations), **how)


POINT, SAME = op((1, 1)), (1, 1, 1, 1)
OPS = [
    POINT,
    op((1, 1), cut="clip"),
    op((1, 1), adds=True),
    op((1, 1), (2, 2), cut="relu"),
    op((3, 3), pads=SAME, cut="relu"),
    op((3, 3), pads=SAME, adds=True, last=True, cut_sum=True),
    op((3, 3), (2, 2), (0, 0, 1, 1), cut="clip"),
    op((2, 5), (1, 3), (3, 0, 1, 4)),
    op((3, 3), pads=SAME, depthwise=True),
    op((3, 3), pads=(0, 2, 0, 1), depthwise=True, cut="relu"),
    op((5, 5), (2, 2), (1, 1, 2, 2), depthwise=True, cut="clip"),
    op((2, 3), (1, 2), (1, 0, 1, 1), depthwise=True, cut="clip"),
    op((1, 1), bits=4, cut="relu"),
    op((3, 3), pads=SAME, bits=3, cut="clip"),
    op((3, 3), pads=SAME, depthwise=True, bits=6),
]
OTHERS = [
    op((3, 3), pads=(2, 2, 2, 2), dilations=(2, 2), cut="relu"),
    op((3, 2), (2, 1), (1, 0, 2, 1), (1, 3)),
    op((3, 3), pads=SAME, groups=2, cut="relu"),
    op((1, 1), groups=4, adds=True),
    op((3, 3), (2, 2), SAME, groups=8, bits=4, cut="clip"),
    op((3, 3), pads=(2, 4, 2, 4), dilations=(2, 4), depthwise=True, cut="clip"),
    op((5,), (2,), (2, 2), cut="relu"),
    op((3,), (1,), (4, 0), (2,), adds=True, last=True),
    op((1,), cut="relu"),
    op((9,), (2,), (4, 4), depthwise=True),
    op((3,), (1,), (1, 1), groups=4),
    op((3, 3, 3), pads=(1,) * 6, cut="relu"),
    op((2, 1, 3), (2, 1, 2), (1, 0, 1, 0, 0, 1), (1, 1, 2), adds=True, cut_sum=True),
    op((3, 3, 3), (1, 2, 1), (1,) * 6, depthwise=True, cut="relu"),
    op((1, 1, 1), groups=2),
]
"""Dilated and grouped ones, of one axis and of three."""


@dataclass(frozen=True)
class Case:
    """An op with numbers for all that it reads; those of its weights are ``numbers``."""

    op: ChainOp
    given: dict[str, np.ndarray]
    constants: dict[str, np.ndarray]
    numbers: np.ndarray

    def model(self, body: bool = True) -> bytes:
        """A model of it alone."""
        values = [helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None) for name in (*self.given, "y")]
        node = helper.make_node(self.op.name, list(self.op.inputs), ["y"], domain=DOMAIN)
        if self.op.depthwise:
            node.attribute.append(helper.make_attribute("group", len(self.numbers)))
        held = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph([node], "one", values[:-1], values[-1:], held)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
        functions = [onnx_ir.serde.serialize_function(chain_function(self.op, OPSET))] if body else []
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)
        found: bytes = model.SerializeToString()
        return found

    def run(self, library: Path | None, threads: int = 1, optimise: bool = True) -> np.ndarray:
        """What it makes."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        if not optimise:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if library is not None:
            register(options, str(library))
        made = onnxruntime.InferenceSession(self.model(), options, providers=["CPUExecutionProvider"])
        found: np.ndarray = made.run(None, self.given)[0]
        return found

    def expected(self) -> np.ndarray:
        """The same in whole numbers, and float32 where the runtime has that."""
        one, op = self.constants, self.op
        weight = self.numbers.astype(np.int64)
        weight -= one["zero"].astype(np.int64).reshape(-1, *[1] * (weight.ndim - 1))
        sums = convolved(self.given["x"].astype(np.int64) - int(one["x_zero"]), weight, op) + one["bias"]
        step = one["x_scale"] * one["scale"] / one["y_scale"]
        zero = float(one["y_zero"])
        low, high = 0.0 - zero, 255.0 - zero
        if op.cut == "clip":
            low, high = (float(np.clip(np.rint(one[name] / one["y_scale"]), low, high)) for name in ("low", "high"))
        low = max(low, 0.0) if op.cut == "relu" else low
        made = np.clip(np.rint(sums.astype(np.float32) * step), low, high)
        if op.adds:
            summed = np.rint(self._added(made.astype(np.float32) + np.float32(zero)))
            return np.asarray(np.clip(summed, float(one["sum_zero"]) if op.cut_sum else 0.0, 255.0).astype(np.uint8))
        found: np.ndarray = (made + zero).astype(np.uint8)
        return found

    def _added(self, own: np.ndarray) -> np.ndarray:
        """The residual and what was rounded, as the runtime adds them: products and sums are rounded together."""
        one = self.constants
        ratio, others = (one[name] / one["sum_scale"] for name in ("y_scale", "other_scale"))
        pairs = [(own, ratio, one["y_zero"]), (self.given["other"], others, one["other_zero"])]
        (a, a_ratio, a_zero), (b, b_ratio, b_zero) = pairs[::-1] if self.op.last else pairs
        zeros = _fused(a_ratio, a_zero, b_ratio * b_zero.astype(np.float32))
        middle = one["sum_zero"].astype(np.float32) - zeros
        return _fused(a, a_ratio, _fused(b, b_ratio, middle))


def _fused(one: np.ndarray, other: np.ndarray, added: np.ndarray) -> np.ndarray:
    """A product and a sum, rounded once: both are exact in float64, or near enough."""
    return np.asarray((one.astype(np.float64) * other.astype(np.float64) + added.astype(np.float64)).astype(np.float32))


def convolved(x: np.ndarray, weight: np.ndarray, op: ChainOp) -> np.ndarray:
    """The sums of products, group by group and point by point of the kernel."""
    window, axes = op.window, op.window.axes
    x = np.pad(x, ((0, 0), *zip(window.pads[:axes], window.pads[axes:], strict=True), (0, 0)))
    size = made(op, x.shape[1:-1], padded=True)
    groups = len(weight) if op.depthwise else op.groups
    parts = []
    for image, filters in zip(np.split(x, groups, -1), np.split(weight, groups), strict=True):
        total = np.zeros((len(x), *size, len(filters)), np.int64)
        for point in np.ndindex(*window.kernel):
            seen = image[
                :,
                *(
                    slice(at * apart, at * apart + (count - 1) * step + 1, step)
                    for at, apart, step, count in zip(point, window.dilations, window.strides, size, strict=True)
                ),
            ]
            total += seen @ filters[(slice(None), slice(None), *point)].T
        parts.append(total)
    return np.concatenate(parts, -1)


def made(op: ChainOp, size: Sizes, padded: bool = False) -> Sizes:
    """The sizes of what is made of an image."""
    window, axes = op.window, op.window.axes
    around = [0 if padded else window.pads[at] + window.pads[at + axes] for at in range(axes)]
    reach = [(kernel - 1) * apart + 1 for kernel, apart in zip(window.kernel, window.dilations, strict=True)]
    return tuple((size[at] + around[at] - reach[at]) // window.strides[at] + 1 for at in range(axes))


def draw(op: ChainOp, outputs: int, inputs: int, size: Sizes, images: int = 1, seed: int = 0) -> Case:
    """Random numbers, whose sums mostly fit the range of what is made."""
    random = np.random.default_rng(seed)
    outputs = -(-outputs // op.groups) * op.groups
    inputs = 1 if op.depthwise else -(-inputs // op.groups)
    reach = inputs * prod(op.window.kernel)
    signed = seed % 2 == 0
    signed = signed or op.packed
    codes = random.integers(-127, 128, (outputs, inputs, *op.window.kernel))
    if op.packed:
        codes = random.integers(op.grid.lowest, op.grid.highest + 1, codes.shape) << SPREAD - op.bits
    flat = (
        (np.right_shift(codes, SPREAD - op.bits) - op.grid.lowest).astype(np.uint8).reshape(-1) if op.packed else codes
    )
    held = {
        "x_scale": np.float32(0.02),
        "x_zero": np.uint8(random.choice((0, 128, 255, 77))),
        "codes": codes.astype(np.int8) if signed else (codes + 128).astype(np.uint8),
        **({f"plane{at}": plane for at, plane in enumerate(pack(flat, op.bits))} if op.packed else {}),
        "shape": np.array(codes.shape),
        "scale": random.uniform(0.002, 0.01, outputs).astype(np.float32),
        "zero": np.full(outputs, 0 if signed else 128, np.int8 if signed else np.uint8),
        "bias": random.integers(-3000, 3000, outputs).astype(np.int32),
        "y_scale": np.float32(0.006 * reach**0.5),
        "y_zero": np.uint8(random.choice((0, 128, 100, 3))),
        "low": np.float32(0),
        "high": np.float32(6 if seed % 3 else 0.3),
        "other_scale": np.float32(0.013),
        "other_zero": np.uint8(random.integers(0, 256)),
        "sum_scale": np.float32(0.009 * reach**0.5),
        "sum_zero": np.uint8(random.integers(0, 256)),
    }
    held["bias_scale"] = held["x_scale"] * held["scale"]
    given = {
        "x": random.integers(0, 256, (images, *size, outputs if op.depthwise else inputs * op.groups)).astype(np.uint8)
    }
    if op.adds:
        given["other"] = random.integers(0, 256, (images, *made(op, size), outputs)).astype(np.uint8)
    return Case(
        op, given, {name: np.asarray(held[name]) for name in op.inputs if name in held}, codes + 128 * (not signed)
    )


@pytest.fixture(scope="module", params=["native", "avx2"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = build([*OPS, *OTHERS], (named(request.param),), tmp_path_factory.mktemp("chain") / "k.so")
    if serves(str(path), [*OPS, *OTHERS]) != {*OPS, *OTHERS}:
        pytest.skip("this processor has no such kernels")
    return path


channels = st.one_of(st.integers(1, 70), st.sampled_from((80, 96, 112, 128, 144, 200)))
sizes = st.tuples(st.integers(5, 20), st.integers(9, 20), st.integers(9, 20))
cases = st.tuples(st.sampled_from(OPS + OTHERS), channels, channels, sizes, st.integers(1, 3), st.integers(0, 1000))


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases, threads=st.sampled_from((1, 2)))
def test_against_whole_numbers(library: Path, case: tuple[ChainOp, int, int, Sizes, int, int], threads: int) -> None:
    op, outputs, inputs, size, images, seed = case
    one = draw(op, max(outputs, LEAST_ADDED) if op.adds else outputs, inputs, size[-op.window.axes :], images, seed)
    np.testing.assert_array_equal(one.run(library, threads), one.expected())


@pytest.mark.parametrize("op", OPS + OTHERS, ids=lambda op: op.name)
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 32), (24, 3), (87, 40)])
def test_the_runtime_makes_the_same_of_the_body(library: Path, op: ChainOp, outputs: int, inputs: int) -> None:
    """Bit for bit where it multiplies integers exactly; floats between two bytes may go either way."""
    one = draw(op, outputs, inputs, (7, 9, 11)[-op.window.axes :], 2, 1)
    if op.cut == "relu":  # as ranges of what is cut off are; else the runtime makes floats of three axes
        one.constants["y_zero"] = np.asarray(np.uint8(0))
    if op.cut_sum:
        one.constants["sum_zero"] = np.asarray(np.uint8(0))
    found = one.run(library).astype(int)
    np.testing.assert_array_equal(found, one.expected())
    optimised, plain = one.run(None).astype(int), one.run(None, optimise=False).astype(int)
    if native().adds_bytes_exactly:
        np.testing.assert_array_equal(found, optimised)
    assert np.abs(found - plain).max() <= (2 if op.adds else 1)
    assert np.mean(found != plain) < 0.01


@pytest.mark.parametrize("outputs", [1, 8, 15, 16, 17, 48, 63, 65])
def test_few_and_odd_channels(library: Path, outputs: int) -> None:
    for op in (POINT, OPS[4], OPS[8], OPS[10], *(one for one in OTHERS if not one.adds)):
        one = draw(op, outputs, 5, (6, 7, 9)[-op.window.axes :], 2, outputs)
        np.testing.assert_array_equal(one.run(library), one.expected(), op.name)


@pytest.mark.parametrize("channels", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("columns", [5, 16, 33, 70])
def test_neighbouring_pixels_of_few_channels(library: Path, channels: int, columns: int) -> None:
    for op in [*OPS[8:], OTHERS[5]]:
        one = draw(op, channels, 1, (6, columns), 2, columns)
        np.testing.assert_array_equal(one.run(library), one.expected(), op.name)


def test_the_largest_sums_are_exact(library: Path) -> None:
    """Two products of bytes do not fit 16 bits; and what is far out of range ends at its end."""
    one = draw(OPS[4], 32, 64, (8, 8))
    one.given["x"][:] = 255
    one.constants["x_zero"] = np.asarray(np.uint8(0))
    one.constants["codes"][::2], one.constants["codes"][1::2] = 127, -127
    one.constants["y_scale"] = np.asarray(np.float32(1e-30))
    found = one.run(library)
    np.testing.assert_array_equal(found[..., ::2], 255)
    np.testing.assert_array_equal(found[..., 1::2], one.constants["y_zero"])


def test_nothing_in_nothing_out(library: Path) -> None:
    assert draw(OPS[4], 20, 8, (7, 9), 0).run(library).shape == (0, 7, 9, 20)


def test_what_does_not_fit_reject(library: Path) -> None:
    one = draw(OPS[4], 20, 8, (7, 9))
    one.given["x"] = one.given["x"][..., :7]
    with pytest.raises(Exception, match="channels of the input"):
        one.run(library)
    small = draw(OPS[7], 20, 8, (7, 9))
    small.given["x"] = small.given["x"][:, :, :0]
    with pytest.raises(Exception, match="smaller than the kernel"):
        small.run(library)


@pytest.mark.parametrize("op", OPS + OTHERS, ids=lambda op: op.name)
def test_names(op: ChainOp) -> None:
    assert parse_kernel(op.name) == op
    assert parse_chain(op.name.replace("qconv", "qconv0")) is None


def test_a_processor_without_the_instructions_leaves_it_to_the_body(tmp_path: Path) -> None:
    generic: Processor = PROCESSORS["generic"]
    assert generic.instructions == ""
    build([POINT], (PROCESSORS["generic"],), tmp_path / "k.so")
