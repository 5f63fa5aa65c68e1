"""The forms, found by their modules."""

from collections.abc import Mapping
from functools import lru_cache

import qcc.ir.forms
from qcc.ir.discovery import classes
from qcc.ir.graph.form import Form


@lru_cache
def forms() -> Mapping[str, Form]:
    """Every form by its name, those that the runtime itself runs first, in the order in which they are tried."""
    found = [one() for one in classes(qcc.ir.forms, Form)]  # type: ignore[type-abstract]  # concrete ones
    return {one.name: one for one in sorted(found, key=lambda one: (one.rank is None, one.rank or 0, one.name))}
