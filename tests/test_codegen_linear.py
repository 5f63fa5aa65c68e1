"""Every kernel computes the product that its op's name promises, whatever shape, rank, alignment and threads."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.library.spec import served
from qcc.codegen.cpu.processors.processors import AVX2, CpuProcessor, named, native
from qcc.codegen.cpu.product import product_of
from qcc.codegen.cpu.templates import IntegerTiles, WholeRows, templates
from qcc.codegen.target.machine import cpu_flags
from qcc.codegen.target.target import Arithmetic
from qcc.ir.kernel.op import BIAS, LinearOp, parse
from tests.codegen_models import Layer, draw, in_whole_numbers, linear, session, tried, unaligned

pytest.importorskip("tvm")

KERNELS = [
    linear(bits, group, symmetric, steps)
    for bits, group, symmetric, steps in itertools.product(range(2, 9), (32, 64, None), (True, False), ((), (BIAS,)))
]
HALF = [  # every width with every size of group, and every other time with zero points
    kernel
    for at, kernel in enumerate(KERNELS)
    if (at // 12 + at // 4 % 3 + at // 2 % 2) % 2 == 0 or kernel == linear(4, 32, False)
]
FLOATS = [linear(16), linear(16, steps=(BIAS,))]
TABLES = [
    parse(f"linear_{stored}")
    for stored in (
        "nf4_group64",
        "nf4_group32_bias",
        "nf4_channel",
        "fp4_group32_e8m0",
        "fp4_group64_e8m0_bias",
        "fp4_channel",
        "int1_group32",
        "int1_group64_fp32",
    )
]
SINGLES = [parse(f"linear_int{name}") for name in ("4_group32_fp32", "3_group64_asym_fp32_bias")]  # scales of float32
ASKED = linear(4, 32, False), linear(4, 32, True, (BIAS,)), linear(4, 64, False, (BIAS,))
QUARTER = [kernel for at, kernel in enumerate(HALF) if at % 2 == 0 or kernel in ASKED]
for some in (KERNELS, HALF, QUARTER):
    some += FLOATS + TABLES + SINGLES
BUILT: dict[Arithmetic, list[LinearOp]] = {"int8": KERNELS, "bf16": HALF, "exact": QUARTER}
"""The ways to round share the code that decodes: one has all products, the others half and a quarter of them."""

TILES = "sapphire-rapids"
TILED: dict[Arithmetic, list[LinearOp]] = {
    "int8": [*FLOATS, *TABLES, *SINGLES, linear(8), linear(6, 64, False, (BIAS,)), linear(4, 32)],
    "bf16": [*(linear(bits, None, bits == 4) for bits in (3, 4, 8)), parse("linear_nf4_channel")],
}
"""What is tried on tiles; `test_codegen_gemm` has all widths."""

FLOAT = 1e-6  # of the sum of magnitudes: float32 sums of up to 1088 products, in short chains
BFLOAT = 1e-2  # the same: both factors rounded to 8 bits

Libraries = Callable[[str, Arithmetic], Path]


def kernels_of(target: str, activations: Arithmetic) -> list[LinearOp]:
    return TILED[activations] if target == TILES else BUILT[activations]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Libraries:
    folder = tmp_path_factory.mktemp("kernels")
    made: dict[tuple[str, Arithmetic], Path] = {}

    def make(target: str, activations: Arithmetic) -> Path:
        if (target, activations) not in made:
            out = folder / f"{target}-{activations}.so"
            processor = tried(target) if target == TILES else named(target)
            made[target, activations] = build(kernels_of(target, activations), (processor,), out, activations)
        return made[target, activations]

    return make


def error(layer: Layer, x: np.ndarray, result: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(result - wanted).max() / layer.magnitude(x))


def check(layer: Layer, x: np.ndarray, result: np.ndarray, target: CpuProcessor, activations: Arithmetic) -> None:
    assert result.shape == (*x.shape[:-1], len(layer.codes))
    rows = x.size // x.shape[-1]
    many = templates(product_of(layer.kernel), target, activations)[1:]
    if many and rows >= many[0].facts(product_of(layer.kernel))["many"]:  # where many rows are another product
        integers = isinstance(many[0], IntegerTiles | WholeRows)
        wanted = layer.rounded(x, x.shape[-1]) if integers else layer.exact(x)
        assert error(layer, x, result, wanted) < (FLOAT if integers else BFLOAT)
    elif activations == "exact" or layer.kernel.is_float:
        assert error(layer, x, result, layer.exact(x)) < FLOAT
    else:
        assert error(layer, x, result, in_whole_numbers(layer, target).rounded(x)) < FLOAT


cases = st.fixed_dictionaries(
    {
        "kernel": st.integers(0, len(KERNELS) - 1),
        "rows": st.integers(1, 70),
        "outputs": st.integers(1, 130),
        "groups": st.integers(1, 4),
        "rank": st.integers(1, 4),
        "threads": st.sampled_from((1, 2)),
        "scale": st.sampled_from((np.float16, np.float32)),
        "seed": st.integers(0, 1000),
    }
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "activations"),
    [("native", "int8"), ("native", "bf16"), ("native", "exact"), (TILES, "int8"), (TILES, "bf16")],
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases)
def test_product(libraries: Libraries, target: str, activations: Arithmetic, case: dict[str, Any]) -> None:
    kernels, processor = kernels_of(target, activations), tried(target)
    kernel = kernels[case["kernel"] % len(kernels)]
    assume(served([kernel], processor, activations))  # rows as they are look tables up with AVX-512 alone
    run(libraries(target, activations), {**case, "kernel": kernel}, processor, activations)


INTEGERS = [
    pytest.param(name, marks=pytest.mark.skipif(not set(named(name).features) <= cpu_flags(), reason="lacks it"))
    for name in ("avx512-vnni", "avx2")
]


@pytest.mark.slow
@pytest.mark.parametrize("target", INTEGERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases)
def test_integers_for_any_number_of_rows(libraries: Libraries, target: str, case: dict[str, Any]) -> None:
    run(libraries(target, "int8"), {**case, "kernel": KERNELS[case["kernel"]]}, tried(target), "int8")


def run(library: Path, case: dict[str, object], target: CpuProcessor, activations: Arithmetic) -> None:
    kernel = case["kernel"]
    assert isinstance(kernel, LinearOp)
    rows, rank, seed, groups = (int(str(case[name])) for name in ("rows", "rank", "seed", "groups"))
    inputs = (kernel.group or 64) * groups
    layer = draw(kernel, int(str(case["outputs"])), inputs, seed, case["scale"])
    shape = {1: (inputs,), 2: (rows, inputs), 3: (rows, 1, inputs), 4: (2, 1, -(-rows // 2), inputs)}[rank]
    x = unaligned(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))
    result = session(layer.model(), library, int(str(case["threads"]))).run(None, {"x": x})[0]
    if activations == "int8" and not native().has(*AVX2):
        activations = "exact"
    check(layer, x, result, target, activations)


@pytest.mark.parametrize("target", INTEGERS)
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("extreme", [True, False])
def test_integers_are_exact(libraries: Libraries, target: str, bits: int, symmetric: bool, extreme: bool) -> None:
    """Activations that int8 holds, scales that are powers of two: nothing is rounded, so every bit is right."""
    layer = draw(linear(bits, 32, symmetric), 70, 128)
    codes = np.full_like(layer.codes, (1 << bits) - 1) if extreme else layer.codes
    codes[:: 2 if extreme else len(codes)] = 0  # the least number that a code stands for, of any sign of activations
    layer = Layer(layer.kernel, codes, np.full_like(layer.scale, 0.25), layer.zero)
    x = np.random.default_rng(1).integers(-127, 128, (6, 128)).astype(np.float32)
    x[:, ::32] = 127
    if extreme:  # the largest sums that there are: none may saturate
        x[:3], x[3:] = 127, -127
    steps = (np.float32(127) * np.float32(1 / 127)).astype(np.float64)  # 1 in float32
    assert steps == 1
    result = session(layer.model(), libraries(target, "int8")).run(None, {"x": x})[0]
    np.testing.assert_array_equal(result, layer.exact(x).astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize(("target", "activations"), [("generic", "int8"), ("avx2", "exact")])
def test_portable(tmp_path: Path, target: str, activations: Arithmetic) -> None:
    """Float32 everywhere: the generic target has no other way."""
    if not set(named(target).features) <= cpu_flags():
        pytest.skip("the processor lacks it")
    kernels = [linear(3, 32, False, (BIAS,)), linear(8, None)]
    library = build(kernels, (named(target),), tmp_path / "k.so", activations)
    for kernel, rows in itertools.product(kernels, (1, 7, 20)):
        layer = draw(kernel, 70, 96)
        x = np.random.default_rng(rows).standard_normal((rows, 96)).astype(np.float32)
        result = session(layer.model(), library, 2).run(None, {"x": x})[0]
        assert error(layer, x, result, layer.exact(x)) < FLOAT


@pytest.mark.parametrize(("target", "activations"), [("native", "int8"), ("native", "exact"), (TILES, "int8")])
@pytest.mark.parametrize("rows", [1, 5, 20])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(libraries: Libraries, target: str, activations: Arithmetic, rows: int, bad: float) -> None:
    """A row that holds one such value gives none that is finite; other rows are as they were."""
    layer = draw(linear(4, 32, target == TILES), 70, 64)
    x = np.random.default_rng(0).standard_normal((rows, 64)).astype(np.float32)
    kernel = session(layer.model(), libraries(target, activations))
    before = kernel.run(None, {"x": x})[0]
    x[0, 3] = bad
    after = kernel.run(None, {"x": x})[0]
    assert not np.isfinite(after[0]).any()
    np.testing.assert_array_equal(after[1:], before[1:])


@pytest.mark.parametrize("activations", ["int8", "exact"])
@pytest.mark.parametrize("size", [0.0, 1e-40, 1e-36, 1e30])
def test_tiny_and_huge(libraries: Libraries, activations: Arithmetic, size: float) -> None:
    layer = draw(linear(4, 32), 40, 64)
    x = (np.random.default_rng(0).standard_normal((3, 64)) * size).astype(np.float32)
    result = session(layer.model(), libraries("native", activations)).run(None, {"x": x})[0]
    step = np.abs(layer.exact(x)).max() * 2e-2  # eight bits
    floor = 1e-30 * 64 if activations == "int8" else 1e-37  # what counts as zero
    assert np.abs(result - layer.exact(x)).max() <= step + floor


@pytest.mark.parametrize(
    ("target", "activations", "op"),
    [
        *itertools.product(
            ["native"], ["int8", "exact"], [linear(4, 32, True, (BIAS,)), linear(4, 64, False, (BIAS,))]
        ),
        *((TILES, "int8", op) for op in (linear(4, 32), linear(6, 64, False, (BIAS,)), linear(8))),
    ],
)
@pytest.mark.parametrize("rows", [1, 5, 33, 131])
def test_shared_out_over_threads(
    libraries: Libraries, target: str, activations: Arithmetic, op: LinearOp, rows: int
) -> None:
    """A product large enough to be cut into tasks, on ONNX Runtime's own threads: the same bits as on one, however
    many of them the layer has seen when it cuts.
    """
    layer = draw(op, 1000, 1088)
    x = np.random.default_rng(rows).standard_normal((rows, 1088)).astype(np.float32)
    library = libraries(target, activations)
    (alone,) = session(layer.model(), library, 1).run(None, {"x": x})
    assert error(layer, x, alone, layer.exact(x)) < BFLOAT
    for threads in (2, 8):
        shared = session(layer.model(), library, threads)
        for _ in range(4):  # the first cut knows of no other thread, the later ones of as many as ran at once
            np.testing.assert_array_equal(shared.run(None, {"x": x})[0], alone)


@pytest.mark.parametrize(
    ("target", "op"), [("native", linear(8, 32, False)), (TILES, linear(8)), (TILES, linear(4, 32))]
)
@pytest.mark.parametrize("order", [(1, 200, 3, 131), (200, 1, 131, 2)])
def test_one_session_for_any_number_of_rows_in_turn(
    libraries: Libraries, target: str, op: LinearOp, order: tuple[int, ...]
) -> None:
    """What a layer learned from one number of rows cuts the next: rows that nobody multiplied would be seen."""
    layer = draw(op, 1000, 1088)
    shared = session(layer.model(), libraries(target, "int8"), 8)
    for rows in (*order, *order):
        x = np.random.default_rng(rows).standard_normal((rows, 1088)).astype(np.float32)
        assert error(layer, x, shared.run(None, {"x": x})[0], layer.exact(x)) < BFLOAT


def test_no_rows(libraries: Libraries) -> None:
    layer = draw(linear(4, 32), 40, 64)
    result = session(layer.model(), libraries("native", "int8")).run(None, {"x": np.zeros((0, 64), np.float32)})[0]
    assert result.shape == (0, 40)


@pytest.mark.parametrize(
    ("target", "ops"),
    [("native", [linear(bits, 32) for bits in (3, 4, 8)]), (TILES, [linear(4, 32), linear(8), linear(16)])],
)
def test_many_sessions_and_threads(libraries: Libraries, target: str, ops: list[LinearOp]) -> None:
    """Eight threads share three sessions; everyone gets what one thread alone gets."""
    layers = [draw(op, 200, 256, at) for at, op in enumerate(ops)]
    sessions = [session(layer.model(), libraries(target, "int8"), 2) for layer in layers]
    inputs = [np.random.default_rng(m).standard_normal((m, 256)).astype(np.float32) for m in (1, 4, 33)]
    alone = {(s, i): sessions[s].run(None, {"x": inputs[i]})[0] for s in range(3) for i in range(3)}

    def work(number: int) -> bool:
        place = (number % 3, number // 3 % 3)
        return bool((sessions[place[0]].run(None, {"x": inputs[place[1]]})[0] == alone[place]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(400)))
