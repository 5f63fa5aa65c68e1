"""Making a written model smaller: the last levels of its weights are left out, those of least worth first."""

from dataclasses import dataclass
from pathlib import Path

from qcc.compiler.console.percent import percent
from qcc.compiler.files.check_outputs import check_outputs
from qcc.compiler.files.kernel_library import kernels_beside
from qcc.compiler.files.publish import Staged, publish, same_file, staging
from qcc.compiler.files.staging import named_beside, target_of
from qcc.ir.model.model import Written
from qcc.ir.trim_file import open_trimmer


@dataclass(frozen=True)
class Trimmed:
    """A model that was made smaller.

    ``kept`` of its ``levels`` beyond the first of each weight are left.
    """

    model: Path
    output: Path
    input_bytes: int
    output_bytes: int
    kept: int
    levels: int


@dataclass(frozen=True)
class Sizes:
    """What a file may become, in bytes: with no level but the first of each weight, and as it is."""

    smallest: int
    largest: int
    levels: int


def sizes(model: Path) -> Sizes:
    """What a model can be trimmed to.

    Raises:
        ModelError: it cannot be read, or has no levels.
    """
    trimmer = open_trimmer(model, model)
    return Sizes(trimmer.size(trimmer.smallest), trimmer.size(trimmer.levels.counts), len(trimmer.levels.order))


def trimmed_path(model: Path, output: Path | None) -> Path:
    """Where a trimmed model goes: ``net.trimmed.qcc.onnx`` for ``net.qcc.onnx``."""
    return output if output is not None else named_beside(model, "trimmed")


def trim(model: Path, most_bytes: float, output: Path | None = None) -> Trimmed:
    """Write as much of a model as fits.

    Its kernel library goes with it, if there is one.

    Args:
        model: a file with levels.
        most_bytes: that the output may take, data beside it included.
        output: see `trimmed_path`.

    Raises:
        ModelError: it cannot be read, has no levels, does not fit, or the output cannot be written.
    """
    target, library = trimmed_path(model, output), kernels_beside(model)
    kernels = kernels_beside(target) if library.is_file() else None
    check_outputs([target, *([kernels] if kernels else [])], [model, *([library] if kernels else [])])
    trimmer = open_trimmer(model, target)
    counts = trimmer.fitting(most_bytes)
    with staging(target) as folder:
        written = trimmer.write(counts, folder / target.name)
        files = [Staged(written.path, target)]
        if kernels is not None:
            copy = folder / kernels.name
            copy.write_bytes(library.read_bytes())
            files.insert(0, Staged(copy, kernels))
        if written.data is not None:
            _with_data(files, written, model, target)
        publish(files, folder, [] if kernels else [kernels_beside(target)])
    levels, kept = trimmer.levels, sum(counts.values()) - len(counts)
    return Trimmed(model, target, trimmer.size(levels.counts), written.size_bytes, kept, len(levels.order))


def _with_data(files: list[Staged], written: Written, model: Path, target: Path) -> None:
    assert written.data is not None
    data = target_of(target).with_name(written.data.name)
    if not same_file(data, written.data_sha256):
        check_outputs([data], [model])
        files.insert(0, Staged(written.data, data))


def told(done: Trimmed) -> str:
    """What was done, in a line."""
    share = percent(done.output_bytes / done.input_bytes)
    levels = f"{done.kept:,} of {done.levels:,} further levels are left"
    return f"{done.input_bytes:,} -> {done.output_bytes:,} bytes, {share}; {levels}"
