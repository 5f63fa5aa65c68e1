"""The same policy on a module and on its ONNX export: the same plan, the same decisions, the same codes."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.export import Dim

from qcc.compiler.allocate.decide import decide
from qcc.compiler.build.run import run_plan
from qcc.compiler.calibrate.samples import Samples, generate
from qcc.compiler.measure.sensitivity import measure
from qcc.compiler.observe.statistics import layer_statistics
from qcc.compiler.plan.bind import bind
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.plan import Plan
from qcc.compiler.plan.text import to_text
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.load import load_text
from qcc.ir.fx.graph import FxGraph
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.clean import Clean
from qcc.passes.contract.contract import Context
from qcc.passes.contract.moments import grams_of
from qcc.passes.encode import Encode
from tests import models_torch as models
from tests.torch_export import to_onnx

COMMON = """qpolicy 1
rule linear { weights = int{2,3,4} group {16,32} }
rule linear[name ~ "*head*"], embedding { weights = int8 channel }
budget { bits <= 7.8 }
"""
TIES = 0.05  # moments summed in another order can tip a code, or the choice of a row's scale, that lies on the fence
ALIKE = 0.01  # of what is lost: either choice is as good
BATCH = Dim("batch")
MODULES = {
    "cnn": (
        models.SmallCnn,
        torch.zeros(2, 3, 16, 16),
        "rule conv { weights = int4 channel | int8 channel }\nrule conv[in == 3] { keep }",
    ),
    "transformer": (
        models.SmallTransformer,
        torch.zeros(2, 8, dtype=torch.int64),
        'rule linear[name ~ "*out*"] { weights = int4 group 32 asym; rounding = gptq }',
    ),
}


@dataclass(frozen=True)
class Pair:
    """One module as both adapters see it, and a policy for it."""

    graphs: tuple[FxGraph, OnnxGraph]
    policy: str


@pytest.fixture(scope="module", params=MODULES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    make, example, rules = MODULES[request.param]
    torch.manual_seed(0)
    module = make().eval()
    fx = FxGraph.export(module, (example,), dynamic_shapes=({0: BATCH},))
    path = tmp_path_factory.mktemp("parity") / "model.onnx"
    to_onnx(module, (example,), path, dynamic_shapes=({0: BATCH},))
    onnx = OnnxGraph.load(path)
    return Pair((Clean().apply(fx, (), Context())[0], Clean().apply(onnx, (), Context())[0]), COMMON + rules)


def _quiet(done: int, total: int, what: str) -> None:
    del done, total, what


def _bound(graph: Graph, policy: str) -> Plan:
    diagnostics = Diagnostics()
    plan = bind(load_text(policy, schema()), graph, 1 << 20, diagnostics)
    diagnostics.raise_if_errors()
    return plan


def _feeds(graph: Graph, like: Samples) -> Samples:
    """The same arrays under the names of this graph's inputs."""
    names = [value.name for value in graph.inputs]
    return Samples(
        tuple(dict(zip(names, batch.values(), strict=True)) for batch in like.batches), like.origin, like.divisible
    )


@pytest.mark.slow
def test_the_bound_plans_read_the_same(pair: Pair) -> None:
    fx, onnx = (to_text(_bound(graph, pair.policy)) for graph in pair.graphs)
    assert fx == onnx


@pytest.mark.slow
def test_the_allocator_decides_the_same_and_the_codes_are_alike(pair: Pair) -> None:
    samples = generate(pair.graphs[1], 8, 0)
    decided, codes = [], []
    for graph in pair.graphs:
        plan, feeds = _bound(graph, pair.policy), _feeds(graph, samples)
        assert plan.allocate is not None
        wanted = [name for step in plan.steps for name in step.weights]
        context = Context(grams=grams_of(layer_statistics(graph, feeds, _quiet, moments=wanted).moments))
        losses = measure(graph, plan.allocate.options, feeds, context)
        decision = decide(plan, losses, 0.0)
        decided.append(to_text(decision.plan))
        codes.append(_codes(graph, decision.plan, context))
    assert decided[0] == decided[1]
    assert codes[0].keys() == codes[1].keys()
    for name, (encoded, scale, lost) in codes[0].items():
        other, other_scale, other_lost = codes[1][name]
        assert np.mean(encoded != other) < TIES, name
        assert np.mean(scale != other_scale) < TIES or np.allclose(scale, other_scale, rtol=1e-3), name
        assert lost == pytest.approx(other_lost, rel=ALIKE), name


def _codes(graph: Graph, plan: Plan, context: Context) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    weights = {weight.name: weight for weight in graph.weights()}
    found = {}
    for action, names in ((step.action, step.weights) for step in plan.steps if isinstance(step.action, Encode)):
        assert isinstance(action, Encode)
        for name in names:
            matrix = graph.matrix(weights[name])
            encoded, _ = action.encoded(weights[name], matrix, context)
            lost = float(np.square(encoded.decode() - matrix, dtype=np.float64).sum())
            found[name] = (encoded.codes, encoded.scales.scale, lost)
    return found


@pytest.mark.slow
def test_both_run_the_plan_alike(pair: Pair) -> None:
    samples = generate(pair.graphs[1], 4, 1)
    outputs = []
    for graph in pair.graphs:
        plan = bind(load_text("qpolicy 1\nrule any { weights = int4 channel }", schema()), graph, 1, Diagnostics())
        done = run_plan(graph, plan, Context()).graph
        runner = done.runner([value.name for value in done.inputs], [value.name for value in done.outputs])
        outputs.append(list(runner(_feeds(done, samples).batches[0]).values()))
    for left, right in zip(*outputs, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-4)  # float32 sums in another order, on outputs of about 1
