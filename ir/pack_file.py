"""Models that share constants, whatever framework they are of."""

from pathlib import Path

from qcc.ir.errors import ModelError
from qcc.ir.model.options import ONNX
from qcc.ir.model.packed import PackSource
from qcc.ir.onnx.pack.constants import OnnxPackSource
from qcc.ir.onnx.pack.constants import packed_places as onnx_places


def open_pack_source(path: Path) -> PackSource:
    """A model that is to lie in a pack.

    Raises:
        ModelError: it cannot be read, or is of no kind that lies in packs.
    """
    check_packable(path)
    return OnnxPackSource(path)


def check_packable(path: Path) -> None:
    """See that a file of this name may lie in a pack.

    Raises:
        ModelError: it may not.
    """
    if path.suffix != ONNX:
        help = "export it first: `qcc compile model.pt2 -o model.onnx`"
        raise ModelError("Q470", f"`{path}` is no ONNX file: packs hold those", help)


def data_files_of(path: Path) -> tuple[str, ...]:
    """The files that a packed model names.

    Raises:
        ModelError: it cannot be read, or names what is outside of its folder.
    """
    return onnx_places(path)
