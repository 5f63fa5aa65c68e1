"""Whether other cuts of the products are faster than those that kernels have: a search over tilings.

    python -m benchmarks.kernels.tilings [--ops linear_int4_group32 ...] [--shapes 384x1536 ...] [--rows 16 512]
        [--rounds 15]

For each op, shape and number of rows every cut of `Tiling` that this processor's kernels use is tried, one field at a
time around the cuts that follow from its caches: a library each, all in one process, in turns, one thread's own time.
A cell is the median of a library's time over that of the present cuts in the same rounds, with the interval of its sign
test (99 %). The last lines say which cut is best over all cells, and by how much (geometric mean): that is what a
search could gain, and it is an upper bound, since the best of many is also the luckiest.
"""

import argparse
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from benchmarks.kernels.__main__ import ours, session
from benchmarks.processes.arrays import aligned
from benchmarks.processes.timing import machine
from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import AMX, CpuProcessor, native
from qcc.codegen.cpu.processors.tiling import Tiling
from qcc.compiler.measure.timing import Turns, interleaved, paired
from qcc.ir.kernel.op import parse

OPS = ("linear_int8_channel", "linear_int4_group32")
SHAPES = ("384x384", "384x1536", "1536x384", "576x576", "576x1536", "1536x576", "320x1280")
BY_TILES: Mapping[str, tuple[int, ...]] = {
    "depth": (4, 8, 16, 64),
    "block": (8, 32),
    "panel_bytes": (512 << 10, 1536 << 10),
}
BY_ROWS: Mapping[str, tuple[int, ...]] = {
    "vectors": (1, 4),
    "strip_bytes": (16 << 10, 32 << 10, 64 << 10, 256 << 10, 512 << 10),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--ops", nargs="+", default=list(OPS))
    add("--shapes", nargs="+", default=list(SHAPES))
    add("--rows", nargs="+", type=int, default=[16, 64, 512])
    add("--rounds", type=int, default=15)
    given = parser.parse_args()
    here = native()
    tried = cuts(here)
    print(f"# {machine()}, load {os.getloadavg()[0]:.1f}\n# python -m benchmarks.kernels.tilings")
    print(f"# present cuts: {here.tiling}\n\n| op | inputs x outputs | rows | {' | '.join(tried)} |")
    print("|---|---|---|" + "---|" * len(tried), flush=True)
    found: list[list[float]] = []
    with tempfile.TemporaryDirectory() as folder:
        ops = [parse(name) for name in given.ops]
        made = {"": here.tiling} | tried
        libraries = {
            name: build(ops, (replace(here, cuts=cut),), Path(folder) / f"{at}.so", "int8")
            for at, (name, cut) in enumerate(made.items())
        }
        for op in ops:
            for shape in given.shapes:
                for rows in given.rows:
                    seconds = times(ours(op, *sizes(shape)), libraries, rows, sizes(shape), given.rounds)
                    ratios = [paired(one, seconds[0]) for one in seconds[1:]]
                    cells = (f"{one.median:.3f} ({one.low:.2f} to {one.high:.2f})" for one in ratios)
                    print(f"| {op.name} | {shape} | {rows} | {' | '.join(cells)} |", flush=True)
                    found.append([one.median for one in ratios])
    means = np.exp(np.log(found).mean(axis=0))
    for name, mean in sorted(zip(tried, means, strict=True), key=lambda pair: pair[1]):
        print(f"# {name}: {mean:.3f} in the geometric mean")
    best = np.exp(np.log(np.minimum(np.min(found, axis=1), 1)).mean())
    print(f"# the best cut of each cell: {best:.3f}")


def cuts(here: CpuProcessor) -> dict[str, Tiling]:
    """Other cuts by what differs."""
    present = here.tiling
    fields = BY_TILES if here.has(*AMX) else BY_ROWS
    return {
        f"{field} {value}": replace(present, **{field: value})
        for field, values in fields.items()
        for value in values
        if value != asdict(present)[field]
    }


def sizes(shape: str) -> tuple[int, int]:
    """Inputs and outputs."""
    inputs, _, outputs = shape.partition("x")
    return int(inputs), int(outputs)


def times(model: bytes, libraries: Mapping[str, Path], rows: int, shape: tuple[int, int], rounds: int) -> np.ndarray:
    """Seconds ``[libraries, rounds]``."""
    x = aligned(np.random.default_rng(1).standard_normal((rows, shape[0]), np.float32))
    runs = []
    for library in libraries.values():
        one = session(model, library)
        bound = one.io_binding()
        bound.bind_cpu_input("x", x)
        bound.bind_output("y", "cpu")
        runs.append(lambda one=one, bound=bound: one.run_with_iobinding(bound))
    return interleaved(runs, Turns(rounds, 0.002, warm=True, own=True))


if __name__ == "__main__":
    main()
