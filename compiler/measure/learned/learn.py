"""Timing layers of drawn shapes, to learn what others take; kept by machine, as all timings are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcc.codegen.target.cache import read_json, write_json
from qcc.codegen.target.target import AnyTarget
from qcc.compiler.measure.learned.timed import FEWEST, Judgement, LearnedTimes, TimedLayer, as_rows, from_rows, judged
from qcc.compiler.measure.time_forms import FLOAT, Case, Timings, named_form
from qcc.compiler.plan.plan import Kernels
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL, group
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.forms.bytes import BYTES
from qcc.ir.forms.fused import FUSED
from qcc.ir.forms.kernel import KERNEL
from qcc.ir.graph.form import Form
from qcc.passes.activations.static import Static
from qcc.passes.contract.activations import Activations

STEP = 64  # of which outputs and inputs are multiples, as those of real layers are
SMALLEST, LARGEST, MOST_ROWS = 64, 3072, 512
MOST_WEIGHTS = 1 << 22
INT4, INT8, ROW = Blocked(IntGrid(4), group(32)), Blocked(IntGrid(8), group(32)), Blocked(IntGrid(8), CHANNEL)


@dataclass(frozen=True)
class Learning:
    """What was learned on this machine.

    Args:
        times: all that were taken.
        judged: how well times held out are foretold, by number of threads.
    """

    times: int
    judged: Mapping[int, Judgement]


def learn(
    target: AnyTarget,
    kernels: Kernels | None,
    shapes: int,
    threads: Sequence[int],
    tick: Callable[[str], None],
) -> Learning:
    """Time layers of so many shapes on each number of threads, add them to what is known, and judge what they teach.

    Raises:
        QccError: a kernel cannot be built.
    """
    clocks = [Timings(target, kernels, tick, count) for count in threads]
    name = _file(clocks[0])
    layers = {_place(one): one for one in from_rows(read_json(name))}
    for case in drawn(shapes):
        for timings in clocks:
            layers |= {_place(one): one for one in _timed(timings, case, kernels)}
    found = list(layers.values())
    write_json(name, as_rows(found))
    return Learning(len(found), judged(found))


def _timed(timings: Timings, case: Case, kernels: Kernels | None) -> Iterator[TimedLayer]:
    """A layer in all forms."""
    for encoding, form, how in _ways(kernels):
        seconds = timings.seconds(case, encoding, (form,), how)
        for name in (FLOAT, form):
            told = FLOAT if name == FLOAT else named_form(form, how)
            yield TimedLayer.of(case, encoding, told, seconds[name], timings.threads)


def _place(layer: TimedLayer) -> tuple[object, ...]:
    """What a layer is, but for its time."""
    return layer.outputs, layer.inputs, layer.rows, layer.threads, layer.kind


def learned_times(timings: Timings) -> LearnedTimes | None:
    """What was learned for a target on this machine; None where too little was."""
    found = from_rows(read_json(_file(timings)))
    return LearnedTimes(found) if len(found) >= FEWEST else None


def drawn(count: int) -> Iterator[Case]:
    """Shapes in equal ratios, the ends among them; the same ones each time, more where more are asked for."""
    random = np.random.default_rng(0)
    yield from (Case(SMALLEST, SMALLEST, 1), Case(SMALLEST, SMALLEST, MOST_ROWS))
    yield from (Case(LARGEST, SMALLEST, 1), Case(SMALLEST, LARGEST, MOST_ROWS), Case(LARGEST // 2, LARGEST // 2, 1))
    left = count
    while left > 0:
        sizes = np.exp(random.uniform(np.log(SMALLEST), np.log(LARGEST), 2))
        outputs, inputs = (int(max(round(size / STEP), 1)) * STEP for size in sizes)
        rows = round(float(np.exp(random.uniform(0, np.log(MOST_ROWS)))))
        if outputs * inputs <= MOST_WEIGHTS:
            left -= 1
            yield Case(outputs, inputs, rows)


def _ways(kernels: Kernels | None) -> Iterator[tuple[Encoding, Form, Activations | None]]:
    """The formats and forms that are timed."""
    yield from ((INT4, FUSED, None), (INT8, FUSED, None), (ROW, BYTES, Static()))
    if kernels is not None:
        yield from ((INT4, KERNEL, None), (ROW, KERNEL, None))


def _file(timings: Timings) -> str:
    return f"learned-{timings.digest}.json"
