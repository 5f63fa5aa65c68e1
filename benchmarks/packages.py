"""Real models, as packages carry them: every ``.onnx`` below a folder, compiled without data, as a table.

``python -m benchmarks.packages FOLDER [PRESET ...]``; the presets are `balanced` and `lossless` by default. A model
that takes longer than ``SECONDS`` is told so and left.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 120
PRESETS = ("balanced", "lossless")
WORDS = {0: "ok", 3: "bound fails"}


def row(path: Path, preset: str, folder: Path) -> list[str]:
    """One line of the table."""
    command = [sys.executable, "-m", "qcc", "compile", str(path), "-p", preset, "--format", "json"]
    command += ["-o", str(folder / "out.onnx")]
    start = [path.name, preset, f"{path.stat().st_size:,}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return [*start, "", "", "", f"over {SECONDS} s"]
    found = json.loads(done.stdout or "{}")
    outcome = WORDS.get(done.returncode, f"exit {done.returncode}")
    if "output_bytes" not in found:
        codes = [one.get("code", "") for one in found.get("diagnostics", [])]
        return [*start, "", "", "", " ".join([outcome, *codes])]
    noise = [one["sqnr"] for one in found["verification"]["outputs"] if one["sqnr"] is not None]
    share = found["reach"]["reached_bytes"] / found["reach"]["total_bytes"]
    sqnr = f"{min(noise):.1f} dB" if noise else "exact"
    return [*start, f"{found['output_bytes']:,}", f"{share:.1%}", sqnr, outcome]


def main(arguments: list[str]) -> None:
    """Print the table."""
    root, presets = Path(arguments[0]), arguments[1:] or PRESETS
    print("| file | preset | bytes before | after | reached | worst SQNR | outcome |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(root.rglob("*.onnx")):
            for preset in presets:
                print("| " + " | ".join(row(path, preset, Path(folder))) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
