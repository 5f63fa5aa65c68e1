"""A model of each framework, opened, run, compressed and verified by the stages of the driver, which name none."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from qcc.compiler.allocate.settle import settle
from qcc.compiler.build.raise_graph import needed_opset, raise_graph
from qcc.compiler.build.run import Built, run_plan
from qcc.compiler.calibrate.chosen_data import chosen_data
from qcc.compiler.console.phases import Phases, silent
from qcc.compiler.files.open_model import OpenModel, cleaned_model, open_model
from qcc.compiler.first_phases import run_first_phases
from qcc.compiler.measure.evidence import Evidence
from qcc.compiler.plan.bind import bind
from qcc.compiler.plan.catalog import Export, schema
from qcc.compiler.plan.plan import Plan
from qcc.compiler.verify.outputs import Verification
from qcc.compiler.verify.verifier import Verifier
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.load import load_text
from qcc.ir.errors import ModelError
from qcc.ir.fx.model import FxModel
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.model.model import Written
from tests import models_torch as models
from tests.onnx_models import parse, random

POLICY = """qpolicy 1
calibrate generated { samples = 8 }
rule linear { weights = int{3,8} group 16; rounding = gptq }
rule conv { weights = int4 channel | int8 channel }
budget { bits <= 7.8 }
verify { cosine >= 0.9 }
"""


class Pairing(nn.Module):
    """Takes a tuple and a named argument, and gives a dictionary, one of whose values is a number."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, pair: tuple[Tensor, Tensor], scale: float = 1.0, *, shift: Tensor) -> dict[str, Tensor | int]:
        """A linear layer of what came first, and how many rows it has."""
        return {"sum": self.linear(pair[0]) * scale + pair[1] + shift, "rows": pair[0].shape[0]}


@dataclass(frozen=True)
class Outcome:
    """What the stages made of a model."""

    plan: Plan
    verification: Verification


@pytest.fixture(scope="module")
def opened() -> OpenModel:
    """A module as a program of torch.export."""
    torch.manual_seed(0)
    images = torch.zeros(2, 3, 16, 16)
    program = torch.export.export(models.SmallCnn().eval(), (images,), dynamic_shapes=({0: Dim("batch")},))
    return cleaned_model(FxModel(program), Path("cnn.pt2"))


@pytest.fixture
def file(tmp_path: Path) -> OpenModel:
    """A model in an ONNX file."""
    path = tmp_path / "model.onnx"
    weights = {"w": random(16, 32), "v": random(32, 8, seed=1)}
    onnx.save(
        parse("g (float[A,16] x) => (float[A,8] y) { h = MatMul(x, w) g = Relu(h) y = MatMul(g, v) }", weights), path
    )
    return open_model(path)


def _staged(opened: OpenModel, folder: Path) -> Outcome:
    """Calibrate, bind, measure, allocate, encode and verify; what can be written is run from its file."""
    policy, diagnostics, phases = load_text(POLICY, schema()), Diagnostics(), Phases(silent)
    model = opened.model
    data = chosen_data(policy, None, opened.graph, model.reference(), {})
    graph = run_first_phases(opened, policy, data, phases, diagnostics, True)[0].graph
    plan = bind(policy, graph, opened.size_bytes, diagnostics)
    verifier = Verifier(model.reference, data, policy.verify, diagnostics)
    evidence = Evidence.of(graph, plan, data, phases, lambda _: None)
    runners: list[Callable[[], Runner]] = []

    def write(decided: Plan) -> tuple[Built[Graph], Written]:
        raised = raise_graph(model, graph, needed_opset(graph, decided), data)
        built = run_plan(raised, decided, evidence.context(decided))
        written = model.write(built.graph, folder / f"made{opened.path.suffix}", Export().external_data)
        runners.append(partial(model.runner, written.path))
        return built, written

    settled = settle(plan, write, evidence.losses)
    diagnostics.raise_if_errors()
    encoded = [name for step in settled.plan.steps for name in step.weights]
    return Outcome(settled.plan, verifier.verify(runners[-1], None, graph, encoded))


def _whole(graph: Graph) -> Runner:
    return graph.runner([value.name for value in graph.inputs], [value.name for value in graph.outputs])


def _check(outcome: Outcome, weights: int) -> None:
    assert outcome.verification.passed
    assert sum(len(step.weights) for step in outcome.plan.steps) == weights and outcome.plan.decided
    assert all(5 < one.plain.sqnr < 60 for one in outcome.verification.outputs)  # dB: encoded, and still itself


@pytest.mark.slow
def test_a_module_goes_through_the_stages(opened: OpenModel, tmp_path: Path) -> None:
    _check(_staged(opened, tmp_path), len(opened.graph.weights()))


def test_a_file_goes_through_the_same_stages(file: OpenModel, tmp_path: Path) -> None:
    _check(_staged(file, tmp_path), 2)
    assert (tmp_path / "made.onnx").is_file()


@pytest.mark.slow
def test_models_tell_of_themselves(opened: OpenModel, file: OpenModel) -> None:
    tensors = sum(weight.size_bytes for weight in opened.graph.weights())
    assert tensors < opened.size_bytes < 1.2 * tensors  # biases, too
    assert opened.model.origin.format.startswith("torch.export")
    assert "opset" in file.model.origin.format and file.model.origin.versions["ir_version"] == 8
    assert file.size_bytes == file.path.stat().st_size


@pytest.mark.slow
def test_nothing_is_raised_where_ops_have_no_versions(opened: OpenModel, file: OpenModel) -> None:
    raised = opened.model.raised(opened.graph, 25)
    assert raised.graph is opened.graph and raised.changed == ()
    assert file.model.raised(file.graph, 25).graph is not file.graph


def test_the_reference_is_the_module(opened: OpenModel) -> None:
    """The program as it was exported, and the graph that was read of it, compute the same."""
    model = opened.model
    (name,) = (value.name for value in model.graph.inputs)
    feed = random(3, 3, 16, 16)
    wanted = _whole(model.graph)({name: feed})
    found = model.reference()({name: feed})
    assert found.keys() == wanted.keys()
    for output, array in wanted.items():
        np.testing.assert_allclose(found[output], array, atol=1e-5)  # the same ops in the same order
    with pytest.raises(ModelError, match="is not fed"):
        model.reference()({})


@pytest.mark.slow
def test_a_reference_is_fed_as_the_module_is_called() -> None:
    module = Pairing()
    arguments = ((torch.ones(2, 4), torch.zeros(2, 3)), 2.0)
    program = torch.export.export(module, arguments, {"shift": torch.zeros(3)})
    model = FxModel(program)
    feeds = {"pair_0": random(2, 4), "pair_1": random(2, 3), "shift": random(3)}
    found = model.reference()(feeds)
    first, second, shift = map(torch.from_numpy, feeds.values())
    with torch.no_grad():
        wanted = module((first, second), 2.0, shift=shift)["sum"]
    np.testing.assert_allclose(found[model.graph.outputs[0].name], np.asarray(wanted), atol=1e-6)


def test_a_program_in_no_file_is_not_copied(opened: OpenModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        opened.model.copy(tmp_path / "x.pt2")
    assert caught.value.code == "Q640" and "torch.export.save" in (caught.value.help or "")
    assert list(tmp_path.iterdir()) == []


def test_each_writes_files_of_its_own_kind(opened: OpenModel, file: OpenModel) -> None:
    opened.model.check_place(Path("x.pt2"))
    file.model.check_place(Path("x.onnx"))
    for model, path in ((opened.model, "x.onnx"), (file.model, "x.pt2")):
        with pytest.raises(ModelError) as caught:
            model.check_place(Path(path))
        assert caught.value.code == "Q640"
