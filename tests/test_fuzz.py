"""The fuzz command runs, finds nothing on a few cases, and would see a fault."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest

from benchmarks.fuzz import run as fuzz
from benchmarks.fuzz.compare import compared
from benchmarks.fuzz.graphs import drawn
from benchmarks.fuzz.models import MUTATIONS, mutated, seeds
from qcc.ir.axes.axes import Action, Axes
from qcc.ir.onnx.adapter import OnnxGraph

ROOT = Path(__file__).parent.parent


def test_every_case_follows_from_its_seed() -> None:
    models = list(seeds().values())
    for case in range(20):
        assert mutated(models, random.Random(case)) == mutated(models, random.Random(case))
        assert drawn(random.Random(case)) == drawn(random.Random(case))


@pytest.mark.slow
def test_every_mutation_changes_a_model() -> None:
    for mutation in MUTATIONS:
        changed = 0
        for case in range(20):
            rng, model = random.Random(case), seeds()["conv"]
            before = model.SerializeToString(deterministic=True)
            try:
                mutation(model, rng)
            except (IndexError, ValueError, TypeError):
                continue
            changed += model.SerializeToString(deterministic=True) != before
        assert changed, mutation.__name__


@pytest.mark.slow
def test_drawn_graphs_run_and_are_tame() -> None:
    for case in range(30):
        model = drawn(random.Random(case))
        onnx.checker.check_model(model, full_check=True)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        shape = [2 if isinstance(dim, str) else dim for dim in session.get_inputs()[0].shape]
        (found,) = session.run(None, {"x": np.random.default_rng(case).standard_normal(shape).astype(np.float32)})
        assert np.isfinite(found).all() and np.abs(found).max() < 1e4


@pytest.mark.slow
def test_groups_of_drawn_graphs_read_something() -> None:
    """Halves beside each other are no contexts of each other: case 9 has a norm's gain over two that changed places."""
    for case in range(12):
        graph = OnnxGraph(ir.serde.deserialize_model(drawn(random.Random(f"graphs 7 {case}"))), Path())
        graph.simplify()
        axes = Axes.of(graph)
        for action in Action:
            groups = axes.groups(action)
            assert all(axes.read(member, group).size for group in groups for member in group.constants), case


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own: what forks the cases must not have run a model."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_few_cases_of_each_kind_end_well(tmp_path: Path) -> None:
    done = run("--scale", "0.0007", "--out", str(tmp_path / "c.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "c.json").read_text())["kinds"]
    assert {name: one["cases"] for name, one in found.items()} == {
        name: max(1, round(0.0007 * kind.count)) for name, kind in fuzz.KINDS.items()
    }


def test_a_fault_is_seen(tmp_path: Path) -> None:
    model = seeds()["mlp"]
    onnx.save(model, tmp_path / "m.onnx")
    array = onnx.numpy_helper.to_array(model.graph.initializer[0]) * 1.01
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(array, model.graph.initializer[0].name))
    onnx.save(model, tmp_path / "out.onnx")
    said = compared(tmp_path / "m.onnx", tmp_path / "out.onnx", "lossless", 0)
    assert said.startswith("off by")
    assert not compared(tmp_path / "m.onnx", tmp_path / "m.onnx", "lossless", 0)
    assert not compared(tmp_path / "m.onnx", tmp_path / "out.onnx", "balanced", 0)


@pytest.mark.parametrize(
    ("body", "said"),
    [("a = Mul(x, hundred)  b = Mul(a, hundred)", ""), ("b = Mul(x, more)", "off by")],
    ids=["rounds otherwise", "is another"],
)
def test_what_the_last_bits_of_the_data_do_to_the_original_is_no_fault(tmp_path: Path, body: str, said: str) -> None:
    """The sine of ten thousand times a number moves by about 1e-3 with its last bit, ten times what is allowed."""
    numbers = "float hundred = {100}, float much = {10000}, float more = {10100}"
    for name, lines in (("m", "b = Mul(x, much)"), ("out", body)):
        graph = f"g (float[4,64] x) => (float[4,64] y) <{numbers}> {{ {lines}  y = Sin(b) }}"
        onnx.save(
            onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>{graph}'), tmp_path / f"{name}.onnx"
        )
    assert compared(tmp_path / "m.onnx", tmp_path / "out.onnx", "lossless", 0)[:6] == said


@pytest.mark.slow
def test_one_case_shows_what_it_printed() -> None:
    done = run("--only", "policies", "--case", "0")
    assert done.returncode == 0 and "qcc check p.qpolicy" in done.stdout


@pytest.mark.slow
def test_counts_are_written_and_parts_add_up(tmp_path: Path) -> None:
    counted = []
    for part in ("1/2", "2/2"):
        words = ["--only", "policies", "--scale", "0.001", "--part", part, "--out", str(tmp_path / "c.json")]
        done = run(*words)
        assert done.returncode == 0, done.stderr
        counted.append(json.loads((tmp_path / "c.json").read_text())["kinds"]["policies"])
    assert [one["cases"] for one in counted] == [3, 2]
    assert all(sum(one["outcomes"].values()) == one["cases"] and not one["faults"] for one in counted)


@pytest.mark.slow
def test_a_run_that_is_stopped_tells_what_it_counted(tmp_path: Path) -> None:
    words = ["--only", "policies", "locks", "--seconds", "0", "--out", str(tmp_path / "c.md")]
    done = run(*words)
    assert "stopped before its end: policies" in done.stderr and "| policies | 0 | 0 |" in done.stdout
    assert (tmp_path / "c.md").read_text().splitlines()[-1].startswith("| policies | 0 |")
