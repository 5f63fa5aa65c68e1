"""Rows rounded by one step each, times codes of 8 bits: integers to the last bit, bad rows alone bad."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import named
from qcc.codegen.cpu.product import product_of
from qcc.codegen.cpu.templates import WholeRows, templates
from qcc.codegen.target.target import Arithmetic
from qcc.ir.kernel.op import LinearOp
from tests.codegen_models import Layer, by_rows, check_to_the_last_bit, draw, linear, session

pytest.importorskip("tvm")

TARGETS = ["avx512-vnni", "avx2"]
KERNELS = [linear(8, None, symmetric) for symmetric in (True, False)]
EDGES = (1, 16, 63, 64, 65, 130)


@pytest.fixture(scope="module", params=TARGETS)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = named(request.param)
    if target.obstacle:
        pytest.skip("the processor lacks it")
    return build(KERNELS, (target,), tmp_path_factory.mktemp("whole") / "k.so", "int8")


shapes = st.tuples(
    st.one_of(st.integers(WholeRows.rows, 80), st.sampled_from((250, 257))),
    st.sampled_from(EDGES),
    st.one_of(st.integers(1, 9), st.sampled_from((16, 33))),
    st.integers(0, 1000),
    st.sampled_from((1, 2)),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(op=st.sampled_from(KERNELS), shape=shapes)
def test_integers_to_the_last_bit(library: Path, op: LinearOp, shape: tuple[int, ...]) -> None:
    check_to_the_last_bit(library, op, shape)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums(library: Path, sign: int) -> None:
    layer = draw(linear(8, None, False), 40, 4096)
    layer = Layer(layer.kernel, np.full_like(layer.codes, 255), layer.scale, np.full_like(layer.zero, -128))
    x = np.full((9, 4096), sign * 3.0, np.float32)
    result = session(layer.model(), library).run(None, {"x": x})[0]
    np.testing.assert_array_equal(result, by_rows(layer, x))


@pytest.mark.parametrize("size", [0.0, 1e-40, 1e-31, 1e-20, 1e30])
def test_rows_of_any_size(library: Path, size: float) -> None:
    layer = draw(linear(8, None), 40, 64)
    x = (np.random.default_rng(0).standard_normal((21, 64)) * size).astype(np.float32)
    result = session(layer.model(), library).run(None, {"x": x})[0]
    np.testing.assert_array_equal(result, by_rows(layer, x))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [6, 40, 300])
def test_a_bad_row_is_bad_alone(library: Path, bad: float, rows: int) -> None:
    layer = draw(linear(8, None), 70, 96)
    x = np.random.default_rng(0).standard_normal((rows, 96)).astype(np.float32)
    run = session(layer.model(), library)
    before = run.run(None, {"x": x})[0]
    x[5, 3] = bad
    after = run.run(None, {"x": x})[0]
    assert not np.isfinite(after[5]).any()
    others = np.arange(rows) != 5
    np.testing.assert_array_equal(after[others], before[others])


@pytest.mark.parametrize(
    ("op", "activations", "taken"),
    [
        (linear(8, None), "int8", True),
        (linear(8, None), "bf16", False),  # a step for 32 neighbours is nearer
        (linear(8, 32), "int8", False),
        (linear(4, None), "int8", False),
        (linear(8, None, static=True), "int8", False),
    ],
)
def test_one_step_a_row_is_asked_for(op: LinearOp, activations: Arithmetic, taken: bool) -> None:
    for target in TARGETS:
        found = templates(product_of(op), named(target), activations)
        assert any(isinstance(one, WholeRows) for one in found) == taken
    by_tiles = templates(product_of(op), named("sapphire-rapids"), activations)
    assert not any(isinstance(one, WholeRows) for one in by_tiles)
