"""The torch interpreter's law: what tensors hold decodes to what numpy says of the parts."""

import numpy as np
import pytest
from torch import Tensor

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.errors import Refused
from qcc.ir.fx.emit.decode import decoded, stored_tensors
from qcc.ir.fx.tensors import to_tensor
from tests.onnx_models import random, stored_in
from tests.test_encoding_laws import BLOCKS, GRIDS, PLAIN, SHAPES, TREES, scale_names

TOLERANCE = 1e-5  # of the largest number: products of factors are summed in another order


def drawn() -> list[Encoding]:
    """Every encoding of the laws."""
    blocked = [Blocked(grid, block, scale) for grid in GRIDS for block in BLOCKS for scale in scale_names(grid)]
    return [*blocked, *PLAIN, *TREES]


@pytest.mark.parametrize("turn", range(len(SHAPES)))
@pytest.mark.sampled
def test_torch_decodes_what_numpy_does(turn: int) -> None:
    """Each encoding in one of the shapes, a third of them a turn."""
    held = 0
    for at, encoding in enumerate(drawn()[turn :: len(SHAPES)]):
        shape = SHAPES[at % len(SHAPES)]
        try:
            encoded = stored_in(random(*shape), encoding)
        except Refused:
            continue
        held += 1
        tensors = stored_tensors(encoded)
        found, wanted = decoded(encoded.encoding, shape, tensors).numpy(), encoded.decode()
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max(), encoding.text
        if isinstance(encoding, Blocked):
            np.testing.assert_array_equal(found, wanted)
        stored = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        planes = sum(8 for part in encoded.encoding.parts(shape).values())  # what fills them up to whole units
        assert stored * 8 <= encoded.encoding.size_bits(shape) + 8 * planes, encoding.text
    assert held > 60


@pytest.mark.sampled
@pytest.mark.parametrize("encoding", TREES, ids=lambda one: one.text.replace(" ", "_"))
def test_decoding_brings_along_nothing_as_large_as_a_weight(encoding: Encoding) -> None:
    """What it brings along, such as tables, is the same for weights of every size: a program holds it once."""
    brought: list[tuple[int, ...]] = []

    def noted(array: np.ndarray) -> Tensor:
        brought.append(array.shape)
        return to_tensor(array)

    for shape in ((40, 64), (80, 128)):
        encoded = stored_in(random(*shape), encoding)
        decoded(encoded.encoding, shape, stored_tensors(encoded), noted)
    half = len(brought) // 2
    assert brought[:half] == brought[half:]
