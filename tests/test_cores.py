"""How many processors a process may use: its mask, its control group's quota, and what ONNX Runtime is told."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from qcc.ir import cores as rooms
from qcc.ir.onnx.graph.run import OnnxRunner
from tests.onnx_models import parse

needs_masks = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system knows no masks")


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(rooms, "GROUPS", tmp_path)
    rooms.cores.cache_clear()
    yield
    rooms.cores.cache_clear()


@pytest.mark.parametrize(
    ("files", "paid"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": ""}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_quota_is_read(tmp_path: Path, files: dict[str, str], paid: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert rooms.quota() == paid


def test_a_small_quota_leaves_one(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("1000 100000\n")
    assert rooms.cores() == 1
    assert rooms.runtime_threads() == (0 if os.cpu_count() == 1 else 1)


@needs_masks
def test_sessions_stay_inside_the_mask() -> None:
    """By itself ONNX Runtime pins a thread to each core of the machine."""
    mask = os.sched_getaffinity(0)
    if len(mask) < 2:
        pytest.skip("one core")
    try:
        os.sched_setaffinity(0, {min(mask)})
        rooms.cores.cache_clear()
        assert rooms.cores() == rooms.runtime_threads() == 1
        before = set(Path("/proc/self/task").iterdir())
        runner = OnnxRunner(
            parse("g (float[1, 64] x) => (float[1, 64] y) { y = MatMul(x, w) }", {"w": np.ones((64, 64), np.float32)})
        )
        started = set(Path("/proc/self/task").iterdir()) - before
        assert all(os.sched_getaffinity(int(one.name)) == {min(mask)} for one in started)
        assert len(runner.outputs) == 1
    finally:
        os.sched_setaffinity(0, mask)


@needs_masks
def test_all_of_the_machine_is_left_to_the_runtime() -> None:
    if len(os.sched_getaffinity(0)) != os.cpu_count():
        pytest.skip("this process has a mask of its own")
    assert rooms.runtime_threads() == 0
