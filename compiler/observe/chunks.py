"""Which samples run at once, and which values are looked at in one run, so that what a run hands out fits in memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.parts import Parted
from qcc.ir.graph.graph import Graph

CAPTURED_BYTES = 1 << 26  # of what a run hands out, about
MOST_BYTES = 1 << 28  # of what is looked at in one sample at once
MOST_SAMPLES = 64


@dataclass(frozen=True)
class Chunk:
    """Samples that run at once, by number: ``held`` if they are held out, ``repeated`` if each was there before."""

    members: tuple[int, ...]
    held: bool
    repeated: bool


def chunks(parted: Parted, size: Callable[[int], float], together: Callable[[int], int]) -> tuple[Chunk, ...]:
    """All samples: those of one part and one shape together, as many as a run should take.

    Args:
        parted: the samples.
        size: the bytes that a run hands out for a sample, by its number.
        together: samples for which this is near run together.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for at, one in enumerate(parted.ones):
        kind = parted.samples.kind(one) if parted.samples.divisible else (at,)
        groups.setdefault((parted.held[at], parted.repeated[at], *kind), []).append(at)
    found = []
    for members in groups.values():
        members.sort(key=together)
        while members:
            largest = max(size(at) for at in members[:MOST_SAMPLES])
            count = int(min(max(CAPTURED_BYTES / max(largest, 1), 1), MOST_SAMPLES))
            found.append(Chunk(tuple(members[:count]), parted.held[members[0]], parted.repeated[members[0]]))
            members = members[count:]
    return tuple(found)


def value_groups(graph: Graph, names: Sequence[str], one: Batch) -> list[list[str]]:
    """Values in groups, of each of which a sample fits in memory; by the shapes that are declared."""
    symbols: dict[str | int | None, int] = {}
    for value in graph.inputs:
        if value.name in one:
            symbols.update(zip(value.shape or (), np.shape(one[value.name]), strict=False))
    groups: list[list[str]] = [[]]
    taken = 0
    for name in names:
        size = _bytes(graph.value(name).shape, symbols)
        if groups[-1] and taken + size > MOST_BYTES:
            groups.append([])
            taken = 0
        groups[-1].append(name)
        taken += size
    return groups


def bytes_of(batch: Batch) -> int:
    """Of all arrays."""
    return sum(array.nbytes for array in batch.values() if isinstance(array, np.ndarray))


def _bytes(shape: Sequence[int | str | None] | None, symbols: Mapping[str | int | None, int]) -> int:
    """Of a value of four bytes a number; sizes that are not known count one."""
    sizes = [size if isinstance(size, int) else symbols.get(size, 1) for size in shape or ()]
    return 4 * int(np.prod([max(size, 1) for size in sizes], dtype=np.int64))
