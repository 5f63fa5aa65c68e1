"""Data from folders of images, texts and scripts: made a sample at a time, kept in a file, refused with one message."""

import gc
import pickle
import weakref
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.__main__ import main
from qcc.compiler.calibrate.parts import Parted, held_out
from qcc.compiler.calibrate.samples import load
from qcc.compiler.calibrate.sources.source import DataSource
from qcc.compiler.calibrate.sources.spool import Spool, Spooled
from qcc.compiler.observe.chunks import MOST_SAMPLES
from qcc.compiler.report.lock import read_plan
from qcc.ir.errors import ModelError
from qcc.ir.onnx.adapter import OnnxGraph
from tests.onnx_models import parse, random

IMAGES = "g (float[N, 3, 6, 4] image) => (float[N, 2] y) { f = Flatten (image)\n y = MatMul (f, w) }"
IDS = "g (int64[N, S] input_ids, int64[N, S] attention_mask) => (int64[N, S] y) { y = Mul (input_ids, attention_mask) }"
ROWS = "g (float[N, 8] x) => (float[N, 4] y) { y = MatMul (x, w) }"
REFUSING = "class Refusing:\n    def __array__(self, *rest, **more):\n        raise RuntimeError('it has a gradient')\n"
SCRIPT = """
import numpy as np

def calibration():
    for seed in range(20):
        yield {"x": np.random.default_rng(seed).standard_normal((1, 8), np.float32)}
"""


class _Held(np.ndarray):
    """An array that is told by what it is."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # arrays have none


def graph(body: str, folder: Path, **weights: np.ndarray) -> OnnxGraph:
    path = folder / "net.onnx"
    onnx.save(parse(body, weights), path)
    return OnnxGraph.load(path)


def fault(source: DataSource, onto: OnnxGraph) -> str:
    with pytest.raises(ModelError) as caught:
        load(source, onto, None, 0)
    return caught.value.code


def test_script_feeds(tmp_path: Path) -> None:
    net = graph(ROWS, tmp_path, w=random(8, 4))
    script = tmp_path / "data.py"
    script.write_text(SCRIPT, encoding="utf-8")
    found = load(script, net, None, 0)
    assert found.count == 20 and found.divisible and all(isinstance(one, Spooled) for one in found.batches)
    held = held_out(found)
    assert held is not None and held.count == 5 and all(isinstance(one, Spooled) for one in held.batches)
    assert load(DataSource(script), net, 3, 0).count == 3
    assert Parted.of(found).ones == found.batches  # nothing is read into memory
    with np.errstate(all="raise"):
        expected = np.random.default_rng(4).standard_normal((1, 8), np.float32)
    np.testing.assert_array_equal(found.batches[4]["x"], expected)


@pytest.mark.parametrize(("rows", "reads"), [(1, 0), (3, 20)])
def test_single_samples_are_counted_without_reading_them(
    rows: int, reads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, script = graph(ROWS, tmp_path, w=random(8, 4)), tmp_path / "data.py"
    script.write_text(SCRIPT.replace("(1, 8)", f"({rows}, 8)"), encoding="utf-8")
    read, asked = Spooled.__getitem__, list[str]()

    def counted(feed: Spooled, name: str) -> np.ndarray:
        asked.append(name)
        return read(feed, name)

    monkeypatch.setattr(Spooled, "__getitem__", counted)
    found = load(script, net, None, 0)
    assert asked == [] and found.divisible == (rows == 1)
    assert found.count == 20 * rows and len(asked) == reads


def test_spool_lives_as_long_as_its_feeds() -> None:
    spool = Spool()
    one = spool.add({"a": np.arange(6, dtype=np.int64).reshape(2, 3), "b": np.zeros((0, 2), np.float32)})
    path = one._path
    del spool
    gc.collect()
    np.testing.assert_array_equal(one["a"], np.arange(6).reshape(2, 3))
    again = pickle.loads(pickle.dumps(one))  # as another process gets it
    assert again["b"].shape == (0, 2) and list(again) == ["a", "b"]
    del one
    gc.collect()
    assert not path.exists()


def test_compiles_from_a_script(tmp_path: Path) -> None:
    graph(ROWS, tmp_path, w=random(8, 4))
    (tmp_path / "data.py").write_text(SCRIPT, encoding="utf-8")
    policy = "qpolicy 1\nrule linear { weights = int8 tensor; rounding = gptq }\nverify { cosine >= 0.99 }\n"
    result = qcc.compile(tmp_path / "net.onnx", policy, data=tmp_path / "data.py")
    assert result.passed and result.verification.origin.endswith("data.py")


def test_few_samples_are_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compilation with statistics never holds more of what it reads than a run takes."""
    graph(ROWS, tmp_path, w=random(8, 4))
    (tmp_path / "data.py").write_text(SCRIPT.replace("range(20)", "range(400)"), encoding="utf-8")
    read, most = Spooled.__getitem__, 0
    alive: weakref.WeakSet[_Held] = weakref.WeakSet()

    def counted(feed: Spooled, name: str) -> np.ndarray:
        nonlocal most
        found = read(feed, name).view(_Held)
        alive.add(found)
        most = max(most, len(alive))
        return found

    monkeypatch.setattr(Spooled, "__getitem__", counted)
    policy = "qpolicy 1\nrule linear { weights = int8 channel; activations = static; rounding = gptq }\n"
    qcc.compile(tmp_path / "net.onnx", policy, data=tmp_path / "data.py")
    assert most <= 2 * MOST_SAMPLES  # those of a run, and of the one before


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("def calibration():\n    raise ValueError('no')\n", "Q543"),
        ("x = 1\n", "Q543"),
        ("import nothing_of_this_name\n", "Q543"),
        ("def calibration():\n    return [1, 2]\n", "Q543"),
        ("def calibration():\n    return []\n", "Q420"),
        ("def calibration():\n    return [{'z': 1}]\n", "Q420"),
        ("def calibration():\n    return [{1: 2}]\n", "Q420"),
        ("def calibration():\n    return [{'x': [[1.0], [1.0, 2.0]]}]\n", "Q423"),
        ("def calibration():\n    return [{'x': [[0.0] * 8]}]\n", "Q423"),
        (f"{REFUSING}def calibration():\n    return [{{'x': Refusing()}}]\n", "Q423"),
    ],
)
def test_script_reject(text: str, code: str, tmp_path: Path) -> None:
    net = graph(ROWS, tmp_path, w=random(8, 4))
    (tmp_path / "data.py").write_text(text, encoding="utf-8")
    assert fault(DataSource(tmp_path / "data.py"), net) == code


def test_images(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    net = graph(IMAGES, tmp_path, w=random(72, 2))
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)
    image.fromarray(pixels).save(folder / "b.png")
    image.fromarray(np.full((12, 20), 255, np.uint8)).save(folder / "more" / "a.png")  # grey, wide
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    found = load(DataSource(folder, mean=(0.5,), std=(0.25, 0.5, 1.0)), net, None, 0)
    assert found.count == 2 and "less 0.5" in found.origin
    wanted = (pixels.astype(np.float32) / 255 - 0.5) / np.array([0.25, 0.5, 1.0])
    np.testing.assert_allclose(
        found.batches[0]["image"][0], wanted.transpose(2, 0, 1), atol=1e-6
    )  # a rounding of float32
    np.testing.assert_allclose(found.batches[1]["image"][0, :, 0, 0], [2.0, 1.0, 0.5], atol=1e-6)


def test_images_reject(tmp_path: Path) -> None:
    net, folder = graph(IMAGES, tmp_path, w=random(72, 2)), tmp_path / "photos"
    folder.mkdir()
    assert fault(DataSource(folder), net) == "Q543"  # there are none
    pytest.importorskip("PIL")
    (folder / "a.png").write_bytes(b"no image")
    assert fault(DataSource(folder), net) == "Q543"
    assert fault(DataSource(folder), graph(ROWS, tmp_path, w=random(8, 4))) == "Q543"
    assert fault(DataSource(folder, std=(0.0,)), net) == "Q543"


def test_without_pillow_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    net = graph(IMAGES, tmp_path, w=random(72, 2))
    (tmp_path / "a.png").write_bytes(b"")
    assert fault(DataSource(tmp_path), net) == "Q544"


def tokenizer(folder: Path) -> Path:
    library = pytest.importorskip("tokenizers")
    vocabulary = {word: at for at, word in enumerate(["[UNK]", "a", "cat", "sat"])}
    made = library.Tokenizer(library.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = library.pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    return folder


def test_text(tmp_path: Path) -> None:
    net = graph(IDS, tmp_path)
    (tmp_path / "lines.txt").write_text("a cat sat\n\n  dog sat \n", encoding="utf-8")
    found = load(DataSource(tmp_path / "lines.txt", tokenizer(tmp_path)), net, None, 0)
    assert [one["input_ids"].tolist() for one in found.batches] == [[[1, 2, 3]], [[0, 3]]]
    assert found.batches[1]["attention_mask"].tolist() == [[1, 1]]


def test_text_of_a_fixed_length(tmp_path: Path) -> None:
    net = graph(IDS.replace("S]", "4]"), tmp_path)
    (tmp_path / "lines.txt").write_text("a cat\na a a a a a\n", encoding="utf-8")
    found = load(DataSource(tmp_path / "lines.txt", tokenizer(tmp_path)), net, None, 0)
    assert [one["attention_mask"].tolist() for one in found.batches] == [[[1, 1, 0, 0]], [[1, 1, 1, 1]]]


def test_text_reject(tmp_path: Path) -> None:
    net, path = graph(IDS, tmp_path), tmp_path / "lines.txt"
    path.write_text("a cat\n", encoding="utf-8")
    assert fault(DataSource(path), net) == "Q543"  # no tokenizer
    assert fault(DataSource(path, tmp_path / "nowhere.json"), net) == "Q543"
    assert fault(DataSource(path, tokenizer(tmp_path)), graph(ROWS, tmp_path, w=random(8, 4))) == "Q543"
    net = graph(IDS, tmp_path)
    path.write_bytes(b"\xff\xfe\xff\n")
    assert fault(DataSource(path, tmp_path), net) == "Q543"
    assert fault(DataSource(tmp_path / "none.txt", tmp_path), net) == "Q420"


@pytest.mark.parametrize("more", [["--mean", "0.5"], ["--data", "x.npz", "--std", "1"], ["--data", ".", "--mean", "x"]])
def test_options_reject(more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph(ROWS, tmp_path, w=random(8, 4))
    assert main(["compile", str(tmp_path / "net.onnx"), *more]) == 2
    assert "--mean" in capsys.readouterr().err


def test_a_policy_names_a_folder(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    graph(IMAGES, tmp_path, w=random(72, 2))
    (tmp_path / "photos").mkdir()
    for at in range(3):
        pixels = np.random.default_rng(at).integers(0, 256, (6, 4, 3), np.uint8)
        image.fromarray(pixels).save(tmp_path / "photos" / f"{at}.png")
    policy = tmp_path / "p.qpolicy"
    line = 'calibrate "photos/" { samples = 2, mean = "0.5", std = "0.25" }'
    policy.write_text(f"qpolicy 1\n{line}\nrule any {{ weights = int8 channel }}\n", encoding="utf-8")
    result = qcc.compile(tmp_path / "net.onnx", policy, output=tmp_path / "out.onnx")
    assert result.verification.samples == 2 and "less 0.5, over 0.25" in result.verification.origin
    again = qcc.compile(tmp_path / "net.onnx", plan=read_plan(result.lock), output=tmp_path / "again.onnx")
    assert again.verification.samples == 2


@pytest.mark.parametrize("command", ["sweep", "analyze", "bench"])
def test_other_commands_take_the_same_data(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = tmp_path / "net.onnx"
    graph(ROWS, tmp_path, w=random(8, 4))
    (tmp_path / "data.py").write_text(SCRIPT, encoding="utf-8")
    assert main([command, str(net), "--mean", "0.5"]) == 2
    assert main([command, str(net), "--data", str(tmp_path / "none.txt"), "--tokenizer", "x.json"]) == 1
    assert "Q420" in capsys.readouterr().err
    if command == "bench":
        assert main([command, str(net), "--data", str(tmp_path / "data.py"), "--rounds", "3", "--threads", "1"]) == 0
