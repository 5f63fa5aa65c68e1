"""What one run of a model gives to a later one: a value, or by how much it differs from another."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Carried:
    """A value that a later run need not compute.

    Args:
        value: of the graph.
        source: what it is a sum of with what is carried; empty where it is carried itself.
        name: of what is carried, as an output of one graph and an input of another.
    """

    value: str
    source: str
    name: str


@dataclass(frozen=True)
class Corrections:
    """How what is carried is corrected, a row for each later run: ``scale * carried + offset``.

    Args:
        scale: ``[row, channel, ...]``, an axis of one for each axis behind the channels.
        offset: of the same shape.
        row: the input that says which row holds.
    """

    scale: np.ndarray
    offset: np.ndarray
    row: str
