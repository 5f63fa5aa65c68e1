"""Generated inputs: how large, how many, and of what; plain data, for a recipe that can be changed where it fails."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qcc.compiler.calibrate.draw import (
    Drawing,
    Filling,
    Purpose,
    Role,
    draw,
    dtype_of,
    feature_sizes,
    is_wave,
    purposes,
)
from qcc.compiler.calibrate.input_axes import InputAxes, axis_key, bound_shape, free_keys, input_axes, is_image
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Value

BATCH = 16
FREE_AXIS = 32  # a dynamic axis that is not the batch: a short sequence
IMAGE_AXIS = 224
WAVE_AXIS = 16000  # a second of speech
CHANNELS = 3
BATCH_ELEMENTS = 1 << 23  # more than that in an input, and batches get smaller
MOST_BYTES = 1 << 31  # of a batch

Batch = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """How inputs are generated.

    Args:
        batch: samples at once, where the model leaves it open; None takes a few, and fewer of large inputs.
        free: the size of other free axes.
        image: that of free axes of images.
        wave: that of signals in time.
        sizes: of free axes by name, where they are known; the batch may be among them.
        filling: of whole numbers and booleans.
    """

    batch: int | None = None
    free: int = FREE_AXIS
    image: int = IMAGE_AXIS
    wave: int = WAVE_AXIS
    sizes: Mapping[str, int] = field(default_factory=dict)
    filling: Filling = Filling.DRAWN


def shapes(
    graph: Graph, inputs: Sequence[Value], axes: InputAxes, recipe: Recipe, most: int = BATCH
) -> dict[str, tuple[int, ...]]:
    """The shape of each input in a batch, of at most ``most`` samples where the recipe does not say.

    Raises:
        ModelError: a batch would take more memory than is sensible.
    """
    sizes = _sizes(graph, inputs, axes, recipe)
    asked = next((size for name, size in recipe.sizes.items() if name in axes.names), recipe.batch)
    if asked is None:
        ones = (math.prod(bound_shape(value, axes, 1, sizes)) for value in inputs)
        asked = max(min(BATCH, most, BATCH_ELEMENTS // max(*ones, 1, 1)), 1)
    found = {value.name: bound_shape(value, axes, asked, sizes) for value in inputs}
    for value in inputs:
        if math.prod(found[value.name]) * dtype_of(value).itemsize > MOST_BYTES:
            shown = "x".join(map(str, found[value.name]))
            help = "give data: `--data FILE.npz`, or smaller sizes: `--dim NAME=N`"
            raise ModelError("Q429", f"input `{value.name}` is too large to be generated: {shown}", help=help)
    return found


def batches(
    graph: Graph, inputs: Sequence[Value], axes: InputAxes, count: int, seed: int, recipe: Recipe
) -> list[Batch]:
    """About ``count`` samples, in batches.

    Raises:
        ModelError: an input cannot be generated.
    """
    drawing, uses = Drawing(seed), purposes(graph, inputs)
    made = shapes(graph, inputs, axes, recipe, count)
    size = next((made[name][at] for name, at in axes.batch.items() if at is not None), 1)
    longest = min(_lengths(inputs, made, axes), default=1)
    uses = {name: Purpose(use.role, longest) if use.role is Role.LENGTH else use for name, use in uses.items()}

    def one(value: Value) -> np.ndarray:
        name = value.name
        return draw(value, made[name], axes.batch[name], uses[name], recipe.filling, drawing)

    return [{value.name: one(value) for value in inputs} for _ in range(max(count // max(size, 1), 1))]


def check_sizes(inputs: Sequence[Value], sizes: Mapping[str, int]) -> str | None:
    """The first of some names that no free axis has."""
    known = {*free_keys(inputs), *input_axes(inputs).names}
    return next((name for name in sizes if name not in known), None)


def _sizes(graph: Graph, inputs: Sequence[Value], axes: InputAxes, recipe: Recipe) -> dict[str, int]:
    """The size of each free axis by name; one that several inputs have is as long as the shortest would be."""
    found: dict[str, int] = {}
    for value in inputs:
        features = dict(feature_sizes(graph, value))
        for at, size in enumerate(value.shape or ()):
            if isinstance(size, int) or at == axes.batch.get(value.name):
                continue
            usual = features.get(at, _usual(graph, value, at, axes, recipe))
            for name in free_keys([replace(value, shape=(axis_key(value, at),))]):
                found[name] = min(found.get(name, usual), usual)
    return {**found, **recipe.sizes}


def _usual(graph: Graph, value: Value, at: int, axes: InputAxes, recipe: Recipe) -> int:
    shape = value.shape or ()
    if is_image(value, axes):
        free = [
            one for one in range(len(shape)) if one != axes.batch.get(value.name) and not isinstance(shape[one], int)
        ]
        return CHANNELS if len(free) == len(shape) - 1 and at == free[0] else recipe.image
    others = [size for one, size in enumerate(shape) if one not in (at, axes.batch.get(value.name))]
    return recipe.wave if all(size == 1 for size in others) and is_wave(graph, value) else recipe.free


def _lengths(inputs: Sequence[Value], made: Mapping[str, tuple[int, ...]], axes: InputAxes) -> Iterator[int]:
    """The sizes of free axes, which lengths may count."""
    for value in inputs:
        for at, size in enumerate(value.shape or ()):
            if not isinstance(size, int) and at != axes.batch[value.name]:
                yield made[value.name][at]
