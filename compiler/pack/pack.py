"""Making packs, adding models to them, and seeing that they are whole."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qcc.compiler.files.kernel_library import kernels_beside
from qcc.compiler.pack.draft import draft_in
from qcc.compiler.pack.index import DATA, HELP, INDEX, PackIndex
from qcc.compiler.pack.judge import OutputJudge
from qcc.compiler.pack.near import find_near
from qcc.compiler.pack.store import BlobStore, reading
from qcc.ir.errors import ModelError
from qcc.ir.model.whole_files import place, sha256, unfinished
from qcc.ir.open_file import open_file
from qcc.ir.pack_file import check_packable, data_files_of, open_pack_source


@dataclass(frozen=True)
class Packing:
    """What came of packing.

    Args:
        folder: of the pack.
        added: the models that were added, in their order; those that were there already are none.
        index: of all that lies there now.
    """

    folder: Path
    added: tuple[str, ...]
    index: PackIndex

    @property
    def size_bytes(self) -> int:
        """Of the models and their data."""
        return self.index.size + sum((self.folder / name).stat().st_size for name in self.index.models)


def pack(
    folder: Path, models: Sequence[Path], *, add: bool = False, within: float | None = None, data: Path | None = None
) -> Packing:
    """Put models into a pack.

    Args:
        folder: of the pack, which is made if it is not there.
        models: ONNX files of different names.
        add: the pack is there, with other models in it.
        within: how far outputs may be off, relative, for constants that are almost others to be stored by those; None
            lets only equal ones be shared.
        data: to run models on for that, an ``.npz`` file.

    Raises:
        ModelError: a model cannot be read, or the folder is not a pack's.
        OSError: it cannot be written.
    """
    _check_models(models)
    index = _opened(folder, models, add)
    added = []
    for path in models:
        digest = sha256(path) if path.is_file() else ""
        there, target = index.models.get(path.name), folder / path.name
        same = there is not None and there.source_sha256 == digest
        if same and there is not None and target.is_file() and sha256(target) == there.sha256:
            continue
        if not same and (there is not None or target.exists()):
            help = "models keep their names: give it another one, or make a new pack"
            raise ModelError("Q472", f"`{folder}` has another model called `{path.name}`", help)
        _add(index, path, digest, within, data)
        added.append(path.name)
    return Packing(folder, tuple(added), index)


def check_pack(folder: Path) -> PackIndex:
    """See that a pack is whole: its data, its models, and that each of them loads.

    Raises:
        ModelError: it is not.
    """
    index = PackIndex.read(folder)
    if index.blobs:
        if not index.data.is_file() or index.data.stat().st_size < index.size:
            raise ModelError("Q471", f"`{index.data}` is missing or cut off", HELP)
        with reading(index) as found:
            wrong = {key for key, right in found.items() if not right}
        if wrong:
            hurt = sorted(name for name, one in index.models.items() if wrong & set(one.blobs))
            models = f": {', '.join(f'`{name}`' for name in hurt)} cannot be trusted" if hurt else ""
            raise ModelError("Q471", f"`{index.data}` is damaged, {len(wrong)} of its constants{models}", HELP)
    for name, one in index.models.items():
        for file, digest in {name: one.sha256, **one.files}.items():
            path = folder / file
            if not path.is_file() or path.is_symlink() or sha256(path) != digest:
                raise ModelError("Q471", f"`{path}` is missing or is not what was packed", HELP)
        if others := set(data_files_of(folder / name)) - {DATA}:
            raise ModelError("Q471", f"`{folder / name}` reads `{min(others)}`, which is no part of the pack", HELP)
        open_file(folder / name).reference()
    return index


def _check_models(models: Sequence[Path]) -> None:
    names: dict[str, Path] = {}
    for path in models:
        check_packable(path)
        if path.name in names:
            help = "models keep their names: rename one"
            raise ModelError("Q472", f"`{names[path.name]}` and `{path}` have one name", help)
        names[path.name] = path


def _opened(folder: Path, models: Sequence[Path], add: bool) -> PackIndex:
    """The index of a folder that may be written to."""
    if folder.exists() and not folder.is_dir():
        raise ModelError("Q470", f"`{folder}` is no folder")
    if (folder / INDEX).is_file():
        index = PackIndex.read(folder)
        if other := set(index.models) - {path.name for path in models} if not add else ():
            help = f"`qcc pack --add {folder} ...` adds to it"
            raise ModelError("Q470", f"`{folder}` is a pack already, with `{min(other)}` in it", help)
    elif add:
        return PackIndex.read(folder)  # says that there is none
    else:
        if folder.is_dir() and any(folder.iterdir()):
            raise ModelError("Q470", f"`{folder}` holds other things", "name a folder that is new or empty")
        if not folder.parent.is_dir():
            raise ModelError("Q404", f"cannot write `{folder}`: no such folder")
        index = PackIndex(folder)
    for path in models:
        if path.parent.resolve() == folder.resolve():
            raise ModelError(
                "Q470", f"`{path}` lies in the pack itself", "keep models elsewhere: they stay as they are"
            )
    return index


def _add(index: PackIndex, path: Path, digest: str, within: float | None, data: Path | None) -> None:
    """Put one model into a pack: data first, then the index, the model last."""
    source = open_pack_source(path)
    if not index.folder.exists():
        index.folder.mkdir()
    if not (index.folder / INDEX).exists():
        index.write()
    with BlobStore(index) as store, draft_in(index, store, source) as draft:
        near = [] if within is None else find_near(source, index, store)
        error = None
        if within is not None and near:
            error = draft.nearest(near, within, OutputJudge(path, data))
        else:
            draft.write({})
        text, files = draft.path.read_bytes(), _copied_library(index, path)
        packed = draft.model(digest, source.size_bytes, within if near else None, error)
        grown = store.commit()
        there = index.models.get(path.name)  # of a run that was stopped
        new_bytes = grown + len(text) if there is None else there.new_bytes
        index.models[path.name] = replace(packed, new_bytes=new_bytes, files=files)
        index.write()
        place(draft.path, index.folder / path.name)


def _copied_library(index: PackIndex, path: Path) -> dict[str, str]:
    """The kernel library of a model, put beside where it will lie; its name and digest."""
    library = kernels_beside(path)
    if not library.is_file():
        return {}
    with unfinished(index.folder / library.name) as copy:
        shutil.copyfile(library, copy)
        place(copy, index.folder / library.name)
    return {library.name: sha256(library)}
