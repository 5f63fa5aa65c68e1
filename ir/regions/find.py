"""What stands behind the product of each layer that one kernel op could do along with it.

A region grows step by step from the product as long as nobody else reads the value between. So nothing that it reads
from outside can depend on what it makes, but for a kept value, and behind that only constants are read. The op can
therefore stand where the last operand is read: all that it reads is there, and who reads what it makes comes later.
That holds with any number of regions in place: values are made where they were made before, or earlier.
"""

from collections.abc import Iterable

import numpy as np

from qcc.ir.forms.kernel import kernel_layers
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Layer, Op, Weight
from qcc.ir.kernel.op import BF16, BIAS, KEEP, LinearOp, OpError
from qcc.ir.kernel.region import Region
from qcc.ir.regions.flow import Flow
from qcc.ir.regions.recognise import Match, Recogniser

_WITH_TENSOR = ("add", "mul")


def regions(graph: Graph, weights: Iterable[Weight]) -> dict[str, Region]:
    """The regions behind layers, by their names; a layer whose product is more than one has none.

    Layers are served in the order in which they run, and every op belongs to one region at most.
    """
    flow = Flow(graph)
    recogniser, claimed = Recogniser(flow), set[str]()
    layers = [(flow.position[layer.op], layer, one.shape[0]) for one in weights for layer in kernel_layers(one)]
    found = {}
    for _, layer, rows in sorted(layers, key=lambda one: one[0]):
        chain = _Chain(flow, recogniser, claimed, layer, rows)
        if chain.start():
            while chain.step():
                pass
            found[layer.name] = chain.region()
            claimed.update(found[layer.name].ops)
    return found


class _Chain:
    """A region as it grows behind a product of so many rows ``[out]``; ``value`` is what it makes so far."""

    def __init__(self, flow: Flow, recogniser: Recogniser, claimed: set[str], layer: Layer, rows: int) -> None:
        self._flow, self._graph, self._recogniser, self._claimed = flow, flow.graph, recogniser, claimed
        self._product = flow.ops[flow.position[layer.op]]
        self._rows, self._pointwise = rows, layer.kind is Kind.CONV
        self._ops: list[Op] = [self._product]
        self._steps: tuple[str, ...] = ()
        self._operands: tuple[str, ...] = ()
        self._value = self._place = self._product.outputs[0]
        self._kept = ""
        self._epsilon: float | None = None

    def region(self) -> Region:
        """What has grown."""
        names = tuple(op.name for op in self._ops)
        return Region(
            self._product.name,
            self._place,
            self._value,
            self._steps,
            self._operands,
            self._epsilon,
            self._kept,
            names,
        )

    def start(self) -> bool:
        """Begin with the product and what its own op adds to it; False if that is no step."""
        added = self._product.inputs[2] if len(self._product.inputs) > 2 else ""
        if not added:
            return True
        step = self._addition(added, self._value, own=True)
        return step is not None and self._take((step,), (added,), (), self._value)

    def step(self) -> bool:
        """Take in what comes next, if it is a step."""
        return self._operand_step() or self._computed_step()

    def _operand_step(self) -> bool:
        """An addition or a product with something from outside."""
        op = self._flow.only_reader(self._value)
        if op is None or op.kind is not Kind.BINARY or op.function not in _WITH_TENSOR or len(op.inputs) != 2:
            return False
        others = [name for name in op.inputs if name != self._value]
        if len(others) != 1 or op.name in self._claimed:
            return False
        (other,), result = others, op.outputs[0]
        step = self._addition(other, result) if op.function == "add" else self._with_tensor(op.function, other, result)
        return step is not None and self._take((step,), (other,), (op,), result)

    def _computed_step(self) -> bool:
        """A function of the value alone, and of constants."""
        for piece in self._flow.pieces(self._value, self._claimed):
            found = self._recogniser.match(piece)
            if found is not None and self._take_match(found):
                return True
        return False

    def _take_match(self, found: Match) -> bool:
        if not found.piece.escapes:
            return self._take((found.step,), found.operands, found.piece.ops, found.piece.result, found.epsilon)
        kept = self._value
        if not self._take((KEEP, found.step), found.operands, found.piece.ops, found.piece.result, found.epsilon):
            return False
        self._kept = kept
        return True

    def _addition(self, other: str, result: str, own: bool = False) -> str | None:
        """The step that adds a constant vector ``[out]``, or something computed of the result's shape.

        Of a convolution only its ``own`` addition is along the outputs; others run along the last axis.
        """
        array, shape = self._flow.constant(other), self._graph.value(result).shape
        if array is None:
            return self._with_tensor("add", other, result)
        along = own or not self._pointwise
        fits = along and array.dtype == np.float32 and array.shape[-1:] == (array.size,) == (self._rows,)
        return BIAS if fits and (array.ndim == 1 or (shape is not None and array.ndim <= len(shape))) else None

    def _with_tensor(self, step: str, other: str, result: str) -> str | None:
        """The step, if its other operand is computed and has the shape of the value so far."""
        if not other or self._flow.constant(other) is not None:
            return None
        left, right, made = (self._graph.value(name) for name in (self._value, other, result))
        fits = left.shape is not None and None not in left.shape and left.shape == right.shape
        return step if fits and {left.dtype, right.dtype, made.dtype} == {"float32"} else None

    def _take(
        self,
        steps: tuple[str, ...],
        operands: tuple[str, ...],
        ops: tuple[Op, ...],
        result: str,
        epsilon: float | None = None,
    ) -> bool:
        """Grow, if an op may have these steps too."""
        try:
            LinearOp(BF16, steps=(*self._steps, *steps), pointwise=self._pointwise)
        except OpError:
            return False
        self._steps, self._operands = (*self._steps, *steps), (*self._operands, *operands)
        self._ops += ops
        self._value, self._epsilon = result, epsilon
        if steps[0] in _WITH_TENSOR:
            self._place = result
        return True
