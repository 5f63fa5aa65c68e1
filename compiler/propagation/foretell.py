"""What a layer's own error comes to at a model's outputs, foretold by what becomes of errors on the way.

The model is cut behind its residual blocks, or where few values are alive. What a layer errs of its own is looked at
behind its block: what the block makes of it counts, not what it is inside. The blocks behind pass on a share of the
noise over signal that they are given, which one run of the compressed model tells of all: their gains. A layer is
foretold to lose its own noise there times the gains of the blocks behind its own.

Noise is over what varies, channel by channel, and that of a value is the mean over its channels: what reads a value
makes its channels of one size again, and a few large ones would stand for all. Rows that a mask hides do not count.

Source: Beyond Outliers (arXiv:2509.23500), for gains by which errors are passed on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qcc.compiler.calibrate.find_masks import find_masks
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.measure.march.windows import block_ends
from qcc.compiler.measure.segments import Segment, Values, cut, cut_behind
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Array, Weight

TOGETHER = 8  # samples that run at once
IMAGE = 4  # axes of a value whose channels are the second, not the last
STILL = 1e-6  # of what channels vary by on average: in one that varies less there is nothing to lose

Sight = Mapping[str, Array]


def foretold(
    graph: Graph, copy: Graph, weights: Sequence[Weight], alone: Callable[[Weight], Graph], samples: Samples
) -> dict[str, float]:
    """What each weight alone is foretold to lose at the outputs, by name, as far as it stands in one block.

    Args:
        graph: of floats.
        copy: computes what the compressed model does.
        weights: that are encoded.
        alone: makes a copy in which one of them alone is.
        samples: to run on.
    """
    blocks = _blocks(graph, copy, weights, alone)
    names = sorted({name for one in blocks for name in one.piece.makes})
    whole = graph.runner(tuple(value.name for value in graph.inputs), names)
    hiding = find_masks(graph.inputs, whole, samples)
    for feeds in map(hiding.cropped, samples.parts(TOGETHER)):
        sight = hiding.sight(whole, feeds, whole(feeds)) if hiding.masks else {}
        floats, now = dict(feeds), dict(feeds)
        for block in blocks:
            floats, now = block.passed(floats, now, sight)
    found: dict[str, float] = {}
    behind = 1.0
    for block in reversed(blocks):
        found |= {name: noise.share * behind for name, noise in block.own.items()}
        behind *= block.gain
    return found


class _Noise:
    """Of some values over what varies in them."""

    def __init__(self) -> None:
        self._sums: dict[str, Array] = {}
        self._rows: dict[str, int] = {}

    def add(self, wanted: Values, got: Values, sight: Sight) -> None:
        """More samples of the values that are not what they should be."""
        for name, array in wanted.items():
            if array.dtype.kind != "f" or array.ndim < 2 or np.array_equal(array, got[name]):
                continue
            rows, others = (_by_channel(one, sight.get(name)) for one in (array, got[name]))
            sums = np.stack([((others - rows) ** 2).sum(0), rows.sum(0), (rows**2).sum(0)])
            self._sums[name] = self._sums.get(name, 0) + sums
            self._rows[name] = self._rows.get(name, 0) + len(rows)

    @property
    def share(self) -> float:
        """The noise over the signal, the mean over channels and values."""
        found = []
        for name, (noise, total, squares) in self._sums.items():
            varies = squares - total**2 / max(self._rows[name], 1)
            known = varies > STILL * varies.mean()
            found.append(float((noise[known] / varies[known]).mean()) if known.any() else 0.0)
        return float(np.mean(found)) if found else 0.0


@dataclass
class _Block:
    """A piece of the model: how it runs, and what it was given, passed on, and errs of its own."""

    piece: Segment
    plain: Runner
    encoded: Runner
    alone: Mapping[str, Runner]
    given: _Noise = field(default_factory=_Noise)
    carried: _Noise = field(default_factory=_Noise)
    own: dict[str, _Noise] = field(init=False)

    def __post_init__(self) -> None:
        self.own = {name: _Noise() for name in self.alone}

    def passed(self, floats: Values, now: Values, sight: Sight) -> tuple[Values, Values]:
        """The values behind it in the float model and the compressed one."""
        read, given = ({name: side[name] for name in self.piece.reads} for side in (floats, now))
        made = dict(self.plain(read))
        for name, run in self.alone.items():
            self.own[name].add(made, dict(run(read)), sight)
        self.given.add(read, given, sight)
        self.carried.add(made, dict(self.plain(given)), sight)
        return self.piece.carried(floats, made), self.piece.carried(now, dict(self.encoded(given)))

    @property
    def gain(self) -> float:
        """How much of the noise over signal that it is given is in what it makes; 1 where it was given none."""
        given = self.given.share
        return self.carried.share / given if given else 1.0


def _blocks(graph: Graph, copy: Graph, weights: Sequence[Weight], alone: Callable[[Weight], Graph]) -> list[_Block]:
    """In their order, with the weights of which all that they make lies in one."""
    ends = block_ends(graph)
    makers = {op.name: op.outputs[0] for op in graph.ops()}
    made = {one.name: {makers[layer.op] for layer in one.layers} for one in weights}
    found = []
    for piece in cut_behind(graph, ends) if ends else cut(graph):
        here = [one for one in weights if made[one.name] <= piece.inside]
        runs = {one.name: alone(one).runner(piece.reads, piece.makes) for one in here}
        plain, encoded = graph.runner(piece.reads, piece.makes), copy.runner(piece.reads, piece.makes)
        found.append(_Block(piece, plain, encoded, runs))
    return found


def _by_channel(array: Array, kept: Array | None) -> Array:
    """As rows of channels, those that count."""
    wide = np.moveaxis(array, 1, -1) if array.ndim >= IMAGE else array
    rows = wide.reshape(-1, wide.shape[-1]).astype(np.float64)
    return rows if kept is None or array.ndim >= IMAGE else rows[np.flatnonzero(kept)]
