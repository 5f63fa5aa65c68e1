"""ONNX's reading of the formulas of steps: each operation is a line of a function's body."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qcc.ir.vocabulary.definition import EpilogueStep, Formula, Lines, number


def step_lines(step: EpilogueStep, v: str, y: str, operands: Sequence[str], opset: int) -> Lines:
    """Lines that make the second value of the first, as the step's definition says or as its formula does."""
    if step.lines is not None:
        return step.lines(v, y, operands, opset)
    assert step.formula is not None, f"{step.name} says neither its lines nor its formula"
    return formula_lines(step.formula, v, y, operands)


def formula_lines(formula: Formula, v: str, y: str, operands: Sequence[str]) -> Lines:
    """A formula, op by op."""
    writer = LineArithmetic(y)
    result = formula(writer, *(Line(name, writer) for name in (v, *operands)))
    return [*writer.lines, f"{y} = Identity ({result.name})"]


class LineArithmetic:
    """The reading of formulas (`Arithmetic`) that writes lines, whose names start with a prefix."""

    def __init__(self, prefix: str) -> None:
        self.lines: Lines = []
        self._prefix, self._count = prefix, 0

    def make(self, op: str, *operands: "Line | float") -> "Line":
        """A line with an op on values and numbers."""
        names = [one.name if isinstance(one, Line) else self._number(one) for one in operands]
        name = self._name()
        self.lines.append(f"{name} = {op} ({', '.join(names)})")
        return Line(name, self)

    def above(self, value: "Line", low: float) -> "Line":
        """See `Arithmetic.above`."""
        return self.make("Max", value, low)

    def clamp(self, value: "Line", low: float, high: float) -> "Line":
        """See `Arithmetic.clamp`."""
        return self.make("Clip", value, low, high)

    def exp(self, value: "Line") -> "Line":
        """See `Arithmetic.exp`."""
        return self.make("Exp", value)

    def logistic(self, value: "Line") -> "Line":
        """See `Arithmetic.logistic`."""
        return self.make("Sigmoid", value)

    def tanh(self, value: "Line") -> "Line":
        """See `Arithmetic.tanh`."""
        return self.make("Tanh", value)

    def normal(self, value: "Line") -> "Line":
        """See `Arithmetic.normal`."""
        return (self.make("Erf", value * math.sqrt(0.5)) + 1.0) * 0.5

    def _number(self, value: float) -> str:
        name = self._name()
        self.lines.append(number(name, float(value)))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"{self._prefix}_{self._count}"


@dataclass(frozen=True)
class Line:
    """A value with a name; arithmetic on it writes lines."""

    name: str
    writer: LineArithmetic

    def __add__(self, other: "Line | float") -> "Line":
        return self.writer.make("Add", self, other)

    def __radd__(self, other: float) -> "Line":
        return self.writer.make("Add", other, self)

    def __sub__(self, other: "Line | float") -> "Line":
        return self.writer.make("Sub", self, other)

    def __rsub__(self, other: float) -> "Line":
        return self.writer.make("Sub", other, self)

    def __mul__(self, other: "Line | float") -> "Line":
        return self.writer.make("Mul", self, other)

    def __rmul__(self, other: float) -> "Line":
        return self.writer.make("Mul", other, self)

    def __truediv__(self, other: "Line | float") -> "Line":
        return self.writer.make("Div", self, other)

    def __rtruediv__(self, other: float) -> "Line":
        return self.writer.make("Div", other, self)
