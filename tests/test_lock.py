"""Locks: read by type, checked by hash, and told apart from what there is now."""

import json
import random
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import qcc
from qcc.compiler.plan.text import to_text
from qcc.compiler.report import lock
from qcc.compiler.report.lock import plan_of, read_lock, text_sha256

run = runpy.run_path(str(Path(__file__).with_name("test_cli.py")))["run"]
Run = Callable[..., tuple[int, str, str]]
POLICY = """qpolicy 1
rule any { weights = int{3,4,8} channel | int4 group 32 }
budget { size <= 60% }
"""
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1 << 70, 0.5, 1e308, "", "x", "\ud800", [], {}, [[]], {"is": "Plan"}, {"is": 1}, [None],
)  # fmt: skip
MUTANTS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lock")
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n, 64] x) => (float[n, 64] y) '
        "{ h = MatMul (x, up) r = Relu (h) y = MatMul (r, down) }"
    )
    draw = np.random.default_rng(0)
    for name in ("up", "down"):
        weight = draw.standard_normal((64, 64)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    onnx.save(model, folder / "net.onnx")
    (folder / "p.qpolicy").write_text(POLICY, encoding="utf-8")
    qcc.compile(folder / "net.onnx", folder / "p.qpolicy")
    return folder


def content(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "net.qcc.lock").read_text(encoding="utf-8")))


@pytest.mark.slow
def test_the_verification_is_in_it(folder: Path) -> None:
    bounded = POLICY + "verify { cosine >= 0.9 }\n"
    (folder / "v.qpolicy").write_text(bounded, encoding="utf-8")
    result = qcc.compile(folder / "net.onnx", folder / "v.qpolicy", output=folder / "v.onnx")
    told = json.loads((folder / "v.lock").read_text(encoding="utf-8"))["verification"]
    found = result.verification
    assert [(one["output"], one["cosine"]) for one in told["outputs"]] == [("y", found.outputs[0].cosine)]
    value = found.bounds[0].value
    assert told["bounds"] == [{"bound": "cosine >= 0.9", "value": value, "passed": True, "excuse": ""}]
    assert (told["samples"], told["origin"]) == (found.samples, "generated")


def written(folder: Path, data: object, rehash: bool = False) -> Path:
    if rehash and isinstance(data, dict):
        lines = data["plan"] if isinstance(data["plan"], list) else [data["plan"]]
        text = "\n".join(map(str, lines)).encode(errors="replace").decode()
        data["plan_sha256"] = text_sha256(text)
    path = folder / "mutant.lock"
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")
    return path


def test_what_was_written_is_read(folder: Path) -> None:
    found = read_lock(folder / "net.qcc.lock")
    assert to_text(found.plan).split("\n") == content(folder)["plan"]
    assert found.versions == lock.versions(found.plan)


def places(value: object, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [place for key, part in entries for place in places(part, (*at, key))]


def mutate(data: Any, draw: random.Random) -> None:
    place = draw.choice(places(data))
    for key in place[:-1]:
        data = data[key]
    kind = draw.random()
    if kind < 0.2:
        del data[place[-1]]
    elif kind < 0.3 and isinstance(data, dict):
        data[draw.choice(["x", "is", ""])] = draw.choice(VALUES)
    else:
        data[place[-1]] = draw.choice(VALUES)


@pytest.mark.slow
@pytest.mark.parametrize("rehash", [False, True])
def test_mutants_are_refused_or_mean_the_same(folder: Path, rehash: bool) -> None:
    """With the plan's hash made right, too, so that types alone must tell."""
    draw, plan = random.Random(0), plan_of(folder / "net.qcc.lock")
    refused = 0
    for _ in range(MUTANTS):
        data = content(folder)
        mutate(data, draw)
        if rehash and "plan" not in data:
            continue
        try:
            found = plan_of(written(folder, data, rehash))
        except qcc.QccError as error:
            assert [one.code for one in error.diagnostics] == ["Q431"]
            refused += 1
        else:
            assert rehash or found == plan
    assert refused > MUTANTS / 3  # the others change what is only told: paths, digests, figures


@pytest.mark.slow
def test_mutants_on_the_command_line(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    draw = random.Random(1)
    for _ in range(12):
        data = content(folder)
        mutate(data["plan"], draw)
        written(folder, data, rehash=True)
        status, _, err = run("compile", "net.onnx", "--plan", "mutant.lock", "-q", "-o", "out.onnx", "-p", "p.qpolicy")
        assert status in (0, 1, 3), err
        assert status == 0 or err.count("error[") >= 1
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "null", "[" * 100_000, '{"format": 1}', '{"format": 2}', "\x00", '{"format": 1e400}', "9" * 9999],
)
def test_what_is_no_lock_is_refused(folder: Path, text: str) -> None:
    path = folder / "no.lock"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(qcc.QccError, match=r"Q431.*is not a lock file of this qcc"):
        plan_of(path)


def test_a_lock_of_another_version_is_to_be_made_anew(folder: Path) -> None:
    with pytest.raises(qcc.QccError, match="its format is 2, and not 3: compile the model anew"):
        plan_of(written(folder, content(folder) | {"format": 2, "plan": {"version": 1}}))


def test_what_is_wrong_in_the_plan_is_told_with_its_line(folder: Path) -> None:
    data = content(folder)
    at = next(at for at, line in enumerate(data["plan"]) if line.startswith("clean"))
    data["plan"][at] = "cleen"
    with pytest.raises(qcc.QccError, match=rf"Q431.*line {at + 1}:1 of its plan: unknown method of `plan`: `cleen`"):
        plan_of(written(folder, data, rehash=True))


def test_the_hash_is_of_the_plan_as_it_is_printed(folder: Path) -> None:
    data = content(folder)
    assert data["plan_sha256"] == text_sha256(to_text(plan_of(folder / "net.qcc.lock")))


def test_a_plan_that_was_edited_is_refused(folder: Path) -> None:
    data = content(folder)
    data["plan"] += ["keep", "    other  none"]
    with pytest.raises(qcc.QccError, match="its plan was changed"):
        plan_of(written(folder, data))


def test_an_emptied_plan_is_refused(folder: Path) -> None:
    data = content(folder)
    data["plan"] = ["plan 1", ""]
    given = read_lock(written(folder, data, rehash=True))
    with pytest.raises(qcc.QccError, match="it says nothing of `down`"):
        qcc.compile(folder / "net.onnx", folder / "p.qpolicy", plan=given.plan, output=folder / "out.onnx")


def warnings(folder: Path, data: dict[str, Any], **given: Any) -> str:
    found = read_lock(written(folder, data))
    result = qcc.compile(folder / "net.onnx", folder / "p.qpolicy", plan=found, output=folder / "out.onnx", **given)
    return "\n".join(one.message for one in result.warnings if one.code == "Q452")


def test_a_repetition_warns_of_nothing(folder: Path) -> None:
    assert warnings(folder, content(folder)) == ""
    assert (folder / "out.onnx").read_bytes() == (folder / "net.qcc.onnx").read_bytes()


def test_what_differs_is_told(folder: Path) -> None:
    data = content(folder)
    data["model"]["sha256"] = "0"
    data["versions"]["numpy"] = "1.0"
    data["processor"] = "Z80"
    data["calibration"]["sha256"] = "0"
    said = warnings(folder, data)
    assert all(word in said for word in ("the model,", "the calibration data", "(was 1.0)", "(was Z80)"))


def test_a_lock_is_repeated_over_its_own_outputs(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = [(folder / name).read_bytes() for name in ("net.qcc.onnx", "net.qcc.lock")]
    assert run("compile", "net.onnx", "-q", "-p", "p.qpolicy", "--plan", "net.qcc.lock") == (0, "", "")
    assert [(folder / name).read_bytes() for name in ("net.qcc.onnx", "net.qcc.lock")] == before


def test_a_lock_stays_where_its_own_output_fails(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "v.qpolicy").write_text(POLICY + "verify { cosine >= 1.0 }\n", encoding="utf-8")
    before = (folder / "net.qcc.lock").read_bytes()
    assert run("compile", "net.onnx", "-q", "-p", "v.qpolicy", "--plan", "net.qcc.lock")[0] == 3
    assert (folder / "net.qcc.lock").read_bytes() == before


@pytest.mark.parametrize("name", ["out.onnx", "out.html", "out.kernels.so"])
def test_a_lock_that_is_read_is_overwritten_by_nothing_else(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(folder)
    before = (folder / "net.qcc.lock").read_bytes()
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(before)
    status, _, err = run("compile", "net.onnx", "-p", "p.qpolicy", "--plan", name, "-o", "out.onnx")
    (folder / name).unlink()
    assert status == 1 and f"error[Q450]: the output `{name}` would overwrite the input" in err
