"""`qcc compile`: what it writes and prints, what bad input does, and how it is interrupted."""

import json
import os
import pty
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import qcc
from qcc.__main__ import main
from qcc.compiler.plan.plan import Plan
from qcc.compiler.report import console as report_console
from qcc.compiler.report.json import as_json
from qcc.compiler.report.result import Allocation, LayerRow, Result
from qcc.compiler.verify.outputs import BoundCheck, Verification
from tests.output_checks import output_check

FACE = runpy.run_path(str(Path(__file__).with_name("test_cli.py")))
GOLDEN: Path = FACE["GOLDEN"]
folder, run = FACE["folder"], FACE["run"]
Run = Callable[..., tuple[int, str, str]]
FILES = {"mlp.qcc.onnx", "mlp.qcc.lock", "mlp.qcc.html"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_compile(folder: Path, run: Run) -> None:
    before = names(folder)
    status, out, err = run("compile", "mlp.onnx", "-p", "p.qpolicy")
    assert (status, err) == (0, "")
    assert names(folder) - before == FILES
    assert re.search(r"^down +linear +16x128 +int8 channel +decoded +2,\d{3} ", out, re.MULTILINE)
    assert re.search(r"^verify +cosine >= 0.9: holds on generated data, 0\.9\d+$", out, re.MULTILINE)
    assert "mlp.qcc.onnx, mlp.qcc.lock, mlp.qcc.html" in out
    assert run("compile", "mlp.onnx", "-q", "-o", "other.onnx") == (0, "", "")


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes_also_from_the_lock(folder: Path, run: Run) -> None:
    for words in (["-o", "a.onnx"], ["-o", "b.onnx"], ["-o", "c.onnx", "--plan", "a.lock"]):
        assert run("compile", "mlp.onnx", "-p", "p.qpolicy", *words)[0] == 0
    a, b, c = ((folder / name).read_bytes() for name in ("a.onnx", "b.onnx", "c.onnx"))
    assert a == b == c


def test_json(folder: Path, run: Run) -> None:
    status, out, err = run("compile", "mlp.onnx", "-p", "p.qpolicy", "--format", "json")
    assert (status, err) == (0, "")
    data = json.loads(out)
    assert (data["passed"], data["written"], data["diagnostics"]) == (True, True, [])
    assert data["output_bytes"] == (folder / data["output"]).stat().st_size
    assert [row["name"] for row in data["layers"]] == ["up", "down"]
    assert data["allocation"]["options"] == 1


@pytest.mark.slow
def test_tvm_is_loaded_for_kernels_only(folder: Path) -> None:
    command = """
import sys, qcc
from qcc.__main__ import main
assert main(["compile", "mlp.onnx", "-q"]) == 0
assert "onnxruntime" in sys.modules
print([name for name in sys.modules if name.partition(".")[0] in ("tvm", "tvm_ffi")])"""
    done = subprocess.run([sys.executable, "-c", command], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("stage", ["ast", "policy", "plan"])
def test_emit_stops_there(folder: Path, run: Run, golden: Callable[[Path, str], None], stage: str) -> None:
    (folder / "p.qpolicy").write_text(
        'qpolicy 1\nparam bits = "up"\nrule linear { weights = int{3,4} channel }\nbudget { bits <= 4.9 }\n',
        encoding="utf-8",
    )
    before = names(folder)
    model = ["mlp.onnx"] if stage == "plan" else []
    status, out, err = run("compile", *model, "-p", "p.qpolicy", "--emit", stage)
    assert status == 0
    assert names(folder) == before
    golden(GOLDEN / f"emit_{stage}.out", out)
    status, text, _ = run("compile", *model, "-p", "p.qpolicy", "--emit", stage, "--format", "json")
    assert status == 0
    assert json.loads(text)[stage]
    if stage != "ast":
        assert "warning" in err


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ("rule any { weights = int2 channel }\nverify { cosine >= 0.99999 }", "Q320"),
        ("rule any { weights = int8 channel | int4 channel }\nbudget { size <= 2% }", "Q310"),
    ],
)
@pytest.mark.parametrize("format", ["text", "json", "github"])
def test_a_demand_that_is_not_met_leaves_nothing(folder: Path, run: Run, policy: str, code: str, format: str) -> None:
    (folder / "p.qpolicy").write_text(f"qpolicy 1\n{policy}\n", encoding="utf-8")
    before = names(folder)
    status, out, err = run("compile", "mlp.onnx", "-p", "p.qpolicy", "--format", format)
    assert status == 3
    assert names(folder) == before
    if format == "json":
        assert [one["code"] for one in json.loads(out)["diagnostics"]] == [code]
    else:
        assert code in (err if format == "text" else out)


# Bad input: one clear diagnostic each, and nothing left behind.


def bad_files(folder: Path) -> None:
    good = (folder / "mlp.onnx").read_bytes()
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "half.onnx").write_bytes(good[: len(good) // 2])
    (folder / "random.onnx").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "folder.onnx").mkdir()
    (folder / "file").write_bytes(b"x")
    (folder / "bin.qpolicy").write_bytes(bytes(range(256)))
    (folder / "deep.qpolicy").write_text(f"rule {'(' * 5000}linear{')' * 5000} {{ keep }}\n", encoding="utf-8")
    model = onnx.load(folder / "mlp.onnx")
    broken = numpy_helper.to_array(model.graph.initializer[0]).copy()
    broken[3, 5] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(broken, "up"))
    onnx.save(model, folder / "nan.onnx")
    model = onnx.load(folder / "mlp.onnx")
    model.graph.node[1].op_type = "Reluu"
    onnx.save(model, folder / "unknown.onnx")
    x = np.zeros((4, 64), np.float32)
    np.save(folder / "array.npy", x)
    bad = x.copy()
    bad[2, 7] = np.nan
    arrays = {
        "nan": {"x": bad},
        "misnamed": {"xx": x},
        "typed": {"x": x.astype(np.float64)},
        "shaped": {"x": x[:, :60]},
    }
    for name, feeds in {**arrays, "pickled": {"x": np.array([{}, None])}, "none": {"x": x[:0]}}.items():
        np.savez(folder / f"{name}.npz", **feeds)  # type: ignore[arg-type]


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("missing.onnx", "Q400", "no such file: `missing.onnx`"),
        ("nowhere/missing.onnx", "Q400", "no such file"),
        ("folder.onnx", "Q400", "is a directory"),
        ("empty.onnx", "Q401", "is empty"),
        ("half.onnx", "Q401", "truncated"),
        ("random.onnx", "Q401", "not an ONNX model"),
        ("mlp.onnx -o nowhere/out.onnx", "Q404", "no such folder"),
        ("mlp.onnx -o file/out.onnx", "Q404", "no such folder"),
        ("mlp.onnx -o folder.onnx", "Q404", "it is a folder"),
        ("mlp.onnx -o ./mlp.onnx", "Q404", "is the input"),
        ("unknown.onnx", "Q405", "Reluu"),
        ("nan.onnx", "Q410", "holds nan"),
        ("mlp.onnx --data missing.npz", "Q420", "no such calibration file"),
        ("mlp.onnx --data misnamed.npz", "Q420", "no array for input `x`"),
        ("mlp.onnx --data pickled.npz", "Q420", "pickled"),
        ("mlp.onnx --data file", "Q420", "not an .npz file"),
        ("mlp.onnx --data array.npy", "Q420", "is a single array"),
        ("mlp.onnx --data none.npz", "Q422", "samples"),
        ("mlp.onnx --data typed.npz", "Q423", "takes float32, the calibration array is float64"),
        ("mlp.onnx --data nan.npz", "Q424", "in sample 2"),
        ("mlp.onnx --data shaped.npz", "Q425", "takes ?x64, the calibration array is 4x60"),
        ("mlp.onnx --plan mlp.onnx", "Q431", "not a lock file"),
        ("mlp.onnx --plan missing.lock", "Q431", "no such file"),
        ("mlp.onnx -p bin.qpolicy", "Q108", "binary file"),
        ("mlp.onnx -p missing.qpolicy", "Q107", "no such file"),
        ("mlp.onnx -p deep.qpolicy", "Q105", "nested too deeply"),
        ("mlp.onnx -p balancd", "Q223", "did you mean `balanced`?"),
        ("mlp.onnx -D x=1", "Q222", "no parameter `x`"),
    ],
)
def test_bad_input(folder: Path, run: Run, words: str, code: str, said: str) -> None:
    bad_files(folder)
    before = names(folder)
    status, out, err = run("compile", *words.split())
    assert (status, out) == (1, "")
    assert err.startswith(f"error[{code}]: ")
    assert said in err
    assert err.count("error[") == 1
    assert names(folder) == before


@pytest.mark.slow
def test_a_plan_for_another_model(folder: Path, run: Run) -> None:
    assert run("compile", "mlp.onnx", "-q")[0] == 0
    other = folder / "other"
    other.mkdir()
    FACE["build"](other / "tied.onnx", FACE["TIED"], ("table",))
    status, _, err = run("compile", "other/tied.onnx", "--plan", "mlp.qcc.lock")
    assert status == 1
    assert "error[Q431]: the plan is for another model: `other/tied.onnx` has no weight `down`" in err
    assert names(other) == {"tied.onnx"}


@pytest.mark.slow
def test_a_policy_of_ten_thousand_rules(folder: Path, run: Run) -> None:
    (folder / "long.qpolicy").write_text(
        "qpolicy 1\n" + "rule linear { weights = int8 channel }\n" * 10_000, encoding="utf-8"
    )
    start = time.process_time()
    assert run("compile", "mlp.onnx", "-p", "long.qpolicy", "-q") == (0, "", "")
    assert time.process_time() - start < 60  # seconds; what grows with the square takes minutes


# Interruption, in a process of its own.

HANG = """
import signal, sys, time
from pathlib import Path
import qcc.compiler.verify.verifier
signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background inherits that it is ignored,
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and so does one under nohup
def hang(*_):
    Path("hanging").touch()
    time.sleep(60)
qcc.compiler.verify.verifier.Verifier.verify = hang
from qcc.__main__ import main
sys.exit(main(["compile", "mlp.onnx"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated"), ("SIGHUP", 129, "hung up")],
)
def test_interruption_leaves_nothing(folder: Path, sent: str, status: int, said: str) -> None:
    before = names(folder) | {"hanging"}
    process = subprocess.Popen([sys.executable, "-c", HANG], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (folder / "hanging").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert any(name.startswith(".qcc-") for name in names(folder))
    process.send_signal(signal.Signals[sent])
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (status, "", f"qcc: {said}\n")
    assert names(folder) == before


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_progress_at_a_terminal_only() -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "qcc", "compile", "mlp.onnx", "-p", "p.qpolicy"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    while True:
        try:
            shown += (read := os.read(master, 65536))
        except OSError:  # Linux's end of a terminal
            break
        if not read:
            break
    out, _ = process.communicate(timeout=120)
    os.close(master)
    assert process.returncode == 0
    for phase in (b"reading the model", b"measuring candidates", b"1/1", b"verifying the file"):
        assert phase in shown
    assert b"\x1b" not in out
    assert FACE["spawn"](*command[3:]).stderr == ""


# The report, of made-up results, so that its text is stable.


def result(count: int, passed: bool, allocation: Allocation | None) -> Result:
    long = "model.layers.0.attention.a_name_that_goes_on_and_on_well_past_eighty_columns.query"
    rows = [
        LayerRow(
            long,
            ("linear",),
            (64, 64),
            "int4 group 32 sym scale fp16",
            "fused",
            2564,
            16384,
            5.01,
            1e-2,
            2e-4,
            "measured at 0.5x",
        ),
        LayerRow(
            "conv",
            ("conv",),
            (8, 27),
            "int8 channel asym scale fp32",
            "decoded",
            900,
            864,
            33.33,
            1e-5,
            None,
            "no kernel",
        ),
        LayerRow(
            "head", ("embedding", "linear"), (10, 64), "float32", "", 2560, 2560, 32.0, 0.0, None, "keep, p.qpolicy:3:1"
        ),
    ]
    more = (
        LayerRow(
            f"more.{at}",
            ("linear",),
            (8, 8),
            "int8 channel sym scale fp16",
            "decoded",
            80,
            256,
            10.0,
            1e-4,
            None,
            "no kernel",
        )
        for at in range(count)
    )
    outputs = (output_check("logits", 0.9991234, 31.25, 0.0123), output_check("same", 1.0, float("inf"), 0.0))
    ids = output_check("ids", 0.75, 0.0, 0.25, 0.25)
    bound = qcc.load_policy("balanced").verify[0]
    checks = (BoundCheck(bound, 0.75 if not passed else 0.9991234, passed),)
    return Result(
        source=Path("in.onnx"),
        output=Path("out.onnx"),
        lock=Path("out.lock"),
        report=Path("out.html"),
        written=passed,
        input_bytes=100_000,
        output_bytes=25_000,
        layers=(*rows, *more),
        plan=Plan(()),
        edits=("ops: 10 -> 8",),
        allocation=allocation,
        verification=Verification((*outputs, ids), checks, 32, "generated"),
        warnings=(),
        seconds={"load": 0.01, "measure": 1.25, "verify": 0.3},
    )


@pytest.mark.parametrize("name", ["few", "many", "failed"])
def test_report(capsys: pytest.CaptureFixture[str], golden: Callable[[Path, str], None], name: str) -> None:
    allocation = Allocation("output_error", ("size <= 25%",), 2, 12, 11, 0.0, 0.0021)
    one = result(50 if name == "many" else 0, name != "failed", allocation if name == "few" else None)
    report_console.write_report(one)
    golden(GOLDEN / f"report_{name}.out", capsys.readouterr().out)
    report_console.write_report(one, verbose=True)
    shown = capsys.readouterr().out
    assert all(row.name in shown for row in one.layers)
    assert json.loads(json.dumps(as_json(one), allow_nan=False))["layers"][0]["bits"] > 5


def test_main_takes_the_process_own_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["qcc", "presets"])
    assert main() == 0
    assert "balanced" in capsys.readouterr().out
