"""How well noise of the outputs and top-k KL tell the order in which layers cost what a model is for.

    python -m benchmarks.perplexity.ranks MODEL --data FILE.npz --judge FILE.npz [--format FORMAT] [--every 1]

Every Nth linear or convolutional weight is stored alone in FORMAT. Its losses are measured on the samples of `--data`;
on those of `--judge` how much more the model gives for what is right, in nats: the array ``labels`` of it, or without
one the next token of each. A row is a weight, and behind them stand the rank correlations (Spearman).
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from benchmarks.encodings import format_of
from benchmarks.perplexity.nats import nats
from benchmarks.processes.timing import machine
from qcc.compiler.files.open_model import open_model
from qcc.compiler.measure.segments import Chain, Values, cut
from qcc.compiler.measure.tally import Tally, output_noise
from qcc.compiler.metrics.find import additive
from qcc.ir.encoding import fit
from qcc.ir.graph.ops import Array

METRICS = ("output_error", "top_kl")
TOGETHER = 4  # samples that run at once


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--format", default="int3 group 128")
    parser.add_argument("--every", type=int, default=1)
    arguments = parser.parse_args()
    print(f"# {machine()}\n# python -m benchmarks.perplexity.ranks {' '.join(sys.argv[1:])}")
    print(f"| weight | {' | '.join(METRICS)} | nats more |\n| --- |{' --- |' * (len(METRICS) + 1)}", flush=True)
    graph = open_model(arguments.model).graph
    chain, encoding = Chain(graph, cut(graph)), format_of(arguments.format)
    data, judges = (_states(chain, path) for path in (arguments.data, arguments.judge))
    whole = np.mean([_nats(states[-1], labels) for states, labels in judges])
    known = [one for one in graph.weights() if one.kinds & {"linear", "conv"}]
    rows = []
    for weight in known[:: arguments.every]:
        matrix = np.asarray(graph.matrix(weight), np.float32)
        changed = {weight.constant: graph.as_constant(weight, fit.encode(matrix, encoding).decode())}
        start = chain.first_reader(weight.constant)
        tallies = dict.fromkeys(METRICS, Tally())
        for states, _ in data:
            made = chain.outputs(start, states[start], changed)
            for name in METRICS:
                size = len(next(iter(states[0].values())))
                tallies[name] += output_noise(made, states[-1], size, metric=additive()[name])
        nats = [_nats(chain.outputs(start, states[start], changed), labels) for states, labels in judges]
        rows.append([*(tallies[name].loss for name in METRICS), float(np.mean(nats) - whole)])
        print(f"| {weight.name} | {' | '.join(f'{one:.5g}' for one in rows[-1])} |", flush=True)
        if len(rows) % 10 == 0:
            _tell(rows)
    _tell(rows)


def _tell(rows: list[list[float]]) -> None:
    columns = np.array(rows).T
    told = (f"{name} {spearmanr(one, columns[-1])[0]:.3f}" for name, one in zip(METRICS, columns, strict=False))
    print(f"# {len(rows)} weights, rank correlation with what is right: {', '.join(told)}", flush=True)


def _states(chain: Chain, path: Path) -> list[tuple[list[Values], Array]]:
    """The values before each piece of a few samples at a time, with what is right."""
    arrays = dict(np.load(path))
    labels = arrays.pop("labels", None)
    found = []
    for start in range(0, len(next(iter(arrays.values()))), TOGETHER):
        part = slice(start, start + TOGETHER)
        feeds = {name: array[part] for name, array in arrays.items()}
        right = next(iter(feeds.values()))[:, 1:] if labels is None else labels[part]
        found.append((chain.states(feeds), right))
    return found


def _nats(outputs: Mapping[str, Array], labels: Array) -> float:
    """What a model gives for what is right, the mean over all of it, in nats."""
    logits = next(iter(outputs.values()))
    if labels.ndim > 1:  # next tokens
        logits = logits[:, :-1]
    return float(nats(logits, labels).mean())


if __name__ == "__main__":
    main()
