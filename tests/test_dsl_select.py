"""Selectors against layers."""

import runpy
import time
from dataclasses import replace
from pathlib import Path

import pytest

from qcc.compiler.plan.catalog import schema
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import load_text
from qcc.dsl.policy.schema import Schema
from qcc.dsl.policy.select import Facts, Selector, has_predicate, matches, matches_glob, near_misses

COMPILER = schema()
SCHEMA: Schema = runpy.run_path(str(Path(__file__).with_name("test_dsl_schema.py")))["SCHEMA"]


def layer(position: int, name: str, kind: str, outputs: int, inputs: int, kernel: tuple[int, ...] = ()) -> Facts:
    size = outputs * inputs
    for extent in kernel:
        size *= extent
    return Facts(name, frozenset({kind}), size, outputs, inputs, "float32", position, 5, kernel)


LAYERS = [
    layer(0, "stem.conv", "conv", 16, 3, (3, 3)),
    layer(1, "embed/table", "embedding", 1000, 64),
    layer(2, "encoder/0/ffn/up", "linear", 256, 64),
    layer(3, "encoder/0/ffn/down", "linear", 64, 256),
    layer(4, "lm_head", "linear", 1000, 64),
]


def selector(text: str) -> Selector:
    policy = load_text(f"rule {text} {{ keep }}", SCHEMA)
    return policy.rules[0].selector


def chosen(text: str) -> list[int]:
    one = selector(text)
    assert selector(one.text) == one
    return [facts.position for facts in LAYERS if matches(one, facts)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("any", [0, 1, 2, 3, 4]),
        ("linear", [2, 3, 4]),
        ("linear, conv", [0, 2, 3, 4]),
        ("linear or conv and embedding", [2, 3, 4]),
        ("(linear or conv) and embedding", []),
        ("linear and not linear[name ~ '*ffn*']".replace("'", '"'), [4]),
        ("not linear, linear[position == last]", [0, 1, 4]),
        ('any[name ~ "*ffn*"]', [2, 3]),
        ('any[name ~ "*FFN*"]', []),
        ('any[name ~ "ffn"]', []),
        ('any[name ~ "lm?head"]', [4]),
        ('any[name !~ "*ffn*"]', [0, 1, 4]),
        ('any[name == "lm_head"]', [4]),
        ('any[name != "lm_head"]', [0, 1, 2, 3]),
        (r"any[name ~ /ffn\/(up|down)$/]", [2, 3]),
        (r"any[name ~ /^lm/]", [4]),
        ("any[params >= 16k]", [1, 2, 3, 4]),
        ("any[params == 432]", [0]),
        ("any[in == 3]", [0]),
        ("any[in != 64, out < 100]", [0, 3]),
        ("any[out > 0.5k]", [1, 4]),
        ("any[dtype == fp32]", [0, 1, 2, 3, 4]),
        ("any[dtype != float32]", []),
        ("any[kernel == 3x3]", [0]),
        ("any[kernel != 3x3]", [1, 2, 3, 4]),
        ("any[position == first]", [0]),
        ("any[position != last]", [0, 1, 2, 3]),
        ("any[position == -1]", [4]),
        ("any[position >= -2]", [3, 4]),
        ("any[position < 2]", [0, 1]),
        ("(linear, conv)[out == 16]", [0]),
        ("linear[in == 64][out == 256]", [2]),
    ],
)
def test_matches(text: str, expected: list[int]) -> None:
    assert chosen(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("linear", False), ("linear and not conv", False), ("linear[in == 3]", True), ("conv, not conv[in == 3]", True)],
)
def test_has_predicate(text: str, expected: bool) -> None:
    assert has_predicate(selector(text)) is expected


def test_near_misses_say_what_excluded_the_nearest() -> None:
    assert near_misses(selector("linear[params > 100M]"), LAYERS) == [
        "3 layers match `linear` but none has params > 100M (largest: 64k)"
    ]
    assert near_misses(selector('linear[name ~ "*/fnn/*"]'), LAYERS) == [
        '3 layers match `linear` but none has name ~ "*/fnn/*" '
        "(nearest names: encoder/0/ffn/down, encoder/0/ffn/up, lm_head)"
    ]
    assert near_misses(selector("conv[kernel == 5x5]"), LAYERS) == [
        "1 layer matches `conv` but none has kernel == 5x5 (they have 3x3)"
    ]
    assert near_misses(selector("linear[in == 60]"), LAYERS) == [
        "3 layers match `linear` but none has in == 60 (nearest: 64)"
    ]
    assert near_misses(selector("linear[in == 64, out == 64]"), LAYERS) == [
        "3 layers match `linear` but none has all of in == 64, out == 64"
    ]
    assert near_misses(selector("linear and conv"), LAYERS) == ["no layer is in all of `linear` (3), `conv` (1)"]
    assert near_misses(selector("conv[in == 4]"), LAYERS[1:]) == [
        "no layer matches `conv`: the model has embedding (1), linear (3)"
    ]
    assert near_misses(selector("linear[dtype == fp16]"), LAYERS)[0].endswith("(they have fp32)")
    assert near_misses(selector("any[in == 3]"), []) == ["no layer matches `any`: the model has none"]


def test_near_misses_are_few() -> None:
    many = selector(", ".join(f"linear[in == {i}]" for i in range(1, 10)))
    assert len(near_misses(many, LAYERS, limit=2)) == 2


def test_globs_take_no_exponential_time() -> None:
    start = time.process_time()
    assert not matches_glob("*a" * 200 + "b", "a" * 2000)
    assert time.process_time() - start < 2
    assert matches_glob("*", "") and matches_glob("", "") and not matches_glob("?", "")
    assert matches_glob("a[0].*", "a[0].b")


@pytest.mark.parametrize("regex", ["(", "a" * 201, "(?=a)b", r"(a)\1", "(?<!a)b", "a++", "(?x)a b", "(a{1,30}){1,30}"])
def test_regexes_that_are_wrong_or_need_to_go_back_are_refused(regex: str) -> None:
    with pytest.raises(QccError, match="Q220"):
        selector(f"any[name ~ /{regex}/]")


@pytest.mark.parametrize(
    "regex", [r"layer\.[0-9]+\.", "(ab)+", r"\(a+\)+", "[(+*]+x", "(q|k|v)_proj", "(a+)+", "(?i)A"]
)
def test_other_regexes_are_not(regex: str) -> None:
    assert has_predicate(selector(f"any[name ~ /{regex}/]"))


@pytest.mark.parametrize(
    ("text", "groups", "size", "wanted"),
    [
        ("conv[groups > 1]", 8, 100, True),
        ("conv[groups > 1]", 1, 100, False),
        ("any[bytes >= 1 kB]", 1, 1000, True),
        ("any[bytes >= 1 kB]", 1, 999, False),
        ("any[bytes < 2 KiB, groups == 4]", 4, 2047, True),
        ("any[bytes == 2048]", 1, 2048, True),
    ],
)
def test_bytes_and_groups(text: str, groups: int, size: int, wanted: bool) -> None:
    (rule,) = load_text(f"qpolicy 1\nrule {text} {{ keep }}\n", SCHEMA).rules
    facts = replace(layer(0, "one", "conv", 8, 8), groups=groups, bytes=size)
    assert matches(rule.selector, facts) == wanted
    (again,) = load_text(f"qpolicy 1\nrule {rule.selector.text} {{ keep }}\n", SCHEMA).rules
    assert again.selector == rule.selector


@pytest.mark.parametrize(
    ("text", "op", "wanted"),
    [
        ("any[op == conv_transpose]", "conv_transpose", True),
        ('conv[op == "conv"]', "conv_transpose", False),
        ("any[op != lstm]", "gru", True),
        ("any[op != lstm]", "lstm", False),
    ],
)
def test_ops(text: str, op: str, wanted: bool) -> None:
    (rule,) = load_text(f"qpolicy 1\nrule {text} {{ keep }}\n", COMPILER).rules
    assert matches(rule.selector, replace(layer(0, "one", "conv", 8, 8), op=op)) == wanted
    (again,) = load_text(f"qpolicy 1\nrule {rule.selector.text} {{ keep }}\n", COMPILER).rules
    assert again.selector == rule.selector


@pytest.mark.parametrize(
    ("text", "help"),
    [
        ("op == Gemm", "did you mean `linear`?"),
        ("op == ConvTranspose", "did you mean `conv_transpose`?"),
        ('op == "conv_transpose2d"', "did you mean `conv_transpose`?"),
        ("op == lstmm", "did you mean `lstm`?"),
        ("op == 3", "expected one of `linear`"),
        ("op > conv", "`op` takes"),
        ("opp == conv", "did you mean `op`?"),
    ],
)
def test_what_ops_do_not_take(text: str, help: str) -> None:
    with pytest.raises(QccError) as caught:
        load_text(f"qpolicy 1\nrule any[{text}] {{ keep }}\n", COMPILER)
    (found,) = caught.value.diagnostics
    assert found.code in ("Q218", "Q219") and help in (found.help or "")


@pytest.mark.parametrize("text", ["bytes >= 1 ms", "bytes >= 0.5", "bytes == big", "groups >= 1 kB", "groups ~ 3"])
def test_what_bytes_and_groups_do_not_take(text: str) -> None:
    with pytest.raises(QccError) as caught:
        load_text(f"qpolicy 1\nrule any[{text}] {{ keep }}\n", SCHEMA)
    assert {one.code for one in caught.value.diagnostics} <= {"Q219", "Q203", "Q204", "Q205"}
