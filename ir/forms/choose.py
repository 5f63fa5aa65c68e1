"""Which form a weight gets.

`choose` rests on a target's tables of what was measured (`Costs`), one for each instruction set, not on what the
machine at hand does today: the same input must give the same bytes. Where kernels are made for this machine the driver
times forms instead, and the plan keeps its choice. What a form can hold, it says itself (`Form.refuses`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.errors import Refused
from qcc.ir.forms.find import forms
from qcc.ir.graph.costs import Cost, Costs
from qcc.ir.graph.form import Form
from qcc.ir.graph.ops import Weight


@dataclass(frozen=True)
class Choice:
    """A form with the reason for it, one line for the report, and what it was measured to cost, if it was."""

    form: Form
    reason: str
    cost: Cost | None = None


Chooser = Callable[[Weight, Encoding], Choice]
"""Finds the form of a weight under an encoding."""


def choose(weight: Weight, encoding: Encoding, costs: Costs) -> Choice:
    """The form of a weight under an encoding, by what the forms were measured to cost.

    The first form of the runtime that holds the weight and was not measured slower than float is taken; the reason is
    why the first that is meant for such weights is it, or is not.

    Raises:
        Refused: no form could hold it.
    """
    told = encoding.undecodable
    for form in _runtime_forms():
        if not form.concerns(weight):
            continue
        refused = form.refuses(weight, encoding)
        cost = None if refused else form.cost(encoding, weight.shape, costs)
        told = told or refused or form.reason(cost)
        if not refused and form.pays(cost):
            return Choice(form, told, cost)
    raise Refused(told)


def plain_forms(weight: Weight, encoding: Encoding, first: Form) -> tuple[Form, ...]:
    """The forms that a weight may have under an encoding without a kernel of ours, that of `choose` first."""
    if not first.competes:
        return (first,)
    others = (form for form in _runtime_forms() if form != first and form.competes)
    return (first, *(form for form in others if not form.refuses(weight, encoding)))


def unpacked_form(weight: Weight, encoding: Encoding) -> Form:
    """The runtime's form in which nothing multiplies codes: with the float model's speed."""
    return next(form for form in _runtime_forms() if not form.packed and not form.refuses(weight, encoding))


def _runtime_forms() -> Iterator[Form]:
    """The forms that the runtime itself runs, in the order in which they are tried."""
    return (form for form in forms().values() if form.rank is not None)
