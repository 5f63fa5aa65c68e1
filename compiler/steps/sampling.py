"""What a compilation does with a loop: data from it, its table, files beside the model, and final samples compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from qcc.compiler.calibrate.samples import Samples, load
from qcc.compiler.metrics.find import to_measure
from qcc.compiler.plan.catalog import Export
from qcc.compiler.sampler.drive import Driver, whole_driver
from qcc.compiler.sampler.loop import SamplingLoop, check_loop, read_loop
from qcc.compiler.sampler.script import ScriptLoop, from_script
from qcc.compiler.sampler.table import WHOLE, LoopTable, beside
from qcc.compiler.steps.search import distance, searched
from qcc.compiler.steps.step_cache import StepCaching
from qcc.compiler.steps.told import LoopTold
from qcc.compiler.verify.outputs import Verification, compare, judge
from qcc.dsl.policy.policy import Policy, SamplerFile, StepCache
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Array, Value
from qcc.ir.model.whole_files import sha256
from qcc.ir.open_file import open_file

OUTPUT = "samples"
"""What verification calls what the loop makes at last."""
SAMPLES = 64  # of the evaluations of a loop, where nothing says how many
Opens = Callable[[Path], Runner]


@dataclass
class Sampling:
    """A policy's loop over a model.

    Args:
        file: the policy's statement.
        loop: that it names.
        original: runs the model as it came.
        inputs: of the model.
        graph: of the model, cleaned.
        cache: what steps share, if they do.
    """

    file: SamplerFile
    loop: SamplingLoop | ScriptLoop
    original: Runner
    inputs: Sequence[Value]
    graph: Graph | None = None
    cache: StepCache | None = None
    _distance: float = field(default=0.0, init=False)
    _files: tuple[str, ...] = field(default=(), init=False)

    @classmethod
    def of(cls, policy: Policy, graph: Graph, original: Runner) -> "Sampling | None":
        """The loop of a policy, if it names one.

        Raises:
            ModelError: it cannot be read, or is of another model.
        """
        file = policy.sampler
        if file is None:
            return None
        path = Path(file.path)
        if path.suffix.lower() == ".py":
            if file.evaluations or file.search:
                message = f"the steps of `{file.name}` are known to it alone: they are neither counted nor searched for"
                raise ModelError("Q573", message, help="describe the loop in a `.toml` file")
            return cls(file, from_script(path), original, graph.inputs)
        loop = read_loop(path)
        check_loop(loop, graph, path)
        return cls(file, loop, original, graph.inputs, graph, policy.step_cache)

    @cached_property
    def table(self) -> LoopTable | None:
        """The loop that is written, searched for where that is asked; None of a script."""
        if not isinstance(self.loop, SamplingLoop):
            return None
        evaluations = self.file.evaluations or self.loop.evaluations
        if self.file.search:
            return searched(self.loop, evaluations, self.file.search, self._of_original)
        return self.loop.table(evaluations)

    def _of_original(self, table: LoopTable) -> Driver:
        return whole_driver(table, self.inputs, self.original)

    def data(self, graph: Graph, limit: int | None, seed: int) -> Samples:
        """Feeds from all over the loop of the model as it came, for the seeds that things are chosen on.

        Raises:
            ModelError: the loop fails.
        """
        if isinstance(self.loop, ScriptLoop):
            feeds = self.loop.feeds(self.original, self.loop.seeds)
        else:
            found = self._of_original(self.loop.table()).evaluations(self.loop.seeds)
            feeds = [feed for one in found for feed in self._ones(one.feeds)]
        count = min(limit or SAMPLES, len(feeds))
        chosen = np.sort(np.random.default_rng(seed).choice(len(feeds), count, replace=False))
        return replace(load([feeds[at] for at in chosen], graph, None, seed), origin=self.file.name)

    def _ones(self, feeds: Mapping[str, Array]) -> list[dict[str, Array]]:
        """Feeds of one sample each, where the model takes any number at once."""
        assert isinstance(self.loop, SamplingLoop)
        shape = next(one.shape for one in self.inputs if one.name == self.loop.latent) or ()
        if isinstance(shape[0], int):
            return [dict(feeds)]
        count = len(feeds[self.loop.latent])
        return [
            {name: array[at : at + 1] if array.ndim else array for name, array in feeds.items()} for at in range(count)
        ]

    @cached_property
    def wanted(self) -> Array:
        """The samples of the model as it came, for seeds that nothing is chosen on."""
        if isinstance(self.loop, ScriptLoop):
            return self.loop.samples(self.original, self.loop.judged)
        table = self.loop.table(self.loop.reference if self.file.search else None)
        return self._of_original(table).samples(self.loop.judged)

    @cached_property
    def caching(self) -> StepCaching | None:
        """The step cache, if there is one."""
        if self.cache is None or self.graph is None or self.table is None:
            return None
        return StepCaching(self.cache, self.table, self.loop.seeds, self.graph)

    def made(self, model: Path, opens: Opens) -> Array:
        """The samples of what was written, for the same seeds; what runs them is written beside it."""
        if isinstance(self.loop, ScriptLoop):
            return self.loop.samples(opens(model), self.loop.judged)
        assert self.table is not None
        table = self.table.running({WHOLE: model.name}) if self.caching is None else self.caching.write(model)
        beside(model).write_text(table.text, encoding="utf-8")
        self._files = tuple(name for name in table.graphs.values() if name != model.name)
        graphs = {name: _opened(model.with_name(file), opens) for name, file in table.graphs.items()}
        return Driver(table, self.inputs, graphs).samples(self.loop.judged)

    def added(self, verification: Verification, model: Path, opens: Opens) -> Verification:
        """A verification with the final samples, which the policy's bounds hold for as well; the loop is written.

        Args:
            verification: of single evaluations.
            model: that was written; what goes with it is written beside it.
            opens: makes what runs a file.

        Raises:
            ModelError: the loop fails.
        """
        metrics = to_measure(check.bound.metric for check in verification.bounds)
        made = self.made(model, opens)
        self._distance = distance(made, self.wanted)
        found = compare([{OUTPUT: self.wanted}], [{OUTPUT: made}], None, metrics)
        worst = judge([check.bound for check in verification.bounds], found)
        pairs = zip(verification.bounds, worst, strict=True)
        bounds = [after if before.passed and not after.passed else before for before, after in pairs]
        return replace(verification, outputs=(*verification.outputs, *found), bounds=tuple(bounds))

    def told(self, model: Path) -> LoopTold:
        """What there is to say, and the files beside a model of this name."""
        held = f"{len(self.loop.judged)} seeds that nothing was chosen on"
        facts: dict[str, Any] = {"file": self.file.name, "sha256": sha256(Path(self.file.path))}
        facts |= {"seeds": list(self.loop.seeds), "judged": list(self.loop.judged), "distance": self._distance}
        lines = [f"samples end {self._distance:.2%} from the original's, in energy's root, on {held}"]
        if self.table is None:
            return LoopTold((), facts, tuple(lines))
        table = self.table if self.caching is None else self.caching.scheduled
        facts |= {"steps": [row.step for row in table.rows], "graphs": [row.graph for row in table.rows]}
        lines.insert(0, f"{self.file.name}: {len(table.rows)} evaluations")
        if self.caching is not None:
            facts["step_cache"] = self.caching.facts
            lines.insert(1, self.caching.line)
        return LoopTold((*(model.with_name(name) for name in self._files), beside(model)), facts, tuple(lines))


def _opened(path: Path, opens: Opens) -> tuple[Runner, Sequence[str]]:
    """What runs a graph, with the names of what it takes."""
    return opens(path), [one.name for one in open_file(path).graph.inputs]


def apart(policy: Policy) -> Policy:
    """A policy whose weights lie in a file of their own where graphs share them.

    Raises:
        ModelError: it forbids that.
    """
    export = policy.export
    if policy.step_cache is None or not isinstance(export, Export):
        return policy
    if export.external_data == "never":
        help = "leave `external_data` out: it is `always` under a `step_cache`"
        raise ModelError("Q575", "the graphs of a step cache share a data file, and `export` forbids one", help=help)
    return replace(policy, export=replace(export, external_data="always"))
