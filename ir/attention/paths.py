"""The way from a softmax to the two products beside it: which ops lie between, and in what order they act."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import LAYER_KINDS, Kind, Op
from qcc.ir.regions.flow import Flow

DEEPEST = 40  # ops between a softmax and a product
LOWEST = -1e4  # scores that are set to less are hidden
_BEFORE = {
    Kind.RESHAPE: frozenset(("reshape", "squeeze", "unsqueeze", "expand")),
    Kind.ELEMENTWISE: frozenset(("identity", "cast", "tanh", "dropout", "clip")),
    Kind.BINARY: frozenset(("add", "sub", "mul", "div", "where", "max")),
    Kind.CONCAT: frozenset(("concat",)),
}
_BEHIND = {
    Kind.RESHAPE: frozenset(("reshape", "squeeze", "unsqueeze", "expand")),
    Kind.ELEMENTWISE: frozenset(("identity", "cast", "dropout")),
    Kind.BINARY: frozenset(("mul", "where")),
    Kind.GATHER: frozenset(("slice",)),
    Kind.SPLIT: frozenset(("split",)),
}


class UntoldError(Exception):
    """This is no attention that can be told; the text says why."""


@dataclass(frozen=True)
class ScoreStep:
    """What is done to scores: ``what``, maybe with a value; they have the name ``result`` then.

    What a mask hides is set to a low number, or to one that is ``infinite``.
    """

    what: str
    result: str
    value: str = ""
    keeps: bool | None = None
    infinite: bool = False


@dataclass(frozen=True)
class ScorePath:
    """A softmax between two products."""

    softmax: Op
    first: Op
    second: Op
    steps: tuple[ScoreStep, ...]


class Paths:
    """Finds the ways in one graph."""

    def __init__(self, graph: Graph, number: Callable[[str], float | None]) -> None:
        """``number`` is what a constant of one element holds."""
        self.flow, self._graph, self._number = Flow(graph), graph, number
        self.learned = _learned(graph)
        self._leads: dict[str, bool] = {}
        self._least = 2

    def varies(self, value: str) -> bool:
        """A number hangs on how large something is whose size is free, by what is written down."""
        seen, todo = {value}, [value]
        while todo:
            op = self.flow.maker(todo.pop())
            if op is None or (op.function == "shape" and all(isinstance(size, int) for size in self._sizes(op))):
                continue
            if op.function == "shape":
                return True
            todo += [name for name in op.inputs if name and name not in seen]
            seen.update(op.inputs)
        return False

    def _sizes(self, op: Op) -> Sequence[int | str | None]:
        """The sizes that an op tells, or those of them that are looked up."""
        shape = self._graph.value(op.inputs[0]).shape
        if shape is None:
            return (None,)
        start, end = (op.attributes.get(name) for name in ("start", "end"))
        told = shape[start if isinstance(start, int) else 0 : end if isinstance(end, int) else None]
        reader = self.flow.only_reader(op.outputs[0])
        if reader is not None and reader.kind is Kind.GATHER and len(reader.inputs) == 2:
            at = self._number(reader.inputs[1])
            return told if at is None else told[int(at) :][:1]
        return told

    def core(self, softmax: Op) -> ScorePath | None:
        """The products beside a softmax of the last axis; None where its result is multiplied with nothing computed.

        Raises:
            UntoldError: there is a product behind it and none before it, or something else lies between.
        """
        second = self._behind(softmax.outputs[0])
        if second is None:
            return None
        axis, shape = softmax.attributes.get("axis"), self._graph.value(softmax.inputs[0]).shape
        if shape is not None and axis not in (-1, len(shape) - 1):
            return None
        for least in (2, 1):  # where all is computed of what is fed, products with positions are a bias
            self._least = least
            self._leads = {}
            if self._leads_back(softmax.inputs[0]):
                return self._between(softmax, second)
        raise UntoldError("no product of two computed values makes its scores")

    def _between(self, softmax: Op, second: Op) -> ScorePath:
        value, steps = softmax.inputs[0], list[ScoreStep]()
        while not self._is_product(self.flow.maker(value), self._least):
            step, value = self._step(value)
            steps += [] if step is None else [step]
        first = self.flow.maker(value)
        assert first is not None
        return ScorePath(softmax, first, second, tuple(steps[::-1]))

    def _is_product(self, op: Op | None, least: int = 2) -> bool:
        """A product of two values, of which at least so many come of what is fed and of layers."""
        if op is None or op.kind is not Kind.MATMUL or len(op.inputs) < 2:
            return False
        return len(self.learned & set(op.inputs[:2])) >= least

    def _behind(self, value: str) -> Op | None:
        todo, seen = [(value, 0)], {value}
        while todo:
            name, depth = todo.pop(0)
            for op in self.flow.readers(name):
                if self._is_product(op):
                    return op
                if op.kind is Kind.OTHER and len(self.learned & set(op.inputs)) > 1:
                    raise UntoldError(f"its weights go into `{op.function}`, and what that computes is not known")
                if depth < DEEPEST and op.function in _BEHIND.get(op.kind, ()):
                    fresh = [one for one in op.outputs if one and one not in seen]
                    seen.update(fresh)
                    todo += [(one, depth + 1) for one in fresh]
        return None

    def _leads_back(self, value: str, depth: int = 0) -> bool:
        """Scores come this way."""
        if value not in self._leads:
            op = self.flow.maker(value)
            self._leads[value] = False
            if self._is_product(op, self._least):
                self._leads[value] = True
            elif op is not None and depth < DEEPEST and op.function in _BEFORE.get(op.kind, ()):
                self._leads[value] = any(self._leads_back(name, depth + 1) for name in op.inputs if name)
        return self._leads[value]

    def _step(self, value: str) -> tuple[ScoreStep | None, str]:
        """What was done last to scores, and the scores before."""
        op = self.flow.maker(value)
        assert op is not None
        at = next(at for at, name in enumerate(op.inputs) if name and self._leads_back(name))
        before, others = op.inputs[at], [name for one, name in enumerate(op.inputs) if one != at]
        if op.kind is Kind.RESHAPE:
            return ScoreStep("reshape", value), before
        if op.kind is Kind.CONCAT:
            if len(others) != 1 or at != 0:
                raise UntoldError("its scores are several that are put together")
            return ScoreStep("sinks", value, value=others[0]), before
        if op.kind is Kind.ELEMENTWISE:
            if op.function == "clip":
                _check_wide(op)
            return (ScoreStep("tanh", value) if op.function == "tanh" else None), before
        return self._arithmetic(op, at, before, others), before

    def _arithmetic(self, op: Op, at: int, before: str, others: list[str]) -> ScoreStep | None:
        value = op.outputs[0]
        if op.function == "where":
            fill = self._number(others[1])
            if at == 0 or fill is None or not fill <= LOWEST:
                raise UntoldError("scores are replaced by something else than what hides them")
            return ScoreStep("mask", value, others[0], at == 1, infinite=not math.isfinite(fill))
        number = self._number(others[0]) if others else None
        if op.function == "max":
            if number is None or number > LOWEST:
                raise UntoldError("scores are bounded from below")
            return None
        if op.function == "sub" and self._is_largest(others[0], before):
            return None
        if op.function == "div" and at == 1:
            raise UntoldError("something is divided by its scores")
        if op.function in ("mul", "div"):
            return ScoreStep(op.function, value, value=others[0])
        if op.function == "sub":
            raise UntoldError("something is subtracted from its scores")
        if len(others) != 1:
            raise UntoldError("several things are added to its scores at once")
        return ScoreStep("add", value, value=others[0])

    def _is_largest(self, value: str, scores: str) -> bool:
        op = self.flow.maker(value)
        return op is not None and op.kind is Kind.REDUCE and op.function == "max" and op.inputs[:1] == (scores,)

    def between(self, core: ScorePath) -> tuple[int, frozenset[str]]:
        """Which operand of the second product is made of the weights, and the ops from the softmax to it.

        Raises:
            UntoldError: it is the right one of a product of matrices.
        """
        for at in (0, 1) if core.second.function == "einsum" else (0,):
            found = self._leading(core, core.second.inputs[at])
            if found:
                return at, found
        raise UntoldError("its weights stand on the right of the values")

    def _leading(self, core: ScorePath, end: str) -> frozenset[str]:
        start, found, todo = core.softmax.outputs[0], dict[str, bool](), [end]
        if end == start:
            return frozenset((core.softmax.name,))
        made = self._reached(start)
        while todo:
            op = self.flow.maker(todo.pop())
            if op is not None and op.name in made and op.name not in found:
                found[op.name] = True
                todo += [name for name in op.inputs if name]
        return frozenset((core.softmax.name, *found)) if found else frozenset()

    def _reached(self, start: str) -> set[str]:
        """The ops behind a value, so far as they can lie before a product of it."""
        found, todo = set[str](), [start]
        for _ in range(DEEPEST):
            ops = [op for name in todo for op in self.flow.readers(name) if op.kind is not Kind.MATMUL]
            todo = [name for op in ops if op.name not in found for name in op.outputs if name]
            found.update(op.name for op in ops)
        return found

    def moves(self, value: str) -> tuple[str, ...]:
        """A value and those that hold it moved, one made of the other, as long as nothing else reads them."""
        found = [value]
        while (op := self.flow.only_reader(found[-1])) is not None and op.inputs[0] == found[-1]:
            if op.kind not in (Kind.RESHAPE, Kind.TRANSPOSE) or op.function == "expand":
                break
            found.append(op.outputs[0])
        return tuple(found)

    def is_read(self, core: ScorePath, inner: frozenset[str]) -> bool:
        """Others than the second product see the weights."""
        ends = {core.second.name, *inner}
        values = [name for op in self.flow.ops if op.name in inner for name in op.outputs if name]
        seen = any(map(self.flow.is_returned, values))
        return seen or any(op.name not in ends for name in values for op in self.flow.readers(name))


def _check_wide(op: Op) -> None:
    """A clip leaves scores as they are, but for what hides some: drawn ones are small, and would not tell.

    Raises:
        UntoldError: it may not.
    """
    low, high = (end if isinstance(end, int | float) else None for end in map(op.attributes.get, ("min", "max")))
    computed = any(name and end is None for name, end in zip(op.inputs[1:], (low, high), strict=False))
    if computed or (low is not None and low > LOWEST) or (high is not None and high < -LOWEST):
        raise UntoldError("scores are clipped")


def _learned(graph: Graph) -> set[str]:
    """The values that depend on what is fed and come of a layer; of a graph without layers, on what is fed alone.

    Sizes of what is fed do not count: positions and their tables are none of them.
    """
    fed = {value.name for value in graph.inputs}
    varying, learned = set(fed), set[str]()
    layers = any(op.kind in LAYER_KINDS for op in graph.ops())
    for op in graph.ops():
        if op.kind is Kind.CONSTANT or not varying & set(op.inputs):
            continue
        varying.update(op.outputs)
        if op.kind in LAYER_KINDS or learned & set(op.inputs):
            learned.update(op.outputs)
    return (learned if layers else {name for name in varying if "float" in graph.value(name).dtype}) - {""}
