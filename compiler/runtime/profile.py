"""What each node of a model takes in a run, as ONNX Runtime's own profile tells, and what it reads and gives."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from qcc.codegen.target.scratch import scratch
from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.runtime.fitting import whole
from qcc.compiler.runtime.register import register
from qcc.compiler.runtime.waiting import wait_awake
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.cores import runtime_threads
from qcc.ir.errors import first_line
from qcc.ir.kernel.loadable import loadable
from qcc.ir.onnx.file.domain import DOMAIN
from qcc.ir.onnx.file.runtime import onnxruntime, usable

WHOLE = "`qcc bench` without `--layers` times the model as a whole"
END = "_kernel_time"
WARM = 2  # runs before those that count
NODES = 64  # of the chain that tells what a node takes at least
CHAIN = (
    f'<ir_version: 8, opset_import: ["": 17]> g (float[N] v0) => (float[N] v{NODES}) '
    f"{{ {' '.join(f'v{at + 1} = Reciprocal(v{at})' for at in range(NODES))} }}"
)


@dataclass(frozen=True)
class Tensor:
    """What a node reads or gives: a ``constant`` stands in the file."""

    shape: tuple[int, ...]
    bytes: float
    constant: bool = False

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Node:
    """A node as the runtime ran it: after it fused and replaced nodes, so names need not be the model's.

    ``ours`` says that it is of a kernel library. ``seconds`` is the first quartile over runs: the profile tells the
    clock's time, which other work adds to.
    """

    name: str
    op: str
    ours: bool
    seconds: float
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


def profiled(
    model: Path, library: Path | None, threads: int, feeds: Batch, rounds: int, providers: Sequence[str] = ()
) -> tuple[Node, ...]:
    """The nodes in the order in which they run.

    Raises:
        QccError: the model does not load or run, or the runtime tells nothing of its nodes.
    """
    with scratch() as folder, whole(model) as plain:
        options = _options(threads)
        options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
        options.optimized_model_filepath = str(folder / "optimized.onnx")
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
        if library:
            register(options, loadable(library), providers)
        try:
            session = onnxruntime.InferenceSession(str(plain), options, providers=usable(providers))
            for _ in range(WARM + rounds):
                session.run(None, dict(feeds))
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            graph = onnx.load(folder / "optimized.onnx", load_external_data=False).graph
        except Exception as error:  # the runtime raises a dozen unrelated classes
            message = f"the nodes of `{model}` cannot be timed: {first_line(error)}"
            raise QccError([Diagnostic("Q580", message, help=WHOLE)]) from error
    return _nodes(events, graph)


def launch_s(threads: int) -> float:
    """Seconds that the runtime takes for a node which does nothing to speak of: the best of several runs of a chain."""
    chain = onnx.parser.parse_model(CHAIN).SerializeToString()
    session = onnxruntime.InferenceSession(chain, _options(threads), providers=usable(()))
    feeds = {"v0": np.ones(1, np.float32)}
    return min(_timed(lambda: session.run(None, feeds)) for _ in range(32)) / NODES


def _timed(run: Callable[[], object]) -> float:
    start = time.thread_time()
    run()
    return time.thread_time() - start


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a model that was written optimised is for this machine alone, and is not kept
    options.intra_op_num_threads = threads or runtime_threads()
    wait_awake(options)
    return options


def _nodes(events: Sequence[Mapping[str, Any]], graph: onnx.GraphProto) -> tuple[Node, ...]:
    known = {node.name: node for node in graph.node if node.name}
    unnamed = [node for node in graph.node if not node.name]  # the runtime calls them by op and number
    constants = {tensor.name: _constant(tensor) for tensor in graph.initializer}
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(END):
            runs.setdefault(event["name"].removesuffix(END), []).append(event)
    for name in (one for one in runs if one not in known):
        op = runs[name][0]["args"]["op_name"]
        found = next((at for at, node in enumerate(unnamed) if node.op_type == op), None)
        known |= {} if found is None else {name: unnamed.pop(found)}
    return tuple(_node(name, found[WARM:] or found, known.get(name), constants) for name, found in runs.items())


def _node(
    name: str, runs: Sequence[Mapping[str, Any]], node: onnx.NodeProto | None, constants: Mapping[str, Tensor]
) -> Node:
    told = runs[-1]["args"]
    seconds = float(np.percentile([run["dur"] for run in runs], 25)) / 1e6
    given = [_tensor(one) for one in told.get("input_type_shape", ())]
    outputs = tuple(_tensor(one) for one in told.get("output_type_shape", ()))
    if node is None:
        return Node(name, told["op_name"], False, seconds, tuple(given), outputs)
    fixed = tuple(constants[one] for one in node.input if one in constants)
    values = _values(given, node, constants)
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute if not one.HasField("g")}
    return Node(name, node.op_type, node.domain == DOMAIN, seconds, (*values, *fixed), outputs, attributes)


def _values(given: Sequence[Tensor], node: onnx.NodeProto, constants: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """What a node reads that is no constant: those come in the node's order, and such as were packed are left out."""
    left, found = list(given), []
    for name in (one for one in node.input if one):
        if name not in constants:
            found += [left.pop(0)] if left else []
        elif left and left[0].shape == constants[name].shape:
            left.pop(0)
    return tuple(found)


def _tensor(told: Mapping[str, Sequence[int]]) -> Tensor:
    """Of ``{"float": [2, 3]}``."""
    name, shape = next(iter(told.items()), ("float", ()))
    size = np.prod(shape, dtype=np.int64) if shape else 1
    return Tensor(tuple(shape), float(size * _width(name)))


def _width(name: str) -> float:
    """Bytes of an element, by the runtime's name of its type; strings and the like count as 8."""
    digits = "".join(one for one in name if one.isdigit())
    return 4 if name == "float" else int(digits) / 8 if digits else {"double": 8, "bool": 1}.get(name, 8)


def _constant(tensor: TensorProto) -> Tensor:
    name = TensorProto.DataType.Name(tensor.data_type).lower()
    size = np.prod(tensor.dims, dtype=np.int64) if tensor.dims else 1
    return Tensor(tuple(tensor.dims), float(size * _width(name)), constant=True)
