"""Whether a plan can be run: that its parts fit each other, and that it can be written."""

from qcc.compiler.plan.costs import BITS, BOUNDED, SIZE, metric_of
from qcc.compiler.plan.plan import Plan
from qcc.compiler.plan.terms import policy_of, terms_of
from qcc.dsl.diagnostics.report import QccError
from qcc.passes.contract.subject import SubjectPass
from qcc.passes.encode import Encode


def check(plan: Plan) -> None:
    """See that the parts of a plan fit each other, and that it can be written as text.

    Raises:
        ValueError: they do not.
    """
    try:
        whole = terms_of(policy_of(plan.terms))
    except QccError as error:
        raise ValueError(f"its terms are no policy: {error.diagnostics[0].message}") from error
    if stray := [term for term in plan.terms if term not in whole]:
        raise ValueError(f"`{stray[0]}` is none of its terms")
    encoded = [name for step in plan.steps if isinstance(step.action, Encode) for name in step.weights]
    open_ = [option.subject for option in plan.allocate.options] if plan.allocate else []
    treated = [*encoded, *open_, *(one.weight for one in plan.kept)]
    if len(set(treated)) < len(treated):
        raise ValueError("a weight is named twice")
    actions = [step.action for step in plan.steps if isinstance(step.action, Encode)]
    options = plan.allocate.options if plan.allocate else ()
    candidates = [one for option in options for one in option.candidates]
    if any(one.action is not None and not isinstance(one.action, Encode | SubjectPass) for one in candidates):
        raise ValueError("a candidate stores a weight or a cache, or leaves it")
    if any(not {SIZE, BITS} <= one.costs.keys() or min(one.costs.values()) < 0 for one in candidates):
        raise ValueError("a candidate has its size and bits")
    rows = [*(one.costs for one in candidates), plan.allocate.fixed if plan.allocate else {}]
    if unknown := [name for row in rows for name in row if metric_of(name) not in (SIZE, BITS, *BOUNDED)]:
        raise ValueError(f"nothing is called `{unknown[0]}` that a candidate could take")
    actions += [one.action for one in candidates if isinstance(one.action, Encode)]
    for encoding in (*(action.encoding for action in actions), *(one for step in plan.steps for one in step.encodings)):
        if encoding is not None and encoding.undecodable:
            raise ValueError(f"there is no encoding `{encoding.text}`")
    if any(not option.candidates for option in options):
        raise ValueError("a weight has no candidate")
