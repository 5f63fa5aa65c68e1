"""Opening an ONNX file: lazily, and with one clear word where it is at fault."""

import mmap
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx_ir.passes import common

from qcc.ir import wire
from qcc.ir.errors import ModelError
from qcc.ir.onnx_save_options import NEWEST_OPSET, OLDEST_OPSET

LAZY_BYTES = 4096  # payloads from this size on stay in the file



def load(path: Path) -> ir.Model:
    """Read a model; its large weights stay on disk until they are looked at.

    Raises:
        ModelError: the file is missing, empty, truncated, not ONNX, or its external data is.
    """
    proto = parse(path)
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise ModelError("Q401", f"`{path}` is not an ONNX model: it has no graph")
    _check_opset(path, proto)
    try:
        model = ir.serde.deserialize_model(proto)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError("Q401", f"`{path}` is not a valid ONNX model: {error}") from error
    ir.external_data.set_base_dir(model.graph, path.parent)
    _check_external(path, model)
    common.LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=0)(model)
    _name_values(model)
    return model


def parse(path: Path) -> onnx.ModelProto:
    """A model's protobuf whose large weights point into the file itself.

    Raises:
        ModelError: see `load`.
    """
    if not path.exists():
        raise ModelError("Q400", f"no such file: `{path}`")
    if path.is_dir():
        raise ModelError("Q400", f"`{path}` is a directory", help="name the .onnx file in it")
    try:
        size = path.stat().st_size
        if size == 0:
            raise ModelError("Q401", f"`{path}` is empty")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view = memoryview(mapped)
            try:
                return onnx.ModelProto.FromString(wire.externalise(view, path.name, LAZY_BYTES))
            finally:
                view.release()
    except OSError as error:
        raise ModelError("Q400", f"cannot read `{path}`: {error.strerror}") from error
    except (wire.WireError, DecodeError) as error:
        raise ModelError(
            "Q401",
            f"`{path}` is not an ONNX model, or it is truncated: {error}",
            help="an ONNX file is one protobuf message; check that the copy or the export was complete",
        ) from error


def _check_opset(path: Path, proto: onnx.ModelProto) -> None:
    version = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), None)
    if version is not None and not OLDEST_OPSET <= version <= NEWEST_OPSET:
        raise ModelError(
            "Q402",
            f"`{path}` uses opset {version}; qcc reads opsets {OLDEST_OPSET} to {NEWEST_OPSET}",
            help="export the model again with an opset in that range",
        )


def _check_external(path: Path, model: ir.Model) -> None:
    root = path.parent.resolve()
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if not isinstance(tensor, ir.ExternalTensor):
            continue
        file = (root / tensor.location).resolve()
        if not file.is_relative_to(root):
            raise ModelError("Q403", f"weight `{value.name}` lies outside the model's folder: `{tensor.location}`")
        if not file.is_file():
            raise ModelError(
                "Q403",
                f"`{path}` keeps its weights in `{tensor.location}`, which is missing",
                help="keep the .onnx file and its data file together",
            )
        if (tensor.offset or 0) + tensor.nbytes > file.stat().st_size or tensor.nbytes != (tensor.length or tensor.nbytes):
            raise ModelError("Q403", f"weight `{value.name}` does not fit its data in `{tensor.location}`: truncated file?")


def _name_values(model: ir.Model) -> None:
    """Give every node and value a name, so that layers and edits can be spoken of."""
    common.NameFixPass()(model)


def array_of(value: ir.Value) -> np.ndarray | None:
    """The array of a constant value, or None."""
    return None if value.const_value is None else value.const_value.numpy()
