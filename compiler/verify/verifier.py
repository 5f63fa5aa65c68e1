"""The stage that verifies: what was written beside the original, on data that tells something."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.console.percent import percent
from qcc.compiler.metrics.find import to_measure
from qcc.compiler.observe.executor import HERE, Executor
from qcc.compiler.sequence.token_runs import Driven, TokenRuns
from qcc.compiler.verify import outputs as verify
from qcc.compiler.verify.exercised import unexercised, unread_rows
from qcc.compiler.verify.outputs import BoundCheck, Floor, Floors, MakeRunner, OutputCheck, Verification
from qcc.compiler.verify.reference import not_finite, run_reference
from qcc.compiler.verify.rounding import Jitter
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import Bound
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph

JITTER_FACTOR = 10.0  # rounding adds up over a model's ops; the last digit of inputs and weights is one step of it
AMPLIFIED = "is as far from itself when its inputs and weights move by their last digit"


class Verifier:
    """Holds the original's outputs, and compares what is written with them.

    Args:
        original: makes what runs the model as its author wrote it.
        samples: to run on.
        bounds: of the policy.
        diagnostics: told what could not be verified.
        executor: where models are run.

    Raises:
        ModelError: the model fails on the data.
    """

    def __init__(
        self,
        original: MakeRunner,
        samples: Samples,
        bounds: Sequence[Bound],
        diagnostics: Diagnostics,
        executor: Executor = HERE,
    ) -> None:
        self._bounds, self._diagnostics, self._executor = bounds, diagnostics, executor
        self._original, self._samples, self._runs = original, samples, list[TokenRuns | None]()
        self.reference = run_reference(original, samples, to_measure(bound.metric for bound in bounds), executor)
        for name in self.reference.floors:
            message = f"the original's output `{name}` differs from run to run: it is held to no more than that"
            diagnostics.warning("Q323", message)

    def see_finite(self, graph: Graph | None = None) -> None:
        """See that the original gives something finite to hold to the bounds, if there are any.

        Args:
            graph: the model, where a weight that is not finite will be told instead.

        Raises:
            ModelError: it does not.
        """
        if self._bounds and self.reference.not_finite and not (graph and _broken(graph)):
            raise not_finite(self.reference.not_finite, self.reference.samples.generated)

    def verify(
        self,
        plain: MakeRunner,
        kernels: MakeRunner | None,
        graph: Graph,
        encoded: Collection[str],
        short: Collection[str] = (),
    ) -> Verification:
        """Run what was written, also with its kernels, and compare.

        Args:
            plain: makes what runs it.
            kernels: the same with its kernels, where they run here.
            graph: the model, to find what rounding alone does to it where a bound does not hold.
            encoded: the weights that changed.
            short: outputs that hold other rows than the original's, which what is done with them tells of.

        Raises:
            ModelError: on generated data a bound fails by nothing but places that are finite on one side only.
        """
        self.see_finite()
        held = self.reference.samples
        found = self.reference.compare(verify.run(plain, held.batches, self._executor), short)
        fast = self.reference.compare(verify.run(kernels, held.batches, self._executor), short) if kernels else ()
        stepwise, driven = self._step_by_step(plain, graph)
        if short and driven is None:
            message = "rows of caches go at the end of a run, and nothing ran the model token by token"
            self._diagnostics.warning("Q773", message, help='name texts: `calibrate "text.npz"`')
        found += stepwise
        fast += self._step_by_step(kernels, graph)[0] if kernels else ()
        checks = verify.judge(self._bounds, (*found, *fast), self.reference.floors)
        if not all(check.passed for check in checks):
            checks = verify.judge(self._bounds, (*found, *fast), {**self._rounding(graph), **self.reference.floors})
        self._see_what_failed((*found, *fast), checks)
        self._tell(found, checks)
        notes = self._untold(graph, encoded)
        return Verification(found, checks, held.count, held.origin, fast, notes, driven=driven)

    def _step_by_step(self, make: MakeRunner, graph: Graph) -> tuple[tuple[OutputCheck, ...], Driven | None]:
        """What a model of tokens with caches comes to when each run is fed what the last returned."""
        if not self._runs:
            self._runs.append(TokenRuns.of(graph, self._original, self._samples))
        runs = self._runs[0]
        if runs is None:
            return (), None
        logits, driven = runs.made(make())
        wanted, made = {runs.output: runs.wanted}, {runs.output: logits}
        return verify.compare([wanted], [made], None, self.reference.metrics), driven

    def _see_what_failed(self, outputs: Sequence[OutputCheck], checks: Sequence[BoundCheck]) -> None:
        """Generated data on which the original itself is not finite condemns no compressed model by that alone."""
        failed = [check.bound for check in checks if not check.passed]
        odd = list(dict.fromkeys(one.output for one in outputs if one.kept is not None))
        if not failed or not odd or not self.reference.samples.generated:
            return
        kept = [one if one.kept is None else replace(one, found=one.kept) for one in outputs]
        if all(check.passed for check in verify.judge(failed, kept, self.reference.floors)):
            bounds = ", ".join(f"`{bound.text}`" for bound in failed)
            raise not_finite(odd, True, f", so that {bounds} cannot be judged")

    def _rounding(self, graph: Graph) -> Floors:
        """How far the model is from itself when all moves by a last digit."""
        samples = self.reference.samples
        try:
            pairs = list(Jitter(graph).pairs(samples.batches))
        except ModelError:
            return {}  # weights that a subgraph reads cannot be moved
        still, moved = ([pair[at] for pair in pairs] for at in (0, 1))
        checks = verify.compare(still, moved, self.reference.sizes, self.reference.metrics)
        return {check.output: Floor(check, JITTER_FACTOR, AMPLIFIED) for check in checks}

    def _untold(self, graph: Graph, encoded: Collection[str]) -> tuple[str, ...]:
        """What the samples do not exercise, which no figure can tell of."""
        held = self.reference.samples
        idle = unexercised(graph, encoded, held, self._executor)
        for name, reason in idle.items():
            help = "give data on which it matters: `--data FILE.npz`"
            self._diagnostics.warning("Q321", f"the weight `{name}` is not verified: {reason}", help=help)
        rows = unread_rows(graph, encoded, held)
        notes = [f"`{name}`, {reason}" for name, reason in idle.items()]
        notes += [f"{percent(share)} of the rows of `{name}`, no sample looks them up" for name, share in rows.items()]
        return tuple(f"not verified: {note}" for note in notes)

    def _tell(self, outputs: Sequence[OutputCheck], checks: Sequence[BoundCheck]) -> None:
        give = "give data on which it varies: `--data FILE.npz`"
        for one in outputs:
            if one.unverified:
                message = f"output `{one.output}` {one.unverified}: it verifies nothing"
                self._diagnostics.warning("Q322", message, help=give)
            elif not self._bounds and one.changed is None and one.sqnr <= 0:
                where = " on generated data" if self.reference.samples.generated else ""
                message = f"nothing is left of output `{one.output}`: the error is as large as what it holds{where}"
                help = "the policy bounds it by nothing: `verify { cosine >= 0.9 }` would stop here"
                self._diagnostics.warning("Q325", message, help=help)
        for check in checks:
            if check.excuse and AMPLIFIED in check.excuse:
                message = f"`{check.bound.text}` is finer than the model's own rounding: {check.excuse}"
                help = "the bound counts as held; a looser one would hold on every machine"
                self._diagnostics.warning("Q324", message, check.bound.span, help=help)


def _broken(graph: Graph) -> bool:
    """A weight holds what is not finite."""
    return not all(np.isfinite(graph.matrix(weight)).all() for weight in graph.weights())
