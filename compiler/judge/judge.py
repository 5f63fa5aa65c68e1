"""Holding compressed models to the bounds on what is lost of a score."""

import math
from collections.abc import Sequence
from functools import cached_property

from qcc.compiler.judge.evaluation import Evaluation, Records
from qcc.compiler.scores.check import ScoreCheck
from qcc.compiler.scores.paired import samples_needed
from qcc.compiler.verify.outputs import MakeRunner, Verification
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import Bound
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Runner


class Judge:
    """Scores the original once, and each compressed model beside it.

    Args:
        evaluation: runs models on samples.
        bounds: on what is lost.
        original: makes what runs it.
        diagnostics: told what cannot be judged.
    """

    def __init__(
        self, evaluation: Evaluation, bounds: Sequence[Bound], original: MakeRunner, diagnostics: Diagnostics
    ) -> None:
        self._evaluation, self._bounds = evaluation, bounds
        self._original, self._diagnostics = original, diagnostics

    @cached_property
    def before(self) -> Records:
        """What the original makes of the samples.

        Raises:
            ModelError: it is not scored.
        """
        found = self._evaluation.records(self._original())
        for name, records in found.items():
            if not math.isfinite(self._evaluation.value(name, records)):
                raise ModelError("Q483", f"the original's own `{name}` is not a number on these samples")
        return found

    def checks(self, run: Runner) -> tuple[ScoreCheck, ...]:
        """What a model loses."""
        before = self.before
        after = self._evaluation.records(run)
        return tuple(self._check(bound, before, after) for bound in self._bounds)

    def _check(self, bound: Bound, before: Records, after: Records) -> ScoreCheck:
        name, relative = str(bound.argument), bound.quantity.unit == "%"
        drop = self._evaluation.drop(name, before[name], after[name], relative)
        score = self._evaluation.value
        return ScoreCheck(bound, score(name, before[name]), score(name, after[name]), drop)

    def added(self, verification: Verification, plain: MakeRunner, kernels: MakeRunner | None) -> Verification:
        """A verification with what is lost of the scores; with kernels, the worse of both ways to run."""
        found = self.checks(plain())
        if kernels is not None:
            fast = self.checks(kernels())
            found = tuple(max(pair, key=lambda one: one.drop.judged) for pair in zip(found, fast, strict=True))
        self._tell(found)
        return verification.judged(found)

    def _tell(self, found: Sequence[ScoreCheck]) -> None:
        """Say where nothing tells how sure a score is, and where no model could be told to hold a bound."""
        for one in found:
            count = one.drop.samples
            if one.drop.upper is None:
                message = f"nothing tells how sure `{one.bound.argument}` is: there is one number for all samples"
                help = "return one number for each sample: then the bound holds for what else the model will see"
                self._diagnostics.warning("Q363", message, help=help)
            elif _counted(one) and one.drop.judged > one.limit and samples_needed(one.limit) > count + 2:
                needed = samples_needed(one.limit) - 2
                message = f"{count:,} samples cannot show that `{one.bound.text}` holds, whatever the model"
                help = f"it takes {needed:,} samples with labels of which none changes, and more where some do"
                self._diagnostics.warning("Q362", message, one.bound.span, help=help)


def _counted(one: ScoreCheck) -> bool:
    """What is lost of a score is counted: margins, where they tell, can show what no count of so few samples can."""
    return one.drop.lost is not None and not one.drop.by_margins
