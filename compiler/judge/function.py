"""The user's own function ``evaluate(run)``, from a program or a script."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcc.compiler.judge.evaluation import Evaluation, Records
from qcc.compiler.judge.run import ModelRun
from qcc.compiler.scores.find import scores
from qcc.compiler.scores.paired import Drop
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Value
from qcc.ir.script import fault_in, run_script

FUNCTION = "evaluate"
MODULE = "qcc_evaluate"
"""What a script is called while it is run."""
WANTED = "it returns a number, one for each sample, or such by the names of scores"

Function = Callable[[ModelRun], object]


def from_script(path: Path) -> Function:
    """The function of a script, which is run as a module with its own folder in the path.

    Raises:
        ModelError: there is none, or the script fails.
    """
    module = run_script(path, MODULE, "Q480")
    found = getattr(module, FUNCTION, None)
    if not callable(found):
        help = f"define `def {FUNCTION}(run):`, where `run(feeds)` gives the outputs by name; {WANTED}"
        raise ModelError("Q480", f"the script `{path}` has no function `{FUNCTION}`", help=help)
    function: Function = found
    return function


@dataclass(frozen=True)
class CalledEvaluation(Evaluation):
    """Scores by a function.

    Args:
        function: takes a model that runs.
        names: of the scores that are asked for.
        inputs: of the model.
        outputs: of the model.
        script: where the function is from, if from a script.
    """

    function: Function
    names: Sequence[str]
    inputs: Sequence[Value]
    outputs: Sequence[Value]
    script: Path | None = None

    def records(self, run: Runner) -> Records:
        """What the function says of a model."""
        try:
            found = self.function(ModelRun(run, self.inputs, self.outputs))
        except (Exception, SystemExit) as error:  # whatever a function may raise
            raise ModelError("Q481", f"`{FUNCTION}` fails: {fault_in(error, self.script)}") from error
        return {name: _records(name, self._named(name, found)) for name in self.names}

    def _named(self, name: str, found: object) -> object:
        if not isinstance(found, Mapping):
            if len(self.names) == 1:
                return found
            raise _unfit(f"returns one score, and the policy bounds {', '.join(f'`{one}`' for one in self.names)}")
        if name not in found:
            raise _unfit(f"returns no `{name}`, but {', '.join(f'`{one}`' for one in found) or 'nothing'}")
        return found[name]

    def value(self, name: str, records: np.ndarray) -> float:
        """The mean."""
        return scores()[name].mean(records)

    def drop(self, name: str, before: np.ndarray, after: np.ndarray, relative: bool) -> Drop:
        """Of the mean."""
        if before.shape != after.shape:
            raise _unfit(f"gives {len(before):,} scores for the original and {len(after):,} for the compressed model")
        score = scores()[name]
        if score.share and float(np.abs(before[:, 0]).max(initial=0)) > 1:  # of a hundred
            before, after = before / (100, 1), after / (100, 1)
        return score.of_means(before, after, relative)


def _records(name: str, found: object) -> np.ndarray:
    """Numbers, each with a weight of one.

    Raises:
        ModelError: they are none.
    """
    try:
        numbers = np.atleast_1d(np.asarray(found)).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise _unfit(f"returns for `{name}` what is no number: {type(found).__name__}") from error
    if numbers.ndim > 1 or not numbers.size:
        raise _unfit(f"returns for `{name}` an array of {'x'.join(map(str, numbers.shape))}, not one number a sample")
    if scores()[name].share and np.abs(numbers).max() > 100:
        raise _unfit(f"returns for `{name}` {np.abs(numbers).max():g}: a share is at most 1, or 100 in per cent")
    return np.stack([numbers, np.ones(len(numbers))], axis=1)


def _unfit(message: str) -> ModelError:
    return ModelError("Q482", f"`{FUNCTION}` {message}", help=WANTED)
