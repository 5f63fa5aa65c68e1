"""Scaling of what flows between two linear layers, as a family of toy passes."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Weight
from qcc.passes.contract.contract import Between, Context, Edit, Rewrite, Site


class ToyScale(Rewrite):
    """Multiply what a layer gives by positive numbers, and let the layer behind the relu divide by them."""

    property: ClassVar[str] = "toy_scale"
    after: ClassVar[tuple[str, ...]] = ("clean",)

    @abstractmethod
    def factors(self, reader: Weight, context: Context) -> np.ndarray:
        """A positive number for each channel."""

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The pairs."""
        pairs = list(_pairs(graph, targets))
        last = graph.weights()[-1].name
        end = [Site(f"after {last}", (last,), "it is the output")] if last in targets else []
        return [Site(f"{a.name} to {b.name}", (a.name, b.name)) for a, b in pairs] + end

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Scale."""
        pairs = {f"{a.name} to {b.name}": (a, b) for a, b in _pairs(graph, targets)}
        edits = []
        for site in self.sites(graph, targets):
            if site.refused:
                edits.append(Edit(site.subject, site.refused, refused=True, layers=site.layers))
            elif context.takes(site.subject):
                writer, reader = pairs[site.subject]
                factors = self.factors(reader, context).astype(np.float32)
                put(graph, writer, graph.matrix(writer) * factors[:, None])
                put(graph, reader, graph.matrix(reader) / factors)
                edits.append(Edit(site.subject, f"times {factors.mean():.3g}", layers=site.layers))
        return edits


@dataclass(frozen=True)
class Constant(ToyScale):
    """Multiply all channels by one number.

    Args:
        factor: the number.
    """

    factor: Annotated[float, Between(0.1, 10)] = 2.0

    def factors(self, reader: Weight, context: Context) -> np.ndarray:
        """The number."""
        return np.full(reader.shape[1], self.factor)


@dataclass(frozen=True)
class ByInputs(ToyScale):
    """Divide each channel by its size on calibration data, and by the bits that the reader gets."""

    uses_gram: ClassVar[bool] = True

    def factors(self, reader: Weight, context: Context) -> np.ndarray:
        """From the Gram matrix and the encoding."""
        encoding = context.blocked(reader.name)
        bits = encoding.bits if encoding else 1
        return np.asarray(bits / np.sqrt(np.diag(context.grams[reader.name]) + 0.1))


def put(graph: Graph, weight: Weight, matrix: np.ndarray) -> None:
    """Give a weight another matrix."""
    old = graph.constant(weight.constant)
    assert old is not None
    array = weight.view.array(matrix).reshape(old.shape).astype(old.dtype)
    graph.replace_constant(weight.constant, np.ascontiguousarray(array))


def _pairs(graph: Graph, targets: Sequence[str]) -> Iterator[tuple[Weight, Weight]]:
    """Layers of targets with the one behind a relu."""
    inputs = {op.outputs[0]: op.inputs[0] for op in graph.ops() if op.kind is Kind.ELEMENTWISE}
    writers = {weight.layers[0].output: weight for weight in graph.weights()}
    for reader in graph.weights():
        writer = writers.get(inputs.get(reader.layers[0].input, ""))
        if writer is not None and reader.name in targets:
            yield writer, reader
