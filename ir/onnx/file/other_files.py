"""Files of other kinds that are given for an ONNX model, told by how they begin."""

import zipfile
from pathlib import Path

_EXPORT = 'export the module where its code is: `torch.onnx.export(module, inputs, "model.onnx")`'
_ORIGINAL = "export the original model to ONNX; `qcc inspect FILE` tells which formats store the same numbers"
_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x80\x02\x8a", "a PyTorch file", _EXPORT),
    (0, b"\x80\x02", "a pickled object of Python", _EXPORT),
    (0, b"\x80\x03", "a pickled object of Python", _EXPORT),
    (0, b"\x80\x04", "a pickled object of Python", _EXPORT),
    (0, b"\x80\x05", "a pickled object of Python", _EXPORT),
    (8, b'{"', "a safetensors file: weights without what is computed with them", _EXPORT),
    (0, b"GGUF", "a GGUF file: weights without what is computed with them", _ORIGINAL),
    (4, b"TFL3", "a TensorFlow Lite file", "convert it: `python -m tf2onnx.convert --tflite FILE --output model.onnx`"),
    (0, b"\x89HDF", "an HDF5 file, of Keras perhaps", "export the model to ONNX: `model.export(PATH, format='onnx')`"),
    (4, b"ORTM", "a model in ONNX Runtime's own format", "give the .onnx file that it was made of"),
    (0, b"\x93NUMPY", "an array of NumPy", "give the .onnx file"),
    (0, b"<?xml", "an XML file, of OpenVINO perhaps", "give the .onnx file that it was made of"),
    (0, b"<net", "an XML file, of OpenVINO perhaps", "give the .onnx file that it was made of"),
    (0, b"qpolicy ", "a policy", "the model comes first: `qcc compile MODEL -p POLICY`"),
    (0, b"qcc transport ", "a model for transport", "make the model of it again: `qcc expand FILE`"),
    (0, b"#", "a text file", "give the .onnx file; a policy is given with `-p`"),
    (0, b"version https://git-lfs", "a pointer of Git LFS", "fetch what it stands for: `git lfs pull`"),
    (0, b"<!DOCTYPE", "a web page", "the download went wrong; fetch the file itself"),
    (0, b"<html", "a web page", "the download went wrong; fetch the file itself"),
)
LONGEST = 64


def kind_of_file(path: Path, begin: bytes) -> tuple[str, str] | None:
    """What a file is if it is none of ONNX, and what to do; ``begin`` are its first bytes."""
    if begin.startswith(b"PK\x03\x04"):
        return _archive(path)
    return next((found[2:] for found in _MAGIC if begin[found[0] :].startswith(found[1])), None)


def _archive(path: Path) -> tuple[str, str]:
    try:
        names = zipfile.ZipFile(path).namelist()
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        names = []
    if any(name.endswith((".onnx", ".ONNX")) for name in names):
        return "a zip archive", "unpack it and give the .onnx file in it"
    if any(name.endswith(".npy") for name in names):
        return "calibration data", "the model comes first: `qcc compile MODEL --data FILE.npz`"
    if any("data.pkl" in name or name.endswith(("/version", "/byteorder", "archive_format")) for name in names):
        return "a PyTorch file", _EXPORT
    return "a zip archive", "unpack it and give the .onnx file in it"
