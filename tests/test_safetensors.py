"""Safetensors files are read as they are, and what says too much of itself is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcc.ir.checkpoint.tensors import read_tensors
from qcc.ir.errors import ModelError
from tests.adapter_files import half, write_raw, write_safetensors

RANDOM = np.random.default_rng(0)


def test_tensors_are_read_as_they_are(tmp_path: Path) -> None:
    written: dict[str, np.ndarray] = {
        "a": RANDOM.standard_normal((3, 4)).astype(np.float32),
        "half": half(RANDOM.standard_normal((2, 5))),
        "none": np.zeros((0, 4), np.float16),
        "number": np.array(7, np.float32),
        "places": np.arange(5),
    }
    read = read_tensors(write_safetensors(tmp_path / "a.safetensors", written, {"alpha": "8"}))
    assert list(read) == list(written) and read.notes == {"alpha": "8"}
    for name, array in written.items():
        assert read[name].dtype == array.dtype and read.shape(name) == array.shape
        np.testing.assert_array_equal(read[name], array)


ENTRY: dict[str, Any] = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "head",
    [
        {"a": {**ENTRY, "data_offsets": [0, 800]}},
        {"a": {**ENTRY, "data_offsets": [8, 0]}},
        {"a": {**ENTRY, "data_offsets": [-8, 0]}},
        {"a": {**ENTRY, "data_offsets": [0, 8, 9]}},
        {"a": {**ENTRY, "shape": [2**40, 2**40]}},
        {"a": {**ENTRY, "shape": [-2]}},
        {"a": {**ENTRY, "shape": [True, 2]}},
        {"a": {**ENTRY, "shape": [2.0]}},
        {"a": {**ENTRY, "shape": [1] * 40 + [2]}},
        {"a": {**ENTRY, "dtype": "F128"}},
        {"a": {**ENTRY, "dtype": ["F32"]}},
        {"a": {"dtype": "F32", "shape": [2]}},
        {"a": 3},
        {"__metadata__": {"a": 3}},
        {"__metadata__": 7, "a": ENTRY},
        [],
        "text",
        None,
    ],
)
def test_what_cannot_be_is_refused(head: object, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_tensors(write_raw(tmp_path / "a.safetensors", head, b"12345678"))
    assert caught.value.code == "Q439"


@pytest.mark.parametrize(
    "data", [b"", b"1234567", b"\xff" * 8, b"\x80\x96\x98\0\0\0\0\0{}", b"\2\0\0\0\0\0\0\0\xff\xff"]
)
def test_a_file_that_is_cut_off_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelError) as caught:
        read_tensors(path)
    assert caught.value.code == "Q439"


@pytest.mark.parametrize("name", ["none.safetensors", "", "a\0b"])
def test_a_file_that_is_not_there_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_tensors(tmp_path / name)
    assert caught.value.code == "Q400"
