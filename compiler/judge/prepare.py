"""From what a policy bounds and what is given to what judges: samples with labels, or a function.

The samples that judge are none of those that chose anything. Where labels and calibration data are the same samples, an
eighth of them calibrates and the others judge.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qcc.compiler.calibrate.find_masks import find_masks
from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.masks import Hiding
from qcc.compiler.calibrate.read_npz import names_in, read_npz
from qcc.compiler.calibrate.samples import Data, Samples, digest_of, load
from qcc.compiler.judge.evaluation import Evaluation
from qcc.compiler.judge.function import CalledEvaluation, from_script
from qcc.compiler.judge.judge import Judge
from qcc.compiler.judge.labelled import LABELS, LabelledEvaluation, of_labels
from qcc.compiler.judge.run import ModelRun
from qcc.compiler.scores.check import DROP
from qcc.compiler.scores.find import scores
from qcc.compiler.scores.score import OfLabels
from qcc.compiler.verify.outputs import MakeRunner
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.policy.policy import Bound, Policy
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph

EVERY = 8  # of the samples that both calibrate and have labels one in so many calibrates
LEAST = 64  # samples that calibrate, if that is no more than half
KEPT_BYTES = 1 << 29  # of the original's outputs, where scores are held to them
SCRIPT = ".py"

Given = str | Path | Callable[[ModelRun], object]
"""What scores a model: a function, a script that has one, or an ``.npz`` of samples with labels."""


def drop_bounds(policy: Policy) -> tuple[Bound, ...]:
    """The bounds of a policy on what is lost of a score."""
    return tuple(bound for bound in (*policy.budget, *policy.verify) if bound.metric == DROP)


@dataclass(frozen=True)
class Prepared:
    """What judges, and the samples that are left to choose by."""

    evaluation: Evaluation | None
    data: Samples


def prepare(
    policy: Policy, given: Given | None, named: Data | None, data: Samples, graph: Graph, diagnostics: Diagnostics
) -> Prepared:
    """What judges a compilation.

    Args:
        policy: with its bounds.
        given: what scores the model, before what the calibration data has of labels.
        named: calibration data that was given instead of what the policy names.
        data: the samples that were read of it, or generated.
        graph: the model.
        diagnostics: told where nothing asks for what is given.

    Raises:
        QccError: nothing says how a score is measured, or what does is at fault.
    """
    bounds = drop_bounds(policy)
    names = tuple(dict.fromkeys(str(bound.argument) for bound in bounds))
    if not bounds:
        if given is not None:
            help = "bound what may be lost: `verify { drop(accuracy) <= 1% }`"
            diagnostics.warning("Q364", "nothing is judged by `evaluate`: the policy bounds no drop", help=help)
        return Prepared(None, data)
    calibrate = policy.calibrate.path if policy.calibrate else None
    path = given if given is not None else _with_labels(calibrate if named is None else named)
    if path is None:
        raise _nothing_tells(bounds[0])
    if not isinstance(path, str | Path):
        return Prepared(CalledEvaluation(path, names, graph.inputs, graph.outputs), data)
    if Path(path).suffix == SCRIPT:
        function = from_script(Path(path))
        return Prepared(CalledEvaluation(function, names, graph.inputs, graph.outputs, Path(path)), data)
    limit = policy.calibrate.samples if policy.calibrate else None
    return _labelled(Path(path), bounds, data, graph, limit)


def judge_of(
    policy: Policy,
    given: Given | None,
    named: Data | None,
    data: Samples,
    graph: Graph,
    original: MakeRunner,
    diagnostics: Diagnostics,
) -> tuple[Judge | None, Samples]:
    """What scores written models beside the ``original``, and the samples that are left to choose by; see `prepare`."""
    found = prepare(policy, given, named, data, graph, diagnostics)
    if found.evaluation is None:
        return None, found.data
    return Judge(found.evaluation, drop_bounds(policy), original, diagnostics), found.data


def _with_labels(data: object) -> Path | None:
    """Calibration data that has labels beside its samples."""
    if not isinstance(data, str | Path):
        return None
    path = Path(data)
    return path if LABELS in names_in(path) else None


def _nothing_tells(bound: Bound) -> QccError:
    message = f"nothing tells what `{bound.argument}` is, of which `{bound.text}` bounds the loss"
    help = (
        "give samples with labels or a function: `--evaluate labelled.npz`, `--evaluate eval.py`, or an array "
        f"`{LABELS}` in the calibration data"
    )
    return QccError([Diagnostic("Q360", message, bound.span, help=help)])


def _labelled(path: Path, bounds: Sequence[Bound], data: Samples, graph: Graph, limit: int | None) -> Prepared:
    for bound in bounds:
        if not isinstance(scores()[str(bound.argument)], OfLabels):
            message = f"`{bound.argument}` cannot be computed from labels"
            help = "give a function that computes it: `--evaluate eval.py`"
            raise QccError([Diagnostic("Q360", message, bound.span, help=help)])
    names = tuple(dict.fromkeys(str(bound.argument) for bound in bounds))
    samples = load(path, graph, None, 0)
    labels = read_npz(path, [LABELS])[LABELS] if LABELS in names_in(path) else None
    _see_known(path, names, labels, samples)
    ones = tuple(samples.parts(1))
    each = 1 if labels is None else _each(path, labels, sum(map(samples.size, ones)))
    if any(samples.size(one) != 1 for one in ones):
        raise ModelError(
            "Q483", f"`{path}` has whole batches, whose samples cannot be told apart", help="give a script"
        )
    units = [ones[at : at + each] for at in range(0, len(ones), each)]
    seen = set() if data.generated else {digest_of(one) for one in data.parts(1)}
    fresh = [at for at, unit in enumerate(units) if not any(digest_of(one) in seen for one in unit)]
    if data.generated or len(fresh) < len(units) / 2:
        chosen, fresh = _split(units)
        calibrating = [one for at in chosen for one in units[at]]
        data = replace(samples, batches=_batches(samples, calibrating))
        data = data if limit is None else data.first(limit)
    ones = tuple(one for at in fresh for one in units[at])
    known = None if labels is None else labels[fresh]
    output = graph.outputs[0].name
    judging = replace(samples, batches=_batches(samples, ones))
    if known is None or known.ndim > 1:
        if any(not of_labels(name).labelled for name in names):
            judging = _held(judging, graph, output)
        return Prepared(LabelledEvaluation(judging, known, names, output), data)
    places, hiding = _shortest_first(judging, ones, graph, output)
    judging = replace(judging, batches=_batches(samples, [ones[at] for at in places]))
    return Prepared(LabelledEvaluation(judging, known, names, output, places, hiding), data)


def _shortest_first(samples: Samples, ones: Sequence[Batch], graph: Graph, output: str) -> tuple[np.ndarray, Hiding]:
    """The order in which samples are run, those of like length together, and what of them is hidden."""
    runner = graph.runner(tuple(value.name for value in graph.inputs), (output,))
    hiding = find_masks(graph.inputs, runner, samples.first(LEAST))
    if not hiding.ends:
        return np.arange(len(ones)), Hiding()
    sizes = [sum(array.size for array in hiding.cropped(one).values()) for one in ones]
    return np.argsort(sizes, kind="stable"), hiding


def _see_known(path: Path, names: Sequence[str], labels: np.ndarray | None, samples: Samples) -> None:
    """See that what the scores are held to is there.

    Raises:
        ModelError: it is not.
    """
    if labels is not None:
        if labels.dtype.kind not in "iufb" or labels.ndim == 0:
            raise ModelError("Q483", f"the array `{LABELS}` of `{path}` holds no numbers, one for each sample")
        return
    tokens = any(one.dtype.kind in "iu" for one in samples.batches[0].values() if isinstance(one, np.ndarray))
    for name in names:
        if of_labels(name).labelled and not (name == "perplexity" and tokens):
            help = f"its arrays are {', '.join(names_in(path))}; `{LABELS}` holds one for each sample"
            raise ModelError("Q483", f"`{path}` has no array `{LABELS}` for `{name}`", help=help)


def _each(path: Path, labels: np.ndarray, count: int) -> int:
    """How many samples a label is for."""
    if len(labels) == count:
        return 1
    if len(labels) * 2 == count:
        return 2
    message = f"`{path}` has {count:,} samples and {len(labels):,} labels"
    raise ModelError("Q483", message, help="give one label for each sample, or one for each two, which are a pair")


def _split(units: Sequence[Sequence[Batch]]) -> tuple[list[int], list[int]]:
    """Which units calibrate, and which judge; equal ones are in one part.

    Raises:
        ModelError: there are too few.
    """
    count = len(units)
    every = max(min(EVERY, count // LEAST), 2)
    first: dict[tuple[str, ...], int] = {}
    places = [first.setdefault(tuple(digest_of(one) for one in unit), at) for at, unit in enumerate(units)]
    chosen = [at for at, place in enumerate(places) if place % every == 0]
    judging = [at for at, place in enumerate(places) if place % every]
    if not judging:
        raise ModelError("Q483", f"{count} samples with labels are too few to choose by some and judge by others")
    return chosen, judging


def _batches(samples: Samples, ones: Sequence[Batch]) -> tuple[Batch, ...]:
    return samples.neighbours(ones) if samples.divisible else tuple(ones)


def _held(samples: Samples, graph: Graph, output: str) -> Samples:
    """As many samples as have outputs that can be kept."""
    runner = graph.runner(tuple(value.name for value in graph.inputs), (output,))
    one = samples.first(1)
    size = sum(array.nbytes for array in runner(one.batches[0]).values()) / max(one.count, 1)
    return samples.first(max(int(KEPT_BYTES // max(size, 1)), 1))
