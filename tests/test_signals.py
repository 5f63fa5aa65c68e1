"""Generated signals: sound with a pitch, breath and pauses, maps with structure; and which inputs get them."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from qcc.compiler.calibrate.chosen_data import chosen_data
from qcc.compiler.calibrate.draw import Role, purposes
from qcc.compiler.calibrate.fit_samples import fit_samples
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.calibrate.voice import RATE, speak
from qcc.compiler.files.open_model import open_model
from qcc.compiler.plan.catalog import schema
from qcc.dsl.load import load_policy
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.graph.run import reference
from tests.onnx_models import parse, random

HEARD = "g (float[n,L] x, float[2,n,8] state) => (float[n,8,1] y, float[2,n,8] out) {{ {} out = Identity (state) }}"
CONV = "u = Unsqueeze (x, one) c = Conv <strides = [64]> (u, w) y = ReduceMean <axes = [2]> (c)"
ONE = {"one": np.array([1], np.int64), "w": random(8, 1, 128)}


def spoken(length: int = RATE) -> np.ndarray:
    return speak(np.random.default_rng(0), 12, length)


def test_it_is_as_loud_as_recordings_are_and_repeats() -> None:
    sound = spoken()
    assert sound.shape == (12, RATE) and np.abs(sound).max() <= 1
    loud = sound.std(axis=1)
    assert (loud > 0.01).all() and (loud < 0.3).all()
    np.testing.assert_array_equal(sound, spoken())


def test_it_has_pauses_and_sounds() -> None:
    frames = spoken().reshape(-1, 400).std(axis=1)
    quiet = (frames < 0.005).mean()
    assert 0.1 < quiet < 0.6 and frames.max() > 0.05


def test_it_is_no_white_noise() -> None:
    """Most of a voice's power lies below 1 kHz, an eighth of what the rate can hold."""
    power = np.square(np.abs(np.fft.rfft(spoken(), axis=1))).sum(axis=0)
    low = np.fft.rfftfreq(RATE, 1 / RATE) < 1000
    assert power[low].sum() > 0.5 * power.sum()


@pytest.mark.parametrize("length", [2, 160, 512])
def test_short_frames_differ(length: int) -> None:
    sound = spoken(length)
    assert sound.shape == (12, length) and np.isfinite(sound).all()
    loud = np.abs(sound).max(axis=1)
    assert loud.max() > 10 * loud.min()


def opened(folder: Path, body: str, weights: dict[str, np.ndarray]) -> Graph:
    onnx.save(parse(body, weights, opset=13), folder / "m.onnx")
    return open_model(folder / "m.onnx").graph


def fitted(folder: Path, graph: Graph) -> Samples:
    return fit_samples(graph, reference(folder / "m.onnx"), 4, 0)


@pytest.mark.parametrize(
    ("inputs", "read", "wave"),
    [
        ("float[n,L] x", "x", False),
        ("float[n,512] features", "features", False),
        ("float[n,L] audio", "audio", True),
        ("float[n,1,L] raw_speech", "raw_speech", True),
        ("float[n,43844,1] x", "x", True),
        ("float[n,3,L] sound_maps", "sound_maps", False),
        ("float[n,L] x, int64 sr", "x", True),
        ("float[2,1,128] state, int64 sr", "state", False),
        ("float[1] volume, int64 sr", "volume", False),
    ],
)
def test_which_inputs_are_sound(tmp_path: Path, inputs: str, read: str, wave: bool) -> None:
    graph = opened(tmp_path, f"g ({inputs}) => (float[M,N] y) {{ y = Abs ({read}) }}", {})
    assert (purposes(graph, graph.inputs)[read].role is Role.WAVE) == wave


def test_who_is_handed_a_state_hears_a_frame_at_a_time(tmp_path: Path) -> None:
    graph = opened(tmp_path, HEARD.format(CONV), ONE)
    found = fitted(tmp_path, graph).batches[0]["x"]
    assert found.shape == (4, 640) and np.abs(found).max() <= 1


@pytest.mark.parametrize(
    ("shape", "draws"),
    [("n,90,40", (4, 90, 40)), ("n,5,90,40", (4, 5, 90, 40)), ("n,90,40,5", (4, 90, 40, 5))],
)
def test_what_is_convolved_along_two_axes_has_structure(tmp_path: Path, shape: str, draws: tuple[int, ...]) -> None:
    """Neighbours go together along both long axes, which in white noise they do not."""
    moved = {"n,90,40": "Unsqueeze (x, one)", "n,5,90,40": "Identity (x)"}
    body = f"u = {moved.get(shape, 'Transpose <perm = [0, 3, 1, 2]> (x)')} y = Conv (u, w)"
    weights = {"one": ONE["one"], "w": random(8, 5 if "5" in shape else 1, 3, 3)}
    graph = opened(tmp_path, f"g (float[{shape}] x) => (float[n,8,H,W] y) {{ {body} }}", weights)
    assert purposes(graph, graph.inputs)["x"].role is Role.MAP
    found = fitted(tmp_path, graph).batches[0]["x"]
    assert found.shape == draws
    high, wide = sorted(sorted(range(1, len(draws)), key=lambda at: -draws[at])[:2])
    for axis in (high, wide):
        steps = np.diff(found, axis=axis)
        assert np.square(steps).mean() < np.square(found).mean()  # of white noise it is twice as much


def test_samples_go_one_by_one_where_a_state_is_of_one(tmp_path: Path) -> None:
    body = "g (float[n,4,8] x, float[1,1,8] h) => (float[n,4,8] y) { t = Transpose <perm = [1, 0, 2]> (x) NODES }"
    nodes = "a, b = RNN <hidden_size = 8> (t, w, r, , , h) s = Squeeze (a, one) y = Transpose <perm = [1, 0, 2]> (s)"
    weights = {"one": np.array([1], np.int64), "w": random(1, 8, 8), "r": random(1, 8, 8)}
    graph = opened(tmp_path, body.replace("NODES", nodes), weights)
    x, state = random(6, 4, 8), random(1, 1, 8)
    np.savez(tmp_path / "d.npz", x=x, h=state)
    feeds = [{"x": one[None], "h": state} for one in x]
    for data in (tmp_path / "d.npz", feeds):
        found = chosen_data(load_policy("balanced", schema()), data, graph, reference(tmp_path / "m.onnx"), {})
        assert (len(found.batches), found.count, found.batches[5]["x"].shape) == (6, 6, (1, 4, 8))
    whole = chosen_data(load_policy("balanced", schema()), feeds, graph, lambda _: {}, {})
    assert len(whole.batches) == 1


COMPARED = {"bins": np.linspace(40, 2000, 64, dtype=np.float32)}


@pytest.mark.parametrize(
    ("body", "low", "high"),
    [
        ("y = GreaterOrEqual (bins, limit)", 40, 530),
        ("y = Less (limit, bins)", 40, 530),
        ("y = LessOrEqual (bins, limit)", 1510, 2000),
        ("one = Reshape (limit, whole) y = Greater (one, bins)", 1510, 2000),
    ],
)
def test_a_limit_lies_among_the_constants_that_are_compared_with_it(
    tmp_path: Path, body: str, low: float, high: float
) -> None:
    """A frequency of about one leaves all bins, or none: the model's outputs would be the same on all samples."""
    weights = {**COMPARED, "whole": np.array([1])}
    graph = opened(tmp_path, f"g (float limit) => (bool[M] y) {{ {body} }}", weights)
    found = [batch["limit"].item() for batch in fitted(tmp_path, graph).batches]
    assert len(set(found)) > 1 and all(low <= one <= high for one in found)


@pytest.mark.parametrize("body", ["z = Mul (bins, limit) y = Cast <to = 9> (z)", "y = Greater (limit, one)"])
def test_a_number_that_limits_no_constants_is_about_one_reject(tmp_path: Path, body: str) -> None:
    graph = opened(tmp_path, f"g (float limit) => (bool[M] y) {{ {body} }}", {**COMPARED, "one": random(1)})
    assert all(0.5 <= batch["limit"].item() <= 1.5 for batch in fitted(tmp_path, graph).batches)


def test_what_leaves_boxes_out_is_a_share(tmp_path: Path) -> None:
    text = """g (float[1,6,4] boxes, float[1,1,6] scores, float[1] overlap) => (int64[M,3] y) {
        most = Constant <value = int64[1] {3}> ()
        y = NonMaxSuppression (boxes, scores, most, overlap)
    }"""
    graph = opened(tmp_path, text, {})
    assert all(0 < batch["overlap"].item() < 1 for batch in fitted(tmp_path, graph).batches)
