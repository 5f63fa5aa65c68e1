"""What a plan asks of calibration data: statistics of what layers read, ranges of what is rounded."""

from contextlib import suppress

from qcc.compiler.observe.statistics import RoundedValues
from qcc.compiler.plan.plan import Plan
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.errors import Refused
from qcc.ir.graph.form import Form
from qcc.ir.graph.graph import Graph
from qcc.ir.regions.flow import Flow
from qcc.passes.contract.activations import Activations
from qcc.passes.contract.chains import joined
from qcc.passes.contract.contract import Pass
from qcc.passes.contract.places import places
from qcc.passes.encode import Encode


def rounding_of(plan: Plan) -> set[tuple[str, Form, Activations]]:
    """The weights whose layers round values, or may, by steps that data shows, the forms that want it, and how."""
    found = [(step.action, step.weights) for step in plan.steps if isinstance(step.action, Encode)]
    for option in plan.allocate.options if plan.allocate else ():
        found += [(one.action, (option.subject,)) for one in option.candidates if isinstance(one.action, Encode)]
    asked = [(one.form, one.activations, names) for one, names in found if one.activations]
    return {(name, form, how) for form, how, names in asked if how.when == "static" for name in names}


def float_tokens(plan: Plan) -> dict[str, int]:
    """How many first tokens of what each weight's layers read stay floats, by the weight's name."""
    found: dict[str, int] = {}
    for name, form, how in rounding_of(plan):
        found[name] = max(found.get(name, 0), how.encoding(form).float_tokens)
    return found


def rounded_values(graph: Graph, plan: Plan) -> RoundedValues:
    """The values that show the steps of what the plan rounds, or may."""
    asked = rounding_of(plan)
    if not asked:
        return RoundedValues()
    weights, flow, found, rounded = {one.name: one for one in graph.weights()}, Flow(graph), set[str](), set[str]()
    behind, places_apart = set[tuple[str, int]](), set[str]()
    for name, form, how in asked:
        encoding = how.encoding(form)
        if name in weights:
            with suppress(Refused):  # so will be what is to be written
                around = places(flow, weights[name].reading(encoding), form)
                if encoding.by_position:
                    places_apart.update(place.value for place in around)
                    continue
                if encoding.float_tokens:
                    behind.update((place.value, encoding.float_tokens) for place in around)
                    continue
                found.update(seen for place in around for seen in place.seen)
                rounded.update(place.value for place in around if form.chains)
    for one in joined(flow, rounded):
        found.update(() if one.source else one.results)
    return RoundedValues(frozenset(found), frozenset(behind), frozenset(places_apart))


def encodings_of(plan: Plan) -> dict[str, list[Encoding]]:
    """What each weight is stored in, or may be, by name."""
    found: dict[str, list[Encoding]] = {}
    pairs = [(name, step.action) for step in plan.steps for name in step.weights]
    for option in plan.allocate.options if plan.allocate else ():
        pairs += [(option.subject, one.action) for one in option.candidates if one.action is not None]
    for name, action in pairs:
        if isinstance(action, Encode):
            found.setdefault(name, []).append(action.encoding)
    return found


def weights_with_gram(plan: Plan, given: bool) -> list[str]:
    """The weights whose ways of rounding want statistics, or whose encodings learn from data that is given."""

    def wants(action: Pass | None) -> bool:
        return isinstance(action, Encode) and (action.rounding.uses_gram or (given and action.encoding.learns))

    wanted = [name for step in plan.steps if wants(step.action) for name in step.weights]
    for option in plan.allocate.options if plan.allocate else ():
        if any(wants(one.action) for one in option.candidates):
            wanted.append(option.subject)
    return wanted
