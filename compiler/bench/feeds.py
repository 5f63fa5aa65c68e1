"""What models are timed on: inputs of a batch, generated or given."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from qcc.compiler.calibrate import samples
from qcc.compiler.calibrate.generate import FREE_AXIS, Batch, Recipe
from qcc.compiler.calibrate.input_axes import free_keys, input_axes
from qcc.compiler.calibrate.samples import Data, Samples
from qcc.compiler.console.usage import UsageError
from qcc.dsl.diagnostics.spelling import did_you_mean
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Value

SEED = 0
TOO_LARGE = "Q429"


@dataclass(frozen=True)
class Wanted:
    """What the user says of the inputs.

    Args:
        batches: sizes of a batch; None takes the model's own, or one.
        sizes: of free axes, by name.
        sequence: the size of the other free axes of inputs with fewer than four axes.
        data: to take rows from, instead of generating: an ``.npz`` or what else ``--data`` may name.
    """

    batches: tuple[int, ...] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    sequence: int | None = None
    data: Data | None = None


def feeds(graph: Graph, wanted: Wanted) -> dict[int, Batch]:
    """The feeds of each batch.

    Raises:
        UsageError: the model has no such axis, or its batch is another.
        ModelError: the data does not fit, or inputs cannot be generated.
    """
    _check_sizes(graph.inputs, wanted)
    fixed = input_axes(graph.inputs).fixed
    batches = wanted.batches or (fixed or 1,)
    other = [batch for batch in batches if fixed and batch != fixed]
    if other:
        raise UsageError(f"the model's batch is {fixed}: `--batch {other[0]}`", "leave `--batch` out")
    if wanted.data is not None:
        loaded = samples.load(wanted.data, graph, max(batches), SEED)
        return {batch: _rows(loaded, batch) for batch in batches}
    try:
        return {batch: _drawn(graph, wanted, batch) for batch in batches}
    except (MemoryError, OverflowError, ValueError) as error:  # numpy says any of them of arrays beyond all memory
        raise UsageError(f"inputs of that size cannot be made: {str(error).lower()}") from error
    except ModelError as error:
        if error.code != TOO_LARGE:
            raise
        raise UsageError(f"inputs of that size cannot be made: {error.message}") from error


def _check_sizes(inputs: tuple[Value, ...], wanted: Wanted) -> None:
    if wanted.data is not None and (wanted.sizes or wanted.sequence):
        option = "--dim" if wanted.sizes else "--sequence"
        raise UsageError(f"`{option}` is for generated inputs, and `--data` gives some")
    names = set(free_keys(inputs))
    firsts = input_axes(inputs).names
    for name in wanted.sizes:
        if name in firsts:
            raise UsageError(f"`{name}` is the inputs' batch", f"`--batch {wanted.sizes[name]}` sets it")
        if name not in names:
            help = did_you_mean(name, sorted(names - firsts)) or "all sizes but the batch are fixed"
            raise UsageError(f"no input has a free axis `{name}`", help)


def _rows(loaded: Samples, count: int) -> Batch:
    """The first samples of one length, from the beginning again where there are too few."""
    first_batch = loaded.batches[0]
    if not loaded.divisible:
        return first_batch
    joined = {}
    alike = [batch for batch in loaded.batches if loaded.kind(batch) == loaded.kind(first_batch)]
    for name, first in first_batch.items():
        at = loaded.axis(name, first)
        arrays = [batch[name] for batch in alike]
        whole = first if at is None else np.concatenate(arrays, at)
        joined[name] = whole if at is None else whole.take(np.arange(count) % whole.shape[at], at)
    return joined


def _drawn(graph: Graph, wanted: Wanted, batch: int) -> Batch:
    recipe = Recipe(batch, wanted.sequence or FREE_AXIS, sizes=wanted.sizes)
    return samples.generate(graph, batch, SEED, recipe=recipe).batches[0]
