"""Two products behind each other as one op: ``linear_..._then_linear_...``, as a feed-forward is."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import lcm

import numpy as np

from qcc.ir.kernel.library_op import LibraryOp
from qcc.ir.kernel.op import CHUNK, JOINED_ROWS, STEPS, LinearOp, OpError, parse

THEN = "_then_"


@dataclass(frozen=True)
class SequenceOp(LibraryOp):
    """``second(first(x))``; what lies between is no output.

    Args:
        first: makes one value of its steps, none of which is a norm.
        second: multiplies that value, and no tensor of its steps is it.
    """

    first: LinearOp
    second: LinearOp

    def __post_init__(self) -> None:
        if any(one.pointwise or one.tile is not None for one in self.members):
            raise OpError("products behind each other are of linear layers, whose weights are stored whole")
        if len(self.first.outputs) > 1 or any(STEPS[step].whole for step in self.first.steps):
            raise OpError("the first of two products makes one value, without a norm")
        if self.second.beside:
            raise OpError("the second of two products is one alone")

    @property
    def members(self) -> tuple[LinearOp, LinearOp]:
        """Both, in order."""
        return self.first, self.second

    @property
    def name(self) -> str:
        """See `LibraryOp.name`."""
        return THEN.join(one.name for one in self.members)

    @property
    def inputs(self) -> tuple[str, ...]:
        """``x``, all else that the first reads, and all else that the second does."""
        return (*self.first.inputs, *(f"{name}_then" for name in self.second.inputs[1:]))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Those of the second."""
        return self.second.outputs

    @property
    def attributes(self) -> Mapping[str, float]:
        """Those of the second."""
        return self.second.attributes

    def constants(self) -> Mapping[str, np.ndarray]:
        """See `LibraryOp.constants`: the first makes as many as the second reads."""
        between = lcm(self.second.group or CHUNK, JOINED_ROWS if self.first.beside else 1)
        held = (self.first.ones(between, self.first.group or CHUNK), self.second.ones(1, between))
        own = [(arrays, name) for one, arrays in zip(self.members, held, strict=True) for name in one.inputs[1:]]
        named = zip(self.inputs[1:], own, strict=True)
        return {name: arrays[inner] for name, (arrays, inner) in named if inner in arrays}


def parse_sequence(name: str) -> SequenceOp | None:
    """The op that a name stands for; None if it names no two products.

    Raises:
        OpError: one of them is none, or they do not go together.
    """
    first, then, second = name.partition(THEN)
    return SequenceOp(parse(first), parse(second)) if then else None
