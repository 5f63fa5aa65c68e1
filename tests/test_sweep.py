"""A sweep's curve is the allocator's, and its law is told by points that it has not seen."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import qcc
from qcc.__main__ import main
from qcc.compiler.commands.options.picture import check_picture
from qcc.compiler.sweep.law import KindPoint, Kinds, fitted, knee
from qcc.compiler.sweep.sweep import sweep
from qcc.ir.errors import ModelError
from tests import onnx_models as models

POLICY = "qpolicy 1\nrule any { weights = int{3,4,5,6,8} channel }\n"
CLOSE = 0.05  # of a size: the functions of further formats, of which only the smallest file tells
SAME = 1e-9
ASKED = 0.05  # of a point that is left out
FOUND = 0.02  # of a rate: the grid has steps of 2 %

BITS = np.linspace(2.5, 8, 8)


def alone(losses: Sequence[float] | np.ndarray) -> list[Kinds]:
    """A curve of one kind of layer."""
    return [{"linear": KindPoint(1000, bits, float(loss))} for bits, loss in zip(BITS, losses, strict=False)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of five layers, and data for it."""
    found = tmp_path_factory.mktemp("sweep")
    body = "g (float[N,128] x) => (float[N,128] h5) { " + " ".join(
        f"m{at} = MatMul({'x' if at == 0 else f'h{at}'}, w{at}) h{at + 1} = Tanh(m{at})" for at in range(5)
    )
    weights = {f"w{at}": models.random(128, 128, seed=at) / 11 for at in range(5)}
    onnx.save(models.parse(body + " }", weights), found / "m.onnx")
    np.savez(found / "d.npz", x=np.random.default_rng(0).normal(size=(16, 128)).astype(np.float32))
    (found / "p.qpolicy").write_text(POLICY)
    return found


@pytest.mark.slow
def test_every_point_is_what_a_compilation_for_its_loss_takes(folder: Path, tmp_path: Path) -> None:
    found = sweep(folder / "m.onnx", POLICY, sizes=4, data=folder / "d.npz")
    losses, sizes = [one.loss for one in found.points], [one.size_bytes for one in found.points]
    assert losses == sorted(losses, reverse=True) and sizes == sorted(sizes)
    middle = found.points[1]
    budget = f"budget {{ output_error <= {middle.loss * (1 + SAME):.12g} }}\nminimize size"
    result = qcc.compile(folder / "m.onnx", POLICY + budget, data=folder / "d.npz", output=tmp_path / "o.onnx")
    assert result.output_bytes <= middle.size_bytes * (1 + CLOSE)
    assert result.output_bytes > found.points[0].size_bytes * (1 - CLOSE)


@pytest.mark.slow
def test_a_law_of_either_form_is_found_and_foretells_points_left_out() -> None:
    for form, rate, losses in (
        ("power", 3.0, 0.01 + 5 * BITS**-3.0),
        ("exponential", 2.0, 0.001 + 3 * 2 ** (-2 * BITS)),
        ("levels", 1.8, 0.002 + 9 * (2**BITS - 2) ** -1.8),
    ):
        law = fitted(alone(losses))
        assert law is not None
        (found,) = law.laws.values()
        assert found.form == form and found.rate == pytest.approx(rate, rel=FOUND)
        assert max(law.errors) <= FOUND
        assert found(4.0) == pytest.approx(float(np.interp(4.0, BITS, losses)), rel=0.1)


def test_a_table_that_steps_has_a_law_of_its_own() -> None:
    tables, layers = np.array([2, 2, 2, 3, 3, 4, 4, 5, 6, 8]), np.array([2.0, 2.7, 3.5, 3.3, 4.6, 4.4, 6, 6.2, 7, 8])
    lost = 2 * 2.0 ** (-2 * tables), 40 * 2.0 ** (-2 * layers)
    points = [
        {
            "embedding": KindPoint(1000, one, first),
            "linear": KindPoint(900, other, second),
            "conv": KindPoint(10, other, second / 9),
        }
        for one, other, first, second in zip(tables, layers, *lost, strict=True)
    ]
    law = fitted(points)
    assert law is not None and list(law.laws) == ["embedding", "linear conv"] and max(law.errors) <= ASKED
    assert law.lines[1].startswith("+ ") and law.lines[1].endswith("of linear, conv")
    together = [{"any": one["embedding"] + one["linear"] + one["conv"]} for one in points]
    mixed = fitted(together)
    assert mixed is not None and np.median(mixed.errors) > ASKED


def test_parts_without_a_law_go_with_the_others() -> None:
    losses = 0.001 + 3 * 2 ** (-2 * BITS)
    for other in ([KindPoint(50, 4.0, 0.01)] * len(BITS), [KindPoint(50, one, 0.0) for one in BITS]):
        points = [
            {"conv": KindPoint(100, *one), "linear": two}
            for one, two in zip(zip(BITS, losses, strict=True), other, strict=True)
        ]
        law = fitted(points)
        assert law is not None and list(law.laws) == ["conv linear"]


@pytest.mark.slow
def test_points_where_all_is_lost_say_nothing_of_the_law() -> None:
    losses = 0.001 + 3 * 2 ** (-2 * BITS)
    losses[0] = 25
    law = fitted(alone(losses), 1.0)
    assert law is not None and max(law.errors) <= FOUND and len(law.errors) == len(BITS) - 3
    assert fitted(alone(losses), 1e-3) is None


def test_few_points_have_no_law() -> None:
    assert fitted(alone([1, 0.5, 0.2, 0.1])) is None
    assert fitted(alone([0, 0, 0, 0, 0])) is None


def test_a_knee_is_where_a_curve_bends_and_a_line_has_none() -> None:
    assert knee([10, 20, 30, 40, 50], [1, 0.1, 0.09, 0.08, 0.07]) == 1
    assert knee([1, 2, 4, 8], [8, 4, 2, 1]) is None
    assert knee([1, 2], [2, 1]) is None


@pytest.mark.slow
def test_the_table_fits_and_json_has_the_curve(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", str(folder / "m.onnx"), "-p", str(folder / "p.qpolicy"), "--data", str(folder / "d.npz")]
    assert main([*words, "--sizes", "6"]) == 0
    text = capsys.readouterr().out
    assert "of a point that is left out it is" in text and "bytes  of input" in text
    assert main([*words, "--sizes", "6", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["points"]) == 6 and told["law"]["held_one_out"]


@pytest.mark.parametrize(
    ("policy", "words", "status", "message"),
    [
        ("rule any { weights = int8 channel }", [], 1, "Q365"),
        ("rule any { keep }", [], 1, "Q365"),
        ("rule any { weights = int{4,8} }", ["--sizes", "1"], 2, "whole numbers from 2"),
    ],
)
def test_sweep_reject(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    policy: str,
    words: list[str],
    status: int,
    message: str,
) -> None:
    (tmp_path / "p.qpolicy").write_text(f"qpolicy 1\n{policy}\n")
    assert main(["sweep", str(folder / "m.onnx"), "-p", str(tmp_path / "p.qpolicy"), *words]) == status
    assert message in capsys.readouterr().err


def test_a_sweep_is_drawn(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["sweep", str(folder / "m.onnx"), "-p", str(folder / "p.qpolicy"), "--data", str(folder / "d.npz")]
    assert main([*asked, "--sizes", "5", "--picture", str(tmp_path / "c.svg")]) == 0
    drawn = (tmp_path / "c.svg").read_text()
    assert drawn.startswith("<svg") and drawn.count("<circle") >= 4 and 'class="law"' in drawn
    assert main([*asked, "--sizes", "5", "--picture", str(tmp_path / "c.png")]) == 0
    image = Image.open(tmp_path / "c.png")
    assert image.size == (1800, 1040)
    seen = {colour for _, colour in image.getcolors(1 << 20) or ()}
    assert {(255, 255, 255), (43, 108, 176)} <= seen  # the ground, and points
    assert main([*asked, "--picture", str(tmp_path / "c.gif")]) == 2
    assert ".svg or .png" in capsys.readouterr().err


def test_a_picture_of_pixels_takes_pillow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told before the long work."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ModelError, match="takes Pillow") as caught:
        check_picture(folder / "c.png")
    assert caught.value.code == "Q546"
