"""Running ONNX models and pieces of them under ONNX Runtime."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from qcc.ir.cores import runtime_threads
from qcc.ir.errors import ModelError, first_line
from qcc.ir.graph import in_pieces as pieces
from qcc.ir.graph.ops import Array, Feeds
from qcc.ir.kernel.loadable import loadable
from qcc.ir.onnx.file import load as onnx_load
from qcc.ir.onnx.file.bodies import bodies
from qcc.ir.onnx.file.external import relative_to
from qcc.ir.onnx.file.runtime import onnxruntime, usable
from qcc.ir.onnx.file.save import ir_version
from qcc.ir.onnx.graph.lend import lend, take_out


class OnnxRunner:
    """A session of ONNX Runtime on a model or a piece of one.

    External weights lie in ``folder``, apart from those that are lent; ``library`` brings custom ops. Not optimised,
    each op runs as the model has it.

    Raises:
        ModelError: the runtime refuses the model.
    """

    def __init__(
        self,
        model: onnx.ModelProto | Path,
        folder: Path | None = None,
        lent: Mapping[str, Array] | None = None,
        library: Path | None = None,
        optimise: bool = True,
        providers: Sequence[str] = (),
    ) -> None:
        options = onnxruntime.SessionOptions()
        if not optimise:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.intra_op_num_threads = runtime_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle sessions must not spin
        options.add_session_config_entry("session.disable_prepacking", "1")  # halves a session's memory
        if folder is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        self._lent = lent or {}  # read in place
        lend(options, self._lent)
        source = str(model) if isinstance(model, Path) else model.SerializeToString()
        try:
            if library is not None:
                options.register_custom_ops_library(loadable(library))
            self._session = onnxruntime.InferenceSession(source, options, providers=usable(providers))
        except Exception as error:  # the runtime raises a dozen unrelated classes
            raise ModelError("Q405", f"ONNX Runtime cannot load the model: {first_line(error)}") from error
        self.outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        """Run once; outputs that are no tensors come as arrays, see `as_arrays`.

        Raises:
            ModelError: the runtime fails on these feeds.
        """
        try:
            made = self._session.run(self.outputs, dict(feeds))
        except Exception as error:
            raise ModelError(
                "Q406",
                f"ONNX Runtime failed while running the model: {first_line(error)}",
                help="if the data was generated, give calibration data that the model accepts",
            ) from error
        pairs = zip(self.outputs, made, strict=True)
        return {key: array for name, value in pairs for key, array in as_arrays(name, value)}


def reference(path: Path) -> OnnxRunner:
    """A runner of the file as it is, its weights read in place.

    Raises:
        ModelError: the file cannot be read, or the runtime refuses it.
    """
    located = onnx_load.parse(path)
    return OnnxRunner(located.proto, located.folder)


def in_pieces(model: ir.Model) -> bool:
    """A model is so large that it runs in pieces; branches and loops read what no piece tells, and run whole."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    if sum(tensor.nbytes for tensor in tensors if tensor is not None) <= pieces.LARGE_BYTES:
        return False
    return not any(True for node in model.graph for _ in bodies(node))


def part_runner(
    model: ir.Model,
    folder: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    free: Iterable[str] = (),
    optimise: bool = True,
) -> OnnxRunner:
    """A runner of the part of a model between some values; see `Graph.runner`.

    Raises:
        ModelError: there is no such part, or the runtime refuses it.
    """
    try:
        graph = ir.convenience.extract(model.graph, list(inputs), list(outputs))
    except ValueError as error:
        raise ModelError("Q406", f"this piece of the model cannot run: {first_line(error)}") from error
    free = frozenset(free)
    for name in sorted(free):
        if name in graph.initializers and graph.initializers[name] not in graph.inputs:
            graph.inputs.append(graph.initializers[name])
    lent = take_out(graph, folder, free)
    version = max(model.ir_version, ir_version(model.opset_imports.get("", 1), 0))
    proto = ir.serde.serialize_model(ir.Model(graph, ir_version=version, functions=[*model.functions.values()]))
    relative_to(proto, folder)
    return OnnxRunner(proto, folder, lent, optimise=optimise)


def as_arrays(name: str, value: object) -> Iterator[tuple[str, Array]]:
    """An output as arrays: a tensor is one; of sequences, optionals and maps, the numbers, the keys and the sizes."""
    if isinstance(value, np.ndarray):
        yield name, value
        return
    keys: list[object] = []
    leaves = list(_leaves(value, keys))
    yield name, np.concatenate([leaf.reshape(-1) for leaf in leaves]) if leaves else np.zeros(0, np.float32)
    yield f"{name}.sizes", np.array([size for leaf in leaves for size in (leaf.ndim, *leaf.shape)], np.int64)
    if keys:
        yield f"{name}.keys", np.array(keys)


def _leaves(value: object, keys: list[object]) -> Iterator[Array]:
    if isinstance(value, dict):
        keys.extend(value)
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _leaves(one, keys)
    elif value is not None:
        yield np.asarray(value)
