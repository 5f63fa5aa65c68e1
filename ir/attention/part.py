"""What may be an attention, and the comparison of what it computes with the formula."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcc.ir.attention.formulas import hides_later, is_close, is_paired, mask_kind, softmax, visible
from qcc.ir.attention.operands import Seen, Traced, moved, standing, told
from qcc.ir.attention.paths import Paths, ScorePath, ScoreStep, UntoldError
from qcc.ir.attention.products import product_of, scores_of
from qcc.ir.attention.trace import Tracer
from qcc.ir.graph.attention import Attention, Masking, Operand
from qcc.ir.graph.ops import Array

TOLERANCE = 2e-5  # of the largest result: two sums of products in float32 and a softmax
TOLERANCES = {"float16": 2e-2}
HIDDEN = np.float32(-1e30)
SCALES = ("mul", "div")


@dataclass(frozen=True)
class AttentionPart:
    """A softmax with the products beside it, or one op that is all of them.

    Args:
        name: of the op in the middle.
        output: the value that the second product makes.
        queries: at the first product.
        keys: see there.
        values: at the second.
        steps: what is done to scores between.
        weights: the name under which the second product reads the weights.
        weights_read: others read the weights, too.
        made: the axes of the output in the order batch, heads, rows, channels; empty where it is that.
        behind: the output, and the values that are it moved, one after the other.
        scale: of an op that has one.
        causal: the op hides what comes later.
        heads: of an op: of queries, and of keys and values.
        cap: of an op: its bound of scores; 0 for none.
        reads: see `Attention.reads`.
        sums: see `Attention.sums`.
        varies: scores are scaled by how many rows there are.
    """

    name: str
    output: str
    queries: Traced
    keys: Traced
    values: Traced
    steps: tuple[ScoreStep, ...] = ()
    weights: str = ""
    weights_read: bool = False
    made: tuple[int, ...] = ()
    behind: tuple[str, ...] = ()
    scale: float = 1.0
    causal: bool = False
    heads: tuple[int, ...] = ()
    cap: float = 0.0
    reads: tuple[tuple[str, int], ...] = ()
    sums: tuple[tuple[str, int], ...] = ()
    varies: bool = False

    @property
    def operands(self) -> tuple[Traced, Traced, Traced]:
        """Queries, keys and values."""
        return self.queries, self.keys, self.values

    @property
    def borders(self) -> tuple[str, ...]:
        """The values at which numbers are drawn."""
        found = [one.root for one in self.operands]
        for step in (step for one in self.operands for step in one.steps):
            found += step.turn.tables if step.turn else ()
            found += [step.value] if step.what == "past" else []
        found += [step.value for step in self.steps if step.what in ("add", "mask", "sinks")]
        return tuple(dict.fromkeys(found))

    @property
    def inner(self) -> tuple[str, ...]:
        """The values that are computed of those."""
        return tuple(dict.fromkeys(name for one in self.operands for name in one.names))

    @property
    def scales(self) -> tuple[str, ...]:
        """The numbers by which queries, keys and scores are multiplied or divided."""
        found = [step.value for one in self.operands for step in one.steps if step.what in SCALES]
        return *found, *(step.value for step in self.steps if step.what in SCALES)

    @property
    def names(self) -> tuple[str, ...]:
        """All values that matter."""
        scores = [name for step in self.steps for name in (step.value, step.result) if name]
        shape = [self.weights] if self.weights else []
        return tuple(dict.fromkeys((*self.borders, *self.inner, *self.scales, *scores, *shape, *self.behind)))


def of_core(core: ScorePath, paths: Paths, tracer: Tracer) -> AttentionPart:
    """A softmax between two products.

    Raises:
        UntoldError: the products stand in another way.
    """
    at, inner = paths.between(core)
    before, behind = scores_of(core.first), product_of(core.second, at)
    sides = (core.first, before.left), (core.first, before.right), (core.second, behind.right)
    queries, keys, values = (
        Traced(op.inputs[side.at], tuple(tracer.steps(op.inputs[side.at])), side.columns, order=side.order)
        for op, side in sides
    )
    read, weights = paths.is_read(core, inner), core.second.inputs[at]
    output = core.second.outputs[0]
    ends = behind.made, paths.moves(output)
    part = AttentionPart(core.softmax.name, output, queries, keys, values, core.steps, weights, read, *ends)
    reads = (core.first.name, before.left.at), (core.first.name, before.right.at)
    scales = [step.value for step in core.steps if step.what in SCALES]
    sums = (core.second.name, at), (core.second.name, behind.right.at)
    return replace(part, reads=reads, sums=sums, varies=any(map(paths.varies, scales)))


def judged(
    part: AttentionPart, values: Mapping[str, Array], captured: Mapping[str, Array], returned: frozenset[str]
) -> Attention:
    """The attention that a part is.

    Args:
        part: the part.
        values: of drawn numbers.
        captured: of the sample.
        returned: the values that the graph returns.

    Raises:
        UntoldError: it computes something else.
        ValueError: sizes do not fit the formula.
    """
    q, k, v = (standing(one, values) for one in part.operands)
    actual = values[part.output].transpose(part.made) if part.made else values[part.output]
    if part.heads and part.queries.heads:
        actual = standing(Traced(part.output, (), heads=part.heads[0]), values)
    expected = _formula(part, q, k, v, values)
    if not is_close(actual.reshape(-1), expected.reshape(-1), TOLERANCES.get(actual.dtype.name, TOLERANCE)):
        raise UntoldError("it computes something else than softmax(scale * queries keys' + bias) values")
    seen = [_placed(_rotated(told(one, values, returned), captured), one, values) for one in part.operands]
    if abs(seen[2].scale - 1) > TOLERANCE:
        raise UntoldError("its values are scaled")
    factors = _factors(part, values, q.shape[1])
    return Attention(
        part.name,
        part.output,
        seen[0].operand,
        seen[1].operand,
        seen[2].operand,
        scale=part.scale * seen[0].scale * seen[1].scale * math.prod(number for _, number in factors),
        masking=_masking(part, captured, (q.shape[-2], k.shape[-2])),
        cap=_cap(part, factors),
        sinks=next((step.value for step in part.steps if step.what == "sinks"), ""),
        weights_read=part.weights_read,
        shape=tuple(captured[part.output].shape),
        result=_result(part, actual, seen[0].array, values),
        stands=not part.made and captured[part.output].ndim == 4,
        reads=part.reads,
        sums=part.sums,
        scale_varies=part.varies,
        head_scales=next(
            (step.value for step in part.steps if step.what == "mul" and values[step.value].size != 1), ""
        ),
    )


def _rotated(seen: Seen, captured: Mapping[str, Array]) -> Seen:
    """With whether the tables of the sample are those of a rotation; drawn ones never are."""
    rotary = seen.operand.rotary
    if rotary is None:
        return seen
    full = [captured[name] for name in (rotary.cos, rotary.sin) if captured[name].shape[-1] == rotary.width]
    rotary = replace(rotary, paired=all(is_paired(one, rotary.layout) for one in full))
    return replace(seen, operand=replace(seen.operand, rotary=rotary))


def _placed(seen: Seen, traced: Traced, values: Mapping[str, Array]) -> Seen:
    """With the way from its product, and how it stands there."""
    way = traced.names[: traced.names.index(seen.operand.value) + 1]
    plain = not (traced.columns or traced.heads or traced.order) and values[traced.value].ndim == 4
    return replace(seen, operand=replace(seen.operand, way=way, stands=plain))


def _result(part: AttentionPart, made: Array, queries: Array, values: Mapping[str, Array]) -> Operand | None:
    """Where the result can be read last; None of an op that is all of an attention."""
    batch, heads, rows, _ = queries.shape
    whole = made.reshape(batch, heads, rows, -1)
    return moved(part.behind, whole, values) if part.behind else None


def _formula(part: AttentionPart, q: Array, k: Array, v: Array, values: Mapping[str, Array]) -> Array:
    """What the part should compute."""
    if part.heads:
        times = part.heads[0] // part.heads[1]
        k, v = (np.repeat(one, times, 1) for one in (k, v))
    scores = q.astype(np.float64) @ k.swapaxes(-1, -2) * part.scale
    width = scores.shape[-1]
    scores = np.tanh(scores / part.cap) * part.cap if part.cap else scores
    if part.causal:
        rows = scores.shape[-2]
        later = width - rows if any(step.what == "past" for step in part.keys.steps) else 0
        scores = np.where(np.tri(rows, width, later, dtype=bool), scores, HIDDEN)
    for step in part.steps:
        scores = _stepped(scores, step, values)
    shares = softmax(scores)
    shares = shares if shares.shape[-1] == width else shares[..., :width]
    if part.weights:
        shares = shares.reshape(values[part.weights].shape)
    return np.asarray(shares @ v)


def _stepped(scores: Array, step: ScoreStep, values: Mapping[str, Array]) -> Array:
    value = values[step.value] if step.value else np.zeros(0)
    if step.what == "reshape":
        shape = values[step.result].shape
        return scores.reshape(shape) if scores.size == math.prod(shape) else np.broadcast_to(scores, shape)
    if step.what == "tanh":
        return np.asarray(np.tanh(scores))
    if step.what == "mask":
        return np.where(value if step.keeps else ~value.astype(bool), scores, HIDDEN)
    if step.what == "sinks":
        return np.concatenate([scores, np.broadcast_to(value, (*scores.shape[:-1], value.shape[-1]))], -1)
    return np.asarray(_ARITHMETIC[step.what](scores, value))


_ARITHMETIC = {"add": np.add, "mul": np.multiply, "div": np.divide}


def _factors(part: AttentionPart, values: Mapping[str, Array], heads: int) -> list[tuple[str, float]]:
    """What is done to the scores of so many heads in order, numbers where they are scaled.

    Raises:
        UntoldError: it is done in another order than the formula has, or several numbers scale them.
    """
    found = list[tuple[str, float]]()
    for step in part.steps:
        if step.what in SCALES and values[step.value].size != 1:
            _check_by_head(step, values[step.value], heads, [name for name, _ in found])
            found.append(("by head", 1.0))
            continue
        if step.what in ("mul", "div", "tanh") and any(name == "sinks" for name, _ in found):
            raise UntoldError("its scores are scaled after others were put beside them")
        if step.what == "tanh" and any(name == "add" for name, _ in found):
            raise UntoldError("its scores are bounded after something was added to them")
        if step.what == "tanh" and any(name == "mask" for name, _ in found):
            raise UntoldError("its scores are bounded after some were hidden")
        if step.what in SCALES:
            found.append(("scale", _number(step, values)))
        else:
            found.append((step.what, 1.0))
    return found


def _check_by_head(step: ScoreStep, array: Array, heads: int, before: Sequence[str]) -> None:
    """See that scores are multiplied by a number a head, once, before all else that is no number.

    Raises:
        UntoldError: they are not.
    """
    if array.shape[-3:] != (heads, 1, 1) or array.size != heads:
        raise UntoldError("its scores are scaled by several numbers, more than one a head")
    if step.what != "mul" or set(before) - {"scale"}:
        raise UntoldError("its scores are scaled by a number a head behind something else")


def _cap(part: AttentionPart, factors: Sequence[tuple[str, float]]) -> float | None:
    """The bound of scores, where a tangent keeps them under one."""
    names = [name for name, _ in factors]
    return math.prod(number for _, number in factors[names.index("tanh") :]) if "tanh" in names else part.cap or None


def _masking(part: AttentionPart, captured: Mapping[str, Array], sizes: tuple[int, int]) -> tuple[Masking, ...]:
    """What is added to scores of so many queries and keys, or hides some."""
    found = [Masking("", "causal")] if part.causal else []
    for at, step in enumerate(part.steps):
        if step.what not in ("add", "mask"):
            continue
        array, added, later = captured.get(step.value), step.what == "add", part.steps[at + 1 :]
        scale = math.prod(_number(one, captured) for one in later if added and one.what in SCALES)
        one = Masking(step.value, "bias" if added else "mask", step.keeps, scale, infinite=step.infinite)
        found.append(one if array is None else _looked_at(one, array, sizes))
    return tuple(found)


def _looked_at(one: Masking, array: Array, sizes: tuple[int, int]) -> Masking:
    """With what numbers of a sample tell."""
    one = replace(one, whole=array.ndim == 4 and array.shape[-2:] == sizes and min(sizes) > 1)
    if one.keeps is not None:
        seen = array.astype(bool) if one.keeps else ~array.astype(bool)
        return replace(one, kind=mask_kind(seen), hides_later=hides_later(seen))
    array = array * one.scale
    hides, seen = bool(((array <= -1e4) | (array == 0)).all()), visible(array)
    return replace(one, kind=mask_kind(seen) if hides else "bias", hides_later=hides_later(seen))


def _number(step: ScoreStep, values: Mapping[str, Array]) -> float:
    """What a step multiplies by."""
    number = float(values[step.value].reshape(-1)[0])
    return number if step.what == "mul" else 1 / number
