"""Products of two matrices that become one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcc.ir.attention.find import attention_names, attentions
from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention, NotAttention, Operand
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Layer, Weight
from qcc.passes.contract.contract import Context, Edit, Invariant, Restructure, Site

Made = tuple[Weight, Layer]


@dataclass(frozen=True)
class MergeQueryKey(Restructure):
    """Make one matrix of those of an attention's queries and keys, where that is smaller; keys are then what they read.

    Rewrite:
        (x Wq' + bq) (y Wk' + bk)'  -->  (x (Wq' Wk) + bq Wk) y'

    What is added to a query's scores alike for all keys changes no softmax, and goes. Of H heads of width d, of n
    inputs, 2 H d n numbers become H n n: fewer only where a head is wider than half its inputs, as where there is one
    head. It is refused where it would be more, under a rotary embedding, which stands between the two matrices and
    differs from row to row, and where keys are kept from run to run.

    Source: Oscillation-free quantization for low-bit vision transformers, Liu et al. 2023 (arXiv:2302.02210), query-key
    reparameterisation.
    """

    property: ClassVar[str] = "merge"
    keyword: ClassVar[str] = "query_key"
    keeps: ClassVar[frozenset[Invariant]] = frozenset((Invariant.FUNCTION,))
    after: ClassVar[tuple[str, ...]] = ("clean",)
    uses_sample: ClassVar[bool] = True

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """All that may be an attention; what makes its queries and keys shows when it is tried on numbers."""
        return [Site(name, ()) for name in attention_names(graph)] if targets else []

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Merge, attention by attention."""
        edits = []
        for one in attentions(graph, context.sample):
            if context.takes(one.name):
                context.progress(one.name)
                edits += _merged(graph, one, frozenset(targets))
        return edits

    def silence(self, graph: Graph, targets: Sequence[str], context: Context) -> None:
        """Nothing is removed that contributes anything."""


def _merged(graph: Graph, one: Attention | NotAttention, targets: frozenset[str]) -> list[Edit]:
    """What was done to an attention; nothing where no rule asks for both of its matrices."""
    if isinstance(one, NotAttention):
        return []
    makers = {layer.output: (weight, layer) for weight in graph.weights() for layer in weight.layers}
    made = [makers.get(operand.value) for operand in (one.queries, one.keys)]
    names = tuple(pair[0].name for pair in made if pair is not None)
    if not targets.issuperset(names) or (not names and not targets):
        return []
    try:
        text = _merge(graph, one, *made)
    except Refused as refused:
        return [Edit(one.name, refused.reason, refused=True, layers=names)]
    return [Edit(one.name, text, layers=names)]


def _merge(graph: Graph, one: Attention, queries: Made | None, keys: Made | None) -> str:
    """Write it.

    Raises:
        Refused: it cannot be, or gains nothing.
    """
    if one.queries.rotary is not None or one.keys.rotary is not None:
        raise Refused("a rotary embedding stands between queries and keys, and differs from row to row")
    if one.keys.past or one.keys.present:
        raise Refused("keys are kept from run to run: they would be as wide as what they are made of")
    if queries is None or keys is None:
        raise Refused("queries and keys are not made by layers of their own")
    (query, _), (key, layer) = queries, keys
    before = query.params + key.params
    after = one.queries.heads * query.shape[1] * key.shape[1]
    if after >= before:
        heads = f"{one.queries.heads} head{'s' if one.queries.heads > 1 else ''} of width {one.queries.width}"
        raise Refused(f"{before:,} numbers would become {after:,}: {heads} read {key.shape[1]} channels")
    _see_that_it_fits(graph, one, queries, keys)
    wq, wk = (graph.matrix(weight).astype(np.float64) for weight in (query, key))
    bias = _bias(graph, queries[1])
    dtype = np.dtype(query.dtype)
    added = None if bias is None else np.asarray(bias @ wk, dtype)
    graph.replace_region(one.queries.value, queries[1].input, np.asarray(wq.T @ wk, dtype), added)
    graph.remove(one.keys.value, layer.input)
    return f"{before:,} -> {after:,} numbers"


def _see_that_it_fits(graph: Graph, one: Attention, queries: Made, keys: Made) -> None:
    """Say no where the graph could not hold it.

    Raises:
        Refused: see the reasons.
    """
    for weight, layer in (queries, keys):
        if len(weight.layers) > 1 or not layer.form_free or not layer.input:
            raise Refused(f"`{weight.name}` is read by others, or in another way than as a product")
    readers = [op.name for op in graph.ops() for name in op.inputs if name in (one.queries.value, one.keys.value)]
    if len(readers) > 2:
        raise Refused("queries or keys are read by others, too")
    if _bias(graph, keys[1]) is not None and (one.cap is not None or one.sinks):
        raise Refused("scores are bounded or have sinks, so that what is the same for all keys counts")
    shapes: Mapping[str, Operand] = {"queries": one.queries, "keys": one.keys}
    width = keys[0].shape[1]
    if any(operand.heads != 1 or operand.width != width for operand in shapes.values()):
        raise Refused(f"heads would be {width} wide, not {one.keys.width}: the shapes between would change")


def _bias(graph: Graph, layer: Layer) -> Array | None:
    """What a layer adds, float64."""
    array = None if layer.bias is None else graph.constant(layer.bias)
    return None if array is None else array.reshape(-1).astype(np.float64)
