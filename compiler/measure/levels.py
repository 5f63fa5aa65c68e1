"""What each level of weights that are sums is worth at the model's outputs.

One weight at a time loses its last levels, all others being as they were. What a level takes off the loss for each of
its bytes says where it stands in the order by which a file is trimmed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.measure.probe import Probe
from qcc.compiler.measure.segments import Chain, cut
from qcc.compiler.measure.sensitivity import MEASURED_SAMPLES, OUTPUT_BYTES, losses_along, within
from qcc.ir.encoding.algebra import Encoding, under
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.reference import NUMPY
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Weight
from qcc.ir.model.levels import NOTE, Levels, ordered
from qcc.passes.contract.contract import Edit
from qcc.passes.encode import relative_error

ALIKE = 8.0  # errors of levels in the weight that differ by less share a run


def has_levels(encoding: Encoding) -> bool:
    """A matrix in this encoding stands without the last of what it is the sum of."""
    levels = encoding.summands
    return len(levels) > 1 and not any(one.corrects or one.summands for one in levels)


@dataclass
class LevelMeter:
    """Measures levels once, and keeps what was found.

    Args:
        graph: of which weights are stored.
        samples: what to run on.
        progress: told of each weight.
    """

    graph: Graph
    samples: Samples
    progress: Callable[[str], None]
    _found: dict[tuple[str, Encoding], tuple[float, ...]] = field(default_factory=dict)
    _errors: dict[str, np.ndarray] = field(default_factory=dict)
    _probe: Probe | None = None

    def note(self, stored: Mapping[str, Encoded]) -> dict[str, str]:
        """What a file says of the levels of its weights, which are stored so, by name; nothing where none has any."""
        found = self.levels(stored)
        return {} if found is None else {NOTE: found.text}

    def shortened(self, edits: Sequence[Edit], counts: Mapping[str, int]) -> tuple[Edit, ...]:
        """Edits as they are where of some weights so many levels are left, by name."""
        return tuple(self._shortened(edit, counts[edit.subject]) if edit.subject in counts else edit for edit in edits)

    def _shortened(self, edit: Edit, count: int) -> Edit:
        (encoding,) = (found for name, found in self._found if name == edit.subject)
        left = encoding.summing(encoding.summands[:count])
        return replace(edit, text=left.text, error=float(self._errors[edit.subject][count - 1]), stored=left)

    def levels(self, stored: Mapping[str, Encoded]) -> Levels | None:
        """The levels of weights that are stored so, by name; None where none has any."""
        losses: dict[str, tuple[float, ...]] = {}
        sizes: dict[str, list[float]] = {}
        for weight in self.graph.weights():
            encoded = stored.get(weight.name)
            if encoded is None or not has_levels(encoded.encoding):
                continue
            key = weight.name, encoded.encoding
            if key not in self._found:
                self.progress(weight.name)
                self._found[key] = self._losses(weight, encoded)
            losses[weight.name] = self._found[key]
            sizes[weight.name] = [one.size_bits(encoded.shape) / 8 for one in encoded.encoding.summands]
        return ordered(losses, sizes) if losses else None

    def _losses(self, weight: Weight, encoded: Encoded) -> tuple[float, ...]:
        if self._probe is None:
            held = within(self.graph, self.samples, MEASURED_SAMPLES, OUTPUT_BYTES)
            self._probe = Probe(self.graph, Chain(self.graph, cut(self.graph)), held)
        probe, matrix, sums = self._probe, self.graph.matrix(weight), list(sums_of(encoded))
        errors = self._errors[weight.name] = np.array([relative_error(matrix, one) for one in sums])

        def lost(at: int) -> float:
            return probe.loss({weight.constant: self.graph.as_constant(weight, sums[at])})

        return tuple(map(float, losses_along(errors, lost, ALIKE)[0]))


def sums_of(encoded: Encoded) -> Iterator[np.ndarray]:
    """A stored matrix with one level, with two, and so on."""
    total = np.zeros(encoded.shape, np.float32)
    for at, level in enumerate(encoded.encoding.summands):
        total = total + level.decode(NUMPY, under(encoded.parts.__getitem__, str(at)), encoded.shape)
        yield total
