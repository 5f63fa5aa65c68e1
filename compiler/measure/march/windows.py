"""Learning weights in windows of blocks, each on what the compressed blocks before it make.

The model is cut behind its residual blocks. Samples stand before a block twice, as the float model and as the
compressed one has them; the next blocks learn together to make of both what the float model makes, and those that no
further window learns again are passed over with what their weights became. Where samples held out are no better off, a
window's weights stay as they were rounded. What a window gave is kept on disk until the run is whole, so that one that
was killed goes on behind it.

Source: CBQ, Ding et al. 2023 (arXiv:2312.07950): windows that overlap, outliers that are cut off from coarse to fine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from qcc.compiler.calibrate.find_masks import find_masks
from qcc.compiler.calibrate.parts import Parted
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.measure.march.in_order import Chosen
from qcc.compiler.measure.segments import Segment, Values, cut_behind
from qcc.compiler.observe.chunks import CAPTURED_BYTES, chunks
from qcc.compiler.observe.kept_weights import KeptParts
from qcc.compiler.plan.plan import Plan
from qcc.dsl.policy.policy import Reconstruct
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import integers
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.formats.composed.low_rank import correction
from qcc.ir.errors import ModelError, Refused
from qcc.ir.graph.gradients import Lesson
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind, Weight
from qcc.ir.open_file import window
from qcc.ir.regions.residual import ResidualBranch, residual_branches
from qcc.passes.contract.contract import Context
from qcc.passes.encode import Encode

ROWS = 2048  # of a chunk's blocks, about, that learn at once
MIXES = (Kind.SOFTMAX, Kind.ATTENTION)  # in the branch that a transformer's block begins with
LEARNED = "learned in a window of blocks"
FAR = 1.5  # ranges between quartiles, beyond which a number may be an outlier


def learn_in_windows(
    graph: Graph, plan: Plan, samples: Samples, context: Context, how: Reconstruct, kept: KeptParts
) -> tuple[Chosen, str]:
    """What weights become that learn in windows, by name, and what is told of it.

    Args:
        graph: rewritten, and not encoded.
        plan: decided.
        samples: to run on; a quarter is held out.
        context: as weights are rounded by, with what is chosen of them before.
        how: how large windows are, and how long they learn.
        kept: of windows that were learned before.

    Raises:
        ModelError: PyTorch is not there, the graph has no residual blocks, or no gradient passes them.
    """
    ends = block_ends(graph)
    if not ends:
        help = "leave `reconstruct` out; `rounding = adaround` learns layer by layer"
        raise ModelError("Q675", "the model has no residual blocks, of which windows are made", help)
    march = _Blocks.of(graph, plan, samples, context, ends, how, kept)
    lost = [march.window(first) for first in _firsts(len(ends), how)]
    better = [after / before for before, after in lost if after < before]
    share = float(np.mean([after / before if before else 1.0 for before, after in lost]))
    told = (
        f"learned {len(better)} of {len(lost)} windows, which lose {share:.2f} of what rounding did on samples held out"
    )
    return march.chosen, told


def block_ends(graph: Graph) -> list[str]:
    """The values behind a graph's residual blocks: an attention and the branches up to the next, or each by itself."""
    kinds = {op.name: op.kind for op in graph.ops()}
    branches = residual_branches(graph)
    inner = {one.name for one in branches for other in branches if one.op in other.ops}
    outer = [one for one in branches if one.name not in inner]

    def begins(branch: ResidualBranch) -> bool:
        return any(kinds[op] in MIXES for op in branch.ops)

    whole = any(map(begins, outer))
    return [
        one.sum
        for one, after in zip(outer, [*outer[1:], None], strict=False)
        if after is None or not whole or begins(after)
    ]


def _learns(encoding: Encoding) -> bool:
    """Its numbers can be chosen, or the factors of what corrects them."""
    return integers(encoding) is not None or correction(encoding) is not None


def truncated(matrix: Array) -> Array:
    """A weight with its outliers cut off at the largest number that is none.

    Numbers far above the quartiles may be outliers. Of these those are that lie apart: the gap to what stays, squared,
    less the variance of what goes, is largest.
    """
    sizes = np.abs(matrix)
    low, high = np.quantile(sizes, (0.25, 0.75))
    far = np.sort(sizes[sizes > high + FAR * (high - low)])
    if len(far) < 2:
        return matrix
    counts = np.arange(len(far), 0, -1)
    sums, squares = (np.cumsum(one[::-1])[::-1] for one in (far.astype(np.float64), far.astype(np.float64) ** 2))
    spread = squares / counts - (sums / counts) ** 2
    gaps = np.diff(far, prepend=high + FAR * (high - low))
    at = int(np.argmax(gaps**2 - spread))
    most = far[at - 1] if at else far[0] - gaps[0]
    found: Array = np.clip(matrix, -most, most)
    return found


def _firsts(count: int, how: Reconstruct) -> list[int]:
    """The first block of each window."""
    stride = how.window - how.overlap
    last = max(count - how.window, 0)
    return [*range(0, last, stride), last]


@dataclass
class _Side:
    """Some samples before a block: the values alive in the float model, and in the compressed one."""

    held: bool
    sight: Mapping[str, Array]
    floats: Values
    now: Values


@dataclass
class _Blocks:
    """All samples on their way through the blocks."""

    graph: Graph
    pieces: list[Segment]
    ends: list[str]
    weights: list[list[Weight]]
    actions: Mapping[str, Encode]
    context: Context
    how: Reconstruct
    sides: list[_Side]
    chosen: Chosen
    kept: KeptParts
    at: int = 0

    @classmethod
    def of(
        cls,
        graph: Graph,
        plan: Plan,
        samples: Samples,
        context: Context,
        ends: list[str],
        how: Reconstruct,
        kept: KeptParts,
    ) -> "_Blocks":
        """Before the first block."""
        pieces = cut_behind(graph, ends)[: len(ends)]
        actions = {name: one.action for one in plan.steps if isinstance(one.action, Encode) for name in one.weights}
        makers = {op.name: op.outputs[0] for op in graph.ops()}
        weights = [
            [
                one
                for one in graph.weights()
                if one.name in actions and any(makers[layer.op] in piece.inside for layer in one.layers)
            ]
            for piece in pieces
        ]
        before = {name: found for name in actions if (found := context.chosen.get(name)) is not None}
        sides = _begun(graph, samples, ends)
        return cls(graph, pieces, ends, weights, actions, context, how, sides, before, kept)

    def window(self, first: int) -> tuple[float, float]:
        """Let a window learn, or read what it gave before; what is lost on samples held out before and after."""
        here = range(first, min(first + self.how.window, len(self.pieces)))
        asked = {one.name: self.actions[one.name] for at in here for one in self.weights[at]}
        found: dict[str, Encoded] = {}
        lost = 0.0, 0.0
        kept = self.kept(f"window {first}", lambda: f"{len(found)} {lost[0]!r} {lost[1]!r}")
        kept.begin({name: (one.encoding, one.rounding) for name, one in asked.items()})
        before = {name: one for name in asked if (one := kept.found(name)) is not None}
        if before and all(told.split()[0] == str(len(before)) for _, told in before.values()):
            _, *told = next(iter(before.values()))[1].split()
            found, lost = {name: one for name, (one, _) in before.items()}, (float(told[0]), float(told[1]))
        else:
            self._pass_to(first)
            found, *losses = self._learned(first, here)
            lost = losses[0], losses[1]
            kept.update(found)
        self.chosen |= {name: (one, LEARNED) for name, one in found.items()}
        return lost

    def _learned(self, first: int, here: range) -> tuple[dict[str, Encoded], float, float]:
        """What the weights of some blocks become, and what is lost before and after."""
        inside = frozenset[str]().union(*(self.pieces[at].inside for at in here))
        reads = list(dict.fromkeys(name for at in here for name in self.pieces[at].reads if name not in inside))
        output = self.ends[here[-1]]
        float_ = self.graph.runner(reads, [output])
        lessons = [
            Lesson(
                {name: one.now[name] for name in reads},
                feeds := {name: one.floats[name] for name in reads},
                float_(feeds)[output],
                one.held,
                one.sight.get(output),
            )
            for one in self.sides
        ]
        learned = [self._started(weight) for at in here for weight in self.weights[at]]
        known = [one for one in learned if one is not None and _learns(one[2].encoding)]
        if not known:
            return {}, 0.0, 0.0
        part = window(self.graph.between(reads, [output]), output, known, self.how.rank, seed=first)
        return part.learn(lessons, self.how.steps, partial(self.context.progress, known[0][0].name))

    def _started(self, weight: Weight) -> tuple[Weight, Array, Encoded] | None:
        """A weight with its matrix and what it is rounded to so far; None where that is refused, or it is shared."""
        if Kind.EMBEDDING in weight.kinds or sum(weight in one for one in self.weights) > 1:
            return None
        matrix = self.graph.matrix(weight)
        if weight.name not in self.chosen:
            start = truncated(matrix) if self.how.truncate else matrix
            try:
                self.chosen[weight.name] = self.actions[weight.name].encoded(weight, start, self.context)
            except Refused:
                return None
        return weight, matrix, self.chosen[weight.name][0]

    def _pass_to(self, first: int) -> None:
        """Carry all samples before a block."""
        while self.at < first:
            piece = self.pieces[self.at]
            constants = {one.constant: self._decoded(one) for one in self.weights[self.at] if self._started(one)}
            run = self.graph.runner(piece.reads, piece.makes, tuple(constants))
            plain = {name: array for name in constants if (array := self.graph.constant(name)) is not None}
            for side in self.sides:
                made = [
                    dict(run({name: state[name] for name in piece.reads} | held))
                    for state, held in ((side.floats, plain), (side.now, constants))
                ]
                side.floats, side.now = piece.carried(side.floats, made[0]), piece.carried(side.now, made[1])
            self.at += 1

    def _decoded(self, weight: Weight) -> Array:
        found = self._started(weight)
        return self.graph.as_constant(weight, self.graph.matrix(weight) if found is None else found[2].decode())


def _begun(graph: Graph, samples: Samples, ends: Sequence[str]) -> list[_Side]:
    """The samples, as many together as learn at once."""
    names = tuple(value.name for value in graph.inputs)
    runner = graph.runner(names, ends)
    hiding = find_masks(graph.inputs, runner, samples)
    parted = Parted.of(samples)
    rows = [max((array.shape[1] for array in one.values() if array.ndim > 1), default=1) for one in parted.ones]
    found = []
    for chunk in chunks(parted, lambda at: CAPTURED_BYTES * rows[at] / ROWS, lambda _: 0):
        feeds = hiding.cropped(samples.joined([parted.ones[at] for at in chunk.members]))
        sight = hiding.sight(runner, feeds, runner(feeds)) if hiding.masks else {}
        found.append(_Side(chunk.held, sight, dict(feeds), dict(feeds)))
    return found
