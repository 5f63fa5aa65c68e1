"""Outputs as arrays: sequences, maps and optionals taken apart, so that all that a model gives can be compared."""

from collections.abc import Mapping

import numpy as np


def flattened(outputs: Mapping[str, object]) -> dict[str, np.ndarray]:
    """Every array by its name; parts of a sequence or map are called `scores[2]`, and what is absent is left out."""
    found: dict[str, np.ndarray] = {}
    for name, value in outputs.items():
        _flatten(name, value, found)
    return found


def _flatten(name: str, value: object, found: dict[str, np.ndarray]) -> None:
    if value is None:
        return
    if isinstance(value, list | tuple):
        for at, one in enumerate(value):
            _flatten(f"{name}[{at}]", one, found)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            _flatten(f"{name}[{key}]", one, found)
    else:
        found[name] = np.asarray(value)
