"""The curve of size and loss of a policy: candidates are measured once, and each size is one solve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from qcc.codegen.target.scratch import scratch
from qcc.compiler.allocate.decide import BudgetError, Decision, bytes_of, decide
from qcc.compiler.allocate.settle import Settled
from qcc.compiler.allocate.tighten import UNBOUNDED
from qcc.compiler.calibrate.samples import Data
from qcc.compiler.compilation import Compilation
from qcc.compiler.console.phases import Progress, silent
from qcc.compiler.depth.choose import left_open
from qcc.compiler.files.system_errors import told
from qcc.compiler.measure.sensitivity import Losses
from qcc.compiler.metrics.find import additive
from qcc.compiler.plan.costs import SIZE
from qcc.compiler.plan.plan import Allocate, Limit, Plan
from qcc.compiler.repeat import loaded_policy
from qcc.compiler.sweep.law import KindPoint, Kinds, ScalingLaw, fitted, knee
from qcc.dsl.policy.policy import Policy
from qcc.ir.errors import ModelError
from qcc.ir.graph.ops import Weight

WHOLE = 1.0  # of noise over signal: where all is lost, the losses of layers add up to nothing that a law could tell


@dataclass(frozen=True)
class SweepPoint:
    """A choice of formats.

    Args:
        size_bytes: that its file takes, foreseen from the smallest one, which was written.
        bits: a weight on average, of those that have a choice.
        loss: foreseen at the outputs.
        parts: the same by kind of layer.
    """

    size_bytes: float
    bits: float
    loss: float
    parts: Kinds = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Sweep:
    """A curve, the smallest file first.

    Args:
        model: the file.
        input_bytes: that it takes.
        metric: of the losses.
        points: of the curve.
        samples: on which candidates were measured, at most.
        origin: of the data.
        law: fitted to the curve; None where there are too few points.
        knee: which point it is; None where the curve has none.
    """

    model: Path
    input_bytes: int
    metric: str
    points: tuple[SweepPoint, ...]
    samples: int
    origin: str
    law: ScalingLaw | None
    knee: int | None


def sweep(
    model: str | Path,
    policy: str | Path | Policy | None = None,
    *,
    sizes: int = 8,
    data: Data | None = None,
    definitions: Mapping[str, str] | None = None,
    dims: Mapping[str, int] | None = None,
    progress: Progress = silent,
) -> Sweep:
    """The curve of a policy that leaves formats open.

    Args:
        model: an ``.onnx`` or ``.pt2`` file.
        policy: whose rules name candidates; its other budgets hold at every size.
        sizes: points, from the smallest file to that which loses least.
        data: as for ``compile``.
        definitions: values of the policy's parameters.
        dims: sizes of the inputs' free axes by name, for data that is generated.
        progress: told of long work.

    Raises:
        QccError: the policy, the model or the data is at fault.
    """
    with told(), scratch() as folder:
        loaded = loaded_policy(policy, None, definitions)
        if left_open(loaded) is not None:
            help = "name the branches, or compile for each size"
            raise ModelError("Q680", "a sweep does not decide how many branches go or share weights", help=help)
        output = folder / f"{Path(model).stem}.qcc{Path(model).suffix}"
        return _Sweeping.prepare(Path(model), loaded, output, data, dims, progress).curve(sizes)


class _Sweeping(Compilation):
    """A compilation that solves for many sizes what it has measured."""

    def curve(self, count: int) -> Sweep:
        """So many points.

        Raises:
            ModelError: nothing is open.
        """
        opened = self.rewritten(self.open(None))
        allocate = opened.plan.allocate
        if allocate is None or not allocate.options:
            help = "name several formats, such as `weights = int{3,4,5,6,8} channel`"
            raise ModelError("Q365", "there is nothing to sweep: the policy leaves no layer a choice", help=help)
        asked = _smallest_of(opened.plan, allocate)
        settled = self._build(replace(opened, plan=asked), self.output)
        assert settled.losses is not None and settled.decision is not None and asked.allocate is not None
        points = _points(asked, settled, count, opened.graph.weights())
        losses = [one.loss for one in points]
        most = WHOLE if "%" in additive()[settled.losses.metric].units else np.inf
        law = fitted([one.parts for one in points], most)
        found = knee([one.size_bytes for one in points], losses)
        told_of = settled.losses.metric, points, settled.losses.samples, opened.data.origin
        return Sweep(self.model, opened.file.size_bytes, *told_of, law, found)


def _smallest_of(plan: Plan, allocate: Allocate) -> Plan:
    """The plan as one for the smallest file, whose losses are measured all the same."""
    limits = tuple(one for one in allocate.limits if one.metric != SIZE)
    named = (allocate.objective, *(one.metric for one in limits))
    metric = next((name for name in named if name in additive()), next(iter(additive())))
    if not any(one.metric == metric for one in limits):
        limits = (*limits, Limit(metric, UNBOUNDED, metric))
    return replace(plan, allocate=replace(allocate, objective=SIZE, limits=limits))


def _points(plan: Plan, settled: Settled, count: int, weights: Sequence[Weight]) -> tuple[SweepPoint, ...]:
    """The choices of least loss for sizes between the smallest and the one that loses least, in equal ratios."""
    allocate, losses, first = plan.allocate, settled.losses, settled.decision
    assert allocate is not None and losses is not None and first is not None
    fixed = settled.written.size_bytes - bytes_of(plan, first.choice)
    best = _decided(plan, settled, fixed, None)
    low, high = (fixed + bytes_of(plan, one.choice) for one in (first, best or first))
    found: dict[tuple[int, ...], SweepPoint] = {}
    for size in np.geomspace(low * (1 + 1e-9), high, count) if high > low else [low]:
        decision = _decided(plan, settled, fixed, float(size))
        if decision is not None:
            taken = bytes_of(plan, decision.choice)
            parts = _parts(allocate, losses, decision.choice, weights)
            bits = sum(parts.values(), KindPoint(0, 0.0, 0.0)).bits
            found[decision.choice] = SweepPoint(fixed + taken, bits, decision.predicted_error, parts)
    return tuple(sorted(found.values(), key=lambda one: one.size_bytes))


def _parts(allocate: Allocate, losses: Losses, choice: Sequence[int], weights: Sequence[Weight]) -> Kinds:
    """What each kind of layer has and loses under a choice."""
    known = {one.name: one for one in weights}
    found: dict[str, KindPoint] = {}
    for option, lost, at in zip(allocate.options, losses.loss, choice, strict=True):
        weight = known.get(option.subject)
        if weight is not None and weight.params:
            bits = 8 * option.candidates[at].costs[SIZE] / weight.params
            kind, part = "+".join(sorted(weight.kinds)), KindPoint(weight.params, bits, float(lost[at]))
            found[kind] = found[kind] + part if kind in found else part
    return found


def _decided(plan: Plan, settled: Settled, fixed: float, most: float | None) -> Decision | None:
    assert plan.allocate is not None and settled.losses is not None
    limits = plan.allocate.limits
    limits = limits if most is None else (*limits, Limit(SIZE, most, SIZE))
    asked = replace(plan.allocate, objective=settled.losses.metric, limits=limits)
    try:
        return decide(replace(plan, allocate=asked), settled.losses, fixed)
    except BudgetError:
        return None
