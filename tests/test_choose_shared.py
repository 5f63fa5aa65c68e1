"""How many branches share weights, decided with bits: ranked by what is lost; bytes fall by the shared part."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

from qcc.compiler.allocate.removals import in_turn, lost_whole
from qcc.compiler.calibrate.samples import load
from qcc.compiler.compile import compile
from qcc.compiler.depth.ladder import _merged
from qcc.compiler.depth.pairs import Pairs
from qcc.compiler.files.open_model import open_model
from qcc.compiler.measure.sensitivity import Losses
from qcc.compiler.measure.tally import NOISE
from qcc.compiler.plan.plan import Allocate, Candidate, OpenChoice
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.forms.decoded import DECODED
from qcc.passes.contract.contract import Context
from qcc.passes.encode import Encode
from qcc.passes.rounding.nearest import Nearest
from qcc.passes.structure.share import Share, alike
from tests.onnx_models import parse
from tests.test_choose_depth import NET, SIZES, WIDE, drawn_weights

ALIKE = 1e-3  # of a loss: sums in another order
OWN = 2 * 32 * WIDE  # weights of a branch


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Branches of which the second is nearly the first, and the last is nearly that before it."""
    weights = drawn_weights()
    for taker, giver, apart in ((1, 0, 0.02), (3, 2, 0.1)):
        for part in ("up", "down"):
            weights[f"{part}{taker}"] = weights[f"{part}{giver}"] + np.float32(apart) * weights[f"{part}{taker}"]
    path = tmp_path_factory.mktemp("shared") / "net.onnx"
    onnx.save(parse(NET, weights), path)
    return path


@pytest.fixture(scope="module")
def feeds() -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(3)
    return [{"x": draw.standard_normal((1, 16)).astype(np.float32)} for _ in range(24)]


def test_what_is_measured_is_what_is_lost(model: Path, feeds: list[dict[str, np.ndarray]]) -> None:
    graph = open_model(model).graph
    samples, targets = load(feeds, graph, None, 0), [f"{part}{at}" for at in range(4) for part in ("up", "down")]
    pairs = Pairs(graph, alike(graph, targets), samples, NOISE)
    assert [pairs.saved(one) for one in pairs.all] == [OWN] * 3
    found = list(in_turn(pairs.all, [OWN] * 3, 3, pairs.loss, lambda *_: None))
    assert [one.taker.weights[0] for one, _ in found] == ["up1", "up3", "up2"]
    assert [loss for _, loss in found] == sorted(loss for _, loss in found)
    after, _ = Share().apply(graph, targets, Context())
    assert found[-1][1] == pytest.approx(lost_whole(graph, after, samples, NOISE), rel=ALIKE)


def _policy(budget: str, more: str = "") -> str:
    return f"""qpolicy 1
rule any {{ weights = int{{6,8}} channel }}
depth {{ share = "up*" | "down*", pairs = 3{more} }}
{budget}
verify {{ cosine >= -0.99 }}
"""


@pytest.mark.slow
def test_branches_share_where_bits_alone_cannot_pay(
    model: Path, feeds: list[dict[str, np.ndarray]], tmp_path: Path
) -> None:
    full = compile(model, "qpolicy 1\nrule any { weights = int6 channel }\n", output=tmp_path / "all.onnx", data=feeds)
    for share, shared in ((1.3, None), (0.9, 1), (0.75, 2)):
        output = tmp_path / f"{share}.onnx"
        bound = int(full.output_bytes * share)
        result = compile(model, _policy(f"budget {{ size <= {bound}B }}"), output=output, data=feeds)
        assert result.passed and result.output_bytes <= bound
        (told,) = [note for note in result.notes if note.startswith("sharing weights of at most 3 branches")]
        if shared is not None:
            assert told.count("`") == 2 * shared
            left = [row.name for row in result.layers if row.name.startswith("up")]
            assert len(left) == len(SIZES) - shared


@pytest.mark.slow
def test_bytes_fall_by_the_part_that_is_shared(model: Path, feeds: list[dict[str, np.ndarray]], tmp_path: Path) -> None:
    plain = "qpolicy 1\nrule any { keep }\nverify { cosine >= -0.99 }\n"
    shared = plain + 'depth { share = "up0" | "down0" | "up1" | "down1" }\n'
    sizes = [
        compile(model, text, output=tmp_path / f"{at}.onnx", data=feeds).output_bytes
        for at, text in enumerate((plain, shared))
    ]
    assert abs(sizes[0] - sizes[1] - 4 * OWN) < 400  # names, and fields of the file


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torch") is None, reason="gradients are computed by PyTorch")
def test_gradients_agree_most_where_weights_are_most_alike(
    model: Path, feeds: list[dict[str, np.ndarray]], tmp_path: Path
) -> None:
    graph = open_model(model).graph
    samples, targets = load(feeds, graph, None, 0), [f"{part}{at}" for at in range(4) for part in ("up", "down")]
    agreements = Pairs(graph, alike(graph, targets), samples, NOISE).agreements(lambda *_: None)
    assert all(-1 <= one <= 1 for one in agreements.values())
    result = compile(
        model, _policy("budget { size <= 20% }", ", by = gradient"), output=tmp_path / "one.onnx", data=feeds
    )
    assert result.passed


def test_ranking_by_gradients_takes_gradients(
    model: Path, feeds: list[dict[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qcc.ir.open_file.find_spec", lambda _: None)
    with pytest.raises(QccError) as caught:
        compile(model, _policy("budget { size <= 20% }", ", by = gradient"), output=tmp_path / "no.onnx", data=feeds)
    assert [one.code for one in caught.value.diagnostics] == ["Q740"]
    assert not (tmp_path / "no.onnx").exists()


def test_without_a_budget_there_is_nothing_to_share_for(model: Path, tmp_path: Path) -> None:
    with pytest.raises(QccError) as caught:
        compile(model, _policy(""), output=tmp_path / "none.onnx")
    assert [one.code for one in caught.value.diagnostics] == ["Q680"]


def test_a_candidate_that_the_other_place_has_not_loses_and_takes_the_most_there() -> None:
    def choice(name: str, *bits: int, ms: float) -> OpenChoice:
        actions = [Encode(Blocked(IntGrid(one), CHANNEL), Nearest(), DECODED) for one in bits]
        costs = [{"size": 10.0 * one, "bits": 1.0, "latency": ms * one} for one in bits]
        return OpenChoice(name, tuple(Candidate(one, "", row) for one, row in zip(actions, costs, strict=True)))

    allocate = Allocate("output_error", (), (choice("a", 4, 6, 8, ms=1.0), choice("b", 6, 8, ms=2.0)))
    losses = Losses((np.array([3.0, 2.0, 1.0]), np.array([0.5, 0.25])), ((True,) * 3, (True,) * 2), 8)
    (left,), found = _merged(allocate, losses, {"b": "a"})
    np.testing.assert_allclose(found.loss[0], [3.5, 2.5, 1.25])
    assert [one.costs["latency"] for one in left.candidates] == [4 + 16, 6 + 12, 8 + 16]
    assert [one.costs["size"] for one in left.candidates] == [40, 60, 80]
