"""Loops that are searched for: nearer to the long one than usual grids and solvers, and told as a table."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import qcc
from qcc.compiler.compile import compile
from qcc.compiler.sampler.drive import Driver, whole_driver
from qcc.compiler.sampler.loop import read_loop
from qcc.compiler.sampler.noise import GRIDS, NAMED
from qcc.compiler.sampler.solvers import SOLVERS
from qcc.compiler.sampler.table import LoopTable
from qcc.compiler.steps.measured_loops import MeasuredLoops
from qcc.compiler.steps.search import distance, searched
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.graph.ops import Array, Feeds
from qcc.ir.onnx.model import OnnxModel
from tests.diffusion_models import LOOP, saved

COUNT = 4


@pytest.mark.parametrize("search", [("times",), ("order",), ("times", "order")])
def test_what_is_found_is_nearer_than_what_is_usual(tmp_path: Path, search: tuple[str, ...]) -> None:
    model = OnnxModel(saved(tmp_path))
    loop, run = read_loop(tmp_path / "loop.toml"), model.reference()

    def driver(table: LoopTable) -> Driver:
        return whole_driver(table, model.graph.inputs, run)

    end = driver(loop.table(loop.reference)).samples(loop.seeds)
    found = searched(loop, COUNT, search, driver)
    assert len(found.rows) == COUNT
    usual = {
        (grid, solver): driver(loop.over(_grid(grid), solver)).samples(loop.seeds)
        for grid in (GRIDS if "times" in search else ["uniform"])
        for solver in (SOLVERS if "order" in search else ["ddim"])
    }
    best = min(distance(one, end) for one in usual.values())
    assert distance(driver(found).samples(loop.seeds), end) <= best + 1e-6  # sums in another order


def _grid(name: str) -> list[float]:
    schedule = NAMED["cosine"]()
    return list(map(float, GRIDS[name](schedule, schedule.begin, schedule.end, COUNT)))


def test_a_policy_finds_a_short_loop(tmp_path: Path) -> None:
    model = saved(tmp_path)
    (tmp_path / "p.qpolicy").write_text(
        'sampler "loop.toml" { evaluations = 4, search = times order }\nrule linear { keep }\n', encoding="utf-8"
    )
    result = compile(model, tmp_path / "p.qpolicy")
    assert result.loop is not None and len(result.loop.facts["steps"]) == COUNT
    assert 0 < result.loop.facts["distance"] < 0.5  # far less than all of it
    assert qcc.Session(result.output).sample(2).shape == (2, 1, 8, 4)


def test_a_loop_that_adds_noise_is_not_searched_for(tmp_path: Path) -> None:
    model = saved(tmp_path, LOOP.replace('"ddim"', '"renoise"'))
    (tmp_path / "p.qpolicy").write_text(
        'sampler "loop.toml" { evaluations = 4, search = times }\nrule linear { keep }\n', encoding="utf-8"
    )
    with pytest.raises(QccError) as error:
        compile(model, tmp_path / "p.qpolicy")
    assert error.value.diagnostics[0].code == "Q576"


def counted(model: OnnxModel) -> tuple[Callable[[LoopTable], Driver], list[int]]:
    """What runs tables, and how many evaluations that took."""
    run, calls = model.reference(), [0]

    def counting(feeds: Feeds) -> dict[str, Array]:
        calls[0] += 1
        return dict(run(feeds))

    return lambda table: whole_driver(table, model.graph.inputs, counting), calls


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = OnnxModel(saved(tmp_path))
    loop = read_loop(tmp_path / "loop.toml")
    driver, calls = counted(model)
    first = searched(loop, COUNT, ("times", "order"), driver)
    whole, calls[0] = calls[0], 0
    assert searched(loop, COUNT, ("times", "order"), driver) == first
    long = calls[0]
    assert long < whole / 2  # the long loop alone
    calls[0] = 0

    def dying(table: LoopTable) -> Driver:
        if calls[0] > long + 40:
            raise KeyboardInterrupt
        return driver(table)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    with pytest.raises(KeyboardInterrupt):
        searched(loop, COUNT, ("times", "order"), dying)
    calls[0] = 0
    assert searched(loop, COUNT, ("times", "order"), driver) == first
    assert calls[0] < whole


def test_loops_that_begin_alike_share_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = OnnxModel(saved(tmp_path))
    loop = read_loop(tmp_path / "loop.toml")
    driver, calls = counted(model)
    end = driver(loop.table(8)).samples(loop.seeds)
    calls[0] = 0
    loops = MeasuredLoops(driver, loop.seeds, end)
    assert loops.energy(loop.table(8), 0) < 1e-6 * float(np.square(end).sum())
    before = calls[0]
    other = loop.over((*loop.grid(8)[:7], 0.05, 0.0)[:9], "ddim")
    loops.energy(other, 0)
    assert calls[0] == before + 1  # the last alone
    assert loops.fresh == 2
    assert loops.energy(other, 0) == MeasuredLoops(driver, loop.seeds, end).energy(other, 0)
    assert calls[0] == before + 1
