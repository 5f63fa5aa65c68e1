"""What reports tell of sparse layers: as much is stored, and matters, as a count of what is decoded says."""

from pathlib import Path

import numpy as np
import pytest

from qcc.compiler.compile import compile
from qcc.passes.contract.holes import CELLS, FULL, Holes

MODEL = Path("examples/fashion/fashion-cnn.onnx")
DATA = Path("examples/fashion/calibration.npz")
POLICY = """qpolicy 1
rule conv[params > 30000], linear { sparsity = blocks(4x4, keep = 25%) }
verify { cosine >= -0.9 }
"""


def test_a_picture_counts_what_is_left() -> None:
    draw = np.random.default_rng(0)
    matrix = draw.standard_normal((100, 70))
    left = matrix * (draw.random((100, 70)) < 0.3)
    power = draw.random(70)
    holes = Holes.of(matrix, left, 0.3, np.diag(power))
    assert holes.saliency == pytest.approx(np.sum(left**2 * power) / np.sum(matrix**2 * power))
    shades = np.array([[int(one) for one in row] for row in holes.picture])
    assert shades.shape == (CELLS, CELLS)
    assert shades.mean() / FULL == pytest.approx((left != 0).mean(), abs=0.02)  # digits round


def test_nothing_left_and_all_left() -> None:
    ones = np.ones((4, 6))
    assert Holes.of(ones, ones, 1.0, None) == Holes(1.0, 1.0, ("9" * 6,) * 4)
    assert Holes.of(ones, 0 * ones, 0.0, None) == Holes(0.0, 0.0, ("0" * 6,) * 4)


@pytest.mark.slow
def test_the_page_shows_what_layers_keep(tmp_path: Path) -> None:
    result = compile(MODEL, POLICY, output=tmp_path / "sparse.onnx", data=DATA)
    rows = {row.name: row.holes for row in result.layers if row.holes is not None}
    assert len(rows) >= 2
    assert all(holes.density == pytest.approx(0.25, abs=0.01) and holes.saliency > 0.25 for holes in rows.values())
    page = result.report.read_text(encoding="utf-8")
    assert "What sparse layers keep" in page and page.count('class="pattern"') == len(rows)
    plain = compile(MODEL, "balanced", output=tmp_path / "int8.onnx")
    assert "What sparse layers keep" not in plain.report.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_draws_what_exchanges_did_by_their_time(tmp_path: Path) -> None:
    policy = POLICY.replace("keep = 25%", "keep = 25%, effort = 4")
    result = compile(MODEL, policy, output=tmp_path / "sparse.onnx", data=DATA)
    curves = [row.holes.curve for row in result.layers if row.holes is not None]
    assert len(curves) >= 2
    for curve in curves:
        seconds, errors = zip(*curve, strict=True)
        assert 2 <= len(curve) <= 5 and list(seconds) == sorted(seconds)
        assert list(errors) == sorted(errors, reverse=True) and errors[0] > errors[-1]
    assert result.report.read_text(encoding="utf-8").count('class="effort"') == len(curves)
