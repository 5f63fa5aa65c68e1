"""What the allocator's choice of formats loses at a model's outputs, beside the best uniform format of equal size.

    python -m benchmarks.allocated --models FOLDER --data FOLDER [--only NAME ...]

For each ``NAME.onnx`` the folder of data holds ``NAME.npz``, on which the compiler calibrates and decides, and
``NAME.judges.npz``, which nothing in the compiler sees: the losses are of those. A loss is the noise power over what
the outputs vary by, their mean over the samples taken out. Every uniform format is compiled first; then, at the size
of some of them, what the allocator makes of the same formats. A row is a size: the best uniform format that is no
larger, and the file that the allocator chose, both rounded to nearest and by ``gptq``.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import qcc
from benchmarks.processes.timing import machine

FORMATS = tuple(f"int{bits} {block}" for bits in (2, 3, 4) for block in ("group 32", "group 128", "channel"))
MORE = ("int6 channel", "int8 channel")
"""What the allocator may choose as well."""
SIZES = ("int2 group 32", "int3 group 128", "int3 group 32", "int4 group 128")
"""The formats whose sizes are budgets."""
ROUNDINGS = ("nearest", "gptq")
TOGETHER = 16  # samples that run at once


@dataclass(frozen=True)
class Found:
    """A file: what its weights are, what it takes and what it loses."""

    name: str
    size: int
    loss: float


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--roundings", nargs="*", default=ROUNDINGS)
    parser.add_argument("--sizes", nargs="*", default=SIZES)
    arguments = parser.parse_args()
    print(f"# {machine()}\n# python -m benchmarks.allocated {' '.join(sys.argv[1:])}")
    print("| model | rounding | budget, bytes | uniform | loss | allocated, bytes | loss | of uniform's |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    ratios = []
    for judges in sorted(arguments.data.glob("*.judges.npz")):
        name = judges.name.removesuffix(".judges.npz")
        if arguments.only and name not in arguments.only:
            continue
        bench = _Bench.of(arguments.models / f"{name}.onnx", arguments.data / f"{name}.npz", judges)
        for rounding in arguments.roundings:
            ratios += bench.rows(rounding, arguments.sizes)
    print(f"\nmean of {len(ratios)} rows {np.mean(ratios):.3f}, geometric {np.exp(np.mean(np.log(ratios))):.3f}")


@dataclass(frozen=True)
class _Bench:
    """A model with its data."""

    model: Path
    data: Path
    judges: Mapping[str, np.ndarray]
    wanted: np.ndarray

    @classmethod
    def of(cls, model: Path, data: Path, judges: Path) -> "_Bench":
        """With what the model itself makes of the judges."""
        with np.load(judges) as arrays:
            found = dict(arrays)
        return cls(model, data, found, _outputs(model, found))

    def rows(self, rounding: str, sizes: Sequence[str]) -> list[float]:
        """Print those of a way of rounding; what the allocator's loss is of the uniform format's."""
        uniform = {text: self._compiled(text, rounding, text) for text in FORMATS}
        ratios = []
        for text in sizes:
            budget = uniform[text].size
            best = min((one for one in uniform.values() if one.size <= budget), key=lambda one: one.loss)
            found = self._compiled(" | ".join((*FORMATS, *MORE)), rounding, "allocated", budget)
            ratios.append(found.loss / best.loss)
            cells = (self.model.stem, rounding, f"{budget:,}", f"`{best.name}`", f"{best.loss:.4f}")
            print(f"| {' | '.join(cells)} | {found.size:,} | {found.loss:.4f} | {ratios[-1]:.2f} |", flush=True)
        return ratios

    def _compiled(self, formats: str, rounding: str, name: str, budget: int | None = None) -> Found:
        text = f"qpolicy 1\nrule any {{ weights = {formats}; rounding = {rounding} }}\n"
        if budget is not None:
            text += f"budget {{ size <= {budget} B }}\nminimize output_error\n"
        with tempfile.TemporaryDirectory() as folder:
            policy, output = Path(folder) / "one.qpolicy", Path(folder) / "out.onnx"
            policy.write_text(text, encoding="utf-8")
            result = qcc.compile(self.model, policy, output=output, data=self.data)
            noise = _outputs(output, self.judges) - self.wanted
        varies = self.wanted - self.wanted.mean(axis=0)
        return Found(name, result.output_bytes, float(np.sum(noise**2) / np.sum(varies**2)))


def _outputs(model: Path, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    """The first output of all samples, in double precision."""
    session = qcc.Session(model, kernels=False)
    count = len(next(iter(feeds.values())))
    parts = [{name: one[at : at + TOGETHER] for name, one in feeds.items()} for at in range(0, count, TOGETHER)]
    return np.concatenate([next(iter(session.run(part).values())) for part in parts]).astype(np.float64)


if __name__ == "__main__":
    main()
