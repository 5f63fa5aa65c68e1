"""Which layers round their activations as a policy asks, and which cannot."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property

from qcc.compiler.plan.cascade import place
from qcc.compiler.plan.plan import Candidate, Kernels, Plan, Step
from qcc.compiler.plan.targets import unserved
from qcc.compiler.plan.text import said_text
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import Assignment
from qcc.ir.errors import Refused
from qcc.ir.forms.decoded import DECODED
from qcc.ir.forms.find import forms
from qcc.ir.graph.form import Form
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Weight
from qcc.ir.regions.flow import Flow
from qcc.passes.contract.activations import Activations
from qcc.passes.contract.chains import follows_convolution
from qcc.passes.contract.contract import Pass
from qcc.passes.contract.places import places
from qcc.passes.encode import Encode

NAMED = 3


def adds_bytes_exactly(kernels: Kernels | None) -> bool:
    """All the processors that the file is for, if it is for some, add products of bytes in 32 bits."""
    return kernels is not None and all(one.adds_bytes_exactly for one in kernels.processors)


def everywhere(action: Encode) -> Encode:
    """The action for a file that computes the same on every processor."""
    return replace(action, encoding=action.form.everywhere(action.encoding))


def untargeted(plan: Plan) -> Plan:
    """The plan for every processor in the place of its targets."""
    return replace(plan, steps=tuple(map(_untargeted, plan.steps)), kernels=None)


def _untargeted(step: Step) -> Step:
    return replace(step, action=everywhere(step.action)) if isinstance(step.action, Encode) else step


def rounded_reason(action: Encode) -> str:
    """Why a layer with rounded activations has its form and its bits, one line for the report."""
    assert action.activations is not None
    multiplied = "integers" if action.form.rounds else "floats"
    reason = f"{multiplied} are multiplied, activations {said_text(action.activations)}"
    note = action.form.note(action.encoding)
    return f"{reason}; {note}" if note else reason


def saturating(plan: Plan) -> list[str]:
    """The weights whose products are exact with VNNI alone, where no target declares it."""
    if adds_bytes_exactly(plan.kernels):
        return []
    actions = [(step.action, step.weights) for step in plan.steps if isinstance(step.action, Encode)]
    if plan.allocate is not None:
        pairs = [(one.action, option.subject) for option in plan.allocate.options for one in option.candidates]
        actions += [(action, (name,)) for action, name in pairs if isinstance(action, Encode)]
    return [name for action, names in actions if everywhere(action) != action for name in names]


def _untold(weight: Weight) -> str:
    """Why what a weight's layers read cannot be rounded and multiplied as floats; empty if it can."""
    whole = weight.kinds == {"conv"} and all(one is not None and one.when == "static" for one in weight.reads)
    if not whole and (weight.kinds != {"linear"} or not all(layer.form_free for layer in weight.layers)):
        return "values are rounded by blocks where linear layers read them"
    return "" if weight.dtype == "float32" else f"values are rounded in float32, and the layers read {weight.dtype}"


class ActivationBinder:
    """Gives candidates the activations that rules ask for, and tells of layers where that is impossible."""

    def __init__(
        self, graph: Graph, kernels: Kernels | None, diagnostics: Diagnostics, named: Collection[str] = ()
    ) -> None:
        self._graph, self._kernels, self._diagnostics = graph, kernels, diagnostics
        self._forms = [one for one in forms().values() if (one.name in named if named else one.general)]
        self._exact = adds_bytes_exactly(kernels)
        self._refused: dict[tuple[str, Assignment], list[str]] = {}

    def __call__(
        self, weight: Weight, asked: Assignment | None, candidates: Sequence[Candidate]
    ) -> Sequence[Candidate]:
        """The candidates of a weight, with activations where they are asked for and possible."""
        ways = [] if asked is None else [asked]
        if asked is not None and isinstance(asked.value, tuple):
            ways = [one for one in asked.value if isinstance(one, Assignment)]
        rounding = [one for one in ways if isinstance(one.value, Activations)]
        if not rounding or not candidates:
            return candidates
        if all(one.action is None for one in candidates):
            self._refused.setdefault(("their weights are float", rounding[0]), []).append(weight.name)
        found: dict[Pass | None, Candidate] = {}
        for way in ways:
            for one in candidates:
                one = self._rounded(weight, way, way.value, one) if isinstance(way.value, Activations) else one
                found.setdefault(one.action, one)  # in fewer bits, what differed may be the same
        return tuple(found.values())

    def _rounded(self, weight: Weight, asked: Assignment, how: Activations, one: Candidate) -> Candidate:
        """The candidate with activations, if that is possible."""
        if not isinstance(one.action, Encode):
            return one
        form, reason = self._form(weight, how, one.action)
        if form is None:
            self._refused.setdefault((reason, asked), []).append(weight.name)
            return one
        action = replace(one.action, activations=how, form=form)
        action = action if self._exact else everywhere(action)
        return replace(one, action=action, value_source=place(asked.span))

    def report(self) -> None:
        """Warn of the layers that were asked for in vain, once for each reason."""
        for (reason, asked), names in self._refused.items():
            names = list(dict.fromkeys(names))
            shown = ", ".join(f"`{name}`" for name in names[:NAMED])
            shown += f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            self._diagnostics.warning("Q313", f"activations of {shown} are not rounded: {reason}", asked.span)

    def _form(self, weight: Weight, how: Activations, action: Encode) -> tuple[Form | None, str]:
        """The first form that rounds and takes the weight, kernels' before the runtime's; or why the last does not.

        Behind convolutions the runtime's come first: what is between is then rounded, and a chain of kernels goes on to
        the end, where a kernel of the layer would read floats.

        Of the runtime's that one comes first for convolutions, and for what is computed of their results alone, which
        keeps all bits on every processor. Where the targets add exactly it is the one that does not, which is faster;
        also for other linear layers, which are most of the work where they stand, and lose nothing by 7 bits.
        """
        reason, encoding = "", action.encoding
        if how.encoding(DECODED).imitates and not any(form.rounds and not form.general for form in self._forms):
            reading = weight.reading(how.encoding(DECODED))
            reason = DECODED.refuses(reading, encoding) or _untold(reading) or self._misplaced(reading, DECODED)
            return (None if reason else DECODED), reason
        behind = any(follows_convolution(self._flow, layer) for layer in weight.layers)
        fast = self._exact or not behind

        def order(form: Form) -> tuple[bool, bool]:
            return form.takes_steps == behind, (form.everywhere(encoding) == encoding) == fast

        for form in sorted(self._forms, key=order):
            if form.rounds and (self._kernels is not None or not form.takes_steps):
                reading = weight.reading(how.encoding(form))
                reason = form.refuses(reading, action.encoding)
                if not reason and form.takes_steps and self._kernels is not None:
                    reason = unserved(self._kernels, reading, action.encoding)
                reason = reason or self._misplaced(reading, form)
                if not reason:
                    return form, ""
        return None, reason

    def _misplaced(self, weight: Weight, form: Form) -> str:
        """Why what the form needs encoded around the weight's layers cannot be; empty if it can."""
        try:
            places(self._flow, weight, form)
        except Refused as refused:
            return refused.reason
        return ""

    @cached_property
    def _flow(self) -> Flow:
        return Flow(self._graph)
