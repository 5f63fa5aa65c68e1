"""The time of one token behind a context: the model as it came, with its caches kept in codes, and written files.

    python -m benchmarks.caches.decode MODEL.onnx CALIBRATION.npz FOLDER [FILE.onnx ...] [--rule "keys = ..."]
        [--contexts 256,2048] [--rounds 15]

One thread, in turn, the processor time of that thread alone, medians and ratios to the model as it came. Caches hold
drawn numbers. Each rule is written to FOLDER, with kernels where its form has some; FILEs are compiled models, run
with the kernels beside them. The share of the cache is what a step takes beyond one with a cache of one row; it is
foretold for other contexts by a line through the times behind 128 rows and behind 1,024, whose beginning is above the
time behind one: reading caches costs something as soon as there are such, whatever they hold.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.caches.__main__ import data_of, stored
from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import native
from qcc.compiler.measure.timing import Turns, interleaved
from qcc.compiler.runtime.session import Session
from qcc.ir.attention.find import cache_pairs
from qcc.ir.graph.ops import Array
from qcc.ir.onnx.adapter import OnnxGraph

LINE = 128, 1024  # the contexts whose times foretell others


def step_feeds(graph: OnnxGraph, context: int) -> dict[str, Array]:
    """One token behind so many rows."""
    rng = np.random.default_rng(0)
    found: dict[str, Array] = {"input_ids": np.array([[7]]), "position_ids": np.array([[context]])}
    found["attention_mask"] = np.ones((1, context + 1), np.int64)
    for name in cache_pairs(graph):
        shape = graph.value(name).shape
        assert shape is not None
        heads, width = int(str(shape[1])), int(str(shape[3]))
        found[name] = rng.standard_normal((1, heads, context, width)).astype(np.float32)
    return found


def main() -> None:
    """Time, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "calibration", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--rule", action="append", default=[])
    parser.add_argument("--contexts", default="256,2048")
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    graph = OnnxGraph.load(asked.model)
    graph.simplify()
    data = data_of(graph, np.load(asked.calibration)["input_ids"][:4])
    paths = [asked.model]
    for at, rule in enumerate(asked.rule):
        path = asked.folder / f"rule{at}.onnx"
        if not path.exists():
            made = stored(graph, rule, data, {})
            if ops := made.chain(lambda _: True):
                build(ops, (native(),), path.with_suffix(".kernels.so"))
            made.save(path)
        paths.append(path)
    paths += asked.files
    sessions = [Session(path, None, 1) for path in paths]
    names = ["float", *asked.rule, *(path.name for path in asked.files)]
    known: dict[int, list[float]] = {}
    for context in (1, *LINE, *map(int, asked.contexts.split(","))):
        feeds = step_feeds(graph, context)
        runs = [partial(one.run, one.coded(feeds)) for one in sessions]
        seconds = interleaved(runs, Turns(asked.rounds, 0.002, warm=True, own=True))
        known[context] = list(np.median(seconds, -1))
        ratios = np.median(seconds / seconds[:1], -1)
        for at, (name, ratio) in enumerate(zip(names, ratios, strict=True)):
            base, median = known[1][at], known[context][at]
            told = f"{context:6} {name}: {median * 1e3:.2f} ms, {ratio:.3f}x, cache {1 - base / median:.1%} of it"
            if context > 1 and context not in LINE:
                few, many = (known[length][at] for length in LINE)
                slope = (many - few) / (LINE[1] - LINE[0])
                told += f", foretold {1 - base / (few + slope * (context - LINE[0])):.1%}"
            print(told, flush=True)


if __name__ == "__main__":
    main()
