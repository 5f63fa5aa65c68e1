"""Opening an ONNX file: lazily, and with one clear word where it is at fault."""

import logging
import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx_ir.passes import common

from qcc.ir.errors import ModelError, first_line
from qcc.ir.model.options import NEWEST_OPSET, OLDEST_OPSET
from qcc.ir.onnx.file import wire
from qcc.ir.onnx.file.bodies import lift
from qcc.ir.onnx.file.check import Malformed, check_model, opset_of, supported
from qcc.ir.onnx.file.external import DataError, Located, locate, open_in
from qcc.ir.onnx.file.other_files import LONGEST, kind_of_file

logging.getLogger("onnx_ir").addHandler(logging.NullHandler())  # it logs tracebacks, which are no one's to read here

LAZY_BYTES = 4096  # payloads from this size on stay in the file
BYTE_BITS = 8


@dataclass(frozen=True)
class Loaded:
    """A model and where it lies.

    Args:
        model: the model.
        folder: of the files that its weights lie in.
        data_files: the names of those that lie beside it.
        note_bytes: of what only people read: exporters leave a stack trace at every node.
    """

    model: ir.Model
    folder: Path
    data_files: tuple[str, ...]
    note_bytes: int = 0


def load(path: Path) -> Loaded:
    """Read a model; its large weights stay on disk until they are looked at.

    Raises:
        ModelError: the file is missing, empty, truncated, not a valid model, or its external data is.
    """
    located = parse(path)
    try:
        check_model(located.proto)
        opset = opset_of(located.proto)
    except (Malformed, RecursionError) as error:
        raise _invalid(path, error) from error
    if not supported(opset):
        raise ModelError(
            "Q402",
            f"`{path}` uses opset {opset}; qcc reads opsets {OLDEST_OPSET} to {NEWEST_OPSET}",
            help="export the model again with an opset in that range",
        )
    try:
        model = ir.serde.deserialize_model(located.proto)
        open_in(model, located.folder)
        normalise(model)
        _check_payloads(model)
    except Exception as error:  # the library trusts its input: what it raises on a bad one is any error at all
        raise _invalid(path, error) from error
    return Loaded(model, located.folder, located.data_files, _note_bytes(located.proto.graph))


def parse(path: Path) -> Located:
    """A model's protobuf whose large weights point into the file itself.

    Raises:
        ModelError: the file or its data cannot be read, or it is not one protobuf message.
    """
    try:
        if "\0" in str(path):
            raise ModelError("Q400", f"no such file: `{path}`")
        if path.is_dir():
            raise ModelError("Q400", f"`{path}` is a directory", help="name the .onnx file in it")
        if path.exists() and not path.is_file():  # reading a pipe or a device may never end
            raise ModelError("Q400", f"`{path}` is no regular file", help="write the model to a file first")
        if path.stat().st_size == 0:
            raise ModelError("Q401", f"`{path}` is empty")
        _refuse_other_kinds(path)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view = memoryview(mapped)
            try:
                proto = onnx.ModelProto.FromString(wire.externalise(view, path.name, LAZY_BYTES))
            finally:
                view.release()
        return locate(proto, path)
    except FileNotFoundError as error:
        raise ModelError("Q400", f"no such file: `{path}`") from error
    except OSError as error:
        raise ModelError("Q400", f"cannot read `{path}`: {error.strerror}") from error
    except DataError as error:
        raise ModelError("Q403", str(error), error.help) from error
    except Malformed as error:
        raise _invalid(path, error) from error
    except (wire.WireError, DecodeError) as error:
        raise ModelError(
            "Q401",
            f"`{path}` is not an ONNX model, or it is truncated: {first_line(error)}",
            help="an ONNX file is one protobuf message; check that the copy or the export was complete",
        ) from error


def _refuse_other_kinds(path: Path) -> None:
    with path.open("rb") as file:
        found = kind_of_file(path, file.read(LONGEST))
    if found is not None:
        raise ModelError("Q461", f"`{path}` is not an ONNX model: it is {found[0]}", help=found[1])


def align_functions(model: ir.Model) -> None:
    """Let functions be read by the versions of operators that the model imports, as the runtime reads them.

    It puts a function's ops in the place of a call, whatever versions the function itself names.
    """
    for function in model.functions.values():
        for domain in function.opset_imports:
            function.opset_imports[domain] = model.opset_imports.get(domain, function.opset_imports[domain])


def normalise(model: ir.Model) -> None:
    """Make every constant an initialiser of the main graph, and give all nodes and values names to speak of them by."""
    common.LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=0)(model)
    common.NameFixPass()(model)
    lift(model.graph)


def array_of(value: ir.Value) -> np.ndarray | None:
    """The array of a constant value, read-only; None if there is none.

    What lies in a file is mapped afresh at each call and unmapped when the array goes: the library's own mapping would
    stay, and with it every page that was ever read. So would what it unpacks of codes narrower than a byte, in twice
    their bytes and more.
    """
    tensor = value.const_value
    if tensor is None:
        return None
    if isinstance(tensor, ir.ExternalTensor) and tensor.dtype.bitwidth >= BYTE_BITS and tensor.nbytes:
        shape = tuple(tensor.shape.numpy())
        return np.memmap(tensor.path, tensor.dtype.numpy(), "r", tensor.offset or 0, shape).view(np.ndarray)
    array = tensor.numpy().view()
    array.flags.writeable = False
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()
    return array


def release(model: ir.Model) -> None:
    """Unmap the files that the library has mapped."""
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value.release()


def _note_bytes(graph: onnx.GraphProto) -> int:
    """What metadata and doc strings of a graph, its bodies and all in them take."""
    found = 0
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        found += len(part.doc_string.encode()) + sum(prop.ByteSize() for prop in part.metadata_props)
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    return found + sum(_note_bytes(body) for one in attributes for body in (*one.graphs, one.g) if body.node)


def _check_payloads(model: ir.Model) -> None:
    """Small constants lie in memory: read each once, so that one whose data do not fit its shape is told now."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None and not isinstance(value.const_value, ir.ExternalTensor):
                value.const_value.numpy()


def _invalid(path: Path, error: BaseException) -> ModelError:
    return ModelError("Q401", f"`{path}` is not a valid ONNX model: {first_line(error)}")
