"""Orders of channels: by size, dealt out evenly, or in clusters that lose the least when each shares a scale.

An order ``[n]`` says for each new place which old channel comes there.
"""

import numpy as np

from qcc.ir.graph.ops import Array

MOMENT = 3  # the power whose mean stands for a block's largest weight: between its spread (2) and its outlier (many)
DIRECTIONS = 16  # in which two blocks' channels are tried to be parted anew
SWEEPS = 8  # over all pairs of blocks; most are settled after four
SETTLED = 1e-6  # what is less of an improvement is rounding


def descending(sizes: Array) -> Array:
    """The largest first, along the last axis; equal ones stay as they are."""
    return np.argsort(-sizes, axis=-1, kind="stable")


def dealt(loads: Array, tile: int) -> Array:
    """Deal channels ``[n]`` out to tiles, the heaviest first, there and back, so that all weigh about the same.

    A last tile that is not whole takes part until it is full.
    """
    room = [min(tile, len(loads) - start) for start in range(0, len(loads), tile)]
    tiles: list[list[int]] = [[] for _ in room]
    left = descending(loads).tolist()[::-1]
    rounds = 0
    while left:
        turn = [at for at in range(len(room)) if len(tiles[at]) < room[at]]
        for at in turn if rounds % 2 == 0 else reversed(turn):
            tiles[at].append(left.pop())
        rounds += 1
    return np.array([channel for one in tiles for channel in sorted(one)], dtype=np.int64)


def clustered(moments: Array, powers: Array, size: int) -> Array:
    """Part channels into blocks of ``size`` so that the rounding error that shows in the outputs is small.

    A weight's error is about as large as its block's step, and counts by its input's power. So a block loses the step
    squared times the power of its inputs: channels of large weights go together, and with them those whose inputs are
    weak. The step squared is taken from the mean of a moment of the block's weights. Two blocks at a time are parted
    anew, by size and power in the best of some proportions, until nothing improves.

    Args:
        moments: for each of some layers, of each channel's weights ``[layers, n]``.
        powers: of each channel's input ``[layers, n]``.
        size: channels in a block; the last one may have fewer.
    """
    count = -(-moments.shape[1] // size)
    search = _Search(_padded(moments, count * size), _padded(powers, count * size), moments.shape[1], size)
    changed = np.ones(count, bool)
    for _ in range(SWEEPS):
        before, changed = changed, np.zeros(count, bool)
        for pairs in _rounds(count):
            pairs = pairs[:, (before | changed)[pairs].any(0)]
            if pairs.size:
                changed[pairs[:, search.part(pairs)]] = True
        if not changed.any():
            break
    order = np.sort(search.blocks, axis=1).reshape(-1)
    return np.asarray(order[order < moments.shape[1]])


class _Search:
    """Blocks of channels, some of which may be parted anew; the last is filled with empty channels, which stay there.

    Args:
        moments: by layer and channel, the empty ones' zero.
        powers: likewise.
        channels: how many are not empty.
        size: of a block.
    """

    def __init__(self, moments: Array, powers: Array, channels: int, size: int) -> None:
        self._moments, self._powers = moments, powers
        self._counts = np.full(moments.shape[1] // size, size)
        self._counts[-1] = channels - (len(self._counts) - 1) * size
        self._keys = _proportions(moments.sum(0), powers.sum(0), whole=channels == moments.shape[1])
        self._keys[:, channels:] = np.inf
        starts = [np.arange(moments.shape[1]), descending(moments.sum(0))]
        self.blocks: Array = min((one.reshape(-1, size) for one in starts), key=self._total).copy()

    def part(self, pairs: Array) -> Array:
        """Part the channels of pairs of blocks ``[2, pairs]`` anew where that is better: tells where it was."""
        size = self.blocks.shape[1]
        both = np.concatenate(self.blocks[pairs], axis=1)
        now = np.broadcast_to(np.arange(2 * size), (1, *both.shape))
        ways = np.concatenate([now, np.argsort(self._keys[:, both], axis=2, kind="stable")])
        taken = np.take_along_axis(both[None], ways, 2)
        parts = [self._loss(taken[..., :size], pairs[0]), self._loss(taken[..., size:], pairs[1])]
        losses = parts[0] + parts[1]
        best = losses.argmin(0)
        better = np.asarray(losses.min(0) < losses[0] * (1 - SETTLED))
        chosen = taken[best, np.arange(len(best))][better]
        self.blocks[pairs[0, better]], self.blocks[pairs[1, better]] = chosen[:, :size], chosen[:, size:]
        return better

    def _loss(self, channels: Array, numbers: Array) -> Array:
        """What blocks of channels ``[..., blocks, size]`` lose; ``numbers`` tells how many channels they have."""
        moments = self._moments[:, channels].sum(-1) / self._counts[numbers]
        return np.asarray((moments ** (2 / MOMENT) * self._powers[:, channels].sum(-1)).sum(0))

    def _total(self, blocks: Array) -> float:
        return float(self._loss(blocks, np.arange(len(blocks))).sum())


def _padded(numbers: Array, size: int) -> Array:
    """Numbers ``[layers, n]`` by the mean of each layer, with zeros behind."""
    scaled = numbers / np.maximum(numbers.mean(1, keepdims=True), np.finfo(np.float64).tiny)
    return np.pad(scaled, ((0, 0), (0, size - numbers.shape[1])))


def _proportions(sizes: Array, powers: Array, whole: bool) -> Array:
    """Keys to sort channels by ``[directions, n]``: ranks in size and power, mixed; both ways unless ``whole``."""
    angles = np.linspace(0, np.pi, DIRECTIONS, endpoint=False)[:, None]
    ranks = [np.argsort(np.argsort(one, kind="stable")) for one in (sizes, powers)]
    keys = np.cos(angles) * ranks[0] + np.sin(angles) * ranks[1]
    return np.asarray(keys if whole else np.concatenate([keys, -keys]))


def _rounds(count: int) -> list[Array]:
    """Rounds ``[2, pairs]`` in which all meet all and no one twice at a time, by turning all seats but the first."""
    seats = list(range(count + count % 2))
    found = []
    for _ in range(len(seats) - 1):
        half = len(seats) // 2
        pairs = np.sort([seats[:half], seats[: half - 1 : -1]], axis=0)
        found.append(pairs[:, pairs[1] < count])
        seats[1:] = [seats[-1], *seats[1:-1]]
    return found
