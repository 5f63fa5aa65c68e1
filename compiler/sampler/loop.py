"""A sampling loop as its author describes it, in a file beside the policy."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from qcc.compiler.sampler.noise import GRIDS, NAMED, NoiseSchedule, from_table
from qcc.compiler.sampler.solvers import PREDICTIONS, RENOISE, SOLVERS, rows
from qcc.compiler.sampler.table import LoopTable
from qcc.dsl.diagnostics.spelling import did_you_mean
from qcc.ir.errors import ModelError, first_line
from qcc.ir.graph.graph import Graph

SEEDS = 8
EVALUATIONS = 50
REFERENCE = 100  # evaluations of the loop that a searched one is held to
MOST = 1000
KNOWN = {
    "": (
        *("latent", "step", "output", "prediction", "solver", "evaluations", "seeds", "judged", "reference"),
        *("schedule", "grid", "inputs", "sizes"),
    ),
    "schedule": ("kind", "step", "alpha", "sigma"),
    "grid": ("spacing", "begin", "end", "steps", "least"),
}


@dataclass(frozen=True)
class SamplingLoop:
    """A loop: names of the model's inputs and output, what it predicts, the noise by step, and how it is solved.

    Args:
        latent: the input that the loop feeds what it made.
        step: the input that is told the step; empty if there is none.
        output: that it goes by.
        prediction: what the output is: see `PREDICTIONS`.
        solver: see `SOLVERS`, or ``renoise``.
        schedule: of the noise.
        steps: at which the model is run, and where the loop ends; None for a grid.
        spacing: of the grid.
        begin: the first step.
        end: where the loop ends.
        least: noise that samples still hold where it is added anew.
        evaluations: of the model, a sample.
        seeds: from which noise is drawn, for all that is chosen.
        judged: seeds that nothing is chosen on, for verification.
        reference: evaluations of the loop that a searched one is held to.
        inputs: values of other inputs, of which each seed takes one in turn.
        sizes: of the latent's free axes, by name.
    """

    latent: str
    step: str
    output: str
    prediction: str
    solver: str
    schedule: NoiseSchedule
    steps: tuple[float, ...] | None
    spacing: str
    begin: float
    end: float
    least: float
    evaluations: int
    seeds: tuple[int, ...]
    judged: tuple[int, ...]
    reference: int
    inputs: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    def grid(self, evaluations: int) -> tuple[float, ...]:
        """The steps of so many evaluations, and where the loop ends."""
        if self.steps is not None and evaluations == self.evaluations:
            return self.steps
        if self.steps is not None:  # as many, where they lie
            places = np.linspace(0, len(self.steps) - 1, evaluations + 1)
            return tuple(map(float, np.interp(places, np.arange(len(self.steps)), self.steps)))
        return tuple(map(float, GRIDS[self.spacing](self.schedule, self.begin, self.end, evaluations)))

    def table(self, evaluations: int | None = None) -> LoopTable:
        """The loop as a table.

        Raises:
            ModelError: a step cannot be made.
        """
        return self.over(self.grid(evaluations or self.evaluations), self.solver)

    def over(self, steps: Sequence[float], solver: str | Sequence[int]) -> LoopTable:
        """The loop over other steps, by a solver or by the order of each step.

        Raises:
            ModelError: a step cannot be made.
        """
        try:
            made = rows(self.schedule, self.prediction, solver, steps, self.least)
        except ValueError as error:
            raise ModelError("Q570", f"the loop cannot be run: {error}") from error
        scale = math.hypot(*self.schedule.at(steps[0])) if self.schedule.at(steps[0])[0] == 0 else 0.0
        scale = scale or self.schedule.at(steps[0])[1]
        names = self.latent, self.step, self.output
        return LoopTable(*names, made, scale, self.inputs, self.sizes, seeds=self.seeds)

    def with_evaluations(self, evaluations: int | None) -> "SamplingLoop":
        """The same loop with as many evaluations."""
        if evaluations is None or evaluations == self.evaluations:
            return self
        steps = None if self.steps is None else self.grid(evaluations)
        return replace(self, evaluations=evaluations, steps=steps)


def read_loop(path: Path) -> SamplingLoop:
    """Read a loop from a ``.toml`` file.

    Raises:
        ModelError: it cannot be read, or describes none.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError("Q570", f"cannot read `{path}`: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:  # no TOML, or no text
        raise ModelError("Q570", f"`{path}` is no TOML: {first_line(error)}") from error
    try:
        return _loop(content)
    except (ValueError, TypeError, OverflowError) as error:
        message, _, help = str(error).partition("\n")
        raise ModelError("Q570", f"`{path}` describes no loop: {message}", help=help or None) from error


def _loop(content: Mapping[str, Any]) -> SamplingLoop:
    for table, known in KNOWN.items():
        _see_known(content.get(table, {}) if table else content, known, table)
    schedule, grid = _schedule(content.get("schedule", {})), content.get("grid", {})
    inputs = {name: _values(name, one) for name, one in content.get("inputs", {}).items()}
    steps = grid.get("steps")
    if steps is not None:
        steps = tuple(map(float, steps))
        if len(steps) < 2 or not all(map(math.isfinite, steps)) or len(set(steps)) < len(steps):
            raise ValueError("`grid.steps` are two or more numbers, no two alike: the last is where the loop ends")
    evaluations = len(steps) - 1 if steps is not None else _whole(content, "evaluations", EVALUATIONS)
    if steps is not None and content.get("evaluations", evaluations) != evaluations:
        raise ValueError(f"`grid.steps` are {evaluations} evaluations, and `evaluations` says another number")
    longest = max((len(one) for one in inputs.values()), default=0)
    seeds = _seeds(content.get("seeds", max(SEEDS, 2 * longest)), 0)
    judged = _seeds(content.get("judged", len(seeds)), max(seeds) + 1)
    if set(seeds) & set(judged):
        raise ValueError("`judged` names seeds that are in `seeds`: what is chosen on them is not judged by them")
    return SamplingLoop(
        _text(content, "latent"),
        _text(content, "step", ""),
        _text(content, "output"),
        _word(content, "prediction", PREDICTIONS),
        _word(content, "solver", (*SOLVERS, RENOISE), "ddim"),
        schedule,
        steps,
        _word(grid, "spacing", GRIDS, "uniform"),
        _number(grid, "begin", schedule.begin),
        _number(grid, "end", schedule.end),
        _number(grid, "least", 0.0),
        evaluations,
        seeds,
        judged,
        _whole(content, "reference", max(REFERENCE, evaluations)),
        inputs,
        {name: _whole(content["sizes"], name, 1) for name in content.get("sizes", {})},
    )


def _schedule(content: Mapping[str, Any]) -> NoiseSchedule:
    if "alpha" in content or "sigma" in content:
        if missing := [name for name in ("step", "alpha", "sigma") if name not in content]:
            raise ValueError(f"`schedule` is a table and has no `{missing[0]}`")
        return from_table(content["step"], np.asarray(content["alpha"]), np.asarray(content["sigma"]))
    return NAMED[_word(content, "kind", NAMED, "cosine")]()


def _see_known(content: object, known: Sequence[str], table: str) -> None:
    if not isinstance(content, Mapping):
        raise ValueError(f"`{table}` is a table")
    for name in content:
        if name not in known:
            raise ValueError(f"unknown key `{table + '.' if table else ''}{name}`\n{did_you_mean(name, known) or ''}")


def _text(content: Mapping[str, Any], name: str, default: str | None = None) -> str:
    found = content.get(name, default)
    if not isinstance(found, str) or (not found and default is None):
        raise ValueError(f"`{name}` is the name of an input or output of the model")
    return found


def _word(content: Mapping[str, Any], name: str, known: Mapping[str, object] | Sequence[str], default: str = "") -> str:
    found = content.get(name, default)
    if found not in known:
        told = ", ".join(f"`{one}`" for one in known)
        raise ValueError(f"`{name}` is one of {told}, not `{found}`\n{did_you_mean(str(found), known) or ''}")
    return str(found)


def _number(content: Mapping[str, Any], name: str, default: float) -> float:
    found = content.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise ValueError(f"`{name}` is a number, not `{found}`")
    return float(found)


def _whole(content: Mapping[str, Any], name: str, default: int) -> int:
    found = content.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= 1 << 20:
        raise ValueError(f"`{name}` is a whole number of 1 or more, not `{found}`")
    return found


def _seeds(found: object, begin: int) -> tuple[int, ...]:
    if isinstance(found, int) and not isinstance(found, bool) and 1 <= found <= MOST:
        return tuple(range(begin, begin + found))
    if isinstance(found, list) and found and all(type(one) is int and one >= 0 for one in found):
        return tuple(found)
    raise ValueError(f"seeds are a number of them, or a list of whole numbers, not `{found}`")


def _values(name: str, found: object) -> tuple[float, ...]:
    values = found if isinstance(found, list) else [found]
    if not values or not all(isinstance(one, int | float) for one in values):
        raise ValueError(f"`inputs.{name}` is a number, or a list of which each seed takes one in turn")
    return tuple(values)


def check_loop(loop: SamplingLoop, graph: Graph, path: Path) -> None:
    """See that a loop is of a model.

    Raises:
        ModelError: it names what the model has not, or leaves out what it needs.
    """
    inputs, outputs = {one.name: one for one in graph.inputs}, {one.name: one for one in graph.outputs}
    for name, known, what in (
        *((one, inputs, "input") for one in (loop.latent, *([loop.step] if loop.step else []), *loop.inputs)),
        (loop.output, outputs, "output"),
    ):
        if name not in known:
            help = did_you_mean(name, known)
            raise ModelError("Q571", f"`{path}` is of another model: there is no {what} `{name}`", help=help)
    told = {loop.latent, loop.step, *loop.inputs}
    if missing := [name for name in inputs if name not in told]:
        help = f"give it a value under `[inputs]`: `{missing[0]} = 0`"
        raise ModelError("Q571", f"`{path}` does not say what the input `{missing[0]}` is fed", help=help)
    latent, made = inputs[loop.latent], outputs[loop.output]
    if latent.dtype not in ("float32", "float16") or not latent.shape:
        raise ModelError("Q571", f"the latent `{loop.latent}` is no tensor of float32 or float16 with axes")
    for axis in latent.shape[1:]:
        if not isinstance(axis, int) and axis not in loop.sizes:
            help = f"write `{axis} = ...` under `[sizes]`" if axis else "export the model with a size, or a name, there"
            raise ModelError("Q571", f"`{path}` does not say how large the axis `{axis}` of the latent is", help=help)
    pairs = zip(latent.shape, made.shape or latent.shape, strict=False)
    if len(made.shape or latent.shape) != len(latent.shape) or any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs
    ):
        message = f"the output `{loop.output}` {made.shape} is not of the shape of the latent {latent.shape}"
        raise ModelError("Q571", message)
