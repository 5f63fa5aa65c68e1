"""What spans several files or statements: used policies, parameters, the cascade's raw material."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.load import load_policy, load_text, preset_names, preset_source, preset_summary
from qcc.dsl.policy.policy import KEEP, Policy, Quantity
from qcc.dsl.policy.schema import Schema

SCHEMA: Schema = runpy.run_path(str(Path(__file__).with_name("test_dsl_schema.py")))["SCHEMA"]


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name}.qpolicy"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "main.qpolicy"


def refused(path: Path, code: str) -> str:
    with pytest.raises(QccError) as caught:
        load_policy(path, SCHEMA)
    found = [one for one in caught.value.diagnostics if one.severity == "error"]
    assert [one.code for one in found] == [code]
    return str(caught.value)


def rules(policy: Policy) -> list[str]:
    return [f"{rule.selector.text}: {rule.assignments[0].text}" for rule in policy.rules]


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_policies(name: str) -> None:
    report = Diagnostics()
    policy = load_policy(name, SCHEMA, report=report)
    assert policy.rules and all(rule.from_preset for rule in policy.rules)
    assert not report.found
    assert preset_summary(name)
    assert preset_source(name).preset


def test_the_presets() -> None:
    assert preset_names() == ("balanced", "fast", "lossless", "tiny")


def test_later_statements_override_what_is_used(tmp_path: Path) -> None:
    base = 'use "balanced"\ntarget cpu\nparam g = 32\nrule linear { weights = int4 group $g }\n'
    base += (
        "budget { size <= 50% }\nverify { sqnr >= 20 }\nexport { opset = 21 }\nlet head = linear[position == last]\n"
    )
    main = 'qpolicy 1\nuse "base.qpolicy"\nparam g = 64\ntarget cpu(native)\nrule head { keep }\n'
    main += "budget { size <= 12 MiB }\nverify { cosine >= 0.5 }\nexport { external_data = never }\n"
    policy = load_policy(write(tmp_path, base=base, main=main), SCHEMA)
    assert rules(policy) == [
        "linear, embedding, conv, recurrent: int8 channel",
        "linear: int4 group 64",
        "linear[position == last]: keep",
    ]
    assert [rule.from_preset for rule in policy.rules] == [True, False, False]
    assert policy.rules[2].assignments[0].value is KEEP
    assert policy.target.arguments == ("native",)
    assert [one.text for one in policy.budget] == ["size <= 12 MiB"]
    assert sorted(one.text for one in policy.verify) == ["cosine >= 0.5", "sqnr >= 20 dB"]
    assert (policy.export.opset, policy.export.external_data) == (21, "never")
    assert [Path(one.name).name for one in policy.sources] == ["main.qpolicy", "base.qpolicy", "balanced.qpolicy"]


def test_a_file_counts_once_where_it_is_first_used(tmp_path: Path) -> None:
    common = "rule any { keep }"
    left = 'use "common.qpolicy"\nrule linear { weights = int4 }'
    main = 'qpolicy 1\nuse "left.qpolicy"\nuse "./sub/../common.qpolicy"\nrule conv { keep }'
    (tmp_path / "sub").mkdir()
    policy = load_policy(write(tmp_path, common=common, left=left, main=main), SCHEMA)
    assert rules(policy) == ["any: keep", "linear: int4", "conv: keep"]


def test_use_stays_in_its_folder(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    outside = write(tmp_path, outside="rule any { keep }").with_name("outside.qpolicy")
    inner.mkdir()
    (inner / "link.qpolicy").symlink_to(outside)
    for name in (
        "../outside.qpolicy",
        str(outside),
        "https://a.b/c.qpolicy",
        "link.qpolicy",
        "~/x.qpolicy",
        "C:/x.qpolicy",
    ):
        refused(write(inner, main=f'qpolicy 1\nuse "{name}"\nrule any {{ keep }}'), "Q224")
    within = write(inner, **{"sub/a": 'use "../b.qpolicy"', "b": "rule any { keep }", "main": 'use "sub/a.qpolicy"'})
    assert rules(load_policy(within, SCHEMA)) == ["any: keep"]


def test_use_in_circles(tmp_path: Path) -> None:
    assert "can't use itself" in refused(write(tmp_path, main='use "main.qpolicy"'), "Q225")
    path = write(tmp_path, main='use "a.qpolicy"', a='use "b.qpolicy"', b='use "a.qpolicy"')
    assert "a.qpolicy -> " in refused(path, "Q225")
    files = {f"f{i}": f'use "f{i + 1}.qpolicy"' for i in range(100)}
    refused(write(tmp_path, main='use "f0.qpolicy"', **files), "Q225")


def test_use_of_what_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, main='qpolicy 1\nuse "bass.qpolicy"', base="rule any { keep }")
    assert 'did you mean `"base.qpolicy"`?' in refused(path, "Q223")
    path.write_text('use "base"')
    assert 'did you mean `"base.qpolicy"`?' in refused(path, "Q223")


def test_errors_of_used_files_have_their_place(tmp_path: Path) -> None:
    path = write(
        tmp_path, main='use "a.qpolicy"\nrule lin { keep }', a="rule any { weights = int4 }\nrule conv { kep }"
    )
    with pytest.raises(QccError) as caught:
        load_policy(path, SCHEMA)
    places = [one.span.location for one in caught.value.diagnostics if one.span and one.severity == "error"]
    assert places == [f"{tmp_path}/a.qpolicy:2:13", f"{tmp_path}/main.qpolicy:2:6"]


def test_definitions() -> None:
    text = "param d = 50%\nparam n = 32\nparam w = mse\n"
    text += "rule linear { sparsity = blocks 4x4 keep $d; rounding = nearest($w) }"
    text += "\nrule conv { weights = int4 group $n }"
    given = load_text(text, SCHEMA, definitions={"d": "25%", "n": "64", "w": "none"})
    assert given.rules[0].assignments[0].text == "blocks(shape = 4x4, keep = 25%, by = magnitude)"
    assert given.rules[0].assignments[1].text == "nearest(clip = none)"
    assert dict(given.params) == {"d": "25%", "n": "64", "w": "none"}
    for name, value, code in [
        ("e", "3", "Q222"),
        ("d", "3", "Q203"),
        ("d", "MiB", "Q203"),
        ("d", "", "Q203"),
        ("d", "$n", "Q203"),
        ("d", "1% | 2%", "Q203"),
        ("d", "} rule any {", "Q203"),
        ("d", "0%", "Q204"),
        ("n", "64k0", "Q215"),
        ("n", "2.5", "Q203"),
    ]:
        with pytest.raises(QccError, match=code) as caught:
            load_text(text, SCHEMA, definitions={name: value})
        assert len([one for one in caught.value.diagnostics if one.severity == "error"]) == 1


def test_calibration_is_beside_its_policy(tmp_path: Path) -> None:
    path = write(tmp_path, **{"main": 'use "sub/a.qpolicy"\nrule any { keep }', "sub/a": 'calibrate "c.npz"'})
    policy = load_policy(path, SCHEMA)
    assert policy.calibrate is not None
    assert policy.calibrate.path == str(tmp_path / "sub" / "c.npz")
    assert (policy.calibrate.samples, policy.calibrate.seed) == (None, 0)
    generated = load_text("calibrate generated { seed = 3 }\nrule any { keep }", SCHEMA).calibrate
    assert generated is not None and generated.path is None and generated.seed == 3


def test_let_bombs_are_refused_quickly() -> None:
    text = "let a0 = linear\n" + "".join(f"let a{i + 1} = a{i} and not a{i}\n" for i in range(90))
    with pytest.raises(QccError, match="Q229"):
        load_text(text + "rule a90 { keep }", SCHEMA)
    chain = "".join(f"let a{i} = a{i + 1}\n" for i in range(3000)) + "let a3000 = linear\nrule a0 { keep }"
    with pytest.raises(QccError, match="Q229"):
        load_text(chain, SCHEMA)


@pytest.mark.slow
def test_a_long_list_of_layers_is_no_bomb() -> None:
    names = ", ".join(f'linear[name == "l{i}"]' for i in range(2_000))
    assert len(load_text(f"rule {names} {{ keep }}", SCHEMA).rules) == 1


def test_quantities() -> None:
    policy = load_text("budget { size <= 25%, size <= 1.5 KiB }\nrule any { keep }", SCHEMA)
    assert [one.quantity.of(1000) for one in policy.budget] == [250, 1536]
    assert Quantity(0.5, "ms").text == "0.5 ms"


def test_a_file_without_a_version_is_warned_of(tmp_path: Path) -> None:
    report = Diagnostics()
    load_policy(write(tmp_path, main="rule any { keep }"), SCHEMA, report=report)
    assert [one.code for one in report.warnings] == ["Q112"]


def test_missing_policies(tmp_path: Path) -> None:
    with pytest.raises(QccError, match="did you mean `balanced`"):
        load_policy("balancd", SCHEMA)
    with pytest.raises(QccError, match="Q107"):
        load_policy(tmp_path / "none.qpolicy", SCHEMA)


def test_the_language_loads_neither_numpy_nor_torch() -> None:
    code = "import sys, qcc.dsl.load, qcc.dsl.diagnostics.pages, qcc.dsl.syntax.format\n"
    code += "print([n for n in ('numpy', 'onnx', 'torch', 'onnxruntime', 'tvm', 'rich') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
