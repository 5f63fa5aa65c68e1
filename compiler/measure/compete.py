"""Which way of running is taken for a written model that is slower than it need be."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from qcc.codegen.target.find import spelled_native
from qcc.codegen.target.scratch import scratch
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.measure.time_model import Entrant, ModelTimes, fastest, races
from qcc.compiler.plan.activations import untargeted
from qcc.compiler.plan.bind import steps_of
from qcc.compiler.plan.plan import Plan, PlanRow, Step
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.ir.forms.choose import unpacked_form
from qcc.ir.graph.ops import Weight
from qcc.passes.encode import Encode

INPUT, AS_IT_IS, DECODED, WITHOUT_KERNELS = range(4)


def faster_plan(
    plan: Plan,
    weights: Mapping[str, Weight],
    times: ModelTimes,
    files: tuple[Path, Path, Path | None],
    write: Callable[[Plan, Path], Path],
    data: Samples,
    providers: Sequence[str],
) -> Plan | None:
    """A plan that runs faster than the one that was written; None if that stands.

    It stands unless it is slower than its input, or than itself without its kernels. Then it is raced, at each number
    of threads, against the same file without its library and against all weights decoded at load, whose speed is the
    float model's.

    Args:
        plan: decided and written.
        weights: of the graph, by name.
        times: of what was written.
        files: the input, what was written, and its library.
        write: writes a plan's model near a path, and tells where.
        data: its first sample is run.
        providers: of the runtime, by which models are run.
    """
    if not times.slower and not times.kernels_lose:
        return None
    original, written, library = files
    rival = decoded(plan, weights)
    if rival == plan:
        return None
    with scratch() as folder:
        other = write(rival, folder / written.name)
        runs = [(original, None), (written, library), (other, None), *([(written, None)] if library else [])]
        entrants = [Entrant(model, beside, providers) for model, beside in runs]
        found = races(entrants, data)
    best = fastest(found, range(AS_IT_IS, len(entrants)), INPUT)
    return {AS_IT_IS: None, DECODED: rival, WITHOUT_KERNELS: untargeted(plan)}[best]


def decoded(plan: Plan, weights: Mapping[str, Weight]) -> Plan:
    """The plan with all that could be read by a kernel, the runtime's own or ours, decoded at load."""
    steps: dict[Encode, list[PlanRow]] = {}
    others: list[Step] = []
    for step in plan.steps:
        if not isinstance(step.action, Encode):
            others.append(step)
            continue
        for row in step.rows:
            action = step.action
            if action.form.packed and action.activations is None:
                action = replace(action, form=unpacked_form(weights[row[0]], action.encoding))
            steps.setdefault(action, []).append(row)
    return untargeted(replace(plan, steps=(*others, *steps_of(steps))))


def warn_of_no_library(times: ModelTimes, diagnostics: Diagnostics) -> None:
    """Say by how much a model loses with its kernels, and where."""
    lost = times.kernels_lose
    race, base, of = (lost[0], 1, "the same file without") if lost else (times.slower[0], 0, "its input")
    message = f"with kernels the model takes {race.ratio(2, base).median:.2f}x the time of {of}, {race.threads_text}"
    help = "the file runs in plain ONNX Runtime; other formats or other numbers of rows may gain"
    diagnostics.warning("Q506", f"no library is written: {message}", help=help)


def warn_if_slower(times: ModelTimes | None, timed: bool, diagnostics: Diagnostics) -> None:
    """Say by how much a written model loses to its input, and what may help: its layers were ``timed``, or not."""
    if times is None or not times.slower:
        return
    race = times.slower[0]
    message = f"the file is slower than its input: {race.ratio(times.entrant).median:.2f}x the time"
    help = f"`{spelled_native()}` times every form of a layer and takes the fastest"
    help = "give the layers other formats or `float` as candidates, and `minimize latency`" if timed else help
    diagnostics.warning("Q507", f"{message}, {race.threads_text}", help=help)
