"""Storing weights in fewer bits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocks import row_by_row
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.value import EncodedValue
from qcc.ir.errors import Refused
from qcc.ir.graph.edits import check_value
from qcc.ir.graph.form import Form
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Op, Weight
from qcc.ir.kernel.op import LinearOp
from qcc.ir.kernel.region import NO_REGIONS, Region
from qcc.ir.regions.find import regions
from qcc.ir.regions.flow import Flow
from qcc.passes.contract.activations import Activations
from qcc.passes.contract.chains import joined
from qcc.passes.contract.contract import Context, Edit, Invariant, Pass, Phase, Rounding
from qcc.passes.contract.holes import Holes
from qcc.passes.contract.magnitudes import Magnitudes
from qcc.passes.contract.places import places
from qcc.passes.contract.spread import Spread

COMPARED = 1 << 18  # numbers of a matrix that are compared at once


@dataclass(frozen=True)
class Encode(Pass):
    """Replace weights by codes and scales.

    Rewrite:
        W [out, in]  -->  decode(codes [out, in], scale [blocks])

    A weight that the encoding cannot hold stays as it is, and the report says why.

    The rule properties ``weights``, ``rounding`` and ``activations`` say how; where the decoding happens (``form``)
    follows from what the runtime was measured to do.

    Args:
        encoding: element grid, block and scale type.
        rounding: how codes are chosen.
        form: where the decoding happens.
        activations: how what layers multiply the weights with is encoded; by default it is not.
    """

    phase: ClassVar[Phase] = Phase.ENCODE
    keeps: ClassVar[frozenset[Invariant]] = frozenset((Invariant.SHAPES,))
    after: ClassVar[tuple[str, ...]] = ("clean",)

    encoding: Encoding
    rounding: Rounding
    form: Form
    activations: Activations | None = None

    @property
    def label(self) -> str:
        """The format alone."""
        return self.encoding.text

    @property
    def order(self) -> tuple[object, ...]:
        """By grid, block and form."""
        return (*self.encoding.order, self.form.name)

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Encode the targets."""
        weights = {weight.name: weight for weight in graph.weights()}
        found = self._regions(graph, [weights[name] for name in targets])
        flow = None if self.activations is None else Flow(graph)
        edits = []
        for name in targets:
            context.progress(name)
            weight = weights[name]
            try:
                matrix = self._matrix(graph, weight)
                encoded, why = self.encoded(weight, matrix, context)
                ops = self._write(graph, flow, weight, encoded, context, found)
            except Refused as refused:
                if refused.broken:
                    raise Refused(f"`{name}` cannot be encoded: {refused.reason}", broken=True) from refused
                edits.append(Edit(name, refused.reason, refused=True))
                continue
            left, text = encoded.decode(), f"{self.encoding.text}, {self.form}"
            told = Edit(name, text, relative_error(matrix, left), chosen=why, ops=ops, stored=encoded.encoding)
            gone = _holes(matrix, left, encoded.encoding, context.grams.get(name))
            gone = replace(gone, curve=encoded.curve) if gone is not None else None
            edits.append(replace(told, spread=Spread.of(matrix, left), holes=gone))
            context.became(name, encoded)
        if self.activations is not None and self.form.chains:
            self._join(graph, context)
        return edits

    def imitate(self, graph: Graph, targets: Sequence[str], context: Context) -> None:
        """Let a graph compute what it will once the targets are encoded, with weights that are floats.

        What is refused stays as it is, as it will.
        """
        weights = {weight.name: weight for weight in graph.weights()}
        flow = None if self.activations is None else Flow(graph)
        for name in targets:
            try:
                encoded, _ = self.encoded(weights[name], graph.matrix(weights[name]), context)
                if flow is not None and self.activations is not None:
                    reading = weights[name].reading(self.activations.encoding(self.form))
                    self.form.check(reading, encoded)
                    self.round_values(graph, flow, reading, context)
            except Refused:
                continue
            graph.replace_matrix(weights[name], encoded.decode())
            context.became(name, encoded)
        if self.activations is not None and self.form.chains:
            self._join(graph, context)

    def _join(self, graph: Graph, context: Context) -> None:
        """Let what stands between layers on whole numbers run on them too, where the values that it makes were seen."""
        assert self.activations is not None
        flow, encoding = Flow(graph), self.activations.encoding(self.form)
        known = {name: one for name, one in graph.encoded_values().items() if one.encoding == encoding}
        for one in joined(flow, known) if encoding.when == "static" and not encoding.float_tokens else ():
            try:
                reads = {value: known.get(value) or self._constant(flow, value) for value, _ in one.reads}
                op = flow.ops[flow.position[one.op]]
                made = {
                    name: known.get(name) or reads.get(one.source) or self._made(op, context.magnitudes.get(name))
                    for name in one.results
                }
                for name in (*reads, *made):
                    check_value(graph, name, encoding)
            except Refused:
                continue  # it stays float
            for value, position in one.reads:
                graph.encode_value(value, reads[value], [(one.op, position)])
            for name, value_encoding in made.items():
                graph.encode_value(name, value_encoding)
            known |= made

    def _constant(self, flow: Flow, value: str) -> EncodedValue:
        array = flow.constant(value)
        if array is None:
            raise Refused(f"`{value}` is not rounded")
        assert self.activations is not None
        return self.activations.encoded(self.activations.encoding(self.form), Magnitudes.of(array))

    def _made(self, op: Op | None, magnitudes: Magnitudes | None) -> EncodedValue:
        """How what an op makes is rounded, which the form may fix."""
        assert self.activations is not None
        encoding = self.activations.encoding(self.form)
        fixed = None if op is None else self.form.fixed(op.kind, op.function, encoding)
        if fixed is None:
            return self.activations.encoded(encoding, magnitudes)
        step, zero = fixed
        return EncodedValue(encoding, np.float32(step), zero + (encoding.grid.middle if encoding.signed else 0))

    def _matrix(self, graph: Graph, weight: Weight) -> np.ndarray:
        """A weight as its rounding takes it."""
        matrix = graph.matrix(weight)
        return matrix if self.rounding.by_columns and matrix.flags.f_contiguous else row_by_row(matrix)

    def _write(
        self,
        graph: Graph,
        flow: Flow | None,
        weight: Weight,
        encoded: Encoded,
        context: Context,
        found: Mapping[str, Region],
    ) -> tuple[LinearOp, ...]:
        """Encode the values around the weight's layers, if that is asked for, and the weight; all of it or nothing."""
        if flow is not None:
            assert self.activations is not None
            reading = weight.reading(self.activations.encoding(self.form))
            self.form.check(reading, encoded)
            self.round_values(graph, flow, reading, context)
            weight = reading
        return graph.encode(weight, encoded, self.form, found)

    def round_values(self, graph: Graph, flow: Flow, weight: Weight, context: Context) -> None:
        """Encode the values around a weight's layers, each once.

        Args:
            graph: is edited.
            flow: of the graph before any value was encoded.
            weight: one of the flow's graph, as it will read.
            context: the magnitudes of the values.

        Raises:
            Refused: a value cannot be encoded; nothing has changed.
        """
        assert self.activations is not None
        encoding = self.activations.encoding(self.form)
        found = places(flow, weight, self.form)
        values = [self._made(flow.maker(one.value), one.magnitudes(context.magnitudes)) for one in found]
        for one in found:
            check_value(graph, one.value, encoding)
        for one, value in zip(found, values, strict=True):
            graph.encode_value(one.value, value, one.readers)

    def encoded(self, weight: Weight, matrix: np.ndarray, context: Context) -> tuple[Encoded, str]:
        """The stored matrix ``[out, in]`` of a weight, and what was chosen of the rounding for it.

        Raises:
            Refused: the encoding cannot hold it.
        """
        found = context.chosen.get(weight.name)
        if found is not None:
            return found
        rounding, why = self._advised(weight, matrix, context)
        return rounding.encode(weight, matrix, self.encoding, context), why

    def _advised(self, weight: Weight, matrix: np.ndarray, context: Context) -> tuple[Rounding, str]:
        """What data recommends, asked once: measuring and writing ask the same."""
        key = weight.name, self.encoding, self.rounding
        if key not in context.advice:
            context.advice[key] = self.rounding.advised(weight, matrix, self.encoding, context)
        return context.advice[key]

    def _regions(self, graph: Graph, weights: Sequence[Weight]) -> Mapping[str, Region]:
        """What kernels do beside the products of these weights."""
        if not self.form.takes_steps:
            return NO_REGIONS
        how = self.activations
        as_read = (one if how is None else one.reading(how.encoding(self.form)) for one in weights)
        taken = [one for one, read in zip(weights, as_read, strict=True) if not self.form.refuses(read, self.encoding)]
        return regions(graph, taken)


def _holes(matrix: np.ndarray, left: np.ndarray, encoding: Encoding, gram: np.ndarray | None) -> Holes | None:
    """What is left where something is left out."""
    if encoding.stays is None:
        return None
    density = encoding.stays[0]
    if encoding.tile is not None:
        count = [-(-size // extent) for size, extent in zip(matrix.shape, encoding.tile, strict=True)]
        density = encoding.tiles_kept((matrix.shape[0], matrix.shape[1])) / (count[0] * count[1])
    return Holes.of(matrix, left, density, gram)


def relative_error(matrix: np.ndarray, decoded: np.ndarray) -> float:
    """Noise power over signal power of two matrices."""
    if matrix.flags.f_contiguous and decoded.flags.f_contiguous:
        matrix, decoded = matrix.T, decoded.T
    noise, signal, rows = 0.0, 0.0, max(COMPARED // max(matrix[:1].size, 1), 1)
    for start in range(0, len(matrix), rows):
        wanted = matrix[start : start + rows]
        difference = np.subtract(decoded[start : start + rows], wanted)
        noise += float(np.vdot(difference, difference))
        signal += float(np.vdot(wanted, wanted))
    return noise / signal if signal else 0.0
