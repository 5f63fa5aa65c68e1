"""Fixtures shared by all tests."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.kills import even_race
from qcc.compiler.measure import time_model

SAMPLED = 16
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
