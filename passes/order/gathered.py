"""Orders that gather what matters into few tiles: what block-sparse weights then keep holds more of it.

What a channel has to give is its saliency in each tile of the other axis. Channels that matter in the same places go
into one tile. The share that is kept, the largest tiles of all, is raised in turns: with the kept tiles fixed, each
channel is worth a number in every cluster of channels, and clusters of one size are filled by these; then the largest
tiles are found anew.
"""

from collections.abc import Sequence

import numpy as np

from qcc.ir.graph.ops import Array
from qcc.passes.order.orders import descending

TURNS = 8
SWEEPS = 8  # of swaps between clusters
SETTLED = 1e-4  # of all saliency: less of an improvement is not worth a turn


def gathered(profiles: Sequence[tuple[Array, int]], size: int) -> Array:
    """An order ``[contexts, channels]`` by clusters of so many channels.

    Args:
        profiles: of each weight, the saliency ``[contexts, channels, tiles of the other axis]``, and how many tiles are
            kept of it.
        size: channels in a cluster, which divides those there are.
    """
    shares = [(one / max(float(one.sum()), np.finfo(np.float64).tiny), kept) for one, kept in profiles]
    order = descending(np.sum([one.sum(-1) for one, _ in shares], 0))
    best, most = order, -1.0
    for _ in range(TURNS):
        masks = [_largest(_tiles(one, order, size), kept) for one, kept in shares]
        found = sum(
            float((_tiles(one, order, size) * mask).sum()) for (one, _), mask in zip(shares, masks, strict=True)
        )
        if found <= most + SETTLED * len(shares):
            break
        best, most = order, found
        worth = np.sum([one @ mask.swapaxes(1, 2) for (one, _), mask in zip(shares, masks, strict=True)], 0)
        order = np.stack([np.argsort(_filled(one, size), kind="stable") for one in worth])
    return best


def _tiles(share: Array, order: Array, size: int) -> Array:
    """The saliency of tiles ``[contexts, clusters, tiles]`` under an order."""
    moved = np.take_along_axis(share, order[..., None], 1)
    return np.asarray(moved.reshape(len(share), -1, size, share.shape[-1]).sum(2))


def _largest(tiles: Array, kept: int) -> Array:
    """Where the largest stand; as many as are kept, of equal ones more."""
    least = np.partition(tiles.reshape(-1), -kept)[-kept]
    return np.asarray(tiles >= least, np.float64)


def _filled(worth: Array, size: int) -> Array:
    """The cluster of each channel ``[channels]``: those that lose most elsewhere choose first, then pairs swap."""
    room = np.full(worth.shape[1], size)
    chosen = np.empty(len(worth), np.intp)
    for channel in np.argsort(worth.mean(1) - worth.max(1), kind="stable"):
        chosen[channel] = np.argmax(np.where(room > 0, worth[channel], -np.inf))
        room[chosen[channel]] -= 1
    every = np.arange(len(worth))
    for _ in range(SWEEPS):
        gain = worth[:, chosen] - worth[every, chosen][:, None]
        gain += gain.T
        partner = gain.argmax(1)
        agreed = (partner[partner] == every) & (gain[every, partner] > np.finfo(np.float32).eps)
        if not agreed.any():
            break
        chosen[agreed] = chosen[partner[agreed]]
    return chosen
