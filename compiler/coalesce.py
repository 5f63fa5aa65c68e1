"""Putting samples together into batches."""

from collections.abc import Mapping, Sequence

import numpy as np

BATCH = 16


def joined(ones: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Samples of one shape as a batch."""
    return {
        name: np.concatenate([one[name] for one in ones]) if len(ones) > 1 else array for name, array in ones[0].items()
    }


def neighbours(ones: Sequence[Mapping[str, np.ndarray]]) -> tuple[dict[str, np.ndarray], ...]:
    """Samples in their order, neighbours of one shape in a batch."""
    found: list[list[Mapping[str, np.ndarray]]] = []
    for one in ones:
        alike = found and all(array.shape == found[-1][0][name].shape for name, array in one.items())
        if alike and len(found[-1]) < BATCH:
            found[-1].append(one)
        else:
            found.append([one])
    return tuple(map(joined, found))
