"""What packs of MiniLM's family take, on disk and in memory.

    python -m benchmarks.packs --models FOLDER --adapters FOLDER [--data FILE.npz]

FOLDER of models holds ``minilm.onnx``, of adapters ``lora-0.safetensors`` to ``lora-7.safetensors`` as
`benchmarks.adapters --variants 8` trains them. A row is a
family: two models that differ in their last block, the base beside itself with each of eight LoRAs merged that have
nothing in common but the base, the base beside a last block of which every number was changed a little, and the base
beside itself with weights that went through float16; the bytes of the models and of the pack, and how far outputs are
off. Then, for two sessions over one pack and over two files, the memory that is the process's own (``Private`` of
``smaps_rollup``) and what lies in mapped files, as the runtime does it by default and with matrices read in place.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import qcc
from benchmarks.processes.timing import machine
from qcc.compiler.pack.pack import pack

VARIANTS = 8
CHANGED = 0.02  # of the size of a block's matrices
MEASURE = """
import sys, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
options.add_session_config_entry("session.disable_prepacking", sys.argv[1])
held = [onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in sys.argv[2:]]
import numpy as np
for one in held:
    one.run(None, {value.name: np.ones((1, 8), np.int64) for value in one.get_inputs()})
rows = dict(line.split()[:2] for line in open("/proc/self/smaps_rollup").read().splitlines()[1:])
print((int(rows["Private_Clean:"]) + int(rows["Private_Dirty:"])) // 1024, int(rows["Rss:"]) // 1024)
"""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--adapters", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    base = args.models / "minilm.onnx"
    print(machine())
    print("\n| family | models, bytes | pack, bytes | of one | outputs off by, allowed |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [args.adapters / f"lora-{at}.safetensors" for at in range(VARIANTS)]
        variants = [_merged(base, file, folder) for file in files]
        row("two, one block apart", [base, variants[0]], folder / "block", None, args.data)
        row("the base and 8 trained LoRAs, merged", [base, *variants], folder / "loras", 1e-4, args.data)
        changed = _changed(base, folder)
        for allowed in (1e-2, 1e-3):
            title = "the base and a block all of which changed"
            row(title, [base, changed], folder / f"changed-{allowed}", allowed, args.data)
        row("the base and its float16", [base, _rounded(base, folder)], folder / "near", 1e-3, args.data)
        print("\n| two sessions over | matrices | private, MiB | resident, MiB |\n|---|---|---|---|")
        sessions = {"one file": [base], "two files": [base, variants[0]]}
        sessions["one pack"] = [folder / "block" / "minilm.onnx", folder / "block" / variants[0].name]
        for told, paths in sessions.items():
            for prepacking, word in (("0", "packed anew"), ("1", "read in place")):
                private, resident = _memory(paths, prepacking)
                print(f"| {told}{' (one session)' if len(paths) == 1 else ''} | {word} | {private} | {resident} |")


def row(name: str, models: Sequence[Path], folder: Path, within: float | None, data: Path | None) -> None:
    """Pack a family and tell what it takes."""
    done = pack(folder, models, within=within, data=data)
    before, one = sum(path.stat().st_size for path in models), models[0].stat().st_size
    errors = [model.error for model in done.index.models.values() if model.error is not None]
    off = f"{max(errors):.1e}, {within:.0e}" if errors else "same bytes"
    print(f"| {name} | {before:,} | {done.size_bytes:,} | {done.size_bytes / one:.3f}x | {off} |", flush=True)


def _merged(base: Path, adapter: Path, folder: Path) -> Path:
    policy = folder / f"{adapter.stem}.qpolicy"
    (folder / adapter.name).write_bytes(adapter.read_bytes())
    policy.write_text(f'qpolicy 1\nadapter "{adapter.name}" {{ alpha = 8 }}\n', encoding="utf-8")
    return qcc.compile(base, policy, output=folder / f"{adapter.stem}.onnx").output


def _changed(base: Path, folder: Path) -> Path:
    """Every number of the last matrices moved at random, as training of all of them does."""
    model, draw = onnx.load(base), np.random.default_rng(0)
    matrices = [
        one for one in model.graph.initializer if len(one.dims) == 2 and one.dims[0] > 100 and one.dims[1] > 100
    ]
    for tensor in matrices[-6:]:
        array = numpy_helper.to_array(tensor)
        moved = array + CHANGED * array.std() * draw.standard_normal(array.shape)
        tensor.CopyFrom(numpy_helper.from_array(moved.astype(array.dtype), tensor.name))
    path = folder / "changed.onnx"
    onnx.save(model, path)
    return path


def _rounded(base: Path, folder: Path) -> Path:
    model = onnx.load(base)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim == 2:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16).astype(np.float32), tensor.name))
    path = folder / "half.onnx"
    onnx.save(model, path)
    return path


def _memory(paths: Sequence[Path], prepacking: str) -> tuple[int, int]:
    words = [sys.executable, "-c", MEASURE, prepacking, *map(str, paths)]
    private, resident = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    return int(private), int(resident)


if __name__ == "__main__":
    main()
