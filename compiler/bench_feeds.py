"""What models are timed on: inputs of a batch, generated or given."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from qcc.compiler import samples
from qcc.compiler.cli import UsageError
from qcc.compiler.samples import FREE_AXIS, IMAGE_AXIS, Batch
from qcc.dsl.diagnostics import did_you_mean
from qcc.ir.graph import Graph, Value

SEED = 0
IMAGE_AXES = 4


@dataclass(frozen=True)
class Wanted:
    """What the user says of the inputs.

    Args:
        batches: sizes of a batch; None takes the model's own, or one.
        sizes: of free axes, by name.
        sequence: the size of the other free axes of inputs with fewer than four axes.
        data: an ``.npz`` to take rows from, instead of generating.
    """

    batches: tuple[int, ...] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    sequence: int | None = None
    data: Path | None = None


def feeds(graph: Graph, wanted: Wanted) -> dict[int, Batch]:
    """The feeds of each batch.

    Raises:
        UsageError: the model has no such axis, or its batch is another.
        ModelError: the data does not fit, or inputs cannot be generated.
    """
    _check_sizes(graph.inputs, wanted)
    fixed = next((value.shape[0] for value in graph.inputs if value.shape and isinstance(value.shape[0], int)), None)
    batches = wanted.batches or (fixed or 1,)
    other = [batch for batch in batches if fixed and batch != fixed]
    if other:
        raise UsageError(f"the model's batch is {fixed}: `--batch {other[0]}`", "leave `--batch` out")
    if wanted.data is not None:
        loaded = samples.load(wanted.data, graph, max(batches), SEED)
        return {batch: _rows(loaded.batches, batch) for batch in batches}
    try:
        return {batch: _drawn(graph, wanted, batch) for batch in batches}
    except (MemoryError, OverflowError, ValueError) as error:  # numpy says any of them of arrays beyond all memory
        raise UsageError(f"inputs of that size cannot be made: {str(error).lower()}") from error


def _check_sizes(inputs: tuple[Value, ...], wanted: Wanted) -> None:
    if wanted.data is not None and (wanted.sizes or wanted.sequence):
        option = "--dim" if wanted.sizes else "--sequence"
        raise UsageError(f"`{option}` is for generated inputs, and `--data` gives some")
    names = {size for value in inputs for size in value.shape or () if isinstance(size, str)}
    firsts = _batch_names(inputs)
    for name in wanted.sizes:
        if name in firsts:
            raise UsageError(f"`{name}` is the inputs' first axis", f"`--batch {wanted.sizes[name]}` sets it")
        if name not in names:
            help = did_you_mean(name, sorted(names - firsts)) or "all sizes but the batch are fixed"
            raise UsageError(f"no input has a free axis `{name}`", help)


def _batch_names(inputs: tuple[Value, ...]) -> set[str]:
    return {value.shape[0] for value in inputs if value.shape and isinstance(value.shape[0], str)}


def _rows(batches: tuple[Batch, ...], count: int) -> Batch:
    """The first rows, from the beginning again where there are too few."""
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    return {name: array[np.arange(count) % len(array)] for name, array in joined.items()}


def _drawn(graph: Graph, wanted: Wanted, batch: int) -> Batch:
    firsts = _batch_names(graph.inputs)

    def size(value: Value, at: int, known: int | str | None) -> int:
        if isinstance(known, int):
            return known
        if at == 0 or known in firsts:
            return batch
        usual = IMAGE_AXIS if len(value.shape or ()) == IMAGE_AXES else wanted.sequence or FREE_AXIS
        return wanted.sizes.get(known or "", usual)

    def bound(value: Value) -> Value:
        sizes = None if value.shape is None else tuple(size(value, at, one) for at, one in enumerate(value.shape))
        return replace(value, shape=sizes)

    return samples.generate(graph, batch, SEED, tuple(map(bound, graph.inputs))).batches[0]
