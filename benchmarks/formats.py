"""What formats lose on a model's linear weights, to nearest and without data.

    python -m benchmarks.formats MODEL [--every 1] [--clip mse]

One row a format: bits of a weight, and the squared error over all weights beside their squares. With ``--every N`` only
each Nth weight is taken.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from benchmarks.encodings import format_of
from benchmarks.processes.timing import machine
from qcc.ir.encoding.fit import encode
from qcc.ir.graph.ops import Kind
from qcc.ir.onnx.adapter import OnnxGraph

FORMATS = (
    *("int8 channel", "int8 group 2048", "dynamic8", "fp8 e4m3", "fp8 e5m2", "mxint8", "mxfp8", "mxfp8 e5m2"),
    *("int6 group 32", "fp6 e2m3", "fp6 e3m2", "mxfp6", "mxfp6 e3m2"),
    *("int4 group 32", "int4 mid group 32", "nf4 group 32", "nvfp4", "fp4 group 16 scale ue5m3", "bfp 4 group 16"),
    *("int4 group 64", "fp4 group 32 scale ue5m3", "mxfp4", "bfp 4 group 32", "int4 channel", "int4 mid channel"),
    *("int3 group 32", "int3 mid group 32", "int3 channel", "int3 mid channel"),
    *("int2 group 32", "int2 mid group 32", "int2 channel", "int2 mid channel", "int1 channel"),
    *("codebook(256, size = 2)", "codebook(16)", "codebook(64, size = 2)", "codebook(8)"),
    *("codebook(256, size = 4, group = 64)", "codebook(256, size = 4)", "codebook(16, size = 2)", "codebook(4)"),
    *("lattice()", "lattice(group = 64)", "stack(lattice(), codebook(256, size = 8))"),
    *("codebook(256, size = 8)", "radix(11)", "radix(6)", "radix(5)", "radix(3)", "radix(3, group = 32)"),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--clip", choices=("mse", "absmax", "statsq"), default="mse")
    parser.add_argument("--formats", nargs="*", default=FORMATS)
    arguments = parser.parse_args()
    print(f"# {machine()}\n# python -m benchmarks.formats {' '.join(sys.argv[1:])}")
    graph = OnnxGraph.load(arguments.model)
    weights = [one for one in graph.weights() if Kind.LINEAR in one.kinds][:: arguments.every]
    matrices = [np.asarray(graph.matrix(one), np.float32) for one in weights]
    print("| format | bits | relative squared error |\n| --- | --- | --- |")
    for text in arguments.formats:
        encoding = format_of(text)
        bits = sum(encoding.size_bits((len(one), one.shape[1])) for one in matrices)
        lost = sum(float(np.sum(np.square(encode(one, encoding, arguments.clip).decode() - one))) for one in matrices)
        squares = sum(float(np.vdot(one, one)) for one in matrices)
        print(f"| `{text}` | {bits / sum(one.size for one in matrices):.3f} | {lost / squares:.3g} |", flush=True)


if __name__ == "__main__":
    main()
