"""Generated data that the model accepts: what it refuses is tried in other sizes and fillings, a bounded number."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice

import numpy as np

from qcc.compiler.calibrate.arrays import flattened
from qcc.compiler.calibrate.draw import Filling, Purpose, Role, dtype_of, purposes
from qcc.compiler.calibrate.generate import Recipe, check_sizes
from qcc.compiler.calibrate.input_axes import axis_key, free_keys, input_axes, is_image
from qcc.compiler.calibrate.samples import Samples, generate
from qcc.dsl.diagnostics.spelling import did_you_mean
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Value

ATTEMPTS = 32
PROBED = 2  # samples
FREE_SIZES = (128, 512, 2048, 1, 8, 16000, 64000)
FRAME = 640  # of speech, 40 ms
WAVE_SIZES = (8000, 4000, 2560, 1600, 1280, 960, 640, 512, 480, 320, 160)  # as speech is cut, 500 ms to 10 ms
IMAGE_SIZES = (256, 64, 512, 32)
HELP = "give data: `--data FILE.npz`, with an array for each input"


def fit_samples(
    graph: Graph, runner: Runner, count: int | None, seed: int, sizes: Mapping[str, int] | None = None
) -> Samples:
    """Generated data on which the model runs.

    Of kinds of data on which it does, one is preferred whose outputs hold something finite.

    Args:
        graph: whose inputs are generated.
        runner: of the model.
        count: samples, about.
        seed: of the draw.
        sizes: of free axes by name.

    Raises:
        ModelError: an input cannot be generated, the model takes none of what is tried, or no axis has such a name.
    """
    uses = purposes(graph, graph.inputs)
    roles = {purpose.role for purpose in uses.values()}
    first = Recipe(sizes=dict(sizes or {}))
    if Role.STATE in roles:
        first = replace(first, wave=FRAME)  # who is handed what was heard before hears a frame at a time
    check_dims(graph.inputs, first.sizes)
    runs: Recipe | None = None
    failure: ModelError | None = None
    recipes = chain(_behind_earlier(graph.inputs, uses, first), _recipes(graph.inputs, first, Role.WAVE in roles))
    for recipe in islice(recipes, ATTEMPTS):
        if runs is not None and recipe != replace(runs, filling=recipe.filling):
            continue  # sizes are not to blame for what is not finite
        try:
            tells = _probe(runner, generate(graph, PROBED, seed, recipe=recipe))
        except ModelError as error:
            if error.code != "Q406":
                raise
            failure = failure or error
            continue
        runs = runs or recipe
        if tells:
            return generate(graph, count, seed, recipe=recipe)
    if runs is None:
        raise _none_runs(graph.inputs, failure)
    return generate(graph, count, seed, recipe=runs)


def check_dims(inputs: Sequence[Value], sizes: Mapping[str, int]) -> None:
    """Hold sizes of axes to the inputs.

    Raises:
        ModelError: no input has such a free axis.
    """
    unknown = check_sizes(inputs, sizes)
    if unknown is not None:
        help = did_you_mean(unknown, free_keys(inputs)) or "all sizes are fixed"
        raise ModelError("Q428", f"no input has a free axis `{unknown}`", help=help)
    below = next((name for name, size in sizes.items() if size < 1), None)
    if below is not None:
        raise ModelError("Q428", f"the axis `{below}` cannot be {sizes[below]} long", help="sizes are at least 1")


def _behind_earlier(inputs: Sequence[Value], uses: Mapping[str, Purpose], first: Recipe) -> Iterator[Recipe]:
    """Masks that cover rows of earlier runs and those of this one, where no other input has as many as they do.

    Exporters that trace a model name the number of all rows on its own, and do not say of what it is the sum.
    """
    axes, named = input_axes(inputs), dict[str, list[str]]()
    for value in inputs:
        places = [at for at, size in enumerate(value.shape or ()) if not isinstance(size, int)]
        for key in {axis_key(value, at) for at in places if at != axes.batch[value.name]}:
            named.setdefault(key, []).append(value.name)
    masks = [name for name, use in uses.items() if use.role is Role.MASK]
    alone = [key for key, owners in named.items() if set(owners) <= set(masks) and key in free_keys(inputs)]
    earlier = any(use.role is Role.STATE for use in uses.values())
    if earlier and alone and not set(alone) & {*first.sizes, *axes.names}:
        yield replace(first, sizes={**first.sizes, **dict.fromkeys(alone, 2 * first.free)})


def _recipes(inputs: Sequence[Value], first: Recipe, waves: bool) -> Iterator[Recipe]:
    """The likeliest first; each differs in as little as possible from the first."""
    axes = input_axes(inputs)
    images = any(is_image(value, axes) for value in inputs)
    free = set(free_keys(inputs)) - axes.names - set(first.sizes)
    whole = any(dtype_of(value).kind in "biu" for value in inputs)
    fillings = [Filling.ONES, Filling.ZEROS] if whole else []
    batches = [1] if axes.free and not axes.names.intersection(first.sizes) else []
    sized = [replace(first, image=size) for size in IMAGE_SIZES if images]
    sized += [replace(first, wave=size) for size in WAVE_SIZES if free and waves]
    sized += [replace(first, free=size, wave=size) for size in FREE_SIZES if free]
    yield first
    yield from (replace(first, filling=filling) for filling in fillings)
    yield from (replace(first, batch=batch) for batch in batches)
    yield from (replace(first, filling=filling, batch=batch) for filling in fillings for batch in batches)
    yield from sized
    for one in sized:
        yield from (replace(one, batch=batch) for batch in batches)
        yield from (replace(one, filling=filling) for filling in fillings)


def _probe(runner: Runner, samples: Samples) -> bool:
    """Run a sample or two; whether outputs hold something finite."""
    outputs = flattened(runner(samples.first(PROBED).batches[0]))
    return all(_tells(array) for array in outputs.values())


def _tells(array: np.ndarray) -> bool:
    if array.dtype.kind not in "fcV":
        return array.size > 0
    return bool(np.isfinite(array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)).any())


def _none_runs(inputs: Sequence[Value], failure: ModelError | None) -> ModelError:
    named = ", ".join(f"`{value.name}`" for value in inputs) or "none"
    reason = failure.message if failure else "nothing could be tried"
    message = f"the model runs on nothing that was generated for its inputs ({named}): {reason}"
    return ModelError("Q429", message, help=f"{HELP}; or set sizes: `--dim NAME=N`")
