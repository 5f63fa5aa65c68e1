"""Data that a model is run on: which axis counts samples, what generated inputs hold, and what `.npz` files may."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.__main__ import main
from qcc.compiler.calibrate import samples
from qcc.compiler.calibrate.fit_samples import fit_samples
from qcc.compiler.calibrate.generate import Recipe
from qcc.compiler.calibrate.input_axes import free_keys, input_axes
from qcc.ir.errors import ModelError
from qcc.ir.graph.ops import Value
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.graph.run import reference
from tests import onnx_models as models

W = models.random(64, 32)
LINEAR = "g (float[N,64] x) => (float[N,32] y) { y = MatMul(x, w) }"
SCALARS = (
    "g (float[N,64] x, float low, float high) => (float[N,32] y) { d = Sub(high, low) s = Mul(x, d) y = MatMul(s, w) }"
)
STATE = """g (float[batch,64] x, float[2,batch,64] state) => (float[batch,32] y) {
    first = Gather <axis = 0> (state, zero)
    a = Add(x, first)
    y = MatMul(a, w) }"""
ZERO = {"zero": np.array(0)}


def opened(folder: Path, body: str, weights: dict[str, np.ndarray] | None = None, opset: int = 17) -> OnnxGraph:
    path = folder / "m.onnx"
    onnx.save(models.parse(body, {"w": W, **(weights or {})}, opset), path)
    return OnnxGraph.load(path)


def fitted(folder: Path, body: str, weights: dict[str, np.ndarray] | None = None, **sizes: int) -> samples.Samples:
    graph = opened(folder, body, weights)
    return fit_samples(graph, reference(folder / "m.onnx"), 32, 0, sizes)


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "d.npz", **arrays)  # type: ignore[arg-type]
    return folder / "d.npz"


# axes


def value(name: str, *shape: int | str | None, dtype: str = "float32") -> Value:
    return Value(name, shape, dtype)


@pytest.mark.parametrize(
    ("inputs", "batch", "fixed"),
    [
        ([value("x", "N", 3)], {"x": 0}, None),
        ([value("x", "batch", 8), value("h", 2, "batch", 8)], {"x": 0, "h": 1}, None),
        ([value("x", "T", "batch", 8)], {"x": 1}, None),
        ([value("x", "B", "T"), value("p", "T")], {"x": 0, "p": None}, None),
        ([value("x", "a", 3), value("y", "b", 3)], {"x": 0, "y": 0}, None),
        ([value("x", None, None), value("h", 2, None, 128), value("sr")], {"x": 0, "h": 1, "sr": None}, None),
        ([value("x", 1, 3, 8, 8)], {"x": 0}, 1),
        ([value("x", 4, 8), value("h", 2, 4, 8), value("k", 3)], {"x": 0, "h": 1, "k": None}, 4),
        ([value("s")], {"s": None}, None),
    ],
)
def test_the_batch_axis_is_found_per_input(
    inputs: list[Value], batch: dict[str, int | None], fixed: int | None
) -> None:
    found = input_axes(inputs)
    assert (dict(found.batch), found.fixed) == (batch, fixed)


def test_axes_are_called_by_name_by_place_and_by_the_names_in_sums() -> None:
    inputs = [value("x", "batch", None), value("m", "batch", "past + seq"), value("k", "batch", 2, "past", 4)]
    assert free_keys(inputs) == ("batch", "x:1", "past", "seq")


# generated


def test_axes_of_one_name_have_one_size(tmp_path: Path) -> None:
    body = """g (float[batch,T,64] x, float[T,64] p, int64[batch,T] i) => (float[batch,T,32] y) {
        e = Gather(t, i)
        a = Add(x, p)
        b = Add(a, e)
        y = MatMul(b, w) }"""
    batch = fitted(tmp_path, body, {"t": models.random(9, 64)}).batches[0]
    assert [batch[name].shape for name in "xpi"] == [(16, 32, 64), (32, 64), (16, 32)]
    assert batch["i"].max() < 9
    assert len(np.unique(batch["i"])) == 9


def test_a_batch_may_lie_on_another_axis(tmp_path: Path) -> None:
    data = fitted(tmp_path, STATE, ZERO)
    assert [data.batches[0][name].shape for name in ("x", "state")] == [(16, 64), (2, 16, 64)]
    assert data.divisible
    part = next(data.first(5).parts(3))
    assert [part[name].shape for name in ("x", "state")] == [(3, 64), (2, 3, 64)]
    assert np.abs(part["state"]).max() < 1


def test_sums_of_axes_add_up(tmp_path: Path) -> None:
    body = """g (float[batch,seq,64] x, float[batch,past,64] k, bool[batch,past + seq] m) => (float[batch,A,32] y) {
        c = Concat <axis = 1> (k, x)
        u = Unsqueeze(m, two)
        f = Where(u, c, none)
        y = MatMul(f, w) }"""
    weights = {"two": np.array([2]), "none": np.array(0, np.float32)}
    batch = fitted(tmp_path, body.replace("past + seq", "S"), weights, S=64).batches[0]
    assert batch["m"].shape == (16, 64)
    model = models.parse(body.replace("past + seq", "S"), {"w": W, **weights})
    model.graph.input[2].type.tensor_type.shape.dim[1].dim_param = "past + seq"
    onnx.save(model, tmp_path / "m.onnx")
    data = samples.generate(OnnxGraph.load(tmp_path / "m.onnx"), 2, 0, recipe=Recipe(sizes={"past": 5, "seq": 4}))
    assert data.batches[0]["m"].shape == (2, 9)


def test_booleans_and_whole_numbers_are_drawn(tmp_path: Path) -> None:
    body = """g (float[N,64] x, bool[N,64] k, int64[N,64] attention_mask, int64[N,64] segment_ids, bool c)
        => (float[N,32] y) {
        f = Where(k, x, z)
        m = Cast <to = 1> (attention_mask)
        s = Cast <to = 1> (segment_ids)
        a = Mul(f, m)
        b = Add(a, s)
        d = Where(c, b, z)
        y = MatMul(d, w) }"""
    data = fitted(tmp_path, body, {"z": np.array(0, np.float32)})
    assert {bool(batch["c"]) for batch in data.batches} == {False, True}
    for name in ("k", "attention_mask"):
        mask = np.concatenate([batch[name] for batch in data.batches]).astype(int)
        assert mask.min() == 0
        assert (mask[:, 0] == 1).all()
        assert (np.diff(mask, axis=1) <= 0).all()
        assert len(set(mask.sum(axis=1))) > 4
    assert set(np.unique(data.batches[0]["segment_ids"])) == {0, 1}


def test_what_the_model_refuses_is_tried_otherwise(tmp_path: Path) -> None:
    """A shape takes ones, a reduction over the batch a batch of one."""
    reshaped = (
        "g (float[N,64] x, int64[1] s) => (float[N,32] y) { h = Reshape(x, s2) r = Expand(h, s) y = MatMul(r, w) }"
    )
    data = fitted(tmp_path, reshaped, {"s2": np.array([-1, 64])})
    assert data.batches[0]["s"].tolist() == [1]
    one = "g (float[N,64] x) => (float[A,32] y) { h = Reshape(x, s) y = MatMul(h, w) }"
    assert fitted(tmp_path, one, {"s": np.array([1, 64])}).batches[0]["x"].shape == (1, 64)


def test_a_free_axis_is_long_enough_for_what_reads_it(tmp_path: Path) -> None:
    body = "g (float[N,1,T] x) => (float[N,4,U] y) { p = Relu(x) y = Conv(p, k) }"
    assert fitted(tmp_path, body, {"k": models.random(4, 1, 10)}).batches[0]["x"].shape == (16, 1, 16000)
    wide = "g (float[N,8,T] x) => (float[N,4,U] y) { y = Conv(x, k) }"
    assert fitted(tmp_path, wide, {"k": models.random(4, 8, 10)}).batches[0]["x"].shape == (16, 8, 32)
    assert fitted(tmp_path, wide, {"k": models.random(4, 8, 300)}).batches[0]["x"].shape == (16, 8, 512)


@pytest.mark.slow
def test_images_have_the_channels_that_the_model_wants(tmp_path: Path) -> None:
    body = "g (float[N,C,H,U] x) => (float[N,4,A,B] y) { y = Conv(x, k) }"
    assert fitted(tmp_path, body, {"k": models.random(4, 5, 3, 3)}).batches[0]["x"].shape[1:] == (5, 224, 224)
    sizes = fitted(tmp_path, body, {"k": models.random(4, 5, 3, 3)}, H=40, U=50, N=2).batches[0]["x"].shape
    assert sizes == (2, 5, 40, 50)


def test_a_model_that_runs_on_nothing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = "g (float[N,64] x, int64[3] s) => (float[A,B,C] y) { h = MatMul(x, w) y = Reshape(h, s) }"
    opened(tmp_path, body)
    assert main(["compile", str(tmp_path / "m.onnx")]) == 1
    told = capsys.readouterr().err
    assert "error[Q429]" in told
    assert "(`x`, `s`)" in told
    assert "--data" in told
    saved(tmp_path, x=models.random(4, 64), s=np.array([-1, 2, 16]))
    assert main(["compile", str(tmp_path / "m.onnx"), "--data", str(tmp_path / "d.npz")]) == 0


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--dim", "N=3"], 0, ""),
        (["--dim", "M=3"], 1, "error[Q428]: no input has a free axis `M`"),
        (["--dim", "N"], 2, "`--dim N` is not NAME=N"),
        (["--dim", "N=0"], 2, "whole numbers from 1"),
        (["--dim", "N=99999999999"], 1, "error[Q429]: input `x` is too large"),
        (["--dim", "N=3", "--data", "d.npz"], 1, "error[Q428]: sizes of axes are for generated inputs"),
    ],
)
def test_sizes_are_set(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    status: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    opened(tmp_path, LINEAR)
    assert main(["compile", "m.onnx", *words]) == status
    assert said in capsys.readouterr().err


def test_sizes_are_set_from_python(tmp_path: Path) -> None:
    opened(tmp_path, LINEAR)
    assert qcc.compile(tmp_path / "m.onnx", dims={"N": 3}).verification.samples == 30
    with pytest.raises(qcc.QccError, match=r"Q428.*cannot be -1 long"):
        qcc.compile(tmp_path / "m.onnx", dims={"N": -1})


# .npz files


@pytest.mark.parametrize("rows", [False, True])
def test_scalars_are_given_once_or_a_row(tmp_path: Path, rows: bool) -> None:
    graph = opened(tmp_path, SCALARS)
    x, low, high = models.random(6, 64), np.arange(6, dtype=np.float32), np.arange(6, dtype=np.float32) + 2
    data = samples.load(
        saved(tmp_path, x=x, low=low if rows else low[1], high=high if rows else high[1]), graph, None, 0
    )
    assert data.count == 6
    assert len(data.batches) == (6 if rows else 1)
    assert all(batch["low"].shape == () for batch in data.batches)
    assert float(data.batches[-1]["high"]) == (7 if rows else 3)
    assert qcc.compile(tmp_path / "m.onnx", data=tmp_path / "d.npz").passed


def test_samples_lie_along_the_batch_axis_or_are_whole_feeds(tmp_path: Path) -> None:
    graph = opened(tmp_path, STATE, ZERO)
    x, state = models.random(6, 64), models.random(2, 6, 64)
    along = samples.load(saved(tmp_path, x=x, state=state), graph, 4, 0)
    assert [along.batches[0][name].shape for name in ("x", "state")] == [(4, 64), (2, 4, 64)]
    feeds = samples.load(
        saved(tmp_path, x=x[:, None], state=np.stack([state[:, i : i + 1] for i in range(6)])), graph, 6, 0
    )
    assert (len(feeds.batches), feeds.count) == (6, 6)
    np.testing.assert_array_equal(feeds.batches[2]["state"], state[:, 2:3])
    with pytest.raises(ModelError, match="disagree on the number"):
        samples.load(saved(tmp_path, x=x, state=state[:, :5]), graph, None, 0)


def archive(path: Path, *entries: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries:
            file.writestr(name, content)
    return path


def npy(array: np.ndarray, **header: object) -> bytes:
    """An array as numpy writes it, with another header."""
    file = io.BytesIO()
    described = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape, **header}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue() + array.tobytes()


GOOD = npy(np.zeros((4, 64), np.float32))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (
            [("x.npy", npy(np.zeros((4, 64), np.float32), shape=(1 << 40, 64)))],
            "says that it is float32 1099511627776x64",
        ),
        ([("x.npy", npy(np.zeros((4, 64), np.float32), shape=(-4, 64)))], "says that it is"),
        ([("x.npy", GOOD[:-7])], "and holds 1,017"),
        ([("x.npy", GOOD + b"more")], "and holds 1,028"),
        ([("x.npy", GOOD[:20])], "it is damaged"),
        ([("x.npy", b"")], "it is damaged"),
        ([("x.npy", b"not an array")], "it is damaged"),
        ([("x.npy", GOOD), ("x.npy", GOOD)], "holds the array `x` more than once"),
        ([("x.npy", npy(np.zeros((4, 64), np.float32), descr="|O"))], "it holds pickled objects"),
        ([("x.npy", npy(np.zeros((4, 64), np.float32), descr="<f9"))], "it is damaged"),
        ([("x.npy", npy(np.zeros((4, 64), np.float32), shape="x" * 20000))], "it is damaged"),
    ],
)
def test_files_that_lie_are_refused(tmp_path: Path, entries: list[tuple[str, bytes]], said: str) -> None:
    graph = opened(tmp_path, LINEAR)
    with pytest.raises(ModelError) as caught:
        samples.load(archive(tmp_path / "bad.npz", *entries), graph, None, 0)
    assert caught.value.code == "Q420"
    assert said in caught.value.message


def test_memory_is_looked_at_before_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, path = opened(tmp_path, LINEAR), saved(tmp_path, x=models.random(64, 64))
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 2 kB\n", encoding="ascii")
    monkeypatch.setattr("qcc.compiler.calibrate.read_npz.MEMORY", tmp_path / "meminfo")
    with pytest.raises(ModelError, match="take 16,384 bytes of memory, 2,048 are free"):
        samples.load(path, graph, None, 0)


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(0, len(data)))]


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for at in rng.integers(0, len(data), 4):
        changed[at] ^= int(rng.integers(1, 256))
    return bytes(changed)


@pytest.mark.parametrize("mutate", [truncated, flipped])
def test_mutated_files_give_a_diagnostic_or_data(tmp_path: Path, mutate: Callable[..., bytes]) -> None:
    graph, rng = opened(tmp_path, LINEAR), np.random.default_rng(0)
    np.savez_compressed(tmp_path / "z.npz", x=models.random(4, 64), more=np.arange(3))
    for good in (saved(tmp_path, x=models.random(4, 64), more=np.arange(3)), tmp_path / "z.npz"):
        whole = good.read_bytes()
        for _ in range(100):
            (tmp_path / "bad.npz").write_bytes(mutate(whole, rng))
            try:
                samples.load(tmp_path / "bad.npz", graph, None, 0)
            except ModelError as error:
                assert error.code.startswith("Q42")


def test_waves_are_tried_shorter_and_a_rate_stays_one(tmp_path: Path) -> None:
    body = """g (float[N,L] x, int64 sr) => (float[N,8,1] y) {
        r = Cast <to=1> (sr) k = Div (r, rate) s = Mul (x, k) u = Unsqueeze (s, one)
        c = Conv <strides=[128]> (u, w) y = Reshape (c, single) }"""
    weights: dict[str, np.ndarray] = {
        "rate": np.array(16000, np.float32),
        "one": np.array([1], np.int64),
        "w": models.random(8, 1, 400),
        "single": np.array([0, 8, 1], np.int64),  # one window, of 400 to 527 numbers
    }
    found = fitted(tmp_path, body, weights)
    assert found.batches[0]["x"].shape[1] == 512
    assert found.batches[0]["sr"] == 16000
