"""A model's file as it is, under another name, with its data beside it under a name of its own."""

import shutil
from pathlib import Path

import onnx

from qcc.ir.model.model import Written
from qcc.ir.model.whole_files import data_name, own_data, place, retire, sha256, unfinished
from qcc.ir.onnx.file.external import entries_of, external_tensors, real_file
from qcc.ir.onnx.file.save import ALIGNMENT


def copy_model(source: Path, target: Path) -> Written:
    """Copy a model byte for byte; where its weights lie apart, only where they lie is written anew.

    Raises:
        OSError: a file cannot be read or written.
    """
    before = own_data(target)
    proto = onnx.load(source, load_external_data=False)
    apart = list(external_tensors(proto.graph))
    with unfinished(target) as made, unfinished(target, "-data") as weights:
        if not apart:
            shutil.copyfile(source, made)
            place(made, target)
            retire(target.parent, before)
            return Written(target, None, target.stat().st_size)
        starts = _gather(source, apart, weights)
        digest = sha256(weights)
        data = target.with_name(data_name(target, digest))
        for tensor in apart:
            _move(tensor, data.name, starts[entries_of(tensor)["location"]])
        made.write_bytes(proto.SerializeToString(deterministic=True))
        place(weights, data)
        place(made, target)
    retire(target.parent, set(before) - {data.name})
    return Written(target, data, target.stat().st_size + data.stat().st_size, digest)


def _gather(source: Path, tensors: list[onnx.TensorProto], out: Path) -> dict[str, int]:
    """Write all data files one behind the other; gives where each begins."""
    starts: dict[str, int] = {}
    with out.open("wb") as file:
        for tensor in tensors:
            location = entries_of(tensor)["location"]
            if location in starts:
                continue
            file.write(bytes(-file.tell() % ALIGNMENT))
            starts[location] = file.tell()
            with real_file(source, location, tensor.name).open("rb") as data:
                shutil.copyfileobj(data, file)
    return starts


def _move(tensor: onnx.TensorProto, location: str, start: int) -> None:
    entries = entries_of(tensor)
    moved = {**entries, "location": location, "offset": str(int(entries.get("offset", "0")) + start)}
    del tensor.external_data[:]
    for key, text in moved.items():
        if key != "checksum":
            tensor.external_data.add(key=key, value=text)
