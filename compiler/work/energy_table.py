"""What bytes and operations are said to cost: a table with its source, which a user may replace.

Source of what ships: Computing's energy problem, Horowitz, ISSCC 2014, figure 1.1.9, for operations and a cache of
1 MB (100 pJ for 64 bits); EIE, Han et al. 2016 (arXiv:1602.01528), table I, for memory (640 pJ for 32 bits); both at
45 nm.
"""

import json
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from qcc.dsl.diagnostics.spelling import did_you_mean
from qcc.ir.errors import ModelError, first_line

SHIPPED = Path(__file__).with_name("energy.json")


@dataclass(frozen=True)
class EnergyTable:
    """Picojoules.

    Args:
        source: where the numbers are from.
        memory_byte: of a byte of a weight, read from memory.
        cache_byte: of a byte of a value, written to a cache or read from it.
        float32: of a multiplication of such floats, with its addition.
        float16: the same of 16 bits, also of bfloat16, added up in float32.
        int8: the same of bytes, added up in 32 bits.
        operation: of any other number that is computed.
    """

    source: str
    memory_byte: float
    cache_byte: float
    float32: float
    float16: float
    int8: float
    operation: float

    @property
    def text(self) -> str:
        """Its numbers, for reports."""
        found = [(one.name, getattr(self, one.name)) for one in fields(self) if one.name != "source"]
        return ", ".join(f"{name} {value:g}" for name, value in found)


def energy_table(path: Path | None = None) -> EnergyTable:
    """The table that ships, with what a user's file says in place of it.

    Args:
        path: of a JSON file that has some of the fields of `EnergyTable`.

    Raises:
        ModelError: the file cannot be read, or says something else.
    """
    table = EnergyTable(**json.loads(SHIPPED.read_text(encoding="utf-8")))
    if path is None:
        return table
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _wrong(path, f"it cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, RecursionError) as error:
        raise _wrong(path, f"it is no JSON: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise _wrong(path, "it is no object with names")
    known = [one.name for one in fields(table)]
    for name, value in found.items():
        if name not in known:
            raise _wrong(path, f"nothing is called `{name}`", did_you_mean(name, known))
        good = isinstance(value, str) if name == "source" else _is_cost(value)
        if not good:
            raise _wrong(path, f"`{name}` is {'a text' if name == 'source' else 'a number of picojoules, 0 or more'}")
    return _with(table, path.name, found)


def _with(table: EnergyTable, name: str, found: dict[str, Any]) -> EnergyTable:
    """The table with a user's numbers, all of which are told."""
    made = replace(table, **({"source": name} | found))
    return replace(made, source=f"{made.source} ({made.text}, in pJ)")


def _is_cost(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _wrong(path: Path, why: str, help: str | None = None) -> ModelError:
    return ModelError("Q660", f"`{path}` is no table of energies: {why}", help=help or "`qcc explain Q660` has one")
