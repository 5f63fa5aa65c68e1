"""An ONNX model in its file."""

# ruff: noqa: D102 - the face documents the methods that it asks for

from collections.abc import Mapping, Sequence
from pathlib import Path

from qcc.ir.encoding.cached.stored import NOTE, of_note
from qcc.ir.errors import ModelError
from qcc.ir.graph import in_pieces as pieces
from qcc.ir.graph.graph import Runner
from qcc.ir.model.carried import Carried, Corrections
from qcc.ir.model.in_floats import InFloats
from qcc.ir.model.model import Model, Origin, Raised, Written
from qcc.ir.model.options import PROGRAM, ExternalData
from qcc.ir.model.whole_files import own_data
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.carry import giving, taking
from qcc.ir.onnx.file.copy import copy_model
from qcc.ir.onnx.file.infer import InferTypes
from qcc.ir.onnx.file.load import parse
from qcc.ir.onnx.file.save import whole_size
from qcc.ir.onnx.graph.run import OnnxRunner, in_pieces, reference
from qcc.ir.onnx.half.emulate import emulate

ON_CPU = "CPUExecutionProvider"


class OnnxModel(Model[OnnxGraph]):
    """A model that lies in an ``.onnx`` file, its large weights maybe beside it.

    Args:
        path: of the file.

    Raises:
        ModelError: see `onnx_load.load`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._graph = OnnxGraph.load(path)
        self._size = whole_size(path, self._graph.data_files())

    def __reduce__(self) -> tuple[object, ...]:
        """Another process opens the file."""
        return OnnxModel, (self.path,)

    @property
    def graph(self) -> OnnxGraph:
        return self._graph

    @property
    def size_bytes(self) -> int:
        return self._size

    @property
    def origin(self) -> Origin:
        proto = self._graph.model
        domains = {domain: version for domain, version in proto.opset_imports.items() if domain}
        versions = {"ir_version": proto.ir_version, "opset": self._graph.opset, "domains": domains}
        told = "".join(f", {domain} {version}" for domain, version in domains.items())
        producer = " ".join(filter(None, (proto.producer_name, proto.producer_version)))
        format = f"IR {proto.ir_version}, opset {self._graph.opset}{told}"
        return Origin(format, versions, producer, dict(proto.metadata_props))

    @property
    def note_bytes(self) -> int:
        return self._graph.note_bytes

    @property
    def data_files(self) -> tuple[str, ...]:
        return tuple(self._graph.data_files())

    def reference(self) -> Runner:
        if in_pieces(self._graph.model):
            return _whole_graph(self.path)
        return reference(self.path)

    def raised(self, graph: OnnxGraph, version: int) -> Raised[OnnxGraph]:
        if graph.opset >= version:
            return Raised(graph)
        after = graph.copy()
        changed = after.require_opset(version)
        done = f"raising the model's opset from {graph.opset} to {after.opset}"
        return Raised(after, changed, done, f"export the model with opset {after.opset}")

    def newer(self, graph: OnnxGraph) -> str:
        before, after = self._graph.opset, graph.opset
        return f"opset {before} -> {after}: a runtime must know that version" if after > before else ""

    def check_place(self, path: Path, external: ExternalData = "auto", trimmed: bool = False) -> None:
        del external, trimmed
        if path.suffix == PROGRAM:
            message = f"cannot write `{path}`: an ONNX model is not written as a program of torch.export"
            raise ModelError("Q640", message, "name an `.onnx` file with -o, or compile the module")

    def write(
        self,
        graph: OnnxGraph,
        path: Path,
        external: ExternalData | Path = "auto",
        notes: Mapping[str, str] | None = None,
        bare: bool = False,
    ) -> Written:
        return graph.save(path, external, notes, given_names=not bare)

    def giving(self, graph: OnnxGraph, carried: Sequence[Carried]) -> OnnxGraph:
        return giving(graph, carried)

    def taking(self, graph: OnnxGraph, carried: Carried, corrections: Corrections | None) -> OnnxGraph:
        return taking(graph, carried, corrections)

    def copy(self, path: Path, written: Path | None = None) -> Written:
        return copy_model(written or self.path, path)

    def emulation(self, written: Path) -> Runner:
        graph = OnnxGraph.load(written)
        fed, returned = ([value.name for value in values] for values in (graph.inputs, graph.outputs))
        emulate(graph.model)
        return _in_floats(written, graph.runner(fed, returned, optimise=False))

    def runner(self, written: Path, library: Path | None = None, providers: Sequence[str] = ()) -> Runner:
        here = library is None and set(providers) <= {ON_CPU}
        if here and whole_size(written, own_data(written)) > pieces.LARGE_BYTES:
            return _in_floats(written, _whole_graph(written))
        return _in_floats(written, OnnxRunner(written, library=library, providers=providers))


def _in_floats(path: Path, runner: Runner) -> Runner:
    """A runner that is fed floats, and returns floats, where a file's caches hold codes."""
    told = {one.key: one.value for one in parse(path).proto.metadata_props}
    caches = of_note(told.get(NOTE, ""))
    return InFloats(runner, caches) if caches else runner


def _whole_graph(path: Path) -> Runner:
    """A runner of a model that is too large for one session."""
    graph = OnnxGraph.load(path)
    InferTypes()(graph.model)
    return graph.runner([value.name for value in graph.inputs], [value.name for value in graph.outputs])
