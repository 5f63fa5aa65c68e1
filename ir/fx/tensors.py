"""Torch tensors as numpy arrays and back, sharing memory where both allow it."""

from typing import Any

import ml_dtypes
import numpy as np
import torch

# the types that numpy itself lacks, and the integers of their width
_CARRIERS: dict[torch.dtype, tuple[np.dtype[Any], torch.dtype]] = {
    torch.bfloat16: (np.dtype(ml_dtypes.bfloat16), torch.uint16),
    torch.float8_e4m3fn: (np.dtype(ml_dtypes.float8_e4m3fn), torch.uint8),
    torch.float8_e5m2: (np.dtype(ml_dtypes.float8_e5m2), torch.uint8),
}
_TORCH = {numpy: (dtype, carrier) for dtype, (numpy, carrier) in _CARRIERS.items()}


def dtype_name(dtype: torch.dtype) -> str:
    """Numpy's name of a type; torch's are the same words."""
    return str(dtype).removeprefix("torch.")


def torch_dtype(name: str) -> torch.dtype:
    """The type of numpy's name."""
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as an array over the same memory."""
    tensor = tensor.detach().cpu()
    if tensor.dtype not in _CARRIERS:
        return tensor.numpy()
    numpy, carrier = _CARRIERS[tensor.dtype]
    return tensor.view(carrier).numpy().view(numpy)


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """An array as a tensor over the same memory; copied if it is read-only, which torch has no word for."""
    array = np.asarray(array)
    array = array.copy() if not array.flags.writeable or any(step < 0 for step in array.strides) else array
    if array.dtype not in _TORCH:
        return torch.from_numpy(array)
    dtype, carrier = _TORCH[array.dtype]
    return torch.from_numpy(array.view(f"u{carrier.itemsize}")).view(dtype)
