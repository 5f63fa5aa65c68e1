"""Loops that a model is run in: what solvers solve, what a table says, and what a compilation makes of one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import qcc
from qcc.compiler.compile import compile
from qcc.compiler.report.lock import read_plan
from qcc.compiler.sampler.drive import whole_driver
from qcc.compiler.sampler.loop import read_loop
from qcc.compiler.sampler.noise import NAMED, from_table
from qcc.compiler.sampler.solvers import SOLVERS, rows
from qcc.compiler.sampler.table import beside, from_text
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.graph.ops import Feeds, Value
from tests.diffusion_models import LOOP, denoiser, saved

MEAN, SPREAD = (
    0.7,
    0.3,
)  # of the data in the laws of solvers: what is best to predict is known, and so is where loops end
POLICY = 'sampler "loop.toml"\nrule linear { weights = int8 channel }\nverify { cosine >= 0.9 }\n'


SCRIPT = """
import numpy as np
SEEDS = 2
def sample(run, seed):
    x = np.random.default_rng(seed).standard_normal((1, 1, 8, 4), np.float32)
    for t in (1.0, 0.5):
        x = x - 0.5 * run({"latent": x, "time": np.array([t], np.float32), "label": np.array([0])})["v"]
    return x[0]
"""


def _predicted(kind: str, latent: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
    """What the best model of data that is spread so predicts."""
    variance = alpha**2 * SPREAD**2 + sigma**2
    clean = MEAN + alpha * SPREAD**2 / variance * (latent - alpha * MEAN)
    noise = (latent - alpha * clean) / sigma
    return {"sample": clean, "epsilon": noise, "v": alpha * noise - sigma * clean, "flow": noise - clean}[kind]


def _end(kind: str, solver: str, schedule: str, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a loop ends, and where it should."""
    noise = NAMED[schedule]()
    latent = np.linspace(-2, 2, 9) * noise.at(steps[0])[1]
    first = (latent - noise.at(steps[0])[0] * MEAN) / np.hypot(noise.at(steps[0])[0] * SPREAD, noise.at(steps[0])[1])
    known: list[np.ndarray] = []
    for row in rows(noise, kind, solver, list(steps)):
        alpha, sigma = noise.at(row.step)
        known.insert(0, row.clean[0] * latent + row.clean[1] * _predicted(kind, latent, alpha, sigma))
        latent = row.keep * latent + sum(w * c for w, c in zip(row.weights, known, strict=False))
    alpha, sigma = noise.at(steps[-1])
    return latent, alpha * MEAN + np.hypot(alpha * SPREAD, sigma) * first


@pytest.mark.parametrize("kind", ["v", "epsilon", "sample", "flow"])
@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpmpp_2m", 2), ("multistep_2", 2), ("multistep_3", 3)])
@pytest.mark.parametrize(("schedule", "begin", "end"), [("cosine", 0.9, 0.1), ("linear", 0.9, 0.1), ("sigma", 4, 0.1)])
def test_error_falls_as_the_order_says(
    kind: str, solver: str, order: int, schedule: str, begin: float, end: float
) -> None:
    errors = []
    for count in (128, 256):
        made, wanted = _end(kind, solver, schedule, np.geomspace(begin, end, count + 1))
        errors.append(np.abs(made - wanted).max())
    # the first step is of first order, so that no order is above two; where errors cross zero, they tell nothing
    assert np.log2(errors[0] / errors[1]) > min(order, 2) - 0.25 or errors[1] < 1e-6


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_loop_from_noise_alone_to_no_noise_at_all(solver: str) -> None:
    made, wanted = _end("v", solver, "cosine", np.linspace(1, 0, 401))
    assert np.abs(made - wanted).max() < 0.01  # of a spread of 0.3: the last step is of first order


def test_noise_alone_cannot_be_told_from_a_prediction_of_noise() -> None:
    with pytest.raises(ValueError, match="begin later"):
        rows(NAMED["cosine"](), "epsilon", "ddim", [1.0, 0.5, 0.0])


def test_a_schedule_by_a_table_is_the_same() -> None:
    at = np.linspace(0, 1, 2001)
    one, other = NAMED["cosine"](), from_table(at, np.cos(at * np.pi / 2), np.sin(at * np.pi / 2))
    assert (other.begin, other.end) == (1.0, 0.0)
    assert np.allclose(one.at(0.321), other.at(0.321), atol=1e-6)  # lines between two thousand entries


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("latent = 3", "no loop: `latent` is the name"),
        ('output = "v"', "no loop: `latent` is the name"),
        ('solver = "dimm"', "`solver` is one of"),
        ("evaluations = 0", "whole number of 1 or more"),
        ("judged = [0]", "not judged by them"),
        ("nonsense = 1", "unknown key `nonsense`"),
        ("[grid]\nsteps = [1.0]", "two or more numbers"),
        ("[schedule]\nstep = [0, 1]\nalpha = [1, 1]\nsigma = [1, 1]", "rises or falls"),
        ("[schedule]\nalpha = [1, 0]", "has no `step`"),
        ("[inputs]\nlabel = []", "`inputs.label`"),
        ("= 3", "no TOML"),
    ],
)
def test_a_loop_that_is_none_is_refused(tmp_path: Path, wrong: str, told: str) -> None:
    name = wrong.partition(" ")[0].strip("[]\n").partition("\n")[0].partition("]")[0]
    kept = [line for line in LOOP.strip().split("\n\n")[0].split("\n") if not line.startswith(name)]
    model = saved(tmp_path, "\n".join([*kept[: -1 if name == "output" else None], wrong]))
    if name == "output":
        (tmp_path / "loop.toml").write_text(wrong, encoding="utf-8")
    (tmp_path / "p.qpolicy").write_text(POLICY, encoding="utf-8")
    with pytest.raises(QccError) as error:
        compile(model, tmp_path / "p.qpolicy")
    assert error.value.diagnostics[0].code == "Q570" and told in error.value.diagnostics[0].message
    assert not list(tmp_path.glob("*.qcc*"))


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('"latent"', '"latents"', "no input `latents`"),
        ('"v"\nprediction', '"velocity"\nprediction', "no output `velocity`"),
        ("label = [0, 1, 2]", "", "what the input `label` is fed"),
        ('"latent"\nstep = "time"', '"time"\nstep = "label"', "what the input `latent` is fed"),
    ],
)
def test_a_loop_of_another_model_is_refused(tmp_path: Path, before: str, after: str, told: str) -> None:
    model = saved(tmp_path, LOOP.replace(before, after))
    (tmp_path / "p.qpolicy").write_text(POLICY, encoding="utf-8")
    with pytest.raises(QccError) as error:
        compile(model, tmp_path / "p.qpolicy")
    assert error.value.diagnostics[0].code == "Q571" and told in error.value.diagnostics[0].message


def test_a_compilation_takes_data_of_the_loop_and_compares_its_samples(tmp_path: Path) -> None:
    model = saved(tmp_path)
    (tmp_path / "p.qpolicy").write_text(POLICY, encoding="utf-8")
    result = compile(model, tmp_path / "p.qpolicy")
    assert result.passed and result.loop is not None
    assert [one.output for one in result.verification.outputs] == ["v", "samples"]
    assert not result.verification.generated and result.verification.origin == "loop.toml"
    lock = json.loads(result.lock.read_text(encoding="utf-8"))
    assert lock["loop"]["seeds"] == [0, 1, 2, 3, 4, 5] and lock["loop"]["judged"] == [6, 7, 8, 9, 10, 11]
    again = compile(model, plan=read_plan(result.lock), output=tmp_path / "again.qcc.onnx")
    assert again.output.read_bytes() == result.output.read_bytes()


def test_a_session_samples_as_plain_onnxruntime_does(tmp_path: Path) -> None:
    model = saved(tmp_path)
    (tmp_path / "p.qpolicy").write_text(POLICY, encoding="utf-8")
    result = compile(model, tmp_path / "p.qpolicy")
    made = qcc.Session(result.output).sample([3, 7])
    alone = qcc.Session(result.output).sample([7])
    assert np.allclose(made[1:], alone, atol=1e-5)  # a batch of two, and one alone
    told = qcc.Session(result.output).sample([3, 7], {"label": [1, 1]})
    assert np.allclose(told[1], made[1], atol=1e-5) and not np.allclose(told[0], made[0], atol=1e-3)
    table = json.loads(beside(result.output).read_text(encoding="utf-8"))
    latent = np.stack([np.random.default_rng(seed).standard_normal((1, 8, 4), np.float32) for seed in (3, 7)])
    assert np.allclose(_plain(tmp_path, table, latent, {"label": np.array([0, 1])}), made, atol=1e-4)


def _plain(folder: Path, loop: dict[str, list[dict[str, object]]], latent: np.ndarray, others: Feeds) -> np.ndarray:
    """The loop as docs/sampling.md has it."""
    text = (Path(__file__).parents[1] / "docs" / "sampling.md").read_text(encoding="utf-8")
    code = next(one for one in text.split("```python\n") if "InferenceSession" in one).partition("```")[0]
    assert len(code.strip().split("\n")) <= 15
    scope = {"folder": folder, "loop": loop, "latent": latent, "others": others, "np": np, "onnxruntime": onnxruntime}
    exec(code, scope)
    found = scope["latent"]
    assert isinstance(found, np.ndarray)
    return found


def test_a_bound_holds_for_final_samples(tmp_path: Path) -> None:
    model = saved(tmp_path)
    policy = 'sampler "loop.toml"\nrule linear { weights = int2 channel }\nverify { relative_error <= 1e-3 }\n'
    (tmp_path / "p.qpolicy").write_text(policy, encoding="utf-8")
    result = compile(model, tmp_path / "p.qpolicy")
    assert not result.passed and not list(tmp_path.glob("*.json"))


def test_a_script_is_the_way_out(tmp_path: Path) -> None:
    model = saved(tmp_path)
    (tmp_path / "loop.py").write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "p.qpolicy").write_text(POLICY.replace("toml", "py"), encoding="utf-8")
    result = compile(model, tmp_path / "p.qpolicy")
    assert result.passed and result.verification.samples == 4  # two seeds, two evaluations each
    scope: dict[str, Any] = {}
    exec(SCRIPT, scope)
    made = qcc.Session(result.output).sample([5], loop=scope["sample"])
    assert made.shape == (1, 1, 8, 4)


@pytest.mark.parametrize(
    ("script", "code"),
    [("sample = 3", "Q570"), ("1 / 0", "Q570"), ("def sample(run, seed):\n    return run({})", "Q572")],
)
def test_a_script_that_fails_is_told(tmp_path: Path, script: str, code: str) -> None:
    model = saved(tmp_path)
    (tmp_path / "loop.py").write_text(script, encoding="utf-8")
    (tmp_path / "p.qpolicy").write_text(POLICY.replace("toml", "py"), encoding="utf-8")
    with pytest.raises(QccError) as error:
        compile(model, tmp_path / "p.qpolicy")
    assert error.value.diagnostics[0].code == code


def test_a_session_without_a_table_is_refused(tmp_path: Path) -> None:
    model = saved(tmp_path)
    with pytest.raises(QccError) as error:
        qcc.Session(model).sample()
    assert error.value.diagnostics[0].code == "Q577"
    beside(model).write_text("{}", encoding="utf-8")
    with pytest.raises(QccError) as error:
        qcc.Session(model).sample()
    assert error.value.diagnostics[0].code == "Q577"


def test_a_table_reads_as_it_was_written(tmp_path: Path) -> None:
    saved(tmp_path)
    table = read_loop(tmp_path / "loop.toml").table()
    assert from_text(table.text) == table


def test_a_model_of_a_fixed_batch_takes_seeds_in_groups(tmp_path: Path) -> None:
    model = denoiser()
    runs: list[int] = []
    saved(tmp_path)
    table = read_loop(tmp_path / "loop.toml").table(3)

    def run(feeds: Feeds) -> dict[str, np.ndarray]:
        runs.append(len(feeds["latent"]))
        return {"v": feeds["latent"] * np.float32(0.1)}

    inputs = [
        Value("latent", (2, 1, 8, 4), "float32"),
        Value("time", (2,), "float32"),
        Value("label", (2,), "int64"),
    ]
    made = whole_driver(table, inputs, run).samples([0, 1, 2])
    assert made.shape == (3, 1, 8, 4) and set(runs) == {2} and len(model.graph.node) > 0
