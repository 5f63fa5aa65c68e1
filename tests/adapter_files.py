"""Adapters to test with: files as training writes them, written here by hand."""

import json
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64", "int32": "I32"}


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], notes: Mapping[str, str] | None = None) -> Path:
    """Write a file, a tensor after the other."""
    head: dict[str, object] = {"__metadata__": dict(notes)} if notes else {}
    at, data = 0, list[bytes]()
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        head[name] = {"dtype": NAMES[array.dtype.name], "shape": list(array.shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
        data.append(raw)
    return write_raw(path, head, b"".join(data))


def write_raw(path: Path, head: object, data: bytes = b"") -> Path:
    """Write a file whose header may say anything."""
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def write_config(folder: Path, **settings: object) -> None:
    """Write what peft keeps beside a file."""
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")


def half(array: np.ndarray) -> np.ndarray:
    """The same numbers in bfloat16."""
    return array.astype(ml_dtypes.bfloat16)
