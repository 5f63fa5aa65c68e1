"""Moving scales between queries and keys."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from qcc.ir.axes.axes import Axes, Group
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array
from qcc.passes.balance import ranges as channel_ranges
from qcc.passes.contract.contract import Context, Edit, Rewrite, Site


@dataclass(frozen=True)
class QueryKey(Rewrite):
    """Scale the channels of queries and keys so that both projections have the same range, head by head.

    Rewrite:
        (s q) . (k / s) = q . k        Wq, bq [channel]  -->  s Wq, s bq        Wk, bk [channel]  -->  Wk / s, bk / s
        s = sqrt(max|Wk, bk| / max|Wq, bq|)

    Channels that a rotary embedding turns together get one scale; query heads that share keys are measured together.
    It is refused where something stands between that passes no scale, such as a norm of queries or keys, and where only
    one of the two is made by a weight.

    Source: Oscillation-free quantization for low-bit vision transformers, Liu et al. 2023 (arXiv:2302.02210), query-key
    reparameterisation, which is made a fold here.
    """

    property: ClassVar[str] = "query_key"
    after: ClassVar[tuple[str, ...]] = ("clean", "fold_norm", "rotate", "permute")

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The groups between queries and keys."""
        return [site for _, site in _groups(Axes.of(graph), targets)]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Balance."""
        axes = Axes.of(graph)
        biases = {layer.bias for weight in graph.weights() for layer in weight.layers if layer.bias is not None}
        edits = []
        for group, site in _groups(axes, targets):
            if site.refused:
                edits.append(site.refusal)
                continue
            if not context.takes(site.subject):
                continue
            context.progress(site.subject)
            scale = _scale(axes, group, biases)
            if not channel_ranges.is_close(scale):
                axes.apply(group, scale)
                edits.append(Edit(site.subject, f"queries {channel_ranges.range_text(scale)}", layers=site.layers))
        return edits


def _groups(axes: Axes, targets: Sequence[str]) -> Iterator[tuple[Group, Site]]:
    """The groups summed over in a product of two computed values."""
    groups = channel_ranges.scale_groups(axes, targets)
    covered = channel_ranges.covered(groups)
    for group in groups:
        weights = [member for member in group.constants if member.weight]
        if not channel_ranges.joins_queries(group):
            continue
        if group.fixed and covered.issuperset((member.value, member.axis) for member in weights):
            continue
        single = len({member.exponent for member in weights}) < 2
        reason = group.fixed or ("only one of two factors is made by a weight" if single else "")
        yield group, Site(group.name, group.weights, reason)


def _scale(axes: Axes, group: Group, biases: set[str]) -> Array:
    """What queries are multiplied by and keys divided."""
    counted = [member for member in group.constants if member.weight or member.value in biases]
    queries, keys = ([one for one in counted if one.exponent == sign] for sign in (1, -1))
    return channel_ranges.balance(
        channel_ranges.largest(axes, group, queries), channel_ranges.largest(axes, group, keys)
    )
