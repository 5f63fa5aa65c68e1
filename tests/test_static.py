"""Static steps: magnitudes add up whatever the batches, and each range is what it says."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import qcc
from qcc.compiler.runtime.session import Session
from qcc.ir.errors import Refused
from qcc.ir.forms.integers import INTEGERS
from qcc.ir.forms.kernel import KERNEL
from qcc.passes.activations.static import Static
from qcc.passes.contract.magnitudes import Magnitudes
from tests.onnx_models import parse, random
from tests.test_static_conv import optimised

LEVELS = 127  # beside zero
BIN = 2.0**-7  # a bin's width, as a part of the magnitude

floats = arrays.arrays(
    np.float32,
    st.integers(1, 300),
    elements=st.floats(-(2.0**100), 2.0**100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-30),
)


def squared_error(x: np.ndarray, step: np.float32) -> float:
    return float(((np.clip(np.rint(x / step), -128, 127) * step - x).astype(np.float64) ** 2).sum())


@pytest.mark.slow
@given(floats, st.integers(0, 300))
def test_parts_add_up(x: np.ndarray, at: int) -> None:
    whole, parts = Magnitudes.of(x), Magnitudes.of(x[:at]) + Magnitudes.of(x[at:])
    np.testing.assert_array_equal(whole.counts, parts.counts)
    assert whole.largest == parts.largest == np.abs(x).max() and whole.finite


@pytest.mark.slow
@given(floats, st.floats(0.01, 1))
def test_quantile(x: np.ndarray, share: float) -> None:
    """So many are within it, and with a bin less they are not."""
    found, sizes = Magnitudes.of(x).quantile(share), np.abs(x)
    assert (sizes <= found).mean() >= share - 1e-9
    assert (sizes <= found * (1 - 2 * BIN)).mean() <= share or found < 1e-30


@pytest.mark.slow
@given(floats)
def test_absmax_cuts_nothing_off(x: np.ndarray) -> None:
    step = Static().step(Magnitudes.of(x))
    assert np.abs(x).max() <= step * (LEVELS + 0.01)
    assert step == 1 or np.abs(x).max() >= step * (LEVELS - 0.01) or step <= 2.0**-99


@pytest.mark.parametrize("seed", range(5))
def test_mse_is_best_for_long_tails(seed: int) -> None:
    """Its squared error is at most that of the other ranges."""
    x = np.random.default_rng(seed).standard_t(2.5, 20_000).astype(np.float32)
    steps = {name: Static(name).step(Magnitudes.of(x)) for name in ("absmax", "percentile", "mse")}
    errors = {name: squared_error(x, step) for name, step in steps.items()}
    assert errors["mse"] <= 1.02 * min(errors.values()) and errors["mse"] < errors["absmax"]
    assert steps["percentile"] < steps["absmax"]


@pytest.mark.parametrize("seed", range(5))
def test_entropy_leaves_out_what_is_rare(seed: int) -> None:
    """A few magnitudes far out do not widen the range, however many zeros there are; without any, all stays inside."""
    rng = np.random.default_rng(seed)
    x = np.abs(rng.standard_normal(50_000)).astype(np.float32)
    far = np.append(x, np.array([300, 400], np.float32))
    zeros = np.append(far, np.zeros(200_000, np.float32))
    step = Static("entropy").step(Magnitudes.of(far))
    assert x.max() / 4 < 127 * step < 8 * x.max()
    assert Static("entropy").step(Magnitudes.of(zeros)) == step
    even = rng.uniform(-1, 1, 50_000).astype(np.float32)
    assert Static("entropy").step(Magnitudes.of(even)) > 0.9 / 127


def test_entropy_leaves_out_a_thousandth_at_most() -> None:
    """Where most numbers are the same one, a narrow range makes what is left alike by losing the others."""
    rng = np.random.default_rng(0)
    spikes, rest = rng.choice(rng.uniform(0.01, 0.5, 5), 180_000), np.abs(rng.normal(0, 2, 20_000))
    x = np.concatenate([spikes, rest]).astype(np.float32)
    assert (x > 128 * Static("entropy").step(Magnitudes.of(x))).mean() <= 1e-3


def test_zeros() -> None:
    for name in ("absmax", "percentile", "mse", "entropy"):
        assert Static(name).step(Magnitudes.of(np.zeros(5, np.float32))) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_reject(bad: float) -> None:
    with pytest.raises(Refused, match="not finite on the calibration data"):
        Static().step(Magnitudes.of(np.array([1, bad], np.float32)))


@pytest.mark.parametrize("bits", range(4, 17))
def test_so_many_bits(bits: int) -> None:
    """Numbers become the nearest of 2^bits, zero among them, with a zero of their own and without."""
    x = np.random.default_rng(bits).normal(0.5, 1, 4000).astype(np.float32)
    for form in (INTEGERS, KERNEL):
        how = Static(bits=bits)
        value = how.encoded(how.encoding(form), Magnitudes.of(x))
        found = value.rounded(x)
        codes = np.unique(np.rint(found / value.step))
        assert len(codes) <= 2**bits and codes.min() >= value.ends[0] and codes.max() <= value.ends[1]
        assert np.abs(found - x).max() <= 1.01 * float(value.step or 0)
        assert value.rounded(np.zeros(1, np.float32)) == 0
        assert value.encoding.imitates == (bits > 8) and value.encoding.in_bytes == (bits <= 8)


@pytest.mark.parametrize("bits", [4, 5, 7, 8, 9, 12, 16])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_the_file_computes_so_many_bits(kind: str, bits: int, tmp_path: Path) -> None:
    """Up to 8 the runtime multiplies them as integers, from 9 on as floats; what is computed is the reference."""
    bodies = {
        "linear": "g (float[n, 128] x) => (float[n, 96] y) { y = MatMul(x, w) }",
        "conv": "g (float[n, 24, 9, 9] x) => (float[n, 32, 7, 7] y) { y = Conv(x, w) }",
    }
    w = random(128, 96) if kind == "linear" else random(32, 24, 3, 3)
    onnx.save(parse(bodies[kind], {"w": w}, opset=21), tmp_path / "m.onnx")
    x = random(8, 128, seed=3) if kind == "linear" else random(8, 24, 9, 9, seed=3)
    np.savez(tmp_path / "d.npz", x=x)
    policy = (
        f'qpolicy 1\ncalibrate "d.npz"\nrule any {{ weights = int8 channel; activations = static(bits = {bits}) }}\n'
    )
    (tmp_path / "p.qpolicy").write_text(policy, encoding="utf-8")
    result = qcc.compile(tmp_path / "m.onnx", tmp_path / "p.qpolicy", output=tmp_path / "o.onnx")
    ops = optimised(result.output, tmp_path)
    whole = {"MatMulIntegerToFloat", "QLinearConv", "QLinearMatMul"} & {*ops}
    assert bool(whole) == (bits <= 8)
    how = Static(bits=bits)
    value = how.encoded(how.encoding(INTEGERS), Magnitudes.of(x)).rounded(x)
    found, wanted = (
        np.asarray(Session(path, threads=1).run({"x": one})["y"], np.float64)
        for path, one in ((result.output, x), (tmp_path / "m.onnx", value))
    )
    noise = float(np.square(found - wanted).mean() / np.square(wanted).mean())
    rounds_results = kind == "conv" and bits <= 8
    assert noise < 3e-4 + (4.0 ** (2 - bits) if rounds_results else 0)  # of weights of 7 bits, and of results
