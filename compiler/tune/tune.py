"""Black-box search over a policy's parameters, judged on samples that neither calibrated nor chose."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qcc.codegen.target.scratch import scratch
from qcc.compiler.calibrate.arrays import flattened
from qcc.compiler.calibrate.chosen_data import chosen_data, named_data
from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.samples import Data
from qcc.compiler.compilation import Compilation
from qcc.compiler.console.phases import Progress, silent
from qcc.compiler.files.open_model import open_model
from qcc.compiler.files.system_errors import told
from qcc.compiler.observe.executor import Again, Executor
from qcc.compiler.plan.catalog import schema
from qcc.compiler.tune.space import Axis, Choice, Search
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import load_policy
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Array

EVERY = 4  # samples: of so many two calibrate, one chooses and one judges
LEAST = 12  # samples
CONFIDENT = 1.645  # standard errors: 95 % on one side
ROOM = 1.001  # times the bytes of the defaults' file


@dataclass(frozen=True)
class TunedTrial:
    """A choice of parameters that was run.

    Args:
        choice: by name; nothing for the defaults.
        size_bytes: of the file; infinite where none was written.
        lost: noise over signal of the outputs on the samples that choose.
        why: no file was written.
    """

    choice: Choice
    size_bytes: float
    lost: float
    why: str = ""


@dataclass(frozen=True)
class TuneResult:
    """What a search found.

    Args:
        trials: in order, the defaults first.
        best: which of them is best by the samples that choose; 0 for the defaults.
        lost: of the defaults and of the best on the samples that judge.
        beats: the best is better there, with 95 % confidence on a paired bound.
        samples: that calibrate, choose and judge.
    """

    trials: tuple[TunedTrial, ...]
    best: int
    lost: tuple[float, float]
    beats: bool
    samples: tuple[int, int, int] = field(default=(0, 0, 0))


def tune(
    model: Path,
    policy: str | Path,
    axes: Sequence[Axis],
    runs: int,
    data: Data | None,
    *,
    definitions: Mapping[str, str] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> TuneResult:
    """Search for parameters that lose less than the defaults in files that are no larger.

    Args:
        model: an ``.onnx`` file.
        policy: whose parameters are tried.
        axes: what values they may have.
        runs: compilations, the defaults' apart.
        data: half of it calibrates, a quarter chooses, and a quarter judges the choice; by default the policy's.
        definitions: values of parameters that stay.
        seed: of the search.
        progress: told of each run.

    Raises:
        QccError: the policy, the model or the data is at fault, or what the defaults ask for cannot be.
    """
    with told(), scratch() as folder, Again() as executor:
        loaded = load_policy(policy, schema(), definitions)
        if data is None and named_data(loaded) is None:
            raise ModelError("Q545", "a search is judged on data, and none is given", help="`--data FILE.npz`")
        opened = open_model(model)
        reference = opened.model.reference()
        samples = chosen_data(loaded, data, opened.graph, reference, {})
        ones = list(samples.parts(1))
        if len(ones) < LEAST:
            raise ModelError("Q545", f"{len(ones)} samples are too few to calibrate, choose and judge: give {LEAST}")
        parts = [[one for at, one in enumerate(ones) if at % EVERY in some] for some in ((0, 1), (2,), (3,))]
        wanted = [_outputs(reference, part) for part in parts[1:]]
        runner = _Runs(model, policy, definitions or {}, parts[0], folder, progress, executor)
        first = runner.made({}, 0)
        if isinstance(first, str):
            raise ModelError("Q545", f"with its defaults the policy makes no file: {first}")
        trials, noise = [], {0: (_noise(first, parts[1], wanted[0]), _noise(first, parts[2], wanted[1]))}
        trials.append(TunedTrial({}, first.size_bytes, float(noise[0][0].mean())))
        search, best = Search(axes, runs, seed), 0
        for at in range(1, runs + 1):
            choice = search.next(at - 1, trials[best].choice or None)
            if choice is None:
                break
            made = runner.made(choice, at)
            if isinstance(made, str):
                trials.append(TunedTrial(choice, math.inf, math.inf, made))
                continue
            noise[at] = _noise(made, parts[1], wanted[0]), _noise(made, parts[2], wanted[1])
            trials.append(TunedTrial(choice, made.size_bytes, float(noise[at][0].mean())))
            if trials[at].lost < trials[best].lost and made.size_bytes <= ROOM * trials[0].size_bytes:
                best = at
        lost = float(noise[0][1].mean()), float(noise[best][1].mean())
        sizes = len(parts[0]), len(parts[1]), len(parts[2])
        return TuneResult(tuple(trials), best, lost, _surely(noise[0][1] - noise[best][1]), sizes)


@dataclass(frozen=True)
class _Made:
    run: Runner
    size_bytes: int


@dataclass(frozen=True)
class _Runs:
    """Compiles with parameters."""

    model: Path
    policy: str | Path
    fixed: Mapping[str, str]
    data: Sequence[Batch]
    folder: Path
    progress: Progress
    executor: Executor

    def made(self, choice: Choice, at: int) -> _Made | str:
        """The model that a choice makes, or why it makes none.

        Raises:
            QccError: a value is none for its parameter.
        """
        policy = load_policy(self.policy, schema(), {**self.fixed, **choice})
        output = self.folder / f"{at}{self.model.suffix}"
        data = [dict(one) for one in self.data]
        given = self.model, policy, output, data, None, self.progress
        try:
            result = Compilation.prepare(*given, executor=self.executor).run(None)
        except (QccError, ModelError) as error:
            return str(error).split("\n", maxsplit=1)[0]
        if not result.passed:
            return "a bound of `verify` fails"
        return _Made(open_model(result.output).model.reference(), result.output_bytes)


def _outputs(run: Runner, ones: Sequence[Batch]) -> list[dict[str, Array]]:
    return [flattened(run(one)) for one in ones]


def _noise(made: _Made, ones: Sequence[Batch], wanted: Sequence[Mapping[str, Array]]) -> Array:
    """The power of the error of each sample over what outputs vary by in the mean, ``[samples]``."""
    found = _outputs(made.run, ones)
    total = np.zeros(len(ones))
    for pairs in _pairs(wanted, found):
        signal = [float(np.mean(one**2)) for one, _ in pairs]
        if len({one.shape for one, _ in pairs}) == 1:
            mean = np.mean([one for one, _ in pairs], 0)
            signal = [float(np.mean((one - mean) ** 2)) for one, _ in pairs]
        unit = float(np.mean(signal)) or 1.0
        total += [float(np.mean((one - other) ** 2)) / unit for one, other in pairs]
    return total


def _pairs(
    wanted: Sequence[Mapping[str, Array]], found: Sequence[Mapping[str, Array]]
) -> Iterator[list[tuple[Array, Array]]]:
    for name in wanted[0]:
        if wanted[0][name].dtype.kind == "f" and all(name in one for one in found):
            both = zip(wanted, found, strict=True)
            yield [(a[name].astype(np.float64), b[name].astype(np.float64)) for a, b in both]


def _surely(gains: Array) -> bool:
    """The mean of paired differences is above zero, with 95 % confidence."""
    error = float(np.std(gains, ddof=1)) / math.sqrt(len(gains))
    return bool(float(gains.mean()) > CONFIDENT * error) and bool(np.any(gains != 0))
