"""The commands, through `main(argv)`: what they print, what they write, and how they end."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import qcc
from qcc.__main__ import main
from qcc.compiler.commands import cli
from qcc.compiler.commands.language import presets as command_presets
from qcc.dsl.diagnostics.pages import all_codes, page
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import load_text

GOLDEN = Path(__file__).with_name("golden") / "cli"
HEAVY = {"onnx", "onnx_ir", "onnxruntime", "torch", "tvm", "scipy", "rich"}
MLP = """<ir_version: 8, opset_import: ["": 17], producer_name: "hand">
    mlp (float[N, 64] x) => (float[N, 16] y) {
        a = MatMul(x, up)
        b = Relu(a)
        y = MatMul(b, down)
    }"""
TIED = """<ir_version: 8, opset_import: ["": 17]>
    tied (int64[N] ids) => (float[N, 100] logits) {
        h = Gather(table, ids)
        t = Transpose<perm = [1, 0]>(table)
        logits = MatMul(h, t)
    }"""
SHAPES = {"up": (64, 128), "down": (128, 16), "table": (100, 32)}
POLICY = """qpolicy 1
rule linear { weights = int8 channel }
rule linear[name == "up"] { weights = int{3,4} channel }
verify { cosine >= 0.9 }
"""
Run = Callable[..., tuple[int, str, str]]


def build(path: Path, text: str, names: tuple[str, ...]) -> Path:
    """A model from its text, with weights by their names."""
    model = parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name in names:
        array = rng.standard_normal(SHAPES[name], np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(model, path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a test, with a model and a policy."""
    monkeypatch.chdir(tmp_path)
    build(tmp_path / "mlp.onnx", MLP, ("up", "down"))
    (tmp_path / "p.qpolicy").write_text(POLICY, encoding="utf-8")
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line: its status, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def spawn(*words: str, **options: object) -> "subprocess.CompletedProcess[str]":
    """Run a command line in a process of its own."""
    command = [sys.executable, "-m", "qcc", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


# The command line itself.


def test_help_and_version(run: Run, golden: Callable[[Path, str], None]) -> None:
    status, out, err = run()
    assert (status, err) == (0, "")
    golden(GOLDEN / "help.out", out)
    assert run("--help") == run("help") == (0, out, "")
    assert run("--version") == (0, f"qcc {qcc.__version__}\n", "")
    for name, summary in cli.COMMANDS.items():
        status, text, _ = run(name, "--help")
        assert (status, text.split()[:3]) == (0, ["usage:", "qcc", name])
        assert summary in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["comple"], "did you mean `compile`?"),
        (["model.onnx"], "did you mean `qcc compile model.onnx`?"),
        (["my.qpolicy"], "did you mean `qcc check my.qpolicy`?"),
        (["--verison"], "unknown option: `--verison`"),
        (["check", "--modle=x", "balanced"], "did you mean `--model`?"),
        (["check"], "the following arguments are required: POLICY"),
        (["compile"], "no model is given"),
        (["compile", "m.onnx", "-D", "density"], "`-D density` gives no value"),
        (["compile", "m.onnx", "--format", "xml"], "invalid choice: 'xml'"),
        (["explain", "Q202", "layer"], "a diagnostic has no layers"),
    ],
)
def test_usage_errors(run: Run, words: list[str], said: str) -> None:
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert said in err
    status, out, err = run(*words, "--format=json")
    assert (status, err) == (2, "")
    assert json.loads(out)["diagnostics"][0]["code"] == "usage"


@pytest.mark.parametrize("word", ["", " ", "--data=", "-p"])
@pytest.mark.parametrize("name", cli.COMMANDS)
def test_an_empty_argument_reject(run: Run, name: str, word: str) -> None:
    """It would be the folder one is in, or the default policy: `-p "$POLICY"` of a variable that is not set."""
    status, out, err = run(name, *(["m.onnx", "-p", ""] if word == "-p" else [word]))
    assert (status, out) == (2, "") and "an argument is empty" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    ["check balanced", "fmt --check {}", "presets tiny", "passes weights", "explain Q202", "help", "compile -h"],
)
def test_light_commands_load_nothing_heavy(tmp_path: Path, words: str) -> None:
    (tmp_path / "p.qpolicy").write_text("qpolicy 1\n", encoding="utf-8")
    command = f"""
import sys
from qcc.__main__ import main
assert main({words.format(tmp_path / "p.qpolicy").split()!r}) == 0
print(*{HEAVY!r} & {{name.partition(".")[0] for name in sys.modules}}, file=sys.stderr)"""
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []


def test_bug_is_told_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(_: object) -> int:
        raise KeyError("secret")

    monkeypatch.setattr(command_presets, "run", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    status, out, err = run("presets")
    (file,) = tmp_path.iterdir()
    assert (status, out) == (70, "")
    assert "a bug in qcc: KeyError: 'secret'" in err
    assert str(file) in err
    assert "Traceback" not in err
    assert "Traceback" in file.read_text(encoding="utf-8")
    assert json.loads(run("presets", "--format", "json")[1])["diagnostics"][0]["code"] == "internal"
    monkeypatch.setenv("QCC_DEBUG", "1")
    assert "Traceback" in run("presets")[2]


def test_an_interruption_stays_one_whatever_is_made_of_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in C that is interrupted while it is imported says that it cannot be."""

    def fail(arguments: object) -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as end:
            raise ImportError("initialization failed") from end
        return 0

    monkeypatch.setattr(command_presets, "run", fail)
    assert run("presets") == (143, "", "qcc: terminated\n")


@pytest.mark.slow
def test_a_closed_output() -> None:
    """As of ``>&-`` in a shell: what is printed goes nowhere."""
    done = subprocess.run(["sh", "-c", f"{sys.executable} -m qcc passes >&- 2>&-"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_names_that_the_terminal_cannot_show(tmp_path: Path) -> None:
    (tmp_path / "\u91cd.qpolicy").write_text("qpolicy 1\nrule any { weights = int8 }\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    done = spawn("check", str(tmp_path / "\u91cd.qpolicy"), env=environment)
    assert done.returncode == 0 and done.stdout.endswith("\\u91cd.qpolicy: ok, 1 rule\n")


def test_broken_pipe() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "qcc", "passes"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


# check


@pytest.mark.usefixtures("folder")
def test_check(run: Run) -> None:
    assert run("check", "p.qpolicy", "tiny") == (0, "p.qpolicy: ok, 2 rules\ntiny: ok, 1 rule\n", "")
    assert run("check", "-q", "p.qpolicy") == (0, "", "")
    said = "p.qpolicy: ok, 2 rules; of the layers of mlp.onnx, 1 encoded, 1 left to the allocator, 0 kept\n"
    assert run("check", "p.qpolicy", "--model", "mlp.onnx") == (0, said, "")


def test_check_tells_all_errors(folder: Path, run: Run, golden: Callable[[Path, str], None]) -> None:
    (folder / "bad.qpolicy").write_text("qpolicy 1\nrule liner { weights = int44 }\n", encoding="utf-8")
    (folder / "good.qpolicy").write_text("qpolicy 1\nrule linear { keep }\n", encoding="utf-8")
    status, out, err = run("check", "bad.qpolicy", "good.qpolicy", "missing.qpolicy")
    assert (status, out) == (1, "good.qpolicy: ok, 1 rule\n")
    golden(GOLDEN / "check_reject.out", err)
    status, out, err = run("check", "bad.qpolicy", "--format", "json")
    assert (status, err) == (1, "")
    assert not json.loads(out)["ok"]
    assert all(one["file"] == "bad.qpolicy" for one in json.loads(out)["diagnostics"])
    status, out, err = run("check", "bad.qpolicy", "--format=github")
    assert (status, err) == (1, "")
    assert out.startswith("::error file=bad.qpolicy,line=2,col=6")


def test_check_against_a_model(folder: Path, run: Run) -> None:
    (folder / "u.qpolicy").write_text(
        'qpolicy 1\nrule linear[name == "upp"] { keep }\nrule conv { keep }\n', encoding="utf-8"
    )
    assert run("check", "u.qpolicy")[0] == 0
    status, out, err = run("check", "u.qpolicy", "--model", "mlp.onnx")
    assert (status, out) == (1, "")
    assert "error[Q301]" in err
    assert "warning[Q302]" in err
    status, _, err = run("check", "u.qpolicy", "--model", "missing.onnx")
    assert status == 1
    assert "error[Q400]" in err


@pytest.mark.slow
def test_check_reads_standard_input() -> None:
    done = spawn("check", "-", input="qpolicy 1\nrule linear { keeep }\n")
    assert done.returncode == 1
    assert "<stdin>:2:15" in done.stderr


# fmt


UGLY, NEAT = "qpolicy 1\nrule   linear{keep}\n", "qpolicy 1\nrule linear { keep }\n"


def test_fmt_rewrites(folder: Path, run: Run) -> None:
    ugly, link = folder / "ugly.qpolicy", folder / "link.qpolicy"
    ugly.write_text(UGLY, encoding="utf-8")
    ugly.chmod(0o640)
    link.symlink_to(ugly)
    before = set(folder.iterdir())
    assert run("fmt", "link.qpolicy") == (0, "", "reformatted link.qpolicy\n")
    assert ugly.read_text(encoding="utf-8") == NEAT
    assert stat.S_IMODE(ugly.stat().st_mode) == 0o640
    assert link.is_symlink()
    assert run("fmt", "link.qpolicy", "ugly.qpolicy") == (0, "", "")
    assert set(folder.iterdir()) == before


def test_fmt_only_tells(folder: Path, run: Run) -> None:
    (folder / "ugly.qpolicy").write_text(UGLY, encoding="utf-8")
    assert run("fmt", "--check", "ugly.qpolicy", "p.qpolicy") == (1, "", "would reformat ugly.qpolicy\n")
    status, out, _ = run("fmt", "--diff", "ugly.qpolicy")
    assert status == 0
    assert "-rule   linear{keep}\n+rule linear { keep }\n" in out
    _, out, _ = run("fmt", "--check", "ugly.qpolicy", "--format", "json")
    assert json.loads(out) == {"files": [{"file": "ugly.qpolicy", "changed": True}], "diagnostics": []}
    assert (folder / "ugly.qpolicy").read_text(encoding="utf-8") == UGLY


def test_fmt_of_a_wrong_policy_changes_only_the_others(folder: Path, run: Run) -> None:
    (folder / "ugly.qpolicy").write_text(UGLY, encoding="utf-8")
    (folder / "wrong.qpolicy").write_text("rule {", encoding="utf-8")
    status, _, err = run("fmt", "wrong.qpolicy", "ugly.qpolicy")
    assert status == 1
    assert "wrong.qpolicy:1:" in err
    assert (folder / "wrong.qpolicy").read_text(encoding="utf-8") == "rule {"
    assert (folder / "ugly.qpolicy").read_text(encoding="utf-8") == NEAT


def test_fmt_filters_standard_input() -> None:
    done = spawn("fmt", "-", input=UGLY)
    assert (done.returncode, done.stdout) == (0, NEAT)


# explain, inspect, passes, presets


@pytest.mark.usefixtures("folder")
def test_explain_layers(run: Run, golden: Callable[[Path, str], None]) -> None:
    status, out, err = run("explain", "mlp.onnx", "-p", "p.qpolicy")
    assert (status, err) == (0, "")
    golden(GOLDEN / "explain.out", out)
    _, out, _ = run("explain", "mlp.onnx", "d*", "-p", "p.qpolicy", "--format", "json")
    (layer,) = json.loads(out)["layers"]
    assert layer["name"] == "down"
    assert layer["properties"] == [{"name": "weights", "value": "int8 channel", "source": "p.qpolicy:2:15"}]
    status, out, err = run("explain", "mlp.onnx", "dwn")
    assert (status, out) == (1, "")
    assert "did you mean `down`?" in err


def test_explain_code(run: Run) -> None:
    assert run("explain", "q202") == (0, page("Q202").text, "")
    assert json.loads(run("explain", "Q202", "--format", "json")[1])["name"] == "unknown-option"
    assert run("explain", "Q999")[0] == 1


def test_inspect(folder: Path, run: Run, golden: Callable[[Path, str], None]) -> None:
    build(folder / "tied.onnx", TIED, ("table",))
    status, out, err = run("inspect", "mlp.onnx")
    assert (status, err) == (0, "")
    golden(GOLDEN / "inspect.out", out + "\n" + run("inspect", "tied.onnx")[1])
    facts = json.loads(run("inspect", "tied.onnx", "--format=json")[1])
    assert [(one["params"], len(one["layers"])) for one in facts["weights"]] == [(3200, 2)]


def test_passes(run: Run) -> None:
    _, listed, _ = run("passes")
    entries = json.loads(run("passes", "--format", "json")[1])["entries"]
    assert {"clean", "encode", "weights", "rounding", "nearest", "int", "size", "export"} <= {
        e["name"] for e in entries
    }
    for entry in entries:
        assert entry["name"] in listed
        assert entry["summary"]
        assert run("passes", entry["name"])[:2] == (
            0,
            "\n".join(e["page"] for e in entries if e["name"] == entry["name"]),
        )
    assert "did you mean `nearest`?" in run("passes", "neerest")[2]


def test_presets(run: Run) -> None:
    _, listed, _ = run("presets")
    assert [line.split()[0] for line in listed.splitlines()] == ["balanced", "fast", "lossless", "tiny"]
    assert "qpolicy 1" in run("presets", "tiny")[1]
    assert run("presets", "tinny")[0] == 1
    assert len(json.loads(run("presets", "--format", "json")[1])["presets"]) == 4


# The diagnostics' pages.


def test_every_code_of_the_compiler_has_a_page_and_every_page_a_use() -> None:
    sources = [
        path
        for room in ("compiler", "dsl", "ir", "passes")
        for path in Path(cli.__file__).resolve().parents[2].glob(f"{room}/**/*.py")
    ]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    pages = {code for code in all_codes() if code > "Q300"}
    assert pages == {code for code in _codes(text) if code > "Q300"}


def _codes(text: str) -> set[str]:
    return {
        part[:4] for part in text.split('"Q')[1:] for part in ["Q" + part] if part[4:5] == '"' and part[1:4].isdigit()
    }


@pytest.mark.parametrize("code", [code for code in all_codes() if code > "Q300"])
def test_examples_of_the_compilers_pages_are_policies(code: str) -> None:
    from qcc.compiler.plan.catalog import schema

    for example in (page(code).wrong, page(code).right):
        assert example.needs in ("model", "file", "")  # nothing: what the language itself tells
        if example.needs:
            load_text(example.text, schema())


# In Python.


def test_the_public_face() -> None:
    assert set(qcc.__all__) <= set(dir(qcc))
    code = "import sys, qcc; qcc.QccError; assert not {'numpy', 'lark', 'onnx'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert issubclass(qcc.BudgetError, qcc.QccError)
    assert qcc.load_policy("balanced").minimize == "output_error"
    with pytest.raises(AttributeError, match="no attribute `nothing`"):
        _ = qcc.nothing


@pytest.mark.usefixtures("folder")
def test_session() -> None:
    result = qcc.compile("mlp.onnx", "p.qpolicy")
    session = qcc.Session(result.output)
    assert [(value.name, value.shape, value.dtype) for value in session.inputs] == [("x", ("N", 64), "float32")]
    assert [value.name for value in session.outputs] == ["y"]
    assert session.provenance["qcc.model"] == "mlp.onnx"
    assert session.run({"x": [[0] * 64] * 3})["y"].shape == (3, 16)
    for feeds, said in (
        ({"xx": 0}, "no input `xx`"),
        ({}, "`x` is not fed"),
        ({"x": "a"}, "takes float32"),
        ({"x": np.zeros((1, 3), np.float32)}, "ONNX Runtime failed"),
    ):
        with pytest.raises(QccError, match=said):
            session.run(feeds)
    with pytest.raises(QccError, match="Q400"):
        qcc.Session("missing.onnx")
    with pytest.raises(QccError, match="Q405"):
        qcc.Session("p.qpolicy")
