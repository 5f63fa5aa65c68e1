"""Exact search over the core of a multiple-choice knapsack: what reduced costs could not fix.

A core holds few units and few candidates of each, every one priced by its reduced cost; a choice's cost above the
Lagrangian bound is the reduced costs it pays plus the multipliers times the room it leaves. Two engines close it:

- `sweep`, dynamic programming by lists: all partial choices, unit after unit, each pruned by the best of many
  Lagrangian bounds of what remains. With a width it is a beam search; what it drops is remembered as a bound, so a
  sweep that dropped nothing that matters is a proof.
- `milp`, HiGHS's branch and cut, for cores whose lists grow too long.

Source: Kellerer, Pferschy and Pisinger, *Knapsack Problems* (Springer, 2004), sections 11.5 (core, reduction) and 3.4
(dynamic programming with lists); Huangfu and Hall, *Parallelizing the dual revised simplex method* (HiGHS, 2018).
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qcc.compiler.allocate.choice.bound import Dual, FloatArray, Ints, PaddedProblem

_STRENGTHS = (0.1, 0.5, 2.0, 8.0)
_BLOCK = 2**18  # multiplications per matrix product: it stays in cache and below the size that BLAS threads
_MIX = np.uint64(0x9E3779B97F4A7C15)
_RATIO = 1e4  # row units per bound in HiGHS, whose feasibility tolerance is 1e-6 absolute
_COST = 1e4  # objective units per gap in HiGHS, whose smallest gap is 1e-6 absolute


@dataclass(frozen=True)
class Core:
    """The open units and their open candidates; candidate 0 of each is the one that costs nothing."""

    units: Ints  # [units], their numbers in the table
    candidate: Ints  # [units, choices], their numbers in the table
    price: FloatArray  # [units, choices], reduced costs; infinite where there is none
    move: FloatArray  # [units, choices, rows], weight above that of candidate 0
    room: FloatArray  # [rows], what is left when every unit takes candidate 0
    slack: FloatArray  # [rows]
    multipliers: FloatArray  # [rows]

    def apply(self, base: Ints, picks: Ints) -> Ints:
        """Return the whole choice that takes `picks` in the core and `base` outside it."""
        choice = base.copy()
        choice[self.units] = self.candidate[np.arange(len(self.units)), picks]
        return choice


@dataclass(frozen=True)
class Outcome:
    """The outcome of a search in a core, costs counted above the Lagrangian bound.

    No choice of the core costs less than `bound`; `picks` is the best one found, if one was.
    """

    cost: float
    bound: float
    picks: Ints | None


def core_of(table: PaddedProblem, dual: Dual, open_candidates: np.ndarray) -> Core:
    """Return the core of the given candidates ([units, candidates] of bool), heaviest movers first."""
    mask = open_candidates & np.isfinite(dual.reduced)
    everyone = np.arange(len(dual.base))
    mask[everyone, dual.base] = True
    units = np.flatnonzero(mask.sum(axis=1) > 1)
    base = dual.base[units]
    priced = np.where(mask[units], dual.reduced[units], np.inf)
    priced[np.arange(len(units)), base] = -1.0
    width = int(mask[units].sum(axis=1).max(initial=1))
    candidate = np.argsort(priced, axis=1, kind="stable")[:, :width]
    price = np.take_along_axis(priced, candidate, axis=1)
    price[:, 0] = 0.0
    moves = table.weight[units] - table.weight[units, base][:, None, :]
    move = np.where(np.isfinite(price)[:, :, None], np.take_along_axis(moves, candidate[:, :, None], axis=1), 0.0)
    spread = np.sqrt((move**2).sum(axis=(0, 1)))
    order = np.argsort(-(np.abs(move) / np.where(spread > 0, spread, 1.0)).max(axis=(1, 2), initial=0.0), kind="stable")
    room = table.room(dual.base)
    return Core(units[order], candidate[order], price[order], move[order], room, table.slack, dual.multipliers)


def _probes(core: Core, limit: float) -> FloatArray:
    """Return shifts of the multipliers, [shifts, rows], at which partial choices are bounded; the first is zero."""
    rows = len(core.room)
    corners = [list(signs) for signs in itertools.product((-1.0, 1.0), repeat=rows)] if 1 < rows <= 4 else []
    directions = np.array([*np.eye(rows), *-np.eye(rows), *corners]).reshape(-1, rows)
    spread = np.sqrt((core.move**2).sum(axis=(0, 1)))
    prices = core.price[np.isfinite(core.price)]
    unit = min(limit, float(prices.sum())) / np.where(spread > 0, spread, 1.0)
    shifts = np.concatenate([strength * directions * unit for strength in _STRENGTHS])
    clipped = np.unique(np.maximum(shifts, -core.multipliers), axis=0)
    return np.concatenate([np.zeros((1, rows)), clipped])


class _Sweep:
    """The lists of one sweep.

    A partial choice is a column: the room it leaves in each row, the reduced cost it paid, and a one, so that all
    its bounds are one matrix product.
    """

    def __init__(self, core: Core, limit: float, width: int) -> None:
        self.core, self.width = core, width
        depth, rows = len(core.units), len(core.room)
        probes = _probes(core, limit)
        self.bounds = np.zeros((depth + 1, len(probes), rows + 2))  # of a partial choice before each unit
        self.bounds[:, :, :rows] = -probes
        self.bounds[:, :, rows] = 1.0
        self.relief = np.zeros((depth + 1, rows))  # the most room that the units from here on give back
        for unit in range(depth - 1, -1, -1):
            tilted = core.price[unit][:, None] + core.move[unit] @ probes.T
            self.bounds[unit, :, -1] = self.bounds[unit + 1, :, -1] + tilted.min(axis=0)
            self.relief[unit] = self.relief[unit + 1] - core.move[unit].min(axis=0)
        self.parents: list[npt.NDArray[np.int32]] = []
        self.taken: list[npt.NDArray[np.int16]] = []
        self.best, self.winner, self.dropped = limit, (-1, -1), np.inf

    def start(self) -> FloatArray:
        """Return the list that holds the empty partial choice."""
        return np.concatenate([self.core.room, [0.0, 1.0]])[:, None]

    def finish(self, state: FloatArray) -> None:
        """Complete every partial choice with candidate 0 and keep the best one."""
        rows = len(self.core.room)
        fits = (state[:rows] >= -self.core.slack[:, None]).all(axis=0)
        total = np.where(fits, state[rows] + self.core.multipliers @ state[:rows], np.inf)
        if len(total) and (least := float(total.min())) < self.best:
            self.best, self.winner = least, (len(self.parents), int(total.argmin()))

    def extend(self, state: FloatArray, unit: int) -> FloatArray:
        """Branch all partial choices on one unit, prune them, cut the list to the width."""
        core = self.core
        choices = np.flatnonzero(np.isfinite(core.price[unit]))
        grown, bounds, parents = [], [], []
        for choice in choices:
            child = state + np.concatenate([-core.move[unit, choice], [core.price[unit, choice], 0.0]])[:, None]
            bound = self._bound(child, unit + 1)
            alive = np.flatnonzero(bound < self.best)
            grown.append(np.take(child, alive, axis=1))
            bounds.append(bound[alive])
            parents.append(alive)
        every = np.concatenate(grown, axis=1)
        keep = self._select(np.concatenate(bounds), every)
        taken = np.repeat(choices, [len(each) for each in parents])
        self.parents.append(np.concatenate(parents)[keep].astype(np.int32))
        self.taken.append(taken[keep].astype(np.int16))
        return every if len(keep) == every.shape[1] else np.take(every, keep, axis=1)

    def _bound(self, state: FloatArray, unit: int) -> FloatArray:
        """Return a lower bound of every completion; infinite where no row's relief suffices."""
        bound = np.empty(state.shape[1])
        step = max(64, _BLOCK // self.bounds[unit].size)
        for first in range(0, len(bound), step):
            block = slice(first, first + step)
            bound[block] = (self.bounds[unit] @ state[:, block]).max(axis=0)
        needed = -(self.relief[unit] + self.core.slack)
        for row, need in enumerate(needed):
            bound[state[row] < need] = np.inf
        return bound

    def _select(self, bound: FloatArray, state: FloatArray) -> Ints:
        if len(bound) <= self.width:
            return np.arange(len(bound))
        keep = np.argsort(bound, kind="stable")
        keep = keep[_distinct(state[: len(self.core.room), keep], self.core.slack)]
        if len(keep) > self.width:
            self.dropped = min(self.dropped, float(bound[keep[self.width]]))
        return keep[: self.width]

    def picks(self) -> Ints | None:
        """Follow the winner back to its choices."""
        depth, state = self.winner
        if depth < 0:
            return None
        found = np.zeros(len(self.core.units), dtype=np.int64)
        for unit in range(depth - 1, -1, -1):
            found[unit], state = self.taken[unit][state], int(self.parents[unit][state])
        return found


def _distinct(room: FloatArray, slack: FloatArray) -> Ints:
    """Return the first of every group of equal columns of `room`, in the order given.

    Of partial choices that leave the same room only the cheapest can be part of the best choice.
    """
    keys = np.round(room / np.maximum(0.01 * slack, 1e-16)[:, None]).astype(np.int64)
    mixed = np.zeros(room.shape[1], dtype=np.uint64)
    for key in keys:
        mixed = (mixed * _MIX + key.view(np.uint64)) * _MIX
    _, first, group = np.unique(mixed, return_index=True, return_inverse=True)
    same = (keys[:, first[group]] == keys).all(axis=0)
    return np.flatnonzero(~same | (first[group] == np.arange(len(group))))


def sweep(core: Core, limit: float, width: int, deadline: float) -> Outcome:
    """Search a core for a choice that costs less than `limit`, holding at most `width` partial choices.

    The result's bound is its cost, or `limit` if nothing was found, where nothing that matters was dropped.
    """
    lists = _Sweep(core, limit, width)
    state = lists.start()
    lists.finish(state)
    for unit in range(len(core.units)):
        state = lists.extend(state, unit)
        lists.finish(state)
        if time.monotonic() > deadline:
            return Outcome(lists.best, 0.0, lists.picks())
        if not state.shape[1]:
            break
    return Outcome(lists.best, max(0.0, min(lists.best, lists.dropped)), lists.picks())


def milp(core: Core, limit: float, deadline: float) -> Outcome:
    """Search a core with HiGHS; `limit` sets the scale of the objective, so that its tolerances mean little."""
    from scipy import optimize, sparse  # who has nothing to choose needs none of it

    rows, depth = len(core.room), len(core.units)
    who, what = np.nonzero(np.isfinite(core.price))
    count = len(who)
    scale = _COST / limit if np.isfinite(limit) and limit > 0 else 1.0
    cost = scale * np.concatenate([core.price[who, what], core.multipliers / _RATIO])
    weigh = sparse.hstack([sparse.csr_matrix(core.move[who, what].T * _RATIO), sparse.eye(rows)], format="csr")
    one = sparse.csr_matrix((np.ones(count), (who, np.arange(count))), shape=(depth, count + rows))
    room = core.room * _RATIO
    result = optimize.milp(
        cost,
        constraints=[optimize.LinearConstraint(weigh, room, room), optimize.LinearConstraint(one, 1.0, 1.0)],
        integrality=np.repeat([1, 0], [count, rows]),
        bounds=optimize.Bounds(0.0, np.repeat([1.0, np.inf], [count, rows])),
        options={"mip_rel_gap": 0.0, "time_limit": max(0.1, deadline - time.monotonic())},
    )
    if result.status == 2:
        return Outcome(np.inf, np.inf, None)
    bound = max(0.0, float(result.mip_dual_bound) / scale) if result.mip_dual_bound is not None else 0.0
    if result.x is None:
        return Outcome(np.inf, bound, None)
    picks = np.zeros(depth, dtype=np.int64)
    chosen = np.asarray(result.x)[:count] > 0.5
    picks[who[chosen]] = what[chosen]
    left = core.room - core.move[np.arange(depth), picks].sum(axis=0)
    if (left < -core.slack).any():
        return Outcome(np.inf, bound, None)
    value = float(core.price[np.arange(depth), picks].sum() + core.multipliers @ left)
    return Outcome(value, min(bound, value), picks)
