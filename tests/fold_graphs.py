"""Modules as graphs of both frontends, folded and run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx_ir import serde
from torch import nn

from qcc.ir.fx.graph import FxGraph
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.branches.fold_branches import FoldBranches
from qcc.passes.contract.contract import Context, Edit
from tests.torch_export import to_onnx

FrontEnd = Callable[[nn.Module, np.ndarray, Path], Graph]


def of_onnx(module: nn.Module, feed: np.ndarray, folder: Path) -> OnnxGraph:
    """A module's graph, by way of a file ``net.onnx``."""
    path = folder / "net.onnx"
    to_onnx(module.eval(), (torch.from_numpy(feed),), path, external_data=False)
    return OnnxGraph(serde.deserialize_model(onnx.load(path)), folder)


def of_torch(module: nn.Module, feed: np.ndarray, _: Path) -> FxGraph:
    """A module's graph, exported."""
    return FxGraph.export(module.eval(), (torch.from_numpy(feed),))


FRONT_ENDS: dict[str, FrontEnd] = {"onnx": of_onnx, "fx": of_torch}


def folded(graph: Graph) -> tuple[Graph, list[Edit]]:
    """A graph whose branches are folded, beside what was done; it stays as it is."""
    graph = graph.copy()
    graph.simplify()
    return FoldBranches().apply(graph, [weight.name for weight in graph.weights()], Context())


def run(graph: Graph, feed: np.ndarray) -> np.ndarray:
    """The output of a graph of one input."""
    (source,), (result,) = graph.inputs, graph.outputs
    return graph.runner([source.name], [result.name])({source.name: feed})[result.name]
