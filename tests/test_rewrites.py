"""Rewriting passes in the driver: found, ordered, bound, run, validated, told; on toy passes in `toy_passes`."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference
import pytest
import torch

import qcc.passes
from qcc.__main__ import main
from qcc.compiler.build.cleaning import Cleaned
from qcc.compiler.build.rewrite import prospects, rewrite_graph
from qcc.compiler.calibrate.samples import Samples, generate
from qcc.compiler.compile import compile, decide_plan
from qcc.compiler.plan import catalog
from qcc.compiler.plan.bind import bind
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.plan import Plan, Step
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.text import action_text, to_text
from qcc.compiler.report import lock
from qcc.compiler.report.result import Result
from qcc.compiler.verify import translation as validate
from qcc.compiler.verify.translation import Trial, compare, first_guilty, relative_error, tolerance
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.load import load_text
from qcc.dsl.policy.policy import Policy
from qcc.ir.errors import ModelError
from qcc.ir.fx.graph import FxGraph
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.contract.contract import Pass, Rewrite
from qcc.passes.encode import Encode
from tests import onnx_models as models

WIDTH, DEPTH = 32, 8
CACHED = (catalog.passes, catalog.roundings, catalog.rewrites, catalog.schema, catalog._classes)
ALL = "rule any { toy_scale = constant(4); toy_break = on }\n"
MIXED = "rule any { weights = int{3,4,8} channel }\nbudget { bits <= 5 }\n"


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toy passes lie among the others."""
    monkeypatch.setattr(qcc.passes, "__path__", [*qcc.passes.__path__, str(Path(__file__).with_name("toy_passes"))])
    for one in CACHED:
        one.cache_clear()
    yield
    for one in CACHED:
        one.cache_clear()


def chain(depth: int = DEPTH, dtype: type[np.floating] = np.float32) -> onnx.ModelProto:
    """Linear layers ``l0``, ``l1``, ... with a relu between each two."""
    kind = "float" if dtype is np.float32 else "float16"
    lines = [f"h{at} = MatMul({'x' if at == 0 else f'r{at - 1}'}, l{at}) r{at} = Relu(h{at})" for at in range(depth)]
    body = " ".join(lines).removesuffix(f"r{depth - 1} = Relu(h{depth - 1})").replace(f"h{depth - 1} =", "y =")
    weights = {f"l{at}": models.random(WIDTH, WIDTH, seed=at, dtype=dtype) / dtype(4) for at in range(depth)}
    text = f"g ({kind}[N,{WIDTH}] x) => ({kind}[N,{WIDTH}] y) {{ {body} }}"
    return onnx.shape_inference.infer_shapes(models.parse(text, weights))


class Chain(torch.nn.Module):
    """The same in torch, of three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        last: torch.Tensor = self.layers[-1](x)
        return last


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "chain.onnx"
    onnx.save(chain(), path)
    return path


def policy(text: str) -> Policy:
    return load_text("qpolicy 1\n" + text, schema())


def bound(graph: Graph, text: str) -> Plan:
    diagnostics = Diagnostics()
    plan = bind(policy(text), graph, 1 << 20, diagnostics)
    diagnostics.raise_if_errors()
    return plan


def actions(plan: Plan) -> list[str]:
    return [action_text(step.action) for step in plan.steps]


def run(model: Path, text: str, **options: object) -> Result:
    return compile(model, policy(text), **options)  # type: ignore[arg-type]


# found and named


def test_a_file_is_all_it_takes() -> None:
    assert {name: list(values) for name, values in catalog.rewrites().items() if name.startswith("toy")} == {
        "toy_scale": ["constant", "by_inputs"],
        "toy_break": ["on"],
    }
    assert set(schema().properties["toy_scale"].methods) == {"constant", "by_inputs", "off"}
    summary = "scaling of what flows between two linear layers, as a family of toy passes"
    assert schema().properties["toy_scale"].summary == summary


def test_families_run_after_what_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    families = catalog.rewrites()
    assert list(families).index("toy_scale") < list(families).index("toy_break")  # against the alphabet
    assert {"clean", *families} <= set(catalog.after(Encode))
    (toy_break,) = families["toy_break"].values()
    monkeypatch.setattr(families["toy_scale"]["constant"], "after", ("toy_break",))
    catalog.rewrites.cache_clear()
    with pytest.raises(AssertionError, match="toy_break, toy_scale"):
        catalog.rewrites()
    assert issubclass(toy_break, Pass)


def test_pages_and_listing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["passes"]) == 0
    listed = capsys.readouterr().out
    assert "  toy_scale = constant " in listed
    assert "  toy_break = on " in listed
    for name in ("toy_scale = constant", "constant"):
        assert main(["passes", name]) == 0
        page = capsys.readouterr().out
        assert page.startswith("toy_scale = constant(...)\n")
        assert "factor  a number from 0.1 to 10 (default 2)" in page
        assert "Keeps: function, weights, shapes\nAfter: clean\n" in page
    main(["passes", "toy_break"])
    assert "  off  Leave the layers as they are" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["double", "constant(0)", "constant | by_inputs", "int4"])
def test_values_reject(value: str) -> None:
    with pytest.raises(QccError, match="Q20"):
        policy(f"rule any {{ toy_scale = {value} }}")


# bound


def test_steps_are_bound_in_order_one_for_each_instance(model: Path) -> None:
    graph = OnnxGraph.load(model)
    text = """rule any { weights = int4 channel; toy_break = on; toy_scale = constant }
rule any[name == "l3"] { toy_scale = constant(factor = 3) }
rule any[name == "l4"] { toy_scale = off }
rule any[name == "l5"] { keep }"""
    plan = bound(graph, text)
    assert actions(plan) == [
        "clean",
        "toy_scale = constant(factor = 2)",
        "toy_scale = constant(factor = 3)",
        'toy_break = on(victim = "", how = "double")',
        "encode(int4 channel sym scale fp16, rounding = nearest(clip = mse), form = decoded)",
    ]
    scaled = plan.steps[1]
    assert scaled.weights == ("l0", "l1", "l2", "l5", "l6", "l7")
    assert set(scaled.sources) == {"<text>:2:49"} or all(":2:" in source for source in scaled.sources)
    assert [one and one.order[0] for one in scaled.encodings] == [4, 4, 4, None, 4, 4]
    assert from_text(Source("p.plan", to_text(plan))) == plan
    assert "toy_scale = constant(factor = 3)\n    l3  " in to_text(plan)


def test_an_open_weight_counts_as_its_narrowest(model: Path) -> None:
    plan = bound(OnnxGraph.load(model), "rule any { weights = int{4,3} channel | float; toy_scale = constant }")
    assert {one and one.text for one in plan.steps[1].encodings} == {"int3 channel sym scale fp16"}


# run and validated


def test_the_file_computes_the_same(model: Path, tmp_path: Path) -> None:
    result = run(model, ALL + "rule any { keep }\nverify { relative_error <= 1e-5 }", output=tmp_path / "out.onnx")
    assert result.passed
    clean, scale, toy_break = result.rewrites
    assert clean.action == "clean"
    assert (len(scale.treated), [edit.text for edit in scale.refused]) == (DEPTH - 1, ["it is the output"])
    assert scale.treated[0].layers == ("l0", "l1")
    assert len(toy_break.treated) == DEPTH
    assert all(row.error <= 1e-6 and row.bound == validate.TOLERANCE for row in result.rewrites)
    assert "Q411" not in {one.code for one in result.warnings}


def test_notes_make_no_file_larger(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a rewriting saves may be less than what the file says of its origin."""
    real = lock.provenance
    monkeypatch.setattr(lock, "provenance", lambda *given: real(*given) | {"qcc.long": "x" * 100_000})
    result = run(model, "rule any { toy_scale = constant(4) }\n")
    assert any(row.treated for row in result.rewrites)
    assert result.output_bytes == result.output.stat().st_size <= result.input_bytes
    assert not onnx.load(result.output).metadata_props


@pytest.mark.slow
def test_names_that_no_author_gave_make_no_file_larger(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ops without a name get one while they are worked on; in a small file that is more than a rewriting saves."""
    real = lock.provenance
    monkeypatch.setattr(lock, "provenance", lambda *given: real(*given) | {"qcc.long": "x" * 100_000})
    proto = onnx.load(model)
    for node in proto.graph.node[:-1]:
        node.name = ""
    proto.graph.node[-1].name = "mine"
    onnx.save(proto, model)
    result = run(model, "rule any { toy_scale = constant(4) }\n")
    assert any(row.treated for row in result.rewrites)
    assert result.output_bytes <= result.input_bytes
    assert [node.name for node in onnx.load(result.output).graph.node] == [*[""] * (len(proto.graph.node) - 1), "mine"]


def test_encoding_sees_the_rewritten_graph(model: Path) -> None:
    graph = OnnxGraph.load(model)
    plan = bound(graph, "rule any { weights = int8 channel }\n" + ALL)
    done = rewrite_graph(graph, plan, generate(graph, 4, 0)).graph
    first, last = (graph.matrix(graph.weights()[at]) for at in (0, -1))
    weights = done.weights()
    np.testing.assert_array_equal(done.matrix(weights[0]), 4 * first)
    np.testing.assert_array_equal(done.matrix(weights[-1]), last / 4)
    np.testing.assert_array_equal(graph.matrix(graph.weights()[0]), first)


def test_statistics_are_of_the_graph_as_it_is_then(model: Path) -> None:
    graph = OnnxGraph.load(model)
    data = generate(graph, 8, 0)
    plan = bound(graph, "rule any { weights = int4 channel; toy_scale = by_inputs }")
    done = rewrite_graph(graph, plan, data)
    (row,) = done.rows
    assert len(row.treated) == DEPTH - 1
    assert row.error <= validate.TOLERANCE
    names = [value.name for value in graph.inputs]
    hidden = done.graph.runner(names, ["r0"])({"x": np.concatenate([b["x"] for b in data.batches])})["r0"]
    sizes = np.sqrt(np.square(hidden).mean(axis=0))
    assert np.ptp(sizes[sizes > 1]) < 2


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize("at", [0, 3, DEPTH - 1])
def test_a_site_that_lies_is_left_out(model: Path, tmp_path: Path, at: int) -> None:
    text = f'rule any {{ weights = int8 channel; toy_scale = constant; toy_break = on(victim = "l{at}") }}'
    result = run(model, text + "\nverify { cosine >= 0.999 }", output=tmp_path / "out.onnx")
    assert result.passed
    row = result.rewrites[-1]
    assert row.left_out == (f"at l{at}",)
    assert len(row.treated) == DEPTH - 1
    (edit,) = row.refused
    assert edit.layers == (f"l{at}",)
    assert edit.text == "left out: with it an output is off by 1 of its largest value, 0.0001 is allowed"
    assert [one.code for one in result.warnings] == ["Q435"]


def test_a_pass_that_lies_is_caught_reject(model: Path) -> None:
    text = 'rule any { toy_break = on(victim = "l3") }\nrule any[name == "l3"] { toy_break = off }'
    graph = OnnxGraph.load(model)
    (row,) = rewrite_graph(graph, bound(graph, text), generate(graph, 2, 0)).rows
    assert len(row.treated) == DEPTH - 1


@pytest.mark.slow
def test_a_site_left_out_is_told_and_no_failure(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = model.with_name("p.qpolicy")
    path.write_text('qpolicy 1\nrule any { toy_break = on(victim = "l1") }\n', encoding="utf-8")
    assert main(["compile", str(model), "-p", str(path)]) == 0
    assert "warning[Q435]" in capsys.readouterr().err


def test_a_site_that_takes_a_reader_away_is_left_out(tmp_path: Path) -> None:
    body = "g (float[N,64] x) => (float[N,64] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, w) }"
    path = tmp_path / "tied.onnx"
    onnx.save(models.parse(body, {"w": models.random(64, 64) / 8}), path)
    graph = OnnxGraph.load(path)
    plan = bound(graph, 'rule any { toy_break = on(victim = "node", how = "untie") }')
    done = rewrite_graph(graph, plan, generate(graph, 2, 0))
    assert done.graph.weights() == graph.weights()
    assert "the weight `node` loses a layer" in done.rows[0].refused[0].text


def two_readers(folder: Path) -> OnnxGraph:
    """The sum of two layers that read one value."""
    path = folder / "sum.onnx"
    weights = {name: models.random(64, 64, seed=at) for at, name in enumerate("ab")}
    body = "g (float[N,64] x) => (float[N,64] y) { h = MatMul(x, a) k = MatMul(x, b) y = Add(h, k) }"
    onnx.save(models.parse(body, weights), path)
    return OnnxGraph.load(path)


def test_what_rewriting_leaves_over_is_cleaned(tmp_path: Path) -> None:
    graph = two_readers(tmp_path)
    plan = bound(graph, 'rule any { toy_break = on(how = "insert") }')
    done = rewrite_graph(graph, plan, generate(graph, 2, 0))
    assert [row.action for row in done.rows][1:] == ["clean"]
    assert done.rows[-1].treated
    assert len(done.graph.ops()) == len(graph.ops()) + 1


def test_weights_that_became_equal_stay_two(tmp_path: Path) -> None:
    graph = two_readers(tmp_path)
    plan = bound(graph, 'rule any { weights = int8 channel; toy_break = on(how = "mean") }')
    done = rewrite_graph(graph, plan, generate(graph, 2, 0))
    assert len(done.rows) == 1
    assert [one.name for one in done.graph.weights()] == [one.name for one in graph.weights()]


def test_a_cleaning_that_lies_is_caught(model: Path) -> None:
    graph = OnnxGraph.load(model)
    other = graph.copy()
    other.replace_constant("l1", 2 * graph.matrix(graph.weights()[1]).T)
    names = ([value.name for value in graph.inputs], [value.name for value in graph.outputs])
    cleaned = Cleaned(lambda: other.runner(*names), ())
    with pytest.raises(ModelError, match="dead and duplicate ops the model is another"):
        rewrite_graph(graph, bound(graph, ALL), generate(graph, 2, 0), cleaned)


def test_a_plan_without_rewriting_leaves_the_graph(model: Path) -> None:
    graph = OnnxGraph.load(model)
    done = rewrite_graph(graph, bound(graph, "rule any { weights = int4 channel }"), generate(graph, 1, 0))
    assert done.graph is graph
    assert done.rows == ()


@pytest.mark.slow
def test_modules_are_rewritten_too() -> None:
    torch.manual_seed(0)
    graph = FxGraph.export(Chain().eval(), (torch.zeros(2, WIDTH),))
    (row,) = rewrite_graph(graph, bound(graph, "rule any { toy_scale = constant }"), generate(graph, 2, 0)).rows
    assert len(row.treated) == 2
    assert row.error <= validate.TOLERANCE


# trials


def test_random_data_that_the_model_refuses_is_left_out(tmp_path: Path) -> None:
    body = "g (float[N,64] x, int64[1] s) => (float[N,64] y) { h = MatMul(x, w) r = Reshape(h, s) y = Add(h, r) }"
    path = tmp_path / "shaped.onnx"
    onnx.save(models.parse(body, {"w": models.random(64, 64)}), path)
    graph = OnnxGraph.load(path)
    feeds = {"x": models.random(1, 64), "s": np.array([64])}
    assert len(Trial(graph, Samples((feeds,), "given")).feeds) == 1
    with pytest.raises(Exception, match="ONNX Runtime failed"):
        Trial(graph, Samples((feeds,), "generated"))


def test_trials_hold_few_samples(model: Path) -> None:
    graph = OnnxGraph.load(model)
    data = generate(graph, 64, 1)
    assert len(Trial(graph, data).feeds) == validate.SAMPLES
    assert len(Trial(graph, Samples(data.batches, "given", divisible=True)).feeds) == 2 * validate.SAMPLES


def test_errors_are_measured() -> None:
    wanted = np.array([1.0, -4.0, np.nan, np.inf], np.float32)
    assert relative_error(wanted, wanted) == 0
    assert relative_error(wanted, wanted + np.array([0, 1, 0, 0], np.float32)) == 0.25
    assert relative_error(wanted, np.array([1, -4, 0, np.inf], np.float32)) == np.inf
    assert relative_error(wanted, np.array([np.nan, -4, np.nan, np.inf], np.float32)) == np.inf
    assert relative_error(wanted, np.array([1, -4, np.nan, -np.inf], np.float32)) == np.inf
    assert relative_error(np.zeros(3, np.float32), np.full(3, 0.5, np.float32)) == 0.5
    assert relative_error(np.zeros(3, np.float32), np.zeros(4, np.float32)) == np.inf
    assert relative_error(np.zeros(0, np.float32), np.zeros(0, np.float32)) == 0


def test_whole_numbers_may_hardly_change() -> None:
    wanted = [{"n": np.arange(200)}]
    found = [compare(wanted, [{"n": np.where(np.arange(200) < changed, -1, np.arange(200))}]) for changed in (0, 2, 3)]
    assert [(one.changed, one.excess) for one in found] == [(0, False), (0.01, False), (0.015, True)]
    assert not compare([{"n": np.array(["a", "b"])}], [{"n": np.array(["a", "c"])}]).excess  # one is a tie
    assert compare([{"n": np.array([1, 2])}], [{"n": np.array([1])}]).excess


def test_half_precision_may_err_by_its_steps(tmp_path: Path) -> None:
    onnx.save(chain(2, np.float16), tmp_path / "half.onnx")
    assert tolerance(OnnxGraph.load(tmp_path / "half.onnx")) == 32 / 1024


@pytest.mark.parametrize("guilty", [0, 1, 6, 12])
def test_the_guilty_site_is_found_in_few_runs(guilty: int) -> None:
    subjects, runs = [f"s{at}" for at in range(13)], []

    def fails(taken: object) -> bool:
        runs.append(taken)
        return f"s{guilty}" in taken  # type: ignore[operator]

    assert first_guilty(subjects, fails) == f"s{guilty}"
    assert len(runs) <= 4


# told


@pytest.mark.slow
def test_a_lock_replays_rewriting_with_the_same_bytes(model: Path, tmp_path: Path) -> None:
    text = MIXED + "rule any { toy_scale = by_inputs; rounding = gptq }"
    files = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        plan = lock.plan_of(tmp_path / "a" / "out.lock") if name == "c" else None
        result = run(model, text, output=tmp_path / name / "out.onnx", plan=plan)
        assert result.allocation is not None or name == "c"
        assert len({row.format for row in result.layers}) > 1  # the narrowest encoding is not what every weight got
        files.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert files[0] == files[1]
    assert files[2]["out.onnx"] == files[0]["out.onnx"]
    told = json.loads(files[0]["out.lock"])["rewrites"]
    assert [(one["pass"], one["treated"], one["refused"]) for one in told[:2]] == [
        ("clean", 0, 0),
        ("toy_scale = by_inputs", DEPTH - 1, 1),
    ]


@pytest.mark.slow
def test_a_plan_can_be_decided_alone(model: Path) -> None:
    plan, _, _ = decide_plan(model, policy(MIXED + ALL))
    assert plan.decided
    assert actions(plan)[1] == "toy_scale = constant(factor = 4)"


@pytest.mark.slow
def test_reports(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = model.with_name("p.qpolicy")
    path.write_text("qpolicy 1\nrule any { weights = int8 channel }\n" + ALL, encoding="utf-8")
    assert main(["compile", str(model), "-p", str(path)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "rewrote   clean: relative error 0, 0.0001 allowed\n" in told.out
    assert f"toy_scale = constant(factor = 4): {DEPTH - 1} sites; 1 refused: it is the output; relative" in told.out
    page = model.with_name("chain.qcc.html").read_text(encoding="utf-8")
    assert '<section id="rewrites">' in page
    assert "<b>l0 to l1</b>: times 4" in page
    assert main(["compile", str(model), "-p", str(path), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["rewrites"]
    assert [one["pass"].split()[0] for one in found] == ["clean", "toy_scale", "toy_break"]
    assert (found[1]["treated"], found[1]["refused"], found[1]["bound"]) == (DEPTH - 1, 1, validate.TOLERANCE)
    assert found[1]["edits"][0] == {"subject": "l0 to l1", "text": "times 4", "refused": False, "layers": ["l0", "l1"]}


def test_explain_tells_sites(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = model.with_name("p.qpolicy")
    path.write_text('qpolicy 1\nrule any[name == "l7"] { toy_scale = constant }\n', encoding="utf-8")
    assert main(["explain", str(model), "l?", "-p", str(path)]) == 0
    told = capsys.readouterr().out
    assert "    + toy_scale = constant(factor = 2)  l6 to l7\n" in told
    assert "    x toy_scale = constant(factor = 2)  after l7  it is the output\n" in told
    assert main(["explain", str(model), "l6", "-p", str(path), "--format", "json"]) == 0
    (layer,) = json.loads(capsys.readouterr().out)["layers"]
    assert layer["rewrites"] == [{"action": "toy_scale = constant(factor = 2)", "site": "l6 to l7", "refused": ""}]


def test_prospects_follow_what_steps_before_open(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = OnnxGraph.load(model)
    plan = bound(graph, "rule any { toy_scale = constant(4); toy_break = on }")
    seen: list[np.ndarray] = []
    (toy_break,) = (step for step in plan.steps if action_text(step.action).startswith("toy_break"))

    def sites(self: Rewrite, graph: Graph, targets: object) -> tuple[()]:
        del self, targets
        seen.append(graph.matrix(graph.weights()[0]))
        return ()

    monkeypatch.setattr(type(toy_break.action), "sites", sites)
    found: list[Step] = [step for step, _ in prospects(graph, plan)]
    assert found == list(plan.steps[1:])
    np.testing.assert_array_equal(seen[0], 4 * graph.matrix(graph.weights()[0]))


def test_golden_plan(model: Path, golden: Callable[[Path, str], None]) -> None:
    text = to_text(bound(OnnxGraph.load(model), MIXED + ALL))
    golden(Path(__file__).parent / "golden" / "rewrites" / "plan.out", text)
