"""Rounding up or down as data learns it."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.encoding.algebra import Encoding, Fitted
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.fit import encoded
from qcc.ir.encoding.search import Clip
from qcc.ir.graph.ops import Array, Weight
from qcc.passes.contract.contract import Between, Context, Rounding
from qcc.passes.contract.trust import aimed, judged, judging, trusted
from qcc.passes.rounding.gptq import by_rows, fitted_to
from qcc.passes.rounding.nearest import Nearest
from qcc.passes.rounding.qronos import Qronos, lost_by

STRETCH_LOW, STRETCH_HIGH = -0.1, 1.1  # what a sigmoid is stretched to before it is cut off at 0 and 1
SOFT = 0.2  # of the steps, in which nothing is pulled to 0 or 1
SHARPEST, BLUNTEST = 2.0, 20.0  # exponents of what pulls, the last and the first
RATE, MOMENTUM, SQUARES, TINY = 0.05, 0.9, 0.999, 1e-8  # of Adam
DOUBLINGS = 8  # of the distance to a weight, until the code on its other side is met


@dataclass(frozen=True)
class Adaround(Rounding):
    """Learn for every weight whether to round it up or down, all together, by gradient descent.

    Minimises the error of the layer's output on what it reads by then, ``|F W' + R - X Q'|^2``, as `qronos` has it,
    over ``Q = down + h (up - down)`` with ``h`` a stretched sigmoid cut off at 0 and 1, and a term ``1 - |2 h - 1|^b``
    that pulls every ``h`` to one of them as ``b`` falls. The error is a form in the second moments of the inputs, so
    neither samples nor torch are needed while it learns. Scales are fixed beforehand as `gptq` fixes them. No weight
    moves farther than to the next number, where `gptq` lets some go far: it fits data less closely.

    Where samples held out are no better off than with `qronos`, that is done instead. So it is where several weights
    share a code (`codebook` with a size, `lattice`).

    Args:
        steps: of gradient descent.
        pull: of the term, in units of the mean error to begin with.
        damping: see `gptq`.
        clip: how scales are found, see `nearest`.
        doubt: see `gptq`.

    Source: Up or down? Adaptive rounding for post-training quantization, Nagel et al. 2020 (arXiv:2004.10568), section
    3.2; there layer by layer on samples, here on their second moments.
    """

    uses_gram: ClassVar[bool] = True

    steps: Annotated[int, Between(10, 100_000)] = 300
    pull: Annotated[float, Between(0, 1000)] = 1.0
    damping: Annotated[float, Between(0, 10)] = 0.01
    clip: Clip = "mse"
    doubt: Annotated[float, Between(0, 10)] = 1.0

    def goes_in_order(self) -> bool:
        """It does."""
        return True

    def advised(self, weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context) -> tuple[Rounding, str]:
        """What is learned, or `qronos` where that is better on samples held out."""
        moments = judging(weight, matrix, encoding, context)
        if moments is None:
            return self, ""
        first, why = Qronos(self.damping, self.clip, self.doubt).advised(weight, matrix, encoding, context)
        here = replace(self, damping=first.damping) if isinstance(first, Qronos) else self
        by = judged(weight, matrix, encoding, moments, here.doubt)
        meant = by.aimed(here.damping)
        found = here._learned(meant, encoding, by.gram)
        if found.width > 1 or not by.lost(encoded(meant, encoding, found).decode()) < lost_by(first, by, encoding):
            return first, f"{why}: up or down as learned is no better on samples held out"
        return here, "up or down as learned"

    def encode(self, weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context) -> Encoded:
        """Learn, or round to nearest where there is no Gram matrix."""
        gram = trusted(weight, matrix, context, self.doubt)
        if gram is None or encoding.sources:  # which goes by rows
            return Nearest(self.clip).encode(weight, matrix, encoding, context)
        meant = aimed(weight, matrix, context, gram, self.damping)
        return encoded(meant, encoding, self._learned(meant, encoding, gram))

    def _learned(self, matrix: Array, encoding: Encoding, gram: Array) -> Fitted:
        found = fitted_to(matrix, encoding, gram, self.damping, self.clip)
        if found.fixed or found.width > 1:
            return found
        damped = gram + np.float32(self.damping * float(np.mean(np.diag(gram)))) * np.eye(len(gram), dtype=gram.dtype)
        by_rows(len(matrix), lambda rows: _learn(matrix[rows], found, rows, damped, self.steps, self.pull))
        return found


def _learn(matrix: Array, found: Fitted, rows: slice, gram: Array, steps: int, pull: float) -> None:
    """Choose sides for some rows, and store them."""
    down, up = _sides(matrix, found, rows)
    gap = up - down
    free = gap > 0
    share = np.divide(matrix - down, gap, out=np.zeros_like(matrix), where=free)
    logit = _logit((np.clip(share, 0.01, 0.99) - STRETCH_LOW) / (STRETCH_HIGH - STRETCH_LOW))
    unit = gap**2 * np.diag(gram)  # what a step of each weight alone costs
    scale = np.float32(pull) * np.float32(np.mean(unit[free])) if free.any() else np.float32(0)
    first, second = np.zeros_like(logit), np.zeros_like(logit)
    for at in range(1, steps + 1):
        sigmoid = 1 / (1 + np.exp(-logit))
        wide = sigmoid * (STRETCH_HIGH - STRETCH_LOW) + STRETCH_LOW
        cut = np.clip(wide, 0, 1)
        gradient = 2 * ((down + cut * gap - matrix) @ gram) * gap
        done = (at / steps - SOFT) / (1 - SOFT)
        if done > 0:
            sharp = SHARPEST + (BLUNTEST - SHARPEST) * 0.5 * (1 + np.cos(np.pi * done))
            off = 2 * cut - 1
            gradient -= scale * 2 * sharp * np.sign(off) * np.abs(off) ** (sharp - 1)
        gradient *= (STRETCH_HIGH - STRETCH_LOW) * sigmoid * (1 - sigmoid) * ((wide > 0) & (wide < 1)) / (scale or 1)
        first = MOMENTUM * first + (1 - MOMENTUM) * gradient
        second = SQUARES * second + (1 - SQUARES) * gradient**2
        logit -= RATE * (first / (1 - MOMENTUM**at)) / (np.sqrt(second / (1 - SQUARES**at)) + TINY)
    chosen = np.where(logit > 0, up, down)
    at_rows, columns = (one.ravel() for one in np.indices(matrix.shape))
    found.round(at_rows + rows.start, columns, chosen.ravel())


def _sides(matrix: Array, found: Fitted, rows: slice) -> tuple[Array, Array]:
    """The numbers nearest to each weight that it may become, below and above; the same where it is beyond the last."""
    at_rows, columns = (one.ravel() for one in np.indices(matrix.shape))
    at_rows = at_rows + rows.start
    wanted = matrix.ravel().astype(np.float32)
    near = found.round(at_rows, columns, wanted)
    error = wanted - near
    other, here = near.copy(), np.flatnonzero(error)
    far = 2 * error  # the other side is at least as far from the weight as the near one
    for _ in range(DOUBLINGS):
        reached = found.round(at_rows[here], columns[here], near[here] + far[here])
        moved = reached != near[here]
        other[here[moved]] = reached[moved]
        here = here[~moved]
        far = far * 2
    low, high = np.minimum(near, other), np.maximum(near, other)
    return low.reshape(matrix.shape), high.reshape(matrix.shape)


def _logit(share: Array) -> Array:
    return np.asarray(np.log(share / (1 - share)), np.float32)
