"""Orders that put like channels side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcc.ir.graph.ops import Array
from qcc.passes.channels.readers import Reader, estimate
from qcc.passes.order.orders import MOMENT, clustered, descending
from qcc.passes.order.permute import Permute


@dataclass(frozen=True)
class _Alike(Permute):
    """Orders that put like with like, judged by the error that rounding makes."""

    measure: ClassVar[str] = "estimated error"

    gather: bool = False

    def gathers(self) -> bool:
        """As the option says."""
        return self.gather

    def concerns(self, one: Reader) -> bool:
        """A row has several blocks."""
        return one.ordered

    def loss(self, readers: Sequence[Reader], order: Array | None) -> float:
        """By rounding some rows."""
        return estimate(readers, order)


@dataclass(frozen=True)
class Magnitude(_Alike):
    """Sort channels by the mean size of the weights that read them, so that each block holds large ones or small ones.

    Rewrite:
        W1 [hidden, in], W2 [out, hidden]  -->  W1[order, :], W2[:, order]

    A channel's size is the root mean square of its column, averaged over all layers that read it, each measured by
    its own mean. An order is only kept if it lowers the error that rounding to nearest makes in these layers by 1 %.

    Refused where the channels are fixed: they are an input or output of the model, or pass an op that mixes them.

    Args:
        gather: where they are fixed, put an op before the linear layers that reorders their input while the model runs,
            if that lowers the error by 5 %.

    Source: Accurate Block Quantization in LLMs with Outliers, Trukhanov and Soloveychik 2024 (arXiv:2403.20137),
    section 3.
    """

    by: ClassVar[str] = "magnitude"

    def orders(self, readers: Sequence[Reader]) -> Sequence[Array]:
        """By root mean square."""
        return [descending(magnitude(readers))]


@dataclass(frozen=True)
class Range(_Alike):
    """Sort channels by the largest of the weights that read them.

    Rewrite:
        W1 [hidden, in], W2 [out, hidden]  -->  W1[order, :], W2[:, order]

    As `magnitude`, with the largest weight of a column in place of its mean size: it is what an `absmax` scale has to
    cover.

    Refused where the channels are fixed: they are an input or output of the model, or pass an op that mixes them.

    Args:
        gather: where they are fixed, put an op before the linear layers that reorders their input while the model runs,
            if that lowers the error by 5 %.

    Source: Accurate Block Quantization in LLMs with Outliers, Trukhanov and Soloveychik 2024 (arXiv:2403.20137),
    section 3.
    """

    by: ClassVar[str] = "range"

    def orders(self, readers: Sequence[Reader]) -> Sequence[Array]:
        """By largest weight."""
        sizes = [one.largest() / (one.moment(2).mean() ** 0.5 or 1.0) for one in readers]
        return [descending(np.mean(sizes, 0))]


@dataclass(frozen=True)
class Hessian(_Alike):
    """Put channels into blocks by the size of their weights and the power of their inputs together.

    Rewrite:
        W1 [hidden, in], W2 [out, hidden]  -->  W1[order, :], W2[:, order]

    A block's rounding error shows in the output as the square of its step times the power of its inputs on calibration
    data. Large weights set the step, so they are put together, and beside them channels whose inputs are weak. Blocks
    are improved two at a time. The order by `magnitude` is taken where it does better. An order is only kept if it
    lowers the error of the outputs by 1 %, on samples that did not choose it.

    Refused where the channels are fixed: they are an input or output of the model, or pass an op that mixes them.

    Args:
        gather: where they are fixed, put an op before the linear layers that reorders their input while the model runs,
            if that lowers the error by 5 %.

    Source: ours; the diagonal of the Hessian as measure of a channel is from Optimal Brain Damage, LeCun et al. 1989,
    the reordering from Trukhanov and Soloveychik 2024 (arXiv:2403.20137), section 3.
    """

    uses_gram: ClassVar[bool] = True
    by: ClassVar[str] = "weight and input power"

    def orders(self, readers: Sequence[Reader]) -> Sequence[Array]:
        """In clusters, for each context on its own."""
        moments = np.stack([one.moment(MOMENT) for one in readers])
        powers = np.stack([one.channels(one.power[None]) for one in readers])
        size = min(one.block for one in readers)
        count, (*contexts, channels) = len(readers), moments.shape[1:]
        pairs = zip(
            moments.reshape(count, -1, channels).swapaxes(0, 1),
            powers.reshape(count, -1, channels).swapaxes(0, 1),
            strict=True,
        )
        found = np.stack([clustered(*pair, size) for pair in pairs]).reshape(*contexts, channels)
        return [found, descending(magnitude(readers))]


def magnitude(readers: Sequence[Reader]) -> Array:
    """The root mean square of each channel's weights ``[*contexts, size]``, each reader's measured by its own."""
    squares = [one.moment(2) for one in readers]
    return np.asarray(np.sqrt(np.mean([one / (one.mean() or 1.0) for one in squares], 0)))
