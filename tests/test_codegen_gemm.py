"""The matrix products of many rows: integers to the last bit, bfloat16 as close as it can be, bad rows alone bad."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import CpuProcessor, native
from qcc.codegen.cpu.processors.tiling import Tiling
from qcc.codegen.cpu.templates import CodeTiles, FloatTiles
from qcc.ir.kernel.op import LinearOp, parse
from tests.amx import with_tiles
from tests.codegen_models import Layer, by_rows, check_to_the_last_bit, draw, linear, session, unaligned

pytest.importorskip("tvm")

CHANNEL = [linear(bits, None, symmetric) for bits in range(2, 9) for symmetric in (True, False)]
GROUPED = [linear(bits, 32, symmetric) for bits in range(2, 9) for symmetric in (True, False)]
SINGLE = parse("linear_int4_group32_fp32")
WEIGHTS = linear(16)
EDGES = (1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 130)
WEIGHT_ERROR = 2.0**-7 * 2 / 3  # of a decoded weight: cut after it was made larger by at most two thirds of a last bit
INPUT_ERROR = 2.0**-8  # of an activation, rounded to nearest: eight bits
SUM_ERROR = 1e-6  # float32 sums


@pytest.fixture(scope="module")
def processor() -> CpuProcessor:
    return with_tiles()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, processor: CpuProcessor) -> Path:
    out = tmp_path_factory.mktemp("gemm") / "k.so"
    return build([*CHANNEL, *GROUPED, SINGLE, WEIGHTS], (processor,), out, "int8")


shapes = st.tuples(
    st.one_of(st.integers(CodeTiles.rows, 80), st.sampled_from((250, 256, 257, 300))),
    st.sampled_from(EDGES),
    st.one_of(st.integers(1, 9), st.sampled_from((16, 17, 33, 67))),  # a slab is 32 steps, of integers 64
    st.integers(0, 1000),
    st.sampled_from((1, 2, 5)),
)


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(op=st.sampled_from(CHANNEL), shape=shapes)
def test_integers_to_the_last_bit(library: Path, op: LinearOp, shape: tuple[int, ...]) -> None:
    check_to_the_last_bit(library, op, shape)


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(op=st.sampled_from([*GROUPED, WEIGHTS]), shape=shapes)
def test_bfloat16_of_every_factor(library: Path, op: LinearOp, shape: tuple[int, ...]) -> None:
    rows, outputs, chunks, seed, threads = shape
    layer = draw(op, outputs, chunks * 32, seed)
    x = unaligned(np.random.default_rng(seed).standard_normal((rows, chunks * 32)).astype(np.float32))
    result = session(layer.model(), library, threads).run(None, {"x": x})[0]
    weight = np.abs((layer.centred * layer.scale.astype(np.float64)[..., None]).reshape(layer.codes.shape))
    share = INPUT_ERROR + (0 if op.is_float else WEIGHT_ERROR)
    bound = np.abs(x).astype(np.float64) @ weight.T * (share + SUM_ERROR) + layer.magnitude(x) * SUM_ERROR
    assert (np.abs(result - layer.exact(x)) <= bound).all()


@pytest.mark.parametrize("op", GROUPED)
def test_weights_that_bfloat16_holds_stay_as_they_are(library: Path, op: LinearOp) -> None:
    layer = draw(op, 40, 96)
    layer = Layer(op, layer.codes, np.full_like(layer.scale, 0.25), layer.zero)
    held = np.abs(layer.centred) <= 256  # eight bits
    x = np.zeros((96, 96), np.float32)
    np.fill_diagonal(x, 1)
    result = session(layer.model(), library).run(None, {"x": x})[0]
    wanted = (layer.centred * 0.25).reshape(40, 96).T
    np.testing.assert_array_equal(result[held.reshape(40, 96).T], wanted[held.reshape(40, 96).T])


def test_cutting_favours_no_side(library: Path) -> None:
    """The sum of many weights is as it was: a bias of half a last bit would show as 2e-3."""
    layer = draw(SINGLE, 128, 4096)
    layer = Layer(
        layer.kernel, np.where(layer.codes < 8, 16 - np.maximum(layer.codes, 1), layer.codes), layer.scale, None
    )
    x = np.ones((16, 4096), np.float32)
    result = session(layer.model(), library).run(None, {"x": x})[0]
    assert abs(float((result / layer.exact(x)).mean()) - 1) < 5e-4


@pytest.mark.parametrize("op", [linear(8, None), linear(5, None, False), linear(4, 32), WEIGHTS])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [13, 40, 300])
def test_a_bad_row_is_bad_alone(library: Path, op: LinearOp, bad: float, rows: int) -> None:
    layer = draw(op, 70, 96)
    x = np.random.default_rng(0).standard_normal((rows, 96)).astype(np.float32)
    run = session(layer.model(), library)
    before = run.run(None, {"x": x})[0]
    x[5, 3] = bad
    after = run.run(None, {"x": x})[0]
    assert not np.isfinite(after[5]).any()
    others = np.arange(rows) != 5
    np.testing.assert_array_equal(after[others], before[others])


@pytest.mark.parametrize("size", [0.0, 1e-40, 1e-31, 1e-20, 1e30])
def test_rows_of_any_size(library: Path, size: float) -> None:
    layer = draw(linear(8, None), 40, 64)
    x = (np.random.default_rng(0).standard_normal((20, 64)) * size).astype(np.float32)
    result = session(layer.model(), library).run(None, {"x": x})[0]
    np.testing.assert_array_equal(result, by_rows(layer, x))


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 14])
def test_bfloat16_weights_of_few_rows(library: Path, rows: int) -> None:
    layer = draw(WEIGHTS, 130, 160)
    x = unaligned(np.random.default_rng(rows).standard_normal((rows, 160)).astype(np.float32))
    result = session(layer.model(), library).run(None, {"x": x})[0]
    share = SUM_ERROR if rows < FloatTiles.rows else INPUT_ERROR + SUM_ERROR
    assert np.abs(result - layer.exact(x)).max() < layer.magnitude(x) * share


@pytest.mark.parametrize("cuts", [Tiling(8), Tiling(3), Tiling(1, 4, 1 << 16)])
def test_cuts_change_no_bit(library: Path, processor: CpuProcessor, tmp_path: Path, cuts: Tiling) -> None:
    """Of integers: wherever slabs end."""
    ops = [linear(8, None), linear(4, None)]
    other = build(ops, (replace(processor, cuts=cuts),), tmp_path / "k.so", "int8")
    for op, (rows, outputs, inputs) in itertools.product(ops, ((16, 32, 32), (70, 70, 608), (530, 130, 1056))):
        layer = draw(op, outputs, inputs)
        x = np.random.default_rng(rows).standard_normal((rows, inputs)).astype(np.float32)
        results = [session(layer.model(), one).run(None, {"x": x})[0] for one in (library, other)]
        np.testing.assert_array_equal(*results)


def test_cuts_follow_the_caches() -> None:
    cuts = native().tiling
    assert cuts.depth * 2048 * 32 <= native().l2_bytes and cuts.panel_bytes <= native().l2_bytes
    assert Tiling() == Tiling(32, 16, 1 << 20, 2, 128 << 10)
