"""`weights = bf16` and `fp16` through the whole compiler: plan, lock, allocation, report, refusals."""

import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

FACE = runpy.run_path(str(Path(__file__).with_name("test_cli.py")))
folder, run = FACE["folder"], FACE["run"]
Run = Callable[..., tuple[int, str, str]]
KINDS = {"bf16": onnx.TensorProto.BFLOAT16, "fp16": onnx.TensorProto.FLOAT16}
every = pytest.mark.parametrize("form", KINDS)


def policy(folder: Path, text: str) -> None:
    (folder / "f.qpolicy").write_text(f"qpolicy 1\n{text}\n", encoding="utf-8")


def compiled(run: Run, model: str, *words: str) -> tuple[dict[str, str], str]:
    """The format of each layer, and what was said."""
    status, out, err = run("compile", model, "-p", "f.qpolicy", "-o", "f.onnx", "--format", "json", *words)
    assert status == 0, err
    return {row["name"]: row["format"] for row in json.loads(out)["layers"]}, out


def rewritten(folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """The model with its weight `up` changed."""
    model = onnx.load(folder / "mlp.onnx")
    (at,) = (one for one in model.graph.initializer if one.name == "up")
    at.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(at).copy()), "up"))
    onnx.save(model, folder / name)


@pytest.mark.slow
@every
def test_every_layer_takes_it_and_the_lock_gives_the_same_bytes(folder: Path, run: Run, form: str) -> None:
    policy(folder, f"rule linear {{ weights = {form} }}")
    formats, _ = compiled(run, "mlp.onnx")
    assert formats == {"up": form, "down": form}
    first = (folder / "f.onnx").read_bytes()
    (folder / "f.lock").rename(folder / "kept.lock")  # a lock is an input, which no output may take the place of
    compiled(run, "mlp.onnx", "--plan", "kept.lock")
    assert (folder / "f.onnx").read_bytes() == first
    stored = {tensor.name: tensor.data_type for tensor in onnx.load(folder / "f.onnx").graph.initializer}
    assert [stored[f"{name}.{form}"] for name in formats] == [KINDS[form]] * 2
    assert not onnx.load(folder / "f.onnx").functions


@pytest.mark.slow
def test_the_allocator_chooses_among_kinds_of_formats(folder: Path, run: Run) -> None:
    text = "rule linear {{ weights = int4 group 32 | int8 channel | bf16 | float }}\nbudget {{ bits <= {} }}"
    chosen = set()
    for bits in (5, 9, 17, 32):
        policy(folder, text.format(bits))
        formats, out = compiled(run, "mlp.onnx")
        assert json.loads(out)["passed"]
        chosen |= set(formats.values())
    assert chosen == {"int4 group 32 sym scale fp16", "int8 channel sym scale fp16", "bf16", "float32"}


@pytest.mark.slow
@every
def test_gptq_rounds_to_it(folder: Path, run: Run, form: str) -> None:
    policy(folder, f"rule linear {{ weights = {form}; rounding = gptq }}")
    assert compiled(run, "mlp.onnx")[0] == {"up": form, "down": form}


@pytest.mark.slow
def test_what_fp16_cannot_hold_stays_float(folder: Path, run: Run) -> None:
    rewritten(folder, "large.onnx", lambda array: array * np.float32(1e6))
    policy(folder, "rule linear { weights = fp16 }")
    formats, out = compiled(run, "large.onnx")
    assert formats == {"up": "float32", "down": "fp16"}
    (warning,) = json.loads(out)["diagnostics"]
    assert warning["code"] == "Q411"
    assert re.search(r"`up` stays as it is: a weight of \S+ does not fit fp16, which ends at 65504", warning["message"])
    policy(folder, "rule linear { weights = fp16 | bf16 }")
    assert compiled(run, "large.onnx")[0]["up"] == "bf16"


@every
def test_nan_is_an_error(folder: Path, run: Run, form: str) -> None:
    rewritten(
        folder, "nan.onnx", lambda array: np.where(np.arange(array.size).reshape(array.shape) == 5, np.nan, array)
    )
    policy(folder, f"rule linear {{ weights = {form} }}")
    status, _, err = run("compile", "nan.onnx", "-p", "f.qpolicy", "-o", "f.onnx")
    assert status == 1
    assert "Q410" in err


@pytest.mark.slow
@every
def test_what_is_stored_in_16_bits_is_kept(folder: Path, run: Run, form: str) -> None:
    policy(folder, f"rule linear {{ weights = {form} }}")
    compiled(run, "mlp.onnx")
    (folder / "f.onnx").rename(folder / "narrow.onnx")
    status, out, _ = run("explain", "narrow.onnx", "-p", "f.qpolicy")
    assert (status, out.count("kept: encoded it would not be smaller")) == (0, 2)
    policy(folder, "rule linear { weights = int8 channel }")
    assert set(compiled(run, "narrow.onnx")[0].values()) == {"int8 channel sym scale fp16"}
