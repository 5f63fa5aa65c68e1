"""What follows a product is what its steps say, whatever chain of them, shape, rank and threads."""

import ctypes
import dataclasses
import itertools
import mmap
import random
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import named
from qcc.codegen.cpu.processors.processors import native as native_target
from qcc.ir.kernel.op import BIAS, KEEP, STEPS, LinearOp, OpError
from tests.codegen_models import REFERENCE, Layer, draw, linear, session, tried

pytest.importorskip("tvm")


ROUNDING = 1e-6  # of the largest magnitude on the way: five steps in float32, each right to about 1.5e-7
TARGETS = ["native", "avx2", "generic"]
TILES = "sapphire-rapids"
RESIDUAL = (BIAS, "add", KEEP, "layer_norm")
NORMS = [step for step in STEPS if STEPS[step].whole]


def chains(count: int) -> list[tuple[str, ...]]:
    """Each step alone and behind a bias, each norm with and without its value kept, and random chains."""
    made: list[tuple[str, ...]] = [(BIAS, "layer_norm"), RESIDUAL]
    made += [(step,) for step in STEPS if step != KEEP]
    made += [(KEEP, norm) for norm in NORMS]
    made += [(BIAS, step) for step in REFERENCE if step != BIAS]
    choose = random.Random(0)
    while len(made) < count:
        steps = tuple(choose.choices([*REFERENCE], k=choose.randint(2, 5)))
        steps += choose.choice([(), *itertools.product(NORMS), *itertools.product([KEEP], NORMS)])
        try:
            linear(4, 32, True, steps)
        except OpError:
            continue
        made.append(steps)
    return made


OPS = [linear(4, 32, True, steps) for steps in [(), *chains(45)]]
PLAIN = OPS[0]
WHOLE = linear(8, None, True, RESIDUAL)
GELU, NORMED = linear(4, 32, True, ("gelu",)), linear(4, 32, True, RESIDUAL)
TILED = [PLAIN, GELU, NORMED, *OPS[4::8]]  # steps are the same code on tiles; what differs is where they read
Libraries = Callable[[str], Path]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Libraries:
    folder, made = tmp_path_factory.mktemp("steps"), dict[str, Path]()

    def make(target: str) -> Path:
        processor = tried(target)
        if target not in made:
            ops = TILED if target == TILES else OPS
            made[target] = build([*ops, WHOLE], (processor,), folder / f"{target}.so", "int8")
        return made[target]

    return make


def tensors(op: LinearOp, shape: tuple[int, ...], seed: int) -> dict[str, np.ndarray]:
    """Tensors for an op's steps."""
    draws = np.random.default_rng(seed)
    wanted = [name for name, kind in op.step_inputs if kind == "tensor"]
    return {name: draws.uniform(-1.5, 1.5, shape).astype(np.float32) for name in wanted}


def as_plain(layer: Layer) -> Layer:
    """The same weights without steps."""
    return Layer(PLAIN, layer.codes, layer.scale, layer.zero)


def run(layer: Layer, library: Path, feed: dict[str, np.ndarray], threads: int = 1) -> Any:
    return session(layer.model(), library, threads).run(None, feed)


cases = st.fixed_dictionaries(
    {
        "op": st.integers(1, len(OPS) - 1),
        "rows": st.integers(1, 70),
        "outputs": st.integers(1, 130),
        "groups": st.integers(1, 3),
        "rank": st.integers(1, 4),
        "threads": st.sampled_from((1, 2)),
        "seed": st.integers(0, 1000),
        "size": st.sampled_from((0.1, 1.0, 30.0)),
    }
)


@pytest.mark.slow
@pytest.mark.parametrize("target", [*TARGETS, TILES])
@settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases)
def test_steps(libraries: Libraries, target: str, case: dict[str, Any]) -> None:
    """The op gives what float64 makes of the kernel's own product."""
    rows, inputs, seed = case["rows"], 32 * case["groups"], case["seed"]
    ops = TILED if target == TILES else OPS
    layer = draw(ops[1 + case["op"] % (len(ops) - 1)], case["outputs"], inputs, seed)
    shape = {1: (), 2: (rows,), 3: (rows, 1), 4: (2, 1, -(-rows // 2))}[case["rank"]]
    x = (np.random.default_rng(seed).standard_normal((*shape, inputs)) * case["size"]).astype(np.float32)
    others = tensors(layer.kernel, (*shape, case["outputs"]), seed)
    library = libraries(target)
    (product,) = run(as_plain(layer), library, {"x": x})
    results = run(layer, library, {"x": x, **others}, case["threads"])
    wanted = layer.after(product, others)
    assert len(results) == len(layer.kernel.outputs)
    for result, array in zip(results, wanted.arrays, strict=True):
        assert result.shape == array.shape
        assert np.abs(result - array).max() < ROUNDING * wanted.reach


SPECIAL = [np.nan, np.inf, -np.inf, 0, 1e-40, -1e-40, 1e-20, 88, -88, 200, -200, 1e19, -1e19, 3e38, -3e38, 9]
BEYOND = 1e-36  # what float64 still tells from zero in the tails, and float32 may not


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("step", [step for step in REFERENCE if not STEPS[step].operands])
def test_special_values(libraries: Libraries, target: str, step: str) -> None:
    """NaN, infinities and denormals, in whole vectors and behind them, are what the step's formula makes of them."""
    values = np.resize(np.array(SPECIAL, np.float32), 2 * len(SPECIAL) - 1)
    layer = dataclasses.replace(draw(linear(4, 32, True, (BIAS, step)), len(values), 32), vectors={"bias": values})
    result = run(layer, libraries(target), {"x": np.zeros((1, 32), np.float32)})[0][0]
    with np.errstate(all="ignore"):
        wanted = REFERENCE[step](values.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(result, wanted, rtol=1e-6, atol=BEYOND)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("step", NORMS)
def test_norm_of_a_row_that_is_not_finite(libraries: Libraries, target: str, bad: float, step: str) -> None:
    """As in float64: the row has no mean, or no mean square; other rows are as they were."""
    layer = draw(linear(4, 32, True, (step,)), 37, 32)
    x = np.random.default_rng(0).standard_normal((3, 32)).astype(np.float32)
    before = run(layer, libraries(target), {"x": x})[0]
    x[1, 3] = bad
    after = run(layer, libraries(target), {"x": x})[0]
    assert np.isnan(after[1]).all()
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("epsilon", [1e-12, 1e-5, 0.5])
def test_norm_far_from_zero(libraries: Libraries, offset: float, epsilon: float) -> None:
    """Variance is summed around the mean, so an offset costs no more digits than its own float32 does."""
    layer = draw(linear(4, 32, True, (BIAS, "layer_norm")), 384, 32)
    vectors = {**layer.vectors, "bias": layer.vectors["bias"] + np.float32(offset)}
    layer = dataclasses.replace(layer, vectors=vectors, epsilon=epsilon)
    x = np.zeros((2, 32), np.float32)
    (result,) = run(layer, libraries("native"), {"x": x})
    (wanted,) = layer.after(np.zeros((2, 384))).arrays
    assert np.abs(result - wanted).max() < 3e-6 + 3e-6 * offset


@pytest.mark.parametrize("rows", [1, 5, 300])
@pytest.mark.parametrize("op", [GELU, NORMED, WHOLE])
@pytest.mark.parametrize("target", [TARGETS[0], TILES])
def test_shared_out_over_threads(libraries: Libraries, target: str, rows: int, op: LinearOp) -> None:
    """Products and norms that are cut into tasks: the same bits as on one thread, for many callers at once."""
    layer = draw(op, 700, 512)
    feed = {"x": np.random.default_rng(rows).standard_normal((rows, 512)).astype(np.float32)}
    feed |= tensors(layer.kernel, (rows, 700), rows)
    alone, shared = (session(layer.model(), libraries(target), threads) for threads in (1, 3))
    wanted = alone.run(None, feed)

    def same(_: int) -> bool:
        return all(map(np.array_equal, shared.run(None, feed), wanted))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(same, range(12)))


def test_no_rows(libraries: Libraries) -> None:
    layer = draw(linear(4, 32, True, RESIDUAL), 40, 64)
    feed = {"x": np.zeros((0, 64), np.float32), "added": np.zeros((0, 40), np.float32)}
    assert [result.shape for result in run(layer, libraries("native"), feed)] == [(0, 40), (0, 40)]


@pytest.mark.parametrize("shape", [(40,), (1, 40), (2, 1), (2, 41), (3, 40), (1, 2, 40)])
def test_tensors_of_another_shape_are_refused(libraries: Libraries, shape: tuple[int, ...]) -> None:
    """No broadcasting, not even where ONNX would allow it."""
    feed = {"x": np.zeros((2, 64), np.float32), "added": np.zeros(shape, np.float32)}
    with pytest.raises(Exception, match="does not have the output's shape"):
        run(draw(linear(4, 32, True, ("add",)), 40, 64), libraries("native"), feed)


def test_vectors_are_constants_of_the_outputs(libraries: Libraries) -> None:
    layer = draw(linear(4, 32, True, ("layer_norm",)), 40, 64)
    short = dataclasses.replace(layer, vectors={**layer.vectors, "shift": np.zeros(39, np.float32)})
    with pytest.raises(Exception, match=r"vectors of steps .* are float32 \[out\]"):
        session(short.model(), libraries("native"))
    with pytest.raises(Exception, match="must be a constant"):
        session(layer.model(constant=False), libraries("native"))


def test_a_norm_needs_its_epsilon(libraries: Libraries) -> None:
    model = draw(linear(4, 32, True, ("rms_norm",)), 40, 64).model()
    del model.graph.node[0].attribute[:]
    with pytest.raises(Exception, match="epsilon"):
        session(model, libraries("native"))


class Fenced:
    """An array that ends where the process may read no further."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        size, page = int(np.prod(shape)) * 4, mmap.PAGESIZE
        room = -(-size // page) * page
        self._memory = mmap.mmap(-1, room + page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + room), page, 0) == 0
        self.array = np.frombuffer(self._memory, np.float32, size // 4, room - size).reshape(shape)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rows", [1, 3, 4, 17])
@pytest.mark.parametrize("outputs", [1, 15, 33, 100])
def test_stays_within_its_arrays(libraries: Libraries, target: str, rows: int, outputs: int) -> None:
    """A read or write behind an array would end the process."""
    layer = draw(linear(4, 32, True, RESIDUAL), outputs, 32)
    arrays = {"x": Fenced((rows, 32)), **{name: Fenced((rows, outputs)) for name in ("added", "y", "kept")}}
    random_ = np.random.default_rng(0)
    made = session(layer.model(), libraries(target))
    binding = made.io_binding()
    for name, fenced in arrays.items():
        fenced.array[...] = random_.standard_normal(fenced.array.shape)
        bind = binding.bind_output if name in layer.kernel.outputs else binding.bind_input
        bind(name, "cpu", 0, np.float32, fenced.array.shape, fenced.array.ctypes.data)
    made.run_with_iobinding(binding)
    wanted = made.run(None, {name: arrays[name].array for name in ("x", "added")})
    for name, array in zip(("y", "kept"), wanted, strict=True):
        np.testing.assert_array_equal(arrays[name].array, array)


@pytest.mark.slow
def test_the_first_target_that_the_processor_can_is_used(libraries: Libraries, tmp_path: Path) -> None:
    """One library for several: on this machine, as if built for the one alone."""
    lacking = dataclasses.replace(named("native"), features=(*named("native").features, "amx_never"))
    order = (lacking, named("generic"), named("native"))
    op = linear(4, 32, True, ("bias", "gelu"))
    library = build([op], order, tmp_path / "k.so")
    layer, x = draw(op, 70, 64), np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    generic, native = (run(layer, libraries(target), {"x": x})[0] for target in ("generic", "native"))
    np.testing.assert_array_equal(run(layer, library, {"x": x})[0], generic)
    if native_target().name != "generic":  # else the test shows nothing
        assert not np.array_equal(generic, native)


def test_needs_only_the_c_library(libraries: Libraries) -> None:
    """No library of mathematics; that nothing is undefined, the linker checks (`-z defs`)."""
    lines = subprocess.run(["ldd", libraries("generic")], capture_output=True, text=True, check=True).stdout
    needed = {line.split()[0].rpartition("/")[2].partition(".")[0] for line in lines.splitlines()}
    assert needed <= {"libc", "libpthread", "linux-vdso", "ld-linux-x86-64"}  # threads were apart in old ones


def test_every_step_has_a_formula_and_a_reference() -> None:
    pointwise = {step for step in STEPS if step != KEEP and not STEPS[step].whole}
    assert {step for step in STEPS if STEPS[step].formula is not None} == pointwise == set(REFERENCE)
