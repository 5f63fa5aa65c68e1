"""Which steps a loop of few evaluations takes, and by which order each is solved.

The long loop of the same seeds is what all is held to. A first choice comes of it alone: from its latents, what each
jump between two of its steps would miss is known for every order without running the model, and the path of least total
is found by dynamic programming. This path and every usual grid with every solver are then run, and the best of them is
improved step by step, each change measured at the final samples: on half of the seeds first, by turns, and on the
others where it gains there.

Source: S3, Liu et al. 2023 (arXiv:2312.07243), whose predictor is replaced by measuring: the space is the same.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from qcc.compiler.sampler.drive import Driver
from qcc.compiler.sampler.loop import SamplingLoop
from qcc.compiler.sampler.noise import GRIDS
from qcc.compiler.sampler.solvers import MOST_ORDER, RENOISE, SOLVERS, of_order
from qcc.compiler.sampler.table import LoopTable
from qcc.compiler.steps.measured_loops import MeasuredLoops
from qcc.ir.errors import ModelError
from qcc.ir.graph.ops import Array

MOVES = (0.4, 0.15)  # of the way to a neighbour, by round
ROUNDS_EACH = 2
FEW = 64  # places that the path may take, of the long loop's
Run = Callable[[LoopTable], Driver]
Orders = str | tuple[int, ...]


@dataclass(frozen=True)
class ShortLoop:
    """Steps with how each is solved, and what it misses of the long loop's samples, in all and by half of the seeds."""

    steps: tuple[float, ...]
    orders: Orders
    error: float = np.inf
    energies: tuple[float, ...] = ()


def searched(loop: SamplingLoop, evaluations: int, search: Sequence[str], run: Run) -> LoopTable:
    """The loop of so many evaluations that ends nearest to the long one.

    Args:
        loop: as it is described.
        evaluations: of the model.
        search: what may differ from it: ``times``, ``order``.
        run: runs a table.

    Raises:
        ModelError: the loop adds noise, so that no two ways of solving it end alike.
    """
    if loop.solver == RENOISE:
        help = "give its steps under `[grid]`"
        raise ModelError("Q576", "a loop that adds noise ends nowhere that could be searched for", help=help)
    found = _Search(loop, evaluations, "times" in search, "order" in search, run)
    best = found.best()
    return loop.over(best.steps, best.orders)


def distance(one: Array, other: Array) -> float:
    """The root of the energy of what differs, over that of what is wanted."""
    whole = float(np.linalg.norm(other))
    return float(np.linalg.norm(one - other)) / whole if whole else 0.0


class _Search:
    def __init__(self, loop: SamplingLoop, evaluations: int, times: bool, order: bool, run: Run) -> None:
        self._loop, self._count, self._times, self._order = loop, evaluations, times, order
        self._long = _Trajectory.of(loop, run(loop.table(loop.reference)))
        self._loops, self._turn = MeasuredLoops(run, loop.seeds, self._long.end), 0

    def best(self) -> ShortLoop:
        """The best of the first choices, improved."""
        found = ShortLoop((), "")
        for one in self._first():
            found = self._better(one, found, gains=False)
        if isinstance(found.orders, str) and self._order:
            found = self._improved_orders(found)
        for move in MOVES:
            for _ in range(ROUNDS_EACH):
                before = found.error
                if self._times:
                    found = self._improved_steps(found, move)
                if self._order:
                    found = self._improved_orders(found)
                if found.error > 0.999 * before:
                    break
        return found

    def _better(self, one: ShortLoop, than: ShortLoop, gains: bool = True) -> ShortLoop:
        """The better of two, of which the second was measured.

        A half of the seeds tells of most that they are worse: a change has to gain there (``gains``), and what misses
        more there than the other does of all is worse in any case.
        """
        table, energies = self._loop.over(one.steps, one.orders), dict[int, float]()
        self._turn += 1
        for at in range(self._loops.halves):
            half = (at + self._turn) % self._loops.halves
            energies[half] = self._loops.energy(table, half)
            known = than.energies
            if known and ((gains and energies[half] >= known[half]) or sum(energies.values()) >= sum(known)):
                return than
        whole = tuple(energies[half] for half in sorted(energies))
        return replace(one, energies=whole, error=self._loops.share(sum(whole)))

    def _first(self) -> Iterator[ShortLoop]:
        """Usual grids and solvers, and the path of least misses; what may not differ is the loop's own."""
        solvers: Sequence[Orders] = list(SOLVERS) if self._order else [self._loop.solver]
        own = self._loop.grid(self._count)
        grids = [own, *(self._grid(name) for name in GRIDS)] if self._times else [own]
        yield from (ShortLoop(steps, solver) for steps in dict.fromkeys(grids) for solver in dict.fromkeys(solvers))
        if self._times:
            yield from self._long.path(self._loop, self._count, MOST_ORDER if self._order else 1)

    def _grid(self, name: str) -> tuple[float, ...]:
        ends = self._loop.begin, self._loop.end
        if self._loop.steps is not None:
            ends = self._loop.steps[0], self._loop.steps[-1]
        return tuple(map(float, GRIDS[name](self._loop.schedule, *ends, self._count)))

    def _improved_steps(self, found: ShortLoop, move: float) -> ShortLoop:
        for at in range(1, self._count):
            for other in (at - 1, at + 1):
                steps = list(found.steps)
                steps[at] += move * (steps[other] - steps[at])
                tried = self._better(replace(found, steps=tuple(steps)), found)
                if tried is not found:
                    found = tried
                    break
        return found

    def _improved_orders(self, found: ShortLoop) -> ShortLoop:
        if isinstance(found.orders, str):  # as orders, where those are no worse
            best = ShortLoop((), "")
            for order in (1, 2, MOST_ORDER):
                best = self._better(replace(found, orders=(order,) * self._count), best, gains=False)
            if best.error > found.error:
                return found
            found = best
        for at in range(1, self._count):
            for order in range(1, min(at + 1, MOST_ORDER) + 1):
                if order == found.orders[at]:
                    continue
                orders = (*found.orders[:at], order, *found.orders[at + 1 :])
                found = self._better(replace(found, orders=tuple(map(int, orders))), found)
        return found


@dataclass(frozen=True)
class _Trajectory:
    """The long loop: its steps, and the products of all latents and estimates with one another."""

    steps: tuple[float, ...]
    products: Array
    """``[2 n - 1, 2 n - 1]``: the latents first, then the estimates."""
    end: Array

    @classmethod
    def of(cls, loop: SamplingLoop, driver: Driver) -> "_Trajectory":
        rows = driver.table.rows
        steps = [row.step for row in rows] + [loop.grid(loop.reference)[-1]]
        latents: list[list[Array]] = [[] for _ in steps]
        estimates: list[list[Array]] = [[] for _ in rows]
        for one in driver.evaluations(loop.seeds):
            latent, output = one.feeds[loop.latent], one.made[loop.output]
            latents[one.at].append(latent.ravel())
            estimates[one.at].append((one.row.clean[0] * latent + one.row.clean[1] * output).ravel())
        ends = driver.samples(loop.seeds)
        latents[-1] = [ends.ravel()]
        kept = sorted({round(at) for at in np.linspace(0, len(rows), min(FEW, len(rows)) + 1)})
        found = [np.concatenate(latents[at]) for at in kept] + [np.concatenate(estimates[at]) for at in kept[:-1]]
        stacked = np.stack(found).astype(np.float64)
        return cls(tuple(steps[at] for at in kept), stacked @ stacked.T, ends)

    def path(self, loop: SamplingLoop, count: int, most: int) -> Iterator[ShortLoop]:
        """The path of so many steps that misses least in sum, if there is one: over all pairs of neighbours."""
        last = len(self.steps) - 1
        if count >= last:
            return
        pairs = [loop.schedule.at(step) for step in self.steps]
        missed = cache(partial(self._missed, pairs))
        best: dict[tuple[int, int], tuple[float, tuple[int, ...], tuple[int, ...]]] = {}
        for then in range(1, last) if count > 1 else (last,):
            best[0, then] = missed((0,), then, 1), (0, then), (1,)
        for left in range(count - 2, -1, -1):
            nearer: dict[tuple[int, int], tuple[float, tuple[int, ...], tuple[int, ...]]] = {}
            for (before, now), (cost, places, orders) in best.items():
                for then in range(now + 1, last) if left else (last,):
                    for order in range(1, min(2, most) + 1):
                        total = cost + missed((now, before), then, order)
                        if total < nearer.get((now, then), (np.inf,))[0]:
                            nearer[now, then] = total, (*places, then), (*orders, order)
            best = nearer
        ends = [one for (_, then), one in best.items() if then == last]
        for _, places, orders in sorted(ends)[:1]:
            yield ShortLoop(tuple(self.steps[at] for at in places), orders if most > 1 else loop.solver)

    def _missed(self, pairs: Sequence[tuple[float, float]], path: tuple[int, ...], then: int, order: int) -> float:
        """The energy between the long loop's latent and the one that a jump would make."""
        keep, weights = of_order(order, [pairs[at] for at in path], pairs[then])
        shares = np.zeros(len(self.products))
        shares[path[0]] += keep
        shares[then] -= 1
        for weight, at in zip(weights, path, strict=False):
            shares[len(self.steps) + at] += weight
        used = np.flatnonzero(shares)
        return float(np.sqrt(max(shares[used] @ self.products[np.ix_(used, used)] @ shares[used], 0.0)))
