"""Learning how weights of a window are rounded, or what corrects them, all together, by what the window makes.

Each number of a weight is one of the two of its grid on both sides of the weight, chosen by the sign of an offset;
scales move a little. Offsets start at where the weight lies between the two, and what is added to them is of low rank:
two thin factors a weight. Choices are hard from the first step on, and gradients pass them as through a sigmoid, so
what is learned is what is stored.

Source: CBQ, Ding et al. 2023 (arXiv:2312.07950), windows, low rank and both kinds of inputs; the choice of one of two
numbers is AdaRound's, Nagel et al. 2020 (arXiv:2004.10568).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from qcc.ir.encoding.blocked import Blocked, integers
from qcc.ir.encoding.encoded import Encoded, Scales, stored
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.fx.piece.corrections import LearnedFactors, as_constant, on_device
from qcc.ir.fx.piece.piece import TorchPiece
from qcc.ir.fx.tensors import to_array
from qcc.ir.graph.gradients import Lesson
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Weight

RATE, SCALE_RATE = 1e-2, 1e-3  # of Adam: for offsets, and for logarithms of scales
SURE = 0.05  # how far from the middle offsets begin that data had chosen against the weight itself
LOOKS = 8  # at what is held out, in all
TINY = 1e-6


@dataclass
class _Learned:
    """A weight on its way: the lower of the two numbers, the offset between them, and what is learned."""

    weight: Weight
    start: Encoded
    low: Tensor
    high: Tensor
    offset: Tensor
    scale: Tensor
    rows: Tensor
    columns: Tensor
    factors: list[Tensor]
    growth: Tensor | None

    @classmethod
    def of(
        cls, weight: Weight, matrix: Array, start: Encoded, rank: int, random: torch.Generator, on: str
    ) -> "_Learned":
        """As it was rounded to begin with."""
        encoding = start.encoding
        assert isinstance(encoding, Blocked) and isinstance(encoding.grid, IntGrid)
        grid, scales, (height, width) = encoding.grid, start.scales, encoding.block.of(start.shape)
        down, across = np.arange(start.shape[0]) // height, np.arange(start.shape[1]) // width
        zero = np.full(start.shape, grid.middle, np.float32)
        if scales.zero is not None:
            zero = scales.zero.astype(np.float32)[down][:, across]
        scale = scales.scale.astype(np.float32)
        wide = scale[down][:, across]
        now = start.codes.astype(np.float32)
        wanted = np.divide(matrix, wide, out=np.zeros_like(matrix), where=wide != 0) + zero
        low = np.clip(np.where(wanted >= now, now, now - 1), 0, grid.levels - 1)
        high = np.clip(np.where(wanted >= now, now + 1, now), 0, grid.levels - 1)
        share, up = np.clip(wanted - low, 0.01, 0.99), now == high
        agrees = (share > 0.5) == up
        share = np.where(agrees, share, np.where(up, 0.5 + SURE, 0.5 - SURE))
        free = low != high
        offset = np.where(free, np.log(share / (1 - share)), -1.0)
        sides = [on_device(one, on) for one in (low - zero, high - zero, offset)]
        rows, columns = (torch.from_numpy(one).to(on) for one in (down, across))
        shape = start.shape
        if rank:
            thin = torch.randn(shape[0], rank, generator=random) / rank**0.5
            factors = [thin.to(on), torch.zeros(rank, shape[1], device=on)]
        else:
            factors = [torch.zeros(shape, device=on)]
        plain = scales.stored is None or {*scales.stored} == {"values"}
        growth = torch.zeros(scale.shape, device=on) if plain and encoding.scale is not None else None
        found = cls(weight, start, sides[0], sides[1], sides[2], on_device(scale, on), rows, columns, factors, growth)
        for one in found.learned:
            one.requires_grad_()
        return found

    @property
    def learned(self) -> list[Tensor]:
        """What moves."""
        return [*self.factors, *([self.growth] if self.growth is not None else [])]

    @property
    def ways(self) -> list[dict[str, Any]]:
        """What moves, and how fast."""
        growths = [] if self.growth is None else [{"params": [self.growth], "lr": SCALE_RATE}]
        return [{"params": self.factors, "lr": RATE}, *growths]

    def settle(self) -> None:
        """Choices are hard: it is what is stored, but for what scales are rounded to."""

    @property
    def scales(self) -> Tensor:
        """As they are by now."""
        return self.scale if self.growth is None else self.scale * torch.exp(self.growth)

    def numbers(self) -> Tensor:
        """Before scales: one of the two, with a gradient by the offset."""
        moved = self.factors[0] @ self.factors[1] if len(self.factors) > 1 else self.factors[0]
        soft = torch.sigmoid(self.offset + moved)
        hard = (soft > 0.5).to(soft.dtype) + soft - soft.detach()
        return self.low + hard * (self.high - self.low)

    def constant(self) -> Tensor:
        """The weight's constant."""
        return as_constant(self.weight, self.numbers() * self.scales[self.rows][:, self.columns])

    def state(self) -> list[Tensor]:
        """What is learned, as it is by now."""
        return [one.detach().clone() for one in self.learned]

    def restore(self, state: Sequence[Tensor]) -> None:
        """What was learned by then."""
        with torch.no_grad():
            for one, other in zip(self.learned, state, strict=True):
                one.copy_(other)

    def encoded(self) -> Encoded:
        """What is stored of it."""
        encoding, scales = self.start.encoding, self.start.scales
        assert isinstance(encoding, Blocked) and isinstance(encoding.grid, IntGrid)
        with torch.no_grad():
            numbers, scale = to_array(self.numbers().round()), to_array(self.scales)
        zero: Array | float = float(encoding.grid.middle)
        if scales.zero is not None:
            zero = scales.zero.astype(np.float32)[to_array(self.rows)][:, to_array(self.columns)]
        codes = np.clip(np.rint(numbers + zero), 0, encoding.grid.levels - 1).astype(np.uint8)
        now = scales if self.growth is None else Scales(scale.astype(scales.scale.dtype), scales.zero)
        return Encoded(encoding, self.start.shape, stored(encoding, codes, now))


@dataclass(frozen=True)
class _Placed:
    """A lesson on the device: what is known on either kind of inputs, what is wanted, and which rows count."""

    known: tuple[Mapping[str, Tensor], Mapping[str, Tensor]]
    wanted: Tensor
    kept: Tensor | None


class TorchWindow:
    """Weights that learn together.

    Args:
        graph: of the window alone, of float weights.
        output: what it makes.
        weights: with their matrices and what they were rounded to.
        rank: of what moves offsets; 0 moves each by itself.
        seed: of the draw.

    Raises:
        ModelError: no gradient reaches any of them, ``Q646``.
    """

    def __init__(
        self, graph: Graph, output: str, weights: Sequence[tuple[Weight, Array, Encoded]], rank: int, seed: int
    ) -> None:
        self._piece, self._output = TorchPiece(graph, [output], [one.constant for one, _, _ in weights]), output
        on = "cuda" if torch.cuda.is_available() else "cpu"
        self._piece.move(on)
        random = torch.Generator().manual_seed(seed)
        reached = [one for one in weights if one[0].constant in self._piece.reach]
        self._learned = [
            _Learned.of(weight, matrix, start, rank, random, on)
            if integers(start.encoding)
            else LearnedFactors(weight, start, on)
            for weight, matrix, start in reached
        ]
        self._on, self._seed = on, seed

    def learn(
        self, lessons: Sequence[Lesson], steps: int, tick: Callable[[], None]
    ) -> tuple[dict[str, Encoded], float, float]:
        """What the weights become, and what they lose on samples held out, before and after; as they were if no less.

        Args:
            lessons: samples in chunks; some are held out.
            steps: of gradient descent.
            tick: called at each look at what is held out.
        """
        known = [self._known(one) for one in lessons]
        seen = [at for at, one in enumerate(lessons) if not one.held] or [*range(len(lessons))]
        judges = [at for at, one in enumerate(lessons) if one.held] or seen
        adam = torch.optim.Adam([way for weight in self._learned for way in weight.ways])
        order = np.random.default_rng(self._seed)
        before = least = self._held(known, judges)
        best = [one.state() for one in self._learned]
        for step in range(1, steps + 1):
            at = seen[int(order.integers(len(seen)))]
            loss = self._loss(known[at], step % 2)  # of both kinds of inputs in turn
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            adam.step()
            if step % max(steps // LOOKS, 1) == 0 or step == steps:
                tick()
                lost = self._held(known, judges)
                if lost < least:
                    least, best = lost, [one.state() for one in self._learned]
        for weight, state in zip(self._learned, best, strict=True):
            weight.restore(state)
            weight.settle()
        least = self._held(known, judges) if least < before else before
        if not least < before:
            return {one.weight.name: one.start for one in self._learned}, before, before
        return {one.weight.name: one.encoded() for one in self._learned}, before, least

    def _known(self, lesson: Lesson) -> _Placed:
        """All that no weight changes, on inputs of the compressed model and of the float one; what is wanted."""
        known = (self._piece.placed(one) for one in (lesson.now, lesson.floats))
        wanted = on_device(lesson.wanted, self._on)
        kept = None if lesson.sight is None else torch.from_numpy(np.flatnonzero(lesson.sight)).to(self._on)
        return _Placed((next(known), next(known)), wanted, kept)

    def _loss(self, placed: _Placed, side: int) -> Tensor:
        """How far rows are from the float model's, in shares of their own sizes and as distributions."""
        constants = {one.weight.constant: one.constant() for one in self._learned}
        made, width = self._piece.run(placed.known[side], constants)[self._output], placed.wanted.shape[-1]
        made, wanted = made.reshape(-1, width), placed.wanted.reshape(-1, width)
        if placed.kept is not None:
            made, wanted = made[placed.kept], wanted[placed.kept]
        size = (wanted**2).sum(-1) + TINY
        apart = (((made - wanted) ** 2).sum(-1) / size).mean()
        unit = torch.sqrt(size / width)[:, None]
        mine, its = (functional.log_softmax(one / unit, -1) for one in (made, wanted))
        return apart + functional.kl_div(mine, its, reduction="batchmean", log_target=True)

    def _held(self, placed: Sequence[_Placed], judges: Sequence[int]) -> float:
        """On samples held out, on the compressed model's inputs."""
        with torch.no_grad():
            return float(np.mean([float(self._loss(placed[at], 0)) for at in judges]))
