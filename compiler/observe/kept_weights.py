"""What weights of a large model became, kept on disk: memory need not hold it, and a run that was killed goes on there.

A weight is kept under a hash of the run, of how it is stored, and of the sources that round and store: it can serve no
other. What is damaged is made anew. The run that comes to its end takes away what it kept.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache as once
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile

import numpy as np

import qcc.ir.encoding
import qcc.ir.encoding.formats
import qcc.passes
from qcc.codegen.target import cache
from qcc.ir.encoding.algebra import Encoding, Part
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.packing import pack, unpack
from qcc.ir.encoding.packing import planes as planes_of
from qcc.passes.contract.contract import Rounding

PREFIX = "encoded-"
OLD_S = 7 * 86400.0  # what nobody has gone on with is removed
WHY = "why"
TURNED = " turned:"  # between the name of a part that is kept by columns, and the number of a plane
How = tuple[Encoding, Rounding]


@dataclass(eq=False)
class KeptWeights(MutableMapping[str, Encoded]):
    """The weights that were stored under the present plan, by name.

    Args:
        run: a hash of the model, the data and all else that decides what a weight becomes.
        told: what was chosen of the rounding of a weight, to be kept beside it.
    """

    run: str
    told: Callable[[str, How], str]
    _how: dict[str, How] = field(default_factory=dict)
    _now: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._prefix = f"{PREFIX}{hashlib.sha256(f'{self.run} {_sources()}'.encode()).hexdigest()[:32]}-"
        cache.remove_old(PREFIX, OLD_S)

    def begin(self, how: Mapping[str, How]) -> None:
        """A plan begins: how each of its weights is to be stored."""
        self._how, self._now = dict(how), set()

    @property
    def chosen(self) -> "Mapping[str, tuple[Encoded, str]]":
        """The weights of the plan that were stored in the same way before, with what was chosen for each."""
        return _Chosen(self)

    def found(self, name: str) -> tuple[Encoded, str] | None:
        """What a weight of the plan became before, if that is kept."""
        how = self._how.get(name)
        if how is None:
            return None
        try:
            with cache.opened(self._file(name, how)) as file, np.load(file, allow_pickle=False) as held:
                shape = tuple(map(int, held["shape"]))
                return _read(held, how[0], (shape[0], shape[1])), str(held[WHY])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, MemoryError):
            return None

    def __setitem__(self, name: str, encoded: Encoded) -> None:
        how = self._how.get(name)
        if how is None or encoded.encoding != how[0]:
            return  # it is not what was asked for, and is made again
        self._now.add(name)
        file = self._file(name, how)
        if not cache.names(file):
            with suppress(OSError):
                cache.write_whole(file, lambda out: _write(out, encoded, self.told(name, how)))

    def __getitem__(self, name: str) -> Encoded:
        found = self.found(name) if name in self._now else None
        if found is None:
            raise KeyError(name)
        return found[0]

    def __delitem__(self, name: str) -> None:
        self._now.remove(name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._now))

    def __len__(self) -> int:
        return len(self._now)

    def clear(self) -> None:
        """Nothing is stored yet; what is kept stays."""
        self._now.clear()

    def remove(self) -> None:
        """The run is whole."""
        for name in cache.names(self._prefix):
            cache.remove(name)

    def _file(self, name: str, how: How) -> str:
        key = hashlib.sha256(f"{name}\n{how[0].text}\n{how[1]!r}".encode()).hexdigest()
        return f"{self._prefix}{key[:32]}.npz"


@dataclass
class KeptParts:
    """What is kept of several parts of a run, in which a weight may become one thing after the other.

    Args:
        run: a hash of all that decides what the weights become, or a text.
    """

    run: str
    _parts: list[KeptWeights] = field(default_factory=list)

    def __call__(self, name: str, told: Callable[[], str]) -> KeptWeights:
        """A part by its name, and what is told of all its weights."""
        self._parts.append(KeptWeights(f"{self.run}\n{name}", lambda *_: told()))
        return self._parts[-1]

    def remove(self) -> None:
        """The run is whole."""
        for one in self._parts:
            one.remove()


class _Chosen(Mapping[str, tuple[Encoded, str]]):
    """What is kept, read when it is asked for."""

    def __init__(self, kept: KeptWeights) -> None:
        self._kept = kept

    def __getitem__(self, name: str) -> tuple[Encoded, str]:
        found = self._kept.found(name)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept._how)

    def __len__(self) -> int:
        return len(self._kept._how)


def _write(file: BinaryIO, encoded: Encoded, why: str) -> None:
    """The parts of a weight, codes of few bits packed, by columns where they lie so in memory."""
    arrays: dict[str, np.ndarray] = {"shape": np.array(encoded.shape), WHY: np.array(why)}
    for name, part in encoded.encoding.parts(encoded.shape).items():
        array = encoded.parts[name]
        if part.dtype is np.uint8 and part.bits < 8:
            turned = array.flags.f_contiguous and not array.flags.c_contiguous
            planes = pack(array.T if turned else np.ascontiguousarray(array), part.bits)
            arrays |= {f"{name}{TURNED if turned else ':'}{at}": plane for at, plane in enumerate(planes)}
        else:
            arrays[name] = array.view(np.uint8) if array.dtype.kind == "V" else array
    np.savez(file, allow_pickle=False, **arrays)


def _read(held: Mapping[str, np.ndarray], encoding: Encoding, shape: tuple[int, int]) -> Encoded:
    """The weight.

    Raises:
        ValueError: what is held is not of the encoding.
        KeyError: a part is missing.
    """
    parts = {}
    for name, part in encoding.parts(shape).items():
        if part.dtype is np.uint8 and part.bits < 8:
            turned = f"{name}{TURNED}0" in held
            key = f"{name}{TURNED if turned else ':'}"
            planes = tuple(held[f"{key}{at}"] for at in range(len(planes_of(part.bits))))
            parts[name] = _codes(planes, part, turned)
        else:
            array = held[name]
            parts[name] = array.view(part.dtype) if array.dtype != part.dtype else array
    return Encoded(encoding, shape, parts)


def _codes(planes: tuple[np.ndarray, ...], part: Part, turned: bool) -> np.ndarray:
    return unpack(planes, part.bits, part.shape[0]).T if turned else unpack(planes, part.bits, part.shape[-1])


@once
def _sources() -> str:
    """A hash of what rounds and stores weights."""
    found = hashlib.sha256()
    for package in (qcc.ir.encoding, qcc.ir.encoding.formats, qcc.passes):
        for folder in package.__path__:
            for path in sorted(Path(folder).rglob("*.py")):
                found.update(path.read_bytes())
    return found.hexdigest()
