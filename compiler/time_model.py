"""How long a model takes for one sample: the input, and what became of it, with its kernels and without."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from qcc.compiler.samples import Samples
from qcc.compiler.session import Session
from qcc.compiler.timing import Turns, interleaved

TURNS = Turns(rounds=9, warm=True)


@dataclass(frozen=True)
class ModelTimes:
    """Median seconds for one sample on one thread, ONNX Runtime's own settings otherwise; None where not measured."""

    before_s: float
    plain_s: float
    kernels_s: float | None
    predicted_s: float | None

    @property
    def after_s(self) -> float:
        """Of the written model, as it is meant to be run."""
        return self.plain_s if self.kernels_s is None else self.kernels_s


def time_input(model: Path, data: Samples) -> float:
    """Median seconds of a model as it came in, for one sample."""
    return _medians([Session(model, kernels=False, threads=1)], data)[0]


def time_models(model: Path, written: Path, library: Path | None, data: Samples, predicted: float | None) -> ModelTimes:
    """Time the input model and the written one, in turn."""
    sessions = [Session(model, kernels=False, threads=1), Session(written, kernels=False, threads=1)]
    sessions += [] if library is None else [Session(written, kernels=library, threads=1)]
    before, plain, *kernels = _medians(sessions, data)
    return ModelTimes(before, plain, kernels[0] if kernels else None, predicted)


def _medians(sessions: Sequence[Session], data: Samples) -> list[float]:
    sample = next(data.parts(1))
    seconds = interleaved([partial(session.run, sample) for session in sessions], TURNS)
    return [float(median) for median in np.median(seconds, axis=1)]
