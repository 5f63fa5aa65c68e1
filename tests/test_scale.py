"""Large models: worked on in pieces with the same bytes, and gone on with where a run was killed.

What is large is made small here, so that models of a few megabytes are.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qcc
from benchmarks.scale.model import Architecture, build
from qcc.codegen.target import cache
from qcc.compiler.observe import kept_weights
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.fit import encode
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.graph import in_pieces
from qcc.ir.graph.in_pieces import InPieces
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.model import OnnxModel
from qcc.passes.rounding.nearest import Nearest

ROOT = Path(__file__).parent.parent
SMALL = Architecture(hidden=64, layers=3, inner=176, heads=4, key_heads=2, vocabulary=256)
LARGE_BYTES, PIECE_BYTES = 200_000, 100_000
POLICY = "qpolicy 1\nrule any { weights = int4 group 32 }\nverify { cosine >= 0.5 }\n"
SEARCH_LOSS = 1.002  # of noise against a scan of every scale: what the golden files' search lost as well


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scale") / "llama.onnx"
    build(path, SMALL)
    return path


@pytest.fixture
def model(built: Path, tmp_path: Path) -> Path:
    for one in built.parent.iterdir():
        shutil.copy(one, tmp_path)
    return tmp_path / built.name


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(in_pieces, "LARGE_BYTES", LARGE_BYTES)
    monkeypatch.setattr(in_pieces, "PIECE_BYTES", PIECE_BYTES)
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "cache")


def test_pieces_compute_what_the_whole_does(model: Path, large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = OnnxModel(model).reference()
    assert isinstance(runner, InPieces) and len(runner.pieces) > 3
    feeds = [{"input_ids": np.random.default_rng(at).integers(0, 256, (2, 5))} for at in range(2)]
    found = runner.each(feeds)
    monkeypatch.setattr(in_pieces, "LARGE_BYTES", 1 << 40)
    whole = OnnxModel(model).reference()
    for one, feed in zip(found, feeds, strict=True):
        np.testing.assert_allclose(one["logits"], whole(feed)["logits"], rtol=0, atol=2e-5)  # other sums


def test_small_models_run_whole(model: Path) -> None:
    graph = OnnxGraph.load(model)
    assert not isinstance(graph.runner(["input_ids"], ["logits"]), InPieces)


def test_constants_that_are_fed_reach_their_pieces(model: Path, large: None) -> None:
    graph = OnnxGraph.load(model)
    graph.simplify()  # which finds types
    runner = graph.runner(["input_ids"], ["logits"], ["head"])
    feeds = {"input_ids": np.zeros((1, 3), np.int64)}
    head = graph.constant("head")
    assert isinstance(runner, InPieces) and head is not None
    once, twice = (runner({**feeds, "head": head * factor})["logits"] for factor in (1, 2))
    np.testing.assert_allclose(twice, 2 * once, rtol=0, atol=1e-4)


def test_in_pieces_the_bytes_are_the_same(model: Path, large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = model.with_name("pieces.onnx")
    assert qcc.compile(model, POLICY, output=pieces).passed
    assert cache.names(kept_weights.PREFIX) == [] and not list(model.parent.glob("*.parts"))
    monkeypatch.setattr(in_pieces, "LARGE_BYTES", 1 << 40)
    whole = model.with_name("whole.onnx")
    qcc.compile(model, POLICY, output=whole)
    assert pieces.read_bytes() == whole.read_bytes()


KILLED = f"""
import os, signal, sys
from pathlib import Path
from qcc.codegen.target import cache
from qcc.compiler.verify.verifier import Verifier
from qcc.ir.graph import in_pieces
import qcc
in_pieces.LARGE_BYTES, in_pieces.PIECE_BYTES = {LARGE_BYTES}, {PIECE_BYTES}
cache.cache_folder = lambda: Path(sys.argv[3])
Verifier.verify = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
qcc.compile(sys.argv[1], {POLICY!r}, output=sys.argv[2])
"""


@pytest.mark.slow
def test_a_killed_run_goes_on(model: Path, large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It rounds nothing again, but for what was damaged meanwhile, and writes the same bytes."""
    whole, out = model.with_name("whole.onnx"), model.with_name("again.onnx")
    qcc.compile(model, POLICY, output=whole)
    folder = cache.cache_folder()
    command = [sys.executable, "-c", KILLED, str(model), str(out), str(folder)]
    killed = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert killed.returncode == -signal.SIGKILL and not out.exists()
    kept = cache.names(kept_weights.PREFIX)
    assert len(kept) == 3 * 7 + 2
    (folder / kept[0]).write_bytes(b"damaged")
    rounded = []
    plain = Nearest.encode

    def counted(self: Nearest, *args: object) -> Encoded:
        rounded.append(args)
        return plain(self, *args)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(Nearest, "encode", counted)
    assert qcc.compile(model, POLICY, output=out).passed
    assert len(rounded) == 1 and out.read_bytes() == whole.read_bytes()
    assert cache.names(kept_weights.PREFIX) == []


def test_what_another_run_kept_is_not_taken(model: Path, large: None) -> None:
    first = kept_weights.KeptWeights("one", lambda *_: "")
    encoding, matrix = Blocked(IntGrid(3, symmetric=False), group(32)), np.ones((4, 64), np.float32)
    encoded = encode(matrix, encoding)
    for run in (first, kept_weights.KeptWeights("two", lambda *_: "")):
        run.begin({"w": (encoding, Nearest())})
        assert run.found("w") is None
        run["w"] = encoded
        again = run["w"]
        assert all(np.array_equal(again.parts[name], part) for name, part in encoded.parts.items())
    first.begin({"w": (encoding, Nearest("absmax"))})
    assert first.found("w") is None


@pytest.mark.slow
def test_the_estimate_is_kept(model: Path, large: None) -> None:
    """What it says of memory bounds what a run holds."""
    script = (
        "import sys, resource; from pathlib import Path; import qcc;"
        "from qcc.compiler.analyze.estimate import estimate; from qcc.compiler.repeat import loaded_policy;"
        f"found = estimate(Path(sys.argv[1]), loaded_policy({POLICY!r}, None, None));"
        f"qcc.compile(sys.argv[1], {POLICY!r}, output=sys.argv[2]);"
        "print(found.params, found.peak_bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)"
    )
    command = [sys.executable, "-c", script, str(model), str(model.with_name("out.onnx"))]
    run = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    params, stated, held = map(int, run.stdout.split())
    assert params == SMALL.params and held <= stated


@pytest.mark.parametrize("symmetric", (True, False))
@pytest.mark.parametrize("bits", (3, 4, 8))
def test_the_search_finds_the_range(bits: int, symmetric: bool) -> None:
    """It loses hardly more than the best of many ranges."""
    matrix = np.random.default_rng(0).standard_t(6, (64, 128)).astype(np.float32)
    encoding = Blocked(IntGrid(bits, symmetric), group(32))
    found = np.square(encode(matrix, encoding).decode() - matrix).reshape(-1, 32).sum(1)
    blocks, best = matrix.reshape(-1, 32), np.full(matrix.size // 32, np.inf)
    low, high = blocks.min(1, keepdims=True), blocks.max(1, keepdims=True)
    largest = np.where(high >= -low, high, low)
    for ratio in np.linspace(0.4, 1.05, 200):
        for end in (largest / -(1 << (bits - 1)), np.abs(largest) / ((1 << (bits - 1)) - 1)):
            steps = np.clip(np.rint(blocks / (end * ratio)), -(1 << (bits - 1)), (1 << (bits - 1)) - 1)
            scale = (steps * blocks).sum(1) / np.maximum((steps * steps).sum(1), 1)
            best = np.minimum(best, np.square(steps * scale[:, None] - blocks).sum(1))
    assert found.sum() <= best.sum() * (SEARCH_LOSS if bits < 8 else 1.2)
