"""A PyTorch model, exported by ``torch.export``."""

# ruff: noqa: D102 - the face documents the methods that it asks for

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.utils import _pytree as pytree

from qcc.ir.errors import ModelError
from qcc.ir.fx.file.archive import load_program, repack
from qcc.ir.fx.graph import FxGraph
from qcc.ir.fx.quiet import quiet
from qcc.ir.fx.run import failed, fed, result
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Array, Feeds
from qcc.ir.model.model import Model, Origin, Written
from qcc.ir.model.options import ONNX, PROGRAM, ExternalData
from qcc.ir.model.whole_files import place, unfinished

EXPORT = "write `torch.export.export(module, inputs)` with `torch.export.save`"
NOTES = "qcc.json"  # in a file, beside the program: what it says of its origin


class FxModel(Model[FxGraph]):
    """An exported program, which may lie in a file of ``torch.export.save``.

    Args:
        program: as ``torch.export.export`` made it; it is never changed.
        path: of its file, if it lies in one.

    Raises:
        ModelError: see `FxGraph`.
    """

    def __init__(self, program: ExportedProgram, path: Path | None = None) -> None:
        self._program, self._path = program, path
        self._graph = FxGraph(program)

    @classmethod
    def load(cls, path: Path) -> "FxModel":
        """The program in a file.

        Raises:
            ModelError: there is none that torch can read, or see `FxGraph`.
        """
        return cls(load_program(path), path)

    def __reduce__(self) -> tuple[object, ...]:
        """Another process opens the file."""
        return (FxModel, (self._program,)) if self._path is None else (FxModel.load, (self._path,))

    @property
    def graph(self) -> FxGraph:
        return self._graph

    @property
    def size_bytes(self) -> int:
        """Of its file, or of the tensors, those that share their memory once."""
        if self._path is not None:
            return self._path.stat().st_size
        held = {**self._program.state_dict, **self._program.constants}.values()
        storages = [one.untyped_storage() for one in held if isinstance(one, torch.Tensor)]
        return sum({one.data_ptr(): one.nbytes() for one in storages}.values())

    @property
    def origin(self) -> Origin:
        version = str(torch.__version__)
        return Origin(f"torch.export, PyTorch {version}", {"torch": version}, "torch.export")

    @property
    def timed(self) -> bool:
        return False

    def reference(self) -> Runner:
        return self._runs(self._program)

    def check_place(self, path: Path, external: ExternalData = "auto", trimmed: bool = False) -> None:
        if path.suffix != PROGRAM:
            message = f"cannot write `{path}`: a PyTorch model is written as a program of torch.export"
            help = f"name a `{PROGRAM}` file with -o, or an `{ONNX}` file"
            raise ModelError("Q640", message, help)
        if external == "always":
            message = f"cannot write `{path}`: the weights of a `{PROGRAM}` file never lie beside it"
            raise ModelError("Q640", message, "leave `external_data` out of the policy")
        if trimmed:
            message = f"cannot write `{path}`: no levels are left out of a `{PROGRAM}` file"
            raise ModelError("Q640", message, "leave `trim` out of the policy, or compile the ONNX model of the module")

    def write(
        self,
        graph: FxGraph,
        path: Path,
        external: ExternalData | Path = "auto",
        notes: Mapping[str, str] | None = None,
        bare: bool = False,
    ) -> Written:
        del bare  # names are few here
        self.check_place(path, "auto" if isinstance(external, Path) else external)
        archive = BytesIO()
        kept = {NOTES: json.dumps(dict(notes or {}), sort_keys=True)}
        with quiet():
            torch.export.save(graph.program(), archive, extra_files=kept)
        try:
            with unfinished(path) as made:
                repack(archive, made)
                place(made, path)
        except OSError as error:
            raise ModelError("Q404", f"cannot write `{path}`: {error.strerror or error}") from error
        return Written(path, None, path.stat().st_size)

    def copy(self, path: Path, written: Path | None = None) -> Written:
        source = written or self._path
        if source is None:
            raise ModelError("Q640", f"cannot write `{path}`: the program lies in no file", EXPORT)
        with unfinished(path) as made:
            shutil.copyfile(source, made)
            place(made, path)
        return Written(path, None, path.stat().st_size)

    def runner(self, written: Path, library: Path | None = None, providers: Sequence[str] = ()) -> Runner:
        del library, providers
        return self._runs(load_program(written))

    def _runs(self, program: ExportedProgram) -> "ProgramRunner":
        return ProgramRunner(program, _user_inputs(self._program), [value.name for value in self._graph.outputs])


class ProgramRunner:
    """Runs a program as it was exported, by the names that its graph has for what goes in and comes out.

    Args:
        program: which takes its inputs as the module took them.
        inputs: what it is fed, in its order.
        outputs: the names of its results that are tensors or numbers, in their order.
    """

    def __init__(self, program: ExportedProgram, inputs: "list[FedInput]", outputs: list[str]) -> None:
        with quiet():
            self._module = program.module()
        self._inputs = inputs
        self._spec = program.call_spec.in_spec
        self._outputs = outputs
        given = [one.arg for one in program.graph_signature.output_specs if one.kind is OutputKind.USER_OUTPUT]
        self._told = [not isinstance(one, ConstantArgument) for one in given]

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        """Run once.

        Raises:
            ModelError: a feed is missing, or torch fails on these feeds.
        """
        flat = [one.value if one.name is None else _feed(one.name, one.tensor, feeds) for one in self._inputs]
        try:
            arguments, named = pytree.tree_unflatten(flat, self._spec)
            with torch.no_grad():
                found = pytree.tree_leaves(self._module(*arguments, **named))
        except Exception as error:  # torch raises many unrelated classes
            raise failed(error) from error
        results = (one for one, told in zip(found, self._told, strict=True) if told)
        return {name: result(one) for name, one in zip(self._outputs, results, strict=True)}


@dataclass(frozen=True)
class FedInput:
    """What a program takes: a tensor or a number by its name, or a value that it was exported with."""

    name: str | None
    tensor: bool = False
    value: object = None


def _user_inputs(program: ExportedProgram) -> list[FedInput]:
    specs = zip(program.graph.find_nodes(op="placeholder"), program.graph_signature.input_specs, strict=True)
    given = [(node, spec.arg) for node, spec in specs if spec.kind is InputKind.USER_INPUT]
    return [
        FedInput(None, value=arg.value) if isinstance(arg, ConstantArgument) else FedInput(arg.name, _is_tensor(node))
        for node, arg in given
    ]


def _feed(name: str, tensor: bool, feeds: Feeds) -> object:
    if name not in feeds:
        raise ModelError("Q406", f"`{name}` is not fed")
    return fed(feeds[name], tensor)


def _is_tensor(node: Any) -> bool:  # noqa: ANN401 - torch types it so
    return isinstance(node.meta.get("val"), torch.Tensor)
