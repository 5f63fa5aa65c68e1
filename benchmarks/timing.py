"""Timing models against each other under ONNX Runtime: interleaved in one process, medians and ratios."""

import platform
import random
import sys
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import numpy as np
import onnxruntime

Feeds = Mapping[str, np.ndarray]


def machine() -> str:
    """The processor, its cores, the runtime, and the day."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if sys.platform == "linux" else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{name}, {len(names) or '?'} cores, onnxruntime {onnxruntime.__version__}, {date.today()}"


def session(model: str | bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    """A session as an application opens it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def medians(sessions: Mapping[str, onnxruntime.InferenceSession], feeds: Feeds, rounds: int = 15) -> dict[str, float]:
    """Median seconds of a run of each session, runs taken in turn in random order."""
    times: dict[str, list[float]] = {name: [] for name in sessions}
    order = list(sessions)
    shuffle = random.Random(0)
    for name in order:
        sessions[name].run(None, dict(feeds))
    for _ in range(rounds):
        shuffle.shuffle(order)
        for name in order:
            start = time.perf_counter()
            sessions[name].run(None, dict(feeds))
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(found)) for name, found in times.items()}
