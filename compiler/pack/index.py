"""What lies in a pack: its blobs by their digests, and its models."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qcc.compiler.files.shape import ShapeError, check_shape
from qcc.compiler.files.staging import write_whole
from qcc.ir.errors import ModelError

INDEX, DATA = "pack.json", "pack.onnx_data"
FORMAT = 1
LARGEST = 1 << 28
MODEL: dict[str, Any] = {
    "sha256": str,
    "source_sha256": str,
    "source_bytes": int,
    "new_bytes": int,
    "within": (float, None),
    "error": (float, None),
    "near": {str: str},
    "constants": {str: {"blob": str, "dtype": int, "shape": [int]}},
    "blobs": [str],
    "files": {str: str},
}
SHAPE: dict[str, Any] = {
    "format": int,
    "bytes": int,
    "blobs": {str: [int]},
    "models": {str: MODEL},
}
HELP = "make the pack anew with `qcc pack`"


@dataclass(frozen=True)
class PackedConstant:
    """A constant of a model as it was: whatever it is computed of now, it is about that blob's."""

    blob: str
    dtype: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class PackedModel:
    """A model of a pack.

    Args:
        sha256: of its file.
        source_sha256: of the file that it was made of.
        source_bytes: of that with its data.
        new_bytes: by which the pack grew.
        within: how far its outputs may be from the source's, relative; None if they are the same numbers.
        error: how far they are.
        near: its constants that are another's, or computed of one, each with how.
        constants: those that lie in the pack as they are.
        blobs: all that it reads, by digest.
        files: beside it, with their digests: a kernel library.
    """

    sha256: str
    source_sha256: str
    source_bytes: int
    new_bytes: int
    within: float | None
    error: float | None
    near: dict[str, str]
    constants: dict[str, PackedConstant]
    blobs: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)


@dataclass
class PackIndex:
    """A pack's folder as its index says.

    Args:
        folder: of it.
        size: of the data file, as far as it counts.
        blobs: the place of each, by digest.
        models: by the names of their files.
    """

    folder: Path
    size: int = 0
    blobs: dict[str, tuple[int, int]] = field(default_factory=dict)
    models: dict[str, PackedModel] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """The data file."""
        return self.folder / DATA

    def write(self) -> None:
        """Replace the index at one stroke.

        Raises:
            ModelError: it cannot be written.
        """
        content = {
            "format": FORMAT,
            "bytes": self.size,
            "blobs": {key: list(one) for key, one in sorted(self.blobs.items())},
            "models": {name: asdict(one) for name, one in sorted(self.models.items())},
        }
        write_whole(self.folder / INDEX, json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "PackIndex":
        """What an index says, as far as it can be.

        Raises:
            ModelError: there is none, or it says what cannot be.
        """
        path = folder / INDEX
        try:
            if not path.is_file():
                help = f"`qcc pack {folder} MODEL ...` makes one"
                raise ModelError("Q470", f"`{folder}` is no pack: it has no `{INDEX}`", help)
            if path.stat().st_size > LARGEST:
                raise ShapeError(f"it takes {path.stat().st_size:,} bytes")
            content = json.loads(path.read_text(encoding="utf-8"))
            check_shape(content, SHAPE, "pack")
            if content["format"] != FORMAT:
                raise ShapeError(f"its format is {content['format']}, and {FORMAT} is known")
            return cls._of(folder, content)
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError("Q471", f"`{path}` is damaged: {error}", HELP) from error

    @classmethod
    def _of(cls, folder: Path, content: dict[str, Any]) -> "PackIndex":
        blobs, size = {}, content["bytes"]
        for key, place in content["blobs"].items():
            if len(place) != 2 or min(place) < 0 or sum(place) > size or len(key) != 64:
                raise ShapeError(f"the blob `{key[:12]}` has no place in the data")
            blobs[key] = (place[0], place[1])
        models = {}
        for name, one in content["models"].items():
            beside = [name, *one["files"]]
            wrong = [file for file in beside if not file or Path(file).name != file or file in (INDEX, DATA)]
            constants = {
                key: PackedConstant(c["blob"], c["dtype"], tuple(c["shape"])) for key, c in one["constants"].items()
            }
            missing = [key for key in (*one["blobs"], *(c.blob for c in constants.values())) if key not in blobs]
            if wrong or missing:
                what = f"is called `{wrong[0]}`" if wrong else f"reads a blob that is not there: `{missing[0][:12]}`"
                raise ShapeError(f"a model {what}")
            models[name] = PackedModel(**{**one, "constants": constants, "blobs": tuple(one["blobs"])})
        return cls(folder, size, blobs, models)
