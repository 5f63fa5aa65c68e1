"""A loop that a script runs: the way out where no description fits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Array
from qcc.ir.script import fault_in, run_script

FUNCTION = "sample"
MODULE = "qcc_sample"
SEEDS = 8
WANTED = f"define `def {FUNCTION}(run, seed):`, where `run(feeds)` gives the outputs by name; it returns the sample"

Sample = Callable[[Runner, int], object]


@dataclass(frozen=True)
class ScriptLoop:
    """A loop by a function of a model that runs and a seed.

    Args:
        function: returns the sample of a seed.
        seeds: for all that is chosen.
        judged: seeds that nothing is chosen on.
        name: of the script, for messages.
    """

    function: Sample
    seeds: tuple[int, ...] = tuple(range(SEEDS))
    judged: tuple[int, ...] = tuple(range(SEEDS, 2 * SEEDS))
    name: str = "the function"

    def samples(self, run: Runner, seeds: Sequence[int]) -> Array:
        """What the loop makes of seeds, ``[seed, ...]``.

        Raises:
            ModelError: the function fails, or returns no samples of one shape.
        """
        found = [self._sample(run, seed) for seed in seeds]
        if len({one.shape for one in found}) > 1:
            raise ModelError("Q572", f"`{self.name}` returns samples of different shapes", help=WANTED)
        made = np.stack(found)
        if not np.isfinite(made).all():
            raise ModelError("Q572", f"`{self.name}` makes samples that are not finite")
        return made

    def feeds(self, run: Runner, seeds: Sequence[int]) -> list[Mapping[str, Array]]:
        """All that the loop feeds the model, in order."""
        seen: list[Mapping[str, Array]] = []

        def told(feeds: Mapping[str, Array]) -> dict[str, Array]:
            seen.append({name: np.array(array) for name, array in feeds.items()})
            return run(feeds)

        self.samples(told, seeds)
        return seen

    def _sample(self, run: Runner, seed: int) -> Array:
        try:
            return np.asarray(self.function(run, seed), np.float32)
        except (Exception, SystemExit) as error:  # whatever a function may raise
            raise ModelError("Q572", f"`{self.name}` fails: {fault_in(error, None)}", help=WANTED) from error


def from_script(path: Path) -> ScriptLoop:
    """The loop of a script that defines ``sample(run, seed)``, and maybe ``SEEDS``, how many to choose on.

    Raises:
        ModelError: there is none, or the script fails.
    """
    module = run_script(path, MODULE, "Q570")
    function, count = getattr(module, FUNCTION, None), getattr(module, "SEEDS", SEEDS)
    if not callable(function) or not isinstance(count, int) or count < 1:
        raise ModelError("Q570", f"the script `{path}` defines no loop", help=WANTED)
    return ScriptLoop(function, tuple(range(count)), tuple(range(count, 2 * count)), path.name)
