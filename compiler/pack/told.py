"""What a pack holds, for people and as JSON."""

from collections.abc import Sequence
from typing import Any

from qcc.compiler.console.percent import percent
from qcc.compiler.pack.index import PackedModel, PackIndex
from qcc.compiler.pack.pack import Packing


def packed(done: Packing) -> str:
    """A line for each model, and one for all."""
    index = done.index
    width = max(map(len, index.models), default=0)
    lines = [f"{name:<{width}}  {_model(one, name in done.added)}" for name, one in index.models.items()]
    before = sum(one.source_bytes for one in index.models.values())
    after = done.size_bytes
    whole = f"{before:,} -> {after:,} bytes, {percent(after / max(before, 1))}"
    return "\n".join([*lines, f"{done.folder}  {whole}; plain ONNX Runtime opens each model where it lies"])


def checked(index: PackIndex) -> str:
    """That all is whole."""
    count = len(index.models)
    return f"{index.folder}: whole; {count:,} model{'' if count == 1 else 's'}, {len(index.blobs):,} constants"


def as_json(index: PackIndex, added: Sequence[str]) -> dict[str, Any]:
    """The pack as plain data."""
    models = [
        {
            "model": name,
            "added": name in added,
            "source_bytes": one.source_bytes,
            "new_bytes": one.new_bytes,
            "within": one.within,
            "error": one.error,
            "near": one.near,
        }
        for name, one in index.models.items()
    ]
    return {"folder": str(index.folder), "data_bytes": index.size, "constants": len(index.blobs), "models": models}


def _model(one: PackedModel, is_new: bool) -> str:
    text = f"{one.source_bytes:,} bytes -> {one.new_bytes:,} more"
    if one.near:
        kinds = (
            [f"{sum(how == 'another' for how in one.near.values()):,} another's"]
            if "another" in one.near.values()
            else []
        )
        made = sum(how != "another" for how in one.near.values())
        kinds += [f"{made:,} computed of another's"] if made else []
        text += f"; {' and '.join(kinds)}"
    if one.error is not None:
        text += f"; outputs off by {percent(one.error)}, {percent(one.within or 0)} allowed"
    return text + ("" if is_new else " (there already)")
