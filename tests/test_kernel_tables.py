"""Tables in kernels: numpy, the function that ONNX Runtime inlines and the library compute the same."""

from pathlib import Path

import numpy as np
import pytest

from qcc.codegen.cpu.processors.processors import native
from qcc.codegen.tir.codes import codes_of
from qcc.ir.encoding.blocked import Blocked, named
from qcc.ir.encoding.blocks import CHANNEL, group
from qcc.ir.encoding.grid import TableGrid
from qcc.ir.forms.kernel import KERNEL, kernel_op
from qcc.ir.kernel.op import OpError, parse
from tests.codegen_models import draw, in_whole_numbers, session
from tests.kernel_files import needs_tvm
from tests.onnx_models import CASES, emit, loaded, run

NF4, MXFP4 = Blocked(TableGrid("nf4"), group(64)), Blocked(TableGrid("fp4"), group(32), "e8m0")
ENCODINGS = [NF4, MXFP4, Blocked(TableGrid("fp4"), CHANNEL, "e8m0"), Blocked(TableGrid("int1"), group(32), "fp32")]
FLOAT = 1e-5  # of the largest output: sums in float32 in another order
SUMS = 1e-6  # of the sum of magnitudes: sums of 128 products in float32


@pytest.mark.sampled
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda one: one.text)
@pytest.mark.parametrize("name", ["matmul", "gemm", "tied_gemm", "conv2d_pointwise"])
def test_the_function_computes_what_is_decoded(name: str, encoding: Blocked, tmp_path: Path) -> None:
    case = CASES[name]
    (weight,) = loaded(case, tmp_path).weights()[:1]
    if KERNEL.refuses(weight, encoding):
        pytest.skip(KERNEL.refuses(weight, encoding))
    emitted = emit(case, encoding, KERNEL, tmp_path)
    for output, found in run(emitted.path, case.feeds).items():
        wanted = emitted.expected[output]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=FLOAT * np.abs(wanted).max())
    stored = sum(len(tensor.raw_data) for tensor in emitted.stored)
    assert KERNEL.stored_bytes(encoding, weight.shape) - KERNEL.node_bytes == stored


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda one: one.text)
@pytest.mark.parametrize("most", [127, 255])
def test_whole_numbers_stand_for_a_table(encoding: Blocked, most: int) -> None:
    codes = codes_of(encoding)
    terms = codes.terms(most)
    whole = sum(term.weight * np.array(term.table) for term in terms.parts)
    error = np.abs((whole - terms.zero) * terms.factor - np.array(codes.register)).max()
    assert error == 0 if len(terms.parts) == 1 else error <= terms.factor / 2
    assert all(0 <= number <= term.highest <= most for term in terms.parts for number in term.table or ())
    assert len(terms.parts) == (2 if encoding is NF4 else 1)


@pytest.mark.slow
@needs_tvm
def test_the_library_computes_it_too(tmp_path: Path) -> None:
    from qcc.codegen.cpu.library.build import build

    ops = [kernel_op(one, (40, 128)) for one in (NF4, MXFP4)]
    library = build(ops, (native(),), tmp_path / "k.so", "int8")
    for op in ops:
        layer = draw(op, 40, 128)
        x = np.random.default_rng(0).standard_normal((2, 128)).astype(np.float32)
        found = session(layer.model(), library).run(None, {"x": x})[0]
        wanted = in_whole_numbers(layer, native()).rounded(x)
        assert np.abs(found - wanted).max() <= SUMS * layer.magnitude(x)


@pytest.mark.parametrize(
    "name", ["nf4_group64", "fp4_group32_e8m0", "int3_channel_asym", "bf16", "int1_channel", "fp8_e5m2_group32"]
)
def test_names_read_back(name: str) -> None:
    assert named(name).name == name and parse(f"linear_{name}_bias").name == f"linear_{name}_bias"


@pytest.mark.parametrize(
    "name", ["nf4", "nf4_group16", "fp4_group16_e4m3", "nf5_group32", "fp6_e2m3_group32", "int4_group32_e8m0", "int9"]
)
def test_names_of_what_no_kernel_reads_reject(name: str) -> None:
    with pytest.raises(OpError):
        parse(f"linear_{name}")
