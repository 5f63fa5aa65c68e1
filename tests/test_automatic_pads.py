"""Convolutions whose pads follow from sizes are read as those that state them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qcc
from qcc.compiler.runtime.session import Session
from tests.onnx_models import random

POLICY = "rule conv { weights = int4 channel; rounding = gptq }"


def net(automatic: str, stride: int, kernel: int, size: int, pads: tuple[int, ...] | None) -> onnx.ModelProto:
    given = {"auto_pad": automatic} if pads is None else {"pads": pads}
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[stride] * 2, kernel_shape=[kernel] * 2, **given)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, size, size])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    held = numpy_helper.from_array(random(16, 8, kernel, kernel), "w")
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(helper.make_graph([node], "net", [x], [y], [held]), opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize(
    ("automatic", "stride", "kernel", "size", "pads"),
    [
        ("SAME_UPPER", 1, 3, 7, (1, 1, 1, 1)),
        ("SAME_UPPER", 1, 2, 7, (0, 0, 1, 1)),
        ("SAME_LOWER", 1, 2, 7, (1, 1, 0, 0)),
        ("SAME_UPPER", 2, 3, 8, (0, 0, 1, 1)),
        ("SAME_LOWER", 2, 3, 8, (1, 1, 0, 0)),
        ("SAME_UPPER", 2, 3, 7, (1, 1, 1, 1)),
        ("SAME_UPPER", 3, 2, 8, (0, 0, 0, 0)),
    ],
)
def test_the_same_codes(
    automatic: str, stride: int, kernel: int, size: int, pads: tuple[int, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Rounding by data sees the same patches, so that it gives the same outputs."""
    folder, x = tmp_path_factory.mktemp("pads"), random(4, 8, size, size, seed=3)
    found = []
    for name, stated in (("same", None), ("stated", pads)):
        path = folder / f"{name}.onnx"
        onnx.save(net(automatic, stride, kernel, size, stated), path)
        qcc.compile(path, POLICY, data=[{"x": x}], output=folder / f"{name}.out.onnx")
        found.append(Session(folder / f"{name}.out.onnx").run({"x": x})["y"])
    assert found[0].shape == found[1].shape
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)
