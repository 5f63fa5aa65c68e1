"""Formats that are made of others: what policies may say, what that stands for, and that it compiles."""

from pathlib import Path

import onnx
import pytest

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.formats import encoding_of
from qcc.compiler.plan.plan import Plan, Step
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.text import to_text
from qcc.compiler.report.result import Result
from qcc.dsl.check.reach import check_reach
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.load import load_text
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.encoded import leaves
from qcc.ir.forms.decoded import DECODED
from qcc.passes.encode import Encode
from qcc.passes.rounding.nearest import Nearest
from tests import onnx_models

SPELLINGS = {
    "bands(int4 channel asym, int1 channel, share = 20%)": (
        "bands(int4 channel asym scale fp16, int1 channel scale fp16, share = 20%)"
    ),
    "bands(int4 channel asym, binary channel, share = 20%)": (
        "bands(int4 channel asym scale fp16, int1 channel scale fp16, share = 20%)"
    ),
    "bands(int{0,1,2,4} channel, average = 2.0, by = sensitivity)": (
        "bands(int4 channel sym scale fp16, int2 channel sym scale fp16, int1 channel scale fp16, int0, average = 2)"
    ),
    "bands(nf4, int1 | int2 group 8, average = 1.5, by = activation)": (
        "bands(nf4 group 64 scale fp16, int2 group 8 sym scale fp16, int1 channel scale fp16, average = 1.5,"
        " by = activation)"
    ),
    "ptq161": "bands(int4 channel asym scale fp16, int1 channel scale fp16, share = 20%)",
    "bands(float, nf4, 5%)": "bands(float, nf4 group 64 scale fp16, share = 5%)",
    "stack(int2 group 32, int3 group 32)": "stack(int2 group 32 sym scale fp16, int3 group 32 sym scale fp16)",
    "stack(16)": "stack(count = 16, signs())",
    "stack(2, int1 group 8)": "stack(count = 2, int1 group 8 scale fp16)",
    "signs()": "signs()",
    "stack(3, signs(2))": "stack(count = 3, signs(rank = 2))",
    "low_rank(25%, int8)": "low_rank(share = 25%, int8 channel sym scale fp16)",
    "low_rank(8)": "low_rank(rank = 8, int8 channel sym scale fp16)",
    "low_rank(int4 group 32, 25%, int8)": (
        "stack(int4 group 32 sym scale fp16, low_rank(share = 25%, int8 channel sym scale fp16))"
    ),
    "low_rank(int4 group 32, 8, bf16)": "stack(int4 group 32 sym scale fp16, low_rank(rank = 8, bf16))",
    "monarch(4)": "monarch(4, int8 channel sym scale fp16)",
    "monarch(4, rank = 2, bf16)": "monarch(4, rank = 2, bf16)",
    "block_dense(4, 16)": "block_dense(4, rank = 16, int8 channel sym scale fp16)",
    "blocks(32x32, keep = 25%)": "blocks(32x32, keep = 25%)",
    "blocks(16x4, keep = 50%, int4 group 32)": "blocks(16x4, keep = 50%, int4 group 32 sym scale fp16)",
    "blocks(16x16, 50%, by = obs)": "blocks(16x16, keep = 50%, by = obs)",
    "blocks(16x16, 50%, by = wanda)": "blocks(16x16, keep = 50%)",
    "of(2, 4)": "of(count = 2, every = 4)",
    "of(2, 4, effort = 8)": "of(count = 2, every = 4, effort = 8)",
    "blocks(16x16, 50%, by = obs, effort = 8, nf4)": (
        "blocks(16x16, keep = 50%, by = obs, effort = 8, nf4 group 64 scale fp16)"
    ),
    "of(4, 8, by = magnitude, int4 group 32)": "of(count = 4, every = 8, by = magnitude, int4 group 32 sym scale fp16)",
    "unstructured(keep = 30%, nf4)": "unstructured(keep = 30%, nf4 group 64 scale fp16)",
    "blocks(4x1, keep = 0.5%, mxfp4)": "blocks(4x1, keep = 0.5%, fp4 group 32 scale e8m0)",
    "kmeans(25%)": "kmeans(keep = 25%)",
    'kmeans(25%, "pairs.npz", trained = 881250949, int4 group 32, tied = expand)': (
        'kmeans(keep = 25%, graph = "pairs.npz", trained = 881250949, tied = expand, int4 group 32 sym scale fp16)'
    ),
    'graph("pairs.npz", resolution = 10, nf4, residual = int2)': (
        'stack(graph(interactions = "pairs.npz", resolution = 10, nf4 group 64 scale fp16),'
        " int2 channel sym scale fp16)"
    ),
    'frequent(10%, seen = "pairs.npz", within = 0.5)': 'frequent(keep = 10%, seen = "pairs.npz", within = 0.5)',
    'kmeans(25%, seen = "pairs.npz")': 'kmeans(keep = 25%, seen = "pairs.npz")',
    "frequent(least = 5, int8)": "frequent(least = 5, int8 channel sym scale fp16)",
    "stack(blocks(8x8, keep = 10%, bands(int8, int4, share = 1%)), int2)": (
        "stack(blocks(8x8, keep = 10%, bands(int8 channel sym scale fp16, int4 channel sym scale fp16, share = 1%)),"
        " int2 channel sym scale fp16)"
    ),
}


def candidates(text: str) -> list[Encoding | None]:
    (rule,) = load_text(f"qpolicy 1\nrule any {{ weights = {text} }}", schema()).rules
    (assignment,) = rule.assignments
    assert isinstance(assignment.value, tuple)
    return [encoding_of(spec) for spec in assignment.value]


@pytest.mark.parametrize("text", SPELLINGS)
def test_a_spelling_names_an_encoding_that_prints_and_parses_back(text: str) -> None:
    (encoding,) = candidates(text)
    assert encoding is not None and encoding.text == SPELLINGS[text]
    if not any("e8m0" in one.text for one in leaves(encoding)):  # which has no spelling but the format's own
        assert candidates(encoding.text) == [encoding]
    step = Step(Encode(encoding, Nearest(), DECODED), ("w",), ("here",))
    assert from_text(Source("p.plan", to_text(Plan((step,))))) == Plan((step,))


def test_alternatives_in_arguments_are_candidates() -> None:
    found = candidates("blocks(32x32, keep = 25%|50%|100%) | bands(int{3,4}, int1, share = {10%, 20%}) | int4 | float")
    assert len(found) == 3 + 4 + 1 + 1
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("low_rank(int8)", "Q204", "takes a share, as in `25%`, or a rank"),
        ("low_rank(25%, rank = 8)", "Q204", "takes a share, as in `25%`, or a rank"),
        ("stack(64, stack(2))", "Q204", "1 to 64 parts, not 128"),
        ("blocks(2x2x2, keep = 25%)", "Q204", "two extents"),
        ("blocks(1x1, keep = 25%)", "Q204", "2 to 65536 weights"),
        ("of(5, 4)", "Q204", "keeps 1 or more of 2 to 4,096 inputs, not 5 of 4"),
        ("of(1, 1)", "Q204", "every"),
        ("of(2, 4, by = size)", "Q203", "`by` takes"),
        ("unstructured(keep = 0%)", "Q204", "keep"),
        ("bands(int4, int9, share = 20%)", "Q204", "no 9 bits"),
        ("bands(int4, int1)", "Q204", "take the share of the first of two, as in `share = 20%`, or an average"),
        ("bands(int4, int1, share = 20%, average = 2)", "Q204", "or an average"),
        ("bands(int4, int2, int1, share = 20%)", "Q204", "the first of two formats, not of 3"),
        ("bands(int4, average = 2)", "Q204", "2 to 8 formats, not 1"),
        ("bands(int{1,2,4}, average = 5)", "Q204", "5 bits are no average of formats of 1 to 4"),
        ("bands(int4, int4 group 32, average = 4)", "Q204", "as many bits as no other"),
        ("bands(int{2,4}, average = 3, by = magnitude)", "Q203", "`by` takes"),
        ("low_rank(8, bands(int{2,4}, average = 3))", "Q204", "differs from matrix to matrix"),
        ("kmeans(0%)", "Q204", "keep"),
        ("kmeans(25%, trained = 5)", "Q204", "`trained` needs a `graph`"),
        ('kmeans(25%, graph = "a.npz", seen = "a.npz")', "Q204", "by a `graph`"),
        ("graph(resolution = 5)", "Q205", "interactions"),
        ('graph("")', "Q204", "takes a file of interactions"),
        ("frequent(int4)", "Q204", "takes a share, as in `10%`, or the least lookups"),
        ("frequent(10%, least = 2)", "Q204", "takes a share"),
        ("frequent(10%, within = 5)", "Q204", "`within` needs a file of interactions"),
        ("kmeans(25%, tied = split)", "Q203", "`tied` takes"),
        ("stak(4)", "Q207", "unknown format `stak`"),
    ],
)
def test_what_cannot_be_is_told(text: str, code: str, told: str) -> None:
    with pytest.raises(QccError) as caught:
        candidates(text)
    assert [one.code for one in caught.value.diagnostics] == [code]
    assert told in caught.value.diagnostics[0].message


@pytest.mark.parametrize(
    ("formats", "bound", "reached"),
    [
        ("nf4", "bits <= 5", True),
        ("nf4", "bits <= 3", False),
        ("stack(2) | int8", "size <= 10%", True),
        ("int8", "size <= 10%", False),
        ("kmeans(25%, int4)", "bits <= 1", True),
        ("kmeans(25%, int4)", "bits <= 0.5", False),
        ('graph("pairs.npz", int4)', "bits <= 0.5", True),
    ],
)
def test_a_budget_is_held_against_the_bits_that_codes_really_have(formats: str, bound: str, reached: bool) -> None:
    report = Diagnostics()
    check_reach(load_text(f"qpolicy 1\nrule any {{ weights = {formats} }}\nbudget {{ {bound} }}", schema()), report)
    assert [one.code for one in report.found] == ([] if reached else ["Q233"])


@pytest.mark.parametrize(
    ("was", "change"),
    [("20%", "500%"), ("20%", "0%"), ("20%", "x"), ("25%", "rank = -1"), ("4x4", "0x4"), ("keep = 50%", "")],
)
def test_a_plan_that_was_tampered_with_is_refused(was: str, change: str) -> None:
    spelled = "stack(low_rank(25%, int8), bands(int4, int2, share = 20%), blocks(4x4, keep = 50%))"
    (encoding,) = candidates(spelled)
    assert encoding is not None
    text = to_text(Plan((Step(Encode(encoding, Nearest(), DECODED), ("w",), ("here",)),)))
    assert was in text
    with pytest.raises(QccError):
        from_text(Source("p.plan", text.replace(was, change, 1)))


MODEL = """g (int64[N] i, float[A,64] x) => (float[N,V] y, float[A,B] z) {
    e = Gather(table, i)
    y = MatMul(e, w)
    z = MatMul(x, v)
}"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An embedding, a square weight and one of odd sizes."""
    weights = {
        "table": onnx_models.random(64, 64),
        "w": onnx_models.random(64, 64, seed=1),
        "v": onnx_models.random(64, 51, seed=2),
    }
    onnx.save(onnx_models.parse(MODEL, weights), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def compiled(model: Path, policy: str) -> Result:
    text = f"qpolicy 1\n{policy}\n"
    return qcc.compile(model, load_text(text, schema()), output=model.with_name("out.onnx"))


@pytest.mark.sampled
@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
@pytest.mark.parametrize(
    "text",
    [
        "bands(int4 group 32, int2, share = 30%)",
        "bands(int{1,2,4}, average = 2.5)",
        "low_rank(int4 group 16, 25%, int8)",
    ],
)
def test_a_policy_becomes_a_file_that_computes_what_the_report_says(model: Path, text: str, rounding: str) -> None:
    """The table of the embedding is gathered by rows; the report's figures are of the file itself."""
    found = compiled(model, f"rule any {{ weights = {text}; rounding = {rounding} }}\nverify {{ sqnr >= 4 dB }}")
    assert found.written and {one.code for one in found.warnings} <= {"Q436"}  # little data
    assert [str(one.form) for one in found.layers if "embedding" in one.kinds] == ["rows"]
    decoded = [one for one in found.layers if "embedding" not in one.kinds]
    assert all(one.form == "decoded" for one in decoded)


@pytest.mark.slow
def test_the_allocator_chooses_among_them(model: Path) -> None:
    text = "int8 channel | bands(int4 group 32, int1, share = 30%) | bands(int{1,2,3}, average = {1.5, 2})"
    text += " | stack(2, int2 group 32) | blocks(8x8, keep = 25%)"
    found = compiled(model, f"rule any {{ weights = {text} }}\nbudget {{ size <= 30% }}")
    assert found.written and found.output_bytes <= 0.3 * found.input_bytes
    assert found.allocation is not None and found.allocation.candidates == 18
