"""Finding the groups of an action: components of its ties, with the constants that have to change."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from qcc.ir.axes.actions import AxisNode, Ties, bands, permutations, rotations, scales, selections, settle_products
from qcc.ir.axes.arrange import extents
from qcc.ir.axes.dims import Dim, lies_throughout
from qcc.ir.axes.trace import FLOATS, INNER, Holder, Relation, Trace


class Action(StrEnum):
    """What may be done to channels."""

    PERMUTE = "permute"
    SCALE = "scale"
    ROTATE = "rotate"
    SELECT = "select"


WHOLE = (Action.PERMUTE, Action.SELECT)
"""The actions that take channels as they are: on one dim, wherever it is, they act everywhere."""


@dataclass(frozen=True)
class Member:
    """One place of a group: channels between ``start`` and ``stop`` on an axis of a value.

    ``exponent`` says whether the value is multiplied by the group's scale (1) or divided (-1). ``reader`` is the op and
    the operand meant, for a constant that is no layer's weight and so may be read elsewhere for something else.
    ``weight`` and ``side`` say of which weight this is the constant, and whether the axis makes its matrix's ``in`` or
    ``out``.
    """

    value: str
    axis: int
    start: int
    stop: int
    exponent: int = 1
    reader: tuple[str, int] | None = None
    weight: str = ""
    side: str = ""
    constant: bool = False


@dataclass(frozen=True)
class Group:
    """Channels that an action treats together.

    Args:
        action: what may be done.
        name: unique among the groups of its action.
        size: how many channels there are.
        contexts: sizes of the axes on whose index the action may depend, such as heads and groups of a convolution.
        members: every place of the channels, in the order in which they run.
        fixed: why nothing may be done, empty if it may.
        positive: scales have to be positive.
        keeps_mean: a rotation has to map the vector of ones onto itself.
        dims: the plain dim that the channels are, then those of the contexts.
    """

    action: Action
    name: str
    size: int
    contexts: tuple[int, ...]
    members: tuple[Member, ...]
    fixed: str = ""
    positive: bool = False
    keeps_mean: bool = False
    dims: tuple[Dim, ...] = field(default=(), compare=False, repr=False)

    @property
    def constants(self) -> tuple[Member, ...]:
        """The members that are constants."""
        return tuple(member for member in self.members if member.constant)

    @property
    def weights(self) -> tuple[str, ...]:
        """The weights that have the channels on either side."""
        return tuple(dict.fromkeys(member.weight for member in self.constants if member.weight))

    @property
    def readers(self) -> tuple[str, ...]:
        """The weights that have the channels as inputs."""
        return tuple(dict.fromkeys(member.weight for member in self.members if member.side == "in"))

    @property
    def writers(self) -> tuple[str, ...]:
        """The weights that have them as outputs."""
        return tuple(dict.fromkeys(member.weight for member in self.members if member.side == "out"))


class Finder:
    """Finds the groups of a traced graph."""

    def __init__(self, traced: Trace) -> None:
        self._trace = traced
        self._weights = {weight.constant: weight for weight in traced.graph.weights()}
        self._order = {place: number for number, place in enumerate(traced.dims)}
        self._single: dict[Holder, frozenset[Dim]] = {}
        self._extents: dict[Dim, dict[Dim, tuple[int, int]]] = {}
        self.held = {
            (place, axis): frozenset(dim.leaves())
            for place, dims in traced.dims.items()
            for axis, dim in enumerate(dims)
        }

    def find(self, action: Action) -> tuple[Group, ...]:
        """The groups of an action, named, in the order in which they run."""
        ties = self._ties(action)
        taken: list[tuple[AxisNode, AxisNode, int]] = []
        if action is Action.SCALE:
            sides = (node for product in ties.products for node in (product.left, product.right))
            taken = settle_products(ties, [node for node in sides if self._absorbs(node)])
        extra: dict[AxisNode, list[tuple[AxisNode, int]]] = {}
        for constant, node, exponent in taken:
            extra.setdefault(node, []).append((constant, exponent))
        found = [self._group(action, ties, nodes, extra) for nodes in self._components(action, ties)]
        kept = found if action in WHOLE else self._finest([group for group in found if group.constants])
        kept.sort(key=self._when)
        return tuple(_named(kept))

    def _ties(self, action: Action) -> Ties:
        import networkx

        ties, vanishing = Ties(networkx.Graph()), self._weighing() if action is Action.SELECT else set()
        for relation in self._trace.relations:
            zero = {number for number in relation.terms if self._trace.is_zero(relation.places[number])}
            if zero:
                relation = replace(relation, terms=tuple(number for number in relation.terms if number not in zero))
            self._tie(action, ties, relation, frozenset(zero), vanishing)
        for place, axis, dim, reason in self._trace.held:
            for leaf in dim.leaves():
                if (place, axis, leaf) in ties.edges:
                    ties.bar((place, axis, leaf), reason)
        for node in list(ties.edges):
            reason = node[2].fixed if action in WHOLE else node[2].broken or self._whole(node[0])
            if reason:
                ties.bar(node, reason)
        return ties

    def _whole(self, place: Holder) -> str:
        """Whole numbers are counted and compared: they take no factor."""
        dtype = "" if INNER in place.name else self._trace.graph.value(place.name).dtype
        return "" if not dtype or dtype.startswith(FLOATS) else "it holds no real numbers"

    def _is_empty(self, place: Holder) -> bool:
        """It holds no numbers, such as the past of a model that starts without one: no channel lies there."""
        return any(dim.size == 0 for dim in self._trace.dims[place])

    def _weighing(self) -> set[AxisNode]:
        """The channels of real constants, which go to zero with what they weigh."""
        return {
            (place, axis, leaf)
            for (place, axis), leaves in self.held.items()
            if self._trace.constant(place.name) is not None and not self._whole(place)
            for leaf in leaves
        }

    def _tie(
        self, action: Action, ties: Ties, relation: Relation, zero: frozenset[int], vanishing: set[AxisNode]
    ) -> None:
        uniform = frozenset[int]()
        if action is Action.ROTATE:
            uniform = frozenset(
                number for number, place in enumerate(relation.places) if place.reader and self._trace.is_uniform(place)
            )
        for band in bands(relation, self.held, frozenset() if action in WHOLE else zero):
            if not band.nodes:
                continue
            if action is Action.PERMUTE:
                permutations(ties, band)
            elif action is Action.SELECT:
                selections(ties, relation, band, vanishing)
            elif action is Action.SCALE:
                scales(ties, relation, band)
            else:
                rotations(ties, relation, band, uniform)

    def _absorbs(self, node: AxisNode) -> bool:
        """A constant that is read once takes up any difference of scales."""
        place = node[0]
        if INNER in place.name or self._trace.constant(place.name) is None:
            return False
        return place.reader is not None or len(self._trace.readers.get(place.name, ())) == 1

    def _components(self, action: Action, ties: Ties) -> Iterable[set[AxisNode]]:
        import networkx

        if action not in WHOLE:
            return list(networkx.connected_components(ties.edges))
        found: dict[Dim, set[AxisNode]] = {}
        for node in ties.edges:
            found.setdefault(node[2], set()).add(node)
        return found.values()

    def _group(
        self, action: Action, ties: Ties, nodes: set[AxisNode], extra: dict[AxisNode, list[tuple[AxisNode, int]]]
    ) -> Group:
        ordered = sorted(nodes, key=lambda node: (self._order[node[0]], node[1]))
        fixed = next((ties.barred[node] for node in ordered if node in ties.barred), "")
        exponents, contradiction = self._exponents(ties, ordered)
        sides = dict(exponents)
        for node in ordered:
            for constant, exponent in extra.get(node, ()):
                total = sides.get(constant, 0) + exponent * exponents[node]
                sides[constant] = total
        if any(abs(exponent) > 1 for exponent in sides.values()):
            contradiction = "a constant would take up its scale twice"
        members = [
            self._member(node, exponent)
            for node, exponent in sorted(sides.items(), key=lambda item: (self._order[item[0][0]], item[0][1]))
            if exponent and INNER not in node[0].name and not self._is_empty(node[0])
        ]
        dim = ordered[0][2]
        contexts = [] if action is Action.SELECT else self._contexts(ties, ordered, sides, dim)
        return Group(
            action=action,
            name="",
            size=dim.size or 0,
            contexts=tuple(context.size or 0 for context in contexts),
            members=tuple(members),
            fixed=fixed or contradiction,
            positive=any(node in ties.positive for node in nodes),
            keeps_mean=any(node in ties.centred for node in nodes),
            dims=(dim, *contexts),
        )

    def _exponents(self, ties: Ties, ordered: list[AxisNode]) -> tuple[dict[AxisNode, int], str]:
        """1 or -1 for each node, counted from the first that is computed."""
        import networkx

        first = next((node for node in ordered if self._trace.constant(node[0].name) is None), ordered[0])
        found, contradiction = {first: 1}, ""
        for node, other in networkx.bfs_edges(ties.edges, first):
            found[other] = found[node] * ties.edges[node][other]["sign"]
        for node in ordered:
            for other, data in ties.edges[node].items():
                if other in found and found[other] != found[node] * data["sign"]:
                    contradiction = "it would have to be its own inverse"
        return found, contradiction

    def _contexts(self, ties: Ties, nodes: list[AxisNode], sides: Mapping[AxisNode, int], dim: Dim) -> list[Dim]:
        """The dims on whose index an action may depend: all places have them, and all ops keep them apart."""
        common: frozenset[Dim] | None = None
        for node in nodes:
            for data in ties.edges[node].values():
                common = data["context"] if common is None else common & data["context"]
        for place, _, _ in sides:
            once = self._once(place)
            common = once if common is None else common & once
        found = [one for one in common or () if one is not dim and not one.broken and (one.size or 0) > 1]
        found = [one for one in found if all(self._counts(node, one) for node in (*nodes, *sides))]
        return sorted(found, key=lambda one: self._first(nodes[0][0], one))

    def _counts(self, node: AxisNode, other: Dim) -> bool:
        """A dim counts the channels of a node wherever they lie: nothing that has them lies beside it in a sum."""
        place, axis, dim = node
        for at, whole in enumerate(self._trace.dims[place]):
            if other in self.held[place, at]:
                return lies_throughout(other, whole, dim if at == axis else None)
        return True

    def _finest(self, groups: list[Group]) -> list[Group]:
        """The groups without those that others hold: a scale for each head is one for each of its channels, too.

        Of two that hold each other the larger stays, of equal ones the one whose channels run faster.
        """
        near: dict[tuple[tuple[str, int], ...], list[Group]] = {}
        keys = [tuple((one.value, one.axis) for one in group.constants) for group in groups]
        for key, group in zip(keys, groups, strict=True):
            near.setdefault(key, []).append(group)

        def rank(group: Group) -> tuple[int, int]:
            first = group.constants[0]
            return group.size, self._first(Holder(first.value, first.reader), group.dims[0])

        def is_within(group: Group, other: Group) -> bool:
            held = not other.fixed and group.dims[0] in other.dims[1:]
            return held and (other.dims[0] not in group.dims[1:] or rank(other) > rank(group))

        return [
            group
            for key, group in zip(keys, groups, strict=True)
            if not any(is_within(group, other) for other in near[key] if other is not group)
        ]

    def _once(self, place: Holder) -> frozenset[Dim]:
        """The plain dims that a place has on one axis only, and once there."""
        if place not in self._single:
            self._single[place] = self._find_single(place)
        return self._single[place]

    def _find_single(self, place: Holder) -> frozenset[Dim]:
        leaves = Counter(leaf for one in self._trace.dims[place] for leaf in one.leaves())
        return frozenset(leaf for leaf, count in leaves.items() if count == 1)

    def _first(self, place: Holder, dim: Dim) -> int:
        return [leaf for one in self._trace.dims[place] for leaf in one.leaves()].index(dim)

    def _member(self, node: AxisNode, exponent: int) -> Member:
        place, axis, dim = node
        weight = self._weights.get(place.name)
        whole = self._trace.dims[place][axis].root
        if whole not in self._extents:
            self._extents[whole] = extents(whole)
        start, stop = self._extents[whole].get(dim, (0, 0))
        side = "" if weight is None else "out" if axis in weight.view.out_axes else "in"
        constant = self._trace.constant(place.name) is not None
        name = weight.name if weight else ""
        return Member(place.name, axis, start, stop, exponent, place.reader, name, side, constant)

    def _when(self, group: Group) -> int:
        """The position of a group's first computed place, else of its first."""
        places = [self._order[Holder(one.value, one.reader)] for one in group.members if not one.constant]
        return min(
            places, default=min((self._order[Holder(one.value, one.reader)] for one in group.members), default=0)
        )


def _named(groups: list[Group]) -> Iterator[Group]:
    """Give each group a name of its own: what writes it, or what reads it, or its first place."""
    seen: dict[str, int] = {}
    for group in groups:
        if group.writers:
            name = f"outputs of {group.writers[0]}"
        elif group.readers:
            name = f"inputs of {group.readers[0]}"
        else:
            name = f"axis {group.members[0].axis} of {group.members[0].value}" if group.members else "inner channels"
        seen[name] = seen.get(name, 0) + 1
        yield replace(group, name=name if seen[name] == 1 else f"{name} #{seen[name]}")
