"""Fixtures shared by all tests."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.kills import even_race
from qcc.compiler.measure import time_model
from qcc.ir import cores

SAMPLED = 16
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
QUOTA_US = 100_000
os.environ.setdefault("OMP_NUM_THREADS", "1")  # models are so small that threads of torch and NumPy only wait
EXPORTED_LONG = ("cnn", "transformer", "encoder", "upsampler", "shared_storage")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files from this run")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes long as slow.

    Libraries of all kernels are built once for the tests that share them, which takes the first of these long, and so
    does exporting the larger modules. Of a law over a whole table of formats, marked ``sampled``, all cases but every
    sixteenth are slow.
    """
    cases: Counter[str] = Counter()
    for item in items:
        case = item.name.partition("[")[2].rstrip("]")
        if {"library", "libraries"} & set(getattr(item, "fixturenames", ())) or case in EXPORTED_LONG:
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("sampled"):
            law = item.nodeid.partition("[")[0]
            if cases[law] % SAMPLED:
                item.add_marker(pytest.mark.slow)
            cases[law] += 1


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare a text with a golden file, or rewrite the file under ``--update-golden``."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is missing: run pytest --update-golden"
        assert text == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture(scope="session", autouse=True)
def _even_races() -> Iterator[None]:
    """Whole models are not timed: speed is never asserted, and no test may warn of a busy machine's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time_model, "race", even_race)
        yield


@pytest.fixture(scope="session", autouse=True)
def _shared_cores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Workers that run side by side have a share of the processors each, or threads of sessions wait for each other."""
    if WORKERS == 1:
        yield
        return
    groups = tmp_path_factory.mktemp("groups")
    share = max(1, (os.cpu_count() or 1) // WORKERS)
    (groups / "cpu.max").write_text(f"{share * QUOTA_US} {QUOTA_US}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cores, "GROUPS", groups)
        cores.cores.cache_clear()
        yield
    cores.cores.cache_clear()
