"""Orders that spread large channels evenly."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.graph.ops import Array
from qcc.passes.channels.readers import Reader
from qcc.passes.contract.contract import Between
from qcc.passes.order.alike import magnitude
from qcc.passes.order.orders import dealt
from qcc.passes.order.permute import Permute


@dataclass(frozen=True)
class Balance(Permute):
    """Deal channels out so that every tile of them weighs the same: for work that is shared out, or pruned, by tiles.

    Rewrite:
        W1 [hidden, in], W2 [out, hidden]  -->  W1[order, :], W2[:, order]

    A channel's weight is its `magnitude`. The heaviest go one to each tile, the next ones back again, and so on.

    Refused where the channels are fixed: they are an input or output of the model, or pass an op that mixes them.

    Args:
        tile: channels in a tile.

    Source: the snake order of draft allocation; balanced sparsity, Yao et al. 2019 (arXiv:1811.00206), section 3, is
    what it is for.
    """

    by: ClassVar[str] = "balance"
    measure: ClassVar[str] = "excess of the heaviest tile"
    tile: Annotated[int, Between(2, 1 << 16)] = 16

    def orders(self, readers: Sequence[Reader]) -> Sequence[Array]:
        """Dealt, for each context on its own."""
        loads = magnitude(readers)
        flat = loads.reshape(-1, loads.shape[-1])
        return [np.stack([dealt(one, self.tile) for one in flat]).reshape(loads.shape)]

    def concerns(self, one: Reader) -> bool:
        """Tiles are there however a weight is stored."""
        return True

    def loss(self, readers: Sequence[Reader], order: Array | None) -> float:
        """By how much the heaviest tile exceeds the mean."""
        loads = magnitude(readers)
        loads = loads if order is None else np.take_along_axis(loads, order, -1)
        whole = loads[..., : loads.shape[-1] // self.tile * self.tile]
        tiles = whole.reshape(*loads.shape[:-1], -1, self.tile).sum(-1)
        if not tiles.size:
            return 0.0
        mean = np.maximum(tiles.mean(-1), np.finfo(np.float64).tiny)
        return float(np.mean(tiles.max(-1) / mean) - 1)
