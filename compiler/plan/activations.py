"""Which layers round their activations as a policy asks, and which cannot."""

from collections.abc import Sequence
from dataclasses import replace

from qcc.codegen.target.target import TARGETS, VNNI
from qcc.compiler.plan.plan import Candidate, Kernels, Plan, Step
from qcc.compiler.plan.text import action_text
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import Assignment
from qcc.ir.forms.find import forms
from qcc.ir.graph.form import Form
from qcc.ir.graph.ops import Weight
from qcc.passes.contract.contract import Activations
from qcc.passes.encode import Encode

NAMED = 3


def declares_vnni(kernels: Kernels | None) -> bool:
    """All the processors that the file is for, if it is for some, add products of bytes in 32 bits."""
    names = () if kernels is None else kernels.targets
    return bool(names) and all(name in TARGETS and TARGETS[name].has(*VNNI) for name in names)


def everywhere(action: Encode) -> Encode:
    """The action for a file that computes the same on every processor."""
    return replace(action, encoding=action.form.everywhere(action.encoding))


def untargeted(plan: Plan) -> Plan:
    """The plan for every processor in the place of its targets."""
    return replace(plan, steps=tuple(map(_untargeted, plan.steps)), kernels=None)


def _untargeted(step: Step) -> Step:
    return replace(step, action=everywhere(step.action)) if isinstance(step.action, Encode) else step


def static_reason(action: Encode) -> str:
    """Why a layer with rounded activations has its form and its bits, one line for the report."""
    assert action.activations is not None
    reason = f"integers are multiplied, activations {action_text(action.activations)}"
    note = action.form.note(action.encoding)
    return f"{reason}; {note}" if note else reason


def saturating(plan: Plan) -> list[str]:
    """The weights whose products are exact with VNNI alone, where no target declares it."""
    if declares_vnni(plan.kernels):
        return []
    actions = [(step.action, step.weights) for step in plan.steps if isinstance(step.action, Encode)]
    if plan.allocate is not None:
        pairs = [(one.action, option.subject) for option in plan.allocate.options for one in option.candidates]
        actions += [(action, (name,)) for action, name in pairs if isinstance(action, Encode)]
    return [name for action, names in actions if everywhere(action) != action for name in names]


class ActivationBinder:
    """Gives candidates the activations that rules ask for, and tells of layers where that is impossible."""

    def __init__(self, kernels: Kernels | None, diagnostics: Diagnostics) -> None:
        self._kernels, self._diagnostics = kernels, diagnostics
        self._refused: dict[tuple[str, Assignment], list[str]] = {}

    def __call__(
        self, weight: Weight, asked: Assignment | None, candidates: Sequence[Candidate]
    ) -> Sequence[Candidate]:
        """The candidates of a weight, with activations where they are asked for and possible."""
        if asked is None or not isinstance(asked.value, Activations) or not candidates:
            return candidates
        if len(candidates) > 1:
            message = f"`{weight.name}` has {len(candidates)} formats to choose from, and rounded activations"
            help = "what rounded activations cost is not measured: give these layers one format"
            self._diagnostics.error("Q312", message, asked.span, help=help)
            return candidates
        action = candidates[0].action
        form, reason = (
            (None, "their weights are float") if not isinstance(action, Encode) else self._form(weight, action)
        )
        if form is None or not isinstance(action, Encode):
            self._refused.setdefault((reason, asked), []).append(weight.name)
            return candidates
        action = replace(action, activations=asked.value, form=form)
        return [replace(candidates[0], action=action if declares_vnni(self._kernels) else everywhere(action))]

    def report(self) -> None:
        """Warn of the layers that were asked for in vain, once for each reason."""
        for (reason, asked), names in self._refused.items():
            shown = ", ".join(f"`{name}`" for name in names[:NAMED])
            shown += f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            self._diagnostics.warning("Q313", f"activations of {shown} are not rounded: {reason}", asked.span)

    def _form(self, weight: Weight, action: Encode) -> tuple[Form | None, str]:
        """The first form that rounds and takes the weight, kernels' before the runtime's; or why the last does not."""
        reason = ""
        for form in sorted(forms().values(), key=lambda form: not form.takes_steps):
            if form.rounds and (self._kernels is not None or not form.takes_steps):
                reason = form.refuses(weight, action.encoding, rounded=True)
                if not reason:
                    return form, ""
        return None, reason
