"""A checkpoint's law: its header tells how each tensor is stored; damage is told, and nothing is compiled."""

import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from qcc.__main__ import main
from qcc.ir.checkpoint.gguf import TYPES, read_gguf
from qcc.ir.checkpoint.read import read_checkpoint
from qcc.ir.checkpoint.safetensors import read_safetensors


def text(word: str) -> bytes:
    return struct.pack("<Q", len(word)) + word.encode()


def gguf(tensors: Sequence[tuple[str, tuple[int, ...], int]], version: int = 3) -> bytes:
    facts = [
        text("general.name") + struct.pack("<I", 8) + text("a model"),
        text("a.number") + struct.pack("<II", 4, 7),
        text("a.list") + struct.pack("<IIQ", 9, 8, 2) + text("x") + text("y"),
        text("a.row") + struct.pack("<IIQ", 9, 6, 3) + bytes(12),
    ]
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(facts)) + b"".join(facts)
    for name, shape, kind in tensors:
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, 0)
    return head + bytes(64)


def safetensors(**entries: tuple[str, list[int], int]) -> bytes:
    head, at = {}, 0
    for name, (dtype, shape, size) in entries.items():
        head[name.replace("__", ".")] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    data = json.dumps({**head, "__metadata__": {"format": "pt"}}, separators=(",", ":")).encode()
    return struct.pack("<Q", len(data)) + data + bytes(at)


def test_gguf_tensors_and_the_formats_that_store_the_same() -> None:
    kinds = [(f"t{kind}", (512, 3), kind) for kind in TYPES]
    found = {one.name: one for one in read_gguf(io.BytesIO(gguf(kinds))).tensors}
    assert all(one.shape == (3, 512) and one.params == 1536 for one in found.values())
    assert found["t2"].size_bytes == 1536 * 4.5 / 8 and found["t2"].ours == "int4 group 32"
    assert found["t8"].size_bytes == 1536 * 8.5 / 8 and found["t8"].ours == "int8 group 32"
    assert found["t39"].size_bytes == 1536 * 4.25 / 8 and found["t39"].ours == "mxfp4"
    assert (
        found["t12"].size_bytes == 1536 * 4.5 / 8 and not found["t12"].ours and "scales of scales" in found["t12"].why
    )
    assert all(bool(one.ours) != bool(one.why) for one in found.values())
    (unknown,) = read_gguf(io.BytesIO(gguf([("t", (32,), 77)]))).tensors
    assert unknown.stored == "type 77" and not unknown.ours and unknown.why


def test_gptq_and_awq_are_told_by_their_shapes() -> None:
    gptq = safetensors(
        a__qweight=("I32", [16, 64], 4096),
        a__qzeros=("I32", [4, 8], 128),
        a__scales=("F16", [4, 64], 512),
        a__g_idx=("I32", [128], 512),
        norm=("F32", [128], 512),
    )
    found = read_safetensors(io.BytesIO(gptq))
    assert found.kind == "safetensors, GPTQ"
    assert [(one.name, one.shape, one.ours, one.size_bytes) for one in found.tensors] == [
        ("a", (64, 128), "int4 group 32 asym", 4096 + 128 + 512 + 512),
        ("norm", (128,), "float", 512),
    ]
    awq = safetensors(
        a__qweight=("I32", [128, 8], 4096), a__qzeros=("I32", [4, 8], 128), a__scales=("F16", [4, 64], 512)
    )
    (one,) = read_safetensors(io.BytesIO(awq)).tensors
    assert (one.stored, one.shape, one.ours) == ("AWQ 4 bits, group 32", (64, 128), "int4 group 32 asym")
    three = safetensors(
        a__qweight=("I32", [12, 64], 3072), a__qzeros=("I32", [1, 6], 24), a__scales=("F16", [1, 64], 128)
    )
    (one,) = read_safetensors(io.BytesIO(three)).tensors
    assert (one.shape, one.ours) == ((64, 128), "int3 channel asym")


def test_inspect_tells_and_compile_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf([("a", (256, 8), 2), ("b", (256, 8), 14), ("norm", (256,), 0)]))
    assert main(["inspect", str(path)]) == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("GGUF 3", "Q4_0", "int4 group 32", "Q6_K", "none: its blocks", "ONNX export"))
    assert main(["inspect", str(path), "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["tensors"]) == 3
    assert main(["compile", str(path)]) == 1
    error = capsys.readouterr().err
    assert "Q461" in error and "qcc inspect" in error
    assert [one.name for one in tmp_path.iterdir()] == ["model.gguf"]


DAMAGED = {
    "cut.gguf": gguf([("a", (256, 8), 2)])[:60],
    "version.gguf": gguf([], version=9),
    "huge.gguf": b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0),
    "facts.gguf": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<I", 99),
    "name.gguf": b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q", 1 << 50),
    "axes.gguf": b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("a") + struct.pack("<I", 1 << 30),
    "cut.safetensors": safetensors(a=("F32", [4], 16))[:40],
    "long.safetensors": struct.pack("<Q", 1 << 40) + b'{"a": 1}',
    "text.safetensors": struct.pack("<Q", 4) + b'{"a"',
    "entry.safetensors": struct.pack("<Q", 7) + b'{"a":1}',
    "shape.safetensors": safetensors(
        a__qweight=("I32", [16], 1), a__qzeros=("I32", [4, 8], 1), a__scales=("F16", [4, 0], 1)
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_headers_are_told(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(DAMAGED[name])
    assert main(["inspect", str(tmp_path / name)]) == 1 and "Q439" in capsys.readouterr().err


def test_other_files_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"\x08\x07")
    assert read_checkpoint(tmp_path / "a.onnx") is None and read_checkpoint(tmp_path / "none") is None
