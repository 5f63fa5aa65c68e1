"""Which neighbouring branches could share weights: by what outputs lose, and by how far gradients agree.

    python -m benchmarks.sparse.sharing MODEL --data FILE.npz [--judge FILE.npz] [--most 4] [--samples 8] [--gradients]

FILE.npz holds samples by the names of the model's inputs; some of them rank pairs. A row a pair tells what the outputs
lose if it alone shares (noise over signal), the bytes of float32 that fall, and the cosine of the gradients at both
places. Behind it the order in which pairs would share, each measured beside those before it, with what is lost by
then; with ``--judge``, a file of ``input_ids [windows, tokens]``, the perplexity too.
"""

import argparse
import sys
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
    agreements = pairs.agreements(lambda *_: None) if asked.gradients else {}
    losses = [pairs.loss([one]) for one in pairs.all]
    print("| takes | of | outputs lose | bytes | gradients agree |\n| --- | --- | --- | --- | --- |")
    for one, loss in sorted(zip(pairs.all, losses, strict=True), key=lambda found: found[1]):
        agrees = f"{agreements[one]:.3f}" if one in agreements else "-"
        names = f"`{one.taker.weights[0]}` | `{one.giver.weights[0]}`"
        print(f"| {names} | {loss:.4g} | {pairs.saved(one) * FLOAT_BYTES:,} | {agrees} |", flush=True)
    if agreements:
        away = [-agreements[one] for one in pairs.all]
        by_loss, by_gradient = (np.argsort(np.argsort(one)) for one in (losses, away))
        print(f"\nSpearman of both ranks: {np.corrcoef(by_loss, by_gradient)[0, 1]:.2f}")
    judge = np.load(asked.judge)["input_ids"] if asked.judge else None
    whole = f"{perplexity(graph, judge):.2f}" if judge is not None else "-"
    print("\n| share | outputs lose | bytes less | perplexity |\n| --- | --- | --- | --- |")
    print(f"| none | 0 | 0 | {whole} |", flush=True)
    made: list[Pair] = []
    sizes = [pairs.saved(one) for one in pairs.all]
    for pair, loss in in_turn(pairs.all, sizes, asked.most, pairs.loss, lambda *_: None):
        made.append(pair)
        told = f"{perplexity(shared(graph, made), judge):.2f}" if judge is not None else "-"
        less = FLOAT_BYTES * sum(pairs.saved(one) for one in made)
        print(f"| {len(made)}: `{pair.taker.weights[0]}` | {loss:.4g} | {less:,} | {told} |", flush=True)


if __name__ == "__main__":
    main()
