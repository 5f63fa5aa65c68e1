"""Where channels can be reordered: groups that move as one, and values that an op could reorder for some readers."""

from collections.abc import Mapping, Sequence

from qcc.ir.axes.axes import Action, Axes, Group
from qcc.ir.graph.ops import Weight
from qcc.passes.channels.readers import is_linear
from qcc.passes.contract.contract import Site

FEWEST = 16  # channels: fewer have no blocks to be put into; heads that move whole are such a group


def groups_of(axes: Axes, weights: Mapping[str, Weight]) -> list[Group]:
    """The groups whose channels some weights have as inputs."""
    groups = axes.groups(Action.PERMUTE)
    return [group for group in groups if group.size >= FEWEST and weights.keys() & set(group.readers)]


def site_of(group: Group, weights: Mapping[str, Weight], gathers: Mapping[str, Sequence[Weight]]) -> Site:
    """A group as a site; one that is fixed is refused for those of its readers that no gather could serve, if any."""
    if not group.fixed:
        return Site(group.name, group.weights)
    gathered = {weight.name for readers in gathers.values() for weight in readers}
    left = tuple(name for name in group.readers if name in weights and name not in gathered)
    return Site(group.name, left, group.fixed if left else "")


def gathers_of(groups: Sequence[Group], weights: Mapping[str, Weight]) -> dict[str, list[Weight]]:
    """Values whose channels are fixed, with the linear layers for which they could be reordered."""
    free = {name for group in groups if not group.fixed for name in group.readers}
    found: dict[str, list[Weight]] = {}
    for name in dict.fromkeys(name for group in groups if group.fixed for name in group.readers):
        weight = weights.get(name)
        if weight is not None and name not in free and is_linear(weight):
            found.setdefault(weight.layers[0].input, []).append(weight)
    return found


def gather_site(pair: tuple[str, Sequence[Weight]]) -> Site:
    """A value and its readers as a site."""
    value, readers = pair
    return Site(f"gather of {value}", tuple(weight.name for weight in readers))
