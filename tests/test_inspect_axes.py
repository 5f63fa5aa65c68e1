"""`qcc inspect --axes`: repeated layers told once, sides classified, and a picture that is the same every time."""

import json
import re
import runpy
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

from qcc.__main__ import main
from qcc.compiler.console.numbered_names import patterns
from qcc.compiler.inspect.layout import layout
from qcc.compiler.inspect.picture import draw
from qcc.compiler.inspect.survey import Survey
from qcc.ir.axes.axes import Action
from tests import axes_models as models

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "axes"
BLOCKS = ["attention", "feedforward", "attention", "feedforward", "attention", "feedforward"]


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of the documentation."""
    path = tmp_path_factory.mktemp("axes") / "block.onnx"
    runpy.run_path(str(ROOT / "docs" / "generate.py"))["write_block"](path)
    return path


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three alike blocks of a transformer."""
    path = tmp_path_factory.mktemp("deep") / "deep.onnx"
    ir.save(models.chain(BLOCKS, seed=0, images=False).model, path)
    return path


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["inspect", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.slow
def test_a_transformer_block(
    block: Path, capsys: pytest.CaptureFixture[str], golden: Callable[[Path, str], None]
) -> None:
    golden(GOLDEN / "block.out", shown(capsys, str(block), "--axes"))
    golden(GOLDEN / "block.group.out", shown(capsys, str(block), "--axes", "--group", "v_*"))


def test_sides(block: Path, capsys: pytest.CaptureFixture[str]) -> None:
    axes = json.loads(shown(capsys, str(block), "--axes", "--format=json"))["axes"]
    sides = {(one["weight"], one["side"]): (one["structure"], one["freedom"]) for one in axes["sides"]}
    assert sides["q_proj", "out"] == ("2 x 2 x (4 + 4)", "in blocks only")
    assert sides["o_proj", "in"] == ("2 x 2 x 8", "in blocks only")
    assert sides["down_proj", "out"] == ("16", "free")
    assert sides["head", "out"] == ("40", "fixed")


def test_json_holds_every_group_with_its_members(block: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from qcc.compiler.files.open_model import open_model

    axes = Survey(open_model(block).graph).axes
    told = json.loads(shown(capsys, str(block), "--axes", "--format=json"))["axes"]["groups"]
    for action in Action:
        wanted = [(group.name, len(group.members), group.fixed or None) for group in axes.groups(action)]
        assert [(one["name"], len(one["members"]), one["fixed"]) for one in told[action.value]] == wanted


def test_repeated_layers_are_told_once(deep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, str(deep), "--axes")
    assert "(3 groups)" in text


@pytest.mark.slow
def test_repeated_layers_are_drawn_once(deep: Path) -> None:
    from qcc.compiler.files.open_model import open_model

    survey = Survey(open_model(deep).graph)
    made = layout(survey)
    assert [frame.count for frame in made.frames] == [3]
    assert sum(len(row.names) for row in made.rows) == sum(len(weight.layers) for weight in survey.weights)


@pytest.mark.slow
def test_lanes_do_not_overlap(deep: Path, block: Path) -> None:
    from qcc.compiler.files.open_model import open_model

    for path in (deep, block, ROOT / "examples" / "fashion" / "fashion-cnn.onnx"):
        lanes = layout(Survey(open_model(path).graph)).lanes
        for one in lanes:
            beside = [other for other in lanes if (other.left, other.column) == (one.left, one.column)]
            assert all(other is one or other.stop < one.start or one.stop < other.start for other in beside)


@pytest.mark.parametrize("suffix", [".svg", ".html"])
def test_the_picture_is_the_same_every_time(
    suffix: str, block: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        assert shown(capsys, str(block), "--axes", "--picture", str(path)) == f"wrote {path}\n"
    first, second = (path.read_text(encoding="utf-8") for path in paths)
    assert first == second
    assert sorted(tmp_path.iterdir()) == paths
    ElementTree.fromstring(re.sub("<!DOCTYPE html>|&[a-z]+;", "", first))


def test_a_picture_escapes_names() -> None:
    survey = Survey(models.chain(["residual"], seed=0, images=False))
    assert "<script>" not in draw(survey, "<script>alert(1)</script>", html=True)


@pytest.mark.slow
def test_every_drawn_kind_of_block_gives_a_picture() -> None:
    for kinds, images in ((models.TOKEN_BLOCKS, False), (models.IMAGE_BLOCKS, True)):
        for kind in kinds:
            ElementTree.fromstring(draw(Survey(models.chain([kind, kind], seed=0, images=images)), kind))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--group", "x"], "`--group` needs `--axes`"),
        (["--picture", "x.svg"], "`--picture` needs `--axes`"),
        (["--axes", "--picture", "x.png"], "a picture ends in .svg or .html: `x.png`"),
        (["--axes", "--group", "nothing"], "no group and no layer fits `nothing`"),
    ],
)
def test_wrong_options_reject(words: list[str], message: str, block: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(block), *words]) == 2
    assert message in capsys.readouterr().err


def test_names_that_differ_in_one_number() -> None:
    assert patterns(["a.0.x", "a.1.x", "a.2.x", "a.4.x"]) == ["a.{0..2,4}.x"]
    assert patterns(["a.0.1", "a.1.1", "b"]) == ["a.{0,1}.1", "b"]
    assert patterns(["s0.b0", "s0.b1", "s1.b0", "s1.b1", "s1.b2"]) == ["s0.b{0,1}", "s1.b{0..2}"]
