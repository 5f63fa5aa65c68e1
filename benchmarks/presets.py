"""Compile models under presets and say what became of each: does it compile, verify, and not grow?

python -m benchmarks.presets MODEL_OR_FOLDER ... [--presets lossless balanced tiny]
"""

import argparse
import tempfile
from pathlib import Path

import qcc
from benchmarks.timing import machine


def main() -> None:
    """Print one row a model and preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--presets", nargs="+", default=["lossless", "balanced"])
    arguments = parser.parse_args()
    files = [file for path in arguments.models for file in (sorted(path.glob("*.onnx")) if path.is_dir() else [path])]
    print(f"# {machine()}\n# python -m benchmarks.presets")
    print("| model | preset | bytes in | bytes out | cosine | relative error | verified |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            for preset in arguments.presets:
                print(row(file, preset, Path(folder) / file.name), flush=True)


def row(model: Path, preset: str, output: Path) -> str:
    """Compile one model under one preset."""
    try:
        result = qcc.compile(model, preset, output=output)
    except qcc.QccError as error:
        return f"| {model.stem} | {preset} | {model.stat().st_size} | {str(error).splitlines()[0]} | | | no |"
    cosine = min(one.cosine for one in result.verification.outputs)
    error_size = max(one.relative_error for one in result.verification.outputs)
    sizes = f"{result.input_bytes} | {result.output_bytes}"
    return (
        f"| {model.stem} | {preset} | {sizes} | {cosine:.6f} | {error_size:.1e} | {'yes' if result.passed else 'no'} |"
    )


if __name__ == "__main__":
    main()
