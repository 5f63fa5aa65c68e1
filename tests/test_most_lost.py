"""After a failed verification the layers that lose most are named, and what is suggested helps."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from qcc.__main__ import main
from qcc.compiler.compile import compile
from qcc.compiler.plan.catalog import schema
from qcc.compiler.report.failures import failed_bounds, suggestion
from qcc.compiler.report.page.html import render_html
from qcc.dsl.load import load_text
from tests import onnx_models as models

LAYERS = 6
BODY = (
    "g (float[N,64] x) => (float[N,64] h6) { "
    + " ".join(f"m{at} = MatMul(h{at}, w{at}) h{at + 1} = Add(m{at}, h{at})" for at in range(LAYERS)).replace("h0", "x")
    + " }"
)
WORST = "node_8"  # the op that reads `w4`
POLICY = "qpolicy 1\nrule any { weights = int3 channel }\nverify { cosine >= 0.999 }\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A residual network, in which the layer `w4` speaks loudest and is hard to encode."""
    weights = {f"w{at}": models.random(64, 64) / 60 for at in range(LAYERS)}
    outlier = models.random(64, 64) / 8
    outlier[::9] *= 12
    weights["w4"] = outlier.astype(np.float32)
    onnx.save(models.parse(BODY, weights), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_the_worst_is_named_with_its_share(model: Path) -> None:
    ticks: list[str] = []
    told = lambda phase, _done, _total, detail: ticks.append(detail) if phase == "locate" else None  # noqa: E731
    result = compile(model, load_text(POLICY, schema()), progress=told)
    losers = result.verification.losers
    assert not result.passed
    assert losers[0].weight == WORST
    assert 0.5 < losers[0].share <= 1
    assert [one.share for one in losers] == sorted((one.share for one in losers), reverse=True)
    assert sum(one.share for one in losers) <= 1 + 1e-9  # shares of one noise
    assert WORST in ticks
    page = render_html(result)
    assert "loses most:" in page and "of the noise" in page


def test_what_is_suggested_compiles_and_helps(model: Path) -> None:
    failed = compile(model, load_text(POLICY, schema()))
    rule = suggestion(failed)
    assert rule in (failed_bounds(failed)[0].help or "")
    helped = compile(model, load_text(POLICY + rule + "\n", schema()))
    before, after = (one.verification.outputs[0].sqnr for one in (failed, helped))
    assert after > before + 3  # dB: more than half of the noise is gone


@pytest.mark.slow
def test_it_is_told_and_is_in_the_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model.parent / "p.qpolicy").write_text(POLICY)
    words = ["compile", str(model), "-p", str(model.parent / "p.qpolicy")]
    assert main(words) == 3
    told = capsys.readouterr()
    assert (
        "loses most: `" in told.out and "loses most: `" in told.err and "end the policy with `rule any[name" in told.err
    )
    assert main([*words, "--format", "json"]) == 3
    losers = json.loads(capsys.readouterr().out)["verification"]["losers"]
    assert set(losers[0]) == {"weight", "loss", "share"}


def test_nothing_is_looked_for_where_all_holds(model: Path) -> None:
    phases: list[str] = []
    result = compile(
        model, load_text(POLICY.replace("int3", "int8"), schema()), progress=lambda phase, *_: phases.append(phase)
    )
    assert result.passed
    assert result.verification.losers == ()
    assert "locate" not in phases
