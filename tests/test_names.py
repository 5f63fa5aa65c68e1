"""A layer is found by its module's path and by what ONNX exporters make of it, whichever the model has."""

import json
from pathlib import Path

import onnx
import pytest

from qcc.__main__ import main
from qcc.compiler.plan.catalog import schema
from qcc.dsl.load import load_text
from qcc.dsl.policy.select import Facts, Where
from qcc.ir.graph.names import spellings
from tests.onnx_models import random

PAIRS = {
    "encoder.layer.0.output": "encoder/layer.0/output",
    "layer1.0.conv1": "layer1/layer1.0/conv1",
    "features.0.1.conv": "features/features.0.1/conv",
    "model.layers.11.mlp.down_proj#2": "model/layers.11/mlp/down_proj#2",
}


@pytest.mark.parametrize(("path", "onnx"), PAIRS.items())
def test_each_name_has_the_other_spelling(path: str, onnx: str) -> None:
    assert spellings(path)[0] == path and onnx in spellings(path)
    assert spellings(onnx)[0] == onnx and path in spellings(onnx)


def test_a_plain_name_has_no_other() -> None:
    assert spellings("head") == ("head",) and spellings("") == ("",)


def _holds(predicate: str, name: str) -> bool:
    (rule,) = load_text(f"qpolicy 1\nrule any[{predicate}] {{ weights = int8 channel }}", schema()).rules
    assert isinstance(rule.selector, Where)
    one = Facts(name, frozenset({"linear"}), 1, 1, 1, "float32", 0, 1, others=spellings(name)[1:])
    return all(predicate.holds(one) for predicate in rule.selector.predicates)


@pytest.mark.parametrize(
    ("predicate", "holds"),
    [
        ('name == "encoder/layer.0/output"', True),
        ('name ~ "*/output"', True),
        ("name ~ /layer.0.output$/", True),
        ('name !~ "*/output"', False),
        ('name != "encoder/layer.0/output"', False),
        ('name ~ "*/input"', False),
        ('name !~ "*/input"', True),
    ],
)
def test_a_selector_may_say_either(predicate: str, holds: bool) -> None:
    assert _holds(predicate, "encoder.layer.0.output") is holds


def test_inspect_shows_both_and_a_policy_takes_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weight = onnx.numpy_helper.from_array(random(4, 3), "net.block.0.proj.weight")
    node = onnx.helper.make_node("MatMul", ["x", weight.name], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, 1, (2, size)) for name, size in (("x", 4), ("y", 3)))
    path, policy = tmp_path / "net.onnx", tmp_path / "its.qpolicy"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y], [weight])), path)
    assert main(["inspect", str(path), "--format", "json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["weights"]
    assert told["name"] == "net.block.0.proj" and told["also"][0] == "net/block.0/proj"
    for name, code in (("net/block.0/*", 0), ("net.block.0.*", 0), ("net/other/*", 1)):
        policy.write_text(f'qpolicy 1\nrule linear[name ~ "{name}"] {{ weights = int8 channel }}', encoding="utf-8")
        assert main(["check", str(policy), "--model", str(path)]) == code
        assert main(["explain", str(path), name]) == code
