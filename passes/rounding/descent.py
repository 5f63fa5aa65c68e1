"""Rounding that goes on changing single codes as long as that pays."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np

from qcc.ir.encoding.algebra import Encoding, Fitted
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.fit import encoded
from qcc.ir.encoding.search import Clip
from qcc.ir.graph.ops import Weight
from qcc.passes.contract.contract import Between, Context, InPercent, Rounding
from qcc.passes.contract.trust import aimed, judged, judging, trusted
from qcc.passes.rounding.gptq import Gptq, by_rows, fitted_to, round_columns, sweep
from qcc.passes.rounding.nearest import Nearest
from qcc.passes.rounding.qronos import Qronos

Rule = Literal["cyclic", "random", "southwell", "lipschitz"]
DOUBLINGS = 7  # of a quarter of a row's usual error: beyond, a code is taken for the last one until it is tried
LAST_DIGITS = 1e-6  # of a weight: sums of levels in another order
SURE = 1.5  # times the pull on it: a weight that stays even then is confident,
USUAL = 1.0  # as one that stays this often a row's usual error away
SEED = 0  # of the order of `random`
CROWDED = 0.7  # of the rows: when fewer have something to gain, the others are put aside


@dataclass(frozen=True)
class Descent(Rounding):
    """Change one code of a row at a time to the best that it can be while all others stay, until none gets better.

    Lowers the error of the layer's output, ``|X (W - Q)'|^2``, from where `gptq` leaves it, or rounding to nearest.
    Under ``lipschitz`` the next code of a row is the one whose change is bound to gain most, its gradient squared over
    its curvature; under ``southwell`` the one with the largest gradient; ``cyclic`` and ``random`` go over all of them.
    Weights that would not change if they were pulled half as far again are confident, and left alone until they are.

    As `gptq` it judges itself by samples held out: where they are not better off, the weight stays as it started, so
    descent never costs anything there. A weight without calibrated layers is rounded to nearest.

    Args:
        rule: which code is next.
        sweeps: how often all of a row's codes may be gone over, or as many changes.
        free: of each row's weights that may change, those farthest from what they became, which are nearest to another
            code; all others are frozen.
        start: where it begins; from `qronos` on, weights are rounded in the order of the model, as that does.
        damping: see `gptq`.
        clip: how scales are found, see `nearest`.
        doubt: see `gptq`.

    Source: Nutini et al. 2017, *Let's make block coordinate descent converge faster* (arXiv:1712.08859), sections 2
    and 3, for the rules.
    """

    uses_gram: ClassVar[bool] = True

    rule: Rule = "lipschitz"
    sweeps: Annotated[int, Between(1, 100)] = 3
    free: Annotated[float, InPercent(0.01)] = 1.0
    start: Literal["gptq", "qronos", "nearest"] = "gptq"
    damping: Annotated[float, Between(0, 10)] = 0.01
    clip: Clip = "mse"
    doubt: Annotated[float, Between(0, 10)] = 1.0

    def goes_in_order(self) -> bool:
        """As it starts."""
        return self.start == "qronos"

    def advised(self, weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context) -> tuple[Rounding, str]:
        """Descent from what does best on samples held out, or that alone where it does better."""
        moments = judging(weight, matrix, encoding, context)
        if moments is None:
            return self, ""
        first, why = self._first(weight, matrix, encoding, context)
        here = replace(self, start="nearest")
        if isinstance(first, Gptq):
            here = replace(self, damping=first.damping, doubt=first.doubt)
        by = judged(weight, matrix, encoding, moments, here.doubt)
        meant = by.aimed(here.damping)
        found = fitted_to(meant, encoding, by.gram, here.damping, self.clip)
        if found.fixed:
            return self, ""
        here._begin(meant, found, by.gram)
        before = by.lost(encoded(meant, encoding, found).decode())
        if encoding.summands and here.start != "nearest":  # which rounds level by level; descent starts from one sweep
            alone = round_columns(meant, encoding, by.gram, here.damping, self.clip)
            before = min(before, by.lost(alone.decode()))
        here._descend(meant, encoding, found, by.gram)
        after = by.lost(encoded(meant, encoding, found).decode())
        if not after < before:
            return first, f"{why}: descent is no better on samples held out"
        return here, f"descent from {why}"

    def _first(self, weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context) -> tuple[Rounding, str]:
        """How it starts, and what is told of that."""
        if self.start == "nearest":
            return Nearest(self.clip), "to nearest"
        first = Qronos if self.goes_in_order() else Gptq
        return first(self.damping, self.clip, self.doubt).advised(weight, matrix, encoding, context)

    def encode(self, weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context) -> Encoded:
        """Start, and descend; or round to nearest where there is no Gram matrix."""
        gram = trusted(weight, matrix, context, self.doubt)
        if gram is None or encoding.sources:  # which goes by rows
            return Nearest(self.clip).encode(weight, matrix, encoding, context)
        meant = aimed(weight, matrix, context, gram, self.damping)
        found = fitted_to(meant, encoding, gram, self.damping, self.clip)
        if not found.fixed:
            self._begin(meant, found, gram)
            self._descend(meant, encoding, found, gram)
        return encoded(meant, encoding, found)

    def _begin(self, matrix: np.ndarray, found: Fitted, gram: np.ndarray) -> None:
        if self.start != "nearest":
            sweep(matrix, found, gram, self.damping)

    def _descend(self, matrix: np.ndarray, encoding: Encoding, found: Fitted, gram: np.ndarray) -> None:
        if found.width > 1:
            return  # no code stands for a weight alone
        values = encoded(matrix, encoding, found).decode()
        damped = gram + np.float32(self.damping * float(np.mean(np.diag(gram)))) * np.eye(len(gram), dtype=gram.dtype)
        descend(matrix, found, values, damped, self.rule, self.sweeps, self.free)


def descend(
    matrix: np.ndarray,
    found: Fitted,
    values: np.ndarray,
    gram: np.ndarray,
    rule: Rule,
    sweeps: float,
    free: float = 1.0,
) -> tuple[int, int]:
    """Change codes by a rule until no change of one gains anything, or there were enough.

    Args:
        matrix: the weights ``[out, in]``.
        found: what they are stored as, which is changed.
        values: what that stands for, which is changed along.
        gram: of the inputs, with all that is added to its diagonal.
        rule: which code is next.
        sweeps: see `Descent`.
        free: see `Descent`.

    Returns:
        How many codes were looked at, one after the other in each row, and how many of them changed.
    """
    step = _greedy if rule in ("southwell", "lipschitz") else _in_turn
    moves: list[tuple[int, int]] = []

    def work(rows: slice) -> None:
        state = _State(matrix[rows], found, rows, values[rows], gram, free)
        moves.append(step(state, rule, sweeps))

    by_rows(len(matrix), work)
    looked, changed = zip(*moves, strict=True)
    return sum(looked), sum(changed)


class _State:
    """Some rows: what their weights are now, and the gradient of the error, halved."""

    def __init__(
        self, matrix: np.ndarray, found: Fitted, rows: slice, values: np.ndarray, gram: np.ndarray, free: float
    ) -> None:
        self.found, self.rows, self.values, self.gram = found, rows, values, gram
        error = values - matrix
        self.start = np.sqrt(np.mean(error**2, 1))
        self.gradient = error @ gram
        self.curve = np.maximum(np.diag(gram), np.finfo(np.float32).tiny)
        self.frozen: np.ndarray | None = None
        if free < 1:
            count = max(round(free * error.shape[1]), 1)
            far = np.partition(np.abs(error), -count, 1)[:, -count, None]
            self.frozen = np.abs(error) < far

    def change(self, rows: np.ndarray, columns: np.ndarray | int, wanted: np.ndarray) -> np.ndarray:
        """Change a code in each of some rows to the nearest to what is wanted; by how much each changed."""
        now = self.values[rows, columns]
        absolute = rows + self.rows.start
        became = self.found.round(absolute, np.broadcast_to(columns, rows.shape), wanted)
        worse = np.abs(became - wanted) >= np.abs(now - wanted)  # a sum of levels, which need not find the nearest
        if worse.any():
            at = np.broadcast_to(columns, rows.shape)[worse]
            became[worse] = self.found.round(absolute[worse], at, now[worse])
        self.values[rows, columns] = became
        moved: np.ndarray = became - now
        moved[np.abs(moved) <= LAST_DIGITS * np.abs(now)] = 0
        return moved

    def reach(self) -> tuple[np.ndarray, np.ndarray]:
        """How far each weight may be pulled up and down while it stays what it is, as far as that was tried.

        Most stay even if they are pulled `SURE` times as far as they are: these are confident and left alone until they
        are pulled farther. The pulls on others are doubled, so that the first change is to the next code, half of the
        way to which they stay.

        Source: OFQ, Liu et al. 2023 (arXiv:2302.02210), which freezes weights of whose rounding it is confident.
        """
        rows, columns = (one.ravel() for one in np.indices(self.values.shape))
        flat, usual = self.values.ravel(), np.sqrt(np.mean(self.values**2, 1) * 1e-9 + self.start**2)
        sure = np.maximum(SURE * np.abs(self.gradient) / self.curve, USUAL * usual[:, None]).ravel()
        found = []
        for sign in (1, -1):
            here, far = np.flatnonzero(self._gap(rows, columns, flat + sign * sure)), usual / 4
            reach = sure.astype(np.float32)
            for _ in range(DOUBLINGS):
                gap = self._gap(rows[here], columns[here], flat[here] + sign * far[rows[here]])
                reach[here] = np.where(gap == 0, far[rows[here]], gap / 2)
                here, far = here[gap == 0], far * 2
            found.append(reach.reshape(self.values.shape))
        self.found.round(rows + self.rows.start, columns, flat)
        return found[0], found[1]

    def _gap(self, rows: np.ndarray, columns: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """How far from what they are weights come to lie, if they are to be something else."""
        now = self.values[rows, columns]
        gap: np.ndarray = np.abs(self.found.round(rows + self.rows.start, columns, wanted) - now)
        gap[gap <= LAST_DIGITS * np.abs(now)] = 0
        return gap


def _in_turn(state: _State, rule: Rule, sweeps: float) -> tuple[int, int]:
    """Column by column."""
    total, looked, moves = state.gradient.shape[1], 0, 0
    rng = np.random.default_rng(SEED)
    for _ in range(max(round(sweeps), 1)):
        before = moves
        for column in rng.permutation(total) if rule == "random" else range(total):
            wanted = state.values[:, column] - state.gradient[:, column] / state.curve[column]
            rows = np.arange(len(wanted))
            if state.frozen is not None:
                rows = rows[~state.frozen[:, column]]
            moved = state.change(rows, int(column), wanted[rows])
            here = rows[moved != 0]
            state.gradient[here] += np.multiply.outer(moved[moved != 0], state.gram[column])
            looked += len(rows)
            moves += len(here)
        if moves == before:
            break
    return looked, moves


def _greedy(state: _State, rule: Rule, sweeps: float) -> tuple[int, int]:
    """The best of each row, all rows at a time.

    How far a weight must be pulled until its code changes is found beforehand, or that it is confident, and learned
    anew by trying once it has changed: what did not change stays out as long as it is pulled no further.
    """
    total = state.gradient.shape[1]
    rows, gradient = np.arange(len(state.gradient)), state.gradient
    up, down = state.reach()
    if state.frozen is not None:
        up[state.frozen] = down[state.frozen] = np.inf
    left = np.full(len(rows), round(sweeps * total))
    looked = moves = 0
    while len(rows):
        pull = gradient / -state.curve
        scores = np.abs(gradient) if rule == "southwell" else -gradient * pull
        scores[(pull <= up) & (-pull <= down)] = 0
        columns = scores.argmax(1)
        at = np.flatnonzero((scores[np.arange(len(rows)), columns] > 0) & (left > 0))
        columns = columns[at]
        far = pull[at, columns]
        moved = state.change(rows[at], columns, state.values[rows[at], columns] + far)
        still = moved == 0
        np.maximum.at(up, (at[still], columns[still]), far[still])
        np.maximum.at(down, (at[still], columns[still]), -far[still])
        here, where = at[~still], columns[~still]
        up[here, where] = down[here, where] = 0
        gradient[here] += moved[~still, None] * state.gram[where]
        left[here] -= 1
        looked += len(at)
        moves += len(here)
        if len(at) <= len(rows) * CROWDED:
            rows, left = rows[at], left[at]
            gradient, up, down = gradient[at], up[at], down[at]
    return looked, moves
