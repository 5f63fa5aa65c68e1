"""The entropy of a vision transformer's attentions at other sizes of images, with `scale = tokens(...)` and without.

    python -m benchmarks.attention.tokens

Needs torch and transformers. Takes `vit` of `benchmarks.architectures` (images of 32x32, 17 tokens, random weights),
whose positions are interpolated at other sizes, exports it at each size, and prints a row an attention: the mean
entropy of its weights, in nats, over 64 random images at the training size, at a larger one, and there with the scale.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.architectures.export import randomise
from benchmarks.architectures.transformers import MODELS, build
from benchmarks.processes.timing import machine
from qcc.ir.attention.find import attentions
from qcc.ir.graph.attention import Attention
from qcc.ir.graph.ops import Array
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.attention.scale import Tokens
from qcc.passes.contract.contract import Context

NAME, TRAINED, TOKENS, IMAGES = "vit", (32, 32), 17, 64
SIZES = ((32, 64), (64, 64), (64, 128))


class Interpolated(nn.Module):
    """A vision transformer whose positions are interpolated for images of any size."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pixels: Tensor) -> Tensor:
        """Its logits."""
        logits: Tensor = self.inner(pixel_values=pixels, interpolate_pos_encoding=True, return_dict=False)[0]
        return logits


def main() -> None:
    """Print the rows."""
    torch.manual_seed(0)
    plain, shapes = build(MODELS[NAME])
    randomise(plain.eval(), shapes, 0)
    assert isinstance(plain.model, nn.Module)
    module = Interpolated(plain.model).eval()
    print(f"# {machine()}\n# python -m benchmarks.attention.tokens\n")
    print("| image | tokens | attention | in training | as it is | scaled | factor |\n|" + " --- |" * 7)
    with tempfile.TemporaryDirectory() as folder:
        usual = _entropies(_exported(module, TRAINED, Path(folder)), TRAINED)
        for size in SIZES:
            graph = _exported(module, size, Path(folder))
            feeds = {"pixels": _pixels(size)}
            scaled, edits = Tokens(TOKENS).apply(
                graph, [one.name for one in attentions(graph, feeds)], Context(sample=feeds)
            )
            assert not any(edit.refused for edit in edits), edits
            tokens = size[0] * size[1] // 64 + 1
            rows = zip(usual.items(), _entropies(graph, size).values(), _entropies(scaled, size).values(), strict=True)
            for (name, one), two, three in rows:
                factor = np.sqrt(np.log(tokens) / np.log(TOKENS))
                print(
                    f"| {size[0]}x{size[1]} | {tokens} | {name} | {one:.4f} | {two:.4f} | {three:.4f} | {factor:.3f} |"
                )


def _pixels(size: tuple[int, int]) -> Array:
    return np.random.default_rng(1).standard_normal((IMAGES, 3, *size), np.float32)


def _exported(module: nn.Module, size: tuple[int, int], folder: Path) -> OnnxGraph:
    path = folder / f"{size[0]}x{size[1]}.onnx"
    torch.onnx.export(
        module,
        (torch.zeros(2, 3, *size),),
        str(path),
        input_names=["pixels"],
        dynamo=True,
        external_data=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    graph = OnnxGraph.load(path)
    graph.simplify()
    return graph


def _entropies(graph: OnnxGraph, size: tuple[int, int]) -> dict[str, float]:
    """By attention, the mean entropy of a query's weights."""
    feeds = {"pixels": _pixels(size)}
    found = [one for one in attentions(graph, {"pixels": feeds["pixels"][:2]}) if isinstance(one, Attention)]
    makers = {op.name: op.outputs[0] for op in graph.ops()}
    names = [makers[one.name] for one in found]
    weights = graph.runner(["pixels"], names)(feeds)
    return {
        one.name: float(-(weights[name] * np.log(np.maximum(weights[name], 1e-30))).sum(-1).mean())
        for one, name in zip(found, names, strict=True)
    }


if __name__ == "__main__":
    main()
