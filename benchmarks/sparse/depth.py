"""Perplexity of a language model without some of its blocks, chosen one after the other, with and without a cure.

    python -m benchmarks.sparse.depth MODEL --data FILE.npz --judge FILE.npz [--count 3] [--also 14,15,16]

Both files hold ``input_ids [windows, tokens]``: blocks are chosen and cures fitted on the first, windows of the second
are scored. A block is all branches whose layers a pattern with its number names. Of each number of blocks a row tells
which went: those without which the outputs are off least, measured anew after each, and those whose outputs are most
like what they read, by the cosine, as others choose (ShortGPT, Men et al. 2024, arXiv:2403.03853).
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import count as numbers
from pathlib import Path

import numpy as np

from benchmarks.processes.timing import machine
from benchmarks.sparse.rivals import perplexity
from qcc.compiler.allocate.removals import Gates
from qcc.compiler.build.rewrite import watching
from qcc.compiler.calibrate.parts import held_out
from qcc.compiler.calibrate.samples import Samples, load
from qcc.compiler.files.open_model import open_model
from qcc.compiler.measure.tally import NOISE
from qcc.dsl.policy.select import matches_glob
from qcc.ir.graph.graph import Graph
from qcc.ir.regions.residual import ResidualBranch, residual_branches
from qcc.passes.contract.contract import Context
from qcc.passes.structure.leave_out import LeaveOut

Block = tuple[ResidualBranch, ...]
SAMPLES = 4  # windows that rank blocks


def blocks_of(graph: Graph, pattern: str) -> list[Block]:
    """The branches of each number, from nought on."""
    names = {weight.name: [layer.name for layer in weight.layers] for weight in graph.weights()}
    found: list[Block] = []
    every = residual_branches(graph)
    branches = [one for one in every if not any(one.ops < other.ops for other in every)]
    for number in numbers():
        glob = pattern.format(number)
        block = tuple(one for one in branches if all(any(matches_glob(glob, n) for n in names[w]) for w in one.weights))
        if not block:
            return found
        found.append(block)
    raise AssertionError


def by_loss(graph: Graph, blocks: Sequence[Block], most: int, samples: Samples) -> list[int]:
    """Which go, by what the outputs lose without them and those before."""
    gates = Gates(graph, [one for block in blocks for one in block], samples, NOISE)
    gone: list[int] = []
    for _ in range(most):
        before = [one for at in gone for one in blocks[at]]
        losses = {at: gates.loss([*before, *block]) for at, block in enumerate(blocks) if at not in gone}
        gone.append(min(losses, key=lambda at: losses[at]))
    return gone


def by_cosine(graph: Graph, blocks: Sequence[Block], most: int, samples: Samples) -> list[int]:
    """Which go, by how much what they read and make are alike."""
    names = [name for block in blocks for name in (block[0].stream, block[-1].sum)]
    run = graph.runner([value.name for value in graph.inputs], list(dict.fromkeys(names)))
    alike = np.zeros(len(blocks))
    for batch in samples.parts(1):
        values = run(batch)
        for at, block in enumerate(blocks):
            x, y = (values[name].astype(np.float64) for name in (block[0].stream, block[-1].sum))
            alike[at] += np.mean((x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1))
    return list(map(int, np.argsort(-alike, kind="stable")[:most]))


def by_cure(graph: Graph, blocks: Sequence[Block], most: int, samples: Samples) -> Iterator[tuple[float, list[int]]]:
    """Each run of so many neighbours, with the perplexity on windows held out once it is cured by a map."""
    windows = np.concatenate([one["input_ids"] for one in (held_out(samples) or samples).parts(1)])
    for start in range(len(blocks) - most + 1):
        gone = list(range(start, start + most))
        names = [name for at in gone for one in blocks[at] for name in one.weights]
        left, _ = LeaveOut(cure="linear").apply(graph, names, Context(watch=watching(samples)))
        yield perplexity(left, windows), gone


def _rows(
    graph: Graph, blocks: Sequence[Block], most: int, also: Sequence[str], few: Samples
) -> Iterator[tuple[str, list[int]]]:
    """Who chose, and which blocks go; those that take no choosing first."""
    yield from (("hand", list(map(int, one.split(",")))) for one in also)
    if most:
        chosen = {"cosine": by_cosine(graph, blocks, most, few), "loss": by_loss(graph, blocks, most, few)}
        yield from ((by, gone[:count]) for count in range(most, 0, -1) for by, gone in chosen.items())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--pattern", default="*layers.{}.*")
    parser.add_argument("--also", nargs="*", default=[])
    parser.add_argument("--runs", type=int, default=0, help="samples by which runs of neighbours are ranked, cured")
    parser.add_argument("--behind", nargs="*", type=int, default=[])
    asked = parser.parse_args()
    print(f"# {machine()}\n# python -m benchmarks.sparse.depth {' '.join(sys.argv[1:])}")
    graph = open_model(asked.model).graph
    samples, windows = load(asked.data, graph, None, 0), np.load(asked.judge)["input_ids"]
    few = (held_out(samples) or samples).first(SAMPLES)
    whole, blocks = perplexity(graph, windows), blocks_of(graph, asked.pattern)
    cures = {"not cured": LeaveOut(), "`cure = best`": LeaveOut(cure="best")}
    cures |= {f"`behind = {one}`": LeaveOut(cure="best", behind=one) for one in asked.behind}
    also = [*asked.also]
    if asked.runs:
        print("| perplexity held out, cured | without |\n| --- | --- |")
        ranked = []
        for loss, gone in by_cure(graph, blocks, asked.count, samples.first(asked.runs)):
            ranked.append((loss, gone))
            print(f"| {loss:.2f} | {gone} |", flush=True)
        also.append(",".join(map(str, min(ranked)[1])))
    shown = " | ".join(f"{one} | over whole" for one in cures)
    print(f"whole, {len(blocks)} blocks: {whole:.2f}\n\n| by | without | {shown} |\n|{' --- |' * 2 * (1 + len(cures))}")
    sys.stdout.flush()
    for by, gone in _rows(graph, blocks, 0 if asked.runs else asked.count, also, few):
        names = [name for at in gone for one in blocks[at] for name in one.weights]
        print(f"| {by} | {', '.join(map(str, sorted(gone)))} |", end="", flush=True)
        for cure in cures.values():
            left, edits = cure.apply(graph, names, Context(watch=watching(samples)))
            found = perplexity(left, windows)
            print(f" {found:.2f} | {found / whole:.2f} |", end="", flush=True)
            print(*dict.fromkeys(one.text for one in edits), sep="\n", file=sys.stderr, flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
