"""Layers and weights as every adapter finds them: which op reads which constant how, and what people call that."""

from collections.abc import Container, Iterable
from dataclasses import dataclass
from math import prod

from qcc.ir.graph.ops import Compressed, Kind, Layer, Weight
from qcc.ir.graph.view import MatrixView

Shape = tuple[int, ...]
NAMED = ".weight"


@dataclass(frozen=True)
class Use:
    """How an op uses one of its operands as a weight: as which matrix, as which kind of layer.

    ``function`` is the op's name within the kind, as `Op` has it; the kind's own if it is empty.
    """

    view: MatrixView
    kind: Kind
    groups: int = 1
    form_free: bool = True
    function: str = ""


@dataclass(frozen=True)
class LayerOutput:
    """What a layer makes, and the constant and the op by which a bias is part of it."""

    output: str
    bias: str | None = None
    bias_op: str | None = None


@dataclass(frozen=True)
class Reading:
    """One layer, found.

    ``use`` is how the op reads its operand and ``view`` the same of the constant behind it; ``dtype`` is the type in
    which the op gets it, ``stored`` the constant's own. ``module`` and ``path`` say where op and constant come from,
    and may be empty. ``given`` tells of a constant that comes compressed.
    """

    use: Use
    view: MatrixView
    dtype: str
    stored: str
    constant: str
    op: str
    input: str
    result: LayerOutput
    module: str
    path: str
    given: Compressed | None = None


def right_operand(shape: Shape | None, rank: int | None, transposed: bool = False, plain: bool = True) -> Use | None:
    """A weight that something of this rank is multiplied by; ``plain`` if the op does nothing else but add a bias."""
    if shape is None or len(shape) < 2:
        return None
    inner = len(shape) - (1 if transposed else 2)
    rows = tuple(axis for axis in range(len(shape)) if axis != inner)
    return Use(MatrixView(shape, rows), Kind.LINEAR, form_free=plain and len(shape) == 2 and (rank or 0) >= 2)


def left_operand(shape: Shape | None, transposed: bool = False) -> Use | None:
    """A weight that multiplies something from the left, which no kernel takes."""
    if shape is None or len(shape) < 2:
        return None
    inner = len(shape) - (2 if transposed else 1)
    rows = tuple(axis for axis in range(len(shape)) if axis != inner)
    return Use(MatrixView(shape, rows), Kind.LINEAR, form_free=False)


def filters(shape: Shape | None, groups: int, transposed: bool, whole: bool = False) -> Use | None:
    """A convolution's weight, ``[o, i, ...]``, or ``[i, o, ...]`` for a transposed one.

    ``whole``: every place of the input gives one of the output, so that a kernel 1x1 makes it a product.
    """
    if shape is None or len(shape) < 3:
        return None
    product = whole and not transposed and groups == 1 and shape[2:] == (1, 1)
    view, function = MatrixView(shape, (1,) if transposed else (0,)), "conv_transpose" if transposed else "conv"
    return Use(view, Kind.CONV, groups, form_free=product, function=function)


def table(shape: Shape | None) -> Use | None:
    """An embedding's table."""
    return Use(MatrixView(shape, (0,)), Kind.EMBEDDING) if shape is not None and len(shape) == 2 else None


def gates(shape: Shape | None, function: str) -> Use | None:
    """A weight ``[gates * hidden, in]`` of a recurrent op, for each direction or one: a row is a channel of a gate."""
    if shape is None or len(shape) not in (2, 3):
        return None
    return Use(MatrixView(shape, tuple(range(len(shape) - 1))), Kind.RECURRENT, form_free=False, function=function)


def einsum_terms(equation: str) -> tuple[list[str], str]:
    """The terms of an equation as it is, or as it stands for, and its result."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    letters = left.replace(",", "").replace(".", "")
    once = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    return left.split(","), result if arrow else ("..." if "." in left else "") + once


def einsum_operand(shape: Shape | None, term: str, others: Iterable[str], result: str) -> Use | None:
    """A weight in an equation: its columns are what is summed over together with another operand."""
    if shape is None or "." in term or len(set(term)) != len(shape) or len(term) != len(shape):
        return None
    rows = tuple(axis for axis, letter in enumerate(term) if letter in result)
    summed = [letter for letter in term if letter not in result]
    if not rows or not summed or not set(summed) <= set("".join(others)):
        return None
    return Use(MatrixView(shape, rows), Kind.LINEAR, form_free=False)


def is_bias(shape: Shape | None, use: Use, rank: int | None) -> bool:
    """Adding a constant of this shape to a product of this rank adds one number to each output channel."""
    transposed = use.kind is Kind.CONV and use.view.out_axes == (1,)  # its rows are one group's channels
    rows = use.view.matrix_shape[0] * (use.groups if transposed else 1)
    if shape is None or shape[-1:] != (rows,) or prod(shape) != rows or len(use.view.out_axes) != 1:
        return False
    return len(shape) == 1 or (rank is not None and len(shape) <= rank)


def layer_name(module: str, path: str, tied: bool) -> str:
    """What people call a layer: by its weight's path, else by its module's; either may be empty.

    Exporters fold a norm into the convolution before it and say that the result is the norm, but the weight keeps its
    path. Of several layers that read one weight, the path is one's only: that whose module holds it.
    """
    owner = path.removesuffix(NAMED) or path
    if owner != path and (not tied or (module and owner.startswith(f"{module}."))):
        return owner
    return module or owner


def assemble(readings: Iterable[Reading], shared: Container[str]) -> tuple[Weight, ...]:
    """The weights, in the order in which their first layers run.

    Args:
        readings: the layers in the order in which they run.
        shared: the constants that more than their layers read.
    """
    found: dict[str, list[Reading]] = {}
    for reading in readings:
        found.setdefault(reading.constant, []).append(reading)
    seen: set[str] = set()
    weights = []
    for constant, readers in found.items():
        # a table's rows are what its embedding gathers: it comes first, and before names are given out
        readers.sort(key=lambda reading: reading.use.kind is not Kind.EMBEDDING)
        names = [layer_name(reading.module, reading.path, len(readers) > 1) for reading in readers]
        alone = constant not in shared
        layers = tuple(
            _layer(reading, _unique(name, seen), alone and _sees(reading) == _sees(readers[0]))
            for reading, name in zip(readers, names, strict=True)
        )
        first = readers[0]
        weights.append(Weight(layers[0].name, constant, first.view, first.dtype, layers, first.stored, first.given))
    return tuple(weights)


def _sees(reading: Reading) -> tuple[MatrixView, str]:
    return reading.view, reading.dtype


def _layer(reading: Reading, name: str, alike: bool) -> Layer:
    """The layer; ``alike`` says that nothing reads the constant but layers, and they as the weight's matrix."""
    use = reading.use
    return Layer(
        name=name,
        kind=use.kind,
        function=use.function or use.kind.value,
        op=reading.op,
        weight=reading.constant,
        input=reading.input,
        output=reading.result.output,
        groups=use.groups,
        kernel=use.view.shape[2:] if use.kind is Kind.CONV else (),
        form_free=use.form_free and alike,
        bias=reading.result.bias,
        bias_op=reading.result.bias_op,
    )


def _unique(name: str, seen: set[str]) -> str:
    """A module that runs twice gives `name` and `name#2`."""
    count, free = 1, name
    while free in seen:
        count += 1
        free = f"{name}#{count}"
    seen.add(free)
    return free
