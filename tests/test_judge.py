"""A user's score bounds what is compressed: by labels, by a function or by a script."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import qcc
from qcc.__main__ import main
from qcc.compiler.judge.run import ModelRun
from qcc.compiler.judge.told import score_text
from qcc.compiler.scores.check import ScoreCheck
from qcc.ir.onnx.file.runtime import onnxruntime
from tests import onnx_models as models

INPUTS, HIDDEN, CLASSES, COUNT = 16, 96, 5, 400
BODY = (
    "g (float[N,16] x) => (float[N,5] y) { a = MatMul(x, w0) b = Relu(a) c = MatMul(b, w1) d = Relu(c) "
    "y = MatMul(d, w2) }"
)
RULE = "qpolicy 1\nrule any { weights = int{2,3,4,6,8} channel }\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier, and samples with labels that it gets right more often than not."""
    found = tmp_path_factory.mktemp("judge")
    shapes = [(INPUTS, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, CLASSES)]
    weights = {f"w{at}": models.random(*shape, seed=at) for at, shape in enumerate(shapes)}
    onnx.save(models.parse(BODY, weights), found / "m.onnx")
    x = np.random.default_rng(0).normal(size=(COUNT, INPUTS)).astype(np.float32)
    logits = outputs(found / "m.onnx", x)
    labels = (logits + np.random.default_rng(1).normal(size=logits.shape) * logits.std() / 2).argmax(axis=1)
    np.savez(found / "labelled.npz", x=x, labels=labels)
    np.savez(found / "bare.npz", x=x)
    return found


def outputs(model: Path, x: np.ndarray) -> np.ndarray:
    return np.asarray(onnxruntime.InferenceSession(str(model)).run(None, {"x": x})[0])


def compiled(folder: Path, tmp_path: Path, rest: str, **given: Any) -> Any:
    return qcc.compile(folder / "m.onnx", RULE + rest, output=tmp_path / "out.onnx", **given)


def only(result: Any) -> ScoreCheck:
    (found,) = result.verification.scores
    assert isinstance(found, ScoreCheck)
    return found


@pytest.mark.slow
def test_the_smallest_file_that_holds_is_found(folder: Path, tmp_path: Path) -> None:
    sizes = {}
    for limit in ("2%", "10%"):
        result = compiled(folder, tmp_path, f"budget {{ drop(accuracy) <= {limit} }}", evaluate=folder / "labelled.npz")
        assert result.passed and only(result).passed
        assert only(result).drop.samples < COUNT  # the others chose
        assert result.allocation.objective == "size"
        sizes[limit] = result.output_bytes
    assert sizes["10%"] < sizes["2%"]


@pytest.mark.slow
def test_a_search_ends_with_the_file_that_it_tells_of(folder: Path, tmp_path: Path) -> None:
    result = compiled(folder, tmp_path, "budget { drop(accuracy) <= 3% }", data=folder / "labelled.npz")
    assert 1 < result.allocation.rounds <= 8
    again = qcc.compile(folder / "m.onnx", plan=result.plan, output=tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").stat().st_size == again.output_bytes == result.output_bytes


@pytest.mark.slow
def test_a_budget_that_nothing_keeps_reject(folder: Path, tmp_path: Path) -> None:
    policy = "qpolicy 1\nrule any { weights = int2 tensor | int3 tensor }\nbudget { drop(accuracy) <= 0.5% }"
    with pytest.raises(qcc.BudgetError, match="drop") as error:
        qcc.compile(folder / "m.onnx", policy, output=tmp_path / "out.onnx", evaluate=folder / "labelled.npz")
    assert [one.code for one in error.value.diagnostics] == ["Q361"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_verify_names_the_weights_that_lose(folder: Path, tmp_path: Path) -> None:
    policy = 'qpolicy 1\nrule any { weights = int8 channel }\nrule any[name == "c"] { weights = int2 tensor }\n'
    policy = policy.replace('name == "c"', "in == 96, out == 96") + "verify { drop(accuracy) <= 1% }"
    result = qcc.compile(folder / "m.onnx", policy, output=tmp_path / "out.onnx", evaluate=folder / "labelled.npz")
    assert not result.passed and not (tmp_path / "out.onnx").exists()
    worst = result.verification.losers[0]
    (middle,) = (row.name for row in result.layers if row.shape == (HIDDEN, HIDDEN))
    assert worst.weight == middle and worst.share > 0.8


@pytest.mark.slow
def test_verify_tightens_what_is_minimised(folder: Path, tmp_path: Path) -> None:
    rest = "minimize size\nverify { drop(accuracy) <= 3% }"
    result = compiled(folder, tmp_path, rest, evaluate=folder / "labelled.npz")
    assert result.passed and result.allocation.rounds > 1


def right(folder: Path, run: ModelRun) -> np.ndarray:
    with np.load(folder / "labelled.npz") as file:
        got = run.run(None, {run.get_inputs()[0].name: file["x"]})[0]
        return np.asarray(got.argmax(axis=1) == file["labels"])


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1, 100])
def test_a_function_judges(folder: Path, tmp_path: Path, scale: int) -> None:
    """Shares may be given in per cent."""

    def evaluate(run: ModelRun) -> np.ndarray:
        return scale * right(folder, run).astype(float)

    result = compiled(folder, tmp_path, "budget { drop(accuracy) <= 6% }", evaluate=evaluate)
    assert result.passed and 0 < only(result).drop.judged <= 0.06


def test_one_number_is_told_to_have_no_confidence(folder: Path, tmp_path: Path) -> None:
    rest = "verify { drop(accuracy) <= 3% }"
    result = compiled(folder, tmp_path, rest, evaluate=lambda run: float(right(folder, run).mean()))
    assert result.passed and only(result).drop.upper is None
    assert "Q363" in {one.code for one in result.warnings}


def too_few(result: Any) -> list[str]:
    return [one.message for one in result.warnings if one.code == "Q362"]


def test_answers_too_few_to_show_a_bound_are_told(folder: Path, tmp_path: Path) -> None:
    rest = "verify { drop(accuracy) <= 0.1% }"
    result = compiled(folder, tmp_path, rest, evaluate=lambda run: right(folder, run).astype(float))
    assert not result.passed and not only(result).drop.by_margins
    assert too_few(result) == ["400 samples cannot show that `drop(accuracy) <= 0.1%` holds, whatever the model"]


@pytest.mark.slow
def test_margins_are_not_said_to_be_too_few_reject(folder: Path, tmp_path: Path) -> None:
    """They can show what no count of so few samples can; the report says what they are."""
    rest = "verify { drop(accuracy) <= 0.1% }"
    result = compiled(folder, tmp_path, rest, evaluate=folder / "labelled.npz")
    assert not result.passed and only(result).drop.by_margins
    assert too_few(result) == []
    assert "95% confidence asked for, approximated by margins" in score_text(only(result))


@pytest.mark.slow
def test_several_scores_are_given_by_name(folder: Path, tmp_path: Path) -> None:
    def evaluate(run: ModelRun) -> dict[str, object]:
        return {"accuracy": right(folder, run), "loss": 1 - right(folder, run).mean()}

    result = compiled(folder, tmp_path, "verify { drop(accuracy) <= 5%, drop(loss) <= 50% }", evaluate=evaluate)
    assert [one.bound.argument for one in result.verification.scores] == ["accuracy", "loss"]


SCRIPT = """
from pathlib import Path
import numpy as np

DATA = np.load(Path(__file__).with_name("labelled.npz"))

def evaluate(run):
    return run({"x": DATA["x"]})["y"].argmax(axis=1) == DATA["labels"]
"""


@pytest.mark.slow
def test_a_script_judges(folder: Path, tmp_path: Path) -> None:
    (folder / "good.py").write_text(SCRIPT)
    result = compiled(folder, tmp_path, "verify { drop(accuracy) <= 5% }", evaluate=folder / "good.py")
    assert result.passed and only(result).drop.samples == COUNT


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("1 +", "Q480", "SyntaxError.*line 1"),
        ("x = 1", "Q480", "has no function `evaluate`"),
        ("raise SystemExit(3)", "Q480", "it exits"),
        ("def evaluate(run):\n    return run({'z': 1})", "Q481", "ONNX Runtime failed.*line 2"),
        ("def evaluate(run):\n    return 1 / 0", "Q481", "ZeroDivisionError.*line 2"),
        ("def evaluate(run):\n    return 'good'", "Q482", "no number"),
        ("def evaluate(run):\n    return []", "Q482", "array of 0"),
        ("def evaluate(run):\n    return {'f1': 1}", "Q482", "no `accuracy`"),
        ("def evaluate(run):\n    return float('nan')", "Q483", "not a number"),
        ("n = 3\ndef evaluate(run):\n    global n\n    n += 1\n    return [1] * n", "Q482", "scores for the original"),
    ],
)
def test_a_script_reject(folder: Path, tmp_path: Path, text: str, code: str, message: str) -> None:
    script = tmp_path / "bad.py"
    script.write_text(text)
    with pytest.raises(qcc.QccError, match=message) as error:
        compiled(folder, tmp_path, "verify { drop(accuracy) <= 5% }", evaluate=script)
    assert error.value.diagnostics[0].code == code
    assert list(tmp_path.iterdir()) == [script]


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({}, "Q483"),
        ({"labels": np.zeros(COUNT - 1, int)}, "Q483"),
        ({"labels": np.array(["a"] * COUNT)}, "Q483"),
        ({"labels": np.zeros((COUNT, 2), int)}, "Q483"),
    ],
    ids=["none", "too few", "words", "two each"],
)
def test_labels_reject(folder: Path, tmp_path: Path, arrays: dict[str, Any], code: str) -> None:
    with np.load(folder / "bare.npz") as file:
        np.savez(tmp_path / "bad.npz", x=file["x"], **arrays)
    with pytest.raises(qcc.QccError) as error:
        compiled(folder, tmp_path, "verify { drop(accuracy) <= 5% }", evaluate=tmp_path / "bad.npz")
    assert error.value.diagnostics[0].code == code


@pytest.mark.parametrize("given", [{}, {"data": "bare.npz"}])
def test_nothing_to_measure_by_reject(folder: Path, tmp_path: Path, given: dict[str, str]) -> None:
    given = {name: str(folder / file) for name, file in given.items()}
    with pytest.raises(qcc.QccError, match="nothing tells what `accuracy` is") as error:
        compiled(folder, tmp_path, "verify { drop(accuracy) <= 5% }", **given)
    assert error.value.diagnostics[0].code == "Q360"


def test_a_score_that_labels_do_not_give_reject(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(qcc.QccError, match="`map` cannot be computed from labels"):
        compiled(folder, tmp_path, "verify { drop(map) <= 5% }", evaluate=folder / "labelled.npz")


@pytest.mark.slow
def test_an_evaluation_that_no_bound_asks_for_is_told(folder: Path, tmp_path: Path) -> None:
    result = compiled(folder, tmp_path, "", evaluate=folder / "labelled.npz")
    assert "Q364" in {one.code for one in result.warnings}


@pytest.mark.slow
def test_samples_that_calibrate_do_not_judge(folder: Path, tmp_path: Path) -> None:
    """Of a file of its own that repeats some of them, the others judge."""
    with np.load(folder / "bare.npz") as file:
        np.savez(tmp_path / "few.npz", x=file["x"][:100])
    rest = "verify { drop(accuracy) <= 9% }"
    result = compiled(folder, tmp_path, rest, data=tmp_path / "few.npz", evaluate=folder / "labelled.npz")
    assert only(result).drop.samples == COUNT - 100


@pytest.mark.slow
def test_the_report_and_the_json_tell_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "p.qpolicy"
    policy.write_text(RULE + "budget { drop(accuracy) <= 5% }\n")
    words = ["compile", str(folder / "m.onnx"), "-p", str(policy), "-o", str(tmp_path / "out.onnx")]
    assert main([*words, "--evaluate", str(folder / "labelled.npz")]) == 0
    text = capsys.readouterr().out
    assert "score     accuracy 0." in text and "with 95% confidence asked for, approximated by margins" in text
    assert "drop(accuracy) <= 5%: holds" in text
    (tmp_path / "out.onnx").unlink()
    assert main([*words, "--evaluate", str(folder / "labelled.npz"), "--emit", "plan"]) == 0
    assert "encode(" in capsys.readouterr().out and not (tmp_path / "out.onnx").exists()
