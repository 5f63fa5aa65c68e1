"""Step caches: regions, the schedule, corrections, and graphs that compute what was chosen."""

import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.compile import compile
from qcc.compiler.sampler.drive import whole_driver
from qcc.compiler.sampler.loop import read_loop
from qcc.compiler.sampler.table import beside, from_text
from qcc.compiler.steps.regions import Cuts
from qcc.compiler.steps.schedule import affine, best_segments, corrected, held_out
from qcc.compiler.steps.search import distance
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.errors import ModelError, Refused
from qcc.ir.model.carried import Carried, Corrections
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.model import OnnxModel
from tests.diffusion_models import DEPTH, LOOP, saved

POLICY = 'sampler "loop.toml"\nstep_cache { region = REGION, evaluations = 50%, fit = FIT }\nrule any { RULE }\n'


def _policy(folder: Path, region: str = "auto", fit: str = "affine", rule: str = "keep") -> Path:
    path = folder / "p.qpolicy"
    text = POLICY.replace("REGION", region).replace("FIT", fit).replace("RULE", rule)
    path.write_text(text, encoding="utf-8")
    return path


def _graph(path: Path) -> OnnxGraph:
    """The model as a compilation sees it."""
    graph = OnnxModel(path).graph.copy()
    graph.simplify()
    return graph


def test_blocks_are_found_by_what_repeats(tmp_path: Path) -> None:
    cuts = Cuts(_graph(saved(tmp_path)), "latent", "v")
    assert cuts.blocks == tuple(f"h{at}" for at in range(DEPTH + 1))
    (one,) = cuts.of([("blocks", (1, 3))])
    assert (one.carried.source, one.carried.value, one.text) == ("h1", "h4", "blocks(1, 3)")
    assert 0.4 < one.share < 0.6  # three of six blocks, but for what stands around them


@pytest.mark.parametrize("asked", [("blocks", (2, 6)), ("feature", ("nothing",)), ("feature", ("turned",))])
def test_a_region_that_is_none_is_refused(tmp_path: Path, asked: tuple[str, tuple[int | str, ...]]) -> None:
    with pytest.raises(ModelError) as error:
        Cuts(_graph(saved(tmp_path)), "latent", "v").of([asked])
    assert error.value.code == "Q574"


def test_no_other_schedule_costs_less() -> None:
    costs = np.random.default_rng(0).random((2, 8, 9))
    found = best_segments(7, 3, 2, 7, lambda begin, end, region: float(costs[region, begin, end]) * (end - begin > 1))

    def total(ends: tuple[int, ...]) -> float:
        pairs = itertools.pairwise((0, *ends))
        return sum(float(min(costs[:, a, b])) if b - a > 1 else 0.0 for a, b in pairs)

    every = [(*inner, 7) for count in range(3) for inner in itertools.combinations(range(1, 7), count)]
    assert total(tuple(one.end for one in found)) == pytest.approx(min(map(total, every)))
    assert len(found) <= 3


def test_a_correction_is_the_least_squares_one() -> None:
    rng = np.random.default_rng(0)
    carried = rng.standard_normal((4, 6, 3)).astype(np.float32)
    wanted = carried * np.array([1, 2, -0.5], np.float32) + np.array([0, 1, 3], np.float32)
    assert np.allclose(corrected(carried, *affine(carried, wanted)), wanted, atol=1e-5)
    assert np.allclose(corrected(carried, *held_out(carried, wanted)), wanted, atol=1e-5)
    images = rng.standard_normal((2, 3, 4, 4)).astype(np.float32)
    assert affine(images, images)[0].shape == (3,)


def test_a_channel_whose_correction_does_not_hold_stays() -> None:
    carried = np.array([1, 2, 3, 4], np.float32).reshape(4, 1, 1)
    wanted = carried + np.array([1, -1, 1, -1], np.float32).reshape(4, 1, 1)  # each half tells the other the wrong way
    scale, offset = held_out(carried, wanted)
    assert scale[0] == 1 and offset[0] == 0


@pytest.mark.parametrize(("value", "source"), [("h4", "h1"), ("h4", "")])
def test_graphs_that_give_and_take_compute_what_the_model_does(tmp_path: Path, value: str, source: str) -> None:
    model = OnnxModel(saved(tmp_path))
    carried = Carried(value, source, "kept")
    corrections = Corrections(np.full((2, 16), [[1.0], [2.0]]), np.full((2, 16), [[0.0], [0.5]]), "row")
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((2, 1, 8, 4)).astype(np.float32)
    feeds = {"latent": latent, "time": np.full(2, 0.5, np.float32), "label": np.array([0, 2])}
    whole = model.giving(model.graph, [carried])
    made = whole.runner(list(feeds), ["v", "kept"])(feeds)
    part = model.taking(model.graph, carried, corrections)
    names = [one.name for one in part.inputs]
    assert ("latent" in names) == bool(source) and "up2" not in {name for op in part.ops() for name in op.outputs}
    run = part.runner(names, ["v"])

    def again(row: int, kept: np.ndarray) -> np.ndarray:
        known = {**feeds, "kept": kept, "row": np.array(row, np.int64)}
        return run({name: known[name] for name in names})["v"]

    assert np.allclose(again(0, made["kept"]), made["v"], atol=1e-5)
    assert np.allclose(again(1, (made["kept"] - 0.5) / 2), made["v"], atol=1e-5)


def test_a_policy_cuts_a_model_and_its_session_runs_the_parts(tmp_path: Path) -> None:
    model = saved(tmp_path)
    result = compile(model, _policy(tmp_path, rule="weights = int8 channel"))
    assert result.passed and result.loop is not None
    table = from_text(beside(result.output).read_text(encoding="utf-8"))
    assert table.whole <= 6 and len(table.rows) == 12
    places = {place for file in table.graphs.values() for place in _places(tmp_path / file)}
    assert places <= {path.name for path in tmp_path.iterdir() if path.name.endswith("_data")} and len(places) <= 1
    lock = json.loads(result.lock.read_text(encoding="utf-8"))
    assert lock["loop"]["step_cache"]["whole"] == table.whole and lock["loop"]["graphs"].count("full") == table.whole
    judged, loop = lock["loop"]["judged"], read_loop(tmp_path / "loop.toml")
    made, opened = qcc.Session(result.output).sample(judged), OnnxModel(model)
    wanted = whole_driver(loop.table(), opened.graph.inputs, opened.reference()).samples(judged)
    assert distance(made, wanted) == pytest.approx(lock["loop"]["distance"], rel=1e-3)
    assert distance(made, wanted) < 0.2  # of a toy, half of whose evaluations are left out
    compile(model, "rule linear { weights = int8 channel }", output=result.output)
    assert not [path.name for path in tmp_path.iterdir() if "reuse" in path.name or path.suffix == ".json"]


def _places(path: Path) -> set[str]:
    """The files that a model's weights lie in."""
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    return {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}


def test_weights_that_lie_in_a_file_are_referred_to_there(tmp_path: Path) -> None:
    source = OnnxModel(saved(tmp_path / "in"))
    source.graph.replace_constant("w0", np.ones((16, 16), np.float32))
    big = np.zeros((1, 64, 64), np.float32)
    first = source.graph.ops()[0].name
    assert big.nbytes > 4096 and first
    written = source.write(source.graph, tmp_path / "net.onnx", "always")
    again = OnnxModel(written.path)
    part = again.write(again.graph, tmp_path / "part.onnx", written.data or "never")
    feeds = {"latent": np.ones((1, 1, 8, 4), np.float32), "time": np.ones(1, np.float32), "label": np.array([1])}
    assert np.array_equal(again.runner(part.path)(feeds)["v"], again.runner(written.path)(feeds)["v"])


def test_a_correction_lowers_what_reuse_loses(tmp_path: Path) -> None:
    model, lost = saved(tmp_path), {}
    for fit in ("affine", "none"):
        result = compile(model, _policy(tmp_path, "blocks(0, 4)", fit), output=tmp_path / f"{fit}.onnx")
        assert result.loop is not None
        lost[fit] = result.loop.facts["distance"]
    assert lost["affine"] < lost["none"]


def test_a_loop_that_adds_noise_is_cached_by_what_its_samples_tell(tmp_path: Path) -> None:
    model = saved(tmp_path, LOOP.replace('"ddim"', '"renoise"'))
    result = compile(model, _policy(tmp_path))
    assert result.loop is not None
    assert result.loop.facts["step_cache"]["whole"] == 6  # all that are allowed: each error matters


def test_a_cache_of_all_evaluations_changes_nothing(tmp_path: Path) -> None:
    model, path = saved(tmp_path), _policy(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("50%", "12"), encoding="utf-8")
    result = compile(model, path)
    assert result.loop is not None and result.loop.facts["distance"] < 1e-5  # other graphs, the same function


def test_a_cache_that_may_not_share_a_file_is_refused(tmp_path: Path) -> None:
    model, path = saved(tmp_path), _policy(tmp_path)
    path.write_text(path.read_text(encoding="utf-8") + "export { external_data = never }\n", encoding="utf-8")
    with pytest.raises(QccError) as error:
        compile(model, path)
    assert error.value.diagnostics[0].code == "Q575"


def test_a_value_that_became_part_of_an_op_is_told(tmp_path: Path) -> None:
    model = OnnxModel(saved(tmp_path))
    with pytest.raises(Refused, match="there is no value `gone`"):
        model.taking(model.graph, Carried("gone", "", "kept"), None)
