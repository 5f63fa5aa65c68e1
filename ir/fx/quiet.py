"""PyTorch without what it tells developers of itself: whoever compiles a model reads our words alone."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = tuple(logging.getLogger(name) for name in ("torch.export", "torch.onnx"))


@contextmanager
def quiet() -> Iterator[None]:
    """Within, torch neither warns of its own calls nor logs the tracebacks of exceptions that it raises as well."""
    levels = [logger.level for logger in LOGGERS]
    for logger in LOGGERS:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(LOGGERS, levels, strict=True):
            logger.setLevel(level)
