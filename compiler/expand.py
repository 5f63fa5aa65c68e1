"""Making a model again that was packed for transport, bit for bit."""

from dataclasses import dataclass
from pathlib import Path

from qcc.compiler.console.percent import percent
from qcc.compiler.files.check_outputs import check_outputs
from qcc.compiler.files.publish import Staged, publish, staging
from qcc.ir.errors import ModelError
from qcc.ir.transport.container import expand_into


@dataclass(frozen=True)
class Expanded:
    """A model that was made again, and the file beside it that its weights lie in, if they lie apart."""

    packed: Path
    output: Path
    data: Path | None
    packed_bytes: int
    output_bytes: int


def expand(packed: Path, folder: Path | None = None) -> Expanded:
    """Write the files that a model for transport holds, under the names that they had.

    Args:
        packed: the file for transport.
        folder: where they go; beside it by default.

    Raises:
        ModelError: it is none, or damaged, or the files cannot be written.
    """
    into = packed.parent if folder is None else folder
    if not into.is_dir():
        raise ModelError("Q404", f"cannot write to `{into}`: no such folder")
    with staging(into / f"{packed.name}.expanded") as staged:
        try:
            made = expand_into(packed, staged)
        except OSError as error:
            raise ModelError("Q404", f"cannot write to `{into}`: {error.strerror or error}") from error
        outputs = [into / one.name for one in made]
        check_outputs(outputs, [packed])
        size = sum(one.stat().st_size for one in made)
        files = [Staged(one, into / one.name) for one in made]
        publish(files[::-1], staged)  # the model last
    return Expanded(packed, outputs[0], outputs[1] if outputs[1:] else None, packed.stat().st_size, size)


def told(done: Expanded) -> str:
    """What was done, in a line."""
    share = percent(done.packed_bytes / max(done.output_bytes, 1))
    return f"{done.packed_bytes:,} -> {done.output_bytes:,} bytes; it was packed to {share}"
