"""Sparsity: which weights are left out, what those that stay become, and what policies may say of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.compiler.report.result import Result
from qcc.dsl.check.reach import check_reach
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.load import load_text
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import FLOAT32, Blocked
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.fit import encode
from qcc.ir.encoding.formats.composed.blocks import Sparse
from qcc.ir.encoding.formats.composed.scattered import ShareOfRow, SomeOfEvery
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.pruning import BY, By
from qcc.passes.encode import Encode
from qcc.passes.rounding.gptq import output_error, round_columns
from tests import onnx_models

RNG = np.random.default_rng(5)
OUT, IN = 48, 96
INT4 = Blocked(IntGrid(4), group(16))
DAMPING = 0.01


def gram_of(inner: int, rows: int = 4000) -> np.ndarray:
    """Of inputs that lean on each other and whose powers differ."""
    inputs = RNG.standard_normal((rows, inner)) @ (np.eye(inner) + 0.2 * RNG.standard_normal((inner, inner)))
    inputs *= np.exp(RNG.standard_normal(inner))
    return np.asarray(inputs.T @ inputs / len(inputs), np.float32)


GRAM, MATRIX = gram_of(IN), RNG.standard_normal((OUT, IN)).astype(np.float32)


def every(by: By, inner: Encoding = FLOAT32) -> list[Sparse | SomeOfEvery | ShareOfRow]:
    """One of each kind that keeps half."""
    return [Sparse(8, 8, 0.5, inner, by), SomeOfEvery(inner, by, 0, 2, 4), ShareOfRow(inner, by, 0, 0.5)]


@pytest.mark.parametrize("by", BY)
def test_so_many_stay_where_they_may(by: By) -> None:
    tiles, few, share = (encode(MATRIX, one, gram=GRAM).decode() != 0 for one in every(by))
    whole = tiles.reshape(OUT // 8, 8, IN // 8, 8).any((1, 3))
    assert whole.sum() == whole.size // 2 and tiles.mean() == 0.5
    assert set(few.reshape(-1, 4).sum(1)) == {2}
    assert set(share.sum(1)) == {IN // 2}


@pytest.mark.parametrize("at", range(3))
def test_data_and_what_stays_make_up_for_most_of_what_goes(at: int) -> None:
    """By the largest weights, and by those with what they are multiplied with; each with and without a refit."""
    largest, chosen = (encode(MATRIX, every(by)[at], gram=GRAM) for by in ("magnitude", "wanda"))
    plain = encode(MATRIX, every("magnitude")[at])
    errors = [output_error(MATRIX, one, GRAM) for one in (plain, largest, chosen)]
    assert errors[1] < 0.8 * errors[0] and errors[2] < 0.8 * errors[1]


@pytest.mark.parametrize("at", range(3))
def test_what_stays_is_where_no_small_step_gains(at: int) -> None:
    """The gradient of the error, damped as the solution is, is nought where weights stay."""
    stored = encode(MATRIX, every("wanda")[at], gram=GRAM).decode()
    damped = GRAM / np.mean(np.diag(GRAM)) + DAMPING * np.eye(IN, dtype=np.float32)
    before = np.where(stored != 0, MATRIX, 0)
    slopes = [np.abs((one - MATRIX) @ damped)[stored != 0].mean() for one in (before, stored)]
    assert slopes[1] < 0.05 * slopes[0]  # conjugate gradients end early


@pytest.mark.parametrize("at", range(3))
def test_codes_make_up_too(at: int) -> None:
    """One sweep rounds what stays; what it leaves out is not filled by what others left."""
    encoding = every("wanda", INT4)[at]
    swept, nearest = round_columns(MATRIX, encoding, GRAM, DAMPING, "mse"), encode(MATRIX, encoding, gram=GRAM)
    assert output_error(MATRIX, swept, GRAM) < output_error(MATRIX, nearest, GRAM)
    assert np.all((swept.decode() == 0) >= (encode(MATRIX, every("wanda")[at], gram=GRAM).decode() == 0))


def test_inputs_that_no_data_moved_keep_what_they_have() -> None:
    """They say nothing of the others, and no number overflows."""
    gram = GRAM.copy() * np.float32(1e-20)
    gram[:8], gram[:, :8] = 0, 0
    for by in BY:
        for encoding in every(by):
            stored = encode(MATRIX, encoding, gram=gram).decode()
            assert np.isfinite(stored).all()
            kept = stored[:, :8] != 0
            np.testing.assert_allclose(stored[:, :8][kept], MATRIX[:, :8][kept], rtol=1e-3)


MODEL = """g (float[N,64] x) => (float[N,64] y) {
    a = MatMul(x, w)
    b = Relu(a)
    y = MatMul(b, v)
}"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    weights = {"w": onnx_models.random(64, 128), "v": onnx_models.random(128, 64, seed=1)}
    onnx.save(onnx_models.parse(MODEL, weights), tmp_path / "model.onnx")
    inputs = RNG.standard_normal((64, 8, 64)).astype(np.float32) * np.linspace(0.1, 2, 64, dtype=np.float32)
    np.savez(tmp_path / "data.npz", x=inputs.reshape(64, 8, 64))
    return tmp_path / "model.onnx"


def compiled(model: Path, rules: str, data: bool = True) -> Result:
    policy = load_text(f"qpolicy 1\n{rules}\nverify {{ sqnr >= 3 dB }}\n", schema())
    found = model.with_name("data.npz") if data else None
    return qcc.compile(model, policy, data=found, output=model.with_name("out.onnx"))


def encodings(result: Result) -> dict[str, str]:
    steps = [one for one in result.plan.steps if isinstance(one.action, Encode)]
    return {name: one.action.encoding.text for one in steps for name in one.weights if isinstance(one.action, Encode)}


@pytest.mark.slow
def test_what_is_left_is_stored_as_weights_say(model: Path) -> None:
    """The two properties meet from different rules; one alone leaves what stays as it is."""
    rules = "rule any { sparsity = of(2, 4) }\nrule any[in == 64] { weights = int4 group 16; rounding = gptq }"
    found = compiled(model, rules)
    assert found.written and not [one for one in found.warnings if one.code == "Q390"]
    left = "of(count = 2, every = 4"
    assert sorted(encodings(found).values()) == [f"{left})", f"{left}, int4 group 16 sym scale fp16)"]


@pytest.mark.slow
def test_densities_and_formats_are_chosen_together(model: Path) -> None:
    rules = "rule any { weights = int{4,8} group 16; sparsity = dense | blocks(8x8, keep = {50%, 75%}) }"
    found = compiled(model, f"{rules}\nbudget {{ size <= 16% }}")
    assert found.written and found.output_bytes <= 0.16 * found.input_bytes
    assert found.allocation is not None and found.allocation.candidates == 12
    assert any("blocks" in one for one in encodings(found).values())


@pytest.mark.slow
def test_no_data_is_told(model: Path) -> None:
    found = compiled(model, "rule any { sparsity = of(3, 4) }", data=False)
    assert [one.code for one in found.warnings if one.code == "Q390"] == ["Q390"]
    found = compiled(model, "rule any { sparsity = of(3, 4, by = magnitude) }", data=False)
    assert "Q390" not in [one.code for one in found.warnings]


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (
            "weights = int{2,3,4,5,6,7,8} group {8,16,32,64,128,256} | int{2,3,4,5,6,7,8} group {8,16,32,64,128,256}"
            " asym; sparsity = blocks({8x8,16x16,32x32}, keep = {20%,40%,60%,80%})",
            "Q391",
        ),
        ("sparsity = int4", "Q207"),
        ("sparsity = blocks(8x8, keep = 25%, int4)", "Q203"),
    ],
)
def test_what_does_not_go_together_is_told_once(model: Path, rule: str, code: str) -> None:
    with pytest.raises(QccError) as caught:
        compiled(model, f"rule any {{ {rule} }}")
    assert [one.code for one in caught.value.diagnostics] == [code]


@pytest.mark.parametrize(
    ("rule", "bound", "reached"),
    [
        ("weights = int4; sparsity = dense", "bits <= 3", False),
        ("weights = int4; sparsity = dense | of(2, 4)", "bits <= 3", True),
        ("weights = int4; sparsity = dense | of(2, 4)", "bits <= 2.9", False),
        ("weights = int4; sparsity = of(2, 4)", "size <= 9%", False),
        ("weights = int4; sparsity = of(2, 4)", "size <= 10%", True),
        ("weights = int{4,8}; sparsity = blocks(16x16, keep = 50%)", "bits <= 1.3", False),
        ("weights = int{4,8}; sparsity = blocks(16x16, keep = 50%)", "bits <= 2", True),
        ("sparsity = unstructured(keep = 25%)", "bits <= 3", False),
        ("sparsity = unstructured(keep = 25%)", "bits <= 5", True),
        ("weights = blocks(16x16, keep = 50%, int8)", "bits <= 2", False),
        ("weights = blocks(16x16, keep = 50%, int8)", "bits <= 4", True),
        ("weights = blocks(16x16, keep = 100%, int8)", "bits <= 7", False),
    ],
)
def test_a_budget_of_bits_counts_what_may_be_left_out(rule: str, bound: str, reached: bool) -> None:
    report = Diagnostics()
    check_reach(load_text(f"qpolicy 1\nrule any {{ {rule} }}\nbudget {{ {bound} }}", schema()), report)
    assert [one.code for one in report.found] == ([] if reached else ["Q233"])


@pytest.mark.parametrize("shape", [(1, 3), (2, 5), (7, 11), (64, 64)], ids=str)
@pytest.mark.parametrize("keep", [0.1, 0.25, 0.3, 0.5, 0.75, 1.0])
def test_no_matrix_takes_fewer_bits_than_is_told(shape: tuple[int, int], keep: float) -> None:
    """What `check_reach` goes by holds for the sizes of all matrices, also of few tiles."""
    inner = Blocked(IntGrid(4))
    kinds = [Sparse(2, 2, keep, inner), ShareOfRow(inner, "wanda", 0, keep), SomeOfEvery(inner, "wanda", 0, 1, 3)]
    for one in kinds:
        assert one.stays is not None
        share, beside = one.stays
        assert one.bits_per_weight(shape) >= min(4, 4 * share + beside)


@pytest.mark.parametrize("shape", [(48, 96), (45, 91)], ids=str)
@pytest.mark.parametrize("at", range(3))
def test_exchanges_lower_the_error_the_more_the_longer(at: int, shape: tuple[int, int]) -> None:
    """On what was seen never up, whatever the sizes; as many stay where they may as before, and runs repeat."""
    matrix, gram = MATRIX[: shape[0], : shape[1]], GRAM[: shape[1], : shape[1]]
    found = [encode(matrix, replace(every("wanda")[at], effort=rounds), gram=gram) for rounds in (0, 1, 4, 30)]
    errors = [output_error(matrix, one, gram) for one in found]
    assert errors == sorted(errors, reverse=True) or at == 0
    assert errors[-1] < (0.99 if at == 0 else 0.9) * errors[0]
    stay = [one.decode() != 0 for one in (found[0], found[-1])]
    assert (stay[0] != stay[1]).any()
    if at == 0:
        assert found[0].parts["number"].max() == found[-1].parts["number"].max()
    else:
        starts = np.arange(0, shape[1], (4, shape[1])[at - 1])
        before, after = (np.add.reduceat(one.astype(int), starts, axis=1) for one in stay)
        assert (before == after).all()
    again = encode(matrix, replace(every("wanda")[at], effort=30), gram=gram)
    assert all(np.array_equal(part, again.parts[name]) for name, part in found[-1].parts.items())
