"""What products of thin matrices lose at layers, fitted to data and to the weights alone, at equal multiplications.

    python -m benchmarks.sparse.structured MODEL --data FILE.npz [--every 4] [--shares 50 25] [--outputs 1536]

FILE.npz holds samples by the names of the model's inputs, in an order that says nothing. A quarter of them is held out:
the error, squared over the squares of the layer's output, is that on the quarter, the geometric mean over every Nth
linear weight with so many outputs or inputs. A share is that of the dense multiplications, and factors are int8.
Fitted to the weights alone, `low_rank` is the singular value decomposition; by data it is that of the whitened matrix.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.encodings import format_of
from benchmarks.layers import observed
from benchmarks.processes.timing import machine
from qcc.compiler.calibrate.samples import load
from qcc.ir.encoding.fit import encode
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.rounding.gptq import output_error


def formats(shape: tuple[int, int], share: float) -> Iterator[tuple[str, str]]:
    """What a format is called, and how it is spelled for a shape."""
    out, read = shape
    for name, costs in (
        ("low_rank({})", out + read),
        ("monarch(4, {})", 4 * (out + read)),
        ("block_dense(4, {})", out + 4 * read),
    ):
        yield name.format("..."), name.format(f"rank = {max(round(share * out * read / costs), 1)}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--shares", type=float, nargs="*", default=[50, 25])
    parser.add_argument("--outputs", type=int, default=1536)
    asked = parser.parse_args()
    print(f"# {machine()}\n# python -m benchmarks.sparse.structured {' '.join(sys.argv[1:])}")
    graph = OnnxGraph.load(asked.model)
    weights, moments = observed(graph, load(asked.data, graph, None, 0), asked.every)
    weights = [one for one in weights if asked.outputs in one.shape]
    print(
        f"{len(weights)} layers\n\n| multiplications | format | by data | by weights alone |\n| --- | --- | --- | --- |"
    )
    for share in asked.shares:
        for at, (name, _) in enumerate(formats((1, 1), share / 100)):
            found = []
            for weight in weights:
                matrix, learned = np.asarray(graph.matrix(weight), np.float32), moments[weight.name]
                encoding = format_of([*formats(weight.shape, share / 100)][at][1])
                whole = float(np.vdot(matrix @ learned.held, matrix))
                stored = (encode(matrix, encoding, gram=gram) for gram in (learned.seen, None))
                found.append([output_error(matrix, one, learned.held) / whole for one in stored])
            by_data, alone = np.exp(np.log(found).mean(0))
            print(f"| {share:g} % | {name} | {by_data:.4f} | {alone:.4f} |", flush=True)


if __name__ == "__main__":
    main()
