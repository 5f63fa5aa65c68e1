"""PyTorch without what it tells developers of itself: whoever compiles a model reads our words alone."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGER = logging.getLogger("torch.export")


@contextmanager
def quiet() -> Iterator[None]:
    """Within, torch neither warns of its own calls nor logs the tracebacks of exceptions that it raises as well."""
    level = LOGGER.level
    LOGGER.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        LOGGER.setLevel(level)
