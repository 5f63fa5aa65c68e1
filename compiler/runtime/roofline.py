"""What a node could take at least, and what holds it: the longest of what it must do.

A floor is no promise: rates are those of one core at its best, times the threads, and what is done twice or badly is
not counted. What a node must do is read and write its bytes at the rate of the cache that they fit, multiply at the
rate of its instruction, round its activations (``packing``), move values without computing (``reorder``), and be called
at all (``launch``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from qcc.codegen.target.ceiling import Ceilings
from qcc.codegen.target.find import targets
from qcc.codegen.target.machine import Machine
from qcc.codegen.target.target import KernelBound
from qcc.compiler.runtime.profile import Node
from qcc.ir.encoding.packing import UNIT
from qcc.ir.kernel.chain_op import ChainOp
from qcc.ir.kernel.kernel_op import parse_kernel
from qcc.ir.kernel.op import LinearOp, OpError
from qcc.ir.kernel.sequence_op import SequenceOp

FLOATS, INT8 = "fp32 multiply-add", "int8"
ROUNDING = "rounding to int8"
MEMORY = "memory"
BYTES, ARITHMETIC, PACKING, REORDER, LAUNCH = "bytes", "arithmetic", "packing", "reorder", "launch"
MOVES = frozenset(
    (
        *("Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "ReorderInput", "ReorderOutput"),
        *("Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    )
)
"""Ops that compute nothing: they put values elsewhere, or in another order or width."""
ATTENTION = frozenset(("Attention", "MultiHeadAttention", "GroupQueryAttention"))


@dataclass(frozen=True)
class Work:
    """What a node must do: ``operations``, two for a multiplication with its addition, by the instruction that
    ``ceiling`` names, and so many values to be ``rounded`` before.
    """

    operations: float = 0.0
    ceiling: str = FLOATS
    rounded: float = 0.0


@dataclass(frozen=True)
class Surroundings:
    """Where nodes run: the machine with its ceilings, ``threads``, what a node takes at least, and what weights there
    are in all, by which a cache holds them from one run to the next or not.
    """

    machine: Machine
    ceilings: Ceilings
    threads: int
    launch_s: float
    weight_bytes: float


@dataclass(frozen=True)
class NodeTime:
    """A node, what it could take at least, and what of all that it must do takes longest."""

    node: Node
    floor_s: float
    held: str


def timed_nodes(nodes: Sequence[Node], place: Surroundings) -> tuple[NodeTime, ...]:
    """Nodes of one model beside their floors; what weights there are in all is taken from them."""
    read = sum(one.bytes for node in nodes for one in node.inputs if one.constant)
    return tuple(_judged(node, replace(place, weight_bytes=read)) for node in nodes)


def _judged(node: Node, place: Surroundings) -> NodeTime:
    found = terms(node, place)
    held = max(found, key=lambda term: found[term])
    return NodeTime(node, found[held], held)


def terms(node: Node, place: Surroundings) -> Mapping[str, float]:
    """Seconds at least of each thing that a node must do."""
    fixed = sum(one.bytes for one in node.inputs if one.constant)
    values = [one.bytes for one in (*node.inputs, *node.outputs) if not one.constant]
    if node.op in MOVES:
        fixed = min(fixed, sum(one.bytes for one in node.outputs))  # a table is not read whole
    works = work_of(node)
    weights_s = fixed / bandwidth(place.weight_bytes, place)
    moved_s = weights_s + sum(one / bandwidth(one, place) for one in values)
    found = {REORDER if node.op in MOVES else BYTES: moved_s / place.threads, LAUNCH: place.launch_s}
    peaks = [place.ceilings.rate(work.ceiling) or place.ceilings.best(work.ceiling) for work in works]
    each = [work.operations / peak for work, peak in zip(works, peaks, strict=True) if peak]
    if each:
        found[ARITHMETIC] = sum(each) / place.threads
    if rounding := place.ceilings.rate(ROUNDING):
        found[PACKING] = sum(work.rounded for work in works) / rounding / place.threads
    return found


def work_of(node: Node) -> tuple[Work, ...]:
    """What a node computes, one after another; values that are merely added or scaled count one operation each."""
    if node.ours and node.inputs and node.outputs:
        return _kernel(node)
    counted = _COUNTED.get(node.op)
    if counted is not None and node.inputs and node.outputs:
        return (counted(node),)
    return (Work() if node.op in MOVES else Work(sum(one.size for one in node.outputs)),)


def bandwidth(size: float, place: Surroundings) -> float:
    """Bytes a second of one core, of the first cache that holds so many."""
    here = place.machine
    for level, room in (("L1", here.l1_bytes), ("L2", here.l2_bytes), ("L3", here.l3_bytes)):
        if size <= room and (rate := place.ceilings.rate(f"reading {level}")):
            return rate
    return place.ceilings.rate(f"reading {MEMORY}") or float("inf")


def _kernel(node: Node) -> tuple[Work, ...]:
    """A kernel of ours, by the template that this machine takes."""
    try:
        op = parse_kernel(node.op)
    except OpError:
        return (Work(),)
    read, given = node.inputs[0], node.outputs[0]
    if isinstance(op, ChainOp):
        return (Work(2.0 * given.size * _filter(op, node), INT8),)
    if isinstance(op, SequenceOp):
        inner, between = read.shape[-1], _weight_rows(node)
        rows = read.size / max(inner, 1)
        return _linear(op.first, rows, inner, rows * between), _linear(op.second, rows, between, given.size)
    if not isinstance(op, LinearOp):
        return (Work(),)  # how much an attention does hangs on what it is fed
    axis = 1 if op.pointwise else -1
    inner, rows = read.shape[axis], read.size / max(read.shape[axis], 1)
    results = sum(one.size for one in node.outputs[: len(op.members)])
    return (_linear(op, rows, inner, results * _kept(op, node, given.shape[axis] * inner)),)


def _linear(op: LinearOp, rows: float, inner: int, results: float) -> Work:
    """Rows of so many values that are multiplied to so many results, or each of a gate and what it gates."""
    bound = _bound(op, int(rows)) or KernelBound(FLOATS, False)
    products = results * (2 if op.chained else 1) * inner
    return Work(2.0 * products, bound.ceiling, rows * inner if bound.rounds else 0)


def _filter(op: ChainOp, node: Node) -> float:
    """The weights of a filter, whose codes may lie in planes."""
    inputs = dict(zip(op.inputs, node.inputs, strict=False))
    size = inputs[op.codes[0]].size * (UNIT / op.grid.planes[0] if op.packed else 1)
    return size / max(inputs["scale"].size, 1)


def _bound(op: LinearOp, rows: int) -> KernelBound | None:
    return next((found for one in targets().values() if (found := one.bound(op, rows)) is not None), None)


def _weight_rows(node: Node) -> int:
    """The outputs, or the tiles, of the first weight."""
    return next(one.shape[0] for one in node.inputs if one.constant)


def _kept(op: LinearOp, node: Node, weights: int) -> float:
    """The share of a weight's tiles that is stored, where they are stored alone."""
    if op.tile is None:
        return 1.0
    return min(_weight_rows(node) * prod(op.tile) / max(weights, 1), 1.0)


def _product(node: Node) -> Work:
    """A matrix product: the inner size is that of the first input."""
    first = node.inputs[0].shape
    turned = bool(node.attributes.get("transA")) and len(first) > 1
    return Work(2.0 * node.outputs[0].size * (first[-2 if turned else -1] if first else 1))


def _whole(node: Node) -> Work:
    return Work(_product(node).operations, INT8)


def _rounding(node: Node) -> Work:
    return Work(_product(node).operations, INT8, node.inputs[0].size)


def _convolution(node: Node) -> Work:
    """Each output adds up the products of a filter: of the weight's size over its first axis, also in the runtime's
    blocks of channels.
    """
    weights = [one for one in node.inputs if one.constant and len(one.shape) > 2]
    each = weights[0].size / max(weights[0].shape[0], 1) if weights else 1
    return Work(2.0 * node.outputs[0].size * each)


def _attention(node: Node) -> Work:
    """Scores and their sums; the product that makes queries, keys and values where its weight is an input."""
    read, given = node.inputs[0].shape, node.outputs[0]
    length = read[1] if len(read) == 3 else 1
    weight = next((one for one in node.inputs if one.constant and len(one.shape) == 2), None)
    made = 2.0 * read[0] * length * weight.size if weight else 0.0
    return Work(made + 4.0 * given.size * length)


_COUNTED: Mapping[str, Callable[[Node], Work]] = {
    **dict.fromkeys(("MatMul", "FusedMatMul", "Gemm", "FusedGemm", "MatMulNBits"), _product),
    **dict.fromkeys(("MatMulInteger", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat"), _whole),
    "DynamicQuantizeMatMul": _rounding,
    **dict.fromkeys(("Conv", "FusedConv", "NhwcFusedConv"), _convolution),
    **dict.fromkeys(ATTENTION, _attention),
}
