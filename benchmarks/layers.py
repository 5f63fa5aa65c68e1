"""What formats and ways of rounding lose at a layer's output, on samples that neither has seen.

    python -m benchmarks.layers MODEL --data FILE.npz [--every 7] [--formats FORMAT ...] [--roundings WAY ...]

FILE.npz holds samples by the names of the model's inputs, in an order that says nothing. A quarter of them is held out:
grids, bits, codes and scales come from the others, and the error, squared over the squares of the layer's output, is
that on the quarter. A row is a format: bits of a weight, and for each way of rounding the geometric mean over every Nth
linear weight.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.encodings import format_of
from benchmarks.processes.timing import machine
from qcc.compiler.calibrate.samples import Samples, load
from qcc.compiler.observe.statistics import layer_statistics
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.graph.ops import Weight
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.contract.contract import Context, Rounding
from qcc.passes.contract.moments import Moments
from qcc.passes.rounding.descent import Descent
from qcc.passes.rounding.gptq import Gptq, output_error
from qcc.passes.rounding.nearest import Nearest

FORMATS = (
    *(
        "int2 group 64",
        "int2 group 64 asym",
        "int3 group 64",
        "int2 channel",
        "int2 mid channel",
        "radix(3)",
        "radix(5)",
    ),
    *("bands(int{0,1,2,4} channel, average = 1.6)", "bands(int{0,1,2,4} channel, average = 2)", "ptq161"),
    *(
        "codebook(256, size = 4)",
        "lattice()",
        "stack(lattice(), codebook(256, size = 8))",
        "stack(1)",
        "stack(2)",
        "stack(3)",
        "low_rank(int2 group 64, rank = 8)",
    ),
)
ROUNDINGS: dict[str, Rounding] = {
    "nearest": Nearest(),
    "gptq": Gptq(),
    "gptq(doubt = 0.1)": Gptq(doubt=0.1),
    "descent": Descent(),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--every", type=int, default=7)
    parser.add_argument("--formats", nargs="*", default=FORMATS)
    parser.add_argument("--roundings", nargs="*", default=list(ROUNDINGS), choices=list(ROUNDINGS))
    arguments = parser.parse_args()
    print(f"# {machine()}\n# python -m benchmarks.layers {' '.join(sys.argv[1:])}")
    graph = OnnxGraph.load(arguments.model)
    weights, moments = observed(graph, load(arguments.data, graph, None, 0), arguments.every)
    names = arguments.roundings
    print(f"| format | bits | {' | '.join(names)} |\n| --- | --- |{' --- |' * len(names)}")
    for text in arguments.formats:
        print(_row(text, format_of(text), [ROUNDINGS[name] for name in names], graph, weights, moments), flush=True)


def _row(
    text: str,
    encoding: Encoding,
    roundings: Sequence[Rounding],
    graph: OnnxGraph,
    weights: Sequence[Weight],
    moments: dict[str, Moments],
) -> str:
    cells, bits = [], 0.0
    for rounding in roundings:
        logs, taken, count = [], 0, 0
        for weight in weights:
            matrix = np.asarray(graph.matrix(weight), np.float32)
            learned, held = moments[weight.name], moments[weight.name].held
            context = Context(grams={weight.name: learned.seen}, moments={weight.name: seen_part(learned)})
            stored = rounding.encode(weight, matrix, encoding, context)
            logs.append(np.log(output_error(matrix, stored, held) / float(np.vdot(matrix @ held, matrix))))
            taken, count = taken + stored.encoding.size_bits(stored.shape), count + matrix.size
        cells.append(f"{np.exp(np.mean(logs)):.4f}")
        bits = taken / count
    return f"| `{text}` | {bits:.3f} | {' | '.join(cells)} |"


def seen_part(moments: Moments) -> Moments:
    """The part that is not held out, as if it were all that there is."""
    rows = moments.rows - moments.held_rows
    return replace(moments, gram=moments.seen, rows=rows, held=moments.held * 0, held_rows=0)


def observed(graph: OnnxGraph, samples: Samples, every: int) -> tuple[list[Weight], dict[str, Moments]]:
    """Every Nth linear weight, and what was seen of the inputs of these."""
    names = [one.name for one in graph.weights() if one.kinds == {"linear"}][::every]
    found = dict(layer_statistics(graph, samples, lambda *_: None, moments=names).moments)
    return [one for one in graph.weights() if one.name in found], found


if __name__ == "__main__":
    main()
