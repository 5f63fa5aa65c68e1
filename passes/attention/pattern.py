"""Computing attentions by the pattern that their scores have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from qcc.ir.attention.documents import why_no_documents
from qcc.ir.attention.find import attention_names, attentions
from qcc.ir.errors import ModelError, Refused
from qcc.ir.graph.attention import Attention, DocumentsApart, NotAttention
from qcc.ir.graph.graph import Graph
from qcc.passes.contract.contract import Context, Edit, Rewrite, Site


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
