"""Packs: models of a family in one folder, each constant once, opened by plain ONNX Runtime."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from qcc.__main__ import main
from qcc.compiler.pack import draft
from qcc.compiler.pack import pack as packing
from qcc.compiler.pack.index import DATA, INDEX, PackIndex
from qcc.compiler.pack.pack import check_pack, pack
from qcc.ir.errors import ModelError

WIDTH, LAYERS = 96, 4
RANDOM = np.random.default_rng(2)
FEED = RANDOM.standard_normal((3, WIDTH)).astype(np.float32)
Weights = dict[str, np.ndarray]


def weights(seed: int = 0) -> Weights:
    """Of a base that others are fine-tuned from."""
    draw = np.random.default_rng(seed)
    return {
        f"layer.{at}.weight": (draw.standard_normal((WIDTH, WIDTH)) / 10).astype(np.float32) for at in range(LAYERS)
    }


def write(path: Path, found: Mapping[str, np.ndarray], location: str | None = None) -> Path:
    """A model of products and tanh, one after the other."""
    nodes, at = list[onnx.NodeProto](), "x"
    for name in found:
        nodes.append(helper.make_node("MatMul", [at, name], [f"{name}.product"]))
        nodes.append(helper.make_node("Tanh", [f"{name}.product"], [at := f"{name}.out"]))
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", WIDTH]) for name in ("x", at)]
    graph = helper.make_graph(nodes, "net", value[:1], value[1:])
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in found.items())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=location is not None, location=location)
    return path


def run(path: Path) -> np.ndarray:
    """What plain ONNX Runtime makes of a model where it lies."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": FEED})[0]
    return found


def size(folder: Path) -> int:
    """Of a pack, its index aside."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.name != INDEX)


@pytest.fixture
def family(tmp_path: Path) -> tuple[Path, Path]:
    """A base, and a model that differs in one layer."""
    base, tuned = weights(), weights()
    tuned["layer.2.weight"] = weights(1)["layer.2.weight"]
    (tmp_path / "apart").mkdir()
    apart = write(tmp_path / "apart" / "tuned.onnx", tuned, "tuned.data")
    return write(tmp_path / "base.onnx", base), apart


def test_constants_of_the_same_bytes_lie_there_once(family: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    wanted = [run(path) for path in family]
    done = pack(folder, family)
    assert done.added == ("base.onnx", "tuned.onnx") and done.size_bytes == size(folder)
    for path, output in zip(family, wanted, strict=True):
        np.testing.assert_array_equal(run(folder / path.name), output)
    block = 4 * WIDTH**2
    assert size(folder) <= 1.02 * ((LAYERS + 1) * block + 2000)
    assert check_pack(folder).models.keys() == {"base.onnx", "tuned.onnx"}
    assert {path.name for path in folder.iterdir()} == {"base.onnx", "tuned.onnx", DATA, INDEX}


def test_the_same_bytes_come_out_again_and_a_model_is_added(family: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    pack(one, family)
    pack(two, family[:1])
    kept = run(two / "base.onnx")
    pack(two, family[1:], add=True)
    np.testing.assert_array_equal(run(two / "base.onnx"), kept)
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in two.iterdir()
    }
    assert pack(one, family).added == ()


def _variants(tmp_path: Path, count: int, change: Callable[[Weights, int], None]) -> list[Path]:
    found = [write(tmp_path / "base.onnx", weights())]
    for at in range(count):
        tuned = weights()
        change(tuned, at)
        found.append(write(tmp_path / f"variant{at}.onnx", tuned))
    return found


def _low_rank(tuned: Weights, at: int) -> None:
    draw = np.random.default_rng(10 + at)
    factors = draw.standard_normal((WIDTH, 1)), draw.standard_normal((1, WIDTH))
    tuned["layer.3.weight"] += (0.02 * factors[0] @ factors[1]).astype(np.float32)


def _few(tuned: Weights, at: int) -> None:
    draw = np.random.default_rng(20 + at)
    tuned["layer.3.weight"].reshape(-1)[draw.choice(WIDTH**2, 40, replace=False)] += 0.5


@pytest.mark.slow
@pytest.mark.parametrize("change", [_low_rank, _few], ids=["narrow", "few"])
def test_variants_are_computed_of_the_base(change: Callable[[Weights, int], None], tmp_path: Path) -> None:
    models, folder = _variants(tmp_path, 8, change), tmp_path / "pack"
    wanted = [run(path) for path in models]
    done = pack(folder, models, within=1e-4)
    assert size(folder) <= 1.2 * models[0].stat().st_size  # of 147 KB, nine graphs are a tenth
    for path, output in zip(models, wanted, strict=True):
        error = np.linalg.norm(run(folder / path.name) - output) / np.linalg.norm(output)
        assert error <= 1e-4
    told = done.index.models["variant0.onnx"]
    assert told.near and told.error is not None and told.error <= 1e-4
    check_pack(folder)


def test_what_is_nearly_the_same_is_shared_as_far_as_outputs_allow(tmp_path: Path) -> None:
    def noise(tuned: Weights, at: int) -> None:
        draw = np.random.default_rng(30 + at)
        for array in tuned.values():
            array += 0.1 * 10.0 ** (-2 * at - 1) * draw.standard_normal(array.shape).astype(np.float32)

    models, folder = _variants(tmp_path, 2, noise), tmp_path / "pack"
    wanted = [run(path) for path in models]
    index = pack(folder, models, within=1e-2).index
    assert set(index.models["variant1.onnx"].near.values()) == {"another"}
    assert set(index.models["variant0.onnx"].near.values()) <= {"6 bits a number", "8 bits a number"}  # of a hundredth
    for path, output in zip(models, wanted, strict=True):
        assert np.linalg.norm(run(folder / path.name) - output) <= 1e-2 * np.linalg.norm(output)


@pytest.mark.parametrize("columns", [64, 61])
def test_what_is_neither_narrow_nor_few_takes_two_bits_a_level(columns: int, tmp_path: Path) -> None:
    """Full fine-tuning: a difference of each number, of every size, in four bits each."""
    draw = np.random.default_rng(7)
    base = draw.standard_normal((48, columns)).astype(np.float32)
    tuned = base + (0.03 * draw.standard_normal(base.shape) * np.linspace(0, 1, 48)[:, None]).astype(np.float32)
    models = []
    for name, array in (("base", base), ("tuned", tuned)):
        path = tmp_path / f"{name}.onnx"
        model = onnx.parser.parse_model(
            f"""<ir_version: 8, opset_import: ["": 13]>
            net (float[n, 48] x) => (float[n, {columns}] y) {{ y = MatMul(x, w) }}"""
        )
        model.graph.initializer.append(numpy_helper.from_array(array, "w"))
        onnx.save(model, path)
        models.append(path)
    done = pack(tmp_path / "pack", models, within=2e-3)
    told = done.index.models["tuned.onnx"]
    assert told.near == {"w": "4 bits a number"} and told.error is not None and told.error <= 2e-3
    assert told.new_bytes < 0.3 * base.nbytes + 6000  # of which the table of a byte's numbers is 4,096
    feed = {"x": np.eye(48, dtype=np.float32)}
    session = onnxruntime.InferenceSession(str(tmp_path / "pack" / "tuned.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, feed)
    assert np.linalg.norm(found - tuned) <= 2.5e-3 * np.linalg.norm(tuned)
    np.testing.assert_array_equal(found[0], tuned[0])  # a row that nobody changed
    check_pack(tmp_path / "pack")


def test_nothing_is_near_without_being_asked(tmp_path: Path) -> None:
    models = _variants(tmp_path, 1, _few)
    pack(tmp_path / "pack", models)
    np.testing.assert_array_equal(run(tmp_path / "pack" / "variant0.onnx"), run(models[1]))


@pytest.mark.parametrize("step", ["commit", "index", "place"])
def test_a_run_that_was_stopped_goes_on(
    step: str, family: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole = tmp_path / "pack", tmp_path / "whole"
    pack(whole, family)
    pack(folder, family[:1])
    before = run(folder / "base.onnx")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if step == "commit":
            patched.setattr(os, "fsync", stop)
        elif step == "index":
            patched.setattr(PackIndex, "write", stop)
        else:
            patched.setattr(packing, "place", stop)
        with pytest.raises(KeyboardInterrupt):
            pack(folder, family[1:], add=True)
    np.testing.assert_array_equal(run(folder / "base.onnx"), before)
    assert not list(folder.glob(draft.LEFT))
    pack(folder, family[1:], add=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }


def _damage(folder: Path, what: str) -> None:
    index = json.loads((folder / INDEX).read_text())
    if what == "data":
        raw = bytearray((folder / DATA).read_bytes())
        raw[100] ^= 1
        (folder / DATA).write_bytes(raw)
    elif what == "cut":
        os.truncate(folder / DATA, 1000)
    elif what == "model":
        (folder / "base.onnx").write_bytes((folder / "tuned.onnx").read_bytes())
    elif what == "gone":
        (folder / "base.onnx").unlink()
    elif what == "path":
        index["models"]["../base.onnx"] = index["models"].pop("base.onnx")
    elif what == "place":
        index["blobs"][next(iter(index["blobs"]))] = [-1, 3]
    elif what == "blob":
        index["blobs"].popitem()
    elif what == "shape":
        index["models"] = []
    else:
        (folder / INDEX).write_text("{")
        return
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("what", ["data", "cut", "model", "gone", "path", "place", "blob", "shape", "text"])
def test_a_damaged_pack_is_told(what: str, family: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    pack(folder, family)
    _damage(folder, what)
    with pytest.raises(ModelError) as caught:
        check_pack(folder)
    assert caught.value.code == "Q471"


def test_a_model_that_reads_elsewhere_is_refused(family: tuple[Path, Path], tmp_path: Path) -> None:
    """Neither packed nor believed."""
    model = onnx.load(family[1], load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../../../etc/passwd"
    hostile = tmp_path / "hostile.onnx"
    hostile.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as caught:
        pack(tmp_path / "pack", [hostile])
    assert caught.value.code == "Q403" and not list((tmp_path / "pack").glob("*.onnx"))


def test_what_cannot_be_a_pack_is_refused(family: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    pack(folder, family[:1])
    other = write(tmp_path / "apart" / "base.onnx", weights(3))
    full = tmp_path / "full"
    full.mkdir()
    (full / "something").write_text("else")
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: pack(full, family), "Q470"),
        (lambda: pack(folder, family[1:]), "Q470"),
        (lambda: pack(tmp_path / "none", family, add=True), "Q470"),
        (lambda: pack(folder, [other], add=True), "Q472"),
        (lambda: pack(tmp_path / "new", [family[0], other]), "Q472"),
        (lambda: pack(tmp_path / "new", [tmp_path / "a.pt2"]), "Q470"),
        (lambda: pack(folder, [folder / "base.onnx"], add=True), "Q470"),
        (lambda: pack(family[0], family), "Q470"),
        (lambda: pack(tmp_path / "a" / "b", family), "Q404"),
        (lambda: pack(tmp_path / "new", [tmp_path / "missing.onnx"]), "Q400"),
    ]
    for make, code in cases:
        with pytest.raises(ModelError) as caught:
            make()
        assert caught.value.code == code, caught.value
    assert not (tmp_path / "new" / "base.onnx").exists()


def test_the_command(family: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "pack")
    assert main(["pack", folder, *map(str, family)]) == 0
    assert "tuned.onnx" in capsys.readouterr().out
    assert main(["pack", "--check", folder, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["constants"] == LAYERS + 1
    assert main(["pack", folder]) == 2
    assert main(["pack", folder, "--check", "--add"]) == 2
    assert main(["pack", folder, str(family[0]), "--within", "0.1"]) == 2
    assert main(["pack", str(tmp_path / "nothing"), "--check"]) == 1
