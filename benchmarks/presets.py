"""Compile models under presets and say what became of each: does it compile, verify, not grow, and not get slower?

python -m benchmarks.presets MODEL_OR_FOLDER ... [--presets lossless balanced tiny fast] [--data FOLDER]

Times are those of ``qcc bench`` against the input: paired ratios, one sample, 32 tokens, on one thread and on all
cores, with the library where the preset writes one. FOLDER holds calibration arrays, ``MODEL.npz``; a preset is
compiled with those of its model where there are any, and without.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import qcc
from benchmarks.processes.timing import machine
from qcc.codegen.target.machine import machine as hardware
from qcc.compiler.bench.bench import bench
from qcc.compiler.bench.feeds import Wanted
from qcc.compiler.measure.timing import Ratio, times_text
from qcc.dsl.load import preset_names

ROUNDS = 15
TITLES = ("model", "preset", "data", "bytes in", "bytes out", "cosine", "relative error", "verified", "times")


def main() -> None:
    """Print one row a model, preset and kind of data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--presets", nargs="+", default=list(preset_names()))
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    files = [file for path in arguments.models for file in (sorted(path.glob("*.onnx")) if path.is_dir() else [path])]
    print(f"# {machine()}\n# python -m benchmarks.presets")
    print(_line(TITLES), _line(["---"] * len(TITLES)), sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            for data in _data(file, arguments.data):
                for preset in arguments.presets:
                    print(row(file, preset, data, Path(folder) / file.name), flush=True)


def row(model: Path, preset: str, data: Path | None, output: Path) -> str:
    """Compile one model under one preset, and time it."""
    start = (model.stem, preset, "given" if data else "generated")
    try:
        result = qcc.compile(model, preset, output=output, data=data)
    except qcc.QccError as error:
        return _line((*start, str(model.stat().st_size), str(error).splitlines()[0], "", "", "no", ""))
    cosine = min(one.cosine for one in result.verification.outputs)
    error_size = max(one.relative_error for one in result.verification.outputs)
    facts = (f"{result.input_bytes}", f"{result.output_bytes}", f"{cosine:.6f}", f"{error_size:.1e}")
    return _line((*start, *facts, "yes" if result.passed else "no", _times(model, output) if result.written else ""))


def _times(model: Path, output: Path) -> str:
    threads = sorted({1, hardware().cores})
    found = bench([model, output], threads, Wanted(), ROUNDS, False, lambda *_: None)
    return "; ".join(_words(one.threads, one.ratio(1)) for one in found.settings)


def _words(threads: int, ratio: Ratio) -> str:
    """A paired ratio with the interval of its median; what is slower beyond noise in bold."""
    text = times_text(ratio.median, "the input", ratio.slower)
    text = f"**{text}**" if ratio.slower else text
    return f"{threads} thread{'' if threads == 1 else 's'}: {text}, {ratio.low:.2f} to {ratio.high:.2f}"


def _data(model: Path, folder: Path | None) -> Iterator[Path | None]:
    yield None
    if folder is not None and (file := folder / f"{model.stem}.npz").is_file():
        yield file


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
