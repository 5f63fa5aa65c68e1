"""Measure kernels of blocks that are stored alone against dense products.

    python -m benchmarks.sparse                      print the table
    python -m benchmarks.sparse fp32                 only blocks of what is named
    python -m benchmarks.sparse --rows 1 --size 512  other sizes

A layer of as many inputs as outputs, one thread, sessions taken in turn in one process, medians of the thread's own
time, weights warm. A ratio above one is how many times as long a dense product takes: ONNX Runtime's in float32, and
our own best kernel of what stands in the blocks, where there is one.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product as pairs
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.kernels.__main__ import WARM, measure, model, ours, rival, session
from benchmarks.processes.timing import machine
from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import native
from qcc.ir.kernel.op import NUMBER, TILES, LinearOp, Tile, parse

DENSITIES = (0.5, 0.25, 0.1)
ROWS = (1, 16, 128, 512)


@dataclass(frozen=True)
class Kind:
    """What stands in blocks.

    Args:
        stored: as names of ops spell it.
        tiles: that are tried.
        dense: our own dense op of the same; empty where there is none.
    """

    stored: str
    tiles: tuple[Tile, ...]
    dense: str = ""

    def op(self, tile: Tile) -> LinearOp:
        """The op of such tiles."""
        return parse(f"linear_blocks{tile[0]}x{tile[1]}_{self.stored}")


KINDS = (
    Kind("fp32", ((16, 16), (32, 32), (1, 16), (4, 1))),
    Kind("bf16", ((16, 16), (32, 32)), "linear_bf16"),
    Kind("int8_channel", ((16, 16), (32, 32)), "linear_int8_channel"),
    Kind("int4_group32", ((16, 16), (32, 32)), "linear_int4_group32"),
)


def sparse(op: LinearOp, size: int, density: float) -> bytes:
    """A model of one op, whose tiles stay at random."""
    assert op.tile is not None
    draw = np.random.default_rng(0)
    down, across = size // op.tile[0], size // op.tile[1]
    count = max(1, round(down * across * density))
    number = np.zeros(down * across, np.int32)
    number[draw.permutation(down * across)[:count]] = np.arange(1, count + 1)
    parts: dict[str, np.ndarray] = {NUMBER: number.reshape(down, across)}
    for name, part in op.encoding.parts((count, op.tile[0] * op.tile[1])).items():
        if part.bits == 16:
            halves = draw.standard_normal(part.shape, np.float32).view(np.uint32) >> 16
            parts[f"{TILES}{name}"] = halves.astype(part.dtype)
            continue
        codes = draw.integers(0, 1 << min(part.bits, 8), part.shape)
        values = codes if name == "codes" else draw.uniform(0.01, 0.02, part.shape)
        parts[f"{TILES}{name}"] = values.astype(part.dtype)
    stored = op.arrays(parts)
    constants = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    for one in constants[: op.is_float]:
        one.data_type = TensorProto.BFLOAT16  # numpy has no such type
    return model([helper.make_node(op.name, op.inputs, ["y"], domain="qcc")], constants)


def lines(kind: Kind, library: Path, size: int, counts: list[int]) -> Iterator[str]:
    """The rows of a kind."""
    for tile, rows in pairs(kind.tiles, counts):
        sessions = {"float32": session(rival("float32", size, size))}
        if kind.dense:
            sessions["ours"] = session(ours(parse(kind.dense), size, size), library)
        for density in DENSITIES:
            sessions[f"{density:.0%}"] = session(sparse(kind.op(tile), size, density), library)
        x = np.random.default_rng(1).standard_normal((rows, size), np.float32)
        times = measure(sessions, x, size, WARM)
        for density in DENSITIES:
            took = times[f"{density:.0%}"]
            own = f"{times['ours'] / took:.2f}" if kind.dense else "-"
            cells = f"{took * 1e6:,.0f} | {times['float32'] / took:.2f} | {own} | {1 / density:.0f}"
            yield f"| {kind.stored} | {tile[0]}x{tile[1]} | {rows} | {density:.0%} | {cells} |"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", help=", ".join(kind.stored for kind in KINDS))
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    asked = parser.parse_args()
    kinds = [kind for kind in KINDS if not asked.kinds or kind.stored in asked.kinds]
    print(f"{machine()}\n", flush=True)
    print("| stored | block | rows | density | us | dense in float32 | our dense kernel | 1 / density |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        ops = [kind.op(tile) for kind in kinds for tile in kind.tiles]
        ops += [parse(kind.dense) for kind in kinds if kind.dense]
        library = build(ops, (native(),), Path(folder) / "sparse.so", "int8")
        for kind in kinds:
            for line in lines(kind, library, asked.size, asked.rows):
                print(line, flush=True)


if __name__ == "__main__":
    main()
