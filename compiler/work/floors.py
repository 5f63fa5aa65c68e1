"""Latency by the roofline: what a graph must take at least, by what this machine was measured to do at most."""

from collections.abc import Sequence

from qcc.codegen.target.find import targets
from qcc.codegen.target.machine import machine
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.plan.costs import LATENCY, Meter, latency_bound, latency_threads
from qcc.compiler.runtime.profile import launch_s
from qcc.compiler.runtime.roofline import FLOATS, INT8, ROUNDING, Surroundings, bandwidth
from qcc.compiler.work.count import Count
from qcc.compiler.work.row import Row, meter_of
from qcc.compiler.work.sizes import ValueSizes
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.policy.policy import Policy
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Op, Weight
from qcc.passes.encode import Encode

BF16 = "bf16"
MS = 1e3


def floor_meter(policy: Policy, original: Graph, graph: Graph, samples: Samples, arithmetic: str | None) -> Meter:
    """The meter of floors, in milliseconds.

    Args:
        policy: says on how many threads.
        original: the graph as it came.
        graph: of which weights are chosen.
        samples: whose first says how large values are.
        arithmetic: of kernels, where some are to be made: ``bf16``, ``int8`` or ``exact``.

    Raises:
        QccError: what this machine can do at most was not measured (``Q455``).
    """
    ceilings = next((found for one in targets().values() if (found := one.ceilings()) is not None), None)
    if ceilings is None:
        bound = latency_bound(policy)
        message = "what this machine can do at most was not measured, by which the roofline goes"
        help = "run `qcc targets --measure` once"
        raise QccError([Diagnostic("Q455", message, None if bound is None else bound.span, help)])
    held = float(sum(weight.size_bytes for weight in original.weights()))
    place = Surroundings(machine(), ceilings, latency_threads(policy), launch_s(1), held)
    half = policy.floats is not None
    before, now = (Count(one, ValueSizes(one, samples)) for one in (original, graph))
    return meter_of(_Floor(before, False, place, arithmetic), _Floor(now, half, place, arithmetic))


class _Floor(Row):
    """The longest of what must be done: bytes moved, products, values rounded, and being called at all."""

    name = LATENCY

    def __init__(self, count: Count, half: bool, place: Surroundings, arithmetic: str | None) -> None:
        super().__init__(count, half)
        self._place, self._arithmetic = place, arithmetic
        threads = "" if place.threads == 1 else f", times {place.threads} threads"
        self.note = f"at the least, by the roofline of one core as measured on {place.ceilings.measured}{threads}"

    def of(self, weight: Weight, action: Encode | None) -> float:
        """Of a weight's layers."""
        layers = [layer for layer in weight.layers if layer.output]
        values = [name for layer in layers for name in (layer.input, layer.output) if name]
        held = (
            self.held(weight, action) * self.count.share_read(weight) / bandwidth(self._place.weight_bytes, self._place)
        )
        moved = held + self._moved(values) * self._narrower(weight, action)
        products = 2 * self.count.multiplied(weight) * self.kept(weight, action)
        rounds = action is not None and action.activations is not None
        rounded = sum(self.count.sizes.count(layer.input) for layer in layers if layer.input) if rounds else 0
        return self._longest(moved, products, self._ceiling(action), rounded, len(layers))

    def op(self, op: Op) -> float:
        """Of an op that reads no weight."""
        moved = self._moved((*self.count.writes(op), *self.count.reads(op)))
        work = 2 * self.count.products(op) + self.count.computed(op)
        return self._longest(moved, work, FLOATS, 0, 1 if moved or work else 0)

    def _moved(self, names: Sequence[str]) -> float:
        """Seconds of one core for values, each at the rate of the cache that holds it."""
        return sum(self.bytes_of([name]) / bandwidth(self.bytes_of([name]), self._place) for name in names)

    def _narrower(self, weight: Weight, action: Encode | None) -> float:
        """What layers read and write, as a share of floats."""
        whole = self.read(weight, None) + self.written(weight, None)
        return (self.read(weight, action) + self.written(weight, action)) / whole if whole else 1.0

    def _ceiling(self, action: Encode | None) -> str:
        """The instruction by which layers are multiplied."""
        if action is not None and action.activations is not None:
            return INT8
        if action is not None and action.form.takes_steps:  # a kernel
            return {"int8": INT8, "bf16": BF16}.get(self._arithmetic or "", FLOATS)
        return FLOATS

    def _longest(self, moved_s: float, products: float, ceiling: str, rounded: float, calls: int) -> float:
        place = self._place
        found = [moved_s / place.threads, calls * place.launch_s]
        rate = place.ceilings.rate(ceiling) or place.ceilings.best(ceiling) or place.ceilings.rate(FLOATS)
        found += [products / rate / place.threads] if rate else []
        rounding = place.ceilings.rate(ROUNDING)
        found += [rounded / rounding / place.threads] if rounding else []
        return MS * max(found)
