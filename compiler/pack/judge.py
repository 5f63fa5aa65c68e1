"""How far a packed model's outputs are from those of the model that it was made of."""

from pathlib import Path

import numpy as np

from qcc.compiler.calibrate.chosen_data import chosen_data
from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.plan.catalog import schema
from qcc.dsl.load import load_text
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Array
from qcc.ir.open_file import open_file

POLICY = "qpolicy 1\ncalibrate generated {{ samples = {count} }}\nrule any {{ keep }}\n"
SAMPLES = 8


class OutputJudge:
    """Holds packed models to their source, on data that is given or drawn.

    Args:
        path: of the source.
        data: an ``.npz`` file.

    Raises:
        ModelError: the source does not run, or the data does not fit it.
    """

    def __init__(self, path: Path, data: Path | None) -> None:
        self._model = open_file(path)
        self._reference = self._model.reference()
        policy = load_text(POLICY.format(count=SAMPLES), schema(), "<pack>")
        samples = chosen_data(policy, data, self._model.graph, self._reference, {})
        self._batches: list[Batch] = list(samples.parts(SAMPLES))
        self._wanted = [self._reference(batch) for batch in self._batches]

    def error(self, path: Path) -> float:
        """The size of the difference over that of the output, of the worst output; infinite where it is no number.

        Raises:
            ModelError: the packed model does not run.
        """
        runner: Runner = self._model.runner(path)
        worst = 0.0
        found = [runner(batch) for batch in self._batches]
        for name in self._wanted[0]:
            pairs = [(one[name], other[name]) for one, other in zip(self._wanted, found, strict=True)]
            worst = max(worst, _relative(pairs))
        return worst


def _relative(pairs: list[tuple[Array, Array]]) -> float:
    """The error of an output over all samples; what all samples have in common is no part of its size."""
    if any(one.shape != other.shape for one, other in pairs):
        return float("inf")
    if any(one.dtype.kind not in "fiub" for one, _ in pairs):
        return 0.0 if all(np.array_equal(one, other) for one, other in pairs) else float("inf")
    wanted, found = (np.concatenate([pair[at].astype(np.float64).reshape(-1) for pair in pairs]) for at in (0, 1))
    known = np.isfinite(wanted)
    if not np.array_equal(wanted[~known], found[~known], equal_nan=True) or not np.isfinite(found[known]).all():
        return float("inf")
    apart = float(np.linalg.norm(wanted[known] - found[known]))
    size = float(np.linalg.norm(wanted[known] - wanted[known].mean())) if known.any() else 0.0
    return 0.0 if not apart else apart / size if size else float("inf")
