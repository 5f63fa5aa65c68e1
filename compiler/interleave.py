"""Timing things against each other: in turn, within one process, by their medians."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from qcc.ir.errors import ModelError, first_line

ROUNDS = 15


def open_session(model: Path, library: Path | None = None, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session as an application opens it, with the kernels of a library.

    Raises:
        ModelError: the runtime refuses the model or the library.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    try:
        if library is not None:
            options.register_custom_ops_library(str(library.resolve()))
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises a dozen unrelated classes
        raise ModelError("Q405", f"ONNX Runtime cannot load the model: {first_line(error)}") from error


def medians(
    runs: Mapping[str, Callable[[], object]], least_s: float = 0.05, most_s: float = 0.5, rounds: int = ROUNDS
) -> dict[str, float]:
    """Median seconds of each, after a run of each that does not count.

    Args:
        runs: what to time, by name.
        least_s: go on for so long, however many rounds that makes.
        most_s: stop after so long, however few; one round there is always.
        rounds: how many are enough.
    """
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    begin, done = time.perf_counter(), 0
    while not done or not _enough(time.perf_counter() - begin, done, least_s, most_s, rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
        done += 1
    return {name: float(np.median(found)) for name, found in times.items()}


def _enough(spent: float, done: int, least_s: float, most_s: float, rounds: int) -> bool:
    return spent > most_s or (spent > least_s and done >= rounds)
