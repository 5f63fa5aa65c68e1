"""What verification sees: non-finite places, shapes, chance, rounding, and what varies under what stands still."""

import itertools
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qcc.__main__ import main
from qcc.compiler.calibrate.arrays import flattened
from qcc.compiler.compile import compile
from qcc.compiler.plan.catalog import schema
from qcc.compiler.report.result import Result
from qcc.compiler.verify.outputs import Floor, OutputCheck, compare, judge
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import load_text
from qcc.dsl.policy.policy import Bound
from tests import onnx_models as models
from tests.output_checks import output_check

W = models.random(64, 32)
INT2, INT4, INT8 = (f"rule any {{ weights = int{bits} channel }}\n" for bits in (2, 4, 8))
NAN = np.full(64, np.nan, np.float32)
COSINE = "verify { cosine >= 0.99 }\n"


def compiled(folder: Path, body: str, policy: str, weights: Mapping[str, np.ndarray] | None = None) -> Result:
    onnx.save(models.parse(body, {"w": W, **(weights or {})}), folder / "m.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        return compile(folder / "m.onnx", load_text("qpolicy 1\n" + policy, schema()))


def bounds(text: str) -> tuple[Bound, ...]:
    return load_text(f'qpolicy 1\nuse "balanced"\nverify {{ {text} }}', schema()).verify


def codes(result: Result) -> list[str]:
    return [one.code for one in result.warnings]


def one(wanted: np.ndarray, got: np.ndarray) -> OutputCheck:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        (check,) = compare([{"y": wanted}], [{"y": got}])
    return check


# laws


FLOATS = st.sampled_from([np.float16, np.float32, np.float64])
ANY = FLOATS.flatmap(
    lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(ANY)
def test_a_copy_is_exact_whatever_it_holds(array: np.ndarray) -> None:
    check = one(array, array.copy())
    assert (check.cosine, check.sqnr, check.relative_error, check.notes) == (1.0, np.inf, 0.0, ())


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(6)), st.integers(0, 50))
def test_the_order_of_samples_does_not_matter(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = rng.standard_normal((6, 5)).astype(np.float32)
    got = wanted + np.float32(0.1) * rng.standard_normal((6, 5)).astype(np.float32)
    wanted[rng.random((6, 5)) < 0.1] = np.nan
    left, right = one(wanted, got), one(wanted[order], got[order])
    for metric in ("cosine", "sqnr", "relative_error"):  # sums in another order differ by 1e-16 of themselves
        assert getattr(left, metric) == pytest.approx(getattr(right, metric), rel=1e-12)
    assert left.notes == right.notes


# places that are not finite


def test_the_rest_is_compared() -> None:
    wanted = np.array([[1.0, -np.inf, 3.0], [np.nan, 5.0, np.inf]], np.float32)
    assert one(wanted, wanted + np.float32(0)).sqnr == np.inf
    off = one(wanted, wanted + np.array([[0, 0, 0.3], [0, 0, 0]], np.float32))
    assert 15 < off.sqnr < 30
    assert off.notes == ()


def test_places_that_cease_to_be_finite_are_counted() -> None:
    wanted = np.ones((100, 10), np.float32)
    wanted[0, 0] = np.nan
    got = wanted.copy()
    got[5, 5] = np.nan
    check = one(wanted, got)
    assert check.notes == ("1 of 1,000 values are finite on one side only, or not alike",)
    assert check.cosine == pytest.approx(0.999)
    assert check.relative_error == 1


def test_a_finite_output_that_breaks_is_lost() -> None:
    wanted = np.ones((4, 4), np.float32)
    got = wanted.copy()
    got[1, 1] = np.inf
    assert one(wanted, got).cosine == -1
    assert one(got, np.where(got == np.inf, -np.inf, got)).notes != ()


@pytest.mark.parametrize("tail", ["a = Add(l, sup)", "a = Sqrt(l)"])
def test_models_with_infinite_or_nan_outputs_pass(tmp_path: Path, tail: str) -> None:
    body = f"g (float[N,64] x) => (float[N,32] a) {{ l = MatMul(x, w) {tail} }}"
    sup = np.where(np.arange(32) % 3, 0, -np.inf).astype(np.float32)
    result = compiled(tmp_path, body, INT8 + COSINE, {"sup": sup})
    assert result.passed
    assert 20 < result.verification.outputs[0].sqnr < 60


def test_a_model_that_gives_nothing_finite_asks_for_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = "g (float[N,64] x) => (float[N,32] y) { l = Log(x) y = MatMul(l, w) }"
    onnx.save(models.parse(body, {"w": W}), tmp_path / "m.onnx")
    assert main(["compile", str(tmp_path / "m.onnx")]) == 1
    told = capsys.readouterr().err
    assert "error[Q427]: the model's own output is not finite on generated data: `y`" in told
    assert "--data" in told
    assert "more bits" not in told
    np.savez(tmp_path / "d.npz", x=np.abs(models.random(8, 64)) + 1)
    assert main(["compile", str(tmp_path / "m.onnx"), "--data", str(tmp_path / "d.npz")]) == 0


def test_nothing_finite_is_told_before_anything_is_encoded(tmp_path: Path) -> None:
    body = "g (float[N,64] x) => (float[N,32] y) { l = Log(x) y = MatMul(l, w) }"
    onnx.save(models.parse(body, {"w": W}), tmp_path / "m.onnx")
    phases: list[str] = []
    with pytest.raises(QccError, match="Q427"):
        compile(tmp_path / "m.onnx", progress=lambda phase, *_: phases.append(phase))
    assert "reference" in phases
    assert not {"encode", "verify"} & set(phases)
    free = load_text("qpolicy 1\n" + INT8, schema())
    assert compile(tmp_path / "m.onnx", free).passed  # the twin: nothing is promised


def test_what_is_finite_of_several_outputs_is_compared(tmp_path: Path) -> None:
    body = "g (float[N,64] x) => (float[N,32] y, float[N,64] z) { z = Log(x) y = MatMul(x, w) }"
    result = compiled(tmp_path, body.replace("Log(x)", "Add(x, nan)"), INT8 + COSINE, {"nan": NAN})
    assert result.passed
    assert [one.unverified for one in result.verification.outputs] == ["", "holds nothing finite on this data"]
    assert codes(result) == ["Q322"]
    assert not compiled(tmp_path, body.replace("Log(x)", "Add(x, nan)"), INT2 + COSINE, {"nan": NAN}).passed


def test_strays_on_generated_data_ask_for_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = "g (float[N,64] x) => (float[N,32] y) { l = MatMul(x, w) s = Sqrt(l) o = Add(s, b) y = Sub(o, b) }"
    onnx.save(models.parse(body, {"w": W, "b": np.zeros(32, np.float32)}), tmp_path / "m.onnx")
    bound = "verify { cosine >= 0.9, relative_error <= 50% }"
    (tmp_path / "p.qpolicy").write_text("qpolicy 1\n" + INT4 + bound)
    command = ["compile", str(tmp_path / "m.onnx"), "-p", str(tmp_path / "p.qpolicy")]
    assert main(command) == 1
    told = capsys.readouterr().err
    assert "Q427" in told and "cannot be judged" in told and "more bits" not in told
    assert not (tmp_path / "m.qcc.onnx").exists()
    np.savez(tmp_path / "d.npz", x=models.random(32, 64))
    assert main([*command, "--data", str(tmp_path / "d.npz")]) == 3  # of data that was meant, it tells


def test_what_loses_beside_strays_fails(tmp_path: Path) -> None:
    body = "g (float[N,64] x) => (float[N,32] y) { l = MatMul(x, w) y = Sqrt(l) }"
    assert not compiled(tmp_path, body, INT2 + "verify { cosine >= 0.9999 }").passed


# what varies


@pytest.mark.slow
def test_an_offset_hides_nothing(tmp_path: Path) -> None:
    body = "g (float[N,64] x) => (float[N,32] y) { h = MatMul(x, w) y = Add(h, b) }"
    offset = {"b": np.full(32, 100, np.float32)}
    poor = compiled(tmp_path, body, INT2 + COSINE, offset)
    assert not poor.passed
    assert poor.verification.outputs[0].plain.cosine > 0.999
    assert poor.verification.outputs[0].cosine < 0.95
    assert compiled(tmp_path, body, INT8 + COSINE, offset).passed
    for bound in ("sqnr >= 20 dB", "relative_error <= 5%"):
        assert not compiled(tmp_path, body, INT2 + f"verify {{ {bound} }}", offset).passed
        assert compiled(tmp_path, body, INT8 + f"verify {{ {bound} }}", offset).passed


def test_a_shift_is_seen_too() -> None:
    wanted = models.random(32, 8)
    check = one(wanted, wanted + 3)
    assert check.cosine == pytest.approx(check.plain.cosine)
    assert check.cosine < 0.6


def test_a_constant_output_verifies_nothing(tmp_path: Path) -> None:
    body = "g (float[N,64] x) => (float[N,32] y) { z = Mul(x, zero) h = MatMul(z, w) y = Add(h, b) }"
    result = compiled(tmp_path, body, INT2 + COSINE, {"zero": np.array(0, np.float32), "b": models.random(32)})
    assert result.passed
    assert "Q322" in codes(result)
    assert result.verification.outputs[0].unverified == "is the same on all samples"


@pytest.mark.slow
def test_what_is_ruined_is_told_where_nothing_bounds_it(tmp_path: Path) -> None:
    """A small difference of two large products, which two bits do not keep."""
    body = "g (float[N,64] x) => (float[N,32] y) { a = MatMul(x, w) b = MatMul(x, v) y = Sub(a, b) }"
    weights = {"v": W + models.random(64, 32, seed=1) / 50}
    assert codes(compiled(tmp_path, body, INT2, weights)) == ["Q325"]
    assert codes(compiled(tmp_path, body, "rule any { weights = int8 channel }", weights)) == []
    bounded = compiled(tmp_path, body, INT2 + COSINE, weights)
    assert not bounded.passed and codes(bounded) == []


def test_one_sample_is_judged_as_it_is() -> None:
    check = one(np.array([[1.0, 2.0]]), np.array([[1.0, 2.1]]))
    assert check.whole is None
    assert check.unverified == ""


# shapes


def test_shapes_that_depend_on_the_data_are_told_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = "g (float[N,64] x) => (int64[2,K] y) { h = MatMul(x, w) z = Relu(h) y = NonZero(z) }"
    result = compiled(tmp_path, body, INT2 + COSINE)
    assert not result.passed
    assert "its shape changed in 2 of 2 runs: " in result.verification.outputs[0].notes[0]
    assert result.verification.outputs[0].changed == 1
    assert compiled(tmp_path, body, "rule any { keep }\n" + COSINE).passed


def test_rows_are_told() -> None:
    wanted, got = ({"y": np.zeros((rows, 4), np.float32)} for rows in (275, 274))
    (check,) = compare([wanted, wanted], [wanted, got])
    assert check.notes == ("its shape changed in 1 of 2 runs: 275 -> 274 rows",)
    assert (check.cosine, check.relative_error) == (0.5, 1)
    (gone,) = compare([wanted], [{}])
    assert gone.notes == ("its shape changed in 1 of 1 runs: 275x4 -> absent",)
    assert gone.changed == 1


def test_sequences_and_maps_are_taken_apart() -> None:
    found = flattened({"s": [np.zeros(2), np.ones(3)], "m": [{"a": 1.0, "b": 2.0}], "none": None, "x": np.ones(1)})
    assert list(found) == ["s[0]", "s[1]", "m[0][a]", "m[0][b]", "x"]


def test_texts_are_compared() -> None:
    check = one(np.array(["a", "b"], object), np.array(["a", "c"], object))
    assert check.changed == 0.5


# chance and rounding


@pytest.mark.slow
def test_a_random_model_is_held_to_itself(tmp_path: Path) -> None:
    body = "g (float[N,64] x) => (float[N,32] y, float[N,32] h) { h = MatMul(x, w) y = Dropout(h, r, t) }"
    random = {"r": np.array(0.5, np.float32), "t": np.array(True)}
    result = compiled(tmp_path, body, 'use "balanced"', random)
    assert result.passed
    assert codes(result) == ["Q323"]
    (check,) = result.verification.bounds
    assert check.excuse == "`y` differs from itself from run to run"
    assert not compiled(tmp_path, body, INT2 + COSINE, random).passed  # `h` does not


def test_floors_excuse_what_is_no_worse() -> None:
    own = output_check("y", 0.9, 10.0, 0.5)
    floor = Floor(own, 2.0, "is random")
    assert [floor.excuses("cosine", value) for value in (0.7, 0.5)] == [True, False]
    assert [floor.excuses("sqnr", value) for value in (4.0, 3.9)] == [True, False]
    assert [floor.excuses("relative_error", value) for value in (1.0, 1.1)] == [True, False]
    (held,) = judge(bounds("cosine >= 0.99"), [output_check("y", 0.7, 5.0, 0.9)], {"y": floor})
    assert (held.passed, held.excuse) == (True, "`y` is random")
    (lost,) = judge(bounds("cosine >= 0.99"), [output_check("z", 0.7, 5.0, 0.9)], {"y": floor})
    assert (lost.passed, lost.output) == (False, "z")


def test_a_bound_below_the_models_own_rounding_is_told_and_holds(tmp_path: Path) -> None:
    """A cancellation of 1e4 leaves three digits of float32."""
    body = """g (float[N,64] x) => (float[N,32] y) { h = MatMul(x, w) b = Add(h, large) r = Relu(b) c = MatMul(r, v)
        p = MatMul(r, v2) y = Sub(c, p) }"""
    v = models.random(32, 32, seed=3)
    weights = {"large": np.full(32, 1e4, np.float32), "v": v, "v2": (v * (1 + 1e-4)).astype(np.float32)}
    result = compiled(tmp_path, body, 'use "lossless"', weights)
    assert result.passed


@pytest.mark.slow
def test_figures_say_what_they_rest_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(models.parse("g (float[N,64] x) => (float[N,32] y) { y = MatMul(x, w) }", {"w": W}), tmp_path / "m.onnx")
    assert main(["compile", str(tmp_path / "m.onnx")]) == 0
    told = capsys.readouterr().out
    assert "samples of generated data" in told
    assert "holds on generated data" in told
    assert "mislead both ways" in told
    assert "generated data" in (tmp_path / "m.qcc.html").read_text(encoding="utf-8")
    np.savez(tmp_path / "d.npz", x=models.random(8, 64))
    assert main(["compile", str(tmp_path / "m.onnx"), "--data", str(tmp_path / "d.npz")]) == 0
    assert "generated" not in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "samples"), [(0.001, 32), (0.5, 20), (100.0, 8)])
def test_a_slow_model_is_verified_on_fewer_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, samples: int
) -> None:
    """The clock is the process's own: each reading is so much later."""
    clock = itertools.count()
    monkeypatch.setattr(time, "process_time", lambda: seconds * next(clock))
    result = compiled(tmp_path, "g (float[N,64] x) => (float[N,32] y) { y = MatMul (x, w) }", INT8 + COSINE)
    assert result.passed
    assert result.verification.samples == samples
