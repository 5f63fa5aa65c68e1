"""Configurations of other tools become policies that check, and no option of theirs is dropped in silence."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qcc.__main__ import main
from qcc.compiler.draft.translate import TOOLS, Translation, translate
from qcc.compiler.plan.catalog import schema
from qcc.dsl.load import load_text
from qcc.dsl.syntax.format import format_source

GOLDEN = Path(__file__).parent / "golden" / "translate"
CONFIGS = sorted(GOLDEN.glob("*.json"))
PUBLISHED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "benchmarks" / "translated" / "configurations.json").read_text(encoding="utf-8")
)
ODD = "zz_unheard_of"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_translated(config: Path, golden: Callable[[Path, str], None]) -> None:
    found = translate(config)
    assert found.tool == {"ort": "onnxruntime"}.get(word := config.stem.partition("_")[0], word)
    assert format_source(found.text) == found.text
    load_text(found.text, schema())
    moot = "".join(f"moot: {one.path} = {one.value}: {one.reason}\n" for one in found.moot)
    golden(config.with_suffix(".out"), f"{found.text}\n{moot}")
    assert all(f"# Not translated: {one.path} = " in found.text for one in found.left)


def _objects(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict):
        yield path
        for key, inner in value.items():
            yield from _objects(inner, (*path, key))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _objects(inner, (*path, at))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_an_option_anywhere_is_named(config: Path, tmp_path: Path) -> None:
    """Wherever it stands: itself, or the whole that it is a part of."""
    content = json.loads(config.read_text(encoding="utf-8"))
    for place in _objects(content):
        changed = copy.deepcopy(content)
        inner = changed
        for key in place:
            inner = inner[key]
        inner[ODD] = 7
        (tmp_path / "c.json").write_text(json.dumps(changed), encoding="utf-8")
        found = translate(tmp_path / "c.json")
        told = [
            one for one in (*found.left, *found.moot) if ODD in one.path or ODD in one.value or _within(one.path, place)
        ]
        assert told, place


def _within(path: str, place: tuple[str | int, ...]) -> bool:
    """Whether a path names an object that holds the place."""
    parents = [".".join(map(str, place[:at])) for at in range(1, len(place) + 1)]
    return path in parents


def _of(config: object, tmp_path: Path, tool: str | None = None) -> Translation:
    (tmp_path / "c.json").write_text(json.dumps(config), encoding="utf-8")
    return translate(tmp_path / "c.json", tool)


def test_published_configurations(tmp_path: Path, golden: Callable[[Path, str], None]) -> None:
    """Five of each tool, by their keys alone; what they come to is beside them as text."""
    told = ""
    for one in PUBLISHED:
        found = _of(one["config"], tmp_path)
        assert found.tool == one["tool"]
        load_text(found.text, schema())
        told += f"== {one['name']}\n{found.text}"
        told += "".join(f"moot: {each.path} = {each.value}: {each.reason}\n" for each in found.moot)
    assert {tool: sum(one["tool"] == tool for one in PUBLISHED) for tool in TOOLS} == dict.fromkeys(TOOLS, 5)
    golden(GOLDEN / "published.out", told)


def _rules(config: object, tmp_path: Path) -> list[str]:
    return [line for line in _of(config, tmp_path).text.splitlines() if line.startswith(("rule", "budget"))]


HALF = {"type": "OnnxFloatToFloat16"}
WIDE = "rounding = nearest(clip = absmax)"
GPTQ4 = {"type": "gptq", "bits": 4, "group_size": 32}


@pytest.mark.parametrize(
    ("steps", "rules"),
    [
        ([{"type": "ModelBuilder", "precision": "fp16"}], ["rule any { weights = fp16 }"]),
        (
            [{"type": "ModelBuilder", "precision": "int4", "int4_is_symmetric": False}],
            ["rule linear { weights = int4 group 32 asym }"],
        ),
        (
            [GPTQ4, {"type": "ModelBuilder", "precision": "int4", "int4_block_size": 64}],
            [
                "rule linear { weights = int4 group 32 asym, rounding = gptq }",
                "rule any[position == last] { weights = int4 group 64, rounding = nearest }",
            ],
        ),
        # what comes after a quantizer is about what it left
        (
            [{"type": "OnnxBlockWiseRtnQuantization", "block_size": 32}, HALF],
            [
                "rule any { weights = fp16 }",
                "rule linear { weights = int4 group 32 }",
                "rule embedding { weights = int4 group 32 }",
            ],
        ),
        (
            [GPTQ4, {"type": "rtn", "bits": 8, "group_size": 32, "lm_head": True, "embeds": True}],
            [
                "rule linear { weights = int4 group 32 asym, rounding = gptq }",
                "rule any[position == last] { weights = int8 group 32 asym, rounding = nearest }",
                "rule embedding { weights = int8 group 32 asym }",
            ],
        ),
        (
            [{"type": "SelectiveMixedPrecision", "algorithm": "kld_gradient", "ratio": 0.75, "sym": True}, GPTQ4],
            [
                "rule linear { weights = int4 group 32 asym, rounding = gptq }",
                "rule any[position == last] { keep }",
            ],
        ),
        (
            [GPTQ4 | {"sym": True, "lm_head": True, "overrides": {"lm_head": {"bits": 8}, "mlp.down": {"bits": 6}}}],
            [
                "rule linear { weights = int4 group 32, rounding = gptq }",
                "rule any[position == last] { weights = int8 group 32, rounding = gptq }",
                "rule any[name ~ /mlp.down/] { weights = int6 group 32 }",
            ],
        ),
        (
            [{"type": "IncStaticQuantization", "recipes": {"smooth_quant": True, "smooth_quant_args": {"alpha": 0.7}}}],
            [
                f"rule linear {{ weights = int8 tensor, {WIDE}, activations = static, fold = smoothquant(0.7) }}",
                f"rule conv {{ weights = int8 tensor, {WIDE}, activations = static }}",
                f"rule embedding {{ weights = int8 tensor, {WIDE} }}",
            ],
        ),
        (
            [{"type": "OpenVINOOptimumConversion", "ov_quant_config": {"weight_format": "int4", "group_size": 64}}],
            [
                "rule linear { weights = int4 group 64 asym }",
                "rule any[position == last] { weights = int8 channel asym }",
                "rule embedding { weights = int8 channel asym }",
            ],
        ),
        (
            [{"type": "QuarkQuantization", "quant_scheme": "uint4_wo_128", "quant_algo": "awq"}],
            ["rule linear { weights = int4 group 128 asym, fold = awq }"],
        ),
        (
            [{"type": "NVModelOptQuantization", "precision": "int4", "algorithm": "awq", "int4_block_size": 32}],
            ["rule linear { weights = int4 group 32, rounding = nearest, fold = awq }"],
        ),
        (
            [{"type": "OnnxStaticQuantization", "precision": "uint8", "op_types_to_exclude": ["Gather"]}],
            [
                f"rule linear {{ weights = int8 tensor asym, {WIDE}, activations = static }}",
                f"rule conv {{ weights = int8 tensor asym, {WIDE}, activations = static }}",
            ],
        ),
    ],
)
def test_passes_of_olive(steps: list[dict[str, Any]], rules: list[str], tmp_path: Path) -> None:
    assert _rules({"passes": {str(at): step for at, step in enumerate(steps)}}, tmp_path) == rules


def test_an_expression_that_looks_ahead_is_named(tmp_path: Path) -> None:
    config = {"passes": {"q": {"type": "GptqModel", "dynamic": {"-:(?!.*mlp).*": {}, "-:.*mlp.*": {}}}}}
    found = _of(config, tmp_path)
    assert [one.path for one in found.left] == ["passes.q.dynamic.-:(?!.*mlp).*"]
    assert "rule any[name ~ /.*mlp.*/] { keep }" in found.text


def test_later_patterns_and_exclusions_win(tmp_path: Path) -> None:
    config = {"quant_cfg": {"*lm_head*": {"enable": False}, "*weight_quantizer": {"num_bits": 8, "axis": 0}}}
    rules = [one for one in _of(config, tmp_path).text.splitlines() if one.startswith("rule")]
    assert "keep" in rules[0] and "int8" in rules[1]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"name": "package"}', '{"passes": {}}', '{"passes": {"a": {"type": "LoRA"}}}', "a: yaml", "\x00"],
)
def test_what_is_no_configuration_reject(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.json").write_text(content, encoding="utf-8")
    assert main(["translate", str(tmp_path / "c.json")]) == 1
    assert main(["translate", str(tmp_path / "none.json")]) == 1
    assert "Q596" in capsys.readouterr().err


@pytest.mark.parametrize("value", [None, True, "x", [], {}, -1, 1e99, [[1]], {"a": 1}, "\u202e\n; rule any { keep }"])
@pytest.mark.parametrize("config", CONFIGS[::3], ids=lambda path: path.stem)
def test_odd_values_are_never_a_bug_reject(config: Path, value: object, tmp_path: Path) -> None:
    """Each option in turn is something else: a policy, or a diagnostic."""
    content = json.loads(config.read_text(encoding="utf-8"))
    for place in _objects(content):
        inner: Any = content
        for key in place:
            inner = inner[key]
        for key in inner:
            changed = copy.deepcopy(content)
            spot: Any = changed
            for step in place:
                spot = spot[step]
            spot[key] = value
            (tmp_path / "c.json").write_text(json.dumps(changed), encoding="utf-8")
            status = main(["translate", str(tmp_path / "c.json"), "--from", translate(config).tool, "--format", "json"])
            assert status in (0, 1), (place, key)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p.qpolicy"
    config = next(one for one in CONFIGS if one.stem == "ort_int16")
    assert main(["translate", str(config), "-o", str(out)]) == 0
    assert "warning[Q595]" in capsys.readouterr().err
    assert main(["check", str(out)]) == 0
    assert main(["translate", str(config), "-o", str(out)]) == 1
    assert "Q594" in capsys.readouterr().err
    assert main(["translate", str(config), "-o", str(tmp_path / "p.txt")]) == 2
    assert main(["translate", str(config), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["tool"] == "onnxruntime"


def test_the_command_offers_every_tool() -> None:
    from qcc.compiler.commands.language import translate as command

    assert set(command.TOOLS) == set(TOOLS)


NNCF: dict[str, Any] = {"mode": "int4_sym", "ratio": 0.5}
OLIVE: dict[str, Any] = {"type": "GptqQuantizer"}


@pytest.mark.parametrize(
    ("config", "path"),
    [
        (NNCF | {"ratio": "0.5"}, "ratio"),
        (NNCF | {"ratio": -5}, "ratio"),
        (NNCF | {"ratio": float("nan")}, "ratio"),
        (NNCF | {"group_size": "128"}, "group_size"),
        (NNCF | {"mode": "e2m1", "group_size": 64}, "group_size"),
        (NNCF | {"backup_mode": {}}, "backup_mode"),
        (NNCF | {"awq": "yes"}, "awq"),
        (NNCF | {"all_layers": 3}, "all_layers"),
        (NNCF | {"ignored_scope": 5}, "ignored_scope"),
        (NNCF | {"ignored_scope": {"names": ["a", 1]}}, "ignored_scope.names"),
        (NNCF | {"ignored_scope": {"names": ["a\nb"]}}, "names"),
        ({"passes": {"q": OLIVE | {"damp_percent": "much"}}}, "passes.q.damp_percent"),
        ({"passes": {"q": OLIVE | {"sym": "false"}}}, "passes.q.sym"),
        ({"bits": 4, "block_size": 32, "nodes_to_exclude": [7]}, "nodes_to_exclude"),
        ({"quant_cfg": {"*weight_quantizer": {"num_bits": 4, "enable": "no"}}}, "quant_cfg.*weight_quantizer.enable"),
        (
            {"quant_cfg": {"*weight_quantizer": {"num_bits": 4, "block_sizes": {"-1": "x"}}}},
            "quant_cfg.*weight_quantizer.block_sizes.-1",
        ),
    ],
)
def test_a_value_of_another_kind_is_named(config: dict[str, Any], path: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(config), encoding="utf-8")
    assert path in [one.path for one in translate(tmp_path / "c.json").left]


def test_names_are_quoted(tmp_path: Path) -> None:
    config = NNCF | {"ignored_scope": {"names": ['a"b'], "patterns": ["a/b", r"x\/y", r"e\\/f"]}}
    (tmp_path / "c.json").write_text(json.dumps(config), encoding="utf-8")
    text = translate(tmp_path / "c.json").text
    assert all(rf"/{one}/" in text for one in (r"a\/b", r"x\/y", r"e\\\/f"))
    onnxruntime = {"bits": 4, "block_size": 32, "nodes_to_include": ['a"b']}
    (tmp_path / "c.json").write_text(json.dumps(onnxruntime), encoding="utf-8")
    assert r'"a\"b"' in translate(tmp_path / "c.json").text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"quant_cfg": {"*weight_quantizer": {"num_bits": 4.5}}}', "int4.5"),
        ('{"quant_cfg": {"*a\\n.weight_quantizer": {"num_bits": 4}}}', "unterminated"),
        ('{"compression": {"algorithm": "quantization", "weights": {"bits": 99}}}', "99 bits"),
        ('{"mode": "int4_sym", "ratio": 1, "ignored_scope": {"patterns": ["((("]}}', "what no policy can say"),
        ('{"a":' * 60_000, "nested too deep"),
        (" " * (4 << 20) + "{}", "more than 4 MiB"),
    ],
)
def test_what_no_policy_can_say_reject(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message is about the file that was given, not about the text that was made of it."""
    (tmp_path / "c.json").write_text(text, encoding="utf-8")
    assert main(["translate", str(tmp_path / "c.json")]) == 1
    told = capsys.readouterr()
    assert "error[Q596]" in told.err and "c.json" in told.err and said in told.err and not told.out
    assert "the translation" not in told.err and "<policy>" not in told.err
