"""Files of interactions: which rows of tables were looked up together, and when."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcc.compiler.calibrate.read_npz import UnreadableError, read_arrays
from qcc.ir.encoding.tables.lookups import TIME, Interactions, Lookups
from qcc.ir.errors import ModelError

HELP = (
    "make it with `numpy.savez`: an array of whole numbers for each of two tables, called like the input that asks it"
)


@dataclass(frozen=True, eq=False)
class InteractionFile:
    """A file that was read: its two columns by name."""

    path: Path
    found: Interactions

    @classmethod
    def read(cls, path: Path, source: str) -> "InteractionFile":
        """Read a file.

        Args:
            path: where it lies.
            source: what a policy calls it.

        Raises:
            ModelError: it is missing, or no such file.
        """
        try:
            arrays = read_arrays(path)
        except (UnreadableError, OSError, ValueError) as error:
            reason = "there is no such file" if not _is_there(path) else str(error)
            raise ModelError("Q346", f"cannot read interactions from `{path}`: {reason}", help=HELP) from error
        times = arrays.pop(TIME, None)
        _check(path, arrays, times)
        left, right = arrays
        columns = arrays[left].astype(np.int64), arrays[right].astype(np.int64)
        return cls(path, Interactions(source, (left, right), columns, None if times is None else times.astype(float)))

    def of(self, names: tuple[str, ...], table: str, rows: int) -> Lookups:
        """What it tells of a table.

        Args:
            names: that the table's column may have, the first being its own.
            table: how it is called in messages.
            rows: of it.

        Raises:
            ModelError: no column is the table's, or one that is names rows that it does not have.
        """
        side = next((at for at, name in enumerate(self.found.names) if name in names), None)
        if side is None:
            has = " and ".join(f"`{name}`" for name in self.found.names)
            known = ", ".join(f"`{name}`" for name in dict.fromkeys(names))
            message = f"`{self.path}` has columns {has}, and none for `{table}`"
            raise ModelError("Q347", message, help=f"call its column {known}")
        column = self.found.columns[side]
        wrong = column[(column < 0) | (column >= rows)]
        if len(wrong):
            name = self.found.names[side]
            message = f"`{name}` of `{self.path}` names row {int(wrong[0]):,} of `{table}`, which has {rows:,}"
            raise ModelError("Q347", message, help="count rows from 0, as the model's input does")
        return Lookups(np.bincount(column, minlength=rows), self.found, side)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _check(path: Path, columns: Mapping[str, np.ndarray], times: np.ndarray | None) -> None:
    """See that there are two columns of whole numbers, and times that fit.

    Raises:
        ModelError: there are not.
    """
    reason = ""
    lengths = {name: array.shape for name, array in {**columns, **({} if times is None else {TIME: times})}.items()}
    if len(columns) != 2:
        listed = ", ".join(f"`{name}`" for name in columns) or "none"
        reason = f"it has not two arrays beside `{TIME}`: {listed}"
    elif odd := next((name for name, array in columns.items() if array.dtype.kind not in "iu"), None):
        reason = f"`{odd}` is {columns[odd].dtype}, no whole numbers"
    elif any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) > 1:
        reason = f"its arrays are no columns of one length: {', '.join(f'{n} {s}' for n, s in lengths.items())}"
    elif not next(iter(columns.values())).size:
        reason = "it holds no pairs"
    elif times is not None and (times.dtype.kind not in "iuf" or not np.isfinite(times).all()):
        reason = f"`{TIME}` holds what is no finite number"
    elif any(int(array.max()) > np.iinfo(np.int64).max >> 1 for array in columns.values()):
        reason = "it names rows beyond what tables have"
    if reason:
        raise ModelError("Q346", f"cannot read interactions from `{path}`: {reason}", help=HELP)
