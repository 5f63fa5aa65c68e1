"""Values that are rounded as the program runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.fx import Graph, Node

from qcc.ir.encoding.blocks import TENSOR
from qcc.ir.encoding.value import COLUMN, DYNAMIC_INT8, POWERS, SLACK, SMALLEST_STEP, EncodedValue, ValueEncoding
from qcc.ir.errors import Refused
from qcc.ir.fx.edits.edit import FxEditor
from qcc.ir.fx.operands import operands, put

ROUNDED = "qcc_rounded"  # metadata of a node: how `write_rounded` made it
READ_AS = "qcc_read_as"  # metadata of a node: how it is read rounded

LAST = 2**63 - 1  # the end of an axis

_aten = torch.ops.aten


@dataclass(frozen=True)
class ReadAs:
    """How a value is read rounded by some, or all: the node that they read, and which of its makers read the value."""

    encoding: ValueEncoding
    node: Node
    starts: tuple[Node, ...]
    all: bool = False


def write_rounded(
    editor: FxEditor, value: Node, encoded: EncodedValue, readers: Sequence[tuple[Node, int]] | None
) -> Node:
    """Let readers of a value read it rounded, or all; what they read then.

    Raises:
        Refused: a reader does not read the value, or it is fed or a constant and all are to read it rounded.
    """
    known: ReadAs | None = value.meta.get(READ_AS)
    known = known if known is not None and known.encoding == encoded.encoding else None
    if known is not None and known.all:
        return known.node
    if value.meta.get(ROUNDED) == encoded.encoding:
        return value
    if readers is None and value.op == "placeholder":
        raise Refused(f"`{value.name}` is fed or stored: not all can read it rounded")
    uses = [editor.use(value, node, position) for node, position in readers or ()]
    users = [user for user in value.users if known is None or user not in known.starts]
    if known is None:
        found = _rounded(editor, value, encoded)
        found.meta[ROUNDED] = encoded.encoding
        known = ReadAs(encoded.encoding, found, tuple(user for user in value.users if user not in users))
    for node, place in uses:
        put(node, place, known.node)
    if readers is None:
        editor.read_instead(value, known.node, users)
    value.meta[READ_AS] = replace(known, all=readers is None)
    return known.node


def multiply_rounded(editor: FxEditor, product: Node) -> None:
    """Let a product of two values read both rounded: the rows of the left, and the columns of the right one."""
    for position, along in enumerate((-1, -2)):
        value = operands(product)[position]
        assert isinstance(value, Node)
        _, place = editor.use(value, product, position)
        put(product, place, _rounded(editor, value, EncodedValue(DYNAMIC_INT8), along))


def carry(graph: Graph, nodes: Mapping[Node, Node]) -> None:
    """In a copy of a graph, let what is known of values be of its own nodes.

    Args:
        graph: the copy.
        nodes: what became of each node.
    """
    for node in graph.nodes:
        known: ReadAs | None = node.meta.pop(READ_AS, None)
        if known is not None and all(one in nodes for one in (known.node, *known.starts)):
            starts = tuple(nodes[one] for one in known.starts)
            node.meta[READ_AS] = replace(known, node=nodes[known.node], starts=starts)


def _rounded(editor: FxEditor, value: Node, encoded: EncodedValue, along: int = -1) -> Node:
    """The rounded value; first tokens are as they come, also where it is known what they are."""
    first = encoded.encoding.float_tokens
    if encoded.positions and not isinstance(value.meta["val"].shape[-2], int):
        raise Refused(f"`{value.name}` has no fixed number of tokens, and a program has a step for each of so many")
    rest = editor.call(_aten.slice.Tensor, value, value, -2, first, LAST) if first else value
    if encoded.encoding.group:
        rest = editor.call(_aten.unflatten.int, rest, rest, -1, [-1, encoded.encoding.group])
    step, ends = _step(editor, rest, encoded, along), [float(end) for end in encoded.ends]
    found = editor.call(_aten.div.Tensor, step if isinstance(step, Node) else rest, rest, step)
    for target, given in (
        (_aten.round.default, ()), (_aten.clamp.default, tuple(ends)),
        (_aten.mul.Tensor, (step,)),
    ):  # fmt: skip
        found = editor.call(target, found, found, *given)
    if encoded.encoding.group:
        found = editor.call(_aten.flatten.using_ints, found, found, -2, -1)
    if not first:
        return found
    kept = editor.call(_aten.slice.Tensor, value, value, -2, 0, first)
    return editor.call(_aten.cat.default, found, [kept, found], -2)


def _step(editor: FxEditor, value: Node, encoded: EncodedValue, along: int = -1) -> Node | float:
    """The step of all, or those of the tokens."""
    if encoded.step is not None:
        return float(encoded.step)
    if encoded.positions:
        return _by_position(editor, value, encoded.positions)
    highest = float(encoded.encoding.grid.highest)
    sizes, rank = editor.call(_aten.abs.default, value, value), value.meta["val"].dim()
    axes = {TENSOR: [*range(rank)], COLUMN: [*range(rank - 1)]}.get(encoded.encoding.stored.block, [along])
    top = editor.call(_aten.amax.default, sizes, sizes, axes, True)
    least = editor.call(_aten.clamp.default, top, top, float(np.float32(SMALLEST_STEP * highest)))
    step = editor.call(_aten.div.Tensor, least, least, highest)
    if encoded.encoding.stored.scale != POWERS:
        return step
    power = editor.call(_aten.log2.default, step, step)
    for target, given in ((_aten.sub.Tensor, (SLACK,)), (_aten.ceil.default, ()), (_aten.exp2.default, ())):
        power = editor.call(target, power, power, *given)
    return power


def _by_position(editor: FxEditor, value: Node, steps: Sequence[float]) -> Node:
    """The steps of tokens by their places, those behind the last of them like that."""
    at = np.minimum(np.arange(value.meta["val"].shape[-2]), len(steps) - 1)
    return editor.hold(f"{value.name}.steps", np.asarray(steps, np.float32)[at, None])
