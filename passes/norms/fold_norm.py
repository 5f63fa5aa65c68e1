"""Folding what norms multiply and add into the layers beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qcc.ir.axes.axes import Axes
from qcc.ir.graph.graph import Graph
from qcc.passes.contract.contract import Context, Edit, Rewrite, Site
from qcc.passes.norms import batch_norms
from qcc.passes.norms import gains as norm_gains


@dataclass(frozen=True)
class FoldNorm(Rewrite):
    """Fold batch norms into the layers before them, and the gains of other norms into the layers behind.

    Rewrite:
        batch_norm(conv(x, W) + b)       -->  conv(x, s W) + s b + t    s = gain / sqrt(variance + epsilon)
        conv(batch_norm(x), W) + b       -->  conv(x, W s) + b + W t    t = bias - s mean
        linear(norm(x) * gain + b, W)    -->  linear(norm(x) + b / gain, W gain)

    A batch norm goes into the convolution or linear layer before it if nothing else reads what that makes, else into
    all layers that read the norm, if they are all its readers and pad nothing. It is refused where neither is so: an
    activation stands before it, say, and another behind.

    The gain of a norm over a layer, its groups or its channels, or any other constant vector that multiplies channels,
    becomes ones if all that has its channels can take it up: linear layers and convolutions behind, or, for a gain of a
    layer's own outputs, before. A product with ones is left out. It is refused where the channels also go elsewhere,
    such as into a residual stream or an output, or into a table that is also an embedding; where a gain is negative and
    a relu follows; and where two gains scale the same channels. Gains of zero, or less than a millionth of the largest,
    stay as they are beside the ones: nothing can be divided by them.

    Gains in the weights make their columns unlike: a rotation evens that out, and without one the weights are harder to
    encode in few bits. Batch norms scale rows, which does no harm where each row has its own scales.

    Args:
        gains: fold the gains of other norms too, not only batch norms.

    Source: Quantization and training of neural networks for efficient integer-arithmetic-only inference, Jacob et al.
    2017 (arXiv:1712.05877), section 3.2 for batch norms; SliceGPT, Ashkboos et al. 2024 (arXiv:2401.15024), section 3.2
    for gains.
    """

    property: ClassVar[str] = "fold_norm"
    after: ClassVar[tuple[str, ...]] = ("clean",)

    gains: bool = True

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The batch norms and the gains beside the targets."""
        edits = self.rewrite(graph.copy(), targets, Context())  # what a gain can do shows when batch norms are gone
        return [Site(edit.subject, edit.layers, edit.text if edit.refused else "") for edit in edits]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Fold."""
        if self.gains:
            norm_gains.settle_gains(graph)
        done: list[Edit] = []
        while True:  # a gain that is gone may have stood between a batch norm and its layer
            found = _fold_batch_norms(graph, targets, context)
            if self.gains:
                found += _fold_gains(graph, targets, context)
            treated = [edit for edit in found if not edit.refused]
            if not treated:
                return done + found
            done += treated


def _fold_batch_norms(graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
    """Fold batch norms until none is left that can be; each round changes a layer once."""
    edits: list[Edit] = []
    while True:
        touched: set[str] = set()
        found = batch_norms.batch_norms(graph, targets)
        for norm in found:
            site = norm.site
            if site.refused or touched.intersection(site.layers) or not context.takes(site.subject):
                continue
            context.progress(site.subject)
            touched.update(site.layers)
            edits.append(Edit(site.subject, batch_norms.fold(graph, norm), layers=site.layers))
        if not touched:
            return edits + [norm.site.refusal for norm in found if norm.site.refused]


def _fold_gains(graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
    """Fold gains until none is left that can be: one may have stood in the way of another."""
    edits: list[Edit] = []
    while True:
        axes, folded = Axes.of(graph), []
        changed: set[tuple[str, int] | None] = set()
        found = norm_gains.gains(graph, axes, targets)
        for gain in found:
            site = gain.site
            if site.refused or gain.member.reader in changed or not context.takes(site.subject):
                continue
            context.progress(site.subject)
            edits.append(Edit(site.subject, norm_gains.fold(axes, gain), layers=site.layers))
            changed.update(member.reader for member in gain.group.constants)
            folded.append(gain.op.name)
        if not folded:
            return edits + [gain.site.refusal for gain in found if gain.site.refused]
        norm_gains.bypass_ones(graph, folded)
