"""Whether a result of qcc computes what its input does, on data that qcc did not see."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.fuzz.chains import CHAIN
from qcc.compiler.files.kernel_library import kernels_beside

EXACT = "lossless"
NOISE_DB = {"balanced": 15.0, "tiny": 3.0, CHAIN: 6.0}
"""What passes verification keeps more than this of the signal on other data, or it is wrong."""
EXACT_ERROR = 1e-4
"""Of the largest value at an output, as the exact passes promise."""
KERNELS_DB = 30.0
"""What kernels compute keeps more than this of what the file says by itself: they round as it does."""
ROUNDINGS = 8
"""As often the last bits of the data are changed, to see what rounding alone does to the original."""


def compared(before: Path, after: Path, preset: str, seed: int) -> str:
    """How two models differ on data that qcc did not see; empty if they do not, or if it cannot be said."""
    if not preset or not after.exists():
        return ""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    plain = onnxruntime.SessionOptions()
    plain.log_severity_level = 4
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        first = onnxruntime.InferenceSession(str(before), options)
        again = onnxruntime.InferenceSession(str(before), plain)
        feeds = _feeds(first, np.random.default_rng(seed))
        wanted = first.run(None, feeds)
        floor = [again.run(None, feeds), *(first.run(None, one) for one in _rounded(feeds, seed))]
    except Exception:  # the original does not run on such data, so nothing can be said
        return ""
    try:
        found = onnxruntime.InferenceSession(str(after), options).run(None, feeds)
        if said := _by_kernels(after, options, feeds, found):
            return said
    except Exception as error:
        return f"the original runs, the result does not: {error}"[:300]
    for one, other, *same in zip(wanted, found, *floor, strict=True):
        said = _differ(np.asarray(one), [np.asarray(again) for again in same], np.asarray(other), preset)
        if said:
            return said
    return ""


def _by_kernels(
    after: Path, options: onnxruntime.SessionOptions, feeds: dict[str, np.ndarray], plain: Sequence[np.ndarray]
) -> str:
    """How kernels differ from the file alone, which ran."""
    if not kernels_beside(after).is_file():
        return ""
    options.register_custom_ops_library(str(kernels_beside(after).resolve()))
    for one, other in zip(plain, onnxruntime.InferenceSession(str(after), options).run(None, feeds), strict=True):
        power, noise = float(np.square(one).mean()), float(np.square(one.astype(np.float64) - other).mean())
        if not np.isfinite(noise) or (noise and 10 * np.log10(power / noise) < KERNELS_DB):
            return f"kernels are {10 * np.log10(power / noise):.1f} dB from the file alone"
    return ""


def _rounded(feeds: dict[str, np.ndarray], seed: int) -> Iterator[dict[str, np.ndarray]]:
    """The same data with numbers that are the next ones up or down, or what they were."""
    rng = np.random.default_rng(seed)
    for _ in range(ROUNDINGS):
        yield {
            name: np.nextafter(one, one + rng.integers(-1, 2, one.shape).astype(one.dtype))
            if one.dtype.kind == "f"
            else one
            for name, one in feeds.items()
        }


def _differ(one: np.ndarray, same: Sequence[np.ndarray], other: np.ndarray, preset: str) -> str:
    steady = all(again.shape == one.shape for again in same)
    if one.dtype.kind != "f" or not steady or not one.size:
        return "" if one.shape == other.shape or not steady else f"shape {one.shape} became {other.shape}"
    if one.shape != other.shape:
        return f"shape {one.shape} became {other.shape}"
    if not np.isfinite(one).all() or not all(np.isfinite(again).all() for again in same):
        return (
            "" if (np.isfinite(one) == np.isfinite(other)).all() or preset != EXACT else "other places are not finite"
        )
    if not np.isfinite(other).all():
        return "the result is not finite"
    a, b = one.astype(np.float64), other.astype(np.float64)
    scale = float(np.abs(a).max())
    rounding = max(float(np.abs(a - again).max()) for again in same)
    error = float(np.abs(a - b).max())
    if preset == EXACT:
        return f"off by {error / scale:.1e} of the largest value" if error > EXACT_ERROR * scale + 10 * rounding else ""
    power, noise = float(np.square(a).mean()), float(np.square(a - b).mean())
    if noise <= 100 * rounding**2 or noise == 0 or power == 0:
        return ""
    ratio = 10 * np.log10(power / noise)
    return f"{ratio:.1f} dB" if ratio < NOISE_DB[preset] else ""


def _feeds(session: onnxruntime.InferenceSession, rng: np.random.Generator) -> dict[str, np.ndarray]:
    kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
    feeds = {}
    sizes: dict[str, int] = {}
    for one in session.get_inputs():
        free = (sizes.setdefault(str(dim), 2 + len(sizes)) for dim in one.shape if not isinstance(dim, int))
        shape = [dim if isinstance(dim, int) else next(free) for dim in one.shape]
        if one.type in kinds:
            feeds[one.name] = rng.standard_normal(shape).astype(kinds[one.type])
        elif one.type == "tensor(bool)":
            feeds[one.name] = rng.random(shape) < 0.5
        else:
            feeds[one.name] = rng.integers(0, 4, shape).astype(one.type.removeprefix("tensor(").removesuffix(")"))
    return feeds
