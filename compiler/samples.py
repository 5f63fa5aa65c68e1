"""The data that a model is run on: given by the user, or generated from the shapes of its inputs."""

import hashlib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, runtime_checkable

import ml_dtypes
import numpy as np

from qcc.dsl.diagnostics import nearest
from qcc.dsl.select import GENERATED
from qcc.ir.errors import ModelError
from qcc.ir.graph import Graph, Kind, Value

DEFAULT_SAMPLES = 32
BATCH = 16
FREE_AXIS = 32  # a dynamic axis that is not the batch, in generated data: a short sequence
IMAGE_AXIS = 224

Batch = dict[str, np.ndarray]


@runtime_checkable
class DataReader(Protocol):
    """ONNX Runtime's ``CalibrationDataReader``."""

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        """The next feeds, or None at the end."""
        ...


Data = str | Path | DataReader | Iterable[Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Samples:
    """Feeds for a model's inputs, batch by batch.

    ``origin`` is ``generated`` or what the user gave; ``digest`` identifies the data.
    """

    batches: tuple[Batch, ...]
    origin: str
    divisible: bool = False
    """A batch can be cut: the first axis of every input is free and counts samples."""

    @property
    def given(self) -> bool:
        """The user gave them."""
        return self.origin != GENERATED

    @property
    def count(self) -> int:
        """How many samples there are, by the first axis of the first input."""
        return sum(_length(batch) for batch in self.batches)

    @property
    def digest(self) -> str:
        """SHA-256 of names, types, shapes and bytes."""
        digest = hashlib.sha256()
        for batch in self.batches:
            for name, array in batch.items():
                digest.update(f"{name} {array.dtype} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def first(self, count: int) -> "Samples":
        """The first ``count`` samples, or as few more as whole batches allow; at least one batch."""
        kept: list[Batch] = []
        left = max(count, 1)
        for batch in self.batches:
            if left <= 0:
                break
            kept.append({name: array[:left] for name, array in batch.items()} if self.divisible else batch)
            left -= _length(batch)
        return Samples(tuple(kept), self.origin, self.divisible)

    def parts(self, size: int) -> Iterator[Batch]:
        """All batches cut into batches of at most ``size`` samples, where they can be; bounds what captures hold."""
        for batch in self.batches:
            step = size if self.divisible else _length(batch)
            for at in range(0, _length(batch), step):
                yield {name: array[at : at + step] for name, array in batch.items()} if self.divisible else batch


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
    if isinstance(data, str | Path):
        return _from_file(Path(data), graph, limit, seed)
    feeds = _read(data) if isinstance(data, DataReader) else iter(data)
    batches = tuple(dict(batch) for batch in islice(feeds, limit))
    if not batches:
        raise ModelError("Q420", "the calibration data is empty")
    for batch in batches:
        _check(batch, graph.inputs)
    return Samples(batches, type(data).__name__)


def generate(graph: Graph, count: int | None, seed: int, inputs: tuple[Value, ...] | None = None) -> Samples:
    """Random data of the right names, types and shapes.

    Floats are standard normal; indices are drawn from the table that they look into; other integers and masks are one.

    Args:
        graph: whose inputs they are for.
        count: samples, about.
        seed: of the draw.
        inputs: the graph's, with sizes for what is free in them; else free axes take the usual ones.
    """
    rng = np.random.default_rng(seed)
    tables = {
        layer.input: weight.shape[0]
        for weight in graph.weights()
        for layer in weight.layers
        if layer.kind is Kind.EMBEDDING
    }
    inputs = graph.inputs if inputs is None else inputs
    fixed = next((value.shape[0] for value in inputs if value.shape and isinstance(value.shape[0], int)), None)
    size = fixed or min(BATCH, count or DEFAULT_SAMPLES)
    number = max((count or DEFAULT_SAMPLES) // size, 1)
    batches = [
        {value.name: _random(value, size, tables.get(value.name), rng) for value in inputs} for _ in range(number)
    ]
    return Samples(tuple(batches), "generated", _free_batch(inputs))


def _random(value: Value, batch: int, table: int | None, rng: np.random.Generator) -> np.ndarray:
    shape = [] if value.shape is None else list(value.shape)
    free = IMAGE_AXIS if len(shape) == 4 else FREE_AXIS
    sizes = [size if isinstance(size, int) else batch if axis == 0 else free for axis, size in enumerate(shape)]
    dtype = _numpy(value.dtype)
    if dtype.kind in "iu":
        return rng.integers(0, table, sizes, dtype=dtype) if table else np.ones(sizes, dtype)
    if dtype.kind == "b":
        return np.ones(sizes, dtype)
    if dtype.kind == "U":
        raise ModelError(
            "Q421", f"input `{value.name}` takes text, which cannot be generated", help="give calibration data"
        )
    return rng.standard_normal(sizes).astype(dtype)


def _from_file(path: Path, graph: Graph, limit: int | None, seed: int) -> Samples:
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ModelError("Q420", f"`{path}` is a single array", help="save named arrays with numpy.savez")
        with loaded as file:
            _check_names(set(file.files), graph.inputs, f"`{path}`")
            arrays = {value.name: file[value.name] for value in graph.inputs}
    except FileNotFoundError as error:
        raise ModelError("Q420", f"no such calibration file: `{path}`") from error
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        pickled = zipfile.is_zipfile(path) and "allow_pickle" in str(
            error
        )  # numpy says so of any bytes it doesn't know
        reason = "it holds pickled objects" if pickled else "it is not an .npz file, or it is damaged"
        raise ModelError("Q420", f"cannot read calibration data from `{path}`: {reason}") from error
    _check(arrays, graph.inputs, rows=True)
    rows = _chosen_rows(arrays, limit, seed)
    size = _batch_size(graph.inputs)
    parts = [rows[at : at + size] for at in range(0, len(rows), size)]
    whole = [part for part in parts if len(part) == size or _free_batch(graph.inputs)]
    if not whole:
        raise ModelError("Q422", f"`{path}` has {len(rows)} samples; the model takes batches of {size}")
    return Samples(
        tuple({name: array[part] for name, array in arrays.items()} for part in whole),
        str(path),
        _free_batch(graph.inputs),
    )


def _chosen_rows(arrays: Batch, limit: int | None, seed: int) -> np.ndarray:
    lengths = {name: len(array) for name, array in arrays.items()}
    total = min(lengths.values(), default=1)
    if not total and not any(lengths.values()):
        raise ModelError("Q422", "the calibration arrays hold no samples")
    if total != max(lengths.values(), default=1):
        raise ModelError("Q422", f"the calibration arrays disagree on the number of samples: {lengths}")
    if limit is None or limit >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, limit, replace=False))


def _free_batch(inputs: tuple[Value, ...]) -> bool:
    return all(value.shape and not isinstance(value.shape[0], int) for value in inputs)


def _batch_size(inputs: tuple[Value, ...]) -> int:
    return next((value.shape[0] for value in inputs if value.shape and isinstance(value.shape[0], int)), BATCH)


def _read(reader: DataReader) -> Iterator[Mapping[str, np.ndarray]]:
    while (feeds := reader.get_next()) is not None:
        yield feeds


def _check_names(given: set[str], inputs: tuple[Value, ...], origin: str) -> None:
    missing = [value.name for value in inputs if value.name not in given]
    if not missing:
        return
    extra = sorted(given - {value.name for value in inputs})
    near = next((name for name in extra if nearest(name, missing[:1])), None)
    help = f"rename its array `{near}`" if near else f"its arrays are {', '.join(sorted(given)) or 'none'}"
    raise ModelError("Q420", f"{origin} has no array for input `{missing[0]}`", help=help)


def _check(batch: Mapping[str, np.ndarray], inputs: tuple[Value, ...], rows: bool = False) -> None:
    """Hold arrays to the inputs' types and shapes; with ``rows`` the first axis counts samples."""
    _check_names(set(batch), inputs, "the calibration data")
    for value in inputs:
        array = np.asarray(batch[value.name])
        wanted = _numpy(value.dtype)
        if array.dtype != wanted:
            raise ModelError("Q423", f"input `{value.name}` takes {wanted}, the calibration array is {array.dtype}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            at = int(np.argwhere(~np.isfinite(array))[0][0])
            raise ModelError("Q424", f"the calibration array `{value.name}` holds NaN or infinity in sample {at}")
        if value.shape is None:
            continue
        known = list(value.shape)
        if rows and known:
            known[0] = None
        if len(known) != array.ndim or any(
            isinstance(k, int) and k != n for k, n in zip(known, array.shape, strict=True)
        ):
            shown = "x".join("?" if size is None else str(size) for size in known)
            raise ModelError(
                "Q425", f"input `{value.name}` takes {shown}, the calibration array is {_times(array.shape)}"
            )


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _numpy(dtype: str) -> np.dtype:
    if dtype == "string":
        return np.dtype(np.str_)
    try:
        return np.dtype(dtype)
    except TypeError:
        wide: np.dtype = np.dtype(getattr(ml_dtypes, dtype))
        return wide


def _length(batch: Batch) -> int:
    first = next(iter(batch.values()), None)
    return 1 if first is None or first.ndim == 0 else len(first)
