"""Reading what a checkpoint holds, whatever kind of file it is."""

from pathlib import Path

from qcc.ir.checkpoint.gguf import MAGIC, read_gguf
from qcc.ir.checkpoint.held import WeightFile
from qcc.ir.checkpoint.safetensors import read_safetensors
from qcc.ir.errors import ModelError


def read_checkpoint(path: Path) -> WeightFile | None:
    """What a checkpoint holds, by its header alone; None if the file is none.

    Raises:
        ModelError: its header is damaged.
    """
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            begin = file.read(10)
            read = read_gguf if begin[:4] == MAGIC else read_safetensors if begin[8:10] == b'{"' else None
            if read is None:
                return None
            file.seek(0)
            return read(file)
    except OSError as error:
        raise ModelError("Q400", f"cannot read `{path}`: {error.strerror}") from error
    except ValueError as error:
        help = "an upload or a download may not have been whole: fetch it again"
        raise ModelError("Q439", f"`{path}` is a damaged checkpoint: {error}", help) from error
