"""Which step of a kernel a piece of a graph is, told by what it computes, however its exporter spells it.

A piece is run on sample points and compared with the functions that kernels know. What was found holds for every piece
of the same structure: the same ops, the same numbers in them, vectors of the same length in the same places.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from qcc.ir.errors import ModelError
from qcc.ir.graph.attributes import rounded
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Array, Kind
from qcc.ir.regions.flow import Flow, Piece
from qcc.ir.vocabulary.definition import EpilogueStep
from qcc.ir.vocabulary.find import ACTIVATIONS, NORMS

SymbolicShape = tuple[int | str | None, ...]
TOLERANCE = 2e-6  # of 1 + |x|: float32, and a runtime's own erf and exp; the two gelus differ by 5e-4
NORM_TOLERANCE = 2e-5  # of the largest result: sums of a row's squares in float32, and an offset that cancels
FAR = np.array([1e-3, 30.0, 100.0, 1e3, 1e6, 1e30])  # so far out, so that no clip behind a function goes unseen
POINTS = np.concatenate([np.linspace(-12, 12, 2001), FAR, -FAR])
MOST_NUMBERS = 16  # of a constant that is part of the structure, such as the axes of a sum
MOST_ELEMENTS = 1 << 24  # of a sample: a model whose sizes are all fixed may fix large ones
SCALES = (1.0, 1e3, 1e6)  # of samples, beside those about the root of epsilon
BELOW = (30.0, 1.0, 0.1)  # in roots of epsilon


@dataclass(frozen=True)
class Answer:
    """What pieces of one structure are: a step, which of their vectors are its operands (None: left out), epsilon."""

    step: str
    operands: tuple[int | None, ...] = ()
    epsilon: float | None = None


@dataclass(frozen=True)
class Match:
    """A piece that is a step; an operand that is left out is empty."""

    piece: Piece
    step: str
    operands: tuple[str, ...] = ()
    epsilon: float | None = None


class Recogniser:
    """Recognises pieces of one graph."""

    def __init__(self, flow: Flow) -> None:
        self._flow, self._graph = flow, flow.graph
        self._known: dict[object, Answer | None] = {}

    def match(self, piece: Piece) -> Match | None:
        """The step that a piece is, if it is one."""
        source, result = self._graph.value(piece.source), self._graph.value(piece.result)
        is_norm = any(op.kind in (Kind.REDUCE, Kind.NORM) for op in piece.ops)
        if source.shape is None or (source.dtype, result.dtype) != ("float32", "float32"):
            return None
        structure = self._structure(piece, source.shape)
        if structure is None or (not is_norm and (structure[1] or piece.escapes)):
            return None
        key, vectors = structure
        if key not in self._known:
            try:
                find = self._norm if is_norm else self._activation
                self._known[key] = find(piece, source.shape, vectors)
            except ModelError:  # the runtime does not take the piece
                self._known[key] = None
        answer = self._known[key]
        if answer is None:
            return None
        operands = tuple("" if at is None else vectors[at] for at in answer.operands)
        return Match(piece, answer.step, operands, answer.epsilon)

    def _structure(self, piece: Piece, shape: SymbolicShape) -> tuple[object, list[str]] | None:
        """What a piece has in common with others that compute the same, and its vectors; None for other constants."""
        places, vectors, lines = {piece.source: 0}, list[str](), list[object]()
        for op in piece.ops:
            reads = list[object]()
            for name in op.inputs:
                array = None if not name or name in places else self._flow.constant(name)
                if array is None:
                    reads.append(places.get(name))
                elif array.size == 1 or (array.dtype.kind in "iub" and array.size <= MOST_NUMBERS):
                    reads.append((array.dtype.name, array.shape, array.tobytes()))
                elif array.dtype == np.float32 and array.shape[-1:] == shape[-1:] == (array.size,):
                    vectors += [] if name in vectors else [name]
                    reads.append(("vector", vectors.index(name), array.ndim))
                else:
                    return None
            places[op.outputs[0]] = len(places)
            lines.append((op.kind, op.function, tuple(sorted(op.attributes.items())), tuple(reads)))
        return (shape, tuple(lines)), vectors

    def _activation(self, piece: Piece, shape: SymbolicShape, _: Sequence[str]) -> Answer | None:
        sizes = _sizes(shape, len(POINTS))
        if math.prod(sizes) > MOST_ELEMENTS:
            return None
        run = self._graph.runner([piece.source], [piece.result])
        found, width = [], max(math.prod(sizes), 1)
        for start in range(0, len(POINTS), width):
            x = np.resize(POINTS[start : start + width], sizes).astype(np.float32)
            y = run({piece.source: x})[piece.result]
            if y.shape != x.shape:
                return None
            found.append((x.astype(np.float64), y))
        for name, step in ACTIVATIONS.items():
            if all(_is_close(y, step.applied(x), TOLERANCE * (1 + np.abs(x))) for x, y in found):
                return Answer(name)
        return None

    def _norm(self, piece: Piece, shape: SymbolicShape, vectors: Sequence[str]) -> Answer | None:
        """Compare with each norm under each role of the vectors and each number that may be its epsilon."""
        sizes = _sizes(shape)
        if not sizes or math.prod(sizes) > MOST_ELEMENTS or len(vectors) > 2:
            return None
        run = self._graph.runner([piece.source], [piece.result], vectors)
        samples = _Samples(piece, sizes, self._vectors(vectors), run)
        for epsilon in self._epsilons(piece):
            for name, norm in NORMS.items():
                for operands in _roles(len(vectors), len(norm.operands)):
                    scales = (*SCALES, *(factor * math.sqrt(epsilon) for factor in BELOW))
                    if all(samples.agree(scale, norm, operands, epsilon) for scale in scales):
                        return Answer(name, operands, epsilon)
        return None

    def _vectors(self, names: Sequence[str]) -> dict[str, Array]:
        """Other numbers in the places of a piece's vectors, so that what is found does not hang on theirs."""
        draw, found = np.random.default_rng(1), {}
        for name in names:
            array = self._flow.constant(name)
            assert array is not None
            found[name] = draw.uniform(0.5, 1.5, array.shape).astype(np.float32)
        return found

    def _epsilons(self, piece: Piece) -> Iterator[float]:
        found = dict[float, None]()
        for op in piece.ops:
            epsilon = op.attributes.get("epsilon")
            numbers = [] if not isinstance(epsilon, float) else [epsilon]
            arrays = [self._flow.constant(name) for name in op.inputs if name]
            numbers += [float(one.reshape(-1)[0]) for one in arrays if one is not None and one.size == 1]
            found.update((rounded(number), None) for number in numbers if 0 < number < 1)
        yield from found


class _Samples:
    """What a piece makes of samples of several scales, each run once."""

    def __init__(self, piece: Piece, sizes: tuple[int, ...], vectors: dict[str, Array], run: Runner) -> None:
        draw, column = np.random.default_rng(0), (*sizes[:-1], 1)
        self._x = draw.standard_normal(sizes) * draw.uniform(0.5, 2, column) + draw.uniform(-1, 1, column)
        self._piece, self._vectors, self._run = piece, vectors, run
        self._made: dict[float, tuple[Array, Array]] = {}

    def agree(self, scale: float, norm: EpilogueStep, operands: Sequence[int | None], epsilon: float) -> bool:
        """The piece does what the norm does with these operands."""
        if scale not in self._made:
            x = (self._x * scale).astype(np.float32)
            self._made[scale] = x, self._run({self._piece.source: x, **self._vectors})[self._piece.result]
        x, y = self._made[scale]
        expected = norm.normalised(x.astype(np.float64), epsilon)
        arrays = [None if at is None else list(self._vectors.values())[at] for at in operands]
        for array, combine in zip(arrays, (np.multiply, np.add), strict=False):
            expected = expected if array is None else combine(expected, array.reshape(-1))
        return y.shape == x.shape and _is_close(y, expected, NORM_TOLERANCE * np.abs(expected).max(initial=0))


def _is_close(actual: Array, expected: Array, tolerance: Array | float) -> bool:
    with np.errstate(invalid="ignore"):
        return bool((np.abs(actual - expected) <= tolerance).all())


def _roles(count: int, places: int) -> Iterator[tuple[int | None, ...]]:
    """The ways to put so many vectors, each once, into so many places; none if they are too many."""
    held: list[int | None] = [*range(count), *([None] * (places - count))]
    return (role for role in dict.fromkeys(permutations(held)) if len(role) == places)


def _sizes(shape: SymbolicShape, wanted: int = 0) -> tuple[int, ...]:
    """A shape with numbers for its symbols; the first is as large as gives the elements wanted."""
    fixed = math.prod(size for size in shape if isinstance(size, int))
    numbers = dict[str | None, int]()
    for name in shape:
        if not isinstance(name, int) and name not in numbers:
            first = -(-wanted // max(fixed, 1)) if not numbers else 1
            numbers[name] = first if wanted else 2 + len(numbers)
    return tuple(size if isinstance(size, int) else numbers[size] for size in shape)
