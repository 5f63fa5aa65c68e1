"""Which neighbouring branches could share weights: by what outputs lose, and by how far gradients agree.

    python -m benchmarks.sparse.sharing MODEL --data FILE.npz [--judge FILE.npz] [--most 4] [--samples 8] [--gradients]

FILE.npz holds samples by the names of the model's inputs; some of them rank pairs. A row a pair tells what the outputs
lose if it alone shares (noise over signal), and the bytes of float32 that fall. Behind it the order in which pairs
would share, each measured beside those before it, with what is lost by then; with ``--judge``, a file of ``input_ids
[windows, tokens]``, the perplexity too. With ``--gradients`` a last table has their cosine at the places of each pair.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.processes.timing import machine
from benchmarks.sparse.rivals import perplexity
from qcc.compiler.allocate.removals import in_turn
from qcc.compiler.calibrate.samples import load
from qcc.compiler.depth.pairs import Pair, Pairs, roots
from qcc.compiler.files.open_model import open_model
from qcc.compiler.measure.tally import NOISE
from qcc.ir.graph.graph import Graph
from qcc.passes.contract.contract import Context
from qcc.passes.structure.share import Share, alike

FLOAT_BYTES = 4


def shared(graph: Graph, pairs: list[Pair]) -> Graph:
    """The graph in which some pairs share, each group by itself."""
    groups: dict[str, list[str]] = {}
    for taker, giver in roots(pairs):
        groups.setdefault(giver.name, [*giver.weights]).extend(taker.weights)
    for names in groups.values():
        graph, _ = Share().apply(graph, names, Context())
    return graph


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--most", type=int, default=4)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--gradients", action="store_true")
    asked = parser.parse_args()
    print(f"# {machine()}\n# python -m benchmarks.sparse.sharing {' '.join(sys.argv[1:])}")
    graph = open_model(asked.model).graph
    samples = load(asked.data, graph, None, 0).first(asked.samples)
    pairs = Pairs(graph, alike(graph, [weight.name for weight in graph.weights()]), samples, NOISE)
    judge = np.load(asked.judge)["input_ids"] if asked.judge else None
    together = cache(lambda some: pairs.loss(some))
    losses = {one: together((one,)) for one in pairs.all}
    _ranked(pairs, losses)
    _shared(graph, pairs, lambda some: together(tuple(some)), asked.most, judge)
    if asked.gradients:
        _agreeing(pairs, losses)


def _ranked(pairs: Pairs, losses: Mapping[Pair, float]) -> None:
    """What outputs lose by each pair alone."""
    print("| takes | of | outputs lose | bytes |\n| --- | --- | --- | --- |")
    for one in sorted(losses, key=lambda one: losses[one]):
        print(f"| {_names(one)} | {losses[one]:.4g} | {pairs.saved(one) * FLOAT_BYTES:,} |", flush=True)


def _shared(
    graph: Graph, pairs: Pairs, loss: Callable[[Sequence[Pair]], float], most: int, judge: np.ndarray | None
) -> None:
    """What they lose by pairs together, the cheapest for its bytes first."""
    whole = f"{perplexity(graph, judge):.2f}" if judge is not None else "-"
    print("\n| share | outputs lose | bytes less | perplexity |\n| --- | --- | --- | --- |")
    print(f"| none | 0 | 0 | {whole} |", flush=True)
    made: list[Pair] = []
    sizes = [pairs.saved(one) for one in pairs.all]
    for pair, found in in_turn(pairs.all, sizes, most, loss, lambda *_: None):
        made.append(pair)
        told = f"{perplexity(shared(graph, made), judge):.2f}" if judge is not None else "-"
        less = FLOAT_BYTES * sum(pairs.saved(one) for one in made)
        print(f"| {len(made)}: `{pair.taker.weights[0]}` | {found:.4g} | {less:,} | {told} |", flush=True)


def _agreeing(pairs: Pairs, losses: Mapping[Pair, float]) -> None:
    """How far gradients at both places agree, pair by pair, and how alike both orders are."""
    print("\n| takes | of | outputs lose | gradients agree |\n| --- | --- | --- | --- |")
    found = {}
    for one in sorted(losses, key=lambda one: losses[one]):
        found[one] = pairs.agreement(one)
        print(f"| {_names(one)} | {losses[one]:.4g} | {found[one]:.3f} |", flush=True)
    by_loss, by_gradient = np.argsort([*losses.values()]), np.argsort([-found[one] for one in losses])
    alike_by = np.corrcoef(np.argsort(by_loss), np.argsort(by_gradient))[0, 1]
    print(f"\nSpearman of both ranks: {alike_by:.2f}")


def _names(one: Pair) -> str:
    return f"`{one.taker.weights[0]}` | `{one.giver.weights[0]}`"


if __name__ == "__main__":
    main()
