"""The rows of the allocator that are counted from the graph: energy by a table, and what is written of values."""

from collections.abc import Mapping
from pathlib import Path

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.plan.costs import ACTIVATIONS, ENERGY, PEAK, Meter, asked_rows
from qcc.compiler.work.cache_bytes import CACHES
from qcc.compiler.work.count import Count
from qcc.compiler.work.energy_table import EnergyTable, energy_table
from qcc.compiler.work.peak import moments, peak_bytes
from qcc.compiler.work.row import Row, meter_of
from qcc.compiler.work.sizes import ValueSizes
from qcc.dsl.policy.policy import Policy, Quantity
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Op, Weight
from qcc.passes.encode import Encode

PJ = 1e-6
"""Microjoules."""


def meters_of(
    policy: Policy, original: Graph, graph: Graph, samples: Samples, arithmetic: str | None, table: Path | None = None
) -> tuple[Meter, ...]:
    """The meters that a policy asks for.

    Args:
        policy: bounds or minimises something.
        original: the graph as it came, of which percentages are.
        graph: of which weights are chosen.
        samples: whose first says how large values are.
        arithmetic: of kernels, where some are to be made: ``bf16``, ``int8`` or ``exact``.
        table: a user's energies.

    Raises:
        ModelError: the table is no good.
    """
    asked, half = asked_rows(policy), policy.floats is not None
    costs = energy_table(table)
    found = [meter(policy, original, graph, samples) for row, meter in CACHES.items() if row in asked]
    if not asked & {ENERGY, ACTIVATIONS, PEAK}:
        return tuple(found)
    before, now = (Count(one, ValueSizes(one, samples)) for one in (original, graph))
    if ACTIVATIONS in asked:
        found.append(meter_of(_Written(before, False), _Written(now, half)))
    if ENERGY in asked:
        found.append(meter_of(_Energy(before, False, costs, arithmetic), _Energy(now, half, costs, arithmetic)))
    if PEAK in asked:
        bound = next(one.quantity for one in policy.budget if one.metric == PEAK)
        found += _moments(before, now, half, bound)
    return tuple(found)


def _moments(before: Count, now: Count, half: bool, bound: Quantity) -> list[Meter]:
    """A row for each moment at which more may be alive than is allowed, and for the one at which most may be."""
    whole = peak_bytes(before, _Written(before, False).sizes_of({}))
    rows = {alive: _Alive(now, half, alive) for alive in moments(now)}
    most = {alive: row.rest() + sum(row.of(weight, None) for weight in now.weights) for alive, row in rows.items()}
    ranked = sorted(most, key=lambda alive: (-most[alive], sorted(alive)))
    over = [one for at, one in enumerate(ranked) if not at or most[one] > bound.of(whole)]
    kept = [one for at, one in enumerate(over) if not any(one < other for other in over[:at])]
    sized = _Written(now, half)

    def after(actions: Mapping[str, Encode]) -> float:
        return peak_bytes(now, sized.sizes_of(actions))

    return [
        Meter(f"{PEAK}.{at}", whole, rows[one].rest(), rows[one].of, lambda _: _Alive.note, after)
        for at, one in enumerate(kept)
    ]


class _Written(Row):
    """Bytes of values that are written."""

    name = ACTIVATIONS
    note = "of what ops write for a sample, counted from shapes"

    def of(self, weight: Weight, action: Encode | None) -> float:
        """What the layers write."""
        return self.written(weight, action)

    def told(self, before: Row, actions: Mapping[str, Encode]) -> str:
        """With what is alive at a time."""
        ends = (peak_bytes(one.count, one.sizes_of(done)) for one, done in ((before, {}), (self, actions)))
        return f"{self.note}; {' -> '.join(f'{end:,.0f}' for end in ends)} bytes alive at a time at most"

    def op(self, op: Op) -> float:
        """What it writes."""
        return self.bytes_of(self.count.writes(op))


class _Alive(Row):
    """Bytes of the values that are alive at one moment."""

    name = PEAK
    note = "of values that are alive at a time, counted from shapes; each goes behind its last reader"

    def __init__(self, count: Count, half: bool, alive: frozenset[str]) -> None:
        super().__init__(count, half)
        self._alive = alive

    def rest(self) -> float:
        """Of those that are no layer's."""
        made = {layer.output for weight in self.count.weights for layer in weight.layers}
        return self.bytes_of([*(self._alive - made)])

    def of(self, weight: Weight, action: Encode | None) -> float:
        """Of those that the weight's layers make."""
        made = [layer.output for layer in weight.layers if layer.output in self._alive]
        whole = self.whole_numbers(weight, action)
        return float(sum(map(self.count.sizes.count, made))) if whole else self.bytes_of(made)


class _Energy(Row):
    """Microjoules by a table."""

    name = ENERGY

    def __init__(self, count: Count, half: bool, table: EnergyTable, arithmetic: str | None) -> None:
        super().__init__(count, half)
        self._table, self._arithmetic = table, arithmetic
        self.note = f"counted, not measured, by {table.source}"

    def of(self, weight: Weight, action: Encode | None) -> float:
        """Of the weight's bytes, of multiplications, and of what the layers read and write."""
        table, products = self._table, self.count.multiplied(weight) * self.kept(weight, action)
        held = self.held(weight, action) * self.count.share_read(weight)
        moved = self.written(weight, action) + self.read(weight, action)
        return PJ * (held * table.memory_byte + moved * table.cache_byte + products * self._product(action))

    def op(self, op: Op) -> float:
        """Of what it moves, multiplies and computes."""
        table, moved = self._table, self.bytes_of((*self.count.writes(op), *self.count.reads(op)))
        products = self.count.products(op) * self._product(None)
        return PJ * (moved * table.cache_byte + products + self.count.computed(op) * table.operation)

    def _product(self, action: Encode | None) -> float:
        table = self._table
        if action is not None and action.activations is not None:
            return table.int8
        if action is not None and action.form.takes_steps:  # a kernel
            return {"int8": table.int8, "bf16": table.float16}.get(self._arithmetic or "", table.float32)
        return table.float16 if self.half else table.float32
