"""What the original computes, and how far it is from itself: what compressed models are held to."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.metrics.metric import Judged
from qcc.compiler.observe.executor import HERE, Executor
from qcc.compiler.verify import outputs as verify
from qcc.compiler.verify.outputs import Floor, Floors, MakeRunner
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.in_pieces import InPieces

RANDOM = 1e-5  # of an output: sums in another order differ less
RANDOM_FACTOR = 2.0  # two independent draws, one of them of another model
PATIENCE_S = 10.0  # of all cores, for all samples: of a model that takes longer fewer are verified
LEAST = 8  # samples, however long they take
LEAST_IN_PIECES = 4  # of a model that is larger than memory
GIVE_DATA = "give data that it is meant for: `--data FILE.npz`"


@dataclass(frozen=True)
class Reference:
    """The samples that are held, what the original makes of them, and how near it is to itself where it is random."""

    samples: Samples
    outputs: list[dict[str, np.ndarray]]
    metrics: Sequence[Judged]
    floors: Floors = field(default_factory=dict)

    @property
    def sizes(self) -> list[int]:
        """Samples in each batch."""
        return [self.samples.size(batch) for batch in self.samples.batches]

    def compare(
        self, outputs: Sequence[Mapping[str, np.ndarray]], but: Collection[str] = ()
    ) -> tuple[verify.OutputCheck, ...]:
        """Another model's outputs beside the original's, but for some."""
        mine, other = ([_without(one, but) for one in batches] for batches in (self.outputs, outputs))
        return verify.compare(mine, other, self.sizes, self.metrics)

    @property
    def not_finite(self) -> list[str]:
        """The outputs of which the original makes nothing finite, where no other is left to judge."""
        checks = verify.compare(self.outputs, self.outputs, self.sizes)
        empty = [check for check in checks if check.unverified == verify.EMPTY]
        dead = [check.output for check in checks if check.unverified == verify.NOTHING_FINITE]
        return dead if len(dead) + len(empty) == len(checks) else []


def _without(batch: Mapping[str, np.ndarray], but: Collection[str]) -> dict[str, np.ndarray]:
    return {name: array for name, array in batch.items() if name not in but}


def run_reference(
    original: MakeRunner, samples: Samples, metrics: Sequence[Judged], executor: Executor = HERE
) -> Reference:
    """Run the original on as many samples as are verified, twice where it does not repeat itself.

    Args:
        original: makes what runs it.
        samples: to run on.
        metrics: that will be measured.
        executor: where it is run.

    Raises:
        ModelError: it fails.
    """
    one = samples.first(1)
    runner = original()
    here = partial(_same, runner)
    large = isinstance(runner, InPieces)
    early = samples.first(LEAST_IN_PIECES)
    ahead = early.batches if large and executor.workers == 1 else ()  # which reads each weight once
    first = [] if large else verify.run(here, one.batches)
    start = time.process_time()  # what else the machine does lets no sample go
    again = verify.run(here, [*one.batches * (2 if large else 1), *ahead])
    taken = (time.process_time() - start) / max(one.count + (early.count / 2 if ahead else 0), 1)
    first, again, made = (again[:1], again[1:2], again[2:]) if large else (first, again, [])
    size = sum(array.nbytes for array in first[0].values()) / max(one.count, 1)
    least = LEAST_IN_PIECES if large else LEAST
    most = min(verify.SAMPLES, max(int(PATIENCE_S // max(taken, 1e-9)), least))
    held = samples.first(max(min(most, int(verify.OUTPUT_BYTES // max(size, 1))), 1))
    whole = partial(verify.run, here if executor.workers == 1 else original, executor=executor)
    outputs = made if ahead and held.count == early.count else whole(held.batches)
    found = Reference(held, outputs, metrics)
    if not any(_moves(check) for check in verify.compare(first, again)):
        return found
    checks = found.compare(whole(held.batches))
    reason = "differs from itself from run to run"
    floors = {one.output: Floor(one, RANDOM_FACTOR, reason) for one in checks if _moves(one)}
    return Reference(held, outputs, metrics, floors)


def _same(runner: Runner) -> Runner:
    return runner


def not_finite(names: Sequence[str], generated: bool, more: str = "") -> ModelError:
    """The original gives too little that a compressed model could be held to."""
    data = "generated data" if generated else "this data"
    shown = ", ".join(f"`{name}`" for name in names)
    return ModelError("Q427", f"the model's own output is not finite on {data}: {shown}{more}", help=GIVE_DATA)


def _moves(check: verify.OutputCheck) -> bool:
    return check.plain.relative_error > RANDOM or bool(check.changed) or bool(check.notes)
