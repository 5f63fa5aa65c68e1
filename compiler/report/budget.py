"""Holding what a file turned out to be to the bounds that were put on predictions of it."""

import math

from qcc.compiler.measure.time_model import ModelTimes
from qcc.compiler.plan.plan import Plan
from qcc.compiler.verify.outputs import Verification
from qcc.dsl.diagnostics.report import Diagnostics


def compare_with_budget(
    plan: Plan, verification: Verification, times: ModelTimes | None, diagnostics: Diagnostics
) -> None:
    """Budgets on error and latency bind predictions; say so where the file turns out worse."""
    worst = min((check.plain.sqnr for check in verification.outputs), default=math.inf)
    measured = 10 ** (-worst / 10)
    for limit in plan.allocate.limits if plan.allocate else ():
        if limit.metric == "output_error" and measured > limit.bound:
            message = f"the file's output error is {measured:.3g}, above the budget {limit.source}"
            help = "errors of many layers add up only about: tighten the budget, or bound `sqnr` in `verify`"
            diagnostics.warning("Q432", message, help=help)
        if limit.metric == "latency" and times is not None and times.beyond(limit.bound / 1e3):
            message = f"the file takes {times.asked_s * 1e3:.3g} ms, above the budget {limit.source}"
            help = "times of layers add up only about, and vary from run to run: tighten the budget"
            diagnostics.warning("Q432", message, help=help)
