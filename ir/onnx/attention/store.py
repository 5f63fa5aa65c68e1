"""The ways in which caches of an attention are stored, each with what it takes."""

import onnx_ir as ir

from qcc.ir.encoding.cached.kept import CacheForm, KeptRows, StoredRows
from qcc.ir.encoding.cached.stored import NOTE, StoredCache, note_of, of_note
from qcc.ir.graph.attention import Attention
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.attention.cache import CACHE_OPSET, check_cache, write_codes
from qcc.ir.onnx.attention.cached.write import CACHED_OPSET, check_cached, write_cached
from qcc.ir.onnx.attention.evict import EVICTING_OPSET, check_evicting, evict
from qcc.ir.onnx.attention.grouped import GROUPED_OPSET, check_grouped, group


def check_stored(graph: Graph, one: Attention, keys: StoredRows, values: StoredRows, how: CacheForm) -> int:
    """See that the caches of an attention can be stored so; the opset that it needs.

    Raises:
        Refused: they cannot.
    """
    check_cache(graph, one, keys, values)
    if isinstance(how, KeptRows):
        check_evicting(graph, one, keys, values)
        return EVICTING_OPSET
    if how == "decoded":
        return CACHE_OPSET
    if how == "kernel":
        check_cached(graph, one, keys, values)
        return CACHED_OPSET
    check_grouped(graph, one, keys, values)
    return GROUPED_OPSET


def store_caches(model: ir.Model, one: Attention, keys: StoredRows, values: StoredRows, how: CacheForm) -> None:
    """Write it; the model's opset is high enough, and `check_stored` refused nothing."""
    pairs, kept = ((one.keys, keys), (one.values, values)), how if isinstance(how, KeptRows) else None
    told = [StoredCache(operand.past, operand.present, rows, kept, operand is one.keys) for operand, rows in pairs]
    if kept is not None:
        evict(model, one, told)
    elif how == "fused":
        group(model, one, keys, values)
    elif how == "kernel":
        write_cached(model, one, keys, values)
    else:
        write_codes(model, one, keys, values)
    told = [cache for cache in told if cache.rows is not None or kept is not None]
    if told:
        model.metadata_props[NOTE] = note_of([*of_note(model.metadata_props.get(NOTE, "")), *told])
