"""The driver: measuring, deciding, writing and verifying, on the model that the repository carries."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.allocate.decide import BudgetError
from qcc.compiler.calibrate import samples
from qcc.compiler.files.open_model import open_model
from qcc.compiler.measure.segments import Chain, cut
from qcc.compiler.measure.sensitivity import measure
from qcc.compiler.measure.tally import output_noise
from qcc.compiler.observe.cluster import executor_of
from qcc.compiler.observe.executor import HERE
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.plan import Candidate, OpenChoice
from qcc.compiler.report import lock
from qcc.compiler.verify import outputs as verify
from qcc.dsl.load import load_text
from qcc.dsl.policy.policy import Policy
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL
from qcc.ir.encoding.fit import encode
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.forms.decoded import DECODED
from qcc.ir.graph.graph import Graph
from qcc.passes.contract.contract import Context
from qcc.passes.encode import Encode
from qcc.passes.rounding.nearest import Nearest
from tests.chooser import choose

FOLDER = Path(__file__).parent.parent / "examples" / "fashion"
MODEL = FOLDER / "fashion-cnn.onnx"
MIXED = "rule any { weights = int{2,3,4,8} channel }\n"


def policy(text: str) -> Policy:
    return load_text("qpolicy 1\n" + text, schema())


@pytest.fixture(scope="module")
def graph() -> Graph:
    return open_model(MODEL).graph


@pytest.fixture(scope="module")
def data(graph: Graph) -> samples.Samples:
    return samples.load(FOLDER / "calibration.npz", graph, 16, 0)


@pytest.mark.parametrize("most", [1, 2, 3, 16])
def test_pieces_run_as_the_whole(graph: Graph, data: samples.Samples, most: int) -> None:
    pieces = cut(graph, most)
    assert 1 <= len(pieces) <= most
    chain = Chain(graph, pieces)
    states = chain.states(data.batches[0])
    wanted = graph.runner([value.name for value in graph.inputs], ["logits"])(data.batches[0])
    np.testing.assert_allclose(states[-1]["logits"], wanted["logits"], atol=1e-4)  # logits of about 10
    for start, state in enumerate(states[:-1]):
        assert chain.outputs(start, state, {})["logits"].shape == wanted["logits"].shape


def test_sensitivity_is_the_loss_of_the_encoded_graph(
    graph: Graph, data: samples.Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qcc.compiler.measure.probe.SURE", 0.0)
    encoding = Blocked(IntGrid(3), CHANNEL)
    weights = graph.weights()
    actions = [Encode(encoding, Nearest(), choose(weight, encoding).form) for weight in weights]
    options = [OpenChoice(w.name, (Candidate(a, ""),)) for w, a in zip(weights, actions, strict=True)]
    losses = measure(graph, options, data, Context())
    inputs = [value.name for value in graph.inputs]
    wanted = graph.runner(inputs, ["logits"])(data.batches[0])
    for weight, action, loss in zip(weights, actions, losses.loss, strict=True):
        changed = graph.copy()
        changed.encode(weight, encode(graph.matrix(weight), encoding), action.form)
        got = changed.runner(inputs, ["logits"])(data.batches[0])
        assert loss[0] == pytest.approx(
            output_noise(got, wanted, 16).loss, rel=0.02
        )  # float32 noise on losses down to 1e-4


@pytest.mark.slow
def test_measured_in_processes_is_the_same(graph: Graph, data: samples.Samples) -> None:
    actions = [Encode(Blocked(IntGrid(bits), CHANNEL), Nearest(), DECODED) for bits in (2, 4)]
    options = [OpenChoice(w.name, tuple(Candidate(one, "") for one in actions)) for w in graph.weights()]
    told: list[str] = []
    with executor_of(2) as others:
        here, away = (measure(graph, options, data, Context(told.append), executor=one) for one in (HERE, others))
    assert told == 2 * [option.subject for option in options]
    for one, other in zip(here.loss, away.loss, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3)  # threads sum in another order


def test_like_candidates_share_runs(graph: Graph, data: samples.Samples) -> None:
    weight = graph.weights()[1]
    encodings = [Blocked(IntGrid(bits), CHANNEL) for bits in (2, 3, 4, 5, 6, 7, 8)] * 2
    candidates = tuple(Candidate(Encode(one, Nearest(), choose(weight, one).form), "") for one in encodings)
    losses = measure(graph, [OpenChoice(weight.name, (*candidates, Candidate(None, "")))], data, Context())
    assert losses.loss[0][-1] == 0
    assert sum(losses.measured[0]) == 7 + 1
    assert list(losses.loss[0][:7]) == sorted(losses.loss[0][:7], reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize("percent", [12, 15, 20, 40])
def test_a_size_budget_holds_for_the_file(tmp_path: Path, percent: int) -> None:
    budget = policy(MIXED + f"budget {{ size <= {percent}% }}")
    result = qcc.compile(MODEL, budget, output=tmp_path / "out.onnx", data=FOLDER / "calibration.npz")
    assert (tmp_path / "out.onnx").stat().st_size == result.output_bytes <= percent / 100 * result.input_bytes
    assert result.allocation is not None
    assert result.allocation.gap == 0


@pytest.mark.slow
def test_a_larger_budget_never_costs_more(tmp_path: Path) -> None:
    errors = []
    for percent in (12, 16, 24):
        budget = policy(MIXED + f"budget {{ size <= {percent}% }}")
        result = qcc.compile(MODEL, budget, output=tmp_path / "out.onnx")
        assert result.allocation is not None and result.allocation.predicted_error is not None
        errors.append(result.allocation.predicted_error)
    assert errors == sorted(errors, reverse=True)


@pytest.mark.slow
def test_an_infeasible_budget_names_the_smallest_feasible(tmp_path: Path) -> None:
    with pytest.raises(BudgetError) as failure:
        qcc.compile(MODEL, policy(MIXED + "budget { size <= 5% }"), output=tmp_path / "out.onnx")
    note = failure.value.diagnostics[0].note or ""
    smallest = int(note.split(" is ")[1].split(" bytes")[0].replace(",", ""))
    assert list(tmp_path.iterdir()) == []
    loose = policy(
        MIXED + f"budget {{ size <= {int(smallest * 1.02)} B }}"
    )  # framing is known to two percent beforehand
    assert qcc.compile(MODEL, loose, output=tmp_path / "out.onnx").written


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes_and_the_lock_repeats_them(tmp_path: Path) -> None:
    chosen = policy(MIXED + "budget { size <= 15% }")
    files = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        plan = lock.plan_of(tmp_path / "a" / "out.lock") if name == "c" else None
        qcc.compile(MODEL, chosen, output=tmp_path / name / "out.onnx", data=FOLDER / "calibration.npz", plan=plan)
        files.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert files[0] == files[1]
    assert files[2]["out.onnx"] == files[0]["out.onnx"]


def test_a_failed_verification_writes_nothing(tmp_path: Path) -> None:
    strict = policy("rule any { weights = int2 tensor }\nverify { cosine >= 0.9999 }")
    result = qcc.compile(MODEL, strict, output=tmp_path / "out.onnx")
    assert not result.passed
    assert not result.written
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_would_grow_is_copied(tmp_path: Path) -> None:
    lossless = qcc.compile(MODEL, "lossless", output=tmp_path / "once.onnx")
    assert lossless.output_bytes < lossless.input_bytes
    again = qcc.compile(tmp_path / "once.onnx", "lossless", output=tmp_path / "twice.onnx")
    assert again.output_bytes <= again.input_bytes
    session = qcc.Session(tmp_path / "twice.onnx")
    assert verify.run(lambda: session.run, [{"image": np.ones((1, 1, 28, 28), np.float32)}])


class Reader:
    """As ONNX Runtime's CalibrationDataReader."""

    def __init__(self, count: int) -> None:
        self.left = count

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        self.left -= 1
        return {"image": np.full((2, 1, 28, 28), self.left, np.float32)} if self.left >= 0 else None


def test_readers_and_iterables_are_calibration_data(graph: Graph) -> None:
    assert samples.load(Reader(3), graph, None, 0).count == 6
    assert samples.load(({"image": np.zeros((1, 1, 28, 28), np.float32)} for _ in range(4)), graph, 2, 0).count == 2


def test_samples_are_cut_to_the_count(data: samples.Samples) -> None:
    assert data.first(5).count == 5
    assert data.first(10_000).count == data.count
    assert [len(one["image"]) for one in data.first(10).parts(4)] == [4, 4, 2]


def test_verification_measures() -> None:
    wanted = [{"y": np.array([[1.0, 0.0], [0.0, 2.0]], np.float32), "n": np.array([1, 2])}]
    same = verify.compare(wanted, wanted)
    assert [(check.cosine, check.sqnr, check.relative_error) for check in same] == [(1, np.inf, 0), (1, np.inf, 0)]
    off = verify.compare(wanted, [{"y": np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), "n": np.array([1, 3])}])
    assert off[0].plain.relative_error == 0.5
    assert off[0].plain.sqnr == pytest.approx(10 * np.log10(5))
    assert off[0].relative_error == 1  # of what varies
    assert off[0].sqnr == pytest.approx(10 * np.log10(2.5))
    assert off[1].changed == 0.5
    nan = verify.compare(wanted, [{"y": np.full((2, 2), np.nan, np.float32), "n": np.array([1, 2])}])
    assert nan[0].cosine == -1


def _with_weight(path: Path, change: float) -> Path:
    """The example model with its head's weight multiplied."""
    model = onnx.load(MODEL)
    head = next(one for one in model.graph.initializer if list(one.dims) == [10, 64])
    head.raw_data = (onnx.numpy_helper.to_array(head) * np.float32(change)).tobytes()
    onnx.save(model, path)
    return path


def test_a_weight_that_a_format_cannot_hold_stays(tmp_path: Path) -> None:
    model = _with_weight(tmp_path / "tiny.onnx", 1e-9)
    result = qcc.compile(model, policy("rule any { weights = int8 channel }"), output=tmp_path / "out.onnx")
    head = next(row for row in result.layers if row.name == "head")
    assert (head.format, head.form) == ("float32", "")
    assert [one.code for one in result.warnings] == ["Q411", "Q322"]  # and only the bias is left to see


def test_a_broken_weight_is_an_error(tmp_path: Path) -> None:
    model = _with_weight(tmp_path / "nan.onnx", float("nan"))
    with pytest.raises(qcc.QccError, match="Q410"):
        qcc.compile(model, "balanced", output=tmp_path / "out.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["nan.onnx"]
