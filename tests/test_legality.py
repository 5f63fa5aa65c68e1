"""Every encoding in every form for every kind of layer: refused with a reason, or the file computes `Encoded.decode`.

What decoders do not know must not be written as something else, in whatever way it is asked for.
"""

import copy
import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from qcc.ir.encoding import fit
from qcc.ir.encoding.blocked import FLOAT_ENCODINGS, Blocked
from qcc.ir.encoding.blocks import CHANNEL, TENSOR, Block, group
from qcc.ir.encoding.encoded import Encoded, Scales, stored
from qcc.ir.encoding.grid import FloatGrid, Grid, IntGrid
from qcc.ir.encoding.value import DYNAMIC_INT8, STATIC_INT8, ValueEncoding
from qcc.ir.errors import Refused
from qcc.ir.forms import integers
from qcc.ir.forms.decoded import DECODED
from qcc.ir.forms.find import forms
from qcc.ir.forms.fused import FUSED
from qcc.ir.forms.kernel import KERNEL, kernel_op
from qcc.ir.forms.rows import ROWS
from qcc.ir.graph.form import Form
from qcc.ir.graph.ops import Weight
from qcc.ir.kernel.op import OpError
from qcc.ir.onnx.emit.write import writers
from tests.chooser import choose
from tests.onnx_models import CASES, emit, loaded, run

INTEGERS = [IntGrid(bits, symmetric) for bits in range(1, 10) for symmetric in (True, False)]
FLOATS = [FloatGrid(*bits) for bits in ((2, 1), (3, 2), (4, 3), (5, 2), (3, 4), (5, 10), (8, 7), (8, 10))]
BLOCKS = [TENSOR, CHANNEL, group(16), group(20), group(32), group(64), Block(5, 12), Block(2, 0), Block(0, 16)]
SCALES: tuple[str | None, ...] = (None, "fp16", "fp32")
LAYERS = ["matmul", "matmul_ragged", "gemm", "shared", "gather_1d", "tied_gemm", "conv2d_pointwise", "conv2d", "fp16"]
WRITTEN = (2, 3, 4, 8)
FLOAT = 1e-5  # of the largest output: sums in float32 in another order
HALF = 2e-3  # two sums in half precision differ by its ulp
LEVEL4 = 3e-2  # a head that shares an embedding's bytes rounds activations to 8 bits


def encodings(grids: list[Grid]) -> Iterator[Blocked]:
    for grid, block, scale in itertools.product(grids, BLOCKS, SCALES):
        yield Blocked(grid, block, scale)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Weight]:
    return {name: loaded(CASES[name], tmp_path_factory.mktemp(name)).weights()[0] for name in LAYERS}


@pytest.mark.slow
def test_what_no_decoder_knows_is_refused_everywhere(weights: dict[str, Weight]) -> None:
    """By every form, for every layer, by the choice of a form and by the names of kernels."""
    refused = [one for one in encodings([*INTEGERS, *FLOATS]) if one.undecodable]
    assert Blocked(FloatGrid(2, 1), group(32), "fp16") in refused
    assert not any(isinstance(one.grid, IntGrid) and 2 <= one.bits <= 8 and one.scale for one in refused)
    for encoding, weight in itertools.product(refused, weights.values()):
        assert all(form.refuses(weight, encoding) for form in forms().values())
        with pytest.raises(Refused, match="no form holds"):
            choose(weight, encoding)
        with pytest.raises(OpError):
            kernel_op(encoding, weight.shape)


def test_all_others_are_decoded(weights: dict[str, Weight]) -> None:
    known = [one for one in encodings([*INTEGERS, *FLOATS]) if not one.undecodable]
    floats = {one for one in known if one.scale is None}
    assert floats == set(FLOAT_ENCODINGS.values()) and len(known) == 15 * len(BLOCKS) * 2 + 2
    for encoding, weight in itertools.product(known, weights.values()):
        assert not DECODED.refuses(weight, encoding)
        assert not choose(weight, encoding).form.refuses(weight, encoding)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("form", forms().values(), ids=str)
def test_what_is_taken_computes_what_it_decodes_to(
    name: str, form: Form, weights: dict[str, Weight], tmp_path: Path
) -> None:
    """Half of the formats, for the next layer the others."""
    case, taken = CASES[name], 0
    for at, (bits, block) in enumerate(itertools.product(WRITTEN, BLOCKS)):
        if at % 4 // 2 != LAYERS.index(name) % 2:
            continue
        encoding = Blocked(IntGrid(bits, at % 3 > 0), block, "fp32" if at % 2 else "fp16")
        if form.refuses(weights[name], encoding):
            with pytest.raises(Refused):
                emit(case, encoding, form, tmp_path)
            continue
        taken += 1
        emitted = emit(case, encoding, form, tmp_path)
        ops = {node.op_type for node in onnx.load(emitted.path).graph.node}
        for output, found in run(emitted.path, case.feeds).items():
            wanted = emitted.expected[output]
            error = np.abs(found.astype(np.float64) - wanted).max() / np.abs(wanted).max()
            assert error <= (LEVEL4 if "MatMulNBits" in ops else HALF if wanted.dtype == np.float16 else FLOAT)
    assert taken or form != DECODED


@pytest.mark.parametrize("form", [DECODED, ROWS, FUSED])
@pytest.mark.parametrize("value", [STATIC_INT8, DYNAMIC_INT8])
def test_rounded_activations_are_not_dropped_reject(
    form: Form, value: ValueEncoding, weights: dict[str, Weight]
) -> None:
    assert "neither" in form.refuses(weights["matmul"].reading(value), Blocked(IntGrid(8)))


@pytest.mark.parametrize(
    ("form", "value"), [(integers.INTEGERS, STATIC_INT8), (integers.INTEGERS, DYNAMIC_INT8), (KERNEL, STATIC_INT8)]
)
def test_rounded_activations_need_one_scale_a_channel(
    form: Form, value: ValueEncoding, weights: dict[str, Weight]
) -> None:
    rounded = weights["matmul"].reading(value)
    assert not form.refuses(rounded, Blocked(IntGrid(8)))
    assert "one scale a channel" in form.refuses(rounded, Blocked(IntGrid(8), group(32)))


def test_kernels_take_one_step_reject(weights: dict[str, Weight]) -> None:
    assert "export { activations = int8 }" in KERNEL.refuses(
        weights["matmul"].reading(DYNAMIC_INT8), Blocked(IntGrid(8))
    )


def test_integers_are_multiplied_with_rounded_activations_alone_reject(weights: dict[str, Weight]) -> None:
    assert "only where activations are rounded" in integers.INTEGERS.refuses(weights["matmul"], Blocked(IntGrid(8)))


def test_every_form_is_found_once_and_written() -> None:
    general = ["rows", "fused", "decoded", "bytes", "integers", "kernel"]
    assert [name for name, one in forms().items() if one.general] == general
    assert set(writers()) == {one.writer or name for name, one in forms().items()}
    for name, form in forms().items():
        assert pickle.loads(pickle.dumps(form)) is copy.deepcopy(form) is form and str(form) == name
        assert form.says and form.explains.endswith(".") and form != name
    assert len(set(forms().values())) == len(forms())


def test_parts_that_do_not_fit_reject() -> None:
    encoding, codes = Blocked(IntGrid(4), group(32)), np.full((8, 64), 15, np.uint8)
    scale = np.ones((8, 2), np.float16)
    shape = (8, 64)
    Encoded(encoding, shape, stored(encoding, codes, Scales(scale, None)))
    for wrong in (
        (codes + 1, Scales(scale, None)),
        (codes.astype(np.int8), Scales(scale, None)),
        (codes, Scales(scale[:, :1], None)),
        (codes, Scales(scale.astype(np.float32), None)),
        (codes, Scales(scale, np.zeros((8, 2), np.uint8))),
    ):
        with pytest.raises(ValueError, match=r"of int4 group 32|int4 group 32 sym scale fp16 has the parts"):
            Encoded(encoding, shape, stored(encoding, *wrong))
    asymmetric = Blocked(IntGrid(4, False), group(32))
    with pytest.raises(ValueError, match="has the parts"):
        Encoded(asymmetric, shape, stored(asymmetric, codes, Scales(scale, None)))
    with pytest.raises(ValueError, match="scales are fp16, fp32"):
        Blocked(IntGrid(4), CHANNEL, "bf16")
    with pytest.raises(ValueError, match="holds nothing"):
        Block(1, -32)


def test_codes_of_another_matrix_reject(tmp_path: Path) -> None:
    graph = loaded(CASES["matmul"], tmp_path)
    (weight,) = graph.weights()
    other = fit.encode(np.ones((3, 32), np.float32), Blocked(IntGrid(4), group(32)))
    with pytest.raises(Refused, match="not of the weight's shape"):
        graph.encode(weight, other, FUSED)
