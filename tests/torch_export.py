"""`torch.onnx.export` whose table of ops is made once a process: to make it takes longer than all else of an export."""

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

_ops = lru_cache(ONNXRegistry.from_torchlib)


def to_onnx(module: nn.Module, args: tuple[Any, ...], path: Path, **options: Any) -> None:
    """Export a module to a file."""
    made_once = mock.patch.object(ONNXRegistry, "from_torchlib", staticmethod(_ops))
    with made_once, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, args, path, dynamo=True, verbose=False, **options)
