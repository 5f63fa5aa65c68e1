"""What `depth` leaves to the allocator, decided."""

from dataclasses import replace
from pathlib import Path

from qcc.compiler.calibrate.sources.source import DataSource
from qcc.compiler.compilation import Compilation
from qcc.compiler.depth.ladder import Ladder
from qcc.compiler.depth.leaving import Leaving
from qcc.compiler.depth.sharing import Sharing
from qcc.compiler.first_phases import see_that_data_is_there
from qcc.compiler.metrics.find import additive
from qcc.compiler.plan.bind import depth_steps
from qcc.compiler.scores.check import DROP
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import DepthPart, Policy
from qcc.passes.contract.contract import Restructure
from qcc.passes.structure.leave_out import LeaveOut
from qcc.passes.structure.share import Share

LADDERS: dict[type[Restructure], type[Ladder]] = {LeaveOut: Leaving, Share: Sharing}  # in their order


def with_depth(run: Compilation) -> Compilation:
    """The same compilation with a policy that says which branches go or share, where that was left to the allocator.

    Raises:
        QccError: nothing bounds or asks for what it would be done for.
        BudgetError: the budget cannot be met, however much is done.
    """
    told: tuple[str, ...] = ()
    while (part := left_open(run.policy)) is not None:
        run, more = _decided(run, part)
        told += more
    return replace(run, told=told) if told else run


def _decided(run: Compilation, part: DepthPart) -> tuple[Compilation, tuple[str, ...]]:
    """One statement decided, and what is told of it."""
    method = part.method
    assert isinstance(method, Restructure)
    _check(run.policy, part, method)
    closed = replace(run.policy, depth=tuple(one for one in run.policy.depth if one is not part))
    first = replace(run, policy=closed, diagnostics=Diagnostics())
    opened = first.open(None)
    step = next(iter(depth_steps(replace(closed, depth=(part,)), opened.graph.weights(), run.diagnostics)), None)
    if step is not None:
        see_that_data_is_there([step], opened.data, run.diagnostics)
    run.diagnostics.raise_if_errors()
    assert step is not None
    ladder = LADDERS[type(method)](first, opened, step)
    best, told = ladder.best(getattr(method, method.opens))
    left = ladder.closed(part, best)
    data = run.data
    if data is not None and not isinstance(data, str | Path | DataSource):
        data = list(opened.data.batches)  # it may have been read to its end
    return replace(run, policy=replace(closed, depth=(*closed.depth, *left)), data=data), told


def left_open(policy: Policy) -> DepthPart | None:
    """What a policy says of branches and leaves open how many; what comes first is decided first."""
    for kind in LADDERS:
        for one in policy.depth:
            if isinstance(one.method, kind) and one.method.is_open():
                return one
    return None


def _check(policy: Policy, part: DepthPart, method: Restructure) -> None:
    """See that there is something to do it for."""
    diagnostics = Diagnostics()
    if any(one.metric == DROP for one in policy.budget):
        message = f"`{method.opens}` goes by losses that are foretold, and `drop(...)` by files that are tried"
        diagnostics.error("Q680", message, part.span, help="bound `size` or `latency`, or name the branches that go")
    elif not policy.budget and policy.minimize in additive():
        message = f"`{method.opens}` does what a budget asks for, and there is none"
        diagnostics.error("Q680", message, part.span, help="add `budget { size <= 60% }`")
    diagnostics.raise_if_errors()
