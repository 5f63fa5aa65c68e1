"""Which ops would lose their numbers in half precision: each is run alone, on numbers that are rounded."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import ml_dtypes
import numpy as np

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.measure.half_bounds import value_bounds
from qcc.compiler.observe.chunks import bytes_of
from qcc.compiler.plan.plan import Plan
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Array, Kind, Op
from qcc.passes.encode import Encode
from qcc.passes.half.half import Half

SAMPLES, HELD_BYTES = 8, 1 << 28  # that are run, and what is held of their values
ABOVE = 1e3  # times the noise of rounding one number: 30 dB
MARGIN = 2.0  # of ranges: data that is to come is larger
SUMS = frozenset({"pow", "exp", "sum", "l1", "l2", "sum_square", "logsumexp", "prod", "cumsum", "square", "lp_pool"})
FORM = "the form of their weights computes in numbers of its own"
NOISE = "rounding alone makes noise there"
OVERFLOWS = "their numbers overflow, or come within half of that"
UNKNOWN = "without data nothing bounds their numbers"
FLOATS: Mapping[str, Callable[[Array], Array]] = {
    "float16": lambda array: array.astype(np.float16).astype(np.float32),
    "bfloat16": lambda array: array.astype(ml_dtypes.bfloat16).astype(np.float32),
}
MOST = {"float16": 65504.0, "bfloat16": float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)}  # type: ignore[no-untyped-call]
UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8}


def half_ops(graph: Graph, step: Half, data: Samples, tick: Callable[[str], None]) -> Mapping[str, str]:
    """Why each op that could compute in half loses its numbers then; nothing for those that do not.

    Args:
        graph: before anything is encoded.
        step: that is to compute in half.
        data: to run ops on.
        tick: told of each op.

    Raises:
        ModelError: there is no such op in a graph of this kind.
    """
    can = graph.castable(step.dtype)
    ops = [op for op in graph.ops() if op.name in can]
    if not ops:
        help = "give `-o MODEL.onnx`, which exports a module first, or leave `graph` out"
        raise ModelError("Q541", f"no op of the model computes in float32 that could in {step.floats}", help)
    found = dict.fromkeys((op.name for op in ops), "") | _lost(graph, ops, data, step.dtype, tick)
    return found | (_unbounded(graph, ops) if data.generated and step.dtype == "float16" else {})


def in_own_numbers(graph: Graph, plan: Plan) -> dict[str, str]:
    """The ops that a decided plan has multiply in numbers of their own, with the reason why they stay as they are."""
    layers = {weight.name: weight.layers for weight in graph.weights()}
    steps = [(step.weights, step.action) for step in plan.steps if isinstance(step.action, Encode)]
    taken = (name for names, action in steps if action.activations or action.form.packed for name in names)
    return {layer.op: FORM for name in taken for layer in layers.get(name, ())}


def _unbounded(graph: Graph, ops: Sequence[Op]) -> dict[str, str]:
    """Ops whose sums and powers may overflow for all that is known."""
    bounds = value_bounds(graph)
    kinds = (Kind.SOFTMAX, Kind.NORM)
    wary = [op for op in ops if (op.kind in kinds and op.function != "batch_norm") or op.function in SUMS]
    names = ((op, [name for name in (*op.inputs, *op.outputs) if name and graph.constant(name) is None]) for op in wary)
    most = MOST["float16"] / MARGIN
    return {op.name: UNKNOWN for op, around in names if any(bounds.get(name, np.inf) > most for name in around)}


def _lost(graph: Graph, ops: Sequence[Op], data: Samples, dtype: str, tick: Callable[[str], None]) -> dict[str, str]:
    """The ops that overflow or are too noisy on samples, with which."""
    flows = {name for op in ops for name in (*op.inputs, *op.outputs) if name and graph.constant(name) is None}
    fed = tuple(value.name for value in graph.inputs)
    wanted = sorted(flows - set(fed))
    runner, seen = graph.runner(fed, wanted), list[dict[str, Array]]()
    for sample in data.first(SAMPLES).parts(1):
        seen.append({**sample, **runner(sample)})
        if sum(map(bytes_of, seen)) * (len(seen) + 1) > HELD_BYTES * len(seen):
            break
    found = {}
    for op in ops:
        tick(op.name)
        why = _why(graph, op, seen, dtype)
        if why:
            found[op.name] = why
    return found


def _why(graph: Graph, op: Op, seen: Sequence[Mapping[str, Array]], dtype: str) -> str:
    """Why an op stays float on these values; empty if it need not."""
    made = [name for name in op.outputs if graph.value(name).dtype == "float32"]
    if not made:
        return ""
    reads = dict.fromkeys(name for name in op.inputs if name)
    constants = {name: array for name in reads if (array := graph.constant(name)) is not None}
    real = {name for name, array in constants.items() if array.dtype == np.float32}
    around = [name for name in (*reads, *made) if name not in constants]
    largest = max((_largest(one[name]) for one in seen for name in around if name in one), default=0.0)
    if largest * MARGIN > MOST[dtype]:
        return OVERFLOWS
    narrow = partial(_rounded, to=FLOATS[dtype])
    run = graph.runner([name for name in reads if name not in constants], made, free=real, optimise=False)
    own = {name: narrow(constants[name]) for name in real}
    noise, signal = _noise(run, [name for name in reads if name not in constants], made, seen, own, narrow)
    if not np.isfinite(noise):
        return OVERFLOWS
    return NOISE if noise > ABOVE * UNIT[dtype] ** 2 * signal else ""


def _noise(
    run: Runner,
    reads: Sequence[str],
    made: Sequence[str],
    seen: Sequence[Mapping[str, Array]],
    own: Mapping[str, Array],
    narrow: Callable[[Array], Array],
) -> tuple[float, float]:
    """Powers of what rounding does to what an op makes, and of what it makes."""
    noise = signal = 0.0
    for values in seen:
        got = run({**{name: narrow(values[name]) for name in reads}, **own})
        for name in made:
            wanted, found = values[name].astype(np.float64), narrow(got[name]).astype(np.float64)
            same = wanted == found  # infinite in both
            with np.errstate(invalid="ignore"):
                noise += float(np.square(np.where(same, 0.0, wanted - found)).sum())
            signal += float(np.square(wanted[np.isfinite(wanted)]).sum())
    return noise, signal


def _rounded(array: Array, to: Callable[[Array], Array]) -> Array:
    if array.dtype != np.float32:
        return array
    with np.errstate(over="ignore"):
        return to(array)


def _largest(array: Array) -> float:
    """The size of the largest finite number of floats."""
    if array.dtype != np.float32:
        return 0.0
    return float(np.abs(array[np.isfinite(array)]).max(initial=0))
