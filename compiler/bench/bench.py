"""Timing models against each other, and holding what they compute to the first."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from qcc.compiler.bench.feeds import Wanted, feeds
from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.console.phases import Progress
from qcc.compiler.files.kernel_library import kernels_beside
from qcc.compiler.files.open_model import open_model
from qcc.compiler.measure.timing import Ratio, Turns, interleaved, paired
from qcc.compiler.runtime.kernel_nodes import KernelNode
from qcc.compiler.runtime.resident import Resident, resident
from qcc.compiler.runtime.session import Session
from qcc.compiler.verify import outputs as verify
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.graph.ops import Value
from qcc.ir.open_file import is_program

TURN_S = 0.01
NEEDS_DATA = "`--data` gives inputs that the model accepts; `--dim` and `--sequence` set the sizes of generated ones"

Run = tuple[Path, bool]  # a model, and whether it has its library


@dataclass(frozen=True)
class Contender:
    """A model as it is run.

    Args:
        model: its file.
        library: the kernel library it is run with, None without.
        label: what it is called, alone of its name.
        size_bytes: of the model with its data files.
        library_bytes: of the library.
        nodes: that a kernel may run.
    """

    model: Path
    library: Path | None
    label: str
    size_bytes: int
    library_bytes: int
    nodes: tuple[KernelNode, ...]


@dataclass(frozen=True)
class Setting:
    """What all models were timed on: threads, batch, the shapes of the inputs; ``seconds [entries, rounds]``."""

    threads: int
    batch: int
    shapes: Mapping[str, tuple[int, ...]]
    seconds: np.ndarray

    def quartiles(self, entry: int) -> tuple[float, float, float]:
        """The first quartile, the median and the third, in seconds."""
        low, middle, high = np.percentile(self.seconds[entry], (25, 50, 75))
        return float(low), float(middle), float(high)

    def ratio(self, entry: int) -> Ratio:
        """An entry's time over the first's, round by round, so that what slows a round slows both."""
        return paired(self.seconds[entry], self.seconds[0])


@dataclass(frozen=True)
class Closeness:
    """How far outputs are from the first model's, at worst over outputs and settings.

    ``sqnr`` is in dB; ``relative_error`` is the largest error over the largest value.
    """

    sqnr: float = math.inf
    relative_error: float = 0.0

    def worse(self, checks: Sequence[verify.OutputCheck]) -> "Closeness":
        """The worst of this and of a comparison."""
        sqnr = min([self.sqnr, *(one.plain.sqnr for one in checks)])
        return Closeness(sqnr, max([self.relative_error, *(one.plain.relative_error for one in checks)]))


@dataclass(frozen=True)
class Bench:
    """The result; ``closeness`` is by entry, the first's being to itself; so is ``kept``, what sessions keep in memory,
    where that was asked for.
    """

    entries: tuple[Contender, ...]
    settings: tuple[Setting, ...]
    closeness: tuple[Closeness, ...]
    data: str
    kept: tuple[Resident | None, ...] = ()


def bench(
    models: Sequence[Path],
    threads: Sequence[int],
    wanted: Wanted,
    rounds: int,
    plain: bool,
    progress: Progress,
    memory: bool = False,
) -> Bench:
    """Time models.

    Args:
        models: files; inputs are generated for the first, and its outputs are what others are held to.
        threads: settings, one after the other; sessions are open for one of them at a time.
        wanted: the inputs.
        rounds: turns of each model in each setting.
        plain: run what has a library without it, too.
        progress: told what is being done.
        memory: measure what each session keeps, in a process of its own.

    Raises:
        QccError: a file is missing, a model does not load or run, or takes or gives other names than the first.
        ModelError: a file is no model, or data does not fit.
        UsageError: sizes do not fit the first model.
    """
    missing = [Diagnostic("Q400", f"no such file: `{model}`") for model in models if not model.is_file()]
    if missing:
        raise QccError(missing)
    runs = tuple((model, kernels) for model in models for kernels in _kernels(model, plain))
    progress("opening the models", 0, 0, "")
    for one in filter(is_program, models):
        Session(one)  # says why it cannot be timed
    batches = feeds(open_model(models[0]).graph, wanted)
    settings: list[Setting] = []
    closeness = [Closeness()] * len(runs)
    for count in threads:
        sessions = _opened(runs, count)
        for batch, given in batches.items():
            checks = _compared(sessions, given)
            closeness = [old.worse(new) for old, new in zip(closeness, checks, strict=True)]
            seconds = _timed(sessions, given, rounds, count, partial(progress, f"timing {setting_text(batch, count)}"))
            settings.append(Setting(count, batch, {name: array.shape for name, array in given.items()}, seconds))
        entries = _entries(runs, sessions)
        sessions.clear()  # before others are opened
    kept = tuple(_kept(one, threads[0], next(iter(batches.values())), progress) for one in entries) if memory else ()
    return Bench(entries, tuple(settings), tuple(closeness), str(wanted.data) if wanted.data else "generated", kept)


def _kept(entry: Contender, threads: int, given: Batch, progress: Progress) -> Resident | None:
    progress(f"measuring the memory of {entry.label}", 0, 0, "")
    return resident(entry.model, entry.library, threads, given)


def setting_text(batch: int, threads: int) -> str:
    """A setting in words."""
    return f"batch {batch}, {threads} thread{'' if threads == 1 else 's'}"


def _opened(runs: Sequence[Run], threads: int) -> list[Session]:
    sessions = [Session(model, kernels, threads) for model, kernels in runs]
    for one in sessions[1:]:
        _check_alike(sessions[0], one)
    return sessions


def _timed(
    sessions: Sequence[Session], given: Batch, rounds: int, threads: int, tick: Callable[[int, int, str], None]
) -> np.ndarray:
    turns = Turns(rounds, TURN_S, warm=True, settle=threads > 1, own=threads == 1)
    return interleaved(
        [partial(one.run, one.coded(given)) for one in sessions], turns, lambda done, total: tick(done, total, "")
    )


def _kernels(model: Path, plain: bool) -> tuple[bool, ...]:
    """With and without a library, as far as there is one."""
    there = kernels_beside(model).is_file()
    return (True, False) if there and plain else (there,)


def _entries(runs: Sequence[Run], sessions: Sequence[Session]) -> tuple[Contender, ...]:
    made = []
    for (model, kernels), session in zip(runs, sessions, strict=True):
        alone = {path for path, _ in runs if path.name == model.name} == {model}
        label = model.name if alone else str(model)
        label += ", plain" if not kernels and (model, True) in runs else ""
        library = session.kernels
        size = library.stat().st_size if library else 0
        made.append(Contender(model, library, label, session.size_bytes, size, session.nodes))
    return tuple(made)


def _check_alike(first: Session, other: Session) -> None:
    """Hold a model to the names and types of the first.

    Raises:
        QccError: it takes or gives others.
    """

    def pair(which: str) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
        return first.in_floats(getattr(first, which)), other.in_floats(getattr(other, which))

    for kind, wanted, given in (("takes", *pair("inputs")), ("gives", *pair("outputs"))):
        ours, theirs = ({value.name: value.dtype for value in values} for values in (wanted, given))
        if kind == "gives":
            ours, theirs = dict.fromkeys(ours, ""), dict.fromkeys(theirs, "")
        if ours != theirs:
            told = (f"{name} {dtype}".strip() for name, dtype in theirs.items())
            message = f"`{other.path}` {kind} {', '.join(told) or 'nothing'}, unlike `{first.path}`"
            shown = ", ".join(f"{name} {dtype}".strip() for name, dtype in ours.items())
            raise QccError([Diagnostic("Q426", message, help=f"the first {kind} {shown or 'nothing'}")])


def _compared(sessions: Sequence[Session], given: Batch) -> list[tuple[verify.OutputCheck, ...]]:
    """Run each once, which also warms it, and compare with the first.

    Raises:
        QccError: one fails, or gives another shape than the first.
    """
    outputs = []
    for session in sessions:
        try:
            outputs.append(session.decoded(session.run(session.coded(given))))
        except QccError as error:
            raise QccError([Diagnostic(one.code, one.message, help=NEEDS_DATA) for one in error.diagnostics]) from error
        for name, array in outputs[-1].items():
            if array.shape != outputs[0][name].shape:
                shapes = f"{array.shape}, not {outputs[0][name].shape}"
                raise QccError([Diagnostic("Q426", f"`{session.path}` gives `{name}` of shape {shapes}")])
    return [verify.compare([outputs[0]], [one]) for one in outputs]
