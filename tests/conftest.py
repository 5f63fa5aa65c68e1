"""Fixtures shared by all tests."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from qcc.compiler.measure import time_model


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files from this run")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Libraries of all kernels are built once for the tests that share them, which takes the first of these long."""
    for item in items:
        if {"library", "libraries"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


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

    def even(entrants: Sequence[time_model.Entrant], data: object, threads: int | None) -> time_model.Race:
        return time_model.Race(threads, np.full((len(entrants), time_model.FEWEST), 1e-3), (1e-3,) * len(entrants))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time_model, "race", even)
        yield
