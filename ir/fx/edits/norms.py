"""Folding batch norms into the layers before them, as the exporter to ONNX does.

A module and its export are to be compiled to the same parts, and of a batch norm right behind a layer the exporter
leaves nothing. So its arithmetic is done here too, in float32 and in its order: other roundings would be other codes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.fx import Graph, Node

from qcc.ir.fx.edits.edit import FxEditor
from qcc.ir.fx.kinds import arguments, aten_name, kind_of
from qcc.ir.fx.operands import places
from qcc.ir.fx.tensors import to_array, to_tensor
from qcc.ir.graph.ops import Array, Kind

OF_PRODUCTS = {"linear": ("weight", "bias", 0), "addmm": ("mat2", "self", 1)}
"""Where products of matrices have their weight and bias, and the axis of the weight that is the outputs'."""
MATRIX = 2  # the rank of what such a product makes where channels are its last axis, as a norm's are the second


@dataclass(frozen=True)
class Folded:
    """A batch norm and the layer that takes it up: its weight, its bias or None, and the weight's axis of outputs."""

    norm: Node
    layer: Node
    weight: Node
    bias: Node | None
    axis: int
    groups: int | None = None
    """Of a transposed convolution, whose weight ``[in, out / groups, ...]`` has its inputs first."""


def fold_batch_norms(
    graph: Graph, editor: FxEditor, tensors: dict[Node, torch.Tensor], paths: Mapping[Node, str]
) -> int:
    """Fold each batch norm that alone reads a layer whose weight nothing else reads; how many there were.

    Rewrite:
        batch_norm(conv(x, W) + b)  -->  conv(x, s W) + (b - mean) s + bias    s = gain / sqrt(variance + epsilon)

    Source: onnxscript's rewrite rule, by which ``torch.onnx.export`` folds them; Jacob et al. 2017
    (arXiv:1712.05877), section 3.2.
    """
    found = [one for node in [*graph.nodes] if (one := _folded(node, tensors)) is not None]
    for one in found:
        _fold(one, editor, tensors, paths)
    return len(found)


def _folded(norm: Node, tensors: Mapping[Node, torch.Tensor]) -> Folded | None:
    """What becomes of a node; None where it is no batch norm, or stays."""
    if norm.op != "call_function" or kind_of(norm) != (Kind.NORM, "batch_norm") or aten_name(norm) != "batch_norm":
        return None
    given = arguments(norm)
    layer = given["input"]
    statistics = [given[name] for name in ("running_mean", "running_var")]
    affine = [given[name] for name in ("weight", "bias") if given[name] is not None]
    if given["training"] or len(layer.users) > 1 or any(one not in tensors for one in (*statistics, *affine)):
        return None
    one = _layer(norm, layer)
    held = () if one is None else (one.weight, *(() if one.bias is None else (one.bias,)))
    if one is None or any(part not in tensors or len(part.users) > 1 for part in held):
        return None
    return one if all(tensors[part].dtype is torch.float32 for part in (*held, *statistics, *affine)) else None


def _layer(norm: Node, layer: Node) -> Folded | None:
    """The layer that makes what a norm reads, if it is one."""
    if layer.op != "call_function":
        return None
    (kind, function), given, name = kind_of(layer), arguments(layer), aten_name(layer)
    if kind is Kind.CONV:
        turned = function == "conv_transpose"
        return Folded(norm, layer, given["weight"], given["bias"], int(turned), given["groups"] if turned else None)
    if name not in OF_PRODUCTS or layer.meta["val"].dim() != MATRIX:
        return None
    weight, bias, axis = OF_PRODUCTS[name]
    plain = given.get("alpha", 1) == given.get("beta", 1) == 1
    return Folded(norm, layer, given[weight], given[bias], axis) if plain and given[bias] is not None else None


def _fold(one: Folded, editor: FxEditor, tensors: dict[Node, torch.Tensor], paths: Mapping[Node, str]) -> None:
    given = arguments(one.norm)

    def array(node: Any, otherwise: float) -> Array:  # noqa: ANN401 - a node or None
        return (
            np.full_like(to_array(tensors[given["running_mean"]]), otherwise)
            if node is None
            else to_array(tensors[node])
        )

    mean, variance = (array(given[name], 0) for name in ("running_mean", "running_var"))
    scale = array(given["weight"], 1) / np.sqrt(variance + np.float32(given["eps"]))
    bias = (array(one.bias, 0) - mean) * scale + array(given["bias"], 0)
    tensors[one.weight] = to_tensor(_scaled(to_array(tensors[one.weight]), scale, one))
    if one.bias is None:
        at = next(at for at, (place, _) in enumerate(places(one.layer)) if place.argument == "bias")
        editor.set_operand(one.layer, at, bias, f"{paths[one.weight].removesuffix('weight')}bias")
    else:
        tensors[one.bias] = to_tensor(bias)
    editor.bypass(one.norm, 0)


def _scaled(weight: Array, scale: Array, one: Folded) -> Array:
    """A weight whose outputs are multiplied each by its number."""
    if one.groups is None:
        apart = [1] * weight.ndim
        apart[one.axis] = -1
        scaled: Array = weight * scale.reshape(apart)
        return scaled
    groups, kernel = one.groups, weight.shape[2:]
    parts = weight.reshape(groups, -1, weight.shape[1], *kernel)
    scales = scale.reshape(groups, 1, weight.shape[1], *(1 for _ in kernel))
    found: Array = (parts * scales).reshape(weight.shape)
    return found
