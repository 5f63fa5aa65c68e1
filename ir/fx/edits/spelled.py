"""Ops as the exporter to ONNX spells them, where passes see the pieces."""

from typing import Any

import torch
from torch.fx import Graph, Node

from qcc.ir.fx.edits.edit import FxEditor
from qcc.ir.fx.kinds import arguments, aten_name
from qcc.ir.graph.attributes import END

_aten = torch.ops.aten
ALIASES = {
    _aten.multiply.Tensor: _aten.mul.Tensor,
    _aten.multiply.Scalar: _aten.mul.Scalar,
    _aten.divide.Tensor: _aten.div.Tensor,
    _aten.divide.Scalar: _aten.div.Scalar,
    _aten.true_divide.Tensor: _aten.div.Tensor,
    _aten.subtract.Tensor: _aten.sub.Tensor,
    _aten.subtract.Scalar: _aten.sub.Scalar,
    _aten.clip.default: _aten.clamp.default,
    _aten.negative.default: _aten.neg.default,
    _aten.concat.default: _aten.cat.default,
    _aten.concatenate.default: _aten.cat.default,
    _aten.swapaxes.default: _aten.transpose.int,
    _aten.special_expit.default: _aten.sigmoid.default,
}
"""Ops of two names: the one that all else goes by."""


def respell(graph: Graph, editor: FxEditor) -> None:
    """Write ops as the exporter does."""
    _write_plainly(graph, editor)
    _write_rolls(graph, editor)
    _write_silus(graph, editor)
    _write_batch_norms(graph, editor)
    _write_repeats(graph, editor)
    _write_stacks(graph, editor)
    _write_bilinear(graph, editor)


def _write_plainly(graph: Graph, editor: FxEditor) -> None:
    """Give what has two names one, and say the shape of another value by its sizes.

    Rewrite:
        multiply(x, y)    -->  mul(x, y)
        reshape_as(x, y)  -->  reshape(x, sizes of y)
    """
    for node in [*graph.nodes]:
        if not node.kwargs:  # whose names may be others
            node.target = ALIASES.get(node.target, node.target)
        if aten_name(node) in ("reshape_as", "view_as"):
            given, shape = arguments(node), node.meta["val"].shape
            free = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
            with graph.inserting_before(node):
                sizes: list[int | Node] = [size if isinstance(size, int) else -1 for size in shape]
                for axis in free if len(free) > 1 else ():  # else nothing reads what only its shape is wanted of
                    sizes[axis] = _call(graph, _aten.sym_size.int, given["other"], axis)
                made = _call(graph, _aten.reshape.default, given["self"], sizes)
            editor.read_instead(node, made, [*node.users])
            graph.erase_node(node)


def _write_rolls(graph: Graph, editor: FxEditor) -> None:
    """Let no op stand in the way of axes that only moves them, where a program says by how much.

    Rewrite:
        roll(x, shift, axis)  -->  cat(x[-shift:], x[:-shift])
    """
    for node in [*graph.nodes]:
        if aten_name(node) != "roll":
            continue
        given = arguments(node)
        moves = [*zip(given["shifts"], given["dims"], strict=False)]
        sizes = [given["self"].meta["val"].shape[axis] for _, axis in moves]
        known = all(isinstance(shift, int) for shift, _ in moves) and all(isinstance(size, int) for size in sizes)
        if not given["dims"] or not known:
            continue
        made = given["self"]
        with graph.inserting_before(node):
            for (shift, axis), size in zip(moves, sizes, strict=True):
                if shift % size:
                    made = _rolled(graph, made, shift % size, axis)
        if made is not given["self"]:
            editor.read_instead(node, made, [*node.users])
            graph.erase_node(node)


def _write_silus(graph: Graph, editor: FxEditor) -> None:
    """Let the gate of a silu be a value, which may be rounded.

    Rewrite:
        silu(x)  -->  x * sigmoid(x)
    """
    for node in [*graph.nodes]:
        if aten_name(node) == "silu":
            x, name = arguments(node)["self"], node.name
            with graph.inserting_before(node):
                gate = _call(graph, _aten.sigmoid.default, x)
                made = _call(graph, _aten.mul.Tensor, x, gate)
            editor.read_instead(node, made, [*node.users])
            graph.erase_node(node)
            gate.name, made.name = f"{name}_gate", name


def _write_batch_norms(graph: Graph, editor: FxEditor) -> None:
    """Say batch norms of evaluation in one way: what takes writing in place out of a program says them otherwise.

    Rewrite:
        _native_batch_norm_legit_no_training(x, ...)[0]  -->  batch_norm(x, ...)
    """
    for node in [*graph.nodes]:
        if aten_name(node) != "_native_batch_norm_legit_no_training" or any(user.args[1] for user in node.users):
            continue
        given = arguments(node)
        parts = [given[name] for name in ("input", "weight", "bias", "running_mean", "running_var")]
        for item in [*node.users]:
            with graph.inserting_before(item):
                made = _call(graph, _aten.batch_norm.default, *parts, False, given["momentum"], given["eps"], False)
            name = item.name
            editor.read_instead(item, made, [*item.users])
            graph.erase_node(item)
            made.name = name
        graph.erase_node(node)


def _write_repeats(graph: Graph, editor: FxEditor) -> None:
    """Let axes be seen through numbers that are repeated each, as rotary tables and shared heads are.

    Rewrite:
        repeat_interleave(x, n, axis)  -->  flatten(expand(unsqueeze(x, axis + 1), n), axis, axis + 1)
    """
    for node in [*graph.nodes]:
        given = arguments(node)
        if aten_name(node) != "repeat_interleave" or not isinstance(given.get("repeats"), int) or given["dim"] is None:
            continue
        rank = given["self"].meta["val"].dim()
        axis = given["dim"] % rank
        with graph.inserting_before(node):
            apart = _call(graph, _aten.unsqueeze.default, given["self"], axis + 1)
            sizes = [given["repeats"] if at == axis + 1 else -1 for at in range(rank + 1)]
            repeated = _call(graph, _aten.expand.default, apart, sizes)
            made = _call(graph, _aten.flatten.using_ints, repeated, axis, axis + 1)
        editor.read_instead(node, made, [*node.users])
        graph.erase_node(node)


def _write_stacks(graph: Graph, editor: FxEditor) -> None:
    """Let axes be seen through what is put side by side.

    Rewrite:
        stack(xs, axis)  -->  cat([unsqueeze(x, axis) for x in xs], axis)
    """
    for node in [*graph.nodes]:
        if aten_name(node) == "stack":
            given = arguments(node)
            axis = given["dim"] % node.meta["val"].dim()
            with graph.inserting_before(node):
                rows = [_call(graph, _aten.unsqueeze.default, one, axis) for one in given["tensors"]]
                made = _call(graph, _aten.cat.default, rows, axis)
            editor.read_instead(node, made, [*node.users])
            graph.erase_node(node)


def _write_bilinear(graph: Graph, editor: FxEditor) -> None:
    """Make a product with two inputs two products, the first of them with the weight.

    Rewrite:
        bilinear(x, y, W [o, i, j], b)  -->  (x @ permute(W)[i, (o, j)]).unflatten(o, j) @ y + b
    """
    for node in [*graph.nodes]:
        if aten_name(node) != "bilinear":
            continue
        given = arguments(node)
        weight, bias = given["weight"], given["bias"]
        out, _, second = weight.meta["val"].shape
        with graph.inserting_before(node):
            turned = _call(graph, _aten.permute.default, weight, [1, 0, 2])
            matrix = _call(graph, _aten.flatten.using_ints, turned, 1, 2)
            first = _call(graph, _aten.matmul.default, given["input1"], matrix)
            apart = _call(graph, _aten.unflatten.int, first, -1, [out, second])
            column = _call(graph, _aten.unsqueeze.default, given["input2"], -1)
            made = _call(graph, _aten.squeeze.dim, _call(graph, _aten.matmul.default, apart, column), -1)
            made = made if bias is None else _call(graph, _aten.add.Tensor, made, bias)
        first.meta["nn_module_stack"] = node.meta.get("nn_module_stack")
        editor.read_instead(node, made, [*node.users])
        graph.erase_node(node)


def _rolled(graph: Graph, x: Node, shift: int, axis: int) -> Node:
    first = _call(graph, _aten.slice.Tensor, x, axis, -shift, END)
    rest = _call(graph, _aten.slice.Tensor, x, axis, 0, -shift)
    return _call(graph, _aten.cat.default, [first, rest], axis)


def _call(graph: Graph, target: Any, *given: Any) -> Node:  # noqa: ANN401 - as torch.fx types it
    node = graph.call_function(target, given)
    node.meta["val"] = target(*torch.fx.map_arg(given, lambda one: one.meta["val"]))
    return node
