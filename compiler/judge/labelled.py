"""Samples with labels, on which scores are computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qcc.compiler.calibrate.arrays import flattened
from qcc.compiler.calibrate.masks import Hiding
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.judge.evaluation import Evaluation, Records
from qcc.compiler.scores.find import scores
from qcc.compiler.scores.paired import Drop
from qcc.compiler.scores.score import OfLabels
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Runner

LABELS = "labels"
"""The array of a file of samples that holds what is known of them."""


@dataclass(frozen=True)
class LabelledEvaluation(Evaluation):
    """Scores on samples.

    Args:
        samples: to run on.
        labels: one for each, or for each two; None where there are none.
        names: of the scores that are asked for.
        output: of the model, that is looked at.
        places: of the samples as labels have them, where they are run in another order.
        hiding: what is hidden at the end of samples, and need not be run.
    """

    samples: Samples
    labels: np.ndarray | None
    names: Sequence[str]
    output: str
    places: np.ndarray | None = None
    hiding: Hiding = field(default_factory=Hiding)
    original: list[np.ndarray] = field(default_factory=list)
    """Its outputs, batch by batch, where scores are held to them."""

    def records(self, run: Runner) -> Records:
        """Run a model on all samples."""
        kept: dict[str, list[np.ndarray]] = {name: [] for name in self.names}
        first, at = not self.original, 0
        for place, batch in enumerate(self.samples.batches):
            size = self.samples.size(batch)
            made = flattened(run(self.hiding.cropped(batch))).get(self.output)
            if made is None or made.ndim == 0 or made.shape[0] != size:
                shape = "absent" if made is None else "x".join(map(str, made.shape)) or "a single number"
                raise _unfit(f"the output `{self.output}` is {shape}: its first axis does not count samples")
            if first and self._own_reference:
                self.original.append(made)
            for name in self.names:
                known = self._known(name, batch, place, slice(at, at + size))
                kept[name].append(self._parts(name, made, known))
            at += size
        try:
            return {name: of_labels(name).records(self._ordered(parts), self.labels) for name, parts in kept.items()}
        except ValueError as error:
            raise _unfit(str(error)) from error

    def _ordered(self, parts: list[np.ndarray]) -> np.ndarray:
        """As labels have them."""
        found = np.concatenate(parts)
        return found if self.places is None else found[np.argsort(self.places)]

    @property
    def _own_reference(self) -> bool:
        return self.labels is None and any(not of_labels(name).labelled for name in self.names)

    def _parts(self, name: str, made: np.ndarray, known: np.ndarray) -> np.ndarray:
        try:
            return of_labels(name).parts(made, known)
        except ValueError as error:
            raise _unfit(str(error)) from error

    def _known(self, name: str, batch: Mapping[str, np.ndarray], place: int, at: slice) -> np.ndarray:
        """What is known of some samples: labels, the original's output, or the tokens themselves."""
        if self.labels is not None:
            each = max(self.samples.count // len(self.labels), 1)
            places = np.arange(at.start, at.stop) if self.places is None else self.places[at]
            return np.asarray(self.labels[places // each])
        if not of_labels(name).labelled:
            return self.original[place]
        return next(one for one in batch.values() if one.dtype.kind in "iu")

    def value(self, name: str, records: np.ndarray) -> float:
        """The score."""
        return of_labels(name).value(records)

    def drop(self, name: str, before: np.ndarray, after: np.ndarray, relative: bool) -> Drop:
        """What is lost."""
        return of_labels(name).drop(before, after, relative)


def of_labels(name: str) -> OfLabels:
    """A score that is computed from labels."""
    found = scores()[name]
    assert isinstance(found, OfLabels), "it was seen to be when labels were taken"
    return found


def _unfit(message: str) -> ModelError:
    return ModelError("Q483", message, help="score the model by a function: `--evaluate SCRIPT.py`")
