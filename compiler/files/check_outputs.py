"""Whether outputs may be written: regular files, in folders that are there, none of them an input."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qcc.compiler.files.kernel_library import kernels_beside
from qcc.compiler.files.staging import failed_path, target_of
from qcc.ir.errors import ModelError
from qcc.ir.model.options import LOOP, PACKED

CACHE = ".cache.npz"


@dataclass(frozen=True)
class OutputFiles:
    """Where everything of a compilation goes, beside its data file, whose name its content tells."""

    model: Path
    lock: Path
    report: Path
    kernels: Path
    packed: Path
    loop: Path
    cache: Path

    @classmethod
    def of(cls, model: Path) -> "OutputFiles":
        """By the model's name.

        Raises:
            ModelError: a model of this name cannot be written.
        """
        if not model.name:
            raise ModelError("Q404", f"cannot write `{model}`: it is a folder")
        suffixes = ".lock", ".html", PACKED, LOOP, CACHE
        lock, report, packed, loop, cache = (model.with_suffix(suffix) for suffix in suffixes)
        return cls(model, lock, report, kernels_beside(model), packed, loop, cache)

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return self.model, self.lock, self.report, self.kernels, self.packed, self.loop, self.cache


def output_files(output: Path, keep_failed: bool) -> tuple[Path, ...]:
    """All that a compilation may write, that of a failed verification included where it is kept.

    Raises:
        ModelError: a model of this name cannot be written.
    """
    failed = OutputFiles.of(failed_path(output)).files if keep_failed else ()
    return *OutputFiles.of(output).files, *failed


def check_model(model: Path, output: Path, keep_failed: bool, inputs: Iterable[Path]) -> None:
    """See that all outputs of a model can be written, and overwrite neither it nor what else is read.

    Raises:
        ModelError: one cannot, or does.
    """
    outputs = output_files(output, keep_failed)
    if not os.path.exists(model):  # noqa: PTH110  (it may have no name that a file can have)
        return  # what is wrong with the model is told when it is read
    if _same(target_of(output), model):
        raise ModelError("Q404", f"the output `{output}` is the input", help="name another file with -o")
    check_outputs(outputs, [model, *inputs])


def check_lock(output: Path, keep_failed: bool, lock: Path) -> None:
    """See that no output overwrites a lock that is repeated, but for the one that takes its place: the output's own.

    It has been read whole, and what was planned once is in the new one, too.

    Raises:
        ModelError: one does.
    """
    own = {OutputFiles.of(model).lock for model in (output, failed_path(output))}
    check_outputs((path for path in output_files(output, keep_failed) if path not in own), [lock])


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """See that outputs can be written, and overwrite neither an input nor each other; links are followed.

    Raises:
        ModelError: one cannot, or does.
    """
    known: list[Path] = []
    read = [path for path in inputs if os.path.exists(path)]  # noqa: PTH110  (a name may be too long, or no name)
    for output in outputs:
        target = target_of(output)
        for path in read:
            if _same(target, path):
                raise _collides(output, path)
        for other in known:
            if target == target_of(other):
                message = f"the outputs `{other}` and `{output}` would be one file"
                raise ModelError("Q450", message, help="name the model with -o so that it ends in `.onnx`")
        known.append(output)


def _same(target: Path, path: Path) -> bool:
    try:
        return target.samefile(path)
    except OSError:
        return target == Path(os.path.realpath(path))


def _collides(output: Path, path: Path) -> ModelError:
    message = f"the output `{output}` would overwrite the input `{path}`"
    return ModelError("Q450", message, help="name another file with -o")


def input_files(named: Sequence[object]) -> list[Path]:
    """Those of what a caller gave that are paths."""
    return [Path(one) for one in named if isinstance(one, (str, Path))]
