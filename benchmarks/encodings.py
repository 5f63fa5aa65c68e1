"""What it takes to decode each encoding when a session starts, and what a compilation takes beside another checkout.

    python -m benchmarks.encodings [--shape 4096x2048] [--rounds 5]
    python -m benchmarks.encodings --model MODEL --policy POLICY [--data DATA] --beside CHECKOUT [--rounds 3]

The first prints a table of one weight, decoded at load: bytes of the file, processor time of a session's start, and the
memory that it takes at its peak. Every start is in a process of its own; encodings take turns. The second compiles in
turns with the code here and in another checkout, and prints processor time and peak memory of each; a compilation
before, which does not count, leaves Python's bytecode, as an installed package has it.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from benchmarks.processes import children
from benchmarks.processes.timing import machine
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.formats import encoding_of
from qcc.dsl.load import load_text
from qcc.ir.encoding import fit
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.forms.decoded import DECODED
from qcc.ir.onnx.adapter import OnnxGraph

FORMATS = (
    "int4 group 32",
    "nf4 group 32",
    "mxfp4",
    "nvfp4",
    "bands(int4 group 32, int1 group 32, share = 25%)",
    "stack(int2 group 32, int2 group 32)",
    "blocks(32x32, keep = 50%, int4 group 32)",
)
START = """
import json, re, sys, time
from pathlib import Path
from qcc.ir.onnx.file.runtime import onnxruntime as ort

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3
before, start = peak(), time.process_time()
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
seconds = time.process_time() - start
print(json.dumps([seconds, peak() - before]))
"""


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="4096x2048", help="outputs by inputs (default: 4096x2048)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--policy")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--beside", type=Path)
    arguments = parser.parse_args()
    print(f"# {machine()}\n# python -m benchmarks.encodings {' '.join(sys.argv[1:])}")
    if arguments.model:
        compare(arguments)
        return
    out, inner = map(int, arguments.shape.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        starts((out, inner), arguments.rounds, Path(folder))


def starts(shape: tuple[int, int], rounds: int, folder: Path) -> None:
    """One row an encoding, the first being what others are compared with."""
    files = {text: write(text, shape, folder / f"{at}.onnx") for at, text in enumerate(FORMATS)}
    taken: dict[str, list[tuple[float, float]]] = {text: [] for text in FORMATS}
    for _ in range(rounds):
        for text, path in files.items():
            taken[text].append(tuple(json.loads(children.output([sys.executable, "-c", START, path]))))
    print(
        "| format, decoded at load | file, MB | start, s of one thread | of int4 | memory, MB | of int4 |\n"
        + "| --- " * 6
        + "|"
    )
    first = [median(one[part] for one in taken[FORMATS[0]]) for part in (0, 1)]
    for text, path in files.items():
        seconds, memory = (median(one[part] for one in taken[text]) for part in (0, 1))
        cells = f"{seconds:.2f} | {seconds / first[0]:.2f} | {memory:.0f} | {memory / first[1]:.2f}"
        print(f"| `{text}` | {path.stat().st_size / 1e6:.2f} | {cells} |")


def write(text: str, shape: tuple[int, int], path: Path) -> Path:
    """A model of one product, its weight stored in a format."""
    out, inner = shape
    body = f"g (float[N,{inner}] x) => (float[N,{out}] y) {{ y = MatMul(x, w) }}"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]>{body}')
    matrix = np.random.default_rng(0).standard_normal((inner, out), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(matrix, "w"))
    onnx.save(model, path)
    graph = OnnxGraph.load(path)
    weight = graph.weights()[0]
    graph.encode(weight, fit.encode(graph.matrix(weight), format_of(text), "absmax"), DECODED)
    written = path.with_suffix(".qcc.onnx")
    graph.save(written)
    return written


def format_of(text: str) -> Encoding:
    """The encoding that the language's words name."""
    (rule,) = load_text(f"qpolicy 1\nrule any {{ weights = {text} }}", schema()).rules
    found = encoding_of(rule.assignments[0].value[0])  # type: ignore[index]  # formats, since it is `weights`
    assert found is not None
    return found


def compare(arguments: argparse.Namespace) -> None:
    """One row a checkout."""
    here = Path(__file__).parent.parent
    taken: dict[Path, list[tuple[float, float]]] = {here: [], arguments.beside.resolve(): []}
    with tempfile.TemporaryDirectory() as bytecode:
        for _ in range(arguments.rounds + 1):
            for checkout, found in taken.items():
                found.append(compile_once(checkout, arguments, bytecode))
    print("| checkout | processor time, s | peak, MB |\n| --- | --- | --- |")
    for checkout, found in taken.items():
        seconds, memory = (median(one[part] for one in found[1:]) for part in (0, 1))
        print(f"| {'here' if checkout == here else 'beside'} | {seconds:.1f} | {memory:.0f} |")


def compile_once(checkout: Path, arguments: argparse.Namespace, bytecode: str) -> tuple[float, float]:
    """The processor time and peak memory of one compilation, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        policy = arguments.policy
        command = ["-m", "qcc", "compile", str(arguments.model.resolve()), "-p", policy, "-q"]
        command += ["-o", str(Path(folder) / "out.onnx")]
        command += ["--data", str(arguments.data.resolve())] if arguments.data else []
        environment = os.environ | {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": str(Path(folder) / "cache")}
        environment |= {"PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}
        found = children.usage([sys.executable, *command], checkout, environment)
    return found.processor_s, found.peak_mb


if __name__ == "__main__":
    main()
