"""Writing a folder that onnxruntime-genai loads: the model, what it is told of it, and the tokenizer's files."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcc.compiler.files.open_model import open_model
from qcc.compiler.genai.config import config_of
from qcc.compiler.genai.tokens import SETTINGS, tokenizer_files
from qcc.compiler.runtime.session import Session
from qcc.ir.errors import ModelError

FILENAME, CONFIG = "model.onnx", "genai_config.json"


@dataclass(frozen=True)
class GenerationFolder:
    """What was written.

    Args:
        folder: where.
        files: what lies there now, in order.
        config: what `genai_config.json` says.
    """

    folder: Path
    files: tuple[str, ...]
    config: dict[str, Any]


def write_folder(model: Path, tokenizer: Path, folder: Path, context: int | None, eos: str = "") -> GenerationFolder:
    """Write one.

    Args:
        model: the file, compiled or not; with its data file, if it has one.
        tokenizer: a folder, or a `tokenizer.json`.
        folder: to be made; it may not hold a file yet.
        context: see `config_of`.
        eos: see `tokenizer_files`.

    Raises:
        ModelError: model, tokenizer or folder is no good; nothing is left half-written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError("Q777", f"`{folder}` is there already", help="name a folder that is empty, or none yet")
    opened, files = open_model(model), tokenizer_files(tokenizer, eos)
    coded = {one.past: one.present for one in Session(model, False, 1).caches}
    config = config_of(opened.graph, coded, files, FILENAME, context)
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened.model.copy(folder / FILENAME)
        for name, path in files.files.items():
            shutil.copyfile(path, folder / name)
        (folder / SETTINGS).write_text(json.dumps(dict(files.settings), indent=2) + "\n", encoding="utf-8")
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if not made:
            folder.mkdir(exist_ok=True)
        raise
    return GenerationFolder(folder, tuple(sorted(path.name for path in folder.iterdir())), config)
