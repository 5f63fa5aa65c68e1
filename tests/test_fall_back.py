"""Where a bound fails, the weights that lose most become what their rules fall back to; nothing else does."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.report.lock import read_lock
from qcc.compiler.report.result import Result
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.graph.ops import Weight
from qcc.passes.rounding.nearest import Nearest
from tests import onnx_models as models

LAYERS = 6
BODY = (
    "g (float[N,64] x) => (float[N,64] h6) { "
    + " ".join(f"[m{at}] m{at} = MatMul(h{at}, w{at}) h{at + 1} = Add(m{at}, h{at})" for at in range(LAYERS)).replace(
        "h0", "x"
    )
    + " }"
)
HEAD = "qpolicy 1\nrule any { weights = int3 channel"
BOUND = "verify { cosine >= 0.98 }\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A residual network, in which the layer `m4` speaks loudest and is hard to encode."""
    weights = {f"w{at}": models.random(64, 64, seed=at) / 60 for at in range(LAYERS)}
    outlier = models.random(64, 64) / 8
    outlier[::9] *= 12
    weights["w4"] = outlier.astype(np.float32)
    onnx.save(models.parse(BODY, weights), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def formats(result: Result) -> dict[str, str]:
    return {row.name: " ".join(row.format.split()[:2]) for row in result.layers}


def fell_back(result: Result) -> list[str]:
    return [one.message for one in result.warnings if one.code == "Q620"]


@pytest.mark.parametrize(("ladder", "worst"), [("float", "float32"), ("int8 channel | float", "int8 channel")])
def test_what_loses_most_falls_back_and_the_bound_holds(model: Path, ladder: str, worst: str) -> None:
    result = qcc.compile(model, f"{HEAD}; fallback = {ladder} }}\n{BOUND}")
    assert result.passed
    found = formats(result)
    assert found.pop("m4") == worst
    assert set(found.values()) == {"int3 channel"}
    assert fell_back(result) == [
        "1 of 6 weights fell back, so that `cosine >= 0.98` holds on generated data: `m4`",
    ]


@pytest.mark.slow
def test_what_takes_the_place_of_a_slow_file_falls_back_too(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that is faster is held to the same bounds, by the same rules."""
    failing = qcc.compile(model, f"{HEAD} }}\n{BOUND}").plan
    monkeypatch.setattr("qcc.compiler.compilation.Compilation._faster", lambda *_: failing)
    result = qcc.compile(model, f"qpolicy 1\nrule any {{ weights = int8 channel; fallback = float }}\n{BOUND}")
    assert result.passed and formats(result)["m4"] == "float32"
    assert len(fell_back(result)) == 1


def test_nothing_falls_back_without_a_rule_for_it_reject(model: Path) -> None:
    result = qcc.compile(model, f"{HEAD} }}\n{BOUND}")
    assert not result.passed
    assert set(formats(result).values()) == {"int3 channel"}
    assert fell_back(result) == []


def test_nothing_falls_back_where_the_bound_holds(model: Path) -> None:
    result = qcc.compile(model, f"{HEAD}; fallback = float }}\nverify {{ cosine >= 0.5 }}\n")
    assert result.passed
    assert set(formats(result).values()) == {"int3 channel"}
    assert fell_back(result) == []


@pytest.mark.slow
def test_a_bound_on_the_size_stays_reject(model: Path) -> None:
    """The worst layer in float would break it, so that no layer may fall back."""
    size = qcc.compile(model, f"{HEAD} }}\nverify {{ cosine >= 0.5 }}\n").output_bytes
    text = f"{HEAD}; fallback = float }}\nbudget {{ size <= {size + 500} B }}\n{BOUND}"
    result = qcc.compile(model, text)
    assert not result.passed
    assert set(formats(result).values()) == {"int3 channel"}


def test_a_bound_that_nothing_keeps_is_told_with_what_fell_back_reject(model: Path) -> None:
    text = f"{HEAD}; fallback = int4 channel }}\nverify {{ cosine >= 0.99999 }}\n"
    result = qcc.compile(model, text)
    assert not result.passed
    (message,) = fell_back(result)
    assert "still does not hold" in message


@pytest.mark.slow
def test_a_lock_repeats_what_was_decided(model: Path, tmp_path: Path) -> None:
    first = qcc.compile(model, f"{HEAD}; fallback = float }}\n{BOUND}", output=tmp_path / "a.onnx")
    again = qcc.compile(model, plan=read_lock(first.lock), output=tmp_path / "b.onnx")
    assert first.output.read_bytes() == again.output.read_bytes()
    assert fell_back(again) == []


@pytest.mark.slow
def test_what_is_chosen_among_several_falls_back_too(model: Path) -> None:
    """The loss of what was chosen first is none of what it fell back to."""
    head = HEAD.replace("int3 channel", "int{2,3} channel")
    text = f"{head}; fallback = int8 channel }}\nbudget {{ output_error <= 40% }}\nminimize size\n{BOUND}"
    result = qcc.compile(model, text)
    assert result.passed and result.allocation is not None
    assert formats(result)["m4"] == "int8 channel"
    losses = {row.name: row.loss for row in result.layers}
    assert losses.pop("m4") is None
    assert None not in losses.values()


@pytest.mark.slow
def test_what_stays_as_it_was_is_not_encoded_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each weight is once, and what falls back once more; the file is that of the plan alone."""
    rounded: list[str] = []
    encode = Nearest.encode

    def counted(self: Nearest, weight: Weight, *given: Any) -> Encoded:
        rounded.append(weight.name)
        return encode(self, weight, *given)

    monkeypatch.setattr(Nearest, "encode", counted)
    result = qcc.compile(model, f"{HEAD}; fallback = int8 channel }}\n{BOUND}", output=model.with_name("a.onnx"))
    assert formats(result)["m4"] == "int8 channel"
    assert sorted(rounded) == ["m0", "m1", "m2", "m3", "m4", "m4", "m5"]
    alone = qcc.compile(model, plan=read_lock(result.lock), output=model.with_name("b.onnx"))
    assert alone.output.read_bytes() == result.output.read_bytes()
