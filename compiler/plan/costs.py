"""What becoming something costs a weight, row by row: all that the allocator sees of a candidate, its loss apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qcc.dsl.policy.policy import Bound, Policy
from qcc.ir.graph.ops import Weight
from qcc.passes.contract.contract import Pass
from qcc.passes.encode import Encode

SIZE, BITS = "size", "bits"
"""Bytes in the file with what frames them, and the share in the average bits of a weight."""
LATENCY, ENERGY, ACTIVATIONS, PEAK = "latency", "energy", "activations", "peak"
CACHE, TRAFFIC = "cache", "traffic"
"""Rows that caches count in: theirs alone, and with them the weights that a token reads."""
LEARNED, ROOFLINE = "learned", "roofline"
"""What a bound of latency says whose times are foretold, not taken: from others, or from what a machine can do."""
CONTEXT = "context"
GENERATION = CONTEXT, "generate"
"""What a bound of latency says of which step of a model of tokens it is about."""
THREADS = "threads"
"""On how many latency is, where it is more than one."""
METERED = {LATENCY: "ms", ENERGY: "uJ", ACTIVATIONS: "bytes", CACHE: "bytes", TRAFFIC: "bytes"}
"""Rows that are found only where a policy asks for them, with their units: all for one sample."""
ROWS = "rows"
"""The budget of a rule about caches, ``rows.0`` and so on: rows of all its caches."""
BOUNDED = {**METERED, PEAK: "bytes", ROWS: "rows"}
"""With what can be bounded alone: what is no sum over layers has a row for each moment, ``peak.0`` and so on."""


def _nothing(_: object) -> str:
    return ""


def _takes_nothing(_: str, __: Pass | None) -> float:
    return 0.0


def metric_of(row: str) -> str:
    """What a policy calls a row."""
    return row.partition(".")[0]


@dataclass(frozen=True)
class Meter:
    """One such row.

    Args:
        name: of it.
        whole: what the model takes as it came.
        rest: what all takes that is no weight's layer.
        of: what a weight's layers take under an action, or as they are.
        note: tells, in the end, what is worth knowing of it, given what is done to weights, by name.
        after: what all takes given the same, where that is no sum over layers.
    subjects: what is no layer and takes something, by name.
    subject: what one of these takes under an action, or as it is.
    """

    name: str
    whole: float
    rest: float
    of: Callable[[Weight, Encode | None], float]
    note: Callable[[Mapping[str, Encode]], str] = _nothing
    after: Callable[[Mapping[str, Encode]], float] | None = None
    subjects: tuple[str, ...] = ()
    subject: Callable[[str, Pass | None], float] = _takes_nothing


def asked_rows(policy: Policy) -> frozenset[str]:
    """The rows that a policy bounds or minimises."""
    return frozenset((policy.minimize, *(one.metric for one in policy.budget))).intersection(BOUNDED)


def latency_bound(policy: Policy) -> Bound | None:
    """What a policy says of latency, if it bounds it."""
    return next((one for one in policy.budget if one.metric == LATENCY), None)


def by_clock(policy: Policy) -> bool:
    """A policy goes by latency, and by times that are like those of a clock, not by least ones."""
    bound = latency_bound(policy)
    return LATENCY in asked_rows(policy) and not (bound is not None and bound.argument == ROOFLINE)


def held_counts(policy: Policy) -> bool:
    """A policy goes by a row that counts weights as they lie in memory: another form takes another amount."""
    asked = asked_rows(policy)
    return bool(asked & {ENERGY, TRAFFIC}) or (LATENCY in asked and not by_clock(policy))


def latency_threads(policy: Policy) -> int:
    """On how many threads a policy asks for latency."""
    bound = latency_bound(policy)
    return 1 if bound is None else dict(bound.counts).get(THREADS, 1)


def amount(row: str, value: float) -> str:
    """What is taken of a row, for people."""
    if row in (SIZE, ACTIVATIONS, PEAK, CACHE, TRAFFIC):
        return f"{round(value):,} bytes"
    return f"{value:.4g} {METERED[row]}" if row in METERED else f"{value:.4g}"


def costs_of(
    weight: Weight, action: Encode | None, params: int, meters: Sequence[Meter] = (), half: bool = False
) -> dict[str, float]:
    """The rows of a weight under an action, or as it is.

    Args:
        weight: the weight.
        action: what is done to it.
        params: of all weights of the model.
        meters: of what the policy asks for beside.
        half: the graph computes in half precision, so that what stays float takes two bytes a number; a layer that
            loses its numbers then takes four, which is only known once a file is written.
    """
    size = float(weight.size_bytes) / (2 if half and weight.dtype == "float32" else 1)
    bits = 8 * size
    if action is not None:
        size = float(action.form.stored_bytes(action.encoding, weight.shape))
        bits = float(action.encoding.size_bits(weight.shape))
    return {SIZE: size, BITS: bits / max(params, 1)} | {one.name: one.of(weight, action) for one in meters}


def subject_costs(name: str, action: Pass | None, meters: Sequence[Meter]) -> dict[str, float]:
    """The rows of what is no layer, such as a cache, under an action, or as it is: nothing of the file."""
    return {SIZE: 0.0, BITS: 0.0} | {one.name: one.subject(name, action) for one in meters}
