"""Scaling the scores of attentions for another number of tokens than in training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from qcc.ir.attention.find import attention_names, attentions
from qcc.ir.attention.origin import Origins
from qcc.ir.graph.attention import Attention, NotAttention, ScaledByRows
from qcc.ir.graph.graph import Graph
from qcc.passes.contract.contract import Between, Context, Edit, G, Invariant, Rewrite, Site

QUERIES, KEYS = 0, 1


@dataclass(frozen=True)
class Tokens(Rewrite):
    """Scale the scores of self-attentions for how many tokens there are, so that they stay as sharp as in training.

    Rewrite:
        softmax(scale q k') v  -->  softmax(scale sqrt(log n / log count) q k') v

    Over more tokens than a model was trained on, a softmax spreads: its entropy grows with the logarithm of their
    number ``n``, which the factor makes up for. With as many tokens as in training it is one, and the model computes
    the same bits. How many there are is read off the keys as the model runs, where its axes are free.

    Self-attentions of images alone: it is refused where queries and keys are made of different values, where rows of
    earlier runs come first, and where tokens see only what came before them. No claim is made about the quality of
    what comes out.

    Args:
        count: of tokens that an attention saw in training, a class token and its like among them.

    Source: Training-free diffusion model adaptation for variable-sized text-to-image synthesis, Jin et al. 2023
    (arXiv:2306.08645), section 3.
    """

    property: ClassVar[str] = "scale"
    subjects: ClassVar[tuple[str, ...]] = ("attention",)
    keeps: ClassVar[frozenset[Invariant]] = frozenset((Invariant.WEIGHTS, Invariant.SHAPES))
    after: ClassVar[tuple[str, ...]] = ("fuse", "pattern")
    uses_sample: ClassVar[bool] = True

    count: Annotated[int, Between(2, 1 << 30), "tokens in training"]

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The attentions themselves."""
        known = set(attention_names(graph))
        return [Site(name, ()) for name in targets if name in known]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Multiply queries."""
        return self._scale(graph, targets, context, QUERIES)

    def meant(self, graph: G, targets: Sequence[str], context: Context) -> G:
        """Keys are multiplied in the place of queries."""
        copy = graph.copy()
        self._scale(copy, targets, context, KEYS)
        return copy

    def _scale(self, graph: Graph, targets: Sequence[str], context: Context, which: int) -> list[Edit]:
        origins, edits = Origins(graph), list[Edit]()
        found = {one.name: one for one in attentions(graph, context.sample)}
        for name in filter(context.takes, targets):
            one = found.get(name, NotAttention(name, "what was made of it before is no attention that is told"))
            if fault := _fault(one, origins):
                edits.append(Edit(one.name, fault, refused=True))
                continue
            assert isinstance(one, Attention)
            axis = one.keys.row_axis
            assert axis is not None
            length = (graph.value(one.keys.value).shape or (None,) * 9)[axis]
            if length == self.count:
                edits.append(Edit(one.name, f"it has {self.count:,} tokens, as in training", refused=True))
                continue
            graph.write_attention(one, ScaledByRows(self.count, which))
            edits.append(Edit(one.name, f"scaled for {length if isinstance(length, int) else 'any number of'} tokens"))
        return edits


def _fault(one: Attention | NotAttention, origins: Origins) -> str:
    """Why an attention is not scaled; empty if it is."""
    if isinstance(one, NotAttention):
        return one.reason
    faults = {
        "its queries and keys are made of different values": not origins.is_self(one),
        "rows of earlier runs come first": bool(one.keys.past),
        "its tokens see only what came before": any(
            masking.hides_later or masking.kind in ("causal", "window") for masking in one.masking
        ),
        "how its keys hold rows is not known": one.keys.row_axis is None or not one.reads,
    }
    return next((text for text, found in faults.items() if found), "")
