"""A format is one file: with `toy_formats` among the folders of formats, policies name what is in it.

Its numbers, its way to store scales and its keyword follow everywhere: in the language and its manual, in plans and
locks, in a file's bytes and results.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import qcc
import qcc.ir.encoding.formats
from qcc.__main__ import main
from qcc.compiler.editor import known
from qcc.compiler.plan import catalog, formats
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.text import to_text
from qcc.compiler.plan.values import encoding_named
from qcc.dsl.diagnostics.source import Source
from qcc.ir.discovery import named_once, values
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked, named, scales
from qcc.ir.encoding.blocks import CHANNEL, group
from qcc.ir.encoding.fit import encode
from qcc.ir.encoding.format import Spelled
from qcc.ir.encoding.grid import FORMATS, IntGrid, NumberList, TableGrid, tables
from qcc.ir.kernel.op import LinearOp, parse

TOY = Path(__file__).with_name("toy_formats")
CACHED = (formats.formats, formats.compositions, formats.families, catalog.schema, known.known_schema)
NEAR = 1e-5  # of outputs of a few units: sums of 64 products in another order


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its folder lies among the others, and nothing else is told."""
    monkeypatch.setattr(qcc.ir.encoding.formats, "__path__", [*qcc.ir.encoding.formats.__path__, str(TOY)])
    monkeypatch.setattr(known, "plugins", lambda: ("toy",))
    for one in CACHED:
        one.cache_clear()
    yield
    for one in CACHED:
        one.cache_clear()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """One linear layer."""
    found = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n, 64] x) => (float[n, 40] y) { y = MatMul (x, first) }'
    )
    values = np.random.default_rng(0).standard_normal((64, 40)).astype(np.float32) / 8
    found.graph.initializer.append(numpy_helper.from_array(values, "first"))
    onnx.save(found, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize(
    ("spelled", "text"),
    [
        ("fives", "fives group 16 scale brief"),
        ("fives channel scale twice", "fives channel scale twice"),
        ("twins", "fives group 16 scale twice"),
        ("int4 group 32 scale brief", "int4 group 32 sym scale brief"),
        ("stack(fives, nf4 scale twice)", ""),
    ],
)
def test_it_compiles_computes_and_repeats(spelled: str, text: str, model: Path, tmp_path: Path) -> None:
    result = qcc.compile(model, f"qpolicy 1\nrule any {{ weights = {spelled} }}\n")
    (row,) = result.layers
    assert row.format == text or not text
    encoding = encoding_named(row.format)
    assert encoding is not None
    weight = numpy_helper.to_array(onnx.load(model).graph.initializer[0])
    stored = encode(np.ascontiguousarray(weight.T), encoding)
    x = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    (y,) = onnxruntime.InferenceSession(result.output).run(None, {"x": x})
    np.testing.assert_allclose(y, x @ stored.decode().T, rtol=0, atol=NEAR)
    assert np.abs(stored.decode() - weight.T).max() < 0.5 * np.abs(weight).max()
    assert from_text(Source("p.plan", to_text(result.plan))) == result.plan
    assert row.format in to_text(result.plan)
    before = result.output.read_bytes()
    lock = next(tmp_path.glob("*.lock*"))
    assert main(["compile", str(model), "--plan", str(lock), "-o", str(tmp_path / "again.onnx")]) == 0
    assert (tmp_path / "again.onnx").read_bytes() == before


def test_the_manual_and_the_language_know_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["passes", "fives"]) == 0
    page = capsys.readouterr().out
    assert "Five numbers with a scale by block." in page and "scale brief/fp16/fp32/e4m3/e8m0/twice/ue5m3" in page
    (tmp_path / "bad.qpolicy").write_text("qpolicy 1\nrule any { weights = fivs group 16 | int4 scale breif }\n")
    assert main(["check", str(tmp_path / "bad.qpolicy")]) != 0
    told = capsys.readouterr().err
    assert "did you mean `fives`?" in told and "did you mean `brief`?" in told


def test_zero_points_do_not_stand_beside_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "bad.qpolicy").write_text("qpolicy 1\nrule any { weights = int4 asym scale brief }\n")
    assert main(["check", str(tmp_path / "bad.qpolicy")]) != 0
    assert "zero points need scales of fp16 or fp32, not brief" in capsys.readouterr().err


def test_kernels_read_its_name() -> None:
    for scale in ("fp16", "e8m0"):
        op = LinearOp(Blocked(TableGrid("nf4"), group(32), scale), ("bias",))
        assert parse(op.name) == op
    for encoding in (Blocked(TableGrid("fives"), group(32), "brief"), Blocked(IntGrid(4), CHANNEL, "twice")):
        assert named(encoding.name) == encoding


@pytest.mark.parametrize("name", sorted(formats.formats()))
def test_what_a_format_names_is_spelled_in_the_language(name: str) -> None:
    """So that a plan reads back; what it names by default goes for all."""
    family = formats.formats()[name]
    bits = family.bits or (None,)
    found: list[Encoding] = [family.encoding(Spelled(one)) for one in bits]
    assert [encoding_named(one.text) for one in found] == found


def test_a_name_is_taken_once() -> None:
    found = values(FORMATS, NumberList)
    assert len({one.name for one in found}) == len(found) == len(tables())
    with pytest.raises(ValueError, match="two definitions are called `nf4`"):
        named_once([tables()["nf4"], NumberList("nf4", (0.0,))])
    assert "brief" in scales()
    with pytest.raises(ValueError, match=r"scales are fp16, fp32, .*, not none"):
        Blocked(IntGrid(4), scale="none")
