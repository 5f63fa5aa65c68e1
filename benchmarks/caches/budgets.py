"""Perplexity of a language model whose caches hold a share of the tokens, one budget for all or divided by losses.

    python -m benchmarks.caches.budgets MODEL.onnx WINDOWS.npz CALIBRATION.npz --budget 128 [--count 12] [--run 32]

Both archives hold ``input_ids [windows, tokens]``; masks are ones, positions count, caches begin empty. Half of a
window comes at once, the rest in runs of ``--run`` tokens, with caches cut after each; the loss is of the tokens of the
second half. Budgets are divided by the calibration windows. ``last rows`` keeps the first four and the last alone.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.caches.__main__ import data_of, runner_of
from benchmarks.perplexity.nats import nats
from qcc.compiler.allocate.divide_rows import RowLosses
from qcc.compiler.build.rewrite import sample_of
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.sequence.drive import TokenDriver
from qcc.compiler.sequence.states import TokenModel, token_model
from qcc.ir.attention.find import cache_sets
from qcc.ir.graph.graph import Runner
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.cache.cache import Cache
from qcc.passes.contract.contract import Context


def losses(runner: Runner, model: TokenModel, batches: Samples, run: int) -> list[float]:
    """The cross entropy of the second half of each window."""
    found = []
    for feeds in batches.parts(1):
        half, count = model.count(feeds) // 2, model.count(feeds)
        logits = TokenDriver(model, runner).in_runs(feeds, [half, *range(half + run, count, run), count])
        found.append(float(nats(logits[0, half - 1 : -1], feeds[model.tokens][0, half:]).mean()))
    return found


def bounded(graph: OnnxGraph, rows: Sequence[int], action: Cache, context: Context) -> OnnxGraph:
    """A graph whose caches hold so many rows each."""
    current = graph
    names = np.array(list(cache_sets(graph)))
    for count in sorted(set(rows)):
        these = names[np.array(rows) == count]
        current, edits = replace(action, budget=count, share="even").apply(current, list(these), context)
        for edit in edits:
            if edit.refused:
                print(f"  {edit.subject}: {edit.text}")
    return current


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "windows", "calibration"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--budget", type=int, default=128)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--run", type=int, default=32)
    asked = parser.parse_args()
    graph = OnnxGraph.load(asked.model)
    graph.simplify()
    judged = data_of(graph, np.load(asked.windows)["input_ids"][: asked.count])
    data = data_of(graph, np.load(asked.calibration)["input_ids"])
    plain = runner_of(graph)
    model = token_model(graph, plain, next(judged.parts(1)))
    assert model is not None
    base = np.mean(losses(plain, model, judged, asked.run))
    print(f"all rows: perplexity {np.exp(base):.4f}", flush=True)
    raised = graph.copy()
    raised.require_opset(23)
    names = list(cache_sets(graph))
    context = Context(sample=sample_of(raised, data))
    action = Cache(budget=asked.budget, window=16, sinks=4)
    even = [asked.budget] * len(names)
    for title, rows, how in (
        ("one for all", even, action),
        ("last rows", even, replace(action, window=asked.budget - 4)),
    ):
        loss = np.mean(losses(runner_of(bounded(raised, rows, how, context)), model, judged, asked.run))
        print(f"{asked.budget} rows, {title}: perplexity {np.exp(loss):.4f}, {np.expm1(loss - base):+.3%}", flush=True)
    measured = RowLosses.of(raised, graph, action, names, data)
    rows = measured.chosen(lambda at, count, name: print(f"  measured {at} of {count}, {name}", flush=True))
    print(f"  divided: {rows}", flush=True)
    loss = np.mean(losses(runner_of(bounded(raised, rows, action, context)), model, judged, asked.run))
    print(f"{np.mean(rows):.1f} rows, divided: perplexity {np.exp(loss):.4f}, {np.expm1(loss - base):+.3%}", flush=True)


if __name__ == "__main__":
    main()
