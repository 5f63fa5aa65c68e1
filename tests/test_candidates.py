"""The allocator sees rows: of any action its costs and its loss decide, and a decided plan is in its phases."""

import numpy as np
import pytest

from qcc.compiler.allocate.decide import BudgetError, decide, smallest
from qcc.compiler.measure.sensitivity import Losses
from qcc.compiler.plan.plan import Allocate, Candidate, Limit, OpenChoice, Plan, Step
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.text import to_text
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.source import Source
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.forms.decoded import DECODED
from qcc.passes.clean import Clean
from qcc.passes.contract.contract import Phase
from qcc.passes.encode import Encode
from qcc.passes.rounding.nearest import Nearest
from qcc.passes.structure.channels import Channels
from qcc.passes.structure.leave_out import LeaveOut


def _int(bits: int) -> Encode:
    return Encode(Blocked(IntGrid(bits), CHANNEL), Nearest(), DECODED)


def _candidate(action: Encode | LeaveOut | Channels | None, size: float, **others: float) -> Candidate:
    return Candidate(action, "test", {"size": size, "bits": size / 100, **others})


def _plan(*options: OpenChoice, limits: tuple[Limit, ...] = (), fixed: dict[str, float] | None = None) -> Plan:
    steps = (Step(Clean()), Step(_int(8), ("fixed",), ("test",)))
    return Plan(steps, allocate=Allocate("output_error", limits, options, fixed or {}))


BLOCK = OpenChoice("block", (_candidate(None, 100), _candidate(LeaveOut(), 0)))
WEIGHT = OpenChoice("weight", (_candidate(None, 100), _candidate(_int(4), 12), _candidate(_int(8), 25)))
LOSSES = Losses((np.array([0.0, 0.4]), np.array([0.0, 0.3, 0.01])), ((False, True), (False, True, True)), 1)


def test_any_action_is_chosen_by_its_rows() -> None:
    plan = _plan(BLOCK, WEIGHT, limits=(Limit("size", 120.0, "size <= 120 B"),))
    assert decide(plan, LOSSES, 0.0).choice == (0, 1)  # four bits lose less than the block
    assert decide(plan, LOSSES, 10.0).choice == (1, 0)  # and are not enough where more is fixed
    assert smallest(plan) == (1, 1)


def test_every_row_is_a_bound() -> None:
    slow = OpenChoice("one", (_candidate(None, 10, latency=4.0), _candidate(LeaveOut(), 20, latency=1.0)))
    losses = Losses((np.array([0.0, 1.0]),), ((False, True),), 1)
    for limit, fixed, choice in (
        (Limit("latency", 5.0, "latency"), {"latency": 0.0}, (0,)),
        (Limit("latency", 5.0, "latency"), {"latency": 2.0}, (1,)),
        (Limit("bits", 0.15, "bits"), {}, (0,)),
    ):
        assert decide(_plan(slow, limits=(limit,), fixed=fixed), losses, 0.0).choice == choice
    with pytest.raises(BudgetError, match="latency"):
        decide(_plan(slow, limits=(Limit("latency", 5.0, "latency"),), fixed={"latency": 5.0}), losses, 0.0)


def test_a_decided_plan_is_in_its_phases() -> None:
    plan = decide(_plan(BLOCK, WEIGHT, limits=(Limit("size", 50.0, ""),)), LOSSES, 0.0).plan
    assert plan.decided
    assert [step.action.phase for step in plan.steps] == [Phase.CLEAN, Phase.STRUCTURE, Phase.ENCODE]
    assert [step.weights for step in plan.steps] == [(), ("block",), ("fixed", "weight")]


def test_an_undecided_plan_reads_back_with_its_rows() -> None:
    plan = _plan(WEIGHT, limits=(Limit("size", 120.0, "size <= 120 B"),), fixed={"bits": 0.5})
    assert from_text(Source("p.plan", to_text(plan))) == plan


@pytest.mark.parametrize("costs", [{}, {"size": 1.0}, {"size": -1.0, "bits": 1.0}])
def test_a_candidate_without_its_rows_is_no_plan(costs: dict[str, float]) -> None:
    found = Allocate("size", (), (OpenChoice("w", (Candidate(_int(8), "here", costs),)),))
    with pytest.raises(QccError, match="a candidate has its size and bits"):
        from_text(Source("p.plan", to_text(Plan((), allocate=found))))


def test_a_candidate_that_nothing_measures_is_no_plan() -> None:
    with pytest.raises(QccError, match="a candidate stores a weight"):
        from_text(Source("p.plan", to_text(_plan(BLOCK))))
