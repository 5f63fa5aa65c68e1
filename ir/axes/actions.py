"""Which channels an action must treat together, and which it must leave alone.

Nodes are ``(place, axis, dim)``: the channels of one plain dim on one axis of one place. An edge says that what is done
to one node must be done to the other as well, or its inverse; a node that is barred takes no action at all. Both are
read off the relations alone, so an op needs no rule here. networkx holds the edges.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qcc.ir.axes.dims import Dim
from qcc.ir.axes.trace import Holder, Law, Relation

if TYPE_CHECKING:
    import networkx

AxisNode = tuple[Holder, int, Dim]


@dataclass(frozen=True)
class Product:
    """A node that is the product of two others, one of them perhaps inverted: its scale is theirs together."""

    left: AxisNode
    right: AxisNode
    output: AxisNode
    inverted: tuple[bool, bool]
    contexts: tuple[frozenset[Dim], frozenset[Dim]]
    """What each side has in common with the output."""


@dataclass
class Ties:
    """The nodes of one action with their edges, and what bars them."""

    edges: "networkx.Graph[AxisNode]"
    barred: dict[AxisNode, str] = field(default_factory=dict)
    positive: set[AxisNode] = field(default_factory=set)
    centred: set[AxisNode] = field(default_factory=set)
    products: list[Product] = field(default_factory=list)

    def tie(self, one: AxisNode, other: AxisNode, context: frozenset[Dim], sign: int = 1) -> None:
        """What is done to one is done to the other; ``sign`` -1: its inverse is."""
        if one == other:
            if sign < 0:
                self.bar(one, "it would have to be its own inverse")
            return
        known = self.edges.get_edge_data(one, other)
        if known is not None:
            context &= known["context"]
            if known["sign"] != sign:
                self.bar(one, "it would have to be its own inverse")
        self.edges.add_edge(one, other, sign=sign, context=context)

    def bar(self, node: AxisNode, reason: str) -> None:
        """Nothing may be done here; the first reason stays."""
        self.edges.add_node(node)
        self.barred.setdefault(node, reason)


@dataclass(frozen=True)
class Band:
    """One plain dim as a relation sees it: its node in each place that has it, by the place's number."""

    dim: Dim
    nodes: Mapping[int, AxisNode]
    context: Mapping[int, frozenset[Dim]]
    """For each place, the other dims that the relation aligns there."""
    normalised: bool

    def shared(self, one: int, other: int) -> frozenset[Dim]:
        """The dims whose index two places have in common, beside this one."""
        return (self.context[one] & self.context[other]) - {self.dim}


def bands(
    relation: Relation, held: Mapping[tuple[Holder, int], frozenset[Dim]], without: frozenset[int]
) -> Iterator[Band]:
    """The plain dims of a relation's tracks; those of one channel, or of unknown size, have none.

    Args:
        relation: what an op says.
        held: the plain dims of every axis of every place.
        without: numbers of places that do not count.
    """
    found: list[tuple[Dim, dict[int, AxisNode], bool]] = []
    seen: dict[int, list[Dim]] = {}
    for number, track in enumerate(relation.tracks):
        for dim in dict.fromkeys(track.dim.leaves()):
            if dim.size is None or dim.size < 2:
                continue
            at = [
                (place, axis)
                for place, axis in track.at
                if place not in without and dim in held[relation.places[place], axis]
            ]
            nodes = {place: (relation.places[place], axis, dim) for place, axis in at}
            found.append((dim, nodes, number in relation.normalised))
            for place in nodes:
                seen.setdefault(place, []).append(dim)
    context = {place: frozenset(dim for dim in dims if dims.count(dim) == 1) for place, dims in seen.items()}
    for dim, nodes, normalised in found:
        yield Band(dim, nodes, context, normalised)


def permutations(ties: Ties, band: Band) -> None:
    """Channels move together wherever they are the same."""
    first, *others = band.nodes.items()
    ties.edges.add_node(first[1])
    for number, node in others:
        ties.tie(first[1], node, band.shared(first[0], number))


def selections(ties: Ties, relation: Relation, band: Band, vanishing: set[AxisNode]) -> None:
    """Channels go together as they move together, where they leave nothing behind once their weights are zero.

    Args:
        ties: of all relations.
        relation: what an op says; those before it have been seen.
        band: one of its dims.
        vanishing: nodes whose channels are zero where the weights of these channels are; what the op makes is added.
    """
    permutations(ties, band)
    nodes, op = band.nodes, relation.op
    if band.normalised:
        for node in nodes.values():
            ties.bar(node, f"`{op}` counts or compares them")
        return
    factors = [nodes[number] for number, exponent in relation.factors if number in nodes and exponent > 0]
    terms = [nodes[number] for number in relation.terms if number in nodes]
    vanishes = any(node in vanishing for node in factors) or not relation.factors
    vanishes = vanishes and len(terms) == len(relation.terms) and all(node in vanishing for node in terms)
    vanishes = vanishes and bool(factors or terms) and relation.law in (Law.LINEAR, Law.HOMOGENEOUS, Law.NORMALISED)
    output = nodes.get(relation.output)
    if output is not None and vanishes:
        vanishing.add(output)
    if output is None and not (vanishes or (relation.law is Law.LINEAR and any(one in vanishing for one in factors))):
        for node in nodes.values():
            ties.bar(node, f"`{op}` adds up what does not vanish with the weights")


def scales(ties: Ties, relation: Relation, band: Band) -> None:
    """Factors are multiplied, terms scaled alike; what is summed over, or passes any other law, keeps its scale."""
    if relation.law not in (Law.LINEAR, Law.HOMOGENEOUS):
        for node in band.nodes.values():
            ties.bar(node, f"`{relation.op}` does not pass scales on")
        return
    nodes = band.nodes
    factors = [(number, exponent) for number, exponent in relation.factors if number in nodes]
    output = nodes.get(relation.output)
    for number in (*relation.terms, *(number for number, _ in factors)):
        if relation.law is Law.HOMOGENEOUS and number in nodes:
            ties.positive.add(nodes[number])
    if output is None:
        _contracted(ties, relation, band, factors)
        return
    ties.edges.add_node(output)
    for number in relation.terms:
        if number in nodes:
            ties.tie(nodes[number], output, band.shared(number, relation.output))
        else:
            ties.bar(output, f"`{relation.op}` adds one number to many channels")
    if len(factors) == 1:
        (number, exponent) = factors[0]
        ties.tie(nodes[number], output, band.shared(number, relation.output), exponent)
    elif len(factors) == 2:
        (left, one), (right, other) = factors
        contexts = band.shared(left, relation.output), band.shared(right, relation.output)
        ties.products.append(Product(nodes[left], nodes[right], output, (one < 0, other < 0), contexts))
    elif relation.factors:
        ties.bar(output, f"`{relation.op}` repeats one channel")


def _contracted(ties: Ties, relation: Relation, band: Band, factors: list[tuple[int, int]]) -> None:
    """Channels that are summed over: two factors' scales cancel, one's would stay."""
    if len(factors) == 2 and all(exponent == 1 for _, exponent in factors):
        (left, _), (right, _) = factors
        ties.tie(band.nodes[left], band.nodes[right], band.shared(left, right), -1)
    else:
        for node in band.nodes.values():
            ties.bar(node, f"`{relation.op}` adds up channels")


def rotations(ties: Ties, relation: Relation, band: Band, uniform: frozenset[int]) -> None:
    """Only what is linear along the channels passes a rotation; ``uniform`` are places that hold one number."""
    nodes, op = band.nodes, relation.op
    output = nodes.get(relation.output)
    if relation.law is Law.SQUARED and band.normalised:
        ties.edges.add_nodes_from(nodes.values())  # only the length of the whole matters, and that stays
        return
    if relation.law is not Law.LINEAR and not (relation.law is Law.NORMALISED and band.normalised):
        for node in nodes.values():
            ties.bar(node, f"`{op}` is not linear")
        return
    factors = [number for number, _ in relation.factors if number in nodes and number not in uniform]
    terms = [number for number in relation.terms if number in nodes and number not in uniform]
    named = {number for number, _ in relation.factors} | set(relation.terms) | {relation.output}
    for number in set(nodes) - named:
        ties.bar(nodes[number], f"`{op}` takes parameters along it")
        if output is not None:
            ties.bar(output, f"`{op}` takes parameters along it")
    if relation.centred:
        ties.centred |= set(nodes.values())
    if output is None:
        if len(factors) == 2:
            ties.tie(nodes[factors[0]], nodes[factors[1]], band.shared(*factors))
        else:
            ties.centred |= {nodes[number] for number in factors}
        return
    ties.edges.add_node(output)
    if any(number not in terms for number in relation.terms) or not factors + terms:
        ties.centred.add(output)
    if len(factors) > 1 or any(exponent < 0 for number, exponent in relation.factors if number in factors):
        for number in (*factors, relation.output):
            ties.bar(nodes[number], f"`{op}` multiplies channel by channel")
        return
    for number in (*factors, *terms):
        ties.tie(nodes[number], output, band.shared(number, relation.output))


def settle_products(ties: Ties, absorbs: Iterable[AxisNode]) -> list[tuple[AxisNode, AxisNode, int]]:
    """Decide, for every product of scales, which side carries the scale.

    A constant of its own takes up whatever difference there is, so both sides are free. Of two computed sides one has
    to hold still: one that is barred anyway, else one that takes only positive scales, else the second.

    Returns:
        For each such constant the nodes whose scales it takes up, with the exponent of each.
    """
    import networkx

    free = set(absorbs)
    taken: list[tuple[AxisNode, AxisNode, int]] = []
    groups: networkx.utils.UnionFind[AxisNode] = networkx.utils.UnionFind(ties.edges)
    for one, other in ties.edges.edges:
        groups.union(one, other)
    barred = {groups[node]: reason for node, reason in ties.barred.items()}
    positive = {groups[node] for node in ties.positive}
    open_: list[Product] = []
    for one in ties.products:
        constant = next((at for at, node in enumerate((one.left, one.right)) if node in free), None)
        if constant is None:
            open_.append(one)
            continue
        node, other = (one.left, one.right) if constant == 0 else (one.right, one.left)
        sign = -1 if one.inverted[constant] else 1
        flip = -1 if one.inverted[1 - constant] else 1
        taken += [(node, one.output, sign), (node, other, -sign * flip)]
        ties.edges.add_nodes_from((one.output, other))

    def carry(product: Product, held: int) -> None:
        node = (product.right, product.left)[held]
        ties.tie(node, product.output, product.contexts[1 - held], -1 if product.inverted[1 - held] else 1)
        joined = [groups[node], groups[product.output]]
        reasons = [barred[root] for root in joined if root in barred]
        is_positive = any(root in positive for root in joined)
        groups.union(node, product.output)
        root = groups[node]
        if reasons:
            barred[root] = reasons[0]
        if is_positive:
            positive.add(root)

    while open_:
        still = []
        for one in open_:
            held = next((at for at, node in ((1, one.right), (0, one.left)) if groups[node] in barred), None)
            if held is None:
                still.append(one)
            else:
                carry(one, held)
        if len(still) == len(open_):
            one = still.pop(0)
            held = 0 if groups[one.left] in positive and groups[one.right] not in positive else 1
            node = (one.left, one.right)[held]
            ties.bar(node, "the other side of a product carries the scale")
            barred[groups[node]] = ties.barred[node]
            carry(one, held)
        open_ = still
    return taken
