"""The law by which what is lost falls with bits, fitted to a curve, and told by what it says of a point left out.

What is lost adds up over layers, and kinds of layers that hold much of the weights each have bits and a law of their
own: a table is one weight of one format, and while it waits for the next one all others get the bits.

Source: Scaling laws of losses by bits (arXiv:2501.06218), of the form ``a + b x^-c``. What is lost by rounding
uniformly falls with the number of levels, exponentially in bits, and at few bits faster, since a level less is much
there: so ``a + b 2^-cx`` and ``a + b (2^x - d)^-c`` are tried, too, and what foretells points left out best is taken.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

LEAST = 5  # points, of which four fit three numbers; also of different bits, for a part to have a law
SHARE = 0.1  # of the weights, from which on a part has a law
GONE = (0.5, 1.0, 1.5, 2.0)  # levels that are of no use
POWERS = np.geomspace(0.1, 20, 241)
RATES = np.geomspace(0.05, 8, 241)


@dataclass(frozen=True)
class KindPoint:
    """Some layers at a point of a curve.

    Args:
        params: weights that they hold.
        bits: a weight of theirs on average.
        loss: what they lose together.
    """

    params: int
    bits: float
    loss: float

    def __add__(self, other: "KindPoint") -> "KindPoint":
        """Both together."""
        params = self.params + other.params
        bits = (self.params * self.bits + other.params * other.bits) / max(params, 1)
        return KindPoint(params, bits, self.loss + other.loss)


Kinds = Mapping[str, KindPoint]
"""By kind of layer."""


@dataclass(frozen=True)
class KindLaw:
    """``floor + factor * shape(bits)``.

    Args:
        form: ``power``, ``exponential``, or ``levels``, of which some are gone.
        floor: what is lost however many bits there are.
        factor: of what falls.
        rate: the power, or how often what is lost halves for each bit.
        gone: of ``levels``, how many.
    """

    form: str
    floor: float
    factor: float
    rate: float
    gone: float = 0.0

    def __call__(self, bits: float) -> float:
        """What is lost."""
        shape, _, _ = _SHAPES[self.form]
        return self.floor + self.factor * float(shape(np.array([bits]), self.rate, self.gone)[0])

    @property
    def text(self) -> str:
        """As a formula."""
        floor = f"{self.floor:.3g} + " if self.floor else ""
        falls = {
            "power": f"bits^-{self.rate:.3g}",
            "exponential": f"2^(-{self.rate:.3g} bits)",
            "levels": f"(2^bits - {self.gone:g})^-{self.rate:.3g}",
        }
        return f"{floor}{self.factor:.3g} {falls[self.form]}"


@dataclass(frozen=True)
class ScalingLaw:
    """A sum of laws of one form, one for each part of the layers.

    Args:
        laws: by the kinds of layers that make up a part, with blanks between.
        most: what the points lose less than that it was fitted to.
        errors: by how much the law of all other points is off at each point between the ends, relative.
    """

    laws: Mapping[str, KindLaw] = field(hash=False)
    most: float = np.inf
    errors: tuple[float, ...] = ()

    def __call__(self, parts: Kinds) -> float:
        """What is lost."""
        return sum(law(_joined(parts, name).bits) for name, law in self.laws.items())

    @property
    def lines(self) -> list[str]:
        """As formulas; of which layers each is, where there are several."""
        if len(self.laws) == 1:
            return [law.text for law in self.laws.values()]
        return [
            f"{'' if not at else '+ '}{law.text} of {name.replace(' ', ', ')}"
            for at, (name, law) in enumerate(self.laws.items())
        ]


Shape = Callable[[np.ndarray, float, float], np.ndarray]
_SHAPES: dict[str, tuple[Shape, np.ndarray, tuple[float, ...]]] = {
    "power": (lambda bits, rate, _: bits**-rate, POWERS, (0.0,)),
    "exponential": (lambda bits, rate, _: 2.0 ** (-rate * bits), RATES, (0.0,)),
    "levels": (lambda bits, rate, gone: (2.0**bits - gone) ** -rate, RATES, GONE),
}


def fitted(points: Sequence[Kinds], most: float = np.inf) -> ScalingLaw | None:
    """The law of a curve, of points that lose something and less than ``most``; None where these are too few.

    Args:
        points: each with the same parts.
        most: what says nothing of a law.
    """
    known = [one for one in points if 0 < sum(part.loss for part in one.values()) < most]
    if len(known) < LEAST:
        return None
    names = _told_apart(known)
    curves = {name: [_joined(one, name) for one in known] for name in names}
    totals = [sum(part.loss for part in one.values()) for one in known]
    best: ScalingLaw | None = None
    for form in _SHAPES:
        inner = range(1, len(known) - 1)
        errors = tuple(abs(_left_out(form, curves, at) / totals[at] - 1) for at in inner)
        if best is None or np.median(errors) < np.median(best.errors):
            best = ScalingLaw({name: _of(form, curve) for name, curve in curves.items()}, most, errors)
    return best


def _told_apart(points: Sequence[Kinds]) -> list[str]:
    """Which kinds have a law of their own, and what all others together are called, which have one, too."""
    whole = sum(part.params for part in points[0].values())
    alone: list[str] = []
    rest: list[str] = []
    for name, part in points[0].items():
        bits, least = {one[name].bits for one in points}, min(one[name].loss for one in points)
        (alone if part.params >= SHARE * whole and len(bits) >= LEAST and least > 0 else rest).append(name)
    if rest and alone and not _has_law(points, rest):
        rest.append(alone.pop())
    rest.sort(key=lambda name: -points[0][name].params)
    return [*alone, *([" ".join(rest)] if rest else [])]


def _has_law(points: Sequence[Kinds], names: Sequence[str]) -> bool:
    joined = [_joined(one, " ".join(names)) for one in points]
    enough = len({one.bits for one in joined}) >= LEAST and min(one.loss for one in joined) > 0
    return enough and joined[0].params >= SHARE * sum(part.params for part in points[0].values())


def _joined(parts: Kinds, names: str) -> KindPoint:
    """Those that are named, together."""
    return sum((parts[name] for name in names.split(" ")), KindPoint(0, 0.0, 0.0))


def _left_out(form: str, curves: Mapping[str, Sequence[KindPoint]], at: int) -> float:
    """What the law of all other points says of one."""
    others = {name: [*curve[:at], *curve[at + 1 :]] for name, curve in curves.items()}
    return sum(_of(form, curve)(curves[name][at].bits) for name, curve in others.items())


def _of(form: str, curve: Sequence[KindPoint]) -> KindLaw:
    """The law of a part."""
    return _fit(form, np.array([one.bits for one in curve]), np.array([one.loss for one in curve]))


def _fit(form: str, x: np.ndarray, y: np.ndarray) -> KindLaw:
    """Least relative squares over a grid of rates; neither part is below zero."""
    shape, rates, gone = _SHAPES[form]
    best, least = KindLaw(form, 0.0, 0.0, 1.0), np.inf
    for lost, rate in product([one for one in gone if one < 2.0 ** x.min()], rates):
        falls = shape(x, float(rate), lost)
        columns = np.stack([1 / y, falls / y], axis=1)
        floor, factor = np.linalg.lstsq(columns, np.ones(len(x)), rcond=None)[0]
        if floor < 0:
            floor, factor = 0.0, float((falls / y).sum() / np.square(falls / y).sum())
        error = float(np.square(columns @ (floor, factor) - 1).sum())
        if factor > 0 and error < least:
            best, least = KindLaw(form, float(floor), float(factor), float(rate), lost), error
    return best


def knee(sizes: Sequence[float], losses: Sequence[float]) -> int | None:
    """The point behind which more bytes gain least for what they take: the farthest below the line between the ends.

    Both are seen as logarithms. None where no point lies clearly below.
    """
    if len(sizes) < 3 or min(losses) <= 0:
        return None
    x, y = (np.log(np.asarray(one, np.float64)) for one in (sizes, losses))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    x, y = (x - x[0]) / (x[-1] - x[0]), (y - y[-1]) / (y[0] - y[-1])
    below = 1 - x - y
    at = int(np.argmax(below))
    return at if below[at] > 0.05 else None
