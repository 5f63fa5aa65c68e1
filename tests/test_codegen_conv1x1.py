"""Convolutions of one point against float64: shapes and tails, steps, threads, bad numbers, other targets."""

from pathlib import Path

import numpy as np
import onnx_ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import PROCESSORS
from qcc.ir.kernel.op import LinearOp, OpError, parse
from qcc.ir.onnx.emit.kernel_body import kernel_function
from tests.amx import with_tiles
from tests.codegen_models import draw, linear, session, unaligned

pytest.importorskip("tvm")

STEPS = ((), ("bias",), ("bias", "relu6"), ("bias", "add", "relu"), ("bias", "silu", "mul"), ("hard_swish",))
PLAIN = [linear(bits, None, bits % 2 == 0, pointwise=True) for bits in range(2, 9)]
GROUPED = [linear(4, 32, False, ("bias",), True), linear(3, 64, True, (), True)]
OPS = [*PLAIN, *GROUPED, *(linear(16, steps=steps, pointwise=True) for steps in STEPS)]
ROUNDING = 2.0**-7 + 2.0**-16  # of a product: both factors are rounded to bfloat16
SUM_ERROR = 1e-6  # float32 sums, and the steps


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(OPS, (with_tiles(),), tmp_path_factory.mktemp("conv") / "k.so")


shapes = st.tuples(
    st.integers(1, 3),
    st.one_of(st.integers(1, 70), st.sampled_from((96, 129))),
    st.integers(1, 12),
    st.one_of(st.tuples(st.integers(1, 40), st.integers(1, 9)), st.sampled_from(((14, 14), (1, 1), (28, 28), (7, 7)))),
    st.integers(0, 1000),
    st.sampled_from((1, 2, 3)),
)


def tensors_of(op: LinearOp, random: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    names = [name for name, kind in op.step_inputs if kind == "tensor"]
    return {name: random.standard_normal(shape).astype(np.float32) for name in names}


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(op=st.sampled_from(OPS), shape=shapes)
def test_against_float64(library: Path, op: LinearOp, shape: tuple[int, int, int, tuple[int, int], int, int]) -> None:
    images, outputs, eights, (height, width), seed, threads = shape
    inputs = eights * 8 if op.group is None else (eights % 4 + 1) * op.group
    layer, random = draw(op, outputs, inputs, seed), np.random.default_rng(seed)
    x = unaligned(random.standard_normal((images, inputs, height, width)).astype(np.float32))
    made = (images, outputs, height, width)
    tensors = tensors_of(op, random, made)
    result = session(layer.model(), library, threads).run(None, {"x": x, **tensors})[0]
    expected = layer.after(layer.product(x), tensors)
    weight = np.abs((layer.centred * layer.scale.astype(np.float64)[..., None]).reshape(layer.codes.shape))
    size = np.einsum("oi,ni...->no...", weight, np.abs(x).astype(np.float64))
    factor = 1 + sum(np.abs(tensors[name]) for name, _ in op.step_inputs if name == "factor")
    bound = 1.2 * factor * (size * (ROUNDING + SUM_ERROR) + expected.reach * SUM_ERROR)
    assert (np.abs(result - expected.arrays[0]) <= bound).all()


@pytest.mark.parametrize("positions", [1, 9, 17, 49, 128])
def test_a_bad_position_is_bad_alone(library: Path, positions: int) -> None:
    op = linear(8, pointwise=True)
    layer = draw(op, 40, 24)
    x = np.random.default_rng(0).standard_normal((2, 24, positions)).astype(np.float32)
    x[1, 23, 0] = np.nan
    result = session(layer.model(), library).run(None, {"x": x})[0]
    assert np.isnan(result[1, :, 0]).all()
    result[1, :, 0] = 0
    assert np.isfinite(result).all()


@pytest.mark.parametrize("shape", [(0, 24, 3, 3), (1, 24, 0, 3)])
def test_nothing_in_nothing_out(library: Path, shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, np.float32)
    result = session(draw(PLAIN[-1], 40, 24).model(), library).run(None, {"x": x})[0]
    assert result.shape == (shape[0], 40, *shape[2:])


def test_channels_that_do_not_fit(library: Path) -> None:
    made = session(draw(PLAIN[-1], 40, 24).model(), library)
    with pytest.raises(Exception, match="channels of the input"):
        made.run(None, {"x": np.zeros((1, 32, 2, 2), np.float32)})
    with pytest.raises(Exception, match="multiple of 8"):
        session(draw(linear(16, pointwise=True), 40, 20).model(), library)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_the_body_says_the_same(op: LinearOp) -> None:
    layer, random = draw(op, 24, 64), np.random.default_rng(1)
    x = random.standard_normal((2, 64, 5, 3)).astype(np.float32)
    tensors = tensors_of(op, random, (2, 24, 5, 3))
    body = onnx_ir.serde.serialize_function(kernel_function(op, 21))
    result = session(layer.model(body=body), None).run(None, {"x": x, **tensors})[0]
    expected = layer.after(layer.product(x), tensors)
    size = max(expected.reach, np.abs(layer.product(x)).max())
    np.testing.assert_allclose(result, expected.arrays[0], rtol=1e-5, atol=1e-5 * size)


@pytest.mark.slow
def test_other_targets_leave_it_to_the_body(tmp_path: Path) -> None:
    op = linear(8, pointwise=True)
    build([op, linear(8)], (PROCESSORS["avx2"],), tmp_path / "k.so")
    build([op], (PROCESSORS["avx2"],), tmp_path / "only.so")


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_names(op: LinearOp) -> None:
    assert op.name.startswith("conv1x1_")
    assert parse(op.name) == op


@pytest.mark.parametrize("steps", [("relu", "bias"), ("layer_norm",), ("keep", "rms_norm")])
def test_steps_that_convolutions_have_not(steps: tuple[str, ...]) -> None:
    with pytest.raises(OpError, match="a convolution's bias"):
        linear(8, steps=steps, pointwise=True)
