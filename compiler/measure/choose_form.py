"""Which form a weight gets when kernels are made, and what it costs: whichever was measured fastest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from qcc.codegen.target.machine import machine
from qcc.codegen.target.target import AnyTarget
from qcc.compiler.calibrate.rows import rows_of
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.measure.learned.foretold import ForetoldTimings, told_of_times
from qcc.compiler.measure.learned.learn import learned_times
from qcc.compiler.measure.time_forms import FLOAT, Case, Timings
from qcc.compiler.measure.time_model import time_input
from qcc.compiler.measure.timing import NOTICEABLE, times_text
from qcc.compiler.plan.catalog import Export
from qcc.compiler.plan.costs import (
    LATENCY,
    LEARNED,
    Meter,
    asked_rows,
    held_counts,
    latency_bound,
    latency_threads,
)
from qcc.compiler.plan.plan import Kernels
from qcc.compiler.plan.targets import target_of, unserved
from qcc.compiler.runtime.build_kernels import kernels_of, runs_here
from qcc.compiler.sequence.one_step import step_samples
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.policy.policy import Policy
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.forms.choose import Choice, choose, plain_forms
from qcc.ir.forms.kernel import KERNEL, kernel_layers
from qcc.ir.graph.costs import Costs
from qcc.ir.graph.form import Form
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Weight
from qcc.ir.kernel.op import BF16
from qcc.passes.contract.activations import Activations
from qcc.passes.encode import Encode

CaseTick = Callable[[str], None]


@dataclass(frozen=True)
class FormChooser:
    """Chooses among the runtime's own forms and a kernel.

    Args:
        target: whose capability data decides, or whose clock, where it is the machine at hand.
        kernels: that are to be made; without any, the costs of the runtime's own forms alone decide.
        rows: of activations, by weight name.
        timings: of this machine; None where kernels are for processors that it is not.
        at_hand: the target is the machine at hand, so that its timings decide; else the committed tables of the
            processors that the target names do, and timings only say what a choice costs here.
    """

    target: AnyTarget
    kernels: Kernels | None = None
    rows: Mapping[str, int] | None = None
    timings: Timings | None = None
    at_hand: bool = True
    _made: dict[tuple[str, Encoding], Choice] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, weight: Weight, encoding: Encoding) -> Choice:
        """The form, and why; a choice that was made stands, with its reason, however often it is asked for.

        Raises:
            QccError: the kernel that is to be timed cannot be built.
        """
        key = weight.name, encoding
        if key not in self._made:
            self._made[key] = self._choice(weight, encoding)
        return self._made[key]

    def _choice(self, weight: Weight, encoding: Encoding) -> Choice:
        plain = choose(weight, encoding, self._costs)
        if self.kernels is None or not _may_be_product(weight):
            return plain
        refused = KERNEL.refuses(weight, encoding) or self._refuses(weight, encoding)
        if not self.by_clock and not refused:
            return self._by_table(weight, encoding, plain)
        forms = plain_forms(weight, encoding, plain.form) + (() if refused else (KERNEL,))
        if not self.by_clock or len(forms) == 1:
            return Choice(plain.form, f"{plain.reason}; {refused}")
        return self._fastest(weight, encoding, forms, refused)

    @property
    def threads(self) -> int:
        """On which layers are timed."""
        return 1 if self.timings is None else self.timings.threads

    @property
    def by_clock(self) -> bool:
        """This machine's clock decides."""
        return self.at_hand and self.timings is not None

    @property
    def _costs(self) -> Costs:
        """What forms were measured to cost on the processors that kernels are made for; anywhere, without kernels."""
        return self.target.costs() if self.kernels is None else self.kernels.costs

    def _by_table(self, weight: Weight, encoding: Encoding, plain: Choice) -> Choice:
        """A kernel or the runtime's own form, whichever was measured faster on the processors of the target."""
        ours = KERNEL.cost(encoding, weight.shape, self._costs)
        if ours is None:
            return Choice(KERNEL, "a kernel takes it; none was measured on such a processor")
        theirs = 1.0 if plain.cost is None else plain.cost.ratio
        if ours.ratio * NOTICEABLE < theirs:
            return Choice(KERNEL, f"a kernel was measured at {ours.text}, this form at {theirs:.2f}x")
        return Choice(plain.form, f"{plain.reason}; a kernel was measured at {ours.text}")

    def _fastest(self, weight: Weight, encoding: Encoding, forms: tuple[Form, ...], refused: str) -> Choice:
        """Whichever was measured fastest; the first of the forms unless another is so by more than noise."""
        assert self.timings is not None
        case = self._case(weight)
        found = self.timings.seconds(case, encoding, tuple(dict.fromkeys(form.alone for form in forms)))
        seconds = {form: found[form.alone] for form in forms}
        best = min(seconds, key=lambda form: seconds[form])
        chosen = best if seconds[best] * NOTICEABLE < seconds[forms[0]] else forms[0]
        told = ", ".join(f"{form.alone} {seconds[form] / found[FLOAT]:.2f}x" for form in forms)
        where = f"{case.rows} {case.unit}{'' if case.rows == 1 else 's'}"
        where += " and the layouts that it takes" if case.pointwise else ""
        where += f" by {self.threads} threads" if self.threads > 1 else ""
        text = times_text(seconds[chosen] / found[FLOAT], "float", seconds[chosen] > found[FLOAT])
        text += f"; timed on {where}: {told}"
        return Choice(chosen, text + (f"; {refused}" if refused else ""))

    def seconds_of(self, weight: Weight, action: Encode | None) -> float:
        """What a weight's layers take under an action; see `seconds`."""
        asked = (None, None) if action is None else (action.encoding, action.form, action.activations)
        return self.seconds(weight, *asked)

    def seconds(
        self, weight: Weight, encoding: Encoding | None, form: Form | None, how: Activations | None = None
    ) -> float:
        """What a weight's linear layers take for one sample; those of other kinds count nothing.

        A weight without an encoding is float; ``how`` is that of what its layers read. Convolutions that kernels could
        take count with what `Case` has around them, which is the same in every form.
        """
        count = sum(layer.kind == "linear" for layer in weight.layers)
        if not count and self.kernels is not None and _may_be_product(weight) and not self._refuses(weight, BF16):
            count = len(weight.layers)
        if not count:
            return 0.0
        assert self.timings is not None
        if encoding is None or form is None:
            return count * self.timings.seconds(self._case(weight), None, ())[FLOAT]
        return count * self.timings.seconds(self._case(weight), encoding, (form.alone,), how)[form.alone]

    def gain_over_dense(self, weight: Weight, encoding: Encoding, form: Form) -> float | None:
        """How many times as long as a kernel of a sparse weight the fastest dense one takes that we have.

        That is one of what the blocks hold, of bf16, or the runtime's own of floats; None where nothing was timed.
        """
        if encoding.stays is None or form is not KERNEL or not self.by_clock:
            return None
        dense = [self.seconds(weight, None, None)]
        for one in (*encoding.within, BF16):
            if not KERNEL.refuses(weight, one) and not self._refuses(weight, one):
                dense.append(self.seconds(weight, one, KERNEL))
        return min(dense) / self.seconds(weight, encoding, form)

    def _case(self, weight: Weight) -> Case:
        return Case(*weight.shape, (self.rows or {})[weight.name], weight.kinds == {"conv"})

    def _refuses(self, weight: Weight, encoding: Encoding) -> str:
        """Why a weight gets no kernel that its form would allow."""
        assert self.kernels is not None
        if reason := unserved(self.kernels, weight, encoding):
            return reason
        clocked = weight.kinds != {"conv"} or self.by_clock
        return "" if clocked else "a convolution gets a kernel only where it was timed on the machine at hand"


def yields(chooser: object, policy: Policy) -> bool:
    """Forms that were chosen by the clock may give way to faster ones: no row of the policy was decided with them."""
    kernels = isinstance(chooser, FormChooser) and chooser.kernels is not None and chooser.by_clock
    return kernels and not held_counts(policy)


def chooser_of(policy: Policy, graph: Graph, data: Samples, tick: CaseTick) -> FormChooser:
    """How the forms of a policy's weights are found.

    Args:
        policy: names the target.
        graph: cleaned.
        data: says how many rows of activations the layers see, unless the policy does.
        tick: told of each layer that is timed.

    Raises:
        QccError: nothing is known of this machine's processor, or was learned where that is asked for (``Q663``), or it
            has fewer cores than latency is asked on threads (``Q454``).
    """
    kernels = kernels_of(policy)
    rows = rows_of(graph, step_samples(policy, graph, data))
    if isinstance(policy.export, Export) and policy.export.rows is not None:
        linear = (weight.name for weight in graph.weights() if "linear" in weight.kinds)
        rows |= dict.fromkeys(linear, policy.export.rows)
    target = target_of(policy)
    timings = Timings(target, kernels, tick, _threads(policy)) if runs_here(target, kernels) else None
    asked = latency_bound(policy)
    if timings is not None and asked is not None and asked.argument == LEARNED:
        learned = learned_times(timings)
        if learned is None:
            help = "run `qcc bench --learn` once, with the same policy (-p) where it asks for kernels"
            raise QccError(
                [Diagnostic("Q663", "nothing was learned on this machine for this target", asked.span, help)]
            )
        timings = ForetoldTimings(timings, learned)
    return FormChooser(target, kernels, rows, timings, target.at_hand(policy.target.arguments))


def _threads(policy: Policy) -> int:
    """On how many latency is asked for, of those that there are."""
    asked, cores = latency_threads(policy), machine().cores
    if asked > cores:
        bound = latency_bound(policy)
        message = f"latency is asked for on {asked} threads, and this machine has {cores} cores for them"
        help = f"ask for `threads = {cores}` at most, or compile on the machine that it is for"
        raise QccError([Diagnostic("Q454", message, None if bound is None else bound.span, help)])
    return asked


def _may_be_product(weight: Weight) -> bool:
    return "linear" in weight.kinds or (weight.kinds == {"conv"} and bool(kernel_layers(weight)))


def latency_of(
    policy: Policy,
    chooser: FormChooser,
    model: Path,
    data: Samples,
    graphs: tuple[Graph, Graph],
    timed: bool = True,
) -> Meter | None:
    """What the allocator must know where a policy bounds or minimises latency, in milliseconds.

    Args:
        policy: the policy.
        chooser: of forms.
        model: the file.
        data: whose first sample is run, or a step behind as much as the policy says.
        graphs: as the file has it, and as it is now: what layers took that have lost channels or gone is no rest.
        timed: it runs in ONNX Runtime.

    Raises:
        QccError: it cannot be measured here.
    """
    if LATENCY not in asked_rows(policy):
        return None
    bound = latency_bound(policy)
    if chooser.timings is None or not timed:
        why = "the target is another processor" if timed else f"`{model}` does not run in ONNX Runtime"
        message = f"latency cannot be measured here: {why}"
        raise QccError([Diagnostic("Q311", message, bound.span if bound else policy.target.span)])
    data = step_samples(policy, graphs[0], data)
    whole = 1e3 * time_input(model, data, chooser.target.providers, chooser.threads)

    def milliseconds(weight: Weight, action: Encode | None) -> float:
        return 1e3 * chooser.seconds_of(weight, action)

    first, now = graphs
    before = chooser if first is now else replace(chooser, rows=rows_of(first, data))
    rest = whole - sum(1e3 * before.seconds_of(one, None) for one in first.weights())
    return Meter(LATENCY, whole, rest, milliseconds, lambda _: told_of_times(chooser.timings))
