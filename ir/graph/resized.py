"""Other sizes for a part of a graph: what an edit of them says, and what must have become of it in every framework."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Attribute, Op, Resized

Attributes = Mapping[str, Attribute]


@dataclass(frozen=True)
class SizedOp:
    """An op that says sizes of its own, and what it is to say."""

    op: Op
    asked: Attributes = field(hash=False)
    """All its attributes as they are to be."""


def sized_ops(graph: Graph, resized: Resized) -> tuple[SizedOp, ...]:
    """The ops whose attributes change.

    Raises:
        Refused: there is no such op.
    """
    ops = {op.name: op for op in graph.ops()}
    for name in resized.attributes:
        if name not in ops:
            raise Refused(f"there is no op `{name}`")
    return tuple(SizedOp(ops[name], {**ops[name].attributes, **asked}) for name, asked in resized.attributes.items())


def check_resized(before: Graph, after: Graph, resized: Resized) -> None:
    """See that a graph is another of the sizes asked for, and nothing else.

    Raises:
        Refused: it is not, with the first thing that differs.
    """
    for name, shape in resized.shapes.items():
        found = after.value(name).shape
        if found != shape:
            raise Refused(f"`{name}` would be {_sizes(found)}, not {_sizes(shape)}")
    ops = {op.name: op for op in after.ops()}
    for old in before.ops():
        new = ops.get(old.name)
        if new is None or (old.kind, old.function, old.outputs) != (new.kind, new.function, new.outputs):
            raise Refused(f"`{old.name}` would be another op")
        wanted = {**old.attributes, **resized.attributes.get(old.name, {})}
        for name, attribute in wanted.items():
            if new.attributes.get(name) != attribute:
                raise Refused(f"`{name}` of `{old.name}` ({old.function}) cannot become {attribute}")


def _sizes(shape: tuple[int | str | None, ...] | None) -> str:
    return "of unknown rank" if shape is None else "x".join("?" if size is None else str(size) for size in shape)
