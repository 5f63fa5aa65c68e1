"""How long a model takes for one sample: the input, and what became of it, with its kernels and without."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from qcc.compiler.samples import Samples
from qcc.compiler.session import Session
from qcc.compiler.timing import Turns, interleaved

FEWEST, MOST = 3, 15
ABOUT_S = 4.0  # of timing


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
    runs = [partial(session.run, sample) for session in sessions]
    start = time.perf_counter()
    for run in runs:
        run()
    rounds = int(ABOUT_S / 2 / (time.perf_counter() - start))  # each turn is a run to warm up and one that counts
    seconds = interleaved(runs, Turns(rounds=min(max(rounds, FEWEST), MOST), warm=True, own=True))
    return [float(median) for median in np.median(seconds, axis=1)]
