"""The ways in which caches of an attention hold codes, each with what it takes."""

import onnx_ir as ir

from qcc.ir.encoding.cached.rows import CachedRows
from qcc.ir.encoding.cached.stored import NOTE, StoredCache, note_of, of_note
from qcc.ir.graph.attention import Attention
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.attention.cache import CACHE_OPSET, check_cache, write_codes
from qcc.ir.onnx.attention.grouped import GROUPED_OPSET, check_grouped, group


def check_stored(graph: Graph, one: Attention, keys: CachedRows | None, values: CachedRows | None, fused: bool) -> int:
    """See that the caches of an attention can hold codes; the opset that it needs.

    Raises:
        Refused: they cannot.
    """
    check_cache(graph, one, keys, values)
    if not fused:
        return CACHE_OPSET
    check_grouped(graph, one, keys, values)
    return GROUPED_OPSET


def store_caches(
    model: ir.Model, one: Attention, keys: CachedRows | None, values: CachedRows | None, fused: bool
) -> None:
    """Write it; the model's opset is high enough, and `check_stored` refused nothing."""
    if fused and keys is not None and values is not None:
        group(model, one, keys, values)
    else:
        write_codes(model, one, keys, values)
    pairs = (one.keys, keys), (one.values, values)
    told = [StoredCache(operand.past, operand.present, rows) for operand, rows in pairs if rows is not None]
    model.metadata_props[NOTE] = note_of([*of_note(model.metadata_props.get(NOTE, "")), *told])
