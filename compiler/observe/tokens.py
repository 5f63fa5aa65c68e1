"""What tokens count: the first ones of a text can be left out, or weigh more than the others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.masks import Hiding, RowLayout
from qcc.ir.graph.ops import Array

BY_SHAPE = (RowLayout.SAMPLES, RowLayout.POSITIONS, RowLayout.FLAT)


@dataclass(frozen=True)
class TokenWeights:
    """How much the rows of tokens count.

    Language models put numbers into the first token of a text that are far from all others; statistics that they would
    rule leave them out, and fits that must keep them give them more weight.

    Args:
        first: how many tokens, of those that no mask hides, are the first ones of a sample.
        weight: what each of them counts, where all others count one.
    """

    first: int = 0
    weight: float = 0.0

    def weights(self, seen: Array) -> Array:
        """Of positions ``[batch, positions]`` that are in sight or not."""
        order = np.cumsum(seen, axis=1)
        return np.where(seen & (order <= self.first), np.float32(self.weight), np.float32(1))

    def rows(self, hiding: Hiding, feeds: Batch, name: str, shape: tuple[int, ...]) -> Array | None:
        """Of the rows of a value, by its axes but the last; None where all count one, or tell nothing of tokens."""
        if not self.first:
            return None
        for mask, layout in zip(hiding.masks, hiding.layouts.get(name, ()), strict=False):
            if layout is not RowLayout.WHOLE:
                return layout.spread(self.weights(~mask.hidden(feeds)), shape)
        seen = None if hiding.masks else _positions(list(feeds.values()))
        spread = () if seen is None else (one.spread(self.weights(seen), shape) for one in BY_SHAPE)
        return next((weights for weights in spread if weights is not None), None)


@dataclass(frozen=True)
class Leading(TokenWeights):
    """What stands first along the last axis of rows does not count, whatever it is."""

    def rows(self, hiding: Hiding, feeds: Batch, name: str, shape: tuple[int, ...]) -> Array | None:
        """Nothing for the first, one for all others."""
        found = np.ones(shape, np.float32)
        found[..., : self.first] = self.weight
        return found


EVERY_TOKEN = TokenWeights()


def _positions(feeds: Sequence[Array]) -> Array | None:
    """The places of the first input that has a whole number for each position of each sample."""
    shapes = [one.shape for one in feeds if isinstance(one, np.ndarray) and one.ndim == 2 and one.dtype.kind in "iu"]
    return np.ones(shapes[0], bool) if shapes else None
