"""What a compilation will take, from a pre-flight: parts of the largest layer are rounded, and a piece is run.

What it will hold is computed from sizes: the largest layer while it is rounded, a piece while it runs, and a pass over
the data. A model that fits in memory is held whole.
"""

import hashlib
import resource
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from qcc.compiler.analyze.reached import reached
from qcc.compiler.calibrate.arrays import flattened
from qcc.compiler.calibrate.chosen_data import chosen_data
from qcc.compiler.calibrate.samples import Data
from qcc.compiler.console.phases import Phases, Progress, silent
from qcc.compiler.files.open_model import OpenModel, open_model
from qcc.compiler.files.system_errors import told
from qcc.compiler.measure.sensitivity import MEASURED_SAMPLES
from qcc.compiler.metrics.find import additive
from qcc.compiler.plan.bind import bind
from qcc.compiler.plan.plan import OpenChoice, Plan
from qcc.compiler.plan.targets import runtime_chooser
from qcc.compiler.scores.check import DROP
from qcc.compiler.verify import outputs
from qcc.compiler.verify.reference import LEAST, LEAST_IN_PIECES, PATIENCE_S
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import Policy
from qcc.ir.cores import cores
from qcc.ir.encoding.blocks import row_by_row
from qcc.ir.encoding.fit import encode
from qcc.ir.errors import Refused
from qcc.ir.graph import in_pieces
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Weight
from qcc.passes.encode import Encode

ROUNDED = 1 << 21  # weights that are rounded to see how long it takes
HELD = 20  # bytes for each weight of the layer that is being rounded: mapped, in order, decoded, codes, planes
FLOATS = 10  # copies of what the outputs hold while they are compared
BASE_BYTES = 200 << 20  # of what is loaded on the way
READ = 1 << 27  # bytes that are read to see how long it takes
READS = 5  # times that the model is read: hashed, encoded, run as it came twice, looked at
MILLION, GIGA, LARGE = 1e6, 1e9, 100_000_000
BEHIND = 0.5  # of a model runs again for a layer, on average


@dataclass(frozen=True)
class Estimate:
    """Of one compilation.

    Args:
        params: of the model.
        size_bytes: of its files.
        largest: weights of the largest layer.
        rounding_s: for rounding all weights that get fewer bits.
        running_s: for all runs over data.
        reading_s: for reading and writing files.
        peak_bytes: of memory, at most.
        disk_bytes: beside the output while it is made, at most.
        free_bytes: on that disk.
        measuring_s: for running each way in which what is open could be decided, at most.
        data: what the calibration data reaches, a line each.
    """

    params: int
    size_bytes: int
    largest: int
    rounding_s: float
    running_s: float
    reading_s: float
    peak_bytes: int
    disk_bytes: int
    free_bytes: int
    measuring_s: float = 0.0
    data: tuple[str, ...] = ()

    @cached_property
    def seconds(self) -> float:
        """All of it."""
        return self.rounding_s + self.running_s + self.measuring_s + self.reading_s

    def lines(self) -> list[str]:
        """For people."""
        parts = f"round {self.rounding_s:.0f}, run {self.running_s:.0f}"
        parts += f", measure what is open {self.measuring_s:.0f}" if self.measuring_s else ""
        each = self.params / GIGA
        large = self.params >= LARGE
        seconds, held = (
            f", {total / each:,.1f} {unit} per billion parameters" if large else ""
            for total, unit in ((self.seconds, "s"), (self.peak_bytes / GIGA, "GB"))
        )
        size, disk = (f"{count / GIGA:,.2f} GB" for count in (self.size_bytes, self.disk_bytes))
        found = [
            f"model     {_count(self.params)} parameters, {size}, the largest layer {_count(self.largest)}",
            f"time      about {self.seconds:,.0f} s{seconds}: {parts}, read and write {self.reading_s:.0f}",
            f"memory    at most {self.peak_bytes / GIGA:,.2f} GB{held}",
            f"disk      {disk} while it is made, {self.free_bytes / GIGA:,.0f} GB are free",
        ]
        return [*found, *(f"{'' if at else 'data':<10}{line}" for at, line in enumerate(self.data))]

    def as_json(self) -> dict[str, object]:
        """For programs."""
        each = self.params / GIGA or 1.0
        return {
            "params": self.params,
            "seconds": self.seconds,
            "measuring_seconds": self.measuring_s,
            "seconds_per_billion": self.seconds / each,
            "peak_bytes": self.peak_bytes,
            "gigabytes_per_billion": self.peak_bytes / GIGA / each,
            "disk_bytes": self.disk_bytes,
            "data": list(self.data),
        }


def _count(number: int) -> str:
    if number < MILLION:
        return f"{number:,}"
    return f"{number / MILLION:,.1f} million" if number < LARGE else f"{number / GIGA:,.2f} billion"


def estimate(
    model: Path,
    policy: Policy,
    *,
    output: Path | None = None,
    data: Data | None = None,
    dims: Mapping[str, int] | None = None,
    progress: Progress = silent,
) -> Estimate:
    """Estimate what compiling a model under a policy takes; nothing is written.

    Raises:
        QccError: the policy, the model or the data is at fault.
    """
    with told():
        phases, opened = Phases(progress), open_model(model)
        with phases.phase("estimate"):
            diagnostics, bare = Diagnostics(), replace(policy, budget=(), minimize=next(iter(additive())))
            plan = bind(bare, opened.graph, opened.size_bytes, diagnostics, runtime_chooser(policy))
            diagnostics.raise_if_errors()
            runner = opened.model.reference()
            given = chosen_data(policy, data, opened.graph, runner, dims or {})
            samples = given.first(1)
            start = time.process_time()
            made = flattened(runner(samples.batches[0]))
            run_s = (time.process_time() - start) / cores() / max(samples.count, 1)
            found = _estimate(opened, plan, run_s, made, (output or model).parent)
            found = replace(found, measuring_s=_measuring(policy, plan, run_s * min(given.count, MEASURED_SAMPLES)))
            few = run_s * given.count < PATIENCE_S
            return (
                found if given.generated else replace(found, data=reached(opened.graph, given, runner if few else None))
            )


def _estimate(opened: OpenModel, plan: Plan, run_s: float, made: Mapping[str, np.ndarray], folder: Path) -> Estimate:
    graph, size = opened.graph, opened.size_bytes
    weights = graph.weights()
    large = size > in_pieces.LARGE_BYTES
    params = sum(weight.params for weight in weights)
    largest = max((weight.params for weight in weights), default=0)
    least = LEAST_IN_PIECES if large else LEAST
    held = min(outputs.SAMPLES, max(int(PATIENCE_S / max(run_s * cores(), 1e-9)), least))
    rounding_s, coded = _rounding(graph, plan, {weight.name: weight for weight in weights})
    out_bytes = held * sum(array.nbytes for array in made.values())
    once = _constants(opened, large)
    peak = _resident() + BASE_BYTES + max(HELD * largest, once + FLOATS * out_bytes)
    return Estimate(
        params=params,
        size_bytes=size,
        largest=largest,
        rounding_s=rounding_s,
        running_s=run_s * (2 * held + 4),
        reading_s=size * READS / _rate(opened.path, size),
        peak_bytes=peak,
        disk_bytes=int(coded * (3 if large else 2)),
        free_bytes=shutil.disk_usage(folder.resolve()).free,
    )


def _measuring(policy: Policy, plan: Plan, all_s: float) -> float:
    """Seconds for measuring what is open, if the policy goes by losses; all samples once take ``all_s``."""
    named = {policy.minimize, *(one.metric for one in policy.budget)}
    tried = sum(one.action is not None for option in _open(plan) for one in option.candidates)
    return all_s * tried * BEHIND if named & {*additive(), DROP} else 0.0


def _open(plan: Plan) -> tuple[OpenChoice, ...]:
    return plan.allocate.options if plan.allocate else ()


def _constants(opened: OpenModel, large: bool) -> int:
    """What a session holds at once of a model, twice: as it came, and as it was written."""
    if not large:
        return 2 * opened.size_bytes
    largest = max((weight.params for weight in opened.graph.weights()), default=0)
    return 2 * (in_pieces.PIECE_BYTES + 4 * largest)


def _rounding(graph: Graph, plan: Plan, weights: Mapping[str, Weight]) -> tuple[float, float]:
    """The seconds that rounding takes, and the bytes of what it makes; what is open takes all candidates."""
    work = [(step.action, weights[name]) for step in plan.steps for name in step.weights if name in weights]
    for option in (one for one in _open(plan) if one.stores_weight):
        work += [(one.action, weights[option.subject]) for one in option.candidates if one.action is not None]
    seconds, size = 0.0, 0.0
    rates: dict[str, float] = {}
    for action, weight in sorted(work, key=lambda one: -one[1].params):  # the largest tells the rate
        if not isinstance(action, Encode):
            continue
        key = f"{action.encoding.text} {action.rounding!r}"
        if key not in rates:
            rates[key] = _rate_of(graph, action, weight)
        seconds += rates[key] * weight.params
        parts = action.encoding.parts(weight.shape).values()
        size += sum(float(np.prod(part.shape)) * part.bits / 8 for part in parts)
    return seconds, size


def _rate_of(graph: Graph, action: Encode, weight: Weight) -> float:
    """Seconds that rounding to nearest takes for each weight, tried on some rows."""
    matrix = graph.matrix(weight)
    rows = row_by_row(matrix[: max(ROUNDED // max(matrix.shape[1], 1), 1)])
    start = time.perf_counter()
    with suppress(Refused):  # so will the weight be, and costs nothing
        encode(rows[:1], action.encoding).decode()  # what is loaded and made once is no rate
        start = time.perf_counter()
        encode(rows, action.encoding).decode()
    return (time.perf_counter() - start) / max(rows.size, 1)


def _rate(path: Path, size: int) -> float:
    """Bytes that are read in a second, tried on a part of the file or its data."""
    names = sorted(path.parent.glob(f"{path.stem}*"), key=lambda one: one.stat().st_size)
    start, digest = time.perf_counter(), hashlib.sha256()
    with names[-1].open("rb") as file:
        digest.update(file.read(min(READ, size)))
        read = file.tell()
    return read / max(time.perf_counter() - start, 1e-9)


def _resident() -> int:
    """What this process has held at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
