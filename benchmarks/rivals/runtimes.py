"""How other runtimes and tools take an ONNX model: each makes its file of it and runs that, all in this process.

None is a dependency: what is not installed is told, with what to install.
"""

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.deployed import dynamic_int8, four_bits
from qcc.compiler.runtime.session import Session

Feeds = Mapping[str, np.ndarray]
Run = Callable[[Feeds], Sequence[np.ndarray]]


class MissingError(Exception):
    """A rival cannot take part: why, in words."""


@dataclass(frozen=True)
class Given:
    """What rivals are made of.

    Args:
        model: in float.
        calibration: samples, arrays by input with a sample a row.
        folder: for their files.
        outputs: of the model, by name.
    """

    model: Path
    calibration: Feeds
    folder: Path
    outputs: tuple[str, ...]

    def samples(self, most: int) -> list[dict[str, np.ndarray]]:
        """The first samples, one by one."""
        count = min(most, len(next(iter(self.calibration.values()))))
        return [{name: array[at : at + 1] for name, array in self.calibration.items()} for at in range(count)]


@dataclass(frozen=True)
class Rival:
    """A file, and what runs it on so many threads."""

    size_bytes: int
    start: Callable[[int], Run]


def ours(path: Path) -> Rival:
    """A file of ours with the kernels that lie beside it."""

    def start(threads: int) -> Run:
        session = Session(path, threads=threads)
        return lambda feeds: list(session.run(feeds).values())

    return Rival(_size(path), start)


def _onnx(path: Path) -> Rival:
    def start(threads: int) -> Run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 4
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda feeds: session.run(None, dict(feeds))

    return Rival(_size(path), start)


def ort(given: Given) -> Rival:
    """ONNX Runtime, float."""
    return _onnx(given.model)


def ort_dynamic(given: Given) -> Rival:
    """ONNX Runtime, `quantize_dynamic`."""
    dynamic_int8(given.model, given.folder / "dynamic.onnx")
    return _onnx(given.folder / "dynamic.onnx")


def ort_4bit(given: Given) -> Rival:
    """ONNX Runtime, `MatMulNBits` of 4 bits in groups of 32, activations in int8."""
    four_bits(given.model, given.folder / "four.onnx")
    return _onnx(given.folder / "four.onnx")


def _openvino(given: Given, name: str, change: Callable[[Any], Any], **options: str) -> Rival:
    try:
        import openvino
    except ImportError:
        raise MissingError("pip install openvino") from None
    core = openvino.Core()
    path = given.folder / f"{name}.xml"
    openvino.save_model(change(core.read_model(given.model)), path, compress_to_fp16=False)

    def start(threads: int) -> Run:
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", **options}
        request = core.compile_model(str(path), "CPU", settings).create_infer_request()
        return lambda feeds: [np.array(one) for one in request.infer(dict(feeds)).values()]

    return Rival(_size(path) + _size(path.with_suffix(".bin")), start)


def openvino_float(given: Given) -> Rival:
    """OpenVINO as it comes: float32, bfloat16 where the processor multiplies it."""
    return _openvino(given, "ov", lambda model: model)


def openvino_int8(given: Given) -> Rival:
    """OpenVINO, NNCF's static int8."""
    nncf = _nncf()
    kind = nncf.ModelType.TRANSFORMER if any(one.dtype.kind == "i" for one in given.calibration.values()) else None
    data = nncf.Dataset(given.samples(300))
    return _openvino(given, "ov8", lambda model: nncf.quantize(model, data, model_type=kind, subset_size=300))


def openvino_int4(given: Given) -> Rival:
    """OpenVINO, NNCF's weights of 4 bits in groups of 32."""
    nncf = _nncf()
    mode = nncf.CompressWeightsMode.INT4_SYM
    return _openvino(
        given, "ov4", lambda model: nncf.compress_weights(model, mode=mode, group_size=32, all_layers=True)
    )


def _nncf() -> Any:
    try:
        import nncf
    except ImportError:
        raise MissingError("pip install openvino nncf") from None
    return nncf


RUNTIMES: Mapping[str, Callable[[Given], Rival]] = {
    "onnxruntime float": ort,
    "onnxruntime dynamic int8": ort_dynamic,
    "onnxruntime 4 bits": ort_4bit,
    "openvino float": openvino_float,
    "openvino int8": openvino_int8,
    "openvino int4": openvino_int4,
}
PACKAGES = ("onnxruntime", "openvino", "nncf", "xllamacpp", "ctranslate2")


def versions() -> str:
    """Of the packages that are here."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def _size(path: Path) -> int:
    """With the data beside an ONNX file."""
    return sum(one.stat().st_size for one in {path, *path.parent.glob(f"{path.stem}.*.onnx_data")})
