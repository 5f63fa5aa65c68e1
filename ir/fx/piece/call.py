"""A call of an op in torch, and the table of functions that make one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from qcc.ir.graph.ops import Attribute, Kind, Op

Sizes = tuple[int, ...]
Made = Tensor | Sequence[Tensor]


class Unsupported(Exception):  # noqa: N818 - an answer, not a fault
    """Torch is not told what an op does here."""


@dataclass(frozen=True)
class Call:
    """An op with what it is given.

    Args:
        op: as the Graph face has it.
        given: its operands, None for those left out.
        sizes: of its results, where its function `needs` them; empty otherwise.
    """

    op: Op
    given: tuple[Tensor | None, ...]
    sizes: tuple[Sizes, ...] = ()

    def __getitem__(self, position: int) -> Tensor:
        """An operand that is there."""
        found = self.get(position)
        if found is None:
            raise Unsupported(f"`{self.op.function}` without operand {position}")
        return found

    def get(self, position: int) -> Tensor | None:
        """An operand, or None."""
        return self.given[position] if position < len(self.given) else None

    def number(self, name: str, default: float | None = None) -> float:
        """An attribute that is a number."""
        found = self.op.attributes.get(name, default)
        if not isinstance(found, int | float):
            raise Unsupported(f"`{self.op.function}` with unknown {name}")
        return found

    def whole(self, name: str, default: int | None = None) -> int:
        """An attribute that is a whole number."""
        return int(self.number(name, default))

    def wholes(self, name: str) -> Sizes:
        """An attribute that is several whole numbers."""
        found: Attribute | None = self.op.attributes.get(name)
        if not isinstance(found, tuple):
            raise Unsupported(f"`{self.op.function}` with unknown {name}")
        return found


@dataclass(frozen=True)
class Function:
    """What torch does for a canonical function.

    Args:
        run: makes the results.
        needs: attributes without which it is not run.
        sized: it asks for the sizes of its results, which the graph's own runner tells.
    """

    run: Callable[[Call], Made]
    needs: tuple[str, ...] = ()
    sized: bool = False


TABLE: dict[tuple[Kind, str], Function] = {}


def torch_does(
    kind: Kind, *functions: str, needs: str = "", sized: bool = False
) -> Callable[[Callable[[Call], Made]], Callable[[Call], Made]]:
    """Let torch run canonical functions by what follows."""

    def noted(run: Callable[[Call], Made]) -> Callable[[Call], Made]:
        for function in functions:
            TABLE[kind, function] = Function(run, tuple(needs.split()), sized)
        return run

    return noted


def function_of(op: Op) -> Function | None:
    """What torch does for an op; None where it is not told, or the op does not say enough."""
    found = TABLE.get((op.kind, op.function))
    return found if found is not None and all(name in op.attributes for name in found.needs) else None
