"""Programs as ONNX models: as the exporter of torch makes them."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from qcc.ir.errors import ModelError, first_line
from qcc.ir.fx.program import of_graph, twin
from qcc.ir.fx.quiet import quiet

WRITER = "onnxscript"
"""The package that torch writes ONNX with."""


def write_onnx(program: ExportedProgram, path: Path) -> None:
    """Write a program as an ONNX model, its weights beside it where one file cannot hold them.

    Raises:
        ModelError: the exporter is not installed, or knows no ONNX for an op of the program.
    """
    if find_spec(WRITER) is None:
        message = f"PyTorch writes ONNX models with `{WRITER}`, which is not installed"
        raise ModelError("Q380", message, f"install it: `pip install {WRITER}`; a `.pt2` file needs none")
    try:
        with quiet():
            made = torch.onnx.export(_with_tables(program), dynamo=True, verbose=False)
            assert made is not None  # what is given no file is returned
            made.save(path)
    except Exception as error:  # torch raises many unrelated classes
        message = f"torch.onnx cannot export the program: {_reason(error)}"
        raise ModelError("Q381", message, "a `.pt2` file holds any program: name one with -o") from error


def _with_tables(program: ExportedProgram) -> ExportedProgram:
    """The program with rows of tables looked up by the op for it, as which the exporter writes it.

    Rewrite:
        W[ids]  -->  embedding(W, ids)
    """
    if not any(map(_looks_up, program.graph.nodes)) or program.graph.find_nodes(op="get_attr"):
        return program
    graph, _ = twin(program.graph)
    for node in filter(_looks_up, graph.nodes):
        (table, (ids,)) = node.args
        node.target, node.args = torch.ops.aten.embedding.default, (table, ids)
    return of_graph(program, graph)


def _looks_up(node: Node) -> bool:
    """It takes whole rows of a matrix, each by its number."""
    if node.target is not torch.ops.aten.index.Tensor or len(node.args) != 2:
        return False
    table, ids = node.args
    if not isinstance(table, Node) or table.meta["val"].dim() != 2 or not isinstance(ids, list) or len(ids) != 1:
        return False
    return isinstance(ids[0], Node) and ids[0].meta["val"].dtype in (torch.int64, torch.int32)


def _reason(error: BaseException) -> str:
    """What is wrong at last: torch wraps it in a report of all that it tried."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
