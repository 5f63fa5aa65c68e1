"""The axes of a model's inputs: which one counts samples, which are the same, and how long the free ones are made."""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from qcc.ir.graph.ops import Value

BATCH_WORD = "batch"
BATCH_NAMES = ("n", "b", "bs")
IMAGE_AXES = 4
STATE_AXES = 3  # of a recurrent state: layers or directions, batch, width
ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


@dataclass(frozen=True)
class InputAxes:
    """Where the samples are in each input.

    ``batch`` is the position of the axis that counts samples, by input; None where there is none, and all samples of a
    batch share the array. ``fixed`` is its size where the model fixes it; ``names`` what the batch is called.
    """

    batch: Mapping[str, int | None]
    fixed: int | None
    names: frozenset[str]

    @property
    def free(self) -> bool:
        """There is a batch, of any size."""
        return self.fixed is None and any(at is not None for at in self.batch.values())


def input_axes(inputs: Sequence[Value]) -> InputAxes:
    """Find the batch axis of each input, by name and position.

    A free first axis counts samples. Of several names the likeliest does, wherever it stands, and so do first
    axes of other names that never stand beside it. In an input with a first axis that is fixed while others' are free,
    as of recurrent states, the second counts where it is free.
    """
    name = _batch_name(inputs)
    beside = {key for value in inputs if name in _symbols(value) for key in _symbols(value)}
    names = set() if name is None else {name}
    free = name is not None or any(value.shape and value.shape[0] is None for value in inputs)
    found: dict[str, int | None] = {}
    for value in inputs:
        found[value.name] = at = _free_position(value, name, beside) if free else None
        if at is not None and value.shape and isinstance(value.shape[at], str):
            names.add(str(value.shape[at]))
    if any(at is not None for at in found.values()):
        return InputAxes(found, None, frozenset(names))
    fixed = next((value.shape[0] for value in inputs if value.shape and isinstance(value.shape[0], int)), None)
    return InputAxes({value.name: _fixed_position(value, fixed) for value in inputs}, fixed, frozenset())


def axis_key(value: Value, at: int) -> str:
    """What a free axis is called: by its name, or by its input and position where it has none."""
    size = None if value.shape is None else value.shape[at]
    return size if isinstance(size, str) and size else f"{value.name}:{at}"


def free_keys(inputs: Sequence[Value]) -> tuple[str, ...]:
    """What the free axes are called; names in sums and products count, not the sums themselves."""
    keys = [
        name
        for value in inputs
        for at, size in enumerate(value.shape or ())
        if not isinstance(size, int)
        for name in _names(axis_key(value, at))
    ]
    return tuple(dict.fromkeys(keys))


def is_image(value: Value, axes: InputAxes) -> bool:
    """Four axes, of which at least two free ones are not the batch: an image or a map of features."""
    shape = value.shape or ()
    own = axes.batch.get(value.name)
    keys = {axis_key(value, at) for at, size in enumerate(shape) if at != own and not isinstance(size, int)}
    return len(shape) == IMAGE_AXES and len(keys - axes.names) > 1


def bound_shape(value: Value, axes: InputAxes, batch: int, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """An input's shape with ``sizes`` for its free axes, which must have all of them but the batch."""
    shape = []
    for at, size in enumerate(value.shape or ()):
        if isinstance(size, int):
            shape.append(size)
        elif at == axes.batch.get(value.name):
            shape.append(batch)
        else:
            known = {**dict.fromkeys(axes.names, batch), **sizes}
            shape.append(max(_evaluate(axis_key(value, at), known), 0))
    return tuple(shape)


def _batch_name(inputs: Sequence[Value]) -> str | None:
    """The name of the axis that most likely counts samples: of a first one, or of any called a batch."""
    firsts = [str(value.shape[0]) for value in inputs if value.shape and isinstance(value.shape[0], str)]
    called = [name for value in inputs for name in _symbols(value) if BATCH_WORD in name.lower()]
    uses = {name: sum(name in _symbols(value) for value in inputs) for name in (*firsts, *called)}

    def likely(name: str) -> tuple[bool, bool, bool, int]:
        return BATCH_WORD in name.lower(), name in firsts, name.lower() in BATCH_NAMES, uses[name]

    return max(uses, key=likely, default=None)


def _symbols(value: Value) -> tuple[str, ...]:
    return tuple(size for size in value.shape or () if isinstance(size, str) and size)


def _free_position(value: Value, name: str | None, beside: set[str]) -> int | None:
    shape = value.shape or ()
    if name is not None and name in shape:
        return shape.index(name)
    if not shape:
        return None
    if not isinstance(shape[0], int):
        return 0 if shape[0] is None or shape[0] not in beside else None
    return 1 if len(shape) == STATE_AXES and shape[1] is None else None


def _fixed_position(value: Value, fixed: int | str | None) -> int | None:
    shape = value.shape or ()
    return next((at for at in range(min(len(shape), 2)) if fixed is not None and shape[at] == fixed), None)


def _names(key: str) -> Iterator[str]:
    """The names in a sum or product of names and numbers, or else the key itself."""
    tree = _parsed(key)
    if tree is None:
        yield key
        return
    yield from (node.id for node in ast.walk(tree) if isinstance(node, ast.Name))


def _evaluate(key: str, sizes: Mapping[str, int]) -> int:
    tree = _parsed(key)
    return sizes[key] if tree is None or key in sizes else _value(tree, sizes)


def _value(tree: ast.expr, sizes: Mapping[str, int]) -> int:
    if isinstance(tree, ast.BinOp):
        return ARITHMETIC[type(tree.op)](_value(tree.left, sizes), _value(tree.right, sizes))
    return sizes[tree.id] if isinstance(tree, ast.Name) else int(ast.literal_eval(tree))


def _parsed(key: str) -> ast.expr | None:
    """A name such as `past + 1`, taken apart; None for any other."""
    if len(key) > 200 or not any(sign in key for sign in "+-*"):
        return None
    try:
        tree = ast.parse(key, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree if isinstance(tree, ast.BinOp) and all(map(_understood, ast.walk(tree))) else None


def _understood(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return type(node.op) in ARITHMETIC
    if isinstance(node, ast.Constant):
        return type(node.value) is int
    return isinstance(node, ast.Name | ast.expr_context | ast.operator)
