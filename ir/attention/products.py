"""The two products of an attention: which operand stands on which side, and in what order of axes."""

from dataclasses import dataclass

from qcc.ir.attention.paths import UntoldError
from qcc.ir.graph.ops import Op


@dataclass(frozen=True)
class ProductSide:
    """An operand of a product.

    Args:
        at: its position in the op's inputs.
        order: its axes in the order batch, heads, rows, channels, or as many as there are; empty where they stand so.
        columns: the last two of them stand the other way round.
    """

    at: int
    order: tuple[int, ...] = ()
    columns: bool = False


@dataclass(frozen=True)
class AttentionProduct:
    """What is multiplied by what, and ``made``, the order of the axes of what it makes; empty where they stand so."""

    left: ProductSide
    right: ProductSide
    made: tuple[int, ...] = ()


def scores_of(op: Op) -> AttentionProduct:
    """The product of queries and keys.

    Raises:
        UntoldError: it is another product, or what it makes does not end with the axes of queries and of keys.
    """
    terms = op.attributes.get("terms")
    if not isinstance(terms, str):
        turned = _transposed(op)
        return AttentionProduct(ProductSide(0, columns=0 in turned), ProductSide(1, columns=1 not in turned))
    *both, made = terms.replace("->", ",").split(",")
    outer, ends = made[:-2], made[-2:]
    at = next((at for at in (0, 1) if len(made) > 1 and made[-2] in both[at]), 0)
    summed = [letter for letter in both[0] if letter not in made]
    sides = [_order(both[one], f"{outer}{end}{''.join(summed)}") for one, end in zip((at, 1 - at), ends, strict=False)]
    if len(sides) != 2 or len(summed) != 1 or None in sides:
        raise UntoldError("the axes of its scores stand in another order")
    return AttentionProduct(ProductSide(at, sides[0] or ()), ProductSide(1 - at, sides[1] or ()))


def product_of(op: Op, at: int) -> AttentionProduct:
    """The product of weights and values, where the weights are the operand ``at``.

    Raises:
        UntoldError: it is another product.
    """
    terms = op.attributes.get("terms")
    if not isinstance(terms, str):
        turned = _transposed(op)
        if 0 in turned:
            raise UntoldError("its weights stand on the right of the values")
        return AttentionProduct(ProductSide(0), ProductSide(1, columns=1 in turned))
    *both, made = terms.replace("->", ",").split(",")
    weights, values = both[at], both[1 - at]
    outer, row, column = weights[:-2], weights[-2:-1], weights[-1:]
    own = "".join(letter for letter in values if letter not in weights)
    order, result = _order(values, outer + column + own), _order(made, outer + row + own)
    if len(own) != 1 or order is None or result is None:
        raise UntoldError("the axes of its weights stand in another order")
    return AttentionProduct(ProductSide(at), ProductSide(1 - at, order), result)


def _order(term: str, wanted: str) -> tuple[int, ...] | None:
    """The permutation that makes one term of another; empty for none, None where they have other letters."""
    if sorted(term) != sorted(wanted):
        return None
    order = tuple(map(term.index, wanted))
    return () if order == tuple(range(len(order))) else order


def _transposed(op: Op) -> tuple[int, ...]:
    found = op.attributes.get("transposed", ())
    return found if isinstance(found, tuple) else ()
