"""Windows of blocks that learn: what samples held out lose falls, what is stored is what was learned, and refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.files.open_model import open_model
from qcc.compiler.measure.march.windows import block_ends, truncated
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.text import to_text
from qcc.compiler.report.result import Result
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.load import load_text
from qcc.dsl.policy.policy import Policy
from qcc.dsl.policy.policy import to_text as policy_text
from qcc.ir.encoding import fit
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.graph.gradients import Lesson
from tests import onnx_models
from tests.onnx_models import random

torch = pytest.importorskip("torch")
WIDTH, BLOCKS = 32, 3
RULE = "qpolicy 1\nrule linear { weights = int2 group 16 }\n"


def policy(text: str = "reconstruct { steps = 60 }\n") -> Policy:
    return load_text(RULE + text, schema())


def residual(folder: Path, blocks: int = BLOCKS) -> Path:
    lines = [
        f"u{at} = MatMul (x{at}, a{at}) s{at} = Add (u{at}, c{at}) t{at} = Sigmoid (s{at}) "
        f"v{at} = MatMul (t{at}, b{at}) x{at + 1} = Add (x{at}, v{at})"
        for at in range(blocks)
    ]
    text = f"deep (float[n, t, {WIDTH}] x0) => (float[n, t, {WIDTH}] x{blocks}) {{ {' '.join(lines)} }}"
    weights = {f"c{at}": random(2 * WIDTH, seed=200 + at) for at in range(blocks)}
    for at in range(blocks):
        weights |= {
            f"a{at}": random(WIDTH, 2 * WIDTH, seed=at) / 4,
            f"b{at}": random(2 * WIDTH, WIDTH, seed=90 + at) / 4,
        }
    onnx.save(onnx_models.parse(text, weights, opset=21, ir_version=10), folder / "deep.onnx")
    return folder / "deep.onnx"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return residual(tmp_path)


def data() -> np.ndarray:
    return random(48, 8, WIDTH, seed=5) @ (random(WIDTH, WIDTH, seed=6) / 4)


def noise(result: Result, model: Path) -> float:
    x = random(32, 8, WIDTH, seed=55) @ (random(WIDTH, WIDTH, seed=6) / 4)
    wanted, got = (qcc.Session(path).run({"x0": x})[f"x{BLOCKS}"] for path in (model, result.output))
    return float(((got - wanted) ** 2).sum() / (wanted**2).sum())


@pytest.mark.sampled
@pytest.mark.parametrize("how", ["rank = 5", "rank = 0", "window = 1, overlap = 0", "rank = 0, truncate = true"])
def test_less_is_lost_on_data_that_nothing_learned_of(model: Path, how: str) -> None:
    lost, sizes = [], []
    for text in ("", f"reconstruct {{ {how}, steps = 60 }}\n"):
        result = qcc.compile(model, policy(text), data=[{"x0": data()}])
        lost.append(noise(result, model))
        sizes.append(result.output_bytes)
    assert abs(sizes[0] - sizes[1]) < 64 and lost[1] < 0.95 * lost[0]
    assert any(note.startswith("learned ") and "windows" in note for note in result.notes)


@pytest.mark.sampled
@pytest.mark.parametrize("weights", ["low_rank(int2 group 16, 4, int8)", "low_rank(25%, int8)"])
def test_factors_that_correct_learn(model: Path, weights: str) -> None:
    """Numbers stay; what makes up for them is nearer than its closed form, in as many bytes."""
    rules = f"qpolicy 1\nrule linear {{ weights = {weights} }}\n"
    lost, sizes = [], []
    for text in ("", "reconstruct { steps = 60 }\n"):
        result = qcc.compile(model, load_text(rules + text, schema()), data=[{"x0": data()}])
        lost.append(noise(result, model))
        sizes.append(result.output_bytes)
    assert abs(sizes[0] - sizes[1]) < 64 and lost[1] < 0.8 * lost[0]


@pytest.mark.slow
def test_a_module_learns_as_its_export(tmp_path: Path) -> None:
    class Deep(torch.nn.Module):  # type: ignore[misc,name-defined]  # torch may be missing here
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.ModuleList(torch.nn.Linear(WIDTH, 2 * WIDTH) for _ in range(BLOCKS))
            self.b = torch.nn.ModuleList(torch.nn.Linear(2 * WIDTH, WIDTH) for _ in range(BLOCKS))

        def forward(self, x0: Any) -> Any:
            for a, b in zip(self.a, self.b, strict=True):
                x0 = x0 + b(torch.sigmoid(a(x0)))
            return x0

    torch.manual_seed(0)
    module, x = Deep().eval(), data()
    rules = "qpolicy 1\nrule linear { weights = low_rank(int2 group 16, 4, int8) }\nreconstruct { steps = 20 }\n"
    asked = load_text(rules, schema())
    found = qcc.compile(module, asked, example_inputs=(torch.from_numpy(x),), data=[{"x0": x}])
    made = qcc.compile(
        module, asked, example_inputs=(torch.from_numpy(x),), data=[{"x0": x}], output=tmp_path / "deep.onnx"
    )
    assert [one.split(" on ")[0] for one in found.notes] == [one.split(" on ")[0] for one in made.notes]
    assert any(note.startswith("learned ") for note in found.notes)
    (wanted,) = qcc.Session(made.output).run({"x0": x}).values()
    with torch.no_grad():
        got = found.model(torch.from_numpy(x)).numpy()
    assert np.abs(got - wanted).max() < 1e-3 * np.abs(wanted).max()  # 20 steps apart by last bits of sums


def test_a_lock_repeats_it(model: Path) -> None:
    asked = policy("reconstruct { steps = 20 }\n")
    assert load_text(policy_text(asked), schema()) == asked
    first = qcc.compile(model, asked, data=[{"x0": data()}])
    text = to_text(first.plan)
    assert "reconstruct { window = 2, overlap = 1" in text and from_text(Source("<plan>", text)) == first.plan
    before = onnx.load(first.output).SerializeToString()
    assert onnx.load(qcc.compile(model, asked, data=[{"x0": data()}]).output).SerializeToString() == before


@pytest.mark.parametrize("symmetric", [True, False])
def test_what_is_stored_is_what_was_learned(tmp_path: Path, symmetric: bool) -> None:
    """The loss that a window tells is that of the codes and scales that it gives."""
    from qcc.ir.fx.piece.train import TorchWindow

    graph = open_model(residual(tmp_path, 1)).graph
    encoding = Blocked(IntGrid(3, symmetric), group(16))
    starts = [(one, graph.matrix(one), fit.encode(graph.matrix(one), encoding)) for one in graph.weights()]
    x = data()
    wanted = graph.runner(["x0"], ["x1"])({"x0": x})["x1"]
    lessons = [Lesson({"x0": x[at::2]}, {"x0": x[at::2]}, wanted[at::2], bool(at)) for at in (0, 1)]
    found, before, after = TorchWindow(graph, "x1", starts, 0, 0).learn(lessons, 40, lambda: None)
    assert after < before and {*found} == {one.name for one, _, _ in starts}
    stored = [(one, matrix, found[one.name]) for one, matrix, _ in starts]
    again = TorchWindow(graph, "x1", stored, 0, 0).learn(lessons, 1, lambda: None)[1]
    assert again == pytest.approx(after, rel=2e-3)  # scales are rounded to fp16


def test_blocks_of_a_transformer_hold_an_attention_and_what_follows(tmp_path: Path) -> None:
    text = f"""two (float[n, t, {WIDTH}] x0) => (float[n, t, {WIDTH}] x4) {{
        q = MatMul (x0, a) k = Transpose <perm = [0, 2, 1]> (x0) s = MatMul (q, k) p = Softmax <axis = -1> (s)
        o = MatMul (p, x0) x1 = Add (x0, o) f = MatMul (x1, b) x2 = Add (x1, f)
        q2 = MatMul (x2, c) k2 = Transpose <perm = [0, 2, 1]> (x2) s2 = MatMul (q2, k2) p2 = Softmax <axis = -1> (s2)
        o2 = MatMul (p2, x2) x3 = Add (x2, o2) f2 = MatMul (x3, d) x4 = Add (x3, f2) }}"""
    weights = {name: random(WIDTH, WIDTH, seed=at) / 8 for at, name in enumerate("abcd")}
    onnx.save(onnx_models.parse(text, weights, opset=21, ir_version=10), tmp_path / "two.onnx")
    assert block_ends(open_model(tmp_path / "two.onnx").graph) == ["x2", "x4"]
    assert block_ends(open_model(residual(tmp_path)).graph) == ["x1", "x2", "x3"]


def test_outliers_are_cut_off_at_what_is_none() -> None:
    matrix = random(32, 64)
    inner = float(np.abs(matrix).max())
    matrix[3, 5], matrix[7, 9] = 40, -42
    found = truncated(matrix)
    assert np.abs(found).max() <= inner and found[3, 5] > 0 > found[7, 9]
    rest = np.abs(matrix) <= np.abs(found).max()
    np.testing.assert_array_equal(found[rest], matrix[rest])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("reconstruct { window = 2, overlap = 2 }\n", "Q204"),
        ("reconstruct { windows = 2 }\n", "Q202"),
        ("rule linear { weights = int{2,4} group 16 }\nreconstruct { steps = 9 }\n", "Q674"),
    ],
)
def test_reject(model: Path, text: str, code: str) -> None:
    with pytest.raises(QccError) as error:
        qcc.compile(model, policy(text), data=[{"x0": data()}])
    assert code in {one.code for one in error.value.diagnostics}


def test_without_data_or_blocks_reject(model: Path, tmp_path: Path) -> None:
    with pytest.raises(QccError, match="Q673"):
        qcc.compile(model, policy())
    chain = onnx_models.parse(
        f"chain (float[n, t, {WIDTH}] x0) => (float[n, t, {WIDTH}] y) {{ y = MatMul (x0, w) }}",
        {"w": random(WIDTH, WIDTH)},
        opset=21,
        ir_version=10,
    )
    onnx.save(chain, tmp_path / "chain.onnx")
    with pytest.raises(QccError, match="Q675"):
        qcc.compile(tmp_path / "chain.onnx", policy(), data=[{"x0": data()}])


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_behind_what_it_learned(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Windows are kept until the run is whole, and what it writes is the same."""
    from qcc.ir.fx.piece.train import TorchWindow

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    learn, learned = TorchWindow.learn, list[int]()

    def counted(self: TorchWindow, *given: Any) -> Any:
        learned.append(len(learned))
        if len(learned) == 2:
            raise KeyboardInterrupt
        return learn(self, *given)

    asked = policy("reconstruct { window = 1, overlap = 0, steps = 20 }\n")
    whole = onnx.load(qcc.compile(model, asked, data=[{"x0": data()}]).output).SerializeToString()
    monkeypatch.setattr(TorchWindow, "learn", counted)
    with pytest.raises(KeyboardInterrupt):
        qcc.compile(model, asked, data=[{"x0": data()}])
    result = qcc.compile(model, asked, data=[{"x0": data()}])
    assert len(learned) == 2 + BLOCKS - 1
    assert onnx.load(result.output).SerializeToString() == whole
    assert any("learned 3 of 3 windows" in note for note in result.notes), result.notes
    qcc.compile(model, asked, data=[{"x0": data()}])
    assert len(learned) == 2 + BLOCKS - 1 + BLOCKS  # nothing is left of a run that is whole
