"""What an axis is made of: concatenations and products of runs of channels, unified as ops show them to be the same.

Every axis of every value is a `Dim`. A dim is *plain*, a *sum* of dims that lie one behind the other (a concatenation,
the parts of a slice) or a *product* whose last factor runs fastest (heads of channels, groups of a convolution).
Declaring two dims the same refines both to the same structure; where that is impossible both become fixed, which is
always safe: nothing will be done to their channels.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from math import prod

MOST_CHANNELS = 1 << 26  # shapes can say anything; an index of that many takes half a gigabyte


class Order(Enum):
    """How the parts of a dim make it."""

    PLAIN = "plain"
    SUM = "sum"
    PRODUCT = "product"


class Dim:
    """A run of ``size`` channels; None where the size is not known.

    ``fixed`` says why the channels may not be permuted, and is empty where they may; ``broken`` why nothing at all may
    be done to them, for it is not known what they are.
    """

    __slots__ = ("_broken", "_fixed", "_link", "_order", "_parts", "size")

    def __init__(self, size: int | None, broken: str = "") -> None:
        self.size = size
        if size is not None and size > MOST_CHANNELS:
            broken = broken or "there are more channels than can be looked at"
        self._broken = self._fixed = broken or ("the size is not known" if size is None else "")
        self._link: Dim | None = None
        self._order = Order.PLAIN
        self._parts: tuple[Dim, ...] = ()

    @property
    def root(self) -> "Dim":
        """The dim that stands for all that are the same."""
        found = self
        while found._link is not None:
            found = found._link
        at = self
        while at._link is not None:
            at._link, at = found, at._link
        return found

    @property
    def order(self) -> Order:
        """How the parts make the dim."""
        return self.root._order

    @property
    def parts(self) -> "tuple[Dim, ...]":
        """The parts, none of a plain dim."""
        return self.root._parts

    @property
    def fixed(self) -> str:
        """Why the channels of a plain dim may not be permuted."""
        return self.root._fixed

    @property
    def broken(self) -> str:
        """Why nothing may be done to the channels of a plain dim."""
        return self.root._broken

    def leaves(self) -> "Iterator[Dim]":
        """The plain dims that it is made of, in order, with repetition."""
        open_ = [self]
        while open_:
            root = open_.pop().root
            if root._order is Order.PLAIN:
                yield root
            else:
                open_.extend(reversed(root._parts))

    def _become(self, order: Order, parts: "Sequence[Dim]") -> None:
        """Refine a plain dim."""
        self._order, self._parts = order, tuple(parts)
        _mark(self, self._fixed, self._broken)


def hold(dim: Dim, reason: str) -> None:
    """Let no channel of a dim be permuted; the first reason stays."""
    _mark(dim, reason, "")


def freeze(dim: Dim, reason: str) -> None:
    """Let nothing be done to the channels of a dim; the first reason stays."""
    _mark(dim, reason, reason)


def _mark(dim: Dim, fixed: str, broken: str) -> None:
    if fixed or broken:
        for leaf in dim.leaves():
            leaf._fixed = leaf._fixed or fixed
            leaf._broken = leaf._broken or broken


def concatenation(parts: Iterable[Dim]) -> Dim:
    """Dims one behind the other; empty ones and nested concatenations are levelled."""
    flat = list(_flat(parts, Order.SUM, 0))
    if len(flat) == 1:
        return flat[0]
    if any(part.size is None for part in flat):
        for part in flat:
            freeze(part, "it lies beside channels of unknown number")
        return Dim(None)
    made = Dim(sum(part.size or 0 for part in flat))
    return _made(made, Order.SUM, flat)


def product(factors: Iterable[Dim]) -> Dim:
    """Dims counted together, the last running fastest; factors of one and nested products are levelled."""
    flat = list(_flat(factors, Order.PRODUCT, 1))
    if not flat:
        return Dim(1)
    if len(flat) == 1:
        return flat[0]
    sizes = [part.size for part in flat]
    made = Dim(None if None in sizes else prod(size or 0 for size in sizes))
    return _made(made, Order.PRODUCT, flat)


def _made(dim: Dim, order: Order, parts: Sequence[Dim]) -> Dim:
    """A dim of parts. Too many channels are for none of them; of unknown number, a factor that is known stays free."""
    dim._order, dim._parts = order, tuple(parts)
    if dim.size is not None:
        _mark(dim, dim._broken, dim._broken)
    return dim


def _flat(parts: Iterable[Dim], order: Order, neutral: int) -> Iterator[Dim]:
    for part in parts:
        root = part.root
        if root._order is order:
            yield from _flat(root._parts, order, neutral)
        elif root.size != neutral:
            yield root


def factors(dim: Dim) -> list[Dim]:
    """The factors of a dim, at least itself."""
    root = dim.root
    return list(_flat(root._parts, Order.PRODUCT, 1)) if root._order is Order.PRODUCT else [root]


def terms(dim: Dim) -> list[Dim]:
    """The terms of a dim, at least itself."""
    root = dim.root
    return list(_flat(root._parts, Order.SUM, 0)) if root._order is Order.SUM else [root]


def faster(dim: Dim, channels: Dim) -> Iterator[Dim]:
    """The plain dims that run faster than a plain dim within another: those of later factors."""
    root = dim.root
    for at, part in enumerate(root._parts):
        if root._order is Order.PRODUCT and any(leaf is channels.root for leaf in part.leaves()):
            for later in root._parts[at + 1 :]:
                yield from later.leaves()
        yield from faster(part, channels)


def lies_throughout(other: Dim, dim: Dim, channels: Dim | None = None) -> bool:
    """A plain dim lies at every position of a dim; if channels are given, at every one at which they lie."""
    root = dim.root
    if root._order is Order.PLAIN:
        return root is other.root or (channels is not None and root is not channels.root)
    if root._order is Order.SUM:
        return all(lies_throughout(other, part, channels) for part in root._parts)
    if any(lies_throughout(other, part) for part in root._parts):
        return True
    holders = [part for part in root._parts if channels is not None and channels.root in part.leaves()]
    return channels is not None and (not holders or any(lies_throughout(other, part, channels) for part in holders))


def cut(dim: Dim, start: int, stop: int) -> Dim:
    """The channels from ``start`` to ``stop``; a plain dim is refined for it."""
    root = dim.root
    if root.size is None:
        return Dim(max(stop - start, 0), "it is a part of channels of unknown number")
    if not 0 <= start <= stop <= root.size:
        freeze(root, "it is cut beyond its end")
        return Dim(max(stop - start, 0), "it is cut beyond its end")
    if (start, stop) == (0, root.size):
        return root
    if root._order is Order.PLAIN:
        sizes = (start, stop - start, root.size - stop)
        root._become(Order.SUM, [Dim(size) for size in sizes if size])
        return root._parts[1 if start else 0]
    if root._order is Order.SUM:
        found, at = [], 0
        for part in terms(root):
            size = part.size or 0
            low, high = max(start - at, 0), min(stop - at, size)
            if low < high:
                found.append(cut(part, low, high))
            at += size
        return concatenation(found)
    first, *rest = factors(root)
    inner = prod(part.size or 0 for part in rest)
    if inner and start % inner == 0 and stop % inner == 0:
        return product([cut(first, start // inner, stop // inner), *rest])
    freeze(root, "it is cut within a block")
    return Dim(stop - start, "it is cut within a block")


def every(dim: Dim, start: int, count: int, step: int) -> Dim:
    """Every ``step``-th channel from ``start`` on, ``count`` of them."""
    size = dim.size
    if step == 1:
        return cut(dim, start, start + count)
    if size is None or step < 1 or size % step or start >= step or count != size // step:
        freeze(dim, "a slice strides over it")
        return Dim(count, "a slice strides over it")
    inner = Dim(step)
    unify(dim, product([Dim(size // step), inner]))
    rows = factors(dim)[:-1]
    last = factors(dim)[-1]
    if last.size != step:
        freeze(dim, "a slice strides over it")
        return Dim(count, "a slice strides over it")
    return product([*rows, cut(last, start, start + 1)])


def unify(one: Dim, other: Dim) -> None:
    """Declare the channels of two dims the same, one by one."""
    a, b = one.root, other.root
    if a is b:
        return
    if a.size != b.size or a.size is None:
        freeze(a, "the size is not known")
        freeze(b, "the size is not known")
    elif a._order is Order.PLAIN:
        _link(a, b)
    elif b._order is Order.PLAIN:
        _link(b, a)
    elif a._order is Order.SUM and b._order is Order.SUM:
        _unify_terms(a, b)
    elif a._order is Order.PRODUCT and b._order is Order.PRODUCT:
        _unify_factors(a, b)
    else:
        _unify_mixed(*((a, b) if a._order is Order.SUM else (b, a)))


def _link(plain: Dim, other: Dim) -> None:
    if any(leaf is plain for leaf in other.leaves()):  # only sizes of one could make that happen
        freeze(other, "it would contain itself")
        return
    plain._link = other
    _mark(other, plain._fixed, plain._broken)


def _unify_terms(a: Dim, b: Dim) -> None:
    """Two concatenations: the parts between all borders are the same."""
    borders = sorted({*_borders(a), *_borders(b)})
    for start, stop in zip([0, *borders], [*borders, a.size or 0], strict=True):
        unify(cut(a, start, stop), cut(b, start, stop))


def _borders(dim: Dim) -> list[int]:
    at, found = 0, []
    for part in terms(dim):
        at += part.size or 0
        found.append(at)
    return found[:-1]


def _unify_factors(a: Dim, b: Dim) -> None:
    """Two products: equal factors are the same, a larger one is itself a product."""
    left, right = factors(a), factors(b)
    while left and right:
        x, y = left.pop(), right.pop()
        if x.size == y.size:
            unify(x, y)
            continue
        if x.size is None or y.size is None or max(x.size, y.size) % min(x.size, y.size):
            for dim in (x, y, *left, *right):
                freeze(dim, "it is split in ways that do not fit")
            return
        large, small, rest = (x, y, left) if x.size > y.size else (y, x, right)
        outer = Dim((large.size or 0) // (small.size or 1))
        unify(large, product([outer, small]))
        rest.append(outer)
    for dim in (*left, *right):
        freeze(dim, "it is split in ways that do not fit")


def _unify_mixed(sum_: Dim, product_: Dim) -> None:
    """A concatenation and a product: its outermost factor is a concatenation too, if the borders allow."""
    first, *rest = factors(product_)
    inner = prod(part.size or 0 for part in rest)
    if not inner or any(border % inner for border in _borders(sum_)):
        freeze(sum_, "it is split in ways that do not fit")
        freeze(product_, "it is split in ways that do not fit")
        return
    at = 0
    for part in terms(sum_):
        stop = at + (part.size or 0) // inner
        unify(part, product([cut(first, at, stop), *rest]))
        at = stop
