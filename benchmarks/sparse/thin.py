"""What products of thin matrices take in place of a layer, as ONNX Runtime multiplies them and as our kernels do.

    python -m benchmarks.sparse.thin [--shapes 384x1536 1536x384] [--rows 32 512] [--share 50]

Two products of so many of the dense layer's multiplications at most, a rank in multiples of 32: `low_rank` as two dense
layers, `block_dense(4)` as a dense one and four blocks behind it, `monarch(4)` as four blocks, a shuffle and four
blocks. ONNX Runtime multiplies blocks as a batch of float32, with what it takes to lay them out. Our kernels of int8
take dense layers, and blocks as tiles of 32x32 that are stored alone. One thread, in turns, medians of the thread's own
time, over the dense layer's of the same arithmetic.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from benchmarks.kernels.__main__ import WARM, measure, model, session, weights
from benchmarks.processes.timing import machine
from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import native
from qcc.ir.encoding.algebra import inside
from qcc.ir.kernel.op import NUMBER, parse

BLOCKS, STEP = 4, 32
DENSE, TILED = parse("linear_int8_channel"), parse("linear_blocks32x32_int8_channel")
Made = tuple[list[NodeProto], list[TensorProto]]


def ranks(inputs: int, outputs: int, share: float) -> dict[str, int]:
    """The rank of each product."""
    most = share * inputs * outputs
    costs = {
        "low_rank": inputs + outputs,
        "block_dense(4)": BLOCKS * inputs + outputs,
        "monarch(4)": BLOCKS * (inputs + outputs),
    }
    return {name: max(int(most / cost) // STEP, 1) * STEP for name, cost in costs.items()}


class Layers:
    """The nodes of a layer, one product behind the other."""

    def __init__(self, ours: bool) -> None:
        self._ours, self._draw = ours, np.random.default_rng(0)
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, array: np.ndarray) -> str:
        """Its name."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, inputs: list[str], domain: str = "", perm: list[int] | None = None) -> str:
        """What it makes."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], domain=domain, perm=perm))
        return name

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        """A product with a whole matrix."""
        if not self._ours:
            return self.node("MatMul", [x, self._drawn((inputs, outputs))])
        stored = weights(DENSE, inputs, outputs)
        return self.node(DENSE.name, [x, *(self.constant(stored[name]) for name in DENSE.inputs[1:])], "qcc")

    def blocks(self, x: str, inputs: int, outputs: int) -> str:
        """A product with four blocks along the diagonal."""
        if self._ours:
            return self.node(TILED.name, [x, *map(self.constant, self._tiles(inputs, outputs))], "qcc")
        apart = self.node("Reshape", [x, self.constant(np.array([-1, BLOCKS, inputs // BLOCKS]))])
        turned = self.node("Transpose", [apart], perm=[1, 0, 2])
        each = self.node("MatMul", [turned, self._drawn((BLOCKS, inputs // BLOCKS, outputs // BLOCKS))])
        back = self.node("Transpose", [each], perm=[1, 0, 2])
        return self.node("Reshape", [back, self.constant(np.array([-1, outputs]))])

    def shuffle(self, x: str, size: int) -> str:
        """What blocks made, by blocks of the next product."""
        rank = size // BLOCKS**2
        apart = self.node("Reshape", [x, self.constant(np.array([-1, BLOCKS, BLOCKS, rank]))])
        turned = self.node("Transpose", [apart], perm=[0, 2, 1, 3])
        return self.node("Reshape", [turned, self.constant(np.array([-1, size]))])

    def made(self, last: str) -> bytes:
        """The model."""
        return model([*self.nodes, helper.make_node("Identity", [last], ["y"])], self.constants)

    def _drawn(self, shape: tuple[int, ...]) -> str:
        return self.constant(self._draw.standard_normal(shape, np.float32))

    def _tiles(self, inputs: int, outputs: int) -> list[np.ndarray]:
        down, across = outputs // STEP, inputs // STEP
        number = np.zeros((down, across), np.int32)
        for block in range(BLOCKS):
            at = np.ix_(*(np.arange(size // BLOCKS) + block * size // BLOCKS for size in (down, across)))
            number[at] = 1
        kept = number > 0
        number[kept] = np.arange(1, kept.sum() + 1)
        parts = {}
        for name, part in TILED.encoding.parts((int(kept.sum()), STEP * STEP)).items():
            codes = self._draw.integers(0, 256, part.shape)
            parts[name] = (codes if name == "codes" else self._draw.uniform(0.01, 0.02, part.shape)).astype(part.dtype)
        stored = TILED.arrays({**inside(parts, "tiles"), NUMBER: number})
        return [stored[name] for name in TILED.inputs[1:]]


def layer(name: str, inputs: int, outputs: int, rank: int, ours: bool) -> bytes:
    """A model of one."""
    made = Layers(ours)
    if name == "dense":
        return made.made(made.dense("x", inputs, outputs))
    if name == "low_rank":
        return made.made(made.dense(made.dense("x", inputs, rank), rank, outputs))
    between = BLOCKS * rank
    if name == "block_dense(4)":
        return made.made(made.blocks(made.dense("x", inputs, between), between, outputs))
    between *= BLOCKS
    return made.made(made.blocks(made.shuffle(made.blocks("x", inputs, between), between), between, outputs))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=["384x1536", "1536x384"])
    parser.add_argument("--rows", type=int, nargs="*", default=[32, 512])
    parser.add_argument("--share", type=float, default=50)
    asked = parser.parse_args()
    print(f"# {machine()}\n# python -m benchmarks.sparse.thin {' '.join(sys.argv[1:])}")
    print("| layer | product, rank | multiplications | rows | ONNX Runtime, float32 | ours, int8 |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        library = build([DENSE, TILED], (native(),), Path(folder) / "thin.so", "int8")
        for shape in asked.shapes:
            inputs, outputs = map(int, shape.split("x"))
            found = ranks(inputs, outputs, asked.share / 100)
            costs = {"low_rank": (1, 1), "block_dense(4)": (BLOCKS, 1), "monarch(4)": (BLOCKS, BLOCKS)}
            for rows in asked.rows:
                x = np.random.default_rng(1).standard_normal((rows, inputs), np.float32)
                shares = []
                for ours in (False, True):
                    made = {name: layer(name, inputs, outputs, rank, ours) for name, rank in found.items()}
                    made["dense"] = layer("dense", inputs, outputs, 0, ours)
                    sessions = {name: session(one, library if ours else None) for name, one in made.items()}
                    times = measure(sessions, x, outputs, WARM)
                    shares.append({name: times[name] / times["dense"] for name in found})
                for name, rank in found.items():
                    read, write = costs[name]
                    left = rank * (read * inputs + write * outputs) / (inputs * outputs)
                    cells = " | ".join(f"{one[name]:.2f}" for one in shares)
                    print(f"| {inputs} -> {outputs} | {name}, {rank} | {left:.0%} | {rows} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
