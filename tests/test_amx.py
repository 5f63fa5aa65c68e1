"""Instructions on tiles, and kernels made of them: the processor's own, or emulated, which is held to the same laws."""

import ctypes
import itertools
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qcc.codegen.cpu.ceilings.ceilings import AMX_REQUEST
from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import CpuProcessor
from qcc.ir.kernel.op import LinearOp
from tests.amx import Emulated, shared_library, with_tiles
from tests.codegen_models import by_rows, draw, linear, session, unaligned

SIGNS = [(np.int8, np.int8), (np.int8, np.uint8), (np.uint8, np.int8), (np.uint8, np.uint8)]
BFLOAT16 = len(SIGNS)
SHAPES = [(16, 16, 16), (1, 1, 1), (7, 3, 11), (16, 5, 2), (3, 16, 16)]  # rows, outputs, inputs by fours of bytes
STEPS = 1e-6  # of the largest magnitude on the way: float32
BOTH = 2.0**-7 + 2.0**-16  # of a product: both factors are rounded to bfloat16, or cut


@pytest.fixture(scope="module")
def processor() -> CpuProcessor:
    made = with_tiles()
    if not isinstance(made, Emulated):
        assert ctypes.CDLL(None).syscall(*AMX_REQUEST) == 0
    return made


@pytest.fixture(scope="module")
def products(processor: CpuProcessor, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return ctypes.CDLL(str(shared_library("tile_products.c", tmp_path_factory.mktemp("tiles"))))


def config_of(rows: int, outputs: int, fours: int) -> np.ndarray:
    """Tile 2 has activations, 5 results, 7 weights."""
    config = np.zeros(64, np.uint8)
    config[0] = 1
    for tile, (height, width) in {2: (rows, fours), 5: (rows, outputs), 7: (fours, outputs)}.items():
        config[48 + tile], config[16 + 2 * tile] = height, 4 * width
    return config


def multiplied(products: ctypes.CDLL, kind: int, shape: tuple[int, ...], *parts: np.ndarray) -> np.ndarray:
    """``c + a x b`` of ``c [16, 32]``, ``a [16, 128]`` and ``b [16, 192]``, of bytes or bfloat16 as they lie."""
    config, told = config_of(*shape), np.zeros(64, np.uint8)
    c, a, b = (part.copy() for part in parts)
    strides = np.array([part.strides[0] for part in (c, a, b)], np.int64)
    products.product(kind, *(ctypes.c_void_p(one.ctypes.data) for one in (config, c, a, b, strides, told)))
    np.testing.assert_array_equal(told, config)
    return c


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", range(len(SIGNS)))
def test_products_of_bytes(products: ctypes.CDLL, kind: int, shape: tuple[int, int, int]) -> None:
    rows, outputs, fours = shape
    random = np.random.default_rng(kind)
    a, b = (random.integers(0, 256, (16, size)).astype(np.uint8) for size in (128, 192))
    c = random.integers(-(2**31), 2**31, (16, 32)).astype(np.int32)
    left, right = SIGNS[kind]
    weights = b[:fours, : 4 * outputs].reshape(fours, outputs, 4).swapaxes(1, 2).reshape(4 * fours, outputs)
    dots = a[:rows, : 4 * fours].view(left).astype(np.int64) @ weights.view(right).astype(np.int64)
    wanted = c.astype(np.int64)
    wanted[:rows, :outputs] += dots
    np.testing.assert_array_equal(multiplied(products, kind, shape, c, a, b), wanted.astype(np.int32))


@pytest.mark.parametrize("shape", SHAPES)
def test_products_of_bfloat16(products: ctypes.CDLL, shape: tuple[int, int, int]) -> None:
    """Even inputs are added up, odd ones, and then both, each sum rounded to float32; denormals are zeros."""
    rows, outputs, fours = shape
    random = np.random.default_rng(rows)
    a, b = (random.standard_normal((16, size), np.float32).view(np.uint32) & 0xFFFF0000 for size in (64, 96))
    a[:, 1] = b[0, 0] = 0x00010000  # denormal
    c = random.standard_normal((16, 32)).astype(np.float32)
    c[0, 0] = np.float32(1e-40)
    cut = [(one >> 16).astype(np.uint16) for one in (a, b)]
    made = multiplied(products, BFLOAT16, shape, c, *cut)
    left = np.where(np.abs(a.view(np.float32)) < 1e-38, 0, a.view(np.float32)).astype(np.float64)
    right = np.where(np.abs(b.view(np.float32)) < 1e-38, 0, b.view(np.float32)).astype(np.float64)
    sums = np.zeros((2, rows, outputs), np.float32)
    for k, odd in itertools.product(range(fours), range(2)):
        step = np.outer(left[:rows, 2 * k + odd], right[k, odd : 2 * outputs : 2])
        sums[odd] = (sums[odd] + step).astype(np.float32)
    wanted = c.copy()
    wanted[:rows, :outputs] = np.where(np.abs(c) < 1e-38, 0, c)[:rows, :outputs] + (sums[0] + sums[1])
    np.testing.assert_allclose(made, wanted, rtol=1e-6, atol=1e-6 * np.abs(wanted).max())
    np.testing.assert_array_equal(made[rows:], c[rows:])
    np.testing.assert_array_equal(made[:, outputs:], c[:, outputs:])


def test_what_processors_refuse(processor: CpuProcessor, tmp_path: Path) -> None:
    paths = [str(shared_library(name, tmp_path)) for name in ("tile_products.c", "amx.c")]
    emulates = "amx.emulate_tiles();" if isinstance(processor, Emulated) else f"amx.syscall(*{AMX_REQUEST});"
    code = f"import ctypes; tiles, amx = map(ctypes.CDLL, {paths}); {emulates} tiles.refused()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGILL


OPS = [linear(8, None), linear(4, None, False), linear(4, 32), linear(16)]
NORMED = linear(8, None, True, ("bias", "add", "keep", "layer_norm"))
ROWS = (5, 33, 300)
"""Less than a tile, three tiles, and more than are multiplied together: then panels are kept."""


@pytest.fixture(scope="module")
def kernels(processor: CpuProcessor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tvm")
    return build([*OPS, NORMED], (processor,), tmp_path_factory.mktemp("tiles") / "k.so", "int8")


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_kernels(kernels: Path, op: LinearOp) -> None:
    """Rows that fill no tile, outputs that fill no pair of them, inputs of more than a slab, and threads."""
    for rows, (outputs, chunks), threads in itertools.product(ROWS, ((33, 3), (130, 69)), (1, 3)):
        layer = draw(op, outputs, chunks * 32)
        x = unaligned(np.random.default_rng(rows).standard_normal((rows, chunks * 32)).astype(np.float32))
        made = session(layer.model(), kernels, threads)
        for _ in range(1, threads + 1):  # a layer learns of other threads as it runs
            result = made.run(None, {"x": x})[0]
        if op.is_float or op.group:
            weight = np.abs((layer.centred * layer.scale.astype(np.float64)[..., None]).reshape(layer.codes.shape))
            assert (np.abs(result - layer.exact(x)) <= 1.1 * BOTH * (np.abs(x) @ weight.T)).all()
        else:
            np.testing.assert_array_equal(result, by_rows(layer, x))


@pytest.mark.parametrize("rows", ROWS)
def test_all_of_some_rows(kernels: Path, rows: int) -> None:
    """A thread rounds them, multiplies them with all outputs, and norms what it made."""
    layer = draw(NORMED, 130, 96)
    random = np.random.default_rng(rows)
    x, added = (random.standard_normal((rows, size)).astype(np.float32) for size in (96, 130))
    wanted = layer.after(by_rows(layer, x), {"added": added})
    for threads in (1, 3):
        made = session(layer.model(), kernels, threads)
        for _ in range(threads):
            for result, array in zip(made.run(None, {"x": x, "added": added}), wanted.arrays, strict=True):
                assert np.abs(result - array).max() < STEPS * wanted.reach
