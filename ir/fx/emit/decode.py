"""The torch reading of decode expressions, and how what is stored lies in tensors.

The operations are those of ``torch`` alone and change nothing in place, so that they compute on tensors and can be
traced into a program as well.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from qcc.ir.encoding.algebra import Encoding, MatrixShape, Part, Read
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.grid import Grid, TableGrid
from qcc.ir.encoding.packing import pack, planes
from qcc.ir.fx.tensors import to_tensor, torch_dtype

Constant = Callable[[np.ndarray], Tensor]
_FLOATS = {"fp16": "float16", "bf16": "bfloat16"}
"""Torch's names of the floats that a part's bits may be."""


class TorchOps:
    """Computes what a decode expression says.

    Args:
        constant: gives the tensor of an array that the expression brings along, such as a grid's numbers.
    """

    def __init__(self, constant: Constant = to_tensor) -> None:
        self._constant = constant

    def numbers(self, codes: Tensor, grid: Grid, shape: Sequence[int]) -> Tensor:
        """See `Ops.numbers`."""
        codes = codes.reshape(tuple(shape))
        if codes.is_floating_point():
            return codes.to(torch.float32)
        count = len(grid.table) if isinstance(grid, TableGrid) else 1 << sum(grid.planes)
        return self.take(self._constant(grid.numbers(np.arange(count).astype(grid.dtype))), codes, 0)

    def scaled(
        self,
        codes: Tensor,
        grid: Grid,
        zero: Tensor | None,
        scale: Tensor,
        blocked: Sequence[int],
        shape: Sequence[int],
    ) -> Tensor:
        """See `Ops.scaled`."""
        values = self.numbers(codes, grid, blocked)
        centred = values if zero is None else values - zero
        return (centred * scale).reshape(tuple(shape))

    def floats(self, stored: Tensor) -> Tensor:
        """See `Ops.floats`."""
        return stored.to(torch.float32)

    def decode(self, encoding: Encoding, read: Read[Tensor], shape: MatrixShape) -> Tensor:
        """See `Ops.decode`."""
        return encoding.decode(self, read, shape)

    def decode_rows(self, encoding: Encoding, read: Read[Tensor], lead: Sequence[int], shape: MatrixShape) -> Tensor:
        """See `Ops.decode_rows`."""
        return encoding.decode_rows(self, read, lead, shape)

    def total(self, levels: Sequence[Tensor]) -> Tensor:
        """See `Ops.total`."""
        found, *others = levels
        for other in others:
            found = found + other
        return found

    def multiply(self, left: Tensor, right: Tensor) -> Tensor:
        """See `Ops.multiply`."""
        return left @ right

    def apart(self, value: Tensor, axes: Sequence[int]) -> Tensor:
        """See `Ops.apart`."""
        rank = value.dim() + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            value = value.unsqueeze(axis)
        return value

    def spread(self, value: Tensor, axis: int, size: int, count: int) -> Tensor:
        """See `Ops.spread`."""
        places = torch.arange(count, dtype=torch.int32, device=value.device)
        return torch.index_select(value, axis, torch.div(places, size, rounding_mode="floor"))

    def reshape(self, value: Tensor, shape: Sequence[int]) -> Tensor:
        """See `Ops.reshape`."""
        return value.reshape(tuple(shape))

    def transpose(self, value: Tensor, order: Sequence[int]) -> Tensor:
        """See `Ops.transpose`."""
        return value if list(order) == sorted(order) else value.permute(tuple(order))

    def concat(self, values: Sequence[Tensor], axis: int) -> Tensor:
        """See `Ops.concat`."""
        return torch.cat(list(values), axis)

    def take(self, value: Tensor, index: Tensor, axis: int) -> Tensor:
        """See `Ops.take`."""
        axis %= value.dim()
        places = index.reshape(-1).to(torch.int32)
        if index.dtype.is_signed:  # those below zero count from the end
            places = places % value.shape[axis]
        found = torch.index_select(value, axis, places)
        return found.reshape((*value.shape[:axis], *index.shape, *value.shape[axis + 1 :]))

    def rows(self, part: Tensor, index: Tensor, lead: Sequence[int]) -> Tensor:
        """See `Ops.rows`."""
        return self.take(part, index, 0)

    def times(self, left: Tensor, right: Tensor) -> Tensor:
        """See `Ops.times`."""
        return left * right

    def places(self, numbers: Tensor, count: int) -> Tensor:
        """See `Ops.places`."""
        del count
        return torch.argsort(torch.argsort(numbers, stable=True), stable=True)

    def ranks(self, numbers: Tensor) -> Tensor:
        """See `Ops.ranks`."""
        above = (numbers > 0).to(torch.int32)
        return torch.cumsum(above, 0, dtype=torch.int32) * above

    def cut(self, value: Tensor, shape: Sequence[int]) -> Tensor:
        """See `Ops.cut`."""
        for axis, size in enumerate(shape):
            value = value.narrow(axis, 0, size)
        return value

    def constant(self, name: str, array: np.ndarray) -> Tensor:
        """See `Ops.constant`."""
        del name  # equal arrays are told by what is in them
        return self._constant(array)

    def zeros(self, shape: Sequence[int]) -> Tensor:
        """See `Ops.zeros`."""
        return self._constant(np.zeros(1, np.float32)).expand(tuple(shape))


def stored_tensors(encoded: Encoded) -> dict[str, Tensor]:
    """What is stored, in the tensors that hold it.

    Codes of a byte or less are packed flat, a tensor for each plane as in an ONNX file, all else is as it is.
    """
    found: dict[str, Tensor] = {}
    for name, part in encoded.encoding.parts(encoded.shape).items():
        array = encoded.parts[name]
        if part.dtype is np.uint8:
            packed = pack(np.ascontiguousarray(array).reshape(-1), part.bits)
            found |= {plane: to_tensor(one) for plane, one in zip(_names(name, part), packed, strict=True)}
        elif part.floats in _FLOATS:
            kept = np.ascontiguousarray(array)
            found[name] = to_tensor(kept).view(torch_dtype(_FLOATS[part.floats]))
        else:
            found[name] = to_tensor(np.ascontiguousarray(array))
    return found


def decoded(
    encoding: Encoding, shape: MatrixShape, tensors: Mapping[str, Tensor], constant: Constant = to_tensor
) -> Tensor:
    """The float32 matrix ``[out, in]`` of what `stored_tensors` made.

    Args:
        encoding: of the matrix.
        shape: of the matrix.
        tensors: what is stored of it.
        constant: see `TorchOps`.
    """
    parts = encoding.parts(shape)

    def read(name: str) -> Tensor:
        part = parts[name]
        return (
            _unpacked([tensors[one] for one in _names(name, part)], part, constant)
            if part.dtype is np.uint8
            else tensors[name]
        )

    return encoding.decode(TorchOps(constant), read, shape)


def _names(name: str, part: Part) -> list[str]:
    """What the planes of a part of codes are called."""
    count = len(planes(part.bits))
    return [name] if count == 1 else [f"{name}.{at}" for at in range(count)]


def _unpacked(packed: Sequence[Tensor], part: Part, constant: Constant) -> Tensor:
    """Codes, uint8, in the shape of their part."""
    total, shift = packed[0], 0
    for at, (plane, width) in enumerate(zip(packed, planes(part.bits), strict=True)):
        codes = plane
        if width < 8:
            codes = (
                (plane.unsqueeze(-1) >> constant(np.arange(0, 8, width, dtype=np.uint8))) & ((1 << width) - 1)
            ).reshape(-1)
        total = codes if at == 0 else total | (codes << shift)
        shift += width
    size = prod(part.shape)
    return (total if len(total) == size else total[:size]).reshape(part.shape)
