"""What an attention's own mask hides, for whatever it is fed: other documents, or what comes later."""

from collections.abc import Iterable

import numpy as np

from qcc.ir.attention.formulas import visible
from qcc.ir.graph.attention import Attention
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Feeds

MOST_ROWS = 1 << 24  # what is larger is no width but a way to write what is hidden
ROWS = 2048  # on which a mask is compared where their number is free
SEED = 0


def sees_documents(segments: Array) -> Array:
    """Which rows see which columns, ``[rows, rows]``, of rows that belong to numbered segments.

    None sees what comes later. A row sees its own segment and segment 0, which all share; rows of the last segment,
    that of the largest number, see all.
    """
    rows = len(segments)
    own = segments[:, None] == segments[None]
    wide = (segments[None] == 0) | (segments == segments.max())[:, None]
    return np.asarray((own | wide) & np.tri(rows, dtype=bool))


def why_no_documents(graph: Graph, one: Attention, name: str, sample: Feeds) -> str:
    """Why the mask of an attention is not that of the segments that an input names; empty where it is.

    What hides scores must hang on that input and on sizes alone, and hide what `sees_documents` says, in order and in
    disorder, of as many rows as windows may be long.

    Args:
        graph: the attention's.
        one: the attention.
        name: of the input.
        sample: on which the graph runs.
    """
    if reason := _why_not_of(graph, one, {name}):
        return reason
    rows = next(value.shape or (None,) for value in graph.inputs if value.name == name)[-1]
    if rows is None:
        return f"the rows of `{name}` have no name by which other inputs could be made as long"
    feeds = sample if isinstance(rows, int) else _long(graph, rows, sample)
    shape, draw = feeds[name].shape, np.random.default_rng(SEED)
    parts = np.sort(draw.integers(0, 9, shape[-1]))
    for segments in (parts, draw.permutation(parts), np.zeros_like(parts)):
        given = {**feeds, name: segments.astype(feeds[name].dtype).reshape(shape)}
        if not _hides(graph, one, given, sees_documents(segments)):
            return "its mask hides something else than other documents"
    return ""


def why_not_causal(graph: Graph, one: Attention, sample: Feeds) -> str:
    """Why an attention hides something else than what comes later; empty where it hides that, for whatever it is fed.

    Its mask is compared on as many rows as windows may be long, where their number is free.
    """
    if [masking.kind for masking in one.masking if not masking.value] == ["causal"] and len(one.masking) == 1:
        return ""
    if reason := _why_not_of(graph, one, set()):
        return reason
    free = {size for value in graph.inputs for size in value.shape or () if isinstance(size, str)}
    tried = [_long(graph, size, sample) for size in sorted(free)] or [sample]
    causal = any(_hides(graph, one, feeds, None) for feeds in tried)
    return "" if causal else "its mask hides something else than what comes later"


def _why_not_of(graph: Graph, one: Attention, inputs: set[str]) -> str:
    """Why what an attention hides hangs on more than some inputs and sizes."""
    masks = [masking.value for masking in one.masking if masking.value]
    before = _before(graph, masks)
    others = sorted(before & {value.name for value in graph.inputs} - inputs)
    if not masks or len(masks) != len(one.masking):
        return "its mask is no value of the graph"
    if others:
        return f"its mask hangs on `{others[0]}`, too" if inputs else f"its mask hangs on `{others[0]}`"
    if width := _widest(graph, before):
        return f"its mask has a number, {width:,}, that may be how far it sees"
    return ""


def _long(graph: Graph, rows: str, sample: Feeds) -> Feeds:
    """The sample with another size of the axes of this name."""
    inputs = {value.name: value.shape or () for value in graph.inputs}
    sizes = {
        one: [ROWS if symbol == rows else size for symbol, size in zip(inputs[one], array.shape, strict=True)]
        for one, array in sample.items()
    }
    return {one: np.resize(array, sizes[one]) for one, array in sample.items()}


def _widest(graph: Graph, values: Iterable[str]) -> int:
    """The largest whole number among some values that might be a width of more rows than are tried; 0 for none."""
    found = [array for value in values if (array := graph.constant(value)) is not None and array.size == 1]
    numbers = [abs(float(array.reshape(-1)[0])) for array in found if array.dtype.kind in "if"]
    return max((int(one) for one in numbers if ROWS <= one < MOST_ROWS and one == int(one)), default=0)


def _hides(graph: Graph, one: Attention, feeds: Feeds, wanted: Array | None) -> bool:
    """On some inputs exactly what is wanted is seen, and scores of that stay as they are; by default what comes before.

    By default there must be many rows, too, or as many as there ever are.
    """
    stored = {masking.value: graph.constant(masking.value) for masking in one.masking}
    computed = [value for value, array in stored.items() if array is None]
    made = graph.runner(list(feeds), computed)(feeds) if computed else {}
    seen: Array = np.ones((), bool)
    for masking in one.masking:
        array = stored[masking.value]
        array = made[masking.value] if array is None else array
        if masking.keeps is None:
            array = array * masking.scale
            if (array[visible(array)] != 0).any():
                return False
            seen = seen & visible(array)
        else:
            seen = seen & (array.astype(bool) if masking.keeps else ~array.astype(bool))
    if wanted is None:
        free = any(isinstance(size, str) for value in graph.inputs for size in value.shape or ())
        rows = ROWS if free else seen.shape[-1]
        wanted = np.tri(rows, dtype=bool)
    return seen.shape[-2:] == wanted.shape and bool((seen == wanted).all())


def _before(graph: Graph, values: list[str]) -> set[str]:
    """The values whose numbers, not only whose sizes, some hang on, themselves among them."""
    makers = {name: op for op in graph.ops() for name in op.outputs if name}
    seen, todo = set(values), list(values)
    while todo:
        op = makers.get(todo.pop())
        if op is not None and op.function != "shape":
            fresh = [name for name in op.inputs if name and name not in seen]
            seen.update(fresh)
            todo += fresh
    return seen
