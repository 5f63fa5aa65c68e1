"""Opening ONNX files: lazily, completely, at every opset, wherever their weights lie."""

import os
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from qcc.ir.encoding import fit
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL, group
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.errors import ModelError
from qcc.ir.forms.decoded import DECODED
from qcc.ir.forms.fused import FUSED
from qcc.ir.forms.rows import ROWS
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.file import load as onnx_load
from qcc.ir.onnx.file import wire
from qcc.ir.onnx.graph.run import reference
from tests.onnx_models import CASES, IDS, MATMUL, X, parse, random, run

BIG = random(64, 64)  # 16 kB: left in the file
OPSETS = (7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25)


def _messy() -> onnx.ModelProto:
    """A model with one of everything that a reader might drop."""
    model = parse(MATMUL.replace("{", "{ k = Identity(small)", 1), {"w": BIG, "small": random(3)})
    graph = model.graph
    graph.initializer.append(helper.make_tensor("typed", TensorProto.FLOAT, [2000], list(map(float, range(2000)))))
    graph.initializer.append(helper.make_tensor("typed64", TensorProto.INT64, [600], list(range(600))))
    graph.initializer.append(helper.make_tensor("halves", TensorProto.FLOAT16, [2], [1.0, 2.0]))
    graph.initializer.append(numpy_helper.from_array(np.array(["a", "b"], object), "strings"))
    graph.initializer.append(numpy_helper.from_array(random(40, 60).astype(ml_dtypes.bfloat16), "bf16"))
    graph.initializer[0].doc_string = "the weight"
    indices = numpy_helper.from_array(np.array([1, 3]), "sparse_i")
    graph.sparse_initializer.append(
        helper.make_sparse_tensor(numpy_helper.from_array(random(2), "sparse"), indices, [5])
    )
    graph.quantization_annotation.append(onnx.TensorAnnotation(tensor_name="w"))
    helper.set_model_props(model, {"vocabulary": "a b c"})
    model.functions.append(
        onnx.parser.parse_function('<domain: "my", opset_import: ["": 17]> F (a) => (b) { b = Relu(a) }')
    )
    model.opset_import.append(helper.make_opsetid("my", 1))
    model.doc_string = "a model"
    return model


def _inlined(proto: onnx.ModelProto, file: Path) -> onnx.ModelProto:
    """A lazily read model with its payloads read after all."""
    data = file.read_bytes()
    for tensor in proto.graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries:
            start = int(entries["offset"])
            tensor.raw_data = data[start : start + int(entries["length"])]
            del tensor.external_data[:]
            tensor.ClearField("data_location")
    return proto


def test_reading_lazily_reads_the_same_model(tmp_path: Path) -> None:
    path = tmp_path / "messy.onnx"
    path.write_bytes(_messy().SerializeToString() + bytes([0xFA, 0x7F, 0x03]) + b"new")  # and a field of the future
    proto = onnx_load.parse(path).proto
    lazy = {tensor.name for tensor in proto.graph.initializer if tensor.data_location == TensorProto.EXTERNAL}
    assert lazy == {"w", "bf16"}
    assert _inlined(proto, path) == onnx.load(path)


def test_a_message_in_pieces_is_merged(tmp_path: Path) -> None:
    """Protobuf allows a message to come in pieces: ``cat a.onnx b.onnx`` is the merged model."""
    whole = parse(MATMUL, {"w": BIG, "v": BIG + 1})
    first, second = onnx.ModelProto(), onnx.ModelProto()
    first.CopyFrom(whole)
    del first.graph.initializer[1:]
    second.graph.initializer.append(whole.graph.initializer[1])
    path = tmp_path / "pieces.onnx"
    path.write_bytes(first.SerializeToString() + second.SerializeToString())
    assert _inlined(onnx_load.parse(path).proto, path) == whole
    assert OnnxGraph.load(path).constant("v") is not None


def test_the_last_of_two_payloads_counts(tmp_path: Path) -> None:
    model = parse(MATMUL)
    tensor = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[64, 64])
    twice = tensor.SerializeToString()
    for array in (BIG + 1, BIG):
        twice += wire.header(wire.TENSOR_RAW_DATA, array.nbytes) + array.tobytes()
    piece = wire.header(wire.GRAPH_INITIALIZER, len(twice)) + twice
    path = tmp_path / "twice.onnx"
    path.write_bytes(model.SerializeToString() + wire.header(wire.MODEL_GRAPH, len(piece)) + piece)
    np.testing.assert_array_equal(OnnxGraph.load(path).constant("w"), BIG)


def test_weights_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(parse(MATMUL, {"w": BIG}), path)
    tensor = OnnxGraph.load(path).model.graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert (tensor.offset or 0) > 0


def test_constants_are_read_only(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(parse(MATMUL, {"w": BIG, "s": random(3)}), path)
    graph = OnnxGraph.load(path)
    for name in ("w", "s"):
        array = graph.constant(name)
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


OLD = """g (float[2,4,6,6] x, int64[3] i) => (float[N,M] y, float[A,B] e) {
    [one] c = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (x, k)
    [two] r = Relu(c)
    [three] p = GlobalAveragePool(r)
    [four] f = Flatten(p)
    [five] s = Softmax <axis=1> (f)
    [six] y = Gemm <alpha=1.0, beta=1.0, transB=1> (s, w, b)
    [seven] e = Gather(t, i)
}"""
OLD_WEIGHTS = {"k": random(32, 4, 3, 3), "w": random(8, 32), "b": random(8), "t": random(9, 40)}
OLD_FEEDS = {"x": random(2, 4, 6, 6, seed=3), "i": np.array([0, 8, 3])}


@pytest.mark.sampled
@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_comes_in_and_is_raised(opset: int, tmp_path: Path) -> None:
    model = parse(OLD, OLD_WEIGHTS, opset, ir_version=3 if opset < 10 else 8)
    if opset < 10:
        for name, array in OLD_WEIGHTS.items():
            model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    graph = OnnxGraph.load(path)
    graph.simplify()
    names = [op.name for op in graph.ops()]
    weights = {weight.constant: weight for weight in graph.weights()}
    assert set(weights) == {"k", "w", "t"}
    for name, form in (("k", DECODED), ("w", FUSED), ("t", ROWS)):
        weight = next(weight for weight in graph.weights() if weight.constant == name)
        bits, block = (2, group(32)) if form == FUSED else (8, CHANNEL)
        graph.encode(weight, fit.encode(graph.matrix(weight), Blocked(IntGrid(bits), block)), form)
    assert graph.opset == 25
    assert set(names) - {"six", "seven"} <= {op.name for op in graph.ops()}
    graph.save(tmp_path / "out.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"))
    before, after = run(path, OLD_FEEDS), run(tmp_path / "out.onnx", OLD_FEEDS)
    np.testing.assert_allclose(after["e"], before["e"], atol=0.02)  # 8 bits on weights of about 3
    assert np.corrcoef(after["y"].ravel(), before["y"].ravel())[0, 1] > 0.9  # 2 bits


def test_raising_the_opset_keeps_names_and_metadata(tmp_path: Path) -> None:
    model = parse(OLD, OLD_WEIGHTS, 9)
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'net.conv', 'conv2d']")
    onnx.save(model, tmp_path / "model.onnx")
    graph = OnnxGraph.load(tmp_path / "model.onnx")
    graph.simplify()
    before = [(weight.name, weight.constant, weight.layers) for weight in graph.weights()]
    assert before[0][0] == "net.conv"
    graph.require_opset(21)
    assert graph.opset == 21
    assert [(weight.name, weight.constant, weight.layers) for weight in graph.weights()] == before


def test_raising_the_opset_reaches_subgraphs_and_functions(tmp_path: Path) -> None:
    body = """g (float[1,64,1] x, bool c) => (float[1,64] y) {
        u = my.F (x)
        y = If (c) <then_branch = t () => (float[1,64] a) { a = Squeeze <axes=[2]> (u) },
                    else_branch = e () => (float[1,64] b) { q = Squeeze <axes=[2]> (u) b = MatMul(q, w) }> }
        <domain: "my", opset_import: ["": 11]> F (a) => (b) {
            s = Squeeze <axes=[0]> (a)
            b = Unsqueeze <axes=[0]> (s) }"""
    model = parse(body, {"w": BIG}, 11)
    model.opset_import.append(helper.make_opsetid("my", 1))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    graph = OnnxGraph.load(path)
    graph.require_opset(21)
    graph.save(tmp_path / "out.onnx")
    for chosen in (True, False):
        feeds = {"x": random(1, 64, 1), "c": np.array(chosen)}
        np.testing.assert_allclose(run(tmp_path / "out.onnx", feeds)["y"], run(path, feeds)["y"], atol=1e-5)


def test_an_opset_that_cannot_be_raised_leaves_the_graph_whole(tmp_path: Path) -> None:
    body = """g (float[N,64] x) => (float[N,64] y) {
        h = MatMul(x, w)
        y = Resize <coordinate_transformation_mode="tf_half_pixel_for_nn"> (h, r, s) }"""
    model = parse(body, {"w": BIG, "r": np.zeros(0, np.float32), "s": np.ones(2, np.float32)}, 11)
    onnx.save(model, tmp_path / "model.onnx")
    graph = OnnxGraph.load(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="cannot be raised from 11 to 21") as caught:
        graph.require_opset(21)
    assert caught.value.code == "Q407"
    assert [value.name for value in graph.inputs] == ["x"]
    assert len(graph.weights()) == 1


def _apart(folder: Path, threshold: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    model = parse(MATMUL.replace("MatMul(x, w)", "MatMul(x, w) z = Identity(s)"), {"w": BIG, "s": random(5)})
    onnx.save(model, path, save_as_external_data=True, location="model.onnx_data", size_threshold=threshold)
    return path


@pytest.mark.parametrize("threshold", [0, 1024])
def test_weights_in_a_data_file(threshold: int, tmp_path: Path) -> None:
    path = _apart(tmp_path / "in", threshold)
    graph = OnnxGraph.load(path)
    assert graph.data_files() == ["model.onnx_data"]
    np.testing.assert_array_equal(graph.constant("w"), BIG)
    expected = reference(path)({"x": X})["y"]
    np.testing.assert_allclose(graph.runner(["x"], ["y"])({"x": X})["y"], expected, rtol=1e-6)
    graph.save(tmp_path / "out.onnx")
    shutil.rmtree(tmp_path / "in")  # nothing may point back
    np.testing.assert_allclose(run(tmp_path / "out.onnx", {"x": X})["y"], expected, rtol=1e-6)


def test_subgraph_weights_in_a_data_file(tmp_path: Path) -> None:
    case = CASES["in_if"]
    model = case.proto()
    branch = model.graph.node[1].attribute[0].g
    del branch.node[:]
    branch.node.append(helper.make_node("Constant", [], ["a"], value=numpy_helper.from_array(BIG[:, :32], "a")))
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="d.bin", size_threshold=0, convert_attribute=True)
    graph = OnnxGraph.load(path)
    graph.simplify()
    graph.save(tmp_path / "out.onnx")
    shutil.rmtree(tmp_path / "in")
    np.testing.assert_array_equal(run(tmp_path / "out.onnx", case.feeds)["z"], BIG[:, :32])


def test_a_missing_data_file(tmp_path: Path) -> None:
    path = _apart(tmp_path)
    (tmp_path / "model.onnx_data").unlink()
    with pytest.raises(ModelError, match=r"keeps its weights in `model.onnx_data`, which is missing") as caught:
        OnnxGraph.load(path)
    assert caught.value.code == "Q403"


def test_a_truncated_data_file(tmp_path: Path) -> None:
    path = _apart(tmp_path)
    os.truncate(tmp_path / "model.onnx_data", 5000)
    with pytest.raises(ModelError, match="truncated") as caught:
        OnnxGraph.load(path)
    assert caught.value.code == "Q403"


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "link", ""])
def test_a_data_file_outside_the_folder(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(1 << 15))
    path = _apart(tmp_path / "in")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    model = onnx.load(path, load_external_data=False)
    next(entry for entry in model.graph.initializer[0].external_data if entry.key == "location").value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="lies outside the model's folder") as caught:
        OnnxGraph.load(path)
    assert caught.value.code == "Q403"


@pytest.mark.parametrize(("key", "value"), [("offset", "-8"), ("offset", "x"), ("length", "1"), ("length", "99999999")])
def test_nonsense_about_a_data_file(key: str, value: str, tmp_path: Path) -> None:
    path = _apart(tmp_path)
    model = onnx.load(path, load_external_data=False)
    next(entry for entry in model.graph.initializer[0].external_data if entry.key == key).value = value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as caught:
        OnnxGraph.load(path)
    assert caught.value.code == "Q403"


def test_texts_in_a_data_file(tmp_path: Path) -> None:
    path = _apart(tmp_path)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].data_type = onnx.TensorProto.STRING
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as caught:
        OnnxGraph.load(path)
    assert caught.value.code == "Q403"


@pytest.mark.parametrize("apart", [True, False])
def test_a_download_cache_of_links(apart: bool, tmp_path: Path) -> None:
    """Hubs store files by their hash and link to them; package managers link hard."""
    blobs, shown = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    shown.mkdir(parents=True)
    path = _apart(tmp_path / "in")
    if not apart:
        onnx.save(parse(MATMUL, {"w": BIG}), path)
    path.rename(blobs / "aaa")
    (shown / "model.onnx").symlink_to("../../blobs/aaa")
    if apart:
        (tmp_path / "in" / "model.onnx_data").rename(blobs / "bbb")
        (shown / "model.onnx_data").symlink_to("../../blobs/bbb")
    os.link(blobs / "aaa", tmp_path / "hard")
    graph = OnnxGraph.load(shown / "model.onnx")
    np.testing.assert_array_equal(graph.constant("w"), BIG)
    expected = X @ BIG
    for runner in (graph.runner(["x"], ["y"]), reference(shown / "model.onnx")):
        np.testing.assert_allclose(runner({"x": X})["y"], expected, atol=1e-4)


def test_runners_cut_override_and_capture(tmp_path: Path) -> None:
    case = CASES["shared"]
    graph = OnnxGraph.load(case.save(tmp_path))
    graph.simplify()
    whole = graph.runner(["x"], ["h", "r", "y"])(case.feeds)
    np.testing.assert_array_equal(whole["r"], np.maximum(whole["h"], 0))
    piece = graph.runner(["r"], ["y"], free=["w"])
    np.testing.assert_allclose(piece({"r": whole["r"]})["y"], whole["y"], rtol=1e-5, atol=1e-5)
    zero = piece({"r": whole["r"], "w": np.zeros((64, 64), np.float32)})
    assert not zero["y"].any()
    with pytest.raises(ModelError, match="cannot run") as caught:
        graph.runner([], ["y"])
    assert caught.value.code == "Q406"


def test_runners_hold_subgraphs_and_encoded_weights(tmp_path: Path) -> None:
    case = CASES["in_if"]
    graph = OnnxGraph.load(case.save(tmp_path))
    graph.simplify()
    weight = graph.weights()[0]
    graph.encode(weight, fit.encode(graph.matrix(weight), Blocked(IntGrid(8), CHANNEL)), DECODED)
    z = graph.runner(["c"], ["z"])({"c": case.feeds["c"]})["z"]
    np.testing.assert_allclose(z, -case.weights["w"], atol=0.02)


def test_a_copy_is_independent(tmp_path: Path) -> None:
    case = CASES["gather_2d"]
    graph = OnnxGraph.load(case.save(tmp_path))
    graph.simplify()
    copy = graph.copy()
    weight = copy.weights()[0]
    copy.encode(weight, fit.encode(copy.matrix(weight), Blocked(IntGrid(4), CHANNEL)), ROWS)
    assert [w.constant for w in graph.weights()] == ["w"]
    assert not copy.weights()
    np.testing.assert_array_equal(graph.runner(["i"], ["y"])({"i": IDS})["y"], case.weights["w"][IDS])


def test_codes_in_a_file_are_not_kept_unpacked(tmp_path: Path) -> None:
    numbers = (np.arange(6 * 35) % 16 - 8).reshape(6, 35).astype(ml_dtypes.int4)
    packed = ir.tensor(numbers, dtype=ir.DataType.INT4)
    (tmp_path / "w.data").write_bytes(packed.tobytes())
    tensor = ir.ExternalTensor(
        "w.data", 0, packed.nbytes, ir.DataType.INT4, shape=ir.Shape((6, 35)), name="w", base_dir=tmp_path
    )
    value = ir.Value(name="w", const_value=tensor)
    for _ in range(2):
        found = onnx_load.array_of(value)
        assert found is not None and not found.flags.writeable
        np.testing.assert_array_equal(found, numbers)
        assert tensor.raw is None
