"""Drawing the numbers of generated inputs: what an input is for decides what it may hold."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum

import ml_dtypes
import numpy as np

from qcc.compiler.calibrate.voice import RATE, speak
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Op, Value

RECURRENT = ("LSTM", "GRU", "RNN")
LENGTHS_AT, STATES_AT = 4, (5, 6)  # of a recurrent op's inputs
MOVES = (Kind.RESHAPE, Kind.TRANSPOSE)  # and casts: the numbers stay what they are
SMALL = 0.1  # of a recurrent state
SOUNDS = ("audio", "sound", "speech", "voice", "wave", "wav", "pcm")
LONG = 4000  # numbers, one behind the other in one channel: of a signal in time
CHANNELS = (1, 3, 4)  # of images
SMALLEST_IMAGE = 16
ALIKE = 0.8  # of the variance, what the colours of an image share


class Role(StrEnum):
    """What an input is for, as far as its readers and its name tell."""

    NUMBERS = "numbers"
    WAVE = "wave"
    MAP = "map"
    INDEX = "index"
    MASK = "mask"
    LENGTH = "length"
    POSITION = "position"
    STATE = "state"
    BYTES = "bytes"
    RATE = "rate"
    COUNT = "count"
    LIMIT = "limit"
    CHOICE = "choice"


class Filling(StrEnum):
    """How whole numbers and booleans are filled in; what the model refuses drawn it may take as ones or zeros."""

    DRAWN = "drawn"
    ONES = "ones"
    ZEROS = "zeros"


WORDS: tuple[tuple[Role, str, tuple[str, ...]], ...] = (
    (Role.MASK, "biuf", ("mask", "padding")),
    (Role.CHOICE, "biu", ("token_type", "segment")),
    (Role.POSITION, "iu", ("position",)),
    (Role.LENGTH, "iu", ("length", "_len", "lens")),
    (Role.RATE, "iu", ("sample_rate", "samplerate", "sampling_rate", "sr")),
    (Role.STATE, "fV", ("state", "hidden", "cell", "h0", "c0", "h_0", "c_0", "past_key", "past_value", "cache")),
)
WHOLE_WORDS = ("sr", "h", "c", "len")  # too short to be looked for inside others


LOWER = {"greater": 1, "greater_or_equal": 1, "less": 0, "less_or_equal": 0}
"""Comparisons, and at which operand a number is a lower limit; at the other it is an upper one."""
NEAR = 0.25  # of the numbers that are compared with a limit lie beyond it, at most
SUPPRESSION = "NonMaxSuppression"
SHARES_AT = slice(3, 5)  # of its inputs: an overlap, a score
SHARE = (0.2, 0.6)


@dataclass(frozen=True)
class Purpose:
    """An input's role; for an index the size of what it looks into, for a limit between what it lies."""

    role: Role
    table: int = 0
    bounds: tuple[float, float] = (0.0, 1.0)


def purposes(graph: Graph, inputs: Sequence[Value]) -> dict[str, Purpose]:
    """What each input is for."""
    ops = graph.ops()
    found = {value.name: _purpose(graph, ops, value) for value in inputs}
    for value in inputs:
        if found[value.name].role is Role.NUMBERS and is_wave(graph, value):
            found[value.name] = Purpose(Role.WAVE)
        elif found[value.name].role is Role.NUMBERS and _convolved(graph, value) == 2:
            found[value.name] = Purpose(Role.MAP)
    return found


def draw(
    value: Value, shape: Sequence[int], batch_axis: int | None, purpose: Purpose, filling: Filling, rng: "Drawing"
) -> np.ndarray:
    """An array for an input.

    Raises:
        ModelError: the input takes text.
    """
    dtype = dtype_of(value)
    if dtype.kind == "U":
        help = "give data: `--data FILE.npz`"
        raise ModelError("Q421", f"input `{value.name}` takes text, which cannot be generated", help=help)
    if dtype.kind in "biu" and filling is not Filling.DRAWN and purpose.role is not Role.RATE:
        return np.full(shape, filling is Filling.ONES, dtype)
    return rng.drawn(tuple(shape), batch_axis, purpose).astype(dtype)


class Drawing:
    """A random generator with a way to draw for each role."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._calls = 0

    def drawn(self, shape: tuple[int, ...], batch_axis: int | None, purpose: Purpose) -> np.ndarray:
        """Numbers of a role, of any type that holds them."""
        self._calls += 1
        ways: dict[Role, Callable[[], np.ndarray]] = {
            Role.INDEX: lambda: self._rng.integers(0, max(purpose.table, 1), shape),
            Role.MASK: lambda: self._mask(shape, batch_axis),
            Role.LENGTH: lambda: self._rng.integers(1, max(purpose.table, 1) + 1, shape),
            Role.POSITION: lambda: np.broadcast_to(np.arange(shape[-1] if shape else 1), shape or (1,)).reshape(shape),
            Role.STATE: lambda: SMALL * self._rng.standard_normal(shape),
            Role.BYTES: lambda: self._rng.integers(0, 128, shape),
            Role.RATE: lambda: np.full(shape, RATE),
            Role.COUNT: lambda: np.ones(shape),
            Role.LIMIT: lambda: self._rng.uniform(*purpose.bounds, shape),
            Role.CHOICE: lambda: self._choice(shape),
            Role.NUMBERS: lambda: self._numbers(shape),
            Role.WAVE: lambda: self._waves(shape, batch_axis),
            Role.MAP: lambda: self._maps(shape, batch_axis),
        }
        return np.asarray(ways[purpose.role]())

    def _numbers(self, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal; a single number is a setting, and about one."""
        if not shape:
            return np.asarray(self._rng.uniform(0.5, 1.5))
        if len(shape) == 4 and shape[1] in CHANNELS and min(shape[2:]) >= SMALLEST_IMAGE:
            return self._images(shape)
        if len(shape) == 4 and shape[3] in CHANNELS and min(shape[1:3]) >= SMALLEST_IMAGE:
            return np.moveaxis(self._images((shape[0], shape[3], *shape[1:3])), 1, 3)
        return self._rng.standard_normal(shape)

    def _waves(self, shape: tuple[int, ...], batch_axis: int | None) -> np.ndarray:
        """Sound along the longest axis that does not count samples."""
        sizes = {size: at for at, size in enumerate(shape) if at != batch_axis}
        if not sizes or max(sizes) < 2:
            return self._numbers(shape)
        length = max(sizes)
        others = shape[: sizes[length]] + shape[sizes[length] + 1 :]
        sound = speak(self._rng, int(np.prod(others)), length)
        return np.moveaxis(sound.reshape(*others, length), -1, sizes[length])

    def _maps(self, shape: tuple[int, ...], batch_axis: int | None) -> np.ndarray:
        """A picture, or a spectrogram, along the two longest axes that do not count samples."""
        others = [at for at in range(len(shape)) if at != batch_axis]
        long = sorted(sorted(others, key=lambda at: -shape[at])[:2])
        if len(long) < 2 or min(shape[at] for at in long) < SMALLEST_IMAGE:
            return self._numbers(shape)
        channels = [at for at in others if at not in long]
        order = [*([] if batch_axis is None else [batch_axis]), *channels, *long]
        sizes = [shape[at] for at in order]
        samples = 1 if batch_axis is None else shape[batch_axis]
        made = self._images((samples, math.prod(shape[at] for at in channels), *sizes[-2:]))
        return made.reshape(sizes).transpose(np.argsort(order))

    def _images(self, shape: tuple[int, ...]) -> np.ndarray:
        """Pictures of unit variance with as much in every octave of size, and colours that mostly go together.

        Source: Relations between the statistics of natural images and the response properties of cortical cells, Field
        1987, section on amplitude spectra (they fall as one over the frequency).
        """
        samples, channels, high, wide = shape
        made, size = np.zeros(shape), 1
        while size <= min(high, wide):
            patches = np.sqrt(ALIKE) * self._rng.standard_normal((samples, 1, size, size))
            patches = patches + np.sqrt(1 - ALIKE) * self._rng.standard_normal((samples, channels, size, size))
            grown = patches.repeat(-(-high // size), axis=2).repeat(-(-wide // size), axis=3)
            made += grown[:, :, :high, :wide]
            size *= 2
        return made / max(float(made.std()), 1e-6)

    def _choice(self, shape: tuple[int, ...]) -> np.ndarray:
        """Zeros and ones, both among several; a single one alternates from draw to draw."""
        drawn = self._rng.integers(0, 2, shape)
        if drawn.size == 1:
            return np.full(shape, self._calls % 2)
        if drawn.size > 1 and drawn.min() == drawn.max():
            drawn.flat[0] = 1 - drawn.flat[0]
        return drawn

    def _mask(self, shape: tuple[int, ...], batch_axis: int | None) -> np.ndarray:
        """Ones up to a random length along the last axis, at least one; the first sample's are all ones."""
        if not shape or batch_axis == len(shape) - 1 or shape[-1] < 2:
            return self._choice(shape)
        lengths = np.ones((1,) * len(shape), np.int64) * shape[-1]
        if batch_axis is not None:
            samples = tuple(size if at == batch_axis else 1 for at, size in enumerate(shape))
            lengths = self._rng.integers(1, shape[-1] + 1, samples)
            lengths.flat[:1] = shape[-1]
        if shape[:-1].count(1) == len(shape) - 1:  # one sample: its length varies from draw to draw
            lengths = lengths - (0 if self._calls % 2 else self._rng.integers(0, shape[-1]))
        return np.broadcast_to(np.arange(shape[-1]) < lengths, shape)


def dtype_of(value: Value) -> np.dtype:
    """An input's type as numpy knows it.

    Raises:
        ModelError: the model does not tell it, or it is no tensor.
    """
    if value.container:
        help = "give feeds from Python: `qcc.compile(model, data=feeds)`"
        what = {"sequence": "a sequence", "optional": "an optional"}.get(value.container, f"a {value.container}")
        raise ModelError("Q421", f"input `{value.name}` takes {what}, which cannot be generated", help=help)
    if value.dtype == "string":
        return np.dtype(np.str_)
    try:
        return np.dtype(value.dtype)
    except TypeError:
        wide = getattr(ml_dtypes, value.dtype, None) if value.dtype else None
    if wide is None:
        raise ModelError("Q429", f"the type of input `{value.name}` is not known, so nothing can be generated for it")
    found: np.dtype = np.dtype(wide)
    return found


def _convolved(graph: Graph, value: Value) -> int:
    """Along how many axes a convolution reads an input before any product does: a signal in time, or a picture."""
    layers = {layer.op: layer for weight in graph.weights() for layer in weight.layers}
    reached = {value.name}
    for op in graph.ops():
        if not reached.intersection(op.inputs):
            continue
        if op.kind is Kind.CONV and op.name in layers and op.inputs[0] in reached:
            return len(layers[op.name].kernel)
        if op.function == "STFT":
            return 1
        if op.kind not in (Kind.LINEAR, Kind.MATMUL, Kind.EMBEDDING):
            reached.update(op.outputs)
    return 0


def is_wave(graph: Graph, value: Value) -> bool:
    """An input is a signal in time: one channel, which the layers or its name tell, or a sample rate beside it."""
    shape = value.shape or ()
    if not value.dtype.startswith("float") or sum(size != 1 for size in shape[1:]) != 1 or len(shape) > 3:
        return False
    if _named(value.name, "f") is not None:
        return False
    rated = any(dtype_of(one).kind in "iu" and _named(one.name, "i") is Role.RATE for one in graph.inputs)
    named = any(word in value.name.lower() for word in SOUNDS)
    long = len(shape) == 3 and any(isinstance(size, int) and size >= LONG for size in shape[1:])
    return rated or named or long or _convolved(graph, value) == 1


def feature_sizes(graph: Graph, value: Value) -> Iterator[tuple[int, int]]:
    """Axes of an input, counted from the front, whose size the layers that read it fix."""
    rank = len(value.shape or ())
    for weight in graph.weights():
        for layer in weight.layers:
            if layer.input != value.name:
                continue
            if layer.kind is Kind.CONV and rank > 1:
                yield 1, weight.shape[1] // max(int(np.prod(layer.kernel)), 1) * layer.groups
            if layer.kind is Kind.LINEAR and layer.form_free and rank > 0:
                yield rank - 1, weight.shape[1]


def _purpose(graph: Graph, ops: Sequence[Op], value: Value) -> Purpose:
    kind = dtype_of(value).kind
    copies = _copies(ops, value.name)
    if kind in "iu":
        table = _table(graph, ops, copies)
        if table:
            return Purpose(Role.INDEX, table)
    for op in ops:
        if op.function in RECURRENT and copies.intersection(op.inputs[at] for at in STATES_AT if at < len(op.inputs)):
            return Purpose(Role.STATE)
        if op.function in RECURRENT and len(op.inputs) > LENGTHS_AT and op.inputs[LENGTHS_AT] in copies:
            return Purpose(Role.LENGTH)
    named = _named(value.name, kind)
    if named is not None and (named is not Role.MASK or kind != "f" or len(value.shape or ()) == 2):
        return Purpose(named)
    if kind == "b":
        return Purpose(Role.MASK)
    if kind not in "iu":
        bounds = _limit(graph, ops, copies) if all(size == 1 for size in value.shape or ()) else None
        return Purpose(Role.NUMBERS) if bounds is None else Purpose(Role.LIMIT, bounds=bounds)
    if np.dtype(dtype_of(value)).itemsize == 1:
        return Purpose(Role.BYTES)
    return Purpose(Role.COUNT if value.shape == () or _sets_a_shape(ops, copies) else Role.CHOICE)


def _copies(ops: Sequence[Op], name: str) -> set[str]:
    """The values that hold an input's own numbers."""
    copies = {name}
    for op in ops:
        if op.inputs and op.inputs[0] in copies and (op.kind in MOVES or op.function in ("cast", "identity", "slice")):
            copies.update(op.outputs)
    return copies


def _table(graph: Graph, ops: Sequence[Op], copies: Collection[str]) -> int:
    """The smallest table that an index looks into; zero without one."""
    found = [
        weight.shape[0]
        for weight in graph.weights()
        for layer in weight.layers
        if layer.kind is Kind.EMBEDDING and layer.input in copies
    ]
    for op in ops:
        if op.function == "gather" and len(op.inputs) > 1 and op.inputs[1] in copies:
            table, axis = graph.constant(op.inputs[0]), op.attributes.get("axis")
            if table is not None and isinstance(axis, int) and axis < table.ndim:
                found.append(table.shape[axis])
    return min(found, default=0)


def _limit(graph: Graph, ops: Sequence[Op], copies: Set[str]) -> tuple[float, float] | None:
    """Where a number lies with which constants are compared, or boxes are left out; None for another.

    A limit leaves most of them on its side: a lower one lies among the smallest, an upper one among the largest.
    """
    for op in ops:
        if op.function == SUPPRESSION and not copies.isdisjoint(op.inputs[SHARES_AT]):
            return SHARE
        if op.function not in LOWER or len(op.inputs) != 2 or copies.isdisjoint(op.inputs):
            continue
        at = next(at for at, name in enumerate(op.inputs) if name in copies)
        compared = graph.constant(op.inputs[1 - at])
        if compared is None or compared.size < 2 or compared.dtype.kind != "f" or not np.isfinite(compared).all():
            continue
        ends = (0.0, NEAR) if LOWER[op.function] == at else (1 - NEAR, 1.0)
        low, high = np.quantile(compared.astype(np.float64), ends)
        return float(low), float(high)
    return None


def _sets_a_shape(ops: Sequence[Op], copies: set[str]) -> bool:
    """What an op reads behind its first operand, sizes and counts, comes from the input."""
    sized = ("reshape", "expand", "fill", "range", "pad", "slice", "split", "Tile", "TopK", "Resize", "Loop")
    return any(copies.intersection(op.inputs[1:] or op.inputs) for op in ops if op.function in sized)


def _named(name: str, kind: str) -> Role | None:
    words = name.lower()
    parts = set(words.replace(".", "_").replace("/", "_").split("_"))
    for role, kinds, known in WORDS:
        if kind in kinds and any(word in parts if word in WHOLE_WORDS else word in words for word in known):
            return role
    return Role.STATE if kind == "f" and parts & {"h", "c", "hn", "cn"} else None
