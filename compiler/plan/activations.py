"""Which layers round their activations as a policy asks, and which cannot."""

from collections.abc import Sequence
from dataclasses import replace

from qcc.compiler.plan.plan import Candidate, Kernels
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import Assignment
from qcc.ir.encoding.form import Form
from qcc.ir.forms.choose import kernel_takes, static_takes
from qcc.ir.graph.ops import Weight
from qcc.passes.contract.contract import Activations
from qcc.passes.encode import Encode

NAMED = 3


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
        reason = "their weights are float" if action is None else self._reason(weight, action)
        if reason or action is None:
            self._refused.setdefault((reason, asked), []).append(weight.name)
            return candidates
        form = Form.FUSED if self._takes_none(weight, action) else Form.KERNEL
        return [replace(candidates[0], action=replace(action, activations=asked.value, form=form))]

    def report(self) -> None:
        """Warn of the layers that were asked for in vain, once for each reason."""
        for (reason, asked), names in self._refused.items():
            shown = ", ".join(f"`{name}`" for name in names[:NAMED])
            shown += f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            self._diagnostics.warning("Q313", f"activations of {shown} are not rounded: {reason}", asked.span)

    def _takes_none(self, weight: Weight, action: Encode) -> bool:
        return self._kernels is None or bool(kernel_takes(weight, action.encoding))

    def _reason(self, weight: Weight, action: Encode) -> str:
        return static_takes(weight, action.encoding, kernels=not self._takes_none(weight, action))
