"""Caches as the runtime's own op takes them: `GroupQueryAttention` on floats, or codes with a step for each channel."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding.cached.rows import CachedRows
from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.attention.cache import ROWS, CacheWriter
from qcc.ir.onnx.attention.fuse import StandardWriter, check_fusible, result_of
from qcc.ir.onnx.graph.edit import OnnxEditor

GROUPED_OPSET = 23  # of the rotary embedding before it
DOMAIN = "com.microsoft"
INT32 = ir.DataType.INT32


def check_grouped(graph: Graph, one: Attention, keys: CachedRows | None, values: CachedRows | None) -> None:
    """See that the runtime's op computes an attention on its caches.

    Raises:
        Refused: it does not.
    """
    check_fusible(graph, one, again=True)
    kept = [rows for rows in (keys, values) if rows is not None]
    faults = {
        "it is fed no rows of earlier runs": not one.keys.past or not one.values.past,
        "the runtime's op takes keys and values of as many bits": len(kept) == 1
        or len({rows.bits for rows in kept}) > 1,
        "the runtime's op takes steps of channels": any(
            not rows.by_channel or rows.first or rows.mixing is not None for rows in kept
        ),
        "the runtime's op hides what comes later": not any(masking.hides_later for masking in one.masking),
    }
    if fault := next((text for text, found in faults.items() if found), ""):
        raise Refused(fault)


def group(model: ir.Model, one: Attention, keys: CachedRows | None, values: CachedRows | None) -> None:
    """Write the op in the place of what computes the attention; the model's opset is high enough.

    Rewrite:
        softmax(scale q Concat(past, k)' + bias) Concat(past, v)  -->  GroupQueryAttention(q, k, v, codes, steps, bias)
    """
    one = replace(one, result=result_of(one))
    model.opset_imports.setdefault(DOMAIN, 1)
    pairs, editor = ((one.keys, keys), (one.values, values)), OnnxEditor(model.graph)
    if keys is None:
        _GroupedWriter(model, one, [], [editor.value(operand.past) for operand, _ in pairs]).run()
        return
    caches = [CacheWriter(model, OnnxEditor(model.graph), operand, rows) for operand, rows in pairs if rows is not None]
    floats = [cache.past for cache in caches]
    inputs = [cache.fed() for cache in caches]
    _GroupedWriter(model, one, caches, [parts["codes"] for parts in inputs]).run()
    for cache, past, parts in zip(caches, floats, inputs, strict=True):
        cache.sized(past, parts)
    model.graph.sort()


class _GroupedWriter(StandardWriter):
    def __init__(self, model: ir.Model, one: Attention, caches: Sequence[CacheWriter], pasts: list[ir.Value]) -> None:
        super().__init__(model, one, by_heads=False)
        self._caches, self._pasts = caches, pasts

    def attend(self, queries: ir.Value, keys: ir.Value, values: ir.Value) -> Sequence[ir.Value]:
        one, nodes = self.one, self.nodes
        held = [cache.rows for cache in self._caches]
        bias = self.bias(queries, keys)
        new = [keys, values]
        if held:
            new = [self._centred(value, rows) for value, rows in zip(new, held, strict=True)]
        total = nodes.cast(nodes.one("Add", [nodes.size(self._pasts[0], ROWS), nodes.size(keys, 1)]), INT32)
        last = nodes.one("Sub", [total, nodes.array(np.array([1], np.int32))])
        lengths = nodes.one("Expand", [last, nodes.size(queries, 0)])
        steps = [None, *(nodes.array(rows.gain.reshape(-1)) for rows in held)] if held else []
        reads = [queries, *new, *self._pasts, lengths, total, None, None, None, bias, *steps]
        heads = {"num_heads": one.queries.heads, "kv_num_heads": one.keys.heads, "scale": one.scale}
        kind = {f"{name}_quant_type": "PER_CHANNEL" for name in "kv"} if held else {}
        codes = self._pasts[0].dtype
        types = [queries.dtype, codes, codes]
        bits = {"kv_cache_bit_width": held[0].bits} if held else {}
        made = nodes.many(f"{DOMAIN}::GroupQueryAttention", reads, types, **heads, **kind, **bits)
        return self._added_back(made[0], held[1]) if held else made[0], *made[1:]

    def _centred(self, rows: ir.Value, kept: CachedRows) -> ir.Value:
        if not kept.centre.any():
            return rows
        return self.nodes.one("Sub", [rows, self.nodes.array(kept.centre.reshape(-1))])

    def _added_back(self, made: ir.Value, kept: CachedRows) -> ir.Value:
        if not kept.centre.any():
            return made
        repeats = self.one.queries.heads // self.one.keys.heads
        return self.nodes.one("Add", [made, self.nodes.array(np.repeat(kept.centre, repeats, 0).reshape(-1))])

    def take(self, old: ir.Value, new: ir.Value) -> None:
        """What is returned for later runs is codes."""
        cache = next((cache for cache in self._caches if cache.present is old), None)
        if cache is None:
            super().take(old, new)
        else:
            cache.give({"codes": new})
            self.editor.sweep(old)
