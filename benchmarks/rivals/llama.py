"""llama.cpp on a language model in GGUF: milliseconds of a prompt, and of a token after it."""

import json
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

    def times(self, tokens: int, rounds: int) -> LlamaTimes:
        """Of a prompt of so many tokens, and of those made after it."""
        ids = np.random.default_rng(0).integers(1000, 20000, tokens).tolist()
        asked = {"prompt": ids, "n_predict": AFTER, "cache_prompt": False, "temperature": 0, "ignore_eos": True}
        found = [self._timings(asked) for _ in range(rounds)]
        prompt, token = (np.median([one[name] for one in found]) for name in ("prompt_ms", "predicted_per_token_ms"))
        return LlamaTimes(float(prompt), float(token))

    def _timings(self, asked: dict[str, object]) -> dict[str, float]:
        got = self._server.handle_completions(asked)
        answer = json.loads(got) if isinstance(got, str) else got
        timings: dict[str, float] = answer["timings"]
        return timings
