"""llama.cpp on a language model in GGUF: milliseconds of a prompt, and of a token after it."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rivals.runtimes import MissingError

AFTER = 16  # tokens


@dataclass(frozen=True)
class LlamaTimes:
    """Milliseconds, medians over rounds."""

    prompt: float
    token: float


class Llama:
    """llama.cpp's server without its network, on so many threads.

    Raises:
        MissingError: it is not installed.
    """

    def __init__(self, path: Path, threads: int) -> None:
        try:
            import xllamacpp
        except ImportError:
            raise MissingError("pip install xllamacpp") from None
        given = xllamacpp.CommonParams()
        given.model.path = str(path)
        given.n_ctx, given.n_parallel, given.n_gpu_layers = 512, 1, 0
        given.cpuparams.n_threads = given.cpuparams_batch.n_threads = threads
        given.warmup = True
        self._server: Any = xllamacpp.Server(given)
        self._threads = threads

    def times(self, tokens: int, rounds: int) -> LlamaTimes:
        """Of a prompt of so many tokens, and of those made after it."""
        ids = np.random.default_rng(0).integers(1000, 20000, tokens).tolist()
        asked = {"prompt": ids, "cache_prompt": False, "temperature": 0, "ignore_eos": True}
        runs = [(self._ms(asked | {"n_predict": 1}), self._ms(asked | {"n_predict": 1 + AFTER})) for _ in range(rounds)]
        prompt, all_ = np.median(runs, axis=0)
        return LlamaTimes(float(prompt), float(all_ - prompt) / AFTER)

    def _ms(self, asked: dict[str, object]) -> float:
        """Of the process's own time on one thread, which leaves out what else a machine does; else by the clock."""
        clock = time.process_time if self._threads == 1 else time.perf_counter
        start = clock()
        self._server.handle_completions(asked)
        return (clock() - start) * 1e3
