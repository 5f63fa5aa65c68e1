"""Work by Dask: the same results whatever the number of workers, and a worker that is killed costs its task alone."""

import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

import qcc
from qcc.__main__ import main
from qcc.compiler.observe import cluster
from qcc.compiler.observe.cluster import Cluster, executor_of
from qcc.compiler.observe.executor import AHEAD
from qcc.ir.errors import ModelError

FASHION = Path(__file__).parent.parent / "examples" / "fashion"
POLICY = """qpolicy 1
rule any { weights = int{4,8} channel }
budget { size <= 22% }
minimize output_error
"""


@pytest.fixture
def dask() -> None:
    pytest.importorskip("distributed", reason="needs Dask: the extra `cluster`")


@dataclass(frozen=True)
class Squares:
    """Squares numbers; the worker that is given one of them for the first time is killed."""

    folder: Path
    deadly: int

    def __call__(self) -> "partial[int]":
        return partial(squared, self.folder, self.deadly)


def squared(folder: Path, deadly: int, number: int) -> int:
    """Leave a mark for every time that this is done."""
    before = len(list(folder.glob(f"{number}-*")))
    (folder / f"{number}-{before}").touch()
    if number == deadly and not before:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_a_killed_worker_costs_its_task(dask: None, tmp_path: Path) -> None:
    """Dask may have handed it a few more, which are done again with it."""
    with executor_of("local:2") as executor:
        assert list(executor.each(Squares(tmp_path, 3), range(12))) == [number**2 for number in range(12)]
    done = [len(list(tmp_path.glob(f"{number}-*"))) for number in range(12)]
    assert done[3] == 2 and all(done) and sum(done) <= 12 + AHEAD * 2


def test_a_task_that_kills_every_worker_is_told(dask: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LIVES", 0)
    with executor_of("local:1") as executor, pytest.raises(ModelError) as error:
        list(executor.each(Squares(tmp_path, 0), range(2)))
    assert error.value.code == "Q530"


@pytest.mark.slow
def test_the_bytes_are_the_same(dask: None, tmp_path: Path) -> None:
    """Of a plan that was measured here, by one worker, and by two."""
    written = []
    ways: tuple[int | str, ...] = (1, "local:1", "local:2")
    for at, jobs in enumerate(ways):
        out = tmp_path / f"{at}.onnx"
        data = FASHION / "calibration.npz"
        qcc.compile(FASHION / "fashion-cnn.onnx", POLICY, data=data, output=out, jobs=jobs)
        written.append(out.read_bytes())
    assert written[0] == written[1] == written[2]


@pytest.mark.parametrize("address", ("local:0", "local:many", "localhost:8786"))
def test_what_is_no_address_is_told(dask: None, address: str) -> None:
    with pytest.raises(ModelError) as error:
        Cluster(address)
    assert error.value.code == "Q599" and "tcp://HOST:PORT" in (error.value.help or "")


def test_without_dask_it_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(__import__("sys").modules, "dask", None)
    assert main(["compile", str(FASHION / "fashion-cnn.onnx"), "--cluster", "local:2"]) == 1
    assert "pip install 'qcc[cluster]'" in capsys.readouterr().err
