"""Computing attentions by one op of the runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qcc.ir.attention.find import attention_names, attentions
from qcc.ir.errors import ModelError, Refused
from qcc.ir.graph.attention import Attention, NotAttention, OneOp
from qcc.ir.graph.graph import Graph
from qcc.passes.contract.contract import Context, Edit, Rewrite, Site


@dataclass(frozen=True)
class Fuse(Rewrite):
    """Compute an attention by one op, the standard's `Attention`, which moves less than the ops that exporters write.

    Rewrite:
        softmax(scale q k' + bias) v, of ten to fifty ops  -->  Attention(q, k, v, bias, past keys, past values)

    What is an attention is told by what it computes (docs/attention.md). Queries, keys and values are read where
    projections make them; a rotary embedding becomes the standard's own, and the op puts rows of earlier runs in front.
    It is refused where weights are read elsewhere, scores are bounded or have sinks, something else than float32 is
    computed, and where one op is all of it already. The model gets opset 23 then, which the report tells, and is left
    as it is where it cannot be raised. Under `target cpu` one without rows of earlier runs is computed by a kernel.

    Source: the definition of the op, ONNX 1.18, operators of opset 23.
    """

    property: ClassVar[str] = "fuse"
    subjects: ClassVar[tuple[str, ...]] = ("attention",)
    after: ClassVar[tuple[str, ...]] = ("pattern",)
    uses_sample: ClassVar[bool] = True

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The attentions themselves; whether an op computes one shows when it is tried on numbers."""
        known = set(attention_names(graph))
        return [Site(name, ()) for name in targets if name in known]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Write the ops."""
        asked = set(targets)
        found = [one for one in attentions(graph, context.sample) if one.name in asked and context.takes(one.name)]
        return [_fused(graph, one, context) for one in found]


def _fused(graph: Graph, one: Attention | NotAttention, context: Context) -> Edit:
    """What was done to one."""
    if isinstance(one, NotAttention):
        return Edit(one.name, one.reason, refused=True)
    context.progress(one.name)
    try:
        graph.write_attention(one, OneOp())
    except Refused as refused:
        return Edit(one.name, refused.reason, refused=True)
    except ModelError as error:  # its opset is lower, and cannot be raised
        return Edit(one.name, error.message, refused=True)
    return Edit(one.name, "one op computes it")
