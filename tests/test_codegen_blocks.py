"""Blocks that are stored alone are multiplied as the dense matrix is, by kernels and by the op's own body."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import CpuProcessor, native
from qcc.codegen.cpu.product import product_of
from qcc.codegen.cpu.templates import templates
from qcc.ir.encoding.blocked import FLOAT32
from qcc.ir.kernel.op import LinearOp, OpError, Tile, parse
from tests.block_models import drawn, model, wanted
from tests.codegen_models import session, tried

pytest.importorskip("tvm")

FLOAT = 1e-6  # of the largest sum of magnitudes: float32 sums of a few hundred products
HALF = 2**-7  # the same where both factors are rounded to bfloat16, each by 1/512 at most; half to spare
TILES: tuple[Tile, ...] = ((16, 16), (32, 32), (1, 16), (4, 1), (8, 3), (24, 2), (48, 5), (2, 12), (3, 4), (128, 1))
OPS = [LinearOp(FLOAT32, ("bias",) * (at % 2), tile=tile) for at, tile in enumerate(TILES)]
OPS += [
    parse(f"linear_blocks{name}")
    for name in (
        "16x16_fp32_bias_gelu",
        "16x16_fp32_bias_add_keep_layer_norm",
        "16x16_int8_channel",
        "32x32_int8_group32_bias_gelu",
        "16x48_int4_group96_asym_bias",
        "48x16_int3_group16",
        "64x32_int7_channel_asym",
        "32x32_int8_channel_asym",
        "16x16_int4_group8_bias",
        "4x8_int4_channel",
        "8x4_nf4_group32",
        "16x16_fp4_group32_e8m0",
        "16x16_bf16_bias",
        "16x16_int8_channel_static_bias",
        "32x32_int4_group32_static",
        "48x16_int7_channel_asym_static",
    )
]
Built = Callable[[str], Path]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("blocks")

    def make(target: str) -> Path:
        path = folder / f"{target}.so"
        return path if path.exists() else build(OPS, (tried(target),), path, "int8")

    return make


def check(op: LinearOp, rows: int, seed: int, library: Path | None, target: CpuProcessor, threads: int = 1) -> None:
    layer = drawn(op, 1 + seed % 5, 1 + seed * 7 % 9, 0.4, seed)
    outputs, inputs = layer.dense.shape
    random = np.random.default_rng(seed)
    feeds = {"x": random.standard_normal((rows, inputs)).astype(np.float32)}
    if "added" in op.inputs:
        feeds["added"] = random.standard_normal((rows, outputs)).astype(np.float32)
    found = session(model(op, layer.stored), library, threads).run(None, feeds)
    made = templates(product_of(op), target, "int8") if library is not None else ()
    facts = made[0].facts(product_of(op)) if made else {}
    chunk = 0 if op.static or not facts.get("rounds") else inputs if facts.get("stepped") else facts["chunks"]
    largest = max(1.0, float((np.abs(feeds["x"]) @ np.abs(layer.dense).T).max(initial=0)))
    reach = 10 if "layer_norm" in op.steps else 1  # what a norm multiplies with
    assert found[0].shape == (rows, outputs)
    close = HALF if "many" in facts else FLOAT
    assert np.abs(found[0] - wanted(layer, feeds, chunk)).max() < close * largest * reach, (op.name, rows)


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("target", ["native", "sapphire-rapids", "avx2", "generic"])
def test_a_kernel_multiplies_as_the_dense_matrix(built: Built, op: LinearOp, target: str) -> None:
    processor = tried(target)
    for seed, rows in enumerate((1, 3, 4, 7, 18, 22, 131, 259)):
        check(op, rows, seed, built(target), processor, 1 + seed % 2)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_the_body_does_too(op: LinearOp) -> None:
    check(op, 5, 3, None, native())


def test_names_read_back() -> None:
    for op in OPS:
        assert parse(op.name) == op


@pytest.mark.parametrize(
    "name",
    [
        "linear_blocks3x3_fp32",
        "linear_blocks0x16_fp32",
        "linear_blocks16x16_fp32_static",
        "conv1x1_blocks16x16_fp32",
        "linear_fp32",
        "linear_blocks16x16_int4_group48",
        "linear_blocks16x16_int8_group48_static",
        "linear_blocks4x8_nf4_group32_static",
        "linear_blocks16x16_fp16",
    ],
)
def test_names_reject(name: str) -> None:
    with pytest.raises(OpError):
        parse(name)


@pytest.mark.slow
def test_tiles_reject(built: Built) -> None:
    """Numbers of tiles that are not there, and tiles of another size, make no session."""
    op = OPS[0]
    stored = drawn(op, 3, 4, 0.5, 1).stored
    for bad in (
        {"number": stored["number"] + np.array(len(stored["values"]), stored["number"].dtype)},
        {"number": stored["number"].astype(np.int32) - 1},
        {"number": stored["number"].astype(np.int64)},
        {"values": stored["values"][:, :-1]},
    ):
        with pytest.raises(Exception, match="qcc: "):
            session(model(op, {**stored, **bad}), built("native"))
