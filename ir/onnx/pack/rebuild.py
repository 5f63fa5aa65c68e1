"""Constants that are computed of another and a little more when a session starts, by ops that every runtime has."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from qcc.ir.model.packed import NarrowDelta, Rebuilt, TwoBitDelta

MARK = "qcc.pack"
FOUR_OF_A_BYTE = np.array([[2 * (byte >> 2 * at & 3) - 3 for at in range(4)] for byte in range(256)], np.float32)


def write_rebuilt(
    graph: onnx.GraphProto, name: str, tensor: onnx.TensorProto, how: Rebuilt
) -> list[tuple[onnx.TensorProto, str]]:
    """Put the ops that compute a constant at the front of a graph; the constants that they read, with their digests."""
    shape = list(tensor.dims)
    base = _like(f"{name}/{MARK}/base", onnx.TensorProto.FLOAT, shape)
    if isinstance(how, NarrowDelta):
        rows, columns = shape[0], int(np.prod(shape[1:]))
        up = _like(f"{name}/{MARK}/up", onnx.TensorProto.FLOAT, [rows, how.rank])
        down = _like(f"{name}/{MARK}/down", onnx.TensorProto.FLOAT, [how.rank, columns])
        nodes, parts = list(_product(graph, name, shape)), [(base, how.base), (up, how.up), (down, how.down)]
    elif isinstance(how, TwoBitDelta):
        rows, columns = shape[0], int(np.prod(shape[1:]))
        codes = _like(f"{name}/{MARK}/codes", onnx.TensorProto.UINT8, [rows, how.levels, -(-columns // 4)])
        sizes = _like(f"{name}/{MARK}/sizes", onnx.TensorProto.FLOAT, [rows, 1, how.levels])
        nodes = list(_levels(graph, name, shape, how.levels))
        parts = [(base, how.base), (codes, how.codes), (sizes, how.sizes)]
    else:
        places = _like(f"{name}/{MARK}/places", onnx.TensorProto.INT32, [how.count])
        values = _like(f"{name}/{MARK}/values", onnx.TensorProto.FLOAT, [how.count])
        nodes, parts = (
            list(_scatter(graph, name, shape)),
            [(base, how.base), (places, how.places), (values, how.values)],
        )
    old = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *old])
    return parts


def _product(graph: onnx.GraphProto, name: str, shape: list[int]) -> Iterator[onnx.NodeProto]:
    at = f"{name}/{MARK}"
    flat = len(shape) != 2
    yield helper.make_node("MatMul", [f"{at}/up", f"{at}/down"], [f"{at}/product"], f"{at}/MatMul")
    if flat:
        _shape(graph, f"{at}/shape", shape)
        yield helper.make_node("Reshape", [f"{at}/product", f"{at}/shape"], [f"{at}/shaped"], f"{at}/Reshape")
    yield helper.make_node("Add", [f"{at}/base", f"{at}/{'shaped' if flat else 'product'}"], [name], f"{at}/Add")


def _scatter(graph: onnx.GraphProto, name: str, shape: list[int]) -> Iterator[onnx.NodeProto]:
    at = f"{name}/{MARK}"
    _shape(graph, f"{at}/flat", [-1])
    _shape(graph, f"{at}/shape", shape)
    wide = helper.make_attribute("to", onnx.TensorProto.INT64)
    cast = helper.make_node("Cast", [f"{at}/places"], [f"{at}/where"], f"{at}/Cast")
    cast.attribute.append(wide)
    yield cast
    yield helper.make_node("Reshape", [f"{at}/base", f"{at}/flat"], [f"{at}/line"], f"{at}/Flatten")
    inputs = [f"{at}/line", f"{at}/where", f"{at}/values"]
    yield helper.make_node("ScatterElements", inputs, [f"{at}/changed"], f"{at}/ScatterElements")
    yield helper.make_node("Reshape", [f"{at}/changed", f"{at}/shape"], [name], f"{at}/Reshape")


def _levels(graph: onnx.GraphProto, name: str, shape: list[int], levels: int) -> Iterator[onnx.NodeProto]:
    """Four numbers of each byte by a table, which all such constants of a graph read."""
    at, table, columns = f"{name}/{MARK}", f"{MARK}/two_bits", int(np.prod(shape[1:]))
    if all(one.name != table for one in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(FOUR_OF_A_BYTE, table))
    _shape(graph, f"{at}/rows", [shape[0], levels, -1])
    _shape(graph, f"{at}/shape", shape)
    cast = helper.make_node("Cast", [f"{at}/codes"], [f"{at}/bytes"], f"{at}/Cast", to=onnx.TensorProto.INT32)
    yield cast
    yield helper.make_node("Gather", [table, f"{at}/bytes"], [f"{at}/fours"], f"{at}/Gather")
    yield helper.make_node("Reshape", [f"{at}/fours", f"{at}/rows"], [f"{at}/levels"], f"{at}/Numbers")
    yield helper.make_node("MatMul", [f"{at}/sizes", f"{at}/levels"], [f"{at}/sum"], f"{at}/MatMul")
    summed = f"{at}/sum"
    if columns % 4:
        whole = numpy_helper.from_array(np.arange(columns, dtype=np.int32), f"{at}/columns")
        graph.initializer.append(whole)
        yield helper.make_node("Gather", [summed, whole.name], [f"{at}/cut"], f"{at}/Cut", axis=2)
        summed = f"{at}/cut"
    yield helper.make_node("Reshape", [summed, f"{at}/shape"], [f"{at}/delta"], f"{at}/Reshape")
    yield helper.make_node("Add", [f"{at}/base", f"{at}/delta"], [name], f"{at}/Add")


def _shape(graph: onnx.GraphProto, name: str, sizes: list[int]) -> None:
    graph.initializer.append(helper.make_tensor(name, onnx.TensorProto.INT64, [len(sizes)], sizes))


def _like(name: str, kind: int, shape: list[int]) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=kind)
    tensor.dims.extend(shape)
    return tensor
