"""Transport's law: fewer bytes, of which the same files come again bit for bit; damage is told, not written."""

import json
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.__main__ import main
from qcc.compiler.plan.catalog import schema
from qcc.compiler.report.result import Result
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import load_text
from qcc.ir.errors import ModelError
from qcc.ir.transport.container import MAGIC, expanded, is_packed
from tests import onnx_models

MODEL = """g (int64[N] i, float[A,64] x) => (float[N,96] y, float[A,64] z) {
    e = Gather(table, i)
    y = MatMul(e, w)
    z = MatMul(x, v)
}"""
WEIGHTS = {"table": (700, 64), "w": (64, 96), "v": (64, 64)}
FEEDS = {"i": np.array([3, 69, 0]), "x": onnx_models.random(5, 64, seed=9)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = {name: onnx_models.random(*shape, seed=at) for at, (name, shape) in enumerate(WEIGHTS.items())}
    path = tmp_path_factory.mktemp("transport") / "model.onnx"
    onnx.save(onnx_models.parse(MODEL, weights), path)
    return path


def compiled(model: Path, weights: str, output: Path, export: str = "entropy = rans") -> Result:
    policy = load_text(f"qpolicy 1\nrule any {{ weights = {weights} }}\nexport {{ {export} }}", schema())
    return qcc.compile(model, policy, output=output)


FORMATS = ("int3 group 32", "int4 channel", "int7 channel", "nf4 group 64", "radix(5)", "fp16")


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize("weights", FORMATS)
def test_expanding_gives_the_same_bytes(model: Path, weights: str, tmp_path: Path) -> None:
    result = compiled(model, weights, tmp_path / "net.onnx")
    assert result.packed == tmp_path / "net.rans"
    assert result.packed.stat().st_size == result.packed_bytes < result.output_bytes
    wanted = result.output.read_bytes()
    result.output.unlink()
    assert main(["expand", str(result.packed)]) == 0
    assert result.output.read_bytes() == wanted


def test_codes_of_several_planes_are_coded_together(model: Path, tmp_path: Path) -> None:
    result = compiled(model, "int3 channel", tmp_path / "net.onnx")
    codes = sum(np.prod(shape) * 3 / 8 for shape in WEIGHTS.values())
    # of normal weights, whose scales were searched, three bits hold about 2.6
    assert result.output_bytes - result.packed_bytes > 0.08 * codes


@pytest.mark.slow
def test_weights_beside_the_model_travel_along(model: Path, tmp_path: Path) -> None:
    result = compiled(model, "int5 channel", tmp_path / "net.onnx", "entropy = rans, external_data = always")
    assert result.data is not None and result.packed is not None
    wanted = {path.name: path.read_bytes() for path in (result.output, result.data)}
    (tmp_path / "there").mkdir()
    assert main(["expand", str(result.packed), "-o", str(tmp_path / "there")]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()} == wanted


@pytest.mark.slow
def test_a_session_opens_either(model: Path, tmp_path: Path) -> None:
    result = compiled(model, "int4 group 32", tmp_path / "net.onnx")
    plain, packed = (qcc.Session(path, kernels=False) for path in (result.output, tmp_path / "net.rans"))
    wanted, got = plain.run(FEEDS), packed.run(FEEDS)
    assert all(np.array_equal(got[name], wanted[name]) for name in wanted)
    assert packed.size_bytes == plain.size_bytes and packed.nodes == plain.nodes


@pytest.mark.slow
def test_the_report_tells_the_size(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "one.qpolicy"
    policy.write_text("qpolicy 1\nrule any { weights = int3 channel }\nexport { entropy = rans }\n", encoding="utf-8")
    assert main(["compile", str(model), "-p", str(policy), "-o", str(tmp_path / "net.onnx")]) == 0
    told = capsys.readouterr().out
    assert f"{(tmp_path / 'net.rans').stat().st_size:,} bytes" in told and "net.rans" in told


@pytest.mark.slow
def test_an_earlier_file_for_transport_goes(model: Path, tmp_path: Path) -> None:
    compiled(model, "int4 channel", tmp_path / "net.onnx")
    compiled(model, "int4 channel", tmp_path / "net.onnx", "kernels = none")
    assert not (tmp_path / "net.rans").exists()
    (tmp_path / "net.rans").write_text("mine", encoding="utf-8")
    compiled(model, "int4 channel", tmp_path / "net.onnx", "kernels = none")
    assert (tmp_path / "net.rans").read_text(encoding="utf-8") == "mine"


@pytest.fixture(scope="module")
def packed(model: Path) -> Path:
    found = compiled(model, "int3 group 32", model.with_name("whole.onnx")).packed
    assert found is not None and is_packed(found)
    return found


@pytest.mark.slow
def test_what_is_no_file_for_transport_is_told(
    model: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, code in ((model, "Q437"), (tmp_path / "none.rans", "Q400"), (tmp_path, "Q400")):
        assert main(["expand", str(path)]) == 1 and code in capsys.readouterr().err
    assert main(["expand", str(packed), "-o", str(tmp_path / "none")]) == 1 and "Q404" in capsys.readouterr().err
    assert main(["inspect", str(packed)]) == 1 and "qcc expand" in capsys.readouterr().err


@pytest.mark.slow
def test_damage_is_told_and_nothing_is_written(packed: Path, tmp_path: Path) -> None:
    data = packed.read_bytes()
    rng = np.random.default_rng(0)
    cut = [data[: len(MAGIC) + 2], data[: len(data) // 2], data[:-1]]
    flipped = []
    for at in (len(MAGIC), *rng.integers(len(MAGIC), len(data), 40)):
        broken = bytearray(data)
        broken[at] ^= int(rng.integers(1, 256))
        flipped.append(bytes(broken))
    path = tmp_path / "broken.rans"
    for broken_data in cut + flipped:
        path.write_bytes(broken_data)
        with pytest.raises(ModelError) as found:
            list(expanded(path))
        assert found.value.code == "Q438"
    assert main(["expand", str(path)]) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["broken.rans"]
    with pytest.raises(QccError, match="damaged"):
        qcc.Session(path)


def test_names_that_lead_elsewhere_and_sizes_beyond_belief_are_refused(tmp_path: Path) -> None:
    one = {"name": "a.onnx", "size": 0, "sha256": "0" * 64, "pieces": []}
    heads: tuple[object, ...] = (
        *({**one, "name": name} for name in ("../a.onnx", "/tmp/a.onnx", "", "..", "a\0b")),
        *({**one, "size": size} for size in (-1, 1 << 40, 1 << 60, "x", 1.5)),
        {**one, "pieces": [[[[0, 1]], "bytes", 0, [1]]]},
        {**one, "pieces": [[[[0, 1 << 40]], "deflate", 1, [0]]]},
        {"name": "a.onnx"},
        7,
    )
    path = tmp_path / "made.rans"
    for head in heads:
        text = zlib.compress(json.dumps([head]).encode())
        path.write_bytes(MAGIC + len(text).to_bytes(4, "little") + text + b"1234")
        with pytest.raises(ModelError) as found:
            list(expanded(path))
        assert found.value.code == "Q438"
