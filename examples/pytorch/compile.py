"""Compile PyTorch models in PyTorch, check them, export them and run the export: python compile.py FOLDER [--target T].

A transformer and a convolutional network with random weights stand for yours. Into the folder go the ONNX models with
their locks and reports; for a target such as ``cpu(avx2)``, also kernels (they take a C compiler and
``qcc[kernels]``).
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import qcc

POLICY = """qpolicy 1
{target}
calibrate generated {{ samples = 8 }}
rule linear {{ weights = int4 group 32; rounding = gptq }}
rule conv, embedding {{ weights = int8 channel }}
verify {{ cosine >= 0.95 }}
"""
WORDS, WIDTH, HEADS, CLASSES = 1000, 256, 4, 10


class Block(nn.Module):
    """Attention, then a feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Rows of the same shape."""
        batch, length, width = x.shape
        parts = self.qkv(self.norm1(x)).view(batch, length, 3, HEADS, width // HEADS)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        result: Tensor = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return result


class Transformer(nn.Module):
    """Token ids to the logits of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(WORDS, WIDTH)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits ``[batch, classes]``."""
        result: Tensor = self.head(self.blocks(self.tokens(ids)).mean(1))
        return result


class Cnn(nn.Module):
    """Images to the logits of classes: a stem, a residual block and a head, each convolution with its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``[batch, classes]``."""
        x = self.stem(image)
        result: Tensor = self.head(torch.relu(x + self.body(x)).mean((2, 3)))
        return result


def show(module: nn.Module, inputs: Tensor, policy: str, output: Path) -> None:
    """Compile a module, hold what comes out to it, and do the same with the ONNX model."""
    batch = torch.export.Dim("batch")
    with torch.no_grad():
        wanted = module.eval()(inputs)
        program = torch.export.export(module, (inputs,), dynamic_shapes=({0: batch},))
    floats = sum(tensor.nbytes for tensor in module.state_dict().values())

    result = qcc.compile(program, policy)
    if not result.passed:
        raise SystemExit("the verification failed")
    held = sum(tensor.nbytes for tensor in result.model.state_dict().values())
    with torch.no_grad():
        near = functional.cosine_similarity(result.model(inputs).flatten(), wanted.flatten(), dim=0)
    print(f"{type(module).__name__}: {floats:,} bytes of floats, {held:,} compact; cosine {near:.4f} in PyTorch")

    made = result.to_onnx(output)
    session = qcc.Session(made.output)
    (found,) = session.run({session.inputs[0].name: inputs.numpy()}).values()
    near = functional.cosine_similarity(torch.from_numpy(found).flatten(), wanted.flatten(), dim=0)
    kernels = f"with {session.kernels.name}" if session.kernels else "without kernels"
    print(f"    {made.output.name}: {made.output_bytes:,} bytes; cosine {near:.4f} in ONNX Runtime, {kernels}")


def main() -> None:
    """Both models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", default="onnxruntime", help="where the models are to run, as policies say it")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    policy = POLICY.format(target=f"target {arguments.target}")
    torch.manual_seed(0)
    show(Transformer(), torch.randint(0, WORDS, (2, 16)), policy, arguments.folder / "transformer.onnx")
    show(Cnn(), torch.randn(2, 3, 32, 32), policy, arguments.folder / "cnn.onnx")


if __name__ == "__main__":
    main()
