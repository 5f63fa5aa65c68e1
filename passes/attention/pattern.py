"""Computing attentions by the pattern that their scores have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from qcc.ir.attention.documents import why_no_documents, why_not_causal
from qcc.ir.attention.find import attention_names, attentions
from qcc.ir.errors import ModelError, Refused
from qcc.ir.graph.attention import Attention, BlockSparseScores, DocumentsApart, Masking, NotAttention
from qcc.ir.graph.graph import Graph
from qcc.passes.contract.contract import Between, Context, Edit, G, InPercent, Invariant, Rewrite, Site


@dataclass(frozen=True)
class Blocks(Rewrite):
    """Compute attentions over documents side by side as many short ones, in place of one long one behind a mask.

    Rewrite:
        softmax(scale q k' + mask) v  -->  one product of attentions for all documents, one for what reads them all

    An input of the model tells the segment of each row, by a whole number: 0 is what all documents share, such as an
    instruction, the largest is what reads them all, such as a question, and each number between is a document. A row
    sees what came before it in its own segment and in segment 0; the last segment sees all. The model has that mask
    already, made of the input in whatever way: it is tried on drawn segments, in order and in disorder, and an
    attention of another mask is left as it is, with the reason. The result is that of the masked model; the time grows
    with the number of documents, not with its square.

    That a model ranks documents well behind such a mask takes training with it, of which nothing is said here.

    Args:
        input: that tells the segment of each row, ``[rows]`` or ``[1, rows]``, the same for all samples of a batch.

    Source: Scalable in-context ranking with generative models, Gupta et al. 2025 (arXiv:2510.05396), section 3.
    """

    property: ClassVar[str] = "pattern"
    subjects: ClassVar[tuple[str, ...]] = ("attention",)
    uses_sample: ClassVar[bool] = True

    input: Annotated[str, "that tells each row's segment"]

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The attentions themselves; what their masks hide shows when it is tried on numbers."""
        known = set(attention_names(graph))
        return [Site(name, ()) for name in targets if name in known]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Write the ops.

        Raises:
            ModelError: the model has no such input.
        """
        names = [value.name for value in graph.inputs]
        if self.input not in names:
            help = f"its inputs are {', '.join(f'`{name}`' for name in names)}"
            raise ModelError("Q600", f"the model has no input `{self.input}`, which is to tell segments", help=help)
        asked = set(targets)
        found = [one for one in attentions(graph, context.sample) if one.name in asked and context.takes(one.name)]
        return [self._apart(graph, one, context) for one in found]

    def _apart(self, graph: Graph, one: Attention | NotAttention, context: Context) -> Edit:
        """What was done to one."""
        if isinstance(one, NotAttention):
            return Edit(one.name, one.reason, refused=True)
        context.progress(one.name)
        how = DocumentsApart(self.input)
        try:
            if reason := why_no_documents(graph, one, self.input, context.sample):
                return Edit(one.name, reason, refused=True)
            graph.write_attention(one, how)
        except Refused as refused:
            return Edit(one.name, refused.reason, refused=True)
        return Edit(one.name, f"documents of `{self.input}` apart")


@dataclass(frozen=True)
class BlockSparse(Rewrite):
    """Leave out the blocks of scores that hold little weight in long causal attentions, chosen for each input.

    Rewrite:
        softmax(scale q k' + later hidden) v  -->  the same over the blocks of scores that are kept

    Rows lie in segments, which are cut into blocks. A row sees what came before it in its own segment. Of segments that
    are over, keys are sorted by the mean weight that the last ``block`` rows of all give them, so that keys that count
    stand together. Then each block of queries keeps the blocks of keys that hold the share ``mass`` of its weight, and
    the first block in any case. Where its weight lies is told by the means of queries and keys in a block, or by some
    ``rows`` of the block, whose weights are computed: that is nearer to the truth, and takes the time of their scores.

    What is left out is not computed: the blocks that meet are a list, over which one product goes, in the standard's
    ops. So any runtime gains. Texts of one segment are computed as before. The loss is not bounded by the share: it is
    the policy's `verify` that holds it.

    Args:
        block: rows of a block.
        segment: rows of a segment, a multiple of that.
        mass: share of the weight that is kept.
        rows: of each block, by which its weight is told; 0 for the means.

    Source: Sparser block-sparse attention via token permutation, Wang et al. 2025 (arXiv:2510.21270), section 4.
    """

    property: ClassVar[str] = "pattern"
    subjects: ClassVar[tuple[str, ...]] = ("attention",)
    keeps: ClassVar[frozenset[Invariant]] = frozenset((Invariant.WEIGHTS, Invariant.SHAPES))
    uses_sample: ClassVar[bool] = True

    block: Annotated[int, Between(1, 1 << 16), "rows of a block"] = 128
    segment: Annotated[int, Between(1, 1 << 20), "rows of a segment"] = 256
    mass: Annotated[float, InPercent(0), "share of the weight that is kept"] = 0.9
    rows: Annotated[int, Between(0, 1 << 10), "rows that tell where the weight lies"] = 0

    def __post_init__(self) -> None:
        """A segment is a whole number of blocks, and rows are evenly spaced."""
        if self.rows and self.block % self.rows:
            raise ValueError(f"`block` is a multiple of `rows`: {self.block} is none of {self.rows}")
        if self.segment % self.block:
            raise ValueError(f"`segment` is a multiple of `block`: {self.segment} is none of {self.block}")

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The attentions themselves."""
        known = set(attention_names(graph))
        return [Site(name, ()) for name in targets if name in known]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Write the ops."""
        how = BlockSparseScores(self.block, self.segment, self.mass, rows=self.rows)
        return self._sparse(graph, targets, context, how)

    def meant(self, graph: G, targets: Sequence[str], context: Context) -> G:
        """All scores are computed, and those that are left out are hidden."""
        copy = graph.copy()
        self._sparse(copy, targets, context, BlockSparseScores(self.block, self.segment, self.mass, True, self.rows))
        return copy

    def _sparse(self, graph: Graph, targets: Sequence[str], context: Context, how: BlockSparseScores) -> list[Edit]:
        asked = set(targets)
        found = [one for one in attentions(graph, context.sample) if one.name in asked and context.takes(one.name)]
        causal = dict[tuple[Masking, ...], str]()
        edits = []
        for one in found:
            reason = one.reason if isinstance(one, NotAttention) else ""
            if isinstance(one, Attention):
                context.progress(one.name)
                if one.masking not in causal:  # all layers have one mask
                    causal[one.masking] = why_not_causal(graph, one, context.sample)
                reason = causal[one.masking] or _written(graph, one, how)
            told = reason or f"blocks of {how.block} that hold {how.mass:.3g} of the weight"
            edits.append(Edit(one.name, told, refused=bool(reason)))
        return edits


def _written(graph: Graph, one: Attention, how: BlockSparseScores) -> str:
    """Why it cannot be written so; empty where it now is."""
    try:
        graph.write_attention(one, how)
    except Refused as refused:
        return refused.reason
    return ""
