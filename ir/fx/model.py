"""A PyTorch model, exported by ``torch.export``."""

# ruff: noqa: D102 - the face documents the methods that it asks for

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.utils import _pytree as pytree

from qcc.ir.errors import ModelError
from qcc.ir.fx.graph import FxGraph
from qcc.ir.fx.run import failed, fed, result
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Array, Feeds
from qcc.ir.model.model import Model, Origin, Written
from qcc.ir.model.options import ExternalData

HELP = 'export the module to ONNX: `torch.onnx.export(module, inputs, "model.onnx")`'


class FxModel(Model[FxGraph]):
    """An exported program; it lies in no file, and there is none yet that holds what becomes of it.

    Args:
        program: as ``torch.export.export`` made it; it is never changed.

    Raises:
        ModelError: see `FxGraph`.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        self._graph = FxGraph(program)

    @property
    def graph(self) -> FxGraph:
        return self._graph

    @property
    def size_bytes(self) -> int:
        """Of the tensors, those that share their memory once."""
        held = {**self._program.state_dict, **self._program.constants}.values()
        storages = [one.untyped_storage() for one in held if isinstance(one, torch.Tensor)]
        return sum({one.data_ptr(): one.nbytes() for one in storages}.values())

    @property
    def origin(self) -> Origin:
        version = str(torch.__version__)
        return Origin(f"torch.export, PyTorch {version}", {"torch": version}, "torch.export")

    def reference(self) -> Runner:
        return ProgramRunner(self._program, [value.name for value in self._graph.outputs])

    def write(
        self,
        graph: FxGraph,
        path: Path,
        external: ExternalData = "auto",
        notes: Mapping[str, str] | None = None,
        bare: bool = False,
    ) -> Written:
        del graph, external, notes, bare
        _refuse(path)

    def copy(self, path: Path, written: Path | None = None) -> Written:
        del written
        _refuse(path)

    def runner(self, written: Path, library: Path | None = None, providers: Sequence[str] = ()) -> Runner:
        del library, providers
        _refuse(written)


class ProgramRunner:
    """Runs a program as it was exported, by the names that its graph has for what goes in and comes out.

    Args:
        program: which takes its inputs as the module took them.
        outputs: the names of its results that are tensors or numbers, in their order.
    """

    def __init__(self, program: ExportedProgram, outputs: list[str]) -> None:
        self._module = program.module()
        self._inputs = [spec.arg for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
        self._tensors = {node.name: _is_tensor(node) for node in program.graph.find_nodes(op="placeholder")}
        self._spec = program.call_spec.in_spec
        self._outputs = outputs
        given = [one.arg for one in program.graph_signature.output_specs if one.kind is OutputKind.USER_OUTPUT]
        self._told = [not isinstance(one, ConstantArgument) for one in given]

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        """Run once.

        Raises:
            ModelError: a feed is missing, or torch fails on these feeds.
        """
        flat = [one.value if isinstance(one, ConstantArgument) else self._feed(one.name, feeds) for one in self._inputs]
        try:
            arguments, named = pytree.tree_unflatten(flat, self._spec)
            with torch.no_grad():
                found = pytree.tree_leaves(self._module(*arguments, **named))
        except Exception as error:  # torch raises many unrelated classes
            raise failed(error) from error
        results = (one for one, told in zip(found, self._told, strict=True) if told)
        return {name: result(one) for name, one in zip(self._outputs, results, strict=True)}

    def _feed(self, name: str, feeds: Feeds) -> object:
        if name not in feeds:
            raise ModelError("Q406", f"`{name}` is not fed")
        return fed(feeds[name], self._tensors[name])


def _is_tensor(node: Any) -> bool:  # noqa: ANN401 - torch types it so
    return isinstance(node.meta.get("val"), torch.Tensor)


def _refuse(path: Path) -> NoReturn:
    raise ModelError("Q640", f"cannot write `{path}`: a PyTorch model cannot be written once it is compressed", HELP)
