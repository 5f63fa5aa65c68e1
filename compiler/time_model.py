"""How long a model takes for one sample: the input, and what became of it, with its kernels and without."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from qcc.compiler.interleave import medians, open_session
from qcc.compiler.samples import Samples

MOST_S = 3.0
INPUT, PLAIN, KERNELS = "input", "plain", "kernels"


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
    run = partial(open_session(model).run, None, next(data.parts(1)))
    return medians({INPUT: run}, most_s=MOST_S)[INPUT]


def time_models(model: Path, written: Path, library: Path | None, data: Samples, predicted: float | None) -> ModelTimes:
    """Time the input model and the written one, in turn."""
    sessions = {INPUT: open_session(model), PLAIN: open_session(written)}
    if library is not None:
        sessions[KERNELS] = open_session(written, library)
    sample = next(data.parts(1))
    runs = {name: partial(session.run, None, sample) for name, session in sessions.items()}
    found = medians(runs, most_s=MOST_S * len(runs))
    return ModelTimes(found[INPUT], found[PLAIN], found.get(KERNELS), predicted)
