"""The data that a model is run on: given by the user, or generated from the shapes of its inputs."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from qcc.compiler.calibrate import generate as drawing
from qcc.compiler.calibrate.draw import dtype_of
from qcc.compiler.calibrate.generate import BATCH, Batch, Recipe
from qcc.compiler.calibrate.input_axes import InputAxes, input_axes
from qcc.compiler.calibrate.read_npz import check_names, names_in, read_npz
from qcc.compiler.calibrate.sources.source import DataSource
from qcc.compiler.calibrate.sources.spool import Spool, Spooled
from qcc.ir.attention.find import cache_pairs
from qcc.ir.errors import ModelError, first_line
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Value

DEFAULT_SAMPLES = 32
GENERATED = "generated"


@runtime_checkable
class DataReader(Protocol):
    """ONNX Runtime's ``CalibrationDataReader``."""

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        """The next feeds, or None at the end."""
        ...


Data = str | Path | DataSource | DataReader | Iterable[Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Samples:
    """Feeds for a model's inputs, batch by batch.

    ``origin`` is ``generated`` or what the user gave; ``digest`` identifies the data.
    """

    batches: tuple[Batch, ...]
    origin: str
    divisible: bool = False
    """A batch can be cut: the axes that count samples are free."""
    axes: Mapping[str, int | None] = field(default_factory=dict)
    """By input, the axis that counts samples; the first where it is not told, None where all of a batch share it."""
    recipe: Recipe | None = None
    """How it was generated."""
    odd: str = ""
    """Which of the numbers given are not finite, if any."""

    @property
    def count(self) -> int:
        """How many samples there are."""
        return sum(self.size(batch) for batch in self.batches)

    @property
    def generated(self) -> bool:
        """Nobody gave it."""
        return self.origin == GENERATED

    @property
    def digest(self) -> str:
        """SHA-256 of names, types, shapes and bytes."""
        return digest_of(*self.batches)

    def axis(self, name: str, array: np.ndarray) -> int | None:
        """The axis of an input's array that counts samples, if one does."""
        if not isinstance(array, np.ndarray) or array.ndim == 0:
            return None
        return self.axes.get(name, 0)

    def size(self, batch: Batch) -> int:
        """How many samples a batch has: by the first input that counts them, one if none does."""
        if self.divisible and isinstance(batch, Spooled):
            return 1  # see `cut`; what lies in a file is not read to be counted
        for name, array in batch.items():
            at = self.axis(name, array)
            if at is not None:
                return int(array.shape[at])
        return 1

    def cut(self, batch: Batch, begin: int, end: int) -> Batch:
        """Some samples of a batch that can be cut."""
        if isinstance(batch, Spooled):
            return batch  # each is one sample
        found = {}
        for name, array in batch.items():
            at = self.axis(name, array)
            found[name] = array if at is None else array[(slice(None),) * at + (slice(begin, end),)]
        return found

    def single(self, batch: Batch) -> bool:
        """A batch is one sample, by every input that counts them."""
        counts = [(array, self.axis(name, array)) for name, array in batch.items()]
        return all(at is None or array.shape[at] == 1 for array, at in counts)

    def kind(self, one: Batch) -> tuple[object, ...]:
        """What samples must have in common to run together: shapes, and what all of a batch share."""
        counts = [(array, self.axis(name, array)) for name, array in one.items()]
        return tuple(array.shape if at is not None else digest_of({"": array}) for array, at in counts)

    def joined(self, ones: Sequence[Batch]) -> Batch:
        """Samples of one kind as a batch."""
        found = dict(ones[0])
        for name, array in ones[0].items() if len(ones) > 1 else ():
            at = self.axis(name, array)
            if at is not None:
                found[name] = np.concatenate([one[name] for one in ones], at)
        return found

    def neighbours(self, ones: Sequence[Batch]) -> tuple[Batch, ...]:
        """Samples in their order, neighbours of one kind in a batch; those in a file stay there, one by one."""
        if all(isinstance(one, Spooled) for one in ones):
            return tuple(ones)
        found: list[list[Batch]] = []
        last: tuple[object, ...] = ()
        for one in ones:
            kind = self.kind(one)
            if found and kind == last and len(found[-1]) < BATCH:
                found[-1].append(one)
            else:
                found.append([one])
            last = kind
        return tuple(map(self.joined, found))

    def first(self, count: int) -> "Samples":
        """The first ``count`` samples, or as few more as whole batches allow; at least one batch."""
        kept: list[Batch] = []
        left = max(count, 1)
        for batch in self.batches:
            if left <= 0:
                break
            kept.append(self.cut(batch, 0, left) if self.divisible else batch)
            left -= self.size(batch)
        return replace(self, batches=tuple(kept))

    def last(self, count: int) -> "Samples":
        """The last ``count`` samples, or as few more as whole batches allow; at least one batch."""
        kept: list[Batch] = []
        left = max(count, 1)
        for batch in reversed(self.batches):
            if left <= 0:
                break
            size = self.size(batch)
            kept.append(self.cut(batch, max(size - left, 0), size) if self.divisible else batch)
            left -= size
        return replace(self, batches=tuple(reversed(kept)))

    def parts(self, size: int) -> Iterator[Batch]:
        """All batches cut into batches of at most ``size`` samples, where they can be; bounds what captures hold."""
        for batch in self.batches:
            if not self.divisible:
                yield batch
                continue
            for at in range(0, self.size(batch), size):
                yield self.cut(batch, at, at + size)


def digest_of(*batches: Batch) -> str:
    """SHA-256 of the names, types, shapes and bytes of feeds."""
    digest = hashlib.sha256()
    for batch in batches:
        for name, feed in batch.items():
            for array in map(np.asarray, feed if isinstance(feed, list) else [feed]):
                digest.update(f"{name} {array.dtype} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def load(data: Data, graph: Graph, limit: int | None, seed: int) -> Samples:
    """Read calibration data.

    Args:
        data: an ``.npz`` of arrays named like the inputs with one sample a row, a CalibrationDataReader, or feeds.
        graph: whose inputs they are for.
        limit: at most so many samples, drawn with ``seed``.
        seed: of the draw.

    Raises:
        ModelError: the data does not fit the model.
    """
    if isinstance(data, str | Path) and DataSource.takes(Path(data)):
        data = DataSource(Path(data))
    if isinstance(data, DataSource):
        return _streamed(data, graph, limit)
    if isinstance(data, str | Path):
        return _from_file(Path(data), graph, limit, seed)
    feeds = _read(data) if isinstance(data, DataReader) else iter(data)
    batches = tuple(_begun(dict(batch), graph) for batch in islice(feeds, limit))
    if not batches:
        raise ModelError("Q420", "the calibration data is empty")
    for batch in batches:
        check_names(list(batch), [value.name for value in graph.inputs], "the calibration data")
        for value in graph.inputs:
            _check(value, batch[value.name], value.shape)
    axes = input_axes(graph.inputs)
    odd = next((name for batch in batches for name, feed in batch.items() if not finite(feed)), None)
    found = Samples(batches, type(data).__name__, axes=axes.batch, odd="" if odd is None else _odd(odd))
    if axes.free and all(found.single(batch) for batch in batches):
        found = replace(found, divisible=True)
        return replace(found, batches=found.neighbours(batches))
    return found


def generate(
    graph: Graph,
    count: int | None,
    seed: int,
    inputs: tuple[Value, ...] | None = None,
    recipe: Recipe | None = None,
) -> Samples:
    """Random data of the right names, types and shapes.

    Floats are standard normal, images have structure of every size; indices are drawn from the table that they look
    into; masks are ones up to a random length; other integers and booleans are zeros and ones.

    Args:
        graph: whose inputs they are for.
        count: samples, about.
        seed: of the draw.
        inputs: the graph's, with sizes for what is free in them; else free axes take those of the recipe.
        recipe: sizes and filling.

    Raises:
        ModelError: an input cannot be generated.
    """
    inputs = graph.inputs if inputs is None else inputs
    axes, recipe = input_axes(inputs), recipe or Recipe()
    batches = drawing.batches(graph, inputs, axes, count or DEFAULT_SAMPLES, seed, recipe)
    return Samples(tuple(batches), GENERATED, axes.free, axes.batch, recipe)


def _without(graph: Graph, given: Collection[str]) -> frozenset[str]:
    """The inputs that hold what earlier runs return, if none of them is given: they begin empty.

    Where some are given, one that is not has been forgotten, or is called otherwise.
    """
    if {value.name for value in graph.inputs} <= set(given):
        return frozenset()
    caches = frozenset(cache_pairs(graph))
    return frozenset() if caches.intersection(given) else caches


def _begun(arrays: dict[str, np.ndarray], graph: Graph) -> dict[str, np.ndarray]:
    """Arrays with a cache of no rows for each that is not given."""
    begun = _without(graph, arrays)
    if not begun:
        return arrays
    count = next((len(one) for one in arrays.values() if np.ndim(one)), 1)
    for value in graph.inputs:
        if value.name in begun and value.shape is not None:
            sizes = [size if isinstance(size, int) else 0 for size in value.shape[1:]]
            arrays[value.name] = np.zeros((count, *sizes), dtype_of(value))
    return arrays


def _streamed(data: DataSource, graph: Graph, limit: int | None) -> Samples:
    """Feeds that are made one by one and kept in a file; the first of them where there is a limit."""
    spool, axes, kept, odd = Spool(), input_axes(graph.inputs), list[Batch](), ""
    found, single = Samples((), data.origin, axes=axes.batch), axes.free
    for feed in islice(data.feeds(graph.inputs), limit):
        if not isinstance(feed, Mapping):
            raise ModelError("Q543", f"`{data.path}` gives no feeds: a mapping of arrays by the names of inputs is one")
        check_names(list(feed), [value.name for value in graph.inputs], f"`{data.path}`")
        for value in graph.inputs:
            _check(value, feed[value.name], value.shape)
        odd = odd or next((_odd(name) for name, one in feed.items() if not finite(one)), "")
        arrays = {value.name: np.asarray(feed[value.name]) for value in graph.inputs}
        single = single and found.single(arrays)
        kept.append(spool.add(arrays))
    if not kept:
        raise ModelError("Q420", f"`{data.path}` holds no samples")
    return replace(found, batches=tuple(kept), divisible=single, odd=odd)


@dataclass(frozen=True)
class _Column:
    """An array of a file, and which axis of it counts: samples of a batch, or whole feeds (then ``whole``)."""

    array: np.ndarray
    axis: int | None
    whole: bool = False

    @property
    def rows(self) -> int | None:
        """How many; None where all samples share it."""
        return None if self.axis is None else int(self.array.shape[self.axis])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The feed of some rows."""
        if self.axis is None:
            return self.array
        return self.array[int(rows[0])] if self.whole else self.array.take(rows, self.axis)


def _from_file(path: Path, graph: Graph, limit: int | None, seed: int) -> Samples:
    inputs, given = graph.inputs, names_in(path)
    begun = _without(graph, given) if given else ()
    arrays = _begun(read_npz(path, [value.name for value in inputs if value.name not in begun]), graph)
    axes = input_axes(inputs)
    columns = {value.name: _column(value, arrays[value.name], axes) for value in inputs}
    rows = _chosen_rows(columns, limit, seed)
    size = 1 if any(one.whole for one in columns.values()) else axes.fixed or BATCH
    if size == 1 and axes.fixed not in (None, 1) and any(not c.whole and c.rows for c in columns.values()):
        raise ModelError("Q422", f"the model takes batches of {axes.fixed}: give every array a whole batch a row")
    parts = [rows[at : at + size] for at in range(0, len(rows), size)]
    whole = [part for part in parts if len(part) == size or axes.free]
    if not whole:
        raise ModelError("Q422", f"`{path}` has {len(rows)} samples; the model takes batches of {size}")
    batches = tuple({name: np.asarray(one.take(part)) for name, one in columns.items()} for part in whole)
    odd = next((_odd(name, one) for name, one in columns.items() if not finite(one.array)), "")
    return Samples(batches, str(path), axes.free and size > 1, axes.batch, odd=odd)


def _column(value: Value, array: np.ndarray, axes: InputAxes) -> _Column:
    """How an array holds the samples of an input: along its batch axis, as one whole feed a row, or one for all.

    Raises:
        ModelError: it is of another type or shape, or not finite.
    """
    shape, at = value.shape, axes.batch[value.name]
    if shape is not None and array.ndim == len(shape) + 1 and _fits(shape, array.shape[1:]):
        _check(value, array, (None, *shape))
        return _Column(array, 0, whole=True)
    if shape is None:
        at = 0 if array.ndim else None
    _check(value, array, shape if at is None or shape is None else (*shape[:at], None, *shape[at + 1 :]))
    return _Column(array, at)


def _fits(known: tuple[int | str | None, ...], shape: tuple[int, ...]) -> bool:
    return all(not isinstance(k, int) or k == n for k, n in zip(known, shape, strict=True))


def _chosen_rows(columns: Mapping[str, _Column], limit: int | None, seed: int) -> np.ndarray:
    lengths = {name: one.rows for name, one in columns.items() if one.rows is not None}
    total = min(lengths.values(), default=1)
    if not total and not any(lengths.values()):
        raise ModelError("Q422", "the calibration arrays hold no samples")
    if total != max(lengths.values(), default=1):
        raise ModelError("Q422", f"the calibration arrays disagree on the number of samples: {lengths}")
    if limit is None or limit >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, limit, replace=False))


def _read(reader: DataReader) -> Iterator[Mapping[str, np.ndarray]]:
    while (feeds := reader.get_next()) is not None:
        yield feeds


def _check(value: Value, feed: object, known: tuple[int | str | None, ...] | None) -> None:
    """Hold an array to an input's type and to a shape; a list is a sequence of arrays, which the runtime checks."""
    if value.container:
        return
    try:
        array, wanted = np.asarray(feed), dtype_of(value)
    except Exception as error:  # whatever the array of another library raises, one with a gradient for example
        message = f"what is given for input `{value.name}` is no array: {first_line(error)}"
        raise ModelError("Q423", message) from error
    if array.dtype != wanted and not (wanted.kind == "U" and array.dtype.kind in "UO"):
        raise ModelError("Q423", f"input `{value.name}` takes {wanted}, the calibration array is {array.dtype}")
    if known is None:
        return
    if len(known) != array.ndim or not _fits(known, array.shape):
        shown = "x".join("?" if size is None else str(size) for size in known) or "a scalar"
        message = f"input `{value.name}` takes {shown}, the calibration array is {_times(array.shape)}"
        raise ModelError("Q425", message)


def finite(feed: object) -> bool:
    """What is fed holds neither NaN nor infinity."""
    arrays = [np.asarray(one) for one in (feed if isinstance(feed, list) else [feed]) if one is not None]
    return all(array.dtype.kind not in "fc" or bool(np.isfinite(array).all()) for array in arrays)


def _odd(name: str, column: _Column | None = None) -> str:
    """What is told of an array that is not finite: the first sample, where they are counted."""
    at = None if column is None else column.axis
    where = "" if column is None or at is None else f" in sample {np.argwhere(~np.isfinite(column.array))[:, at].min()}"
    return f"the calibration array `{name}` holds NaN or infinity{where}"


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
