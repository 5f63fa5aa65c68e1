"""Trimming's law: one file, many sizes; what is left computes what its levels say, and is what compiling would give."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import qcc
from qcc.__main__ import main
from qcc.compiler.plan.catalog import schema
from qcc.compiler.report.lock import read_plan
from qcc.compiler.report.result import Result
from qcc.compiler.trim import sizes, trim
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import load_text
from qcc.ir.errors import ModelError
from qcc.ir.model.levels import NOTE, Levels, from_note, ordered
from tests import onnx_models

MODEL = """g (int64[N] i, float[A,64] x) => (float[N,51] y, float[A,64] z) {
    e = Gather(table, i)
    y = MatMul(e, w)
    z = MatMul(x, v)
}"""
WEIGHTS = {"table": (70, 64), "w": (64, 51), "v": (64, 64)}
FEEDS = {"i": np.array([3, 69, 0]), "x": onnx_models.random(5, 64, seed=9)}
LEVELS = "stack(5)"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = {name: onnx_models.random(*shape, seed=at) for at, (name, shape) in enumerate(WEIGHTS.items())}
    path = tmp_path_factory.mktemp("trim") / "model.onnx"
    onnx.save(onnx_models.parse(MODEL, weights), path)
    return path


def compiled(model: Path, text: str, output: str, more: str = "") -> Result:
    policy = load_text(f"qpolicy 1\nrule any {{ weights = {text} }}\n{more}", schema())
    return qcc.compile(model, policy, output=model.with_name(output))


@pytest.fixture(scope="module")
def whole(model: Path) -> Path:
    return compiled(model, LEVELS, "whole.onnx").output


def outputs(path: Path) -> list[np.ndarray]:
    found: list[np.ndarray] = onnxruntime.InferenceSession(path).run(None, FEEDS)
    return found


def noise(path: Path, model: Path) -> float:
    got, wanted = outputs(path), outputs(model)
    return sum(float(((a - b) ** 2).sum() / (b**2).sum()) for a, b in zip(got, wanted, strict=True))


@pytest.mark.slow
def test_one_file_gives_many_sizes_each_better_than_the_one_below(model: Path, whole: Path, tmp_path: Path) -> None:
    known = sizes(whole)
    assert known.largest == whole.stat().st_size and known.levels == 4 * len(WEIGHTS)
    found = []
    for share in np.linspace(0, 1, 9):
        most = known.smallest + share * (known.largest - known.smallest)
        done = trim(whole, most, tmp_path / f"{share}.onnx")
        assert known.smallest <= done.output_bytes == done.output.stat().st_size <= most
        found.append((done.output_bytes, noise(done.output, model)))
    assert len({size for size, _ in found}) >= 8
    losses = [loss for _, loss in sorted(found)]
    assert all(after <= before * 1.005 for before, after in pairwise(losses))
    assert losses[-1] < 0.1 * losses[0]
    assert (tmp_path / "1.0.onnx").read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_compiling_at_a_size_gives_the_same_bytes(model: Path, whole: Path, tmp_path: Path) -> None:
    most = (sizes(whole).smallest + sizes(whole).largest) // 2
    result = compiled(model, LEVELS, "trimmed.onnx", f"export {{ trim = {most} B }}")
    done = trim(whole, most, tmp_path / "out.onnx")
    assert done.output.read_bytes() == result.output.read_bytes()
    told = from_note({one.key: one.value for one in onnx.load(done.output).metadata_props}[NOTE]).counts
    for row in result.layers:
        assert row.format == (f"stack(count = {told[row.name]}, signs())" if told[row.name] > 1 else "stack(signs())")
    again = qcc.compile(model, plan=read_plan(result.lock), output=model.with_name("again.onnx"))
    assert again.output.read_bytes() == result.output.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_what_is_left_is_a_stack_of_so_many_levels(model: Path, whole: Path, tmp_path: Path, count: int) -> None:
    """Of each weight alike: the sums of other levels were made when compiling."""
    plain = compiled(model, f"stack({count})", "plain.onnx").output
    proto = onnx.load(whole)
    entry = next(one for one in proto.metadata_props if one.key == NOTE)
    levels = from_note(entry.value)
    order = tuple(at for _ in range(4) for at in range(len(WEIGHTS)))
    entry.value = Levels(levels.counts, order).text
    onnx.save(proto, tmp_path / "even.onnx")
    done = next(
        done
        for most in range(sizes(whole).smallest, sizes(whole).largest, 40)
        if (done := trim(tmp_path / "even.onnx", most, tmp_path / "out.onnx")).kept == len(WEIGHTS) * (count - 1)
    )
    for got, wanted in zip(outputs(done.output), outputs(plain), strict=True):
        assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()  # sums in another order


@pytest.mark.slow
def test_what_was_trimmed_can_be_trimmed_again(whole: Path, tmp_path: Path) -> None:
    known = sizes(whole)
    first = trim(whole, known.largest - 1, tmp_path / "first.onnx")
    again = trim(first.output, known.smallest, tmp_path / "again.onnx")
    assert again.output.read_bytes() == trim(whole, known.smallest, tmp_path / "least.onnx").output.read_bytes()


@pytest.mark.slow
def test_weights_that_lie_apart_stay_apart(model: Path, tmp_path: Path) -> None:
    apart = compiled(model, LEVELS, "apart.onnx", "export { external_data = always }").output
    known = sizes(apart)
    done = trim(apart, (known.smallest + known.largest) // 2, tmp_path / "out.onnx")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == done.output_bytes <= known.largest
    assert noise(apart, model) <= noise(done.output, model) < 1


@pytest.mark.slow
def test_a_session_loads_what_memory_allows(whole: Path) -> None:
    known = sizes(whole)
    least = qcc.Session(whole, memory=known.smallest).run(FEEDS)
    most = qcc.Session(whole, memory="1 MiB").run(FEEDS)
    assert all(np.array_equal(most[name], one) for name, one in qcc.Session(whole).run(FEEDS).items())
    assert any(not np.array_equal(most[name], one) for name, one in least.items())
    with pytest.raises(QccError, match="Q372"):
        qcc.Session(whole, memory=known.smallest - 1)
    with pytest.raises(ValueError, match="not a size"):
        qcc.Session(whole, memory="much")


def test_what_cannot_be_trimmed_is_told_and_nothing_is_written(model: Path, whole: Path, tmp_path: Path) -> None:
    cases = {"Q370": (model, 1e6), "Q372": (whole, sizes(whole).smallest - 1)}
    proto = onnx.load(whole)
    for node in proto.graph.node:
        node.name = ""
    onnx.save(proto, tmp_path / "renamed.onnx")
    cases["Q371"] = (tmp_path / "renamed.onnx", 1e6)
    for code, (path, most) in cases.items():
        with pytest.raises(ModelError) as caught:
            trim(path, most, tmp_path / "out.onnx")
        assert caught.value.code == code
    assert f"{sizes(whole).smallest:,}" in str(_error(whole, tmp_path).help)
    for note in ("", "[]", "{}", '{"weights":{"w":2},"order":[3]}', '{"weights":{"w":"2"},"order":[0]}', "[" * 99999):
        next(one for one in proto.metadata_props if one.key == NOTE).value = note
        onnx.save(proto, tmp_path / "renamed.onnx")
        with pytest.raises(ModelError) as caught:
            trim(tmp_path / "renamed.onnx", 1e6, tmp_path / "out.onnx")
        assert caught.value.code == "Q371"
    assert [path.name for path in tmp_path.iterdir()] == ["renamed.onnx"]


def _error(whole: Path, folder: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        trim(whole, 1, folder / "out.onnx")
    return caught.value


def test_the_command(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trim", str(whole)]) == 0
    assert capsys.readouterr().out == (
        f"{sizes(whole).smallest:,} to {sizes(whole).largest:,} bytes, in {sizes(whole).levels} steps\n"
    )
    assert main(["trim", str(whole), "--size", "70%", "-o", str(tmp_path / "out.onnx")]) == 0
    assert "further levels are left" in capsys.readouterr().out
    assert (tmp_path / "out.onnx").stat().st_size <= 0.7 * sizes(whole).largest
    for words in (["--size", "70dB"], ["--size", "x"], ["-o", "y.onnx"]):
        assert main(["trim", str(whole), *words]) == 2
    assert main(["trim", str(whole), "--size", "1MB", "-o", str(whole)]) == 1
    assert "Q450" in capsys.readouterr().err
    assert main(["trim", str(tmp_path / "none.onnx"), "--size", "1MB"]) == 1


def test_levels_come_in_the_order_of_what_they_are_worth() -> None:
    """By bytes; and one that gains little waits for none behind it that gains much."""
    losses = {"a": (9.0, 3.0, 2.0, 0.0), "b": (5.0, 1.0, 0.9), "c": (8.0, 7.9, 0.1)}
    sizes = {"a": (1.0, 1.0, 1.0, 1.0), "b": (2.0, 2.0, 2.0), "c": (1.0, 1.0, 1.0)}
    found = ordered(losses, sizes)
    assert found.order == (0, 2, 2, 1, 0, 0, 1)
    assert from_note(found.text) == found
    with pytest.raises(ValueError, match="order"):
        Levels({"a": 2}, (0, 0))
