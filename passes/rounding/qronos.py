"""Rounding that makes up for what came before."""

from dataclasses import dataclass

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.fit import encode
from qcc.passes.contract.contract import Rounding
from qcc.passes.contract.trust import JudgedRows
from qcc.passes.rounding.gptq import Gptq, round_columns
from qcc.passes.rounding.nearest import Nearest


@dataclass(frozen=True)
class Qronos(Gptq):
    """Round as `gptq` does, weight after weight in the order of the model, on inputs as they are by then.

    A layer of a compressed model reads what the layers before it made, which is off already. So it is not asked to
    keep its own weights, but to give of the inputs ``X`` that it gets what the float model gives of its own ``F``: it
    minimises ``|F W' + R - X Q'|^2``. Where its result is added to a residual stream before anything else is done with
    it, ``R`` is what that stream lacks by then, so that the branch makes up for it; else it is nothing. The weights
    that would do this best if they were not rounded follow from ``X'X`` and ``X'(F W' + R - X W')`` in closed form,
    under the same damping and the same doubt of little data as `gptq` has, and are rounded as by it; samples held out
    judge.

    The model is run in pieces, about three times in all. A weight that is also gathered, that several layers multiply
    with or that reads no inputs in order is rounded as by `gptq`; so is one to whose result something is added after it
    was scaled or moved, on its compressed inputs. What activations round is not rounded meanwhile.

    Args:
        damping: see `gptq`.
        clip: how scales are found, see `nearest`.
        doubt: see `gptq`.

    Source: GPTAQ, Li et al. 2025 (arXiv:2504.02692), section 3; Qronos, Zhang et al. 2025 (arXiv:2505.11695), which
    differs in the first column alone. Both leave ``R`` out.
    """

    def goes_in_order(self) -> bool:
        """It does."""
        return True


def lost_by(rounding: Rounding, by: JudgedRows, encoding: Encoding) -> float:
    """What rows lose on samples held out as `Qronos.advised` recommends to round them."""
    if not isinstance(rounding, Gptq):
        assert isinstance(rounding, Nearest)
        return by.lost(encode(by.matrix, encoding, rounding.clip, by.gram if encoding.learns else None).decode())
    meant = by.aimed(rounding.damping)
    return by.lost(round_columns(meant, encoding, by.gram, rounding.damping, rounding.clip).decode())
