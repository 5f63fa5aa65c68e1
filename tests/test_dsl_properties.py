"""Laws of the language on drawn policies and on noise."""

import contextlib
import runpy
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcc.dsl.diagnostics.render import render
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.load import load_text
from qcc.dsl.policy.policy import to_text
from qcc.dsl.policy.schema import Schema
from qcc.dsl.syntax.format import format_source
from qcc.dsl.syntax.parse import load_source, parse

SCHEMA: Schema = runpy.run_path(str(Path(__file__).with_name("test_dsl_schema.py")))["SCHEMA"]
few = settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Between two tokens of a line, and where a line may end.
blank = st.sampled_from([" ", "  ", "\t"])
gap = st.sampled_from([" ", "  ", "\n", " # why\n", "\n\n    # own line\n\n", "\r\n"])
ending = st.sampled_from(["\n", " # trailing\n", ";", "\n\n\n", "\n# own line\n", " ; # both\n", "\r\n"])


@st.composite
def format_text(draw: st.DrawFn) -> str:
    block = draw(
        st.sampled_from(["", "tensor", "channel", "group 32", "group {32,64}", "tile 16x1", "tile {4x4, 8x8}"])
    )
    zero = draw(st.sampled_from(["", "sym", "asym"]))
    scale = draw(st.sampled_from(["", "scale fp16", "scale {fp16,fp32}"]))
    bits = draw(st.sampled_from(["int4", "int{2,3}", "int{ 8 }", "int 5", "int $bits"]))
    words = draw(st.permutations([word for word in (block, zero, scale) if word]))
    return draw(st.sampled_from(["float", "nf4 group 64", "bfp 5 block 16", " ".join([bits, *words])]))


@st.composite
def selector_text(draw: st.DrawFn, depth: int = 3) -> str:
    predicate = st.sampled_from(
        [
            'name ~ "*a, ]{#*"',
            r"name ~ /x\/[y]+#/",
            "params > 100k",
            "in == 3",
            "kernel != 3x3",
            "position == last",
            "out >= 1.5k",
        ]
    )
    base = draw(st.sampled_from(["linear", "conv", "any", "some"]))
    if depth == 0 or draw(st.booleans()):
        if draw(st.booleans()):
            return base
        inside = ("," + draw(gap)).join(draw(st.lists(predicate, min_size=1, max_size=3)))
        return f"{base}[{inside}]"
    parts = [draw(selector_text(depth - 1)) for _ in range(draw(st.integers(2, 3)))]
    how = draw(st.sampled_from(["and", "or", "not", "()", ","]))
    if how == "not":
        return f"not ({parts[0]})"
    if how == "()":
        return f"({parts[0]},{draw(gap)}{parts[1]})[in == 3]"
    joint = "," if how == "," else f" {how} "
    return "(" + joint.join(parts) + ")" if how != "," else joint.join(f"({one})" for one in parts)


@st.composite
def setting_text(draw: st.DrawFn) -> str:
    formats = f"{draw(gap)}| ".join(draw(st.lists(format_text(), min_size=1, max_size=3)))
    return draw(
        st.sampled_from(
            [
                f"weights{draw(blank)}={draw(blank)}{formats}",
                "activations=int8 static",
                f"rounding = gptq({draw(gap)}damp = 5 %,{draw(gap)}steps=4)",
                "permute   = magnitude",
                "sparsity = blocks 16x1 keep 50% by hessian",
            ]
        )
    )


@st.composite
def statement_text(draw: st.DrawFn) -> str:
    entries = draw(st.lists(setting_text(), max_size=3, unique_by=lambda one: one.split("=")[0].strip())) or ["keep"]
    body = entries[0]
    for one in entries[1:]:
        body += draw(st.sampled_from([", ", ",\n", "\n", "; ", " # why\n"])) + one
    opening = draw(st.sampled_from([" {", "{ # why\n", "\n{\n\n", " # why\n {"]))
    closing = draw(st.sampled_from(["}", "\n}", " # why\n}"]))
    rule = f"rule {draw(selector_text())}{opening} {body} {closing}"
    return draw(
        st.sampled_from(
            [rule, rule, rule, 'use "tiny"', "budget{size<=12  MiB,size <= 25 %}", "let other = linear, conv"]
        )
    )


@st.composite
def policy_text(draw: st.DrawFn) -> str:
    statements = draw(st.lists(statement_text(), max_size=4))
    once = list(dict.fromkeys(one for one in statements if not one.startswith("rule")))
    statements = [one for one in statements if one.startswith("rule")] + once
    text = draw(st.sampled_from(["", "\ufeff", "# head\n\n"])) + "qpolicy 1" + draw(ending)
    for one in ["param bits = 4", 'let some = linear[name ~ "x"]', *statements]:
        text += one + draw(ending)
    return text


def comments(text: str) -> list[str]:
    return sorted(
        line.partition("# ")[2].strip()
        for line in text.splitlines()
        if line.rstrip().endswith(("why", "line", "trailing", "both", "head"))
    )


@pytest.mark.slow
@few
@given(policy_text())
def test_formatting_keeps_meaning_and_comments_and_is_idempotent(text: str) -> None:
    laid_out = format_source(text)
    assert parse(Source("a", laid_out)) == parse(Source("b", text))
    assert comments(laid_out) == comments(text)
    assert format_source(laid_out) == laid_out


@pytest.mark.slow
@few
@given(policy_text())
def test_a_policy_as_text_is_the_same_policy(text: str) -> None:
    policy = load_text(text, SCHEMA)
    again = load_text(to_text(policy), SCHEMA)
    assert [(one.selector, one.assignments) for one in again.rules] == [
        (one.selector, one.assignments) for one in policy.rules
    ]
    assert (again.budget, again.verify, again.export) == (policy.budget, policy.verify, policy.export)
    assert to_text(again).partition("target")[2] == to_text(policy).partition("target")[2]


def survives(text: str) -> None:
    try:
        load_text(text, SCHEMA)
    except QccError as error:
        assert error.diagnostics
        for format in ("text", "json", "github"):
            assert render(error.diagnostics, format=format, width=80)
    with contextlib.suppress(QccError):
        format_source(text)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_policy_or_a_diagnostic(text: str) -> None:
    survives(text)


WORDS = (
    "rule let use param budget verify export target calibrate minimize qpolicy linear conv any x keep and or not name"
)
NOISE = [
    *WORDS.split(),
    "qpolicy",
    "params",
    "weights",
    "rounding",
    "int4",
    "int",
    "group",
    "{2,3}",
    "1",
    "3",
    "25%",
    "12 MiB",
]
NOISE += ["16x16", "$x", '"a"', '"b', "/r/", "#", "\n", "\n", "\n", "=", "==", "<=", "~", "{", "}", "(", ")", "[", "]"]
NOISE += [",", ";", "|", ":", "&", "*", "“", "'", "\x00", "\ufeff"]


@pytest.mark.slow
@settings(max_examples=250, deadline=None)
@given(st.lists(st.sampled_from(NOISE), max_size=40).map(" ".join))
def test_any_tokens_are_a_policy_or_a_diagnostic(text: str) -> None:
    survives(text)


@pytest.mark.slow
@few
@given(policy_text(), st.data())
def test_any_damage_is_a_diagnostic(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 5))
    survives(text[:at] + data.draw(st.sampled_from(["", "{", "}", '"', "=", "\n", "(", "$"])) + text[at + length :])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_source_or_a_diagnostic(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.qpolicy"
    path.write_bytes(data)
    try:
        survives(load_source(path).text)
    except QccError as error:
        assert len(error.diagnostics) == 1


def test_a_file_with_errors_is_not_formatted() -> None:
    with pytest.raises(QccError, match="Q101"):
        format_source("rule linear { weights: int4 }")
