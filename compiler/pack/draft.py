"""A packed model in the making, in the pack's folder: runtimes read data beside a model and nowhere else."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from qcc.compiler.pack.index import DATA, PackedConstant, PackedModel, PackIndex
from qcc.compiler.pack.judge import OutputJudge
from qcc.compiler.pack.near import NearConstant, rebuilt
from qcc.compiler.pack.store import BlobStore
from qcc.ir.model.packed import BlobPlace, PackSource, Rebuilt
from qcc.ir.model.whole_files import sha256

EASED = (1.0, 1 / 4, 1 / 16, 1 / 256, 0.0)  # shares of the tolerance that constants may be off by, tried in this order
LEFT = ".qcc-*.draft.onnx"


class PackDraft:
    """A model that is being put into a pack.

    Args:
        store: of the pack.
        source: the model.
        path: where it is written.
    """

    def __init__(self, store: BlobStore, source: PackSource, path: Path) -> None:
        self._store, self._source, self.path = store, source, path
        self._how: Mapping[str, Rebuilt | str] = {}
        self._keys: dict[str, str] = {}

    def write(self, how: Mapping[str, Rebuilt | str]) -> None:
        """Store what is not there yet, and write the model.

        Args:
            how: constants that are another's, by that one's digest, or computed of one; all others are stored.

        Raises:
            OSError: it cannot be written.
        """
        self._how, self._keys = how, {}
        made = {name: one for name, one in how.items() if not isinstance(one, str)}
        places: dict[str, BlobPlace] = {}
        for name in self._source.names:
            known = how.get(name)
            if name not in made:
                self._keys[name] = known if isinstance(known, str) else self._store.put(self._source.data(name))
                places[name] = self._store[self._keys[name]]
        self._store.flush()
        self._source.write(self.path, DATA, places, made, self._store)

    def nearest(self, near: Sequence[NearConstant], within: float, judge: OutputJudge) -> float:
        """Write the model with constants as near to others as its outputs allow; how far those are off.

        Raises:
            ModelError: it does not run.
            OSError: it cannot be written.
        """
        for share in EASED:
            self._store.forget()
            found = ((one.name, rebuilt(self._source, self._store, one, within * share)) for one in near)
            self.write({name: how for name, how in found if how is not None})
            error = judge.error(self.path)
            if error <= within:
                return error
        self._store.forget()
        self.write({})
        return judge.error(self.path)

    def model(self, digest: str, size: int, within: float | None, error: float | None) -> PackedModel:
        """What the index says of it.

        Args:
            digest: of the source.
            size: of the source with its data.
            within: the tolerance, where one was used.
            error: what its outputs are off by.
        """
        constants = {name: PackedConstant(key, *self._source.layout(name)) for name, key in self._keys.items()}
        near = {name: "another" if isinstance(one, str) else one.text for name, one in self._how.items()}
        read = {key for one in self._how.values() if not isinstance(one, str) for key in one.blobs}
        blobs = tuple(sorted({*self._keys.values(), *read}))
        return PackedModel(sha256(self.path), digest, size, 0, within, error, near, constants, blobs)


@contextmanager
def draft_in(index: PackIndex, store: BlobStore, source: PackSource) -> Iterator[PackDraft]:
    """A draft, which is gone afterwards unless it got its name; what stopped runs left is removed."""
    for left in index.folder.glob(LEFT):
        left.unlink(missing_ok=True)
    path = index.folder / LEFT.replace("*", str(os.getpid()))
    try:
        yield PackDraft(store, source, path)
    finally:
        path.unlink(missing_ok=True)
