"""What runs before rules are bound to weights: the passes that change which there are, or their shapes."""

from collections.abc import Sequence
from functools import partial

from qcc.compiler.build.cleaning import Cleaned
from qcc.compiler.build.restructure import restructure, structure_steps
from qcc.compiler.build.rewrite import Rewritten
from qcc.compiler.build.rewrite_row import RewriteRow
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.console.phases import Phases
from qcc.compiler.files.open_model import OpenModel
from qcc.compiler.plan.bind import Earlier, first_steps
from qcc.compiler.plan.plan import Plan, Step
from qcc.compiler.plan.text import action_text
from qcc.compiler.repeat import check_targets
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import Policy
from qcc.ir.graph.graph import Graph
from qcc.passes.contract.contract import Invariant, Restructure

NAMED = 3


def run_first_phases(
    model: OpenModel,
    asked: Policy | Plan,
    data: Samples,
    phases: Phases,
    diagnostics: Diagnostics,
    bounded: bool,
) -> tuple[Rewritten[Graph], Earlier]:
    """Run the passes that a policy asks for, or the steps of a plan that has been made before.

    Args:
        model: cleaned.
        asked: the policy or the plan.
        data: to validate on.
        phases: timed and told.
        diagnostics: told what was not done.
        bounded: the outputs of the written model are held to something.

    Raises:
        ModelError: the plan is for another model, or the model does not run.
    """
    graph = model.graph
    if isinstance(asked, Plan):
        steps = structure_steps(asked)
    else:
        steps = first_steps(asked, graph, not data.generated, diagnostics)
        diagnostics.raise_if_errors()
    check_targets(steps, graph, model.path)
    see_that_data_is_there(steps, data, diagnostics)
    cleaned = Cleaned(model.model.reference, model.edits)
    with phases.phase("structure"):
        done = restructure(graph, steps, data, cleaned, partial(phases.tell, "structure"))
    _see_that_named_went(steps, done.rows, diagnostics)
    tell_left_out(done.rows, diagnostics)
    taking = _lossy(steps)
    lossy = [row for row in done.rows if row.action in taking]
    _tell_nothing_cut(lossy, diagnostics)
    if not bounded:
        _tell_unbounded(lossy, diagnostics)
    return done, Earlier(steps, graph.weights())


def _lossy(steps: Sequence[Step]) -> set[str]:
    """The actions that take something from the function."""
    return {action_text(step.action) for step in steps if Invariant.FUNCTION not in step.action.keeps}


def see_that_data_is_there(steps: Sequence[Step], data: Samples, diagnostics: Diagnostics) -> None:
    """Tell an error where something is to be fitted to data that nobody gave.

    Raises:
        QccError: it is.
    """
    fitted = [step for step in steps if isinstance(step.action, Restructure) and step.action.uses_data()]
    for step in fitted if data.generated else ():
        help = 'write `calibrate "data.npz" { samples = 64 }`, or give the data by `--data`'
        diagnostics.error("Q523", f"`{action_text(step.action)}` is fitted to data, and there is none", help=help)
    diagnostics.raise_if_errors()


def _see_that_named_went(steps: Sequence[Step], rows: Sequence[RewriteRow], diagnostics: Diagnostics) -> None:
    """Tell an error where layers were named by hand and cannot go.

    Raises:
        QccError: one cannot.
    """
    depth = [one for step in steps if isinstance(one := step.action, Restructure) and one.statement == "depth"]
    named = {action_text(action): action for action in depth}
    for row in (row for row in rows if row.action in named):
        action = named[row.action]
        edits = [edit for edit in row.refused if edit.subject not in row.left_out]
        for reason in dict.fromkeys(edit.text for edit in edits):
            names = [f"`{edit.subject}`" for edit in edits if edit.text == reason]
            shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
            help = f'name all layers of the branch, as in `{action.property} = "layers.4.mlp.*"`'
            diagnostics.error("Q522", f"{shown} cannot {action.asks}: {reason}", help=help)
    diagnostics.raise_if_errors()


def tell_left_out(rows: Sequence[RewriteRow], diagnostics: Diagnostics) -> None:
    """Warn of sites at which passes would not have done what they promise."""
    for row in rows:
        for edit in (edit for edit in row.refused if edit.subject in row.left_out):
            diagnostics.warning("Q435", f"`{row.action}` at `{edit.subject}` was {edit.text}")


def tell_rewritten(rows: Sequence[RewriteRow], plan: Plan, bounded: bool, diagnostics: Diagnostics) -> None:
    """Warn of sites that were left out, and of what passes changed on purpose where nothing bounds it."""
    tell_left_out(rows, diagnostics)
    changing = _lossy(plan.steps)
    found = [f"`{row.action}`" for row in rows if row.treated and row.action in changing]
    if found and not bounded:
        changes = "change" if len(found) > 1 else "changes"
        message = f"{' and '.join(found)} {changes} what the model computes, and nothing bounds by how much"
        help = "add `verify { cosine >= 0.99 }`: the written model is held to it, on `calibrate` data"
        diagnostics.warning("Q601", message, help=help)


def _tell_nothing_cut(rows: Sequence[RewriteRow], diagnostics: Diagnostics) -> None:
    """Warn of steps that were to change the structure and changed nothing."""
    for row in rows:
        if not row.treated and not row.left_out:
            why = f": {row.refused[0].text}" if row.refused else ""
            help = "`qcc inspect --axes` tells what may be cut"
            diagnostics.warning("Q520", f"`{row.action}` cuts nothing{why}", help=help)


def _tell_unbounded(rows: Sequence[RewriteRow], diagnostics: Diagnostics) -> None:
    """Warn, once, that what steps took from the function is bounded by nothing."""
    cut = [f"`{row.action}`" for row in rows if row.treated]
    if cut:
        takes = "take parts of the model away, and nothing bounds what they lose"
        if len(cut) == 1:
            takes = "takes parts of the model away, and nothing bounds what that loses"
        help = "add `verify { cosine >= 0.9 }`: the written model is held to it, on `calibrate` data"
        diagnostics.warning("Q650", f"{' and '.join(cut)} {takes}", help=help)
