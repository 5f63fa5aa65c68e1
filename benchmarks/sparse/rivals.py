"""Perplexity of a language model whose layers lose half of their weights, as Wanda and SparseGPT do it and as we do.

    python -m benchmarks.sparse.rivals MODEL --data FILE.npz --judge FILE.npz [--ways WAY ...] [--patterns PATTERN ...]
    python -m benchmarks.sparse.rivals MODEL --data FILE.npz --every 5    errors at layers in the place of perplexity

Both files hold ``input_ids [windows, tokens]``; all ways learn from the first, windows of the second are scored. Layers
are linear ones that multiply with a weight of their own. All ways go through the model in order, so that each layer
sees what the layers before it have become. Wanda and SparseGPT are written anew after their papers. Wanda (Sun et al.
2023, arXiv:2306.11695) leaves what stays as it is. SparseGPT (Frantar and Alistarh 2023, arXiv:2301.00774, algorithm 1)
goes from column to column, chooses for 128 of them at a time, and for `of` for each run, and lets the columns still to
come make up for what went. For blocks, which neither paper has, costs are added up over each block. At layers, which
read what the float model has there, the error over what a layer makes is that on a quarter of the samples, held out.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmarks.encodings import format_of
from benchmarks.layers import observed, seen_part
from benchmarks.perplexity.nats import nats, perplexity_of
from benchmarks.processes.timing import machine
from qcc.compiler.calibrate.samples import Samples, load
from qcc.compiler.measure.march.in_order import choose_in_order
from qcc.compiler.observe.statistics import layer_statistics
from qcc.compiler.plan.plan import Plan, Step
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import FLOAT32
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.forms.find import forms
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Weight
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.contract.contract import Context, Rounding
from qcc.passes.encode import Encode
from qcc.passes.rounding.gptq import output_error
from qcc.passes.rounding.nearest import Nearest
from qcc.passes.rounding.qronos import Qronos

PATTERNS = {"of(2, 4)": (1, 1), "blocks(16x16, keep = 50%)": (16, 16)}
RIVALS = ("magnitude", "wanda", "sparsegpt")
DAMPING = 0.01  # of the mean of the diagonal, as SparseGPT has it
TOGETHER = 128  # columns for which SparseGPT chooses at once


@dataclass(frozen=True)
class Rival(Rounding):
    """Half of the weights go as a paper says."""

    way: str
    tile: tuple[int, int]
    uses_gram: ClassVar[bool] = True

    def goes_in_order(self) -> bool:
        """It does."""
        return True

    def encode(self, weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context) -> Encoded:
        """What is left, with zeros."""
        gram = context.grams[weight.name].astype(np.float64)
        if self.way == "sparsegpt":
            left = swept(matrix.astype(np.float64), gram, self.tile)
        else:
            power = np.diag(gram) if self.way == "wanda" else np.ones(len(gram))
            left = np.where(staying(np.square(matrix, dtype=np.float64) * power, self.tile), matrix, 0)
        return Encoded(FLOAT32, (matrix.shape[0], matrix.shape[1]), {"values": left.astype(np.float32)})


def staying(cost: np.ndarray, tile: tuple[int, int]) -> np.ndarray:
    """Half of the tiles, those that cost most of all; of single weights, two of every four in a row."""
    rows, columns = cost.shape
    if tile == (1, 1):
        order = np.argsort(-cost.reshape(rows, -1, 4), axis=2, kind="stable")
        stays = np.zeros(order.shape, bool)
        np.put_along_axis(stays, order[:, :, :2], True, 2)
        return stays.reshape(rows, columns)
    sums = cost.reshape(rows // tile[0], tile[0], columns // tile[1], tile[1]).sum((1, 3))
    stays = np.zeros(sums.size, bool)
    stays[np.argsort(-sums, axis=None, kind="stable")[: sums.size // 2]] = True
    return np.kron(stays.reshape(sums.shape), np.ones(tile, bool))


def swept(matrix: np.ndarray, gram: np.ndarray, tile: tuple[int, int]) -> np.ndarray:
    """SparseGPT's algorithm 1."""
    damped = gram + DAMPING * np.diag(gram).mean() * np.eye(len(gram))
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    spread, left = np.square(np.diag(upper)), matrix.copy()
    step = 4 if tile == (1, 1) else TOGETHER
    stays = np.zeros(matrix.shape, bool)
    for at in range(matrix.shape[1]):
        if at % step == 0:
            part = slice(at, at + step)
            stays[:, part] = staying(np.square(left[:, part]) / spread[part], tile)
        error = np.where(stays[:, at], 0, left[:, at]) / upper[at, at]
        left[:, at:] -= np.outer(error, upper[at, at:])
        left[~stays[:, at], at] = 0
    return left


def pruned(
    graph: OnnxGraph, weights: Sequence[Weight], action: Encode, samples: Samples, context: Context
) -> OnnxGraph:
    """A copy whose weights have lost what goes."""
    plan = Plan((Step(action, tuple(one.name for one in weights), ("",) * len(weights)),))
    chosen = choose_in_order(graph, plan, samples, context)
    copy = graph.copy()
    for weight in weights:
        copy.replace_matrix(weight, chosen[weight.name][0].decode())
    return copy


def action_of(pattern: str, way: str) -> Encode:
    """What is done to each weight: a paper's way, or ours with more arguments."""
    if way in RIVALS:
        return Encode(FLOAT32, Rival(way, PATTERNS[pattern]), forms()["decoded"])
    return Encode(format_of(pattern[:-1] + (f", {way})" if way else ")")), Qronos(), forms()["decoded"])


def perplexity(graph: Graph, windows: np.ndarray) -> float:
    """Of all tokens but the first of each window."""
    run = graph.runner([value.name for value in graph.inputs], [graph.outputs[0].name])
    losses = []
    for window in windows:
        losses.append(nats(run({"input_ids": window[None]})[graph.outputs[0].name][0, :-1], window[1:]))
    return perplexity_of(losses)


def at_layers(graph: OnnxGraph, samples: Samples, every: int, patterns: Sequence[str], ways: Sequence[str]) -> None:
    """Print the errors at every Nth layer, their geometric mean."""
    weights, moments = observed(graph, samples, every)
    print(f"{len(weights)} layers\n\n| pattern | way | error held out |\n| --- | --- | --- |", flush=True)
    for pattern, way in product(patterns, ways):
        action, logs = action_of(pattern, way), []
        for weight in weights:
            learned, matrix = moments[weight.name], np.asarray(graph.matrix(weight), np.float32)
            context = Context(grams={weight.name: learned.seen}, moments={weight.name: seen_part(learned)})
            rounding = action.rounding if way in RIVALS else Nearest()
            stored = rounding.encode(weight, matrix, action.encoding, context)
            held = learned.held
            logs.append(np.log(output_error(matrix, stored, held) / float(np.vdot(matrix @ held, matrix))))
        print(f"| `{pattern}` | {way or 'ours'} | {np.exp(np.mean(logs)):.4f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--every", type=int, default=0)
    parser.add_argument("--patterns", nargs="*", default=list(PATTERNS), choices=list(PATTERNS))
    parser.add_argument("--ways", nargs="*", default=[*RIVALS, "", "by = obs", "effort = 8"])
    asked = parser.parse_args()
    print(f"# {machine()}\n# python -m benchmarks.sparse.rivals {' '.join(sys.argv[1:])}")
    graph = OnnxGraph.load(asked.model)
    samples = load(asked.data, graph, None, 0)
    if asked.every:
        at_layers(graph, samples, asked.every, asked.patterns, asked.ways)
        return
    windows = np.load(asked.judge)["input_ids"]
    weights = [one for one in graph.weights() if one.kinds == {Kind.LINEAR}]
    moments = layer_statistics(graph, samples, lambda *_: None, moments=[one.name for one in weights]).moments
    context = Context(grams={name: one.gram for name, one in moments.items()}, moments=moments)
    print(f"whole: {perplexity(graph, windows):.2f}\n\n| pattern | way | perplexity |\n| --- | --- | --- |", flush=True)
    for pattern in asked.patterns:
        for way in asked.ways:
            left = pruned(graph, weights, action_of(pattern, way), samples, context)
            print(f"| `{pattern}` | {way or 'ours'} | {perplexity(left, windows):.2f} |", flush=True)


if __name__ == "__main__":
    main()
