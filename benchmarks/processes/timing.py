"""Timing models against each other under ONNX Runtime: interleaved in one process, medians and ratios."""

from collections.abc import Mapping
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np

from qcc.codegen.target import machine as hardware
from qcc.compiler.measure.timing import Turns, interleaved
from qcc.ir.onnx.file.runtime import onnxruntime

Feeds = Mapping[str, np.ndarray]


def machine() -> str:
    """The processor, its cores, the runtime, and the day."""
    here = hardware.machine()
    return f"{here.processor}, {here.cores} cores, onnxruntime {onnxruntime.__version__}, {date.today()}"


def session(model: str | bytes, threads: int = 0, library: Path | None = None) -> onnxruntime.InferenceSession:
    """A session as an application opens it, with a library of kernels or without."""
    options = onnxruntime.SessionOptions()
    if library is not None:
        options.register_custom_ops_library(str(library))
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def medians(sessions: Mapping[str, onnxruntime.InferenceSession], feeds: Feeds, rounds: int = 15) -> dict[str, float]:
    """Median seconds of a run of each session, runs taken in turn in random order."""
    seconds = interleaved([partial(one.run, None, dict(feeds)) for one in sessions.values()], Turns(rounds))
    return {name: float(np.median(found)) for name, found in zip(sessions, seconds, strict=True)}
