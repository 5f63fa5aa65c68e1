"""The levels of weights in a file: which nodes and constants each needs, and the file without the last ones.

A sum of levels is a chain of additions that are called so (`LEVEL`), of which each reads the one before. Everything in
the graph is needed always, or by a level of one weight and those behind it.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from qcc.ir.model.levels import NOTE, Levels, from_note

LEVEL = "Level"
"""What a sum of levels is called, behind its weight's name."""
_NAMED = re.compile(rf"(.+)/{LEVEL}(?:#\d+)?", re.DOTALL)


Need = tuple[str, int]
"""A weight, and the number of its level."""
ALWAYS: Need = ("", 0)


@dataclass(frozen=True)
class SumOfValues:
    """A sum of levels.

    Args:
        weight: its name.
        sums: the values that are the weight with one level, with two, and so on.
    """

    weight: str
    sums: tuple[str, ...]


class LeveledModel:
    """A model whose weights are sums of levels.

    Args:
        proto: of the model; its large constants may be elsewhere.

    Raises:
        LookupError: it has no levels.
        ValueError: what it says of its levels does not fit what there is.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        found = [prop.value for prop in proto.metadata_props if prop.key == NOTE]
        if not found:
            raise LookupError(NOTE)
        self.proto, self.levels = proto, from_note(found[0])
        self.chains = tuple(_chains(proto.graph, self.levels))
        self._at = {name: (one.weight, at) for one in self.chains for at, name in enumerate(one.sums[1:], 2)}
        self._needs = self._traced()

    def needed(self, constant: str) -> Need:
        """The level that needs a constant."""
        return self._needs.get(constant, ALWAYS)

    def cut(self, counts: Mapping[str, int]) -> onnx.ModelProto:
        """The model with so many levels of each weight; constants that are not needed are gone."""

        def kept(need: Need) -> bool:
            return need[1] <= counts.get(need[0], 1)

        out = onnx.ModelProto()
        out.CopyFrom(self.proto)
        renamed, graph = self._renamed(counts), out.graph
        del graph.node[:], graph.initializer[:], out.functions[:]
        graph.initializer.extend(one for one in self.proto.graph.initializer if kept(self.needed(one.name)))
        graph.node.extend(node for node in self.proto.graph.node if kept(self._node_need(node)))
        for tensor in graph.initializer if renamed else ():
            tensor.name = renamed.get(tensor.name, tensor.name)
        for node in graph.node if renamed else ():
            for at, name in enumerate(node.output):
                if name in renamed:
                    node.output[at] = renamed[name]
            for at, name in enumerate(node.input):
                if name in renamed:
                    node.input[at] = renamed[name]
        called = _called(graph.node, self.proto.functions)
        unused = _called(self.proto.graph.node, self.proto.functions) - called
        out.functions.extend(one for one in self.proto.functions if (one.domain, one.name) not in unused)
        for prop in out.metadata_props:
            if prop.key == NOTE:
                prop.value = self.levels.left(counts).text
        return out

    def _renamed(self, counts: Mapping[str, int]) -> dict[str, str]:
        """The last sum of each chain that is left, and what it is called: as the last of all was."""
        ends = ((chain.sums[counts[chain.weight] - 1], chain.sums[-1]) for chain in self.chains)
        return {now: was for now, was in ends if now != was}

    def _node_need(self, node: onnx.NodeProto) -> Need:
        own = next((self._at[name] for name in node.output if name in self._at), None)
        return own or _either(self._needs.get(name) for name in node.output)

    def _traced(self) -> dict[str, Need]:
        """The level that needs a value, of all that is computed or stored."""
        needs: dict[str, Need] = {value.name: ALWAYS for value in self.proto.graph.output}
        for node in reversed(self.proto.graph.node):
            last = _either(needs.get(name) for name in node.output)
            own = next((self._at[name] for name in node.output if name in self._at), last)
            for position, name in enumerate(_read(node)):
                needs[name] = _either([needs.get(name), own if position else last])
        return needs


def _either(needs: Iterable[Need | None]) -> Need:
    """What is needed by each of these; always, where nobody is known to need it, or several weights do."""
    found = {one for one in needs if one is not None}
    return min(found) if len({weight for weight, _ in found}) == 1 else ALWAYS


def _chains(graph: onnx.GraphProto, levels: Levels) -> Iterator[SumOfValues]:
    """The sums of levels in a graph, those left out whose form is another.

    Raises:
        ValueError: a weight has other levels than it should.
    """
    sums: dict[str, tuple[str, tuple[str, ...]]] = {}
    readers: dict[str, int] = defaultdict(int)
    for node in graph.node:
        for name in _read(node):
            readers[name] += 1
        named = _NAMED.fullmatch(node.name)
        if named is None or named[1] not in levels.counts or node.op_type != "Add" or len(node.input) != 2:
            continue
        before = sums.pop(node.input[0], None)
        start = (node.input[0],) if before is None else before[1]
        sums[node.output[0]] = named[1], (*start, node.output[0])
    outputs = {value.name for value in graph.output}
    for weight, names in sums.values():
        if len(names) != levels.counts[weight]:
            raise ValueError(f"`{weight}` has {len(names)} levels instead of {levels.counts[weight]}")
        if outputs.intersection(names) or any(readers[name] != 1 for name in names[:-1]):
            raise ValueError(f"the levels of `{weight}` are read by themselves")
        yield SumOfValues(weight, names)
    missing = [name for name, count in levels.counts.items() if count > 1 and name not in {w for w, _ in sums.values()}]
    if missing:
        raise ValueError(f"the levels of `{missing[0]}` are not there")


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, its bodies included; its own inputs come first."""
    yield from node.input
    for attribute in node.attribute:
        for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            yield from (name for inner in body.node for name in _read(inner))
            yield from (value.name for value in body.output)


def _called(nodes: Iterable[onnx.NodeProto], functions: Sequence[onnx.FunctionProto]) -> set[tuple[str, str]]:
    """The functions that nodes call, and those that these call."""
    known = {(one.domain, one.name): one for one in functions}
    found: set[tuple[str, str]] = set()
    left = list(nodes)
    while left:
        node = left.pop()
        key = node.domain, node.op_type
        if key in known and key not in found:
            found.add(key)
            left += known[key].node
        for attribute in node.attribute:
            left += [inner for body in (*attribute.graphs, attribute.g) for inner in body.node]
    return found
