"""What the passes need of calibration data, gathered in one pass: memory does not grow with the number of samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.observe.executor import HERE, Executor
from qcc.compiler.observe.observed import Observed
from qcc.compiler.observe.observer import Observer, Tick
from qcc.compiler.observe.sums import GramSum, MagnitudeSum
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Weight
from qcc.passes.contract.magnitudes import Magnitudes
from qcc.passes.contract.moments import Moments


@dataclass(frozen=True)
class LayerStatistics:
    """Second moments of what layers read, by weight name, and how large numbers are, by the name of a value."""

    moments: Mapping[str, Moments]
    magnitudes: Mapping[str, Magnitudes]


def layer_statistics(
    graph: Graph,
    samples: Samples,
    tick: Tick,
    *,
    moments: Sequence[str] = (),
    magnitudes: Sequence[str] = (),
    executor: Executor = HERE,
) -> LayerStatistics:
    """Gather what is asked, in one pass.

    Args:
        graph: what is run.
        samples: the data; a quarter of it is held out.
        tick: told how far it is.
        moments: of the inputs of linear layers of these weights. Weights that read the same value share theirs; weights
            without a linear layer get none.
        magnitudes: of these values.
        executor: where it is run.

    Raises:
        ModelError: the model fails on the data.
    """
    weights = {weight.name: weight for weight in graph.weights()}
    observer = Observer(graph, samples, tick, executor=executor)
    linear = {name: value for name in moments if name in weights and (value := _input(weights[name])) is not None}
    grams = {value: observer.ask(value, GramSum()) for value in sorted(set(linear.values()))}
    sizes = {value: observer.ask(value, MagnitudeSum()) for value in sorted(set(magnitudes))}
    observer.gather()
    found = {value: _moments(grams.pop(value)) for value in list(grams)}
    return LayerStatistics(
        {name: found[value] for name, value in linear.items()},
        {value: one.whole.found for value, one in sizes.items()},
    )


def _moments(found: Observed[GramSum]) -> Moments:
    seen, held = found.seen, found.held
    rows = seen.rows + held.rows
    if not held.total.size:
        whole, judge = seen.total, seen.total * 0
    else:
        whole, judge = (seen.total + held.total if seen.total.size else held.total.copy()), held.total
    whole /= max(rows, 1)
    judge /= max(held.rows, 1)
    return Moments(whole, rows, judge, held.rows, seen.hidden + held.hidden, seen.repeated + held.repeated)


def _input(weight: Weight) -> str | None:
    return next((layer.input for layer in weight.layers if layer.kind is Kind.LINEAR and layer.form_free), None)
