"""Real models: onnx's light ones, whose weights are computed, and two small trained networks where they are at hand."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from qcc.ir.onnx.adapter import OnnxGraph
from tests.onnx_models import run

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))
AT_HAND = sorted((Path(__file__).parents[2] / "shared/bench/models").glob("*.onnx"))


def _feeds(graph: OnnxGraph) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {
        value.name: [size if isinstance(size, int) else 1 for size in value.shape or ()] for value in graph.inputs
    }
    return {name: random.random(shape).astype(np.float32) for name, shape in shapes.items()}


def test_the_light_models_are_there() -> None:
    assert len(LIGHT) == 9


@pytest.mark.slow
@pytest.mark.parametrize("path", [*LIGHT, *AT_HAND], ids=lambda path: path.stem)
def test_cleaned_and_saved_they_compute_the_same(path: Path, tmp_path: Path) -> None:
    graph = OnnxGraph.load(path)
    before = graph.copy()
    graph.simplify()
    names = [weight.name for weight in graph.weights()]
    assert len(set(names)) == len(names)
    if path in LIGHT:
        assert not names  # their weights come out of ConstantOfShape, and must stay there
    else:
        assert len(names) > 15
    written = graph.save(tmp_path / "out.onnx")
    onnx.checker.check_model(str(written.path))
    assert written.size_bytes <= path.stat().st_size
    assert graph.size_bytes() == written.size_bytes
    feeds = _feeds(graph)
    expected, actual = run(path, feeds), run(written.path, feeds)
    assert set(expected) == set(actual) == {value.name for value in before.outputs}
    for name, array in expected.items():
        np.testing.assert_allclose(actual[name], array, rtol=1e-5, atol=1e-6 * np.abs(array).max())
