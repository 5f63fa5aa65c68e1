"""Rounding that fits steps and codes to each other."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.encoding.algebra import Encoding, Fitted
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.fit import FittedBlocks, encoded
from qcc.ir.encoding.search import Clip
from qcc.ir.graph.ops import Array, Weight
from qcc.passes.contract.contract import Between, Context, Rounding
from qcc.passes.contract.trust import aimed, judged, judging, trusted
from qcc.passes.rounding.descent import descend
from qcc.passes.rounding.gptq import fitted_to, sweep
from qcc.passes.rounding.nearest import Nearest
from qcc.passes.rounding.qronos import Qronos, lost_by

SWEEPS = 3  # of single codes, behind each sweep by columns
FARTHEST = 2.0  # times a step, or one over it, that a step may become at once


@dataclass(frozen=True)
class Adaquant(Rounding):
    """Fit each layer to what it should make: its steps to its codes, its codes to its steps, and so on.

    Minimises the error of the layer's output on what it reads by then, ``|F W' + R - X (s q)'|^2``, as `qronos` has it.
    Under fixed steps codes are found as `gptq` does, and changed one at a time as `descent` does; under fixed codes the
    best step of each row is a least-squares fit, ``s = <q, T G> / <q, q G>``.

    How often that is done is chosen by samples held out, layer by layer; where not even the first time is better than
    `qronos` there, that is done. An encoding without floats for scales has no steps to fit: it gets `descent`
    from `qronos`. What can be neither gets what `qronos` gives it.

    Args:
        rounds: how often steps and codes are fitted to each other, at most.
        damping: see `gptq`.
        clip: how scales are found to begin with, see `nearest`.
        doubt: see `gptq`.

    Source: Improving post training neural quantization: layer-wise calibration and integer programming, Hubara et al.
    2020 (arXiv:2006.10518), section 3.1; there by gradients, here by closed forms on second moments.
    """

    uses_gram: ClassVar[bool] = True

    rounds: Annotated[int, Between(0, 20)] = 3
    damping: Annotated[float, Between(0, 10)] = 0.01
    clip: Clip = "mse"
    doubt: Annotated[float, Between(0, 10)] = 1.0

    def goes_in_order(self) -> bool:
        """It does."""
        return True

    def advised(self, weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context) -> tuple[Rounding, str]:
        """As many rounds as do best on samples held out, or `qronos`."""
        moments = judging(weight, matrix, encoding, context)
        if moments is None:
            return self, ""
        first, why = Qronos(self.damping, self.clip, self.doubt).advised(weight, matrix, encoding, context)
        here = replace(self, damping=first.damping) if isinstance(first, Qronos) else self
        by = judged(weight, matrix, encoding, moments, here.doubt)
        meant = by.aimed(here.damping)
        lost = [by.lost(encoded(meant, encoding, one).decode()) for one in here._fits(meant, encoding, by.gram)]
        best = int(np.argmin(lost))
        if not lost[best] < lost_by(first, by, encoding):
            return first, f"{why}: steps fitted to codes are no better on samples held out"
        return replace(here, rounds=best), f"{why}, codes one by one, steps fitted {best} times"

    def encode(self, weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context) -> Encoded:
        """Fit, or round to nearest where there is no Gram matrix."""
        gram = trusted(weight, matrix, context, self.doubt)
        if gram is None or encoding.sources:  # which goes by rows
            return Nearest(self.clip).encode(weight, matrix, encoding, context)
        meant = aimed(weight, matrix, context, gram, self.damping)
        *_, last = self._fits(meant, encoding, gram)
        return encoded(meant, encoding, last)

    def _fits(self, matrix: Array, encoding: Encoding, gram: Array) -> Iterator[Fitted]:
        """What the matrix is stored as after each round, the first without steps fitted."""
        found = fitted_to(matrix, encoding, gram, self.damping, self.clip)
        if found.fixed:
            yield found
            return
        damped = gram + np.float32(self.damping * float(np.mean(np.diag(gram)))) * np.eye(len(gram), dtype=gram.dtype)
        for _ in range(self.rounds + 1):
            sweep(matrix, found, gram, self.damping)
            values = encoded(matrix, encoding, found).decode()
            if found.width == 1:
                descend(matrix, found, values, damped, "lipschitz", SWEEPS)
            yield found
            other = found.rescaled(matrix, _gains(matrix, values, gram)) if isinstance(found, FittedBlocks) else None
            if other is None:
                return
            found = other


def _gains(matrix: Array, values: Array, gram: Array) -> Array:
    """By how much each row of what is stored should be longer, ``[out]``; near one, and one where a row is nothing."""
    product = values @ gram
    power, wanted = np.sum(product * values, 1, dtype=np.float64), np.sum(product * matrix, 1, dtype=np.float64)
    gains = np.divide(wanted, power, out=np.ones_like(wanted), where=power > 0)
    return np.asarray(np.clip(gains, 1 / FARTHEST, FARTHEST), np.float32)
