"""`qcc bench`: what it feeds, what it compares, what it prints and draws, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import parser

from qcc.__main__ import main
from qcc.codegen.target.machine import machine
from qcc.compiler.bench import bench
from qcc.compiler.bench import console as report_bench
from qcc.compiler.bench import picture as bench_svg
from qcc.compiler.bench.bench import Bench, Closeness, Contender, Setting
from qcc.compiler.bench.feeds import Wanted, feeds
from qcc.compiler.console import terminal
from qcc.compiler.console.fit_table import Column, Table
from qcc.compiler.console.usage import UsageError
from qcc.compiler.files.open_model import open_model
from qcc.compiler.measure.timing import SLOWER
from tests.kernel_files import OP, library, model, needs_tvm

DOUBLE = """<ir_version: 8, opset_import: ["": 17]>
    g (float[N, 8] x, int64[N, S] ids) => (float[N, 8] y) <float factor = {%s}> { y = Mul(x, factor) }"""
IMAGE = """<ir_version: 8, opset_import: ["": 17]>
    g (float[N, 3, H, W] x, float[N, S] mask) => (float[N, 3, H, W] y) { y = Relu(x) }"""
FIXED = '<ir_version: 8, opset_import: ["": 17]> g (float[4, 3] x) => (float[4, 3] y) { y = Relu(x) }'
BROKEN = """<ir_version: 8, opset_import: ["": 17]>
    g (float[N, 8] x, int64[N, S] ids) => (float[M, 8] y) <int64[1] at = {5}> { y = Gather(x, at) }"""
QUICK = ("--threads", "1", "--rounds", "3")
Run = Callable[..., tuple[int, str, str]]


def write(path: Path, text: str) -> Path:
    onnx.save(parser.parse_model(text), path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model, one that computes nearly the same, and one that does not."""
    monkeypatch.chdir(tmp_path)
    for name, factor in (("a", "2"), ("near", "2.002"), ("wrong", "-2")):
        write(tmp_path / f"{name}.onnx", DOUBLE % factor)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `qcc bench`: its status, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        status = main(["bench", *words])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.mark.usefixtures("folder")
def test_json(run: Run) -> None:
    status, out, err = run(
        "a.onnx", "near.onnx", "wrong.onnx", *QUICK, "--batch", "1,3", "--dim", "S=5", "--format", "json"
    )
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert [one["label"] for one in told["models"]] == ["a.onnx", "near.onnx", "wrong.onnx"]
    assert [one["bytes"] for one in told["models"]] == [Path(one["model"]).stat().st_size for one in told["models"]]
    first, near, wrong = told["models"]
    assert (first["sqnr_db"], first["relative_error"], first["kernels"]) == (None, 0, None)
    assert near["sqnr_db"] == pytest.approx(60, abs=0.1)  # an error of 0.001
    assert near["relative_error"] == pytest.approx(1e-3, rel=0.01)
    assert wrong["sqnr_db"] == pytest.approx(-6.02, abs=0.1)  # an error of twice the value
    assert [(one["threads"], one["batch"]) for one in told["settings"]] == [(1, 1), (1, 3)]
    assert told["settings"][1]["shapes"] == {"x": [3, 8], "ids": [3, 5]}
    for setting in told["settings"]:
        assert setting["times"][0]["ratio"] == 1
        assert all(one["q1_ms"] <= one["median_ms"] <= one["q3_ms"] for one in setting["times"])


@pytest.mark.usefixtures("folder")
def test_text_and_picture(run: Run) -> None:
    status, out, err = run("a.onnx", "wrong.onnx", *QUICK, "--picture", "times.svg")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[2].split() == ["model", "size", "library", "kernels", "SQNR", "largest", "error"]
    assert lines[3].split() == ["a.onnx", *lines[3].split()[1:3], "-", "-", "reference", "-"]
    assert lines[6].split()[:3] == ["threads", "batch", "model"]
    assert lines[7].split()[:3] == ["1", "1", "a.onnx"]
    assert lines[7].endswith(" -") and "x the time" in lines[8]
    assert "ratios are paired" in out
    assert lines[-1] == "wrote times.svg"
    assert sum(one.get("class", "").startswith("bar") for one in ElementTree.parse("times.svg").iter()) == 2


@pytest.mark.slow
@needs_tvm
def test_with_and_without_kernels(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model(Path("net.onnx"), OP)
    library(Path("net.kernels.so"), OP)
    status, out, _ = run("net.onnx", "net.onnx", "--plain", *QUICK, "--format", "json")
    assert status == 0
    models = json.loads(out)["models"]
    assert [(one["label"], one["kernel_nodes"]) for one in models] == [("net.onnx", 1), ("net.onnx, plain", 0)] * 2
    assert [one["kernels"] for one in models] == ["net.kernels.so", None] * 2
    assert models[0]["kernels_bytes"] == Path("net.kernels.so").stat().st_size
    assert models[2]["relative_error"] == 0 < models[1]["relative_error"]
    assert "1 of 1 nodes" in run("net.onnx", *QUICK)[1]


def test_feeds(folder: Path) -> None:
    given = feeds(open_model(write(folder / "i.onnx", IMAGE)).graph, Wanted((1, 2), {"W": 7}, sequence=9))
    assert {batch: [array.shape for array in one.values()] for batch, one in given.items()} == {
        1: [(1, 3, 224, 7), (1, 9)],
        2: [(2, 3, 224, 7), (2, 9)],
    }
    graph = open_model(write(folder / "f.onnx", FIXED)).graph
    assert feeds(graph, Wanted())[4]["x"].shape == (4, 3)
    with pytest.raises(UsageError, match="the model's batch is 4: `--batch 2`"):
        feeds(graph, Wanted((4, 2)))


@pytest.mark.usefixtures("folder")
def test_data_is_taken_in_order_and_again() -> None:
    rows = np.arange(5 * 8, dtype=np.float32).reshape(5, 8)
    np.savez("d.npz", x=rows, ids=np.zeros((5, 2), np.int64))
    given = feeds(open_model(Path("a.onnx")).graph, Wanted((2, 7), data=Path("d.npz")))
    np.testing.assert_array_equal(given[2]["x"], rows[:2])
    np.testing.assert_array_equal(given[7]["x"], rows[[0, 1, 2, 3, 4, 0, 1]])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--threads", "0"], "`--threads` takes whole numbers from 1: `0`"),
        (["--threads", "1,x"], "`--threads` takes whole numbers from 1: `x`"),
        (["--threads", "100000"], "`--threads 100000` is more than the "),
        (["--batch", "1,"], "`--batch` takes whole numbers from 1: ``"),
        (["--batch", "-1"], "`--batch` takes whole numbers from 1: `-1`"),
        (["--rounds", "2"], "`--rounds` takes whole numbers from 3: `2`"),
        (["--dim", "S"], "`--dim S` is not NAME=N"),
        (["--dim", "S=many"], "`--dim S` takes whole numbers from 0: `many`"),
        (["--dim", "T=3"], "no input has a free axis `T`"),
        (["--dim", "N=3"], "`N` is the inputs' batch"),
        (["--dim", "S=3", "--data", "d.npz"], "`--dim` is for generated inputs"),
        (["--sequence", "99999999999999999"], "cannot be made"),
        (["--picture", "x.gif"], "a picture ends in .svg or .png: `x.gif`"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_wrong_options_reject(words: list[str], message: str, run: Run) -> None:
    status, out, err = run("a.onnx", "--rounds", "3", *words)
    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["a.onnx", "missing.onnx", "gone.onnx"], "Q400", "gone.onnx"),
        (["missing.onnx"], "Q400", "missing.onnx"),
        (["a.onnx", "i.onnx"], "Q426", "`i.onnx` takes x float32, mask float32, unlike `a.onnx`"),
        (["a.onnx", "z.onnx"], "Q426", "`z.onnx` gives z, unlike `a.onnx`"),
        (["a.onnx", "t.onnx"], "Q426", "gives `y` of shape (1, 1, 8)"),
        (["a.onnx", "text.onnx"], "Q405", "ONNX Runtime cannot load"),
        (["a.onnx", "--data", "none.npz"], "Q420", "none.npz"),
        (["a.onnx", "--picture", "none/x.svg"], "Q404", "no such folder"),
        (["a.onnx", "broken.onnx"], "Q406", "`--data` gives inputs that the model accepts"),
    ],
)
def test_models_that_do_not_fit_reject(words: list[str], code: str, message: str, run: Run, folder: Path) -> None:
    write(folder / "i.onnx", IMAGE)
    write(folder / "z.onnx", (DOUBLE % "2").replace("y", "z"))
    write(folder / "t.onnx", (DOUBLE % "2").replace("float factor", "float[1, 1, 1] factor"))
    write(folder / "broken.onnx", BROKEN)
    (folder / "text.onnx").write_text("no model", encoding="utf-8")
    before = sorted(folder.iterdir())
    status, out, err = run(*words, *QUICK)
    assert (status, out) == (1, "")
    assert code in err
    assert message in err
    assert sorted(folder.iterdir()) == before


def test_interrupted_it_leaves_nothing(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = sorted(folder.iterdir())
    monkeypatch.setattr(bench, "interleaved", interrupt)
    status, out, err = run("a.onnx", *QUICK, "--picture", "x.svg")
    assert (status, out, err) == (130, "", "qcc: interrupted\n")
    assert sorted(folder.iterdir()) == before


@pytest.mark.usefixtures("folder")
def test_all_cores_by_default(run: Run) -> None:
    _, out, _ = run("a.onnx", "--rounds", "3", "--format", "json")
    assert [one["threads"] for one in json.loads(out)["settings"]] == sorted({1, machine().cores})


def test_models_of_one_name_are_told_apart(folder: Path, run: Run) -> None:
    (folder / "b").mkdir()
    write(folder / "b" / "a.onnx", DOUBLE % "2")
    _, out, _ = run("a.onnx", "b/a.onnx", *QUICK, "--format", "json")
    assert [one["label"] for one in json.loads(out)["models"]] == ["a.onnx", "b/a.onnx"]


def test_the_ratio_is_that_of_rounds() -> None:
    setting = Setting(1, 1, {}, np.array([[1.0, 2.0, 4.0], [0.5, 1.0, 8.0]]))
    assert (setting.ratio(0).median, setting.ratio(1).median) == (1, 0.5)
    assert setting.quartiles(0) == (1.5, 2, 3)


def test_what_is_slower_is_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    entries = tuple(Contender(Path(name), None, name, 1, 0, ()) for name in ("float.onnx", "slow.onnx", "fast.onnx"))
    seconds = np.outer([1.0, 1.934, 0.5], np.ones(15))
    report_bench.write_report(Bench(entries, (Setting(1, 1, {}, seconds),), (Closeness(),) * 3, "generated"))
    told = {line.split("  ")[-1] for line in capsys.readouterr().out.splitlines()}
    assert {"1.93x the time (slower)", "0.50x the time"} <= told


def test_colour_only_at_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table((Column("a"),), (("slow (slower)",), ("plain",)))
    terminal.write_table(table, marks={SLOWER: "red"})
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setattr("qcc.compiler.console.terminal.is_terminal", lambda stream: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal.write_table(table, marks={SLOWER: "red"})
    _, slow, other = capsys.readouterr().out.splitlines()
    assert slow == "\x1b[31mslow (slower)\x1b[0m" and other == "plain"


def test_the_picture_escapes_names() -> None:
    entry = Contender(Path("<b>&.onnx"), None, "<b>&.onnx", 1, 0, ())
    drawn = bench_svg.draw(Bench((entry,), (Setting(1, 1, {}, np.ones((1, 3))),), (Closeness(),), "generated"))
    assert "<b>" not in drawn
    ElementTree.fromstring(drawn)


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.2345, "1234"), (0.012345, "12.3"), (0.00012345, "0.123"), (1.2e-6, "0.00120"), (0, "0")]
)
def test_times_in_three_digits(seconds: float, text: str) -> None:
    assert report_bench.ms_text(seconds) == text


@pytest.mark.slow
def test_what_sessions_keep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "large.onnx", FIXED)
    made = onnx.load(path)
    made.graph.node[0].CopyFrom(onnx.helper.make_node("MatMul", ["x", "w"], ["y"]))
    made.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1 << 22
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((3, 1 << 22), np.float32), "w"))
    onnx.save(made, path)  # 48 MiB of weights, which no session can do without
    assert main(["bench", str(path), "--memory", "--format", "json", *QUICK]) == 0
    (kept,) = json.loads(capsys.readouterr().out)["memory"]
    assert 40 << 20 < kept["made"] <= kept["most"]
    assert kept["ran"] >= kept["made"] - (1 << 20)
    assert main(["bench", str(path), *QUICK]) == 0
    assert "session over file" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["file", "arr_1.npy"])
def test_what_sessions_keep_whatever_inputs_are_called(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "named.onnx", FIXED)
    made = onnx.load(path)
    made.graph.input[0].name = made.graph.node[0].input[0] = name
    onnx.save(made, path)
    assert main(["bench", str(path), "--memory", "--format", "json", *QUICK]) == 0
    (kept,) = json.loads(capsys.readouterr().out)["memory"]
    assert kept["made"] > 0
