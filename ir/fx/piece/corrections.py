"""Learning the thin factors that make up for what a weight lost, while all else that is stored of it stays.

Source: EfficientDM, He et al. 2023 (arXiv:2310.03270), section 3.2, whose factors are trained by what a model makes;
here they stay beside the numbers, a window of blocks at a time.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qcc.ir.encoding import fit
from qcc.ir.encoding.algebra import inside, under
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.formats.composed.low_rank import correction
from qcc.ir.encoding.reference import NUMPY
from qcc.ir.fx.tensors import to_array
from qcc.ir.graph.ops import Array, Weight

STEP = 0.02  # of Adam, in shares of a factor's mean size


def on_device(array: Array, on: str) -> Tensor:
    """Float32 numbers, where they are computed with."""
    return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(on)


def as_constant(weight: Weight, matrix: Tensor) -> Tensor:
    """A weight's matrix ``[out, in]`` as its constant."""
    view = weight.view
    order = view.order
    found = matrix.reshape([view.shape[axis] for axis in order])
    return found.permute([order.index(axis) for axis in range(len(order))])


class LearnedFactors:
    """A weight whose correction is on its way.

    Args:
        weight: of a window.
        start: what is stored of it, a product of factors in it.
        on: the device.
    """

    def __init__(self, weight: Weight, start: Encoded, on: str) -> None:
        found = correction(start.encoding)
        assert found is not None
        self.weight, self.start, (self._product, self._prefix) = weight, start, found
        shape, levels = start.shape, start.encoding.summands
        rest = np.zeros(shape, np.float32)
        for at, level in enumerate(levels):
            if f"{at}." != self._prefix:
                rest += level.decode(NUMPY, under(start.parts.__getitem__, str(at)), shape)
        self._rest = on_device(rest, on)
        self._factors = [on_device(one, on).requires_grad_() for one in self._stored(start)]

    @property
    def ways(self) -> list[dict[str, Any]]:
        """What moves, and how fast."""
        return [{"params": [one], "lr": STEP * float(one.detach().abs().mean())} for one in self._factors]

    def constant(self) -> Tensor:
        """The weight's constant."""
        return as_constant(self.weight, self._rest + self._factors[0] @ self._factors[1])

    def state(self) -> list[Tensor]:
        """The factors, as they are by now."""
        return [one.detach().clone() for one in self._factors]

    def restore(self, state: Sequence[Tensor]) -> None:
        """What they were by then."""
        with torch.no_grad():
            for one, other in zip(self._factors, state, strict=True):
                one.copy_(other)

    def settle(self) -> None:
        """Be what is stored."""
        self.restore([torch.from_numpy(one) for one in self._stored(self.encoded())])

    def encoded(self) -> Encoded:
        """What is stored of the weight."""
        parts = dict(self.start.parts)
        for name, factor in zip(("left", "right"), self._factors, strict=True):
            stored = fit.encode(to_array(factor.detach()), self._product.factors).parts
            parts |= inside(stored, f"{self._prefix}{name}")
        return Encoded(self.start.encoding, self.start.shape, parts)

    def _stored(self, encoded: Encoded) -> list[Array]:
        """The factors ``[out, rank]`` and ``[rank, in]`` that are stored."""
        (rows, columns), factors = encoded.shape, self._product.factors
        rank = self._product.rank_of(encoded.shape)
        sides = zip(("left", "right"), ((rows, rank), (rank, columns)), strict=True)
        reads = ((under(encoded.parts.__getitem__, f"{self._prefix}{name}"), shape) for name, shape in sides)
        return [np.asarray(factors.decode(NUMPY, read, shape), np.float32) for read, shape in reads]
