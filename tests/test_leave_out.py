"""Residual branches that are left out: the model is what it is with zeros in their place, and loses their weights."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from qcc.compiler.build.rewrite import watching
from qcc.compiler.calibrate.samples import load
from qcc.compiler.compile import compile
from qcc.compiler.files.open_model import open_model
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.text import to_text
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.source import Source
from qcc.ir.fx.graph import FxGraph
from qcc.ir.onnx.graph.run import reference
from qcc.ir.regions.residual import residual_branches
from qcc.passes.contract.contract import Context
from qcc.passes.structure.leave_out import LeaveOut
from qcc.passes.structure.stream_fit import StreamSums, fitted
from tests.torch_export import to_onnx


class Block(nn.Module):
    """A norm and a mixing layer, then a norm and two layers, both added to the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(16), nn.LayerNorm(16)
        for norm in (self.first, self.second):  # else all norms share one gain
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
        self.mix = nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.mix(self.first(x))
        result: torch.Tensor = x + self.mlp(self.second(x))
        return result


class Net(nn.Module):
    """Two blocks between layers; what goes past the second block's end goes out."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 16), nn.Linear(16, 4)
        self.layers = nn.ModuleList([Block(), Block()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(x)
        for layer in self.layers:
            x = layer(x)
        result: torch.Tensor = self.outer(x)
        return result


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def model(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("leave_out") / "net.onnx"
    to_onnx(net, (torch.zeros(3, 8),), path, external_data=False)
    return path


FEEDS = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)


def _without(net: Net, *parts: tuple[int, str]) -> np.ndarray:
    """What torch makes of it with zeros in the place of branches."""
    hooks = [
        getattr(net.layers[at], name).register_forward_hook(lambda _module, _given, result: 0 * result)
        for at, name in parts
    ]
    with torch.no_grad():
        result = net(torch.from_numpy(FEEDS)).numpy()
    for hook in hooks:
        hook.remove()
    return np.asarray(result)


def _run(path: Path) -> np.ndarray:
    feed, *_ = onnx.load(path).graph.input
    (found,) = reference(path)({feed.name: FEEDS}).values()
    return found


def _weights(path: Path) -> int:
    return sum(int(np.prod(one.dims)) for one in onnx.load(path).graph.initializer)


BLOCK = 16 * 16 + 16 + 2 * 16 * 24 + 24 + 16 + 4 * 16


@pytest.mark.slow
@pytest.mark.parametrize(
    ("globs", "parts", "gone"),
    [
        ('"layers.0.mlp.*"', [(0, "mlp")], 2 * 16 * 24 + 24 + 16 + 2 * 16),
        ('"layers.1.mix"', [(1, "mix")], 16 * 16 + 16 + 2 * 16),
        ('"layers.1.*"', [(1, "mix"), (1, "mlp")], BLOCK),
        ('"layers.0.mix" | "layers.1.mlp.0" | "layers.1.mlp.2"', [(0, "mix"), (1, "mlp")], BLOCK),
        ('"layers.*"', [(0, "mix"), (0, "mlp"), (1, "mix"), (1, "mlp")], 2 * BLOCK),
    ],
)
def test_a_branch_goes_with_all_that_is_its_own(
    net: Net, model: Path, tmp_path: Path, globs: str, parts: list[tuple[int, str]], gone: int
) -> None:
    output = tmp_path / "less.onnx"
    result = compile(model, f"qpolicy 1\ndepth {{ leave_out = {globs} }}\n", output=output)
    assert result.passed
    assert {one.code for one in result.warnings} in ({"Q650"}, {"Q650", "Q325"})  # nothing is trained here
    np.testing.assert_allclose(_run(output), _without(net, *parts), rtol=0, atol=1e-5)  # 24 terms of about 1, added up
    assert _weights(model) - _weights(output) == gone
    onnx.checker.check_model(str(output), full_check=True)


@pytest.mark.slow
def test_the_rest_is_encoded_and_rules_for_what_went_are_no_mistake(model: Path, tmp_path: Path) -> None:
    text = """qpolicy 1
    depth { leave_out = "layers.1.*" }
    rule linear[name ~ "layers.1.*"] { weights = int4 channel }
    rule linear[name ~ "layers.0.*"] { weights = int8 channel }
    """
    result = compile(model, text, output=tmp_path / "less.onnx")
    assert {row.name for row in result.layers if row.form} <= {"layers.0.mix", "layers.0.mlp.0", "layers.0.mlp.2"}
    assert not any(row.name.startswith("layers.1") for row in result.layers)
    again = from_text(Source("p.plan", to_text(result.plan)))
    assert again == result.plan
    compile(model, "qpolicy 1\nrule any { keep }", output=tmp_path / "again.onnx", plan=again)
    np.testing.assert_array_equal(_run(tmp_path / "again.onnx"), _run(tmp_path / "less.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("globs", "code"),
    [
        ('"layers.1.mix", cure = best', "Q523"),
        ('"outer"', "Q522"),
        ('"layers.0.mlp.0"', "Q522"),
        ('"layers.7.*"', "Q521"),
        ('"layers.0.*" | "inner"', "Q522"),
    ],
)
def test_what_is_no_branch_is_refused(model: Path, tmp_path: Path, globs: str, code: str) -> None:
    output = tmp_path / "less.onnx"
    with pytest.raises(QccError) as caught:
        compile(model, f"qpolicy 1\ndepth {{ leave_out = {globs} }}\n", output=output)
    assert [one.code for one in caught.value.diagnostics] == [code]
    assert not output.exists()


def _data(count: int) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(1)
    return [{"x": draw.standard_normal((3, 8)).astype(np.float32)} for _ in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gain", "low_rank", "linear", "best"])
def test_a_cure_brings_outputs_nearer_and_is_told(net: Net, model: Path, tmp_path: Path, kind: str) -> None:
    text = f'qpolicy 1\ndepth {{ leave_out = "layers.1.*", cure = {kind} }}\n'
    result = compile(model, text, output=tmp_path / "less.onnx", data=_data(64))
    whole = _without(net)
    lost = np.square(_without(net, (1, "mix"), (1, "mlp")) - whole).mean()
    assert np.square(_run(tmp_path / "less.onnx") - whole).mean() < lost
    (row,) = (row for row in result.rewrites if "leave_out" in row.action)
    assert all("a map" in edit.text for edit in row.edits)
    again = from_text(Source("p.plan", to_text(result.plan)))
    compile(model, "qpolicy 1\nrule any { keep }", output=tmp_path / "again.onnx", plan=again, data=_data(64))
    np.testing.assert_array_equal(_run(tmp_path / "again.onnx"), _run(tmp_path / "less.onnx"))


@pytest.mark.slow
def test_layers_behind_bring_outputs_nearer_and_are_told(net: Net, model: Path, tmp_path: Path) -> None:
    feeds, fresh = _data(512), np.random.default_rng(5).standard_normal((64, 3, 8)).astype(np.float32)
    with torch.no_grad():
        whole = np.stack([net(torch.from_numpy(one)).numpy() for one in fresh])
    lost = {}
    for behind in (0, 2):
        text = f'qpolicy 1\ndepth {{ leave_out = "layers.0.*", cure = best, behind = {behind} }}\n'
        output = tmp_path / f"{behind}.onnx"
        result = compile(model, text, output=output, data=feeds)
        (row,) = (row for row in result.rewrites if "leave_out" in row.action)
        assert not row.left_out
        assert any("behind fitted anew" in edit.text for edit in row.edits) == (behind > 0)
        run, (feed, *_) = reference(output), onnx.load(output).graph.input
        made = [next(iter(run({feed.name: one}).values())) for one in fresh]
        lost[behind] = np.square(np.stack(made) - whole).mean()
    assert lost[2] < lost[0]


@pytest.mark.slow
def test_no_cure_where_too_little_is_known(model: Path, tmp_path: Path) -> None:
    """One sample is none to judge by."""
    text = 'qpolicy 1\ndepth { leave_out = "layers.1.*", cure = best }\n'
    result = compile(model, text, output=tmp_path / "less.onnx", data=_data(1))
    (row,) = (row for row in result.rewrites if "leave_out" in row.action)
    assert all("not cured" in edit.text for edit in row.edits)


@pytest.mark.slow
def test_blocks_that_share_are_stored_once(net: Net, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "shared.onnx"
    result = compile(model, 'qpolicy 1\ndepth { share = "layers.*" }\n', output=output)
    assert result.passed
    other = copy.deepcopy(net)
    held = other.state_dict()
    for name in ("mix", "mlp.0", "mlp.2"):
        held[f"layers.1.{name}.weight"] = held[f"layers.0.{name}.weight"]
    other.load_state_dict(held)
    np.testing.assert_allclose(_run(output), _without(other), rtol=0, atol=1e-5)
    assert _weights(model) - _weights(output) == 16 * 16 + 2 * 16 * 24


@pytest.mark.slow
@pytest.mark.parametrize("globs", ['"outer"', '"layers.0.*"', '"layers.0.mlp.*" | "layers.1.mix"'])
def test_what_is_like_no_other_does_not_share(model: Path, tmp_path: Path, globs: str) -> None:
    with pytest.raises(QccError) as caught:
        compile(model, f"qpolicy 1\ndepth {{ share = {globs} }}\n", output=tmp_path / "shared.onnx")
    assert [one.code for one in caught.value.diagnostics] == ["Q522"]


def test_a_massive_row_does_not_decide_alone() -> None:
    """What is fitted serves the many rows, and the large one is not mangled."""
    draw = np.random.default_rng(0)
    change = 0.1 * draw.standard_normal((16, 16))
    seen, held = StreamSums(), StreamSums()
    for sums, count in ((seen, 20), (held, 5)):
        for _ in range(count):
            x = draw.standard_normal((32, 16))
            x[0] = 0
            x[0, 3] = 2e4
            y = x + x @ change + 0.5
            y[0] = x[0]
            sums.add(x, y)
    found = fitted(seen, held, "linear")
    assert found is not None
    rows = draw.standard_normal((100, 16))
    off = found.matrix.T @ rows.T + found.shift[:, None] - (rows + rows @ change + 0.5).T
    assert np.square(off).mean() < 0.2 * np.square(rows @ change + 0.5).mean()
    massive = np.zeros(16)
    massive[3] = 2e4
    assert np.linalg.norm(massive @ found.matrix + found.shift - massive) < 0.1 * np.linalg.norm(massive)


@pytest.mark.parametrize(
    ("block", "code"),
    [
        ('depth { leave_out = "a", leave_out = "b" }', "Q206"),
        ("depth { leave_out = residual }", "Q203"),
        ("depth { leave_out }", "Q231"),
        ("depth { cure = best }", "Q205"),
        ('depth { leave_out = "a", cure = 3 }', "Q203"),
        ('depth { leave_in = "a" }', "Q202"),
        ('depth "a"', "Q101"),
    ],
)
def test_what_no_policy_may_say(block: str, code: str) -> None:
    with pytest.raises(QccError) as caught:
        compile("none.onnx", f"qpolicy 1\n{block}\n")
    assert code in [one.code for one in caught.value.diagnostics]


@pytest.mark.slow
def test_both_adapters_fit_the_same_layers_behind(net: Net, model: Path) -> None:
    torch_graph = FxGraph.export(net, (torch.zeros(3, 8),))
    torch_graph.simplify()
    made = []
    for graph in (torch_graph, open_model(model).graph):
        (feed,) = graph.inputs
        data = load([{feed.name: one["x"]} for one in _data(64)], graph, None, 0)
        names = [weight.name for weight in graph.weights() if weight.name.startswith("layers.0.")]
        action = LeaveOut(cure="best", behind=2)
        after, edits = action.apply(graph, names, Context(watch=watching(data)))
        assert any("behind fitted anew" in edit.text for edit in edits)
        run = after.runner([feed.name], [value.name for value in after.outputs])
        made.append(next(iter(run({feed.name: FEEDS}).values())))
    np.testing.assert_allclose(made[0], made[1], rtol=0, atol=1e-4)  # sums in another order, solved


def test_both_adapters_find_the_same_branches(net: Net, model: Path) -> None:
    torch_graph = FxGraph.export(net, (torch.zeros(3, 8),))
    torch_graph.simplify()
    wanted = [
        ("layers.0.mix", ("layers.0.mix",)),
        ("layers.0.mlp", ("layers.0.mlp.0", "layers.0.mlp.2")),
        ("layers.1.mix", ("layers.1.mix",)),
        ("layers.1.mlp", ("layers.1.mlp.0", "layers.1.mlp.2")),
    ]
    for graph in (torch_graph, open_model(model).graph):
        assert [(one.name, one.weights) for one in residual_branches(graph)] == wanted
    after, edits = LeaveOut().apply(torch_graph, ["layers.0.mlp.0", "layers.0.mlp.2"], Context())
    assert [edit.subject for edit in edits] == ["layers.0.mlp"]
    feeds = {torch_graph.inputs[0].name: FEEDS}
    (got,) = after.runner(list(feeds), [value.name for value in after.outputs])(feeds).values()
    np.testing.assert_allclose(got, _without(net, (0, "mlp")), rtol=0, atol=1e-5)


def test_two_ways_to_the_same_sum_are_no_branch() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.one(x) + self.other(x)
            return result

    graph = FxGraph.export(Joined(), (torch.zeros(2, 4),))
    assert residual_branches(graph) == ()
