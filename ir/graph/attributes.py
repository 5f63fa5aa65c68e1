"""Attributes of ops in their canonical spelling, whatever framework spells them how."""

from collections.abc import Iterable, Mapping, Sequence

from qcc.ir.graph.layers import einsum_terms
from qcc.ir.graph.ops import Attribute

Attributes = Mapping[str, Attribute]
END = 2**31 - 1  # both frameworks spell "to the end" as some number from here on
DOTS = "01234567"  # letters that no equation has
Sizes = Sequence[int | str | None]


class Opaque(Exception):  # noqa: N818 - an answer, not a fault
    """The op does something that its canonical function does not say: no client may rely on that."""


def known(**attributes: Attribute | None) -> dict[str, Attribute]:
    """The attributes that are known."""
    return {name: attribute for name, attribute in attributes.items() if attribute is not None}


def rounded(number: float) -> float:
    """A number as people wrote it before it was kept in 32 bits."""
    return float(f"{number:.7g}")


def axis_of(axis: int | None, rank: int | None) -> int | None:
    """An axis counted from the front where the rank is known.

    Raises:
        ValueError: there is no such axis.
    """
    if axis is None or rank is None:
        return axis
    if not -rank <= axis < max(rank, 1):
        raise ValueError(f"no axis {axis} among {rank}")
    return axis % max(rank, 1)


def axes_of(axes: Iterable[int] | None, rank: int | None) -> tuple[int, ...] | None:
    """Axes counted from the front where the rank is known, in ascending order."""
    return (
        None
        if axes is None
        else tuple(sorted(axis for axis in (axis_of(one, rank) for one in axes) if axis is not None))
    )


def sizes_of(shape: Sizes | None) -> tuple[int, ...] | None:
    """A shape whose unknown dimensions are -1."""
    return None if shape is None else tuple(size if isinstance(size, int) else -1 for size in shape)


def slices_of(
    axes: Sequence[int] | None,
    starts: Sequence[int] | None,
    ends: Sequence[int] | None,
    steps: Sequence[int] | None,
    shape: Sizes | None,
) -> dict[str, Attribute]:
    """A slice's attributes; its bounds lie within each dimension that is known, as Python's do."""
    if axes is None or (shape is None and any(axis < 0 for axis in axes)):
        return {}
    where = tuple(axis if shape is None else axis % len(shape) for axis in axes)
    if starts is None or ends is None or steps is None:
        return known(axes=where)
    bounds = [
        _bounds(start, end, step, None if shape is None else shape[axis])
        for axis, start, end, step in zip(where, starts, ends, steps, strict=True)
    ]
    return known(
        axes=where, starts=tuple(start for start, _ in bounds), ends=tuple(end for _, end in bounds), steps=tuple(steps)
    )


def _bounds(start: int, end: int, step: int, size: int | str | None) -> tuple[int, int]:
    if isinstance(size, int) and step:
        return slice(start, end, step).indices(size)[:2]
    return start, min(end, END)


def spread(numbers: Sequence[int], count: int) -> tuple[int, ...]:
    """One number an axis, where one may stand for all."""
    return tuple(numbers) * count if len(numbers) == 1 else tuple(numbers)


def heads_of(queries: Sizes | None, keys: Sizes | None) -> tuple[int, ...] | None:
    """How many heads queries and keys have whose axes are batch, head, position, channel."""
    heads = [shape[-3] if shape is not None and len(shape) == 4 else None for shape in (queries, keys)]
    found = tuple(head for head in heads if isinstance(head, int))
    return found if len(found) == len(heads) else None


def terms_of(equation: str, ranks: Sequence[int | None]) -> str:
    """An equation of products of two operands with a letter for each axis, the same for all that spell it otherwise.

    Raises:
        Opaque: it is something else, or the axes that its dots stand for are not known.
    """
    terms, result = einsum_terms(equation)
    terms, result = _without_dots(terms, result, ranks)
    both = set(terms[0]) & set(terms[-1])
    once = all(len(set(term)) == len(term) for term in (*terms, result))
    if len(terms) != 2 or not once or (set("".join(terms)) - set(result)) - both or set(result) - set("".join(terms)):
        raise Opaque
    names = {letter: chr(ord("a") + at) for at, letter in enumerate(dict.fromkeys("".join(terms)))}
    first, second, made = ("".join(names[letter] for letter in term) for term in (*terms, result))
    return f"{first},{second}->{made}"


def _without_dots(terms: Sequence[str], result: str, ranks: Sequence[int | None]) -> tuple[list[str], str]:
    """Terms whose dots are letters of their own; dots stand for the last axes of the longest that any stands for."""
    if "..." not in "".join(terms):
        return list(terms), result
    counts = [None if rank is None else rank - len(term) + 3 for term, rank in zip(terms, ranks, strict=True)]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts) or max(known) > len(DOTS) or min(known) < 0:
        raise Opaque
    dots = DOTS[: max(one for one, term in zip(known, terms, strict=True) if "..." in term)]
    made = [term.replace("...", dots[len(dots) - one :]) for one, term in zip(known, terms, strict=True)]
    return made, result.replace("...", dots)


def scale_of(scale: float | None, width: int | str | None) -> float | None:
    """What an attention multiplies its scores by: the root of a head's width, unless it says otherwise."""
    if scale:
        return rounded(scale)
    return rounded(width**-0.5) if isinstance(width, int) and width > 0 else None
