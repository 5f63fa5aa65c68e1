"""Attentions are told by what they compute, however they are spelled; what computes something else is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qcc.__main__ import main
from qcc.ir.attention.find import attentions
from qcc.ir.graph.attention import Attention, NotAttention, Rotary
from qcc.ir.onnx.adapter import OnnxGraph
from tests import attention_models as models
from tests.attention_models import HEADS, SHARED, WIDTH, Spelling, case
from tests.onnx_models import random


def found(folder: Path, spelling: Spelling) -> list[Attention | NotAttention]:
    one = case(spelling)
    graph = OnnxGraph.load(one.save(folder))
    graph.simplify()
    return attentions(graph, one.feeds)


def only(folder: Path, spelling: Spelling) -> Attention:
    (one,) = found(folder, spelling)
    assert isinstance(one, Attention), one
    return one


def reason(folder: Path, spelling: Spelling) -> str:
    (one,) = found(folder, spelling)
    assert isinstance(one, NotAttention), one
    return one.reason


def test_plain(tmp_path: Path) -> None:
    one = only(tmp_path, models.PLAIN)
    assert [(part.value, part.heads, part.width, part.layout) for part in (one.queries, one.keys, one.values)] == [
        (name, HEADS, WIDTH, "bs(hd)") for name in "qkv"
    ]
    assert (one.scale, one.masking, one.cap, one.sinks, one.weights_read) == (0.25, (), None, "", False)


def test_grouped_queries_behind_a_causal_mask(tmp_path: Path) -> None:
    """As torch's export spells it: half of the scale on each side, weights that are no number made zero."""
    one = only(tmp_path, models.GROUPED)
    assert (one.queries.heads, one.keys.heads, one.values.heads) == (HEADS, SHARED, SHARED)
    assert one.keys.value == "k"
    assert one.scale == pytest.approx(0.5)
    assert [(masking.value, masking.kind) for masking in one.masking] == [("mask", "causal")]
    assert not one.weights_read


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_rotary(tmp_path: Path, layout: str) -> None:
    one = only(tmp_path, models.turned(layout))
    assert one.queries.rotary == one.keys.rotary == Rotary(layout, WIDTH, "cos", "sin")
    assert one.values.rotary is None
    assert one.queries.value == "q"


def test_an_unknown_turn_is_left_to_the_values(tmp_path: Path) -> None:
    """Channels that are turned the other way round are no rotary embedding: queries are what comes out of it."""
    spelling = models.turned("half")
    one = only(
        tmp_path,
        replace(spelling, body=spelling.body.replace("Concat <axis = -1> (qn, qa)", "Concat <axis = -1> (qa, qn)")),
    )
    assert one.queries.rotary is None
    assert one.queries.value == "qr"
    assert one.keys.rotary is not None


def _equations(queries: str, keys: str, values: str, made: str, turned: bool = False) -> Spelling:
    """The products of a plain attention as equations of heads that stand where they are split."""
    shapes = zip("qkv", ("heads", "held", "held"), strict=True)
    lines = "\n".join(f"{name}h = Reshape ({name}, {shape})" for name, shape in shapes)
    first, second = ("kh, qh", f"{keys},{queries}") if turned else ("qh, kh", f"{queries},{keys}")
    last = ("vh, p", f"{values},bhqk") if turned else ("p, vh", f"bhqk,{values}")
    return replace(
        models.PLAIN,
        body=f"""{lines}
        s = Einsum <equation = "{second}->bhqk"> ({first})
        z = Mul (s, scale)
        p = Softmax <axis = -1> (z)
        y = Einsum <equation = "{last[1]}->{made}"> ({last[0]})""",
    )


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("made", ["bqhd", "bhqd", "bhdq"])
def test_products_as_equations(tmp_path: Path, made: str, turned: bool) -> None:
    one = only(tmp_path, _equations("bqhd", "bkhd", "bkhd", made, turned))
    assert [(part.value, part.heads, part.width, part.layout) for part in (one.queries, one.keys, one.values)] == [
        (name, HEADS, WIDTH, "bs(hd)") for name in "qkv"
    ]
    assert one.scale == 0.25


def test_rows_before_samples(tmp_path: Path) -> None:
    """What has no way further back is told by the layout of its own axes."""
    spelling = _equations("qbhd", "kbhd", "kbhd", "qbhd")
    turned = "\n".join(f"{name}t = Transpose <perm = [1, 0, 2]> ({name})" for name in "qkv")
    body = spelling.body.replace("Reshape (q,", "Reshape (qt,").replace("Reshape (k,", "Reshape (kt,")
    one = only(tmp_path, replace(spelling, body=f"{turned}\n{body.replace('Reshape (v,', 'Reshape (vt,')}"))
    assert [(part.value, part.layout) for part in (one.queries, one.keys)] == [(name, "bs(hd)") for name in "qk"]


@pytest.mark.parametrize(
    ("before", "after"),
    [("->bhqk", "->bqhk"), ("bhqk,bkhd->bqhd", "bhqk,bhqd->bkhd"), ("bqhd,bkhd->bhqk", "bqhd,bkhe->bhqk")],
)
def test_other_equations_reject(tmp_path: Path, before: str, after: str) -> None:
    """Sums over the rows of queries, scores whose heads stand behind the rows, and sums of one side alone."""
    spelling = altered(_equations("bqhd", "bkhd", "bkhd", "bqhd"), before, after)
    assert not any(isinstance(one, Attention) for one in found(tmp_path, spelling))


def test_rows_of_earlier_runs(tmp_path: Path) -> None:
    one = only(tmp_path, models.PAST)
    assert (one.keys.past, one.keys.present) == ("past_key", "key_all")
    assert (one.values.past, one.values.present) == ("past_value", "value_all")
    assert one.keys.value == "k"


def test_sinks(tmp_path: Path) -> None:
    assert only(tmp_path, models.SINKS).sinks


def test_a_cap(tmp_path: Path) -> None:
    one = only(tmp_path, models.CAPPED)
    assert one.cap == pytest.approx(30)
    assert one.scale == pytest.approx(0.25)
    assert [(masking.kind, masking.keeps) for masking in one.masking] == [("causal", True)]


def test_the_standard_op(tmp_path: Path) -> None:
    one = only(tmp_path, models.STANDARD)
    assert (one.queries.heads, one.keys.heads) == (HEADS, SHARED)
    assert (one.keys.past, one.keys.present, one.scale) == ("past_key", "key_all", 0.3)


def test_the_op_of_the_runtime(tmp_path: Path) -> None:
    one = only(tmp_path, models.MANY)
    assert (one.queries.heads, one.keys.heads, one.keys.width, one.scale) == (HEADS, HEADS, WIDTH, 0.3)


def test_the_grouped_op_of_the_runtime(tmp_path: Path) -> None:
    one = only(tmp_path, models.RUNTIME_GROUPED)
    assert (one.queries.heads, one.keys.heads, one.keys.width, one.keys.past) == (HEADS, SHARED, WIDTH, "past_key")
    assert [masking.kind for masking in one.masking] == ["causal"]


@pytest.mark.parametrize(("size", "kind"), [(-1, "causal"), (3, "window")])
def test_a_window_of_the_op_of_the_runtime(tmp_path: Path, size: int, kind: str) -> None:
    spelling = altered(models.RUNTIME_GROUPED, "scale = 0.3", f"local_window_size = {size}")
    assert [masking.kind for masking in only(tmp_path, spelling).masking] == [kind]


def test_a_softmax_of_one_score_more_reject(tmp_path: Path) -> None:
    """Nothing is compared of such an op, so that what its attributes say has to be told."""
    spelling = altered(models.RUNTIME_GROUPED, "scale = 0.3", "smooth_softmax = 1")
    assert "counts one score more" in reason(tmp_path, spelling)


def test_scores_that_the_op_of_the_runtime_returns_reject(tmp_path: Path) -> None:
    spelling = altered(models.RUNTIME_GROUPED, "value_all =", "value_all, scores =")
    spelling = replace(spelling, outputs=f"{spelling.outputs}, float scores")
    assert "returns its scores" in reason(tmp_path, spelling)


def altered(spelling: Spelling, before: str, after: str) -> Spelling:
    assert before in spelling.body
    return replace(spelling, body=spelling.body.replace(before, after))


@pytest.mark.parametrize(
    ("spelling", "before", "after", "why"),
    [
        (models.PLAIN, "Mul (s, scale)", "Mul (s, s)", "something"),
        (models.PLAIN, "Mul (s, scale)", "Relu (s)", "no product"),
        (models.CAPPED, "Mul (bent, bound)", "Mul (bent, z)", "something"),
        (models.CAPPED, "(mask, high, never)", "(mask, high, scale)", "something else than what hides"),
        (models.SINKS, "Slice (p, zero_, minus, last)", "Slice (p, one_, end, last)", "something else"),
    ],
)
def test_other_formulas_reject(tmp_path: Path, spelling: Spelling, before: str, after: str, why: str) -> None:
    spelling = replace(spelling, constants={**spelling.constants, "end": models.whole(99)})
    assert why in reason(tmp_path, altered(spelling, before, after))


@pytest.mark.parametrize(("low", "high", "told"), [(-3e38, 3e38, True), (-50, 50, False), (-3e38, 50, False)])
def test_clipped_scores(tmp_path: Path, low: float, high: float, told: bool) -> None:
    """Bounds that drawn scores never come near would not show in a comparison."""
    spelling = altered(
        models.PLAIN, "p = Softmax <axis = -1> (z)", "c = Clip (z, low, high) p = Softmax <axis = -1> (c)"
    )
    ends = {"low": np.array(low, np.float32), "high": np.array(high, np.float32)}
    (one,) = found(tmp_path, replace(spelling, constants={**spelling.constants, **ends}))
    assert isinstance(one, Attention) == told
    assert told or (isinstance(one, NotAttention) and one.reason == "scores are clipped")


def test_scaled_after_a_bias(tmp_path: Path) -> None:
    """The bias is scaled, too."""
    spelling = altered(
        models.GROUPED, "p = Softmax <axis = -1> (z)", "zz = Mul (z, scale)\n p = Softmax <axis = -1> (zz)"
    )
    one = only(tmp_path, spelling)
    assert one.scale == pytest.approx(0.25)
    assert [(masking.kind, masking.scale) for masking in one.masking] == [("causal", 0.5)]


def test_scaled_after_sinks_reject(tmp_path: Path) -> None:
    spelling = altered(
        models.SINKS, "p = Softmax <axis = -1> (w)", "ww = Mul (w, scale)\n p = Softmax <axis = -1> (ww)"
    )
    assert "after others were put beside them" in reason(tmp_path, spelling)


def test_a_softmax_of_a_head_is_none(tmp_path: Path) -> None:
    """A classifier's softmax is multiplied with nothing that is computed."""
    spelling = Spelling("p = Softmax <axis = -1> (q)\n y = MatMul (p, w)", {"w": random(models.ALL, 3)})
    assert found(tmp_path, spelling) == []


def test_weights_that_others_read(tmp_path: Path) -> None:
    assert only(tmp_path, replace(models.PLAIN, outputs=", float p")).weights_read


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = case(models.PAST).save(tmp_path)
    assert main(["inspect", str(path), "--attention"]) == 0
    text = capsys.readouterr().out
    assert "past_key, past_value" in text
    assert "1 attention, 0 refused" in text
    assert main(["inspect", str(path), "--attention", "--format=json"]) == 0
    assert '"past": "past_key"' in capsys.readouterr().out


def test_masks_of_earlier_rows_are_generated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mask covers the rows of all runs, which torch's export calls by a name of their own."""
    path = case(models.MASKED_PAST).save(tmp_path)
    assert main(["inspect", str(path), "--attention"]) == 0
    assert "1 attention, 0 refused" in capsys.readouterr().out


def test_inspect_two_questions_reject(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = case(models.PLAIN).save(tmp_path)
    assert main(["inspect", str(path), "--attention", "--axes"]) == 2
    assert "ask one" in capsys.readouterr().err


def test_numbers_of_one_in_scores(tmp_path: Path) -> None:
    """A scale that is computed of sizes is one all the same."""
    body = models.PLAIN.body.replace(
        "z = Mul (s, scale)", "sh = Shape <start = 2, end = 3> (qh)\n n = Cast <to = 1> (sh)\n z = Div (s, n)"
    )
    assert only(tmp_path, replace(models.PLAIN, body=body)).scale == pytest.approx(1 / models.ROWS)


@pytest.mark.slow
def test_a_program_of_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same recogniser on another face: an op of ATen, behind heads that are repeated by a view."""
    torch = pytest.importorskip("torch")

    class Grouped(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k = torch.nn.Linear(24, 24), torch.nn.Linear(24, 12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[name-defined]
            q = self.q(x).view(2, 5, 4, 6).transpose(1, 2)
            k = self.k(x).view(2, 5, 2, 1, 6).expand(2, 5, 2, 2, 6).reshape(2, 5, 4, 6).transpose(1, 2)
            return torch.nn.functional.scaled_dot_product_attention(q, k, k, is_causal=True)

    path = tmp_path / "grouped.pt2"
    torch.export.save(torch.export.export(Grouped().eval(), (torch.randn(2, 5, 24),)), path)
    assert main(["inspect", str(path), "--attention"]) == 0
    text = capsys.readouterr().out
    assert "4 of 2" in text
    assert "causal" in text


def test_a_scale_for_each_head(tmp_path: Path) -> None:
    one = only(tmp_path, models.BY_HEAD)
    assert (one.scale, one.head_scales) == (1.0, "scales")
    assert [masking.kind for masking in one.masking] == ["causal"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("a = Add (s, mask)\n z = Mul (a, scales)", "behind something else"),
        ("z = Div (s, scales)", "behind something else"),
        ("z = Mul (s, rows)", "more than one a head"),
    ],
)
def test_other_scales_reject(tmp_path: Path, body: str, text: str) -> None:
    spelled = models.PLAIN.body.replace("z = Mul (s, scale)", body)
    constants = {**models.BY_HEAD.constants, "rows": random(models.ROWS, 1, seed=5)}
    assert text in reason(tmp_path, replace(models.BY_HEAD, body=spelled, constants=constants))
