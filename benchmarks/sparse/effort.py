"""What rounds of exchanges do for what stays of weights, what they take, and how well a loss is foretold.

    python -m benchmarks.sparse.effort MODEL --data FILE.npz [--every 7] [--sparsity blocks(16x16,keep=50%)]

FILE.npz holds samples by the names of the model's inputs, in an order that says nothing. A quarter of them is held out:
what stays is chosen and fitted by the others, and the error, squared over the squares of the layer's output, is that on
the quarter. Beside it stand how many layers are strictly nearer than by `obs` without exchanges, the seconds of the
processor that a layer took, and the error that the samples which chose foretell, over the one on those held out.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.encodings import format_of
from benchmarks.layers import observed, seen_part
from benchmarks.processes.timing import machine
from qcc.compiler.calibrate.samples import load
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.contract.contract import Context
from qcc.passes.rounding.gptq import output_error
from qcc.passes.rounding.nearest import Nearest

EFFORTS = (0, 1, 4, 16)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--every", type=int, default=7)
    parser.add_argument("--sparsity", default="blocks(16x16, keep = 50%)")
    asked = parser.parse_args()
    print(f"# {machine()}\n# python -m benchmarks.sparse.effort {' '.join(sys.argv[1:])}")
    graph = OnnxGraph.load(asked.model)
    weights, moments = observed(graph, load(asked.data, graph, None, 0), asked.every)
    print("| by | effort | error held out | nearer than `obs` | s a layer | foretold |\n|" + " --- |" * 6)
    plain: np.ndarray | None = None
    for by, effort in (*(("obs", effort) for effort in EFFORTS), ("wanda", 0), ("magnitude", 0)):
        encoding = format_of(f"{asked.sparsity[:-1]}, by = {by}, effort = {effort})")
        start, rows = time.process_time(), []
        for weight in weights:
            learned, matrix = moments[weight.name], np.asarray(graph.matrix(weight), np.float32)
            context = Context(grams={weight.name: learned.seen}, moments={weight.name: seen_part(learned)})
            stored = Nearest().encode(weight, matrix, encoding, context)
            parts = [(gram, float(np.vdot(matrix @ gram, matrix))) for gram in (learned.held, learned.seen)]
            rows.append([output_error(matrix, stored, gram) / signal for gram, signal in parts])
        errors, took = np.array(rows), (time.process_time() - start) / len(weights)
        plain = errors[:, 0] if plain is None else plain
        held, nearer = np.exp(np.log(errors[:, 0]).mean()), int((errors[:, 0] < plain).sum())
        told = np.exp(np.log(errors[:, 1] / errors[:, 0]).mean())
        print(f"| `{by}` | {effort} | {held:.4f} | {nearer} of {len(plain)} | {took:.2f} | {told:.2f} |", flush=True)


if __name__ == "__main__":
    main()
