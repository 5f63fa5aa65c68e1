"""The user's own function ``evaluate(run)``, from a program or a script."""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcc.compiler.judge.evaluation import Evaluation, Records
from qcc.compiler.judge.run import ModelRun
from qcc.compiler.scores.find import scores
from qcc.compiler.scores.paired import Drop
from qcc.ir.errors import ModelError, first_line
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Value

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
    if not path.is_file():
        raise ModelError("Q480", f"no such script: `{path}`")
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise ModelError("Q480", f"`{path}` is no script of Python", help="its name ends in `.py`")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module  # where classes of the script look for their module
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nothing is left beside the script
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a script may raise
        raise ModelError("Q480", f"the script `{path}` fails: {_told(error, path)}") from error
    finally:
        sys.dont_write_bytecode = writes
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
            raise ModelError("Q481", f"`{FUNCTION}` fails: {_told(error, self.script)}") from error
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


def _told(error: BaseException, script: Path | None) -> str:
    """An error of the user's code, with the line of the script where it arose."""
    if isinstance(error, SystemExit):
        return "it exits"
    place = ""
    if script is not None:
        lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == str(script)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        place = "" if line is None else f", line {line}"
    return f"{type(error).__name__}: {first_line(error)}{place}"
