"""Compile real models and measure the files: size, task metric, latency, time and memory of the compilation.

    python -m benchmarks.spine --models MODELS --evaluate EVALUATE [--data DATA] [--only NAME ...]

MODELS is a folder with ``minilm.onnx``, ``smollm2.onnx``, ``efficientnet-lite0.onnx`` and ``vww.onnx``; EVALUATE is a
script that takes ``TASK model.onnx`` and prints a JSON line with the metric. DATA is a folder with ``TASK.npz``
calibration arrays for policies that use data; without it, data is generated. Every compilation runs in a process of its
own.
"""

import argparse
import json
import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.processes import children
from benchmarks.processes.timing import machine, medians, session

POLICIES = Path(__file__).parent / "policies"
SEQUENCE = 32


@dataclass(frozen=True)
class Work:
    """A model under a policy, measured on a task."""

    name: str
    model: str
    policy: str
    task: str
    data: bool = False
    define: str = ""


WORKS = (
    Work("minilm-float", "minilm", "", "stsb"),
    Work("minilm-int4", "minilm", "int4", "stsb"),
    Work("minilm-int4-gptq", "minilm", "int4-gptq", "stsb", data=True),
    Work("minilm-int3", "minilm", "int3", "stsb"),
    Work("minilm-int3-group128", "minilm", "int3-group128", "stsb"),
    Work("minilm-tenth", "minilm", "tenth", "stsb", data=True),
    Work("smollm2-float", "smollm2", "", "ppl"),
    Work("smollm2-int4", "smollm2", "int4", "ppl"),
    Work("smollm2-int4-gptq", "smollm2", "int4-gptq", "ppl", data=True, define="samples=32"),
    Work("minilm-int2", "minilm", "int2", "stsb"),
    Work("minilm-int2-rewritten", "minilm", "int2-rewritten", "stsb", data=True),
    Work("smollm2-int4-group128", "smollm2", "int4-group128", "ppl"),
    Work("smollm2-int4-group128-rewritten", "smollm2", "int4-group128-rewritten", "ppl", data=True),
    Work("vww-float", "vww", "", "vww"),
    Work("vww-int8-tensor", "vww", "int8-tensor", "vww"),
    Work("vww-int8-tensor-equalized", "vww", "int8-tensor-equalized", "vww"),
    Work("vww-int8-channel", "vww", "int8-channel", "vww"),
    Work("efficientnet-balanced", "efficientnet-lite0", "balanced", "imagenet"),
)


def main() -> None:
    """Print one row a work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--evaluate", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    print(f"# {machine()}\n# python -m benchmarks.spine")
    print("| work | file, MB | metric | compile, s | peak, MB |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for work in WORKS:
            if not arguments.only or work.name in arguments.only:
                print(measure(work, arguments, Path(folder)), flush=True)
        if not arguments.only or "latency" in arguments.only:
            print(latency(arguments.models / "minilm.onnx", Path(folder)))


def measure(work: Work, arguments: argparse.Namespace, folder: Path) -> str:
    """Compile and evaluate: one row of the table."""
    model = arguments.models / f"{work.model}.onnx"
    output = folder / f"{work.name}.onnx"
    seconds, peak = "", ""
    if work.policy:
        seconds, peak = compile_apart(work, model, output, arguments.data)
    else:
        output = model
    result = json.loads(children.output([sys.executable, arguments.evaluate, work.task, output]))
    metric = next(value for value in result.values() if isinstance(value, float))
    return f"| {work.name} | {output.stat().st_size / 1e6:.2f} | {metric:.2f} | {seconds} | {peak} |"


def compile_apart(work: Work, model: Path, output: Path, data: Path | None) -> tuple[str, str]:
    """Run ``qcc compile`` in a process of its own: seconds and peak megabytes."""
    policy = POLICIES / f"{work.policy}.qpolicy"
    command: list[str | Path] = [Path(sys.executable).with_name("qcc"), "compile", model, "-o", output, "-q"]
    command += ["-p", policy if policy.exists() else work.policy]
    if work.define:
        command += ["-D", work.define]
    if work.data and data is not None:
        command += ["--data", data / f"{work.task}.npz"]
    found = children.usage(command)
    return f"{found.seconds:.1f}", f"{found.peak_mb:.0f}"


def latency(model: Path, folder: Path) -> str:
    """MiniLM in int4 against ONNX Runtime's own 4-bit tool and float, in one process."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    logging.disable(logging.INFO)  # the tool tells of every node
    quantizer = MatMulNBitsQuantizer(str(model), block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    tool = folder / "tool.onnx"
    quantizer.model.save_model_to_file(str(tool))
    ours = folder / "minilm-int4.onnx"
    if not ours.exists():
        compile_apart(WORKS[1], model, ours, None)
    lines = [
        "",
        "| MiniLM int4, one thread | float | ONNX Runtime's tool | qcc | qcc / tool |",
        "| --- | --- | --- | --- | --- |",
    ]
    sessions = {name: session(str(path), threads=1) for name, path in (("float", model), ("tool", tool), ("qcc", ours))}
    for batch in (1, 16):
        ids = np.random.default_rng(0).integers(1000, 20000, (batch, SEQUENCE))
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        times = medians(sessions, feeds, rounds=41 if batch == 1 else 15)
        cells = " | ".join(f"{times[name] * 1e3:.2f} ms" for name in sessions)
        lines.append(f"| {batch} x {SEQUENCE} tokens | {cells} | {times['qcc'] / times['tool']:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
