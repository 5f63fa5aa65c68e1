"""What attentions and their parts are supposed to compute, in numpy, for the comparison with what a graph computes."""

from collections.abc import Iterator

import numpy as np

from qcc.ir.graph.ops import Array

LAYOUTS = ("half", "interleaved")


def softmax(scores: Array) -> Array:
    """Of the last axis."""
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def turned(x: Array, cos: Array, sin: Array, layout: str) -> Array:
    """Channels turned: of ``x [batch, heads, rows, channels]``, as many of the first as the tables hold."""
    width = cos.shape[-1]
    head, rest = x[..., :width], x[..., width:]
    if layout == "half":
        others = np.concatenate([-head[..., width // 2 :], head[..., : width // 2]], -1)
    else:
        others = np.stack([-head[..., 1::2], head[..., ::2]], -1).reshape(head.shape)
    return np.concatenate([head * cos + others * sin, rest], -1)


def tables(one: Array, layout: str, channels: int) -> Iterator[Array]:
    """The ways to see a table as ``[batch, 1, rows, channels]``: a number a channel, or one for a pair that turns."""
    shape = tuple(size for size in one.shape[:-1] if size != 1)
    table = one if one.ndim == 4 and len(shape) == 3 else one.reshape(*shape, one.shape[-1])
    table = table[:, None] if table.ndim == 3 else table
    width = table.shape[-1]
    if width % 2 == 0 and width <= channels:
        yield table
    if 2 * width <= channels:
        yield np.concatenate([table, table], -1) if layout == "half" else np.repeat(table, 2, -1)


def readings(array: Array, batch: int, heads: int, rows: int) -> Iterator[tuple[str, Array]]:
    """The ways to see an array as ``[batch, heads, rows, channels]``, each with the layout of its axes."""
    shape = array.shape
    width = array.size // (batch * heads * rows)
    if shape == (batch, heads, rows, width):
        yield "bhsd", array
    if shape == (batch, rows, heads, width):
        yield "bshd", array.transpose(0, 2, 1, 3)
    if shape == (batch, rows, heads * width):
        yield "bs(hd)", array.reshape(batch, rows, heads, width).transpose(0, 2, 1, 3)
    if shape == (rows, batch, heads, width):
        yield "sbhd", array.transpose(1, 2, 0, 3)
    if shape == (rows, batch, heads * width):
        yield "sb(hd)", array.reshape(rows, batch, heads, width).transpose(1, 2, 0, 3)
    if shape == (batch, heads, width, rows):
        yield "bhds", array.swapaxes(2, 3)
    if shape == (batch, heads * width, rows):
        yield "b(hd)s", array.reshape(batch, heads, width, rows).swapaxes(2, 3)
    if len(shape) != 4 and shape[-2:] == (rows, width):
        yield "(bh)sd", array.reshape(batch, heads, rows, width)


def repeated(array: Array, heads: int) -> Array:
    """Heads of keys or values as often as queries have them: neighbours share one."""
    return np.repeat(array, heads // array.shape[1], 1) if heads != array.shape[1] else array


def is_close(actual: Array, expected: Array, tolerance: float) -> bool:
    """Equal up to a share of the largest number expected."""
    if actual.shape != expected.shape:
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        bound = tolerance * max(float(np.abs(expected).max(initial=0)), 1.0)
        return bool((np.abs(actual - expected) <= bound).all())


def visible(scores: Array) -> Array:
    """Which scores a bias leaves to be seen."""
    return np.asarray(scores > -1e4)


def hides_later(seen: Array) -> bool:
    """No row sees a column that comes later, where there are rows to tell it by; the last row sees all columns."""
    if seen.ndim < 2 or seen.shape[-2] < 2:
        return False
    rows, columns = seen.shape[-2:]
    return not (seen & ~np.tri(rows, columns, columns - rows, dtype=bool)).any()


def is_paired(table: Array, layout: str) -> bool:
    """Both channels of each pair that turns have the same number in a table ``[..., channels]``."""
    half = table.shape[-1] // 2
    first, second = (table[..., :half], table[..., half:]) if layout == "half" else (table[..., ::2], table[..., 1::2])
    return bool((first == second).all())


def mask_kind(seen: Array) -> str:
    """What a mask of rows and columns hides: ``causal``, ``window``, ``open`` for nothing, ``mask`` for all else."""
    if seen.all():
        return "open"
    if seen.ndim < 2:
        return "mask"
    rows, columns = seen.shape[-2:]
    places = np.arange(columns)[None] - np.arange(rows)[:, None] - (columns - rows)
    flat = seen.reshape(-1, rows, columns)
    if rows == 1 < columns:
        return "mask"
    if (flat == (places <= 0)).all():
        return "causal"
    reach = [size for size in range(1, columns) if (flat == ((places <= 0) & (places > -size))).all()]
    return "window" if reach else "mask"
