"""Orders for weights that are treated by tiles: large channels spread evenly, or what is to be kept gathered."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.axes.arrange import Arrangement
from qcc.ir.axes.axes import Group
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.graph.ops import Array, Weight
from qcc.passes.channels.readers import Reader
from qcc.passes.contract.contract import Between, Edit, Site
from qcc.passes.order.alike import magnitude
from qcc.passes.order.gathered import gathered
from qcc.passes.order.orders import dealt
from qcc.passes.order.permute import GAIN, Permute, Run


@dataclass(frozen=True)
class _Tiled:
    """A weight of which tiles are to be kept, and where a group's channels lie in it.

    Args:
        weight: the weight.
        seen: the saliency of each of its numbers, on data to learn from.
        held: the same on data to judge by.
        encoding: how it will be stored.
        axis: of the matrix, on which the channels lie.
        places: where they lie in the constant.
    """

    weight: Weight
    seen: Array
    held: Array
    encoding: Encoding
    axis: int
    places: tuple[Arrangement, ...]

    @property
    def size(self) -> int:
        """Channels in a tile."""
        assert self.encoding.tile is not None
        return self.encoding.tile[self.axis]

    def profile(self) -> Array:
        """The saliency ``[contexts, channels, tiles of the other axis]``."""
        assert self.encoding.tile is not None
        other = 1 - self.axis
        number = np.indices(self.weight.shape, sparse=True)[other] // self.encoding.tile[other]
        numbers = self.weight.view.array(np.broadcast_to(number, self.weight.shape))
        constant = self.weight.view.array(self.seen)
        found: list[Array] = []
        for place in self.places:
            laid, tile = (place.take(one) for one in (constant, numbers))
            laid, tile = (one.reshape(-1, *one.shape[-2:]) for one in (laid, tile))
            sums = np.zeros((*laid.shape[:2], int(number.max()) + 1))
            np.add.at(sums, (*np.indices(laid.shape, sparse=True)[:2], tile), laid)
            found.append(sums)
        return np.asarray(np.sum(found, 0))

    def kept(self, order: Array | None) -> float:
        """The share of saliency that is kept, by what was held out."""
        assert self.encoding.tile is not None
        constant = self.weight.view.array(self.held)
        for place in self.places if order is not None else ():
            assert order is not None
            constant = place.put(constant, np.take_along_axis(place.take(constant), order[..., None], axis=-2))
        sums: Array = self.weight.view.matrix(constant)
        for axis, extent in enumerate(self.encoding.tile):
            sums = np.add.reduceat(sums, np.arange(0, sums.shape[axis], extent), axis=axis)
        count = self.encoding.tiles_kept(self.weight.shape)
        whole = float(sums.sum())
        return float(np.sort(sums, axis=None)[-count:].sum()) / whole if whole else 1.0


@dataclass(frozen=True)
class Balance(Permute):
    """Gather what blocks are to keep, or deal channels out so that every tile of them weighs the same.

    Rewrite:
        W1 [hidden, in], W2 [out, hidden]  -->  W1[order, :], W2[:, order]

    Where weights will be stored in `blocks`, those that read the channels and those that make them, channels that
    matter in the same places are gathered into one block, so that the blocks that stay hold more of what matters. What
    a weight matters is its square times the power of its input, or its square alone where `by = magnitude`. An order is
    only kept if the blocks that stay hold 1 % more for it, on samples that did not choose it; the report tells for each
    layer.

    Elsewhere a channel's weight is its `magnitude`: the heaviest go one to each tile, the next ones back again, and so
    on, for work that is shared out by tiles.

    Refused where the channels are fixed: they are an input or output of the model, or pass an op that mixes them.

    Args:
        tile: channels in a tile, where no block says it.

    Source: the snake order of draft allocation; balanced sparsity, Yao et al. 2019 (arXiv:1811.00206), section 3, is
    what it is for. The gathering is ours.
    """

    uses_gram: ClassVar[bool] = True
    by: ClassVar[str] = "balance"
    measure: ClassVar[str] = "excess of the heaviest tile"
    tile: Annotated[int, Between(2, 1 << 16)] = 16

    def permute(self, run: Run, site: Site, group: Group) -> None:
        """Gather where there are blocks."""
        tiled = _tiled(run, group)
        if not tiled:
            super().permute(run, site, group)
            return
        run.context.progress(site.subject)
        size = max(one.size for one in tiled)
        profiles = [(one.profile(), one.encoding.tiles_kept(one.weight.shape)) for one in tiled]
        shape = profiles[0][0].shape[:2]
        if size < 2 or shape[1] % size or any(one.shape[:2] != shape for one, _ in profiles):
            return
        order = gathered(profiles, size).reshape(*group.contexts, shape[1])
        before, after = ([one.kept(given) for one in tiled] for given in (None, order))
        if sum(after) < sum(before) * (1 + GAIN):
            return
        run.move(run.readers(group), order)
        run.axes.apply(group, order)
        for one, was, now in zip(tiled, before, after, strict=True):
            text = f"{order.shape[-1]} channels gathered, what blocks keep of the saliency {was:.1%} to {now:.1%}"
            run.edits.append(Edit(site.subject, text, layers=(one.weight.name,), gathered=(was, now)))

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


def _tiled(run: Run, group: Group) -> list[_Tiled]:
    """The targets of which tiles will be kept, with the group's channels on either axis."""
    found: dict[tuple[str, str], list[Arrangement]] = {}
    for one in group.constants:
        encoding = run.context.encodings.get(one.weight)
        if one.weight in run.weights and one.side and encoding is not None and encoding.tile is not None:
            found.setdefault((one.weight, one.side), []).append(run.axes.arrangement(one, group))
    return [_one(run, name, side, tuple(places)) for (name, side), places in found.items()]


def _one(run: Run, name: str, side: str, places: tuple[Arrangement, ...]) -> _Tiled:
    weight, encoding = run.weights[name], run.context.encodings[name]
    squares = np.square(run.graph.matrix(weight), dtype=np.float64)
    ones = np.ones(weight.shape[1])
    seen, held = run.powers.get(name, (ones, ones)) if encoding.learns else (ones, ones)
    return _Tiled(weight, squares * seen, squares * held, encoding, int(side == "in"), places)
