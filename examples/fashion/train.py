"""Trains the Fashion-MNIST classifier of this example: ``python train.py FOLDER_OF_THE_IDX_FILES``.

The data are the four ``*-ubyte.gz`` files of Fashion-MNIST; Debian carries them in the package
``dataset-fashion-mnist`` (``dpkg -L dataset-fashion-mnist`` tells where). Beside this script it writes
``fashion-cnn.onnx``, ``calibration.npz`` (training images) and ``test.npz`` (test images and labels).
"""

import argparse
import gzip
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).parent


class ConvBn(nn.Sequential):
    """A convolution without bias, then batch normalisation (the exporter folds the two)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(OrderedDict(conv=conv, norm=nn.BatchNorm2d(outputs)))


class FashionCnn(nn.Module):
    """A plain, a depthwise-separable and a residual block, global average pooling and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBn(1, 24, 3)  # 28x28
        self.down = ConvBn(24, 32, 3, stride=2)  # 14x14
        self.depthwise = ConvBn(32, 32, 3, stride=2, groups=32)  # 7x7
        self.pointwise = ConvBn(32, 64, 1)
        self.residual1 = ConvBn(64, 64, 3)
        self.residual2 = ConvBn(64, 64, 3)
        self.head = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Maps images [batch, 1, 28, 28] in 0..1 to logits [batch, 10]."""
        x = (image - 0.286) / 0.353  # mean and deviation of the training pixels
        x = self.down(self.stem(x).relu()).relu()
        x = self.pointwise(self.depthwise(x).relu()).relu()
        x = (x + self.residual2(self.residual1(x).relu())).relu()
        return self.head(x.mean((2, 3)))


def read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads the images [n, 1, 28, 28] and the labels [n] of ``train`` or ``t10k``, as bytes."""
    images = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28), np.frombuffer(labels, np.uint8, offset=8)


def mirror(images: Tensor) -> Tensor:
    """Flips each image left to right, or not, at random."""
    return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int = 12) -> None:
    """Trains with AdamW under a one-cycle learning rate."""
    batch = 128
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=epochs * (len(images) // batch))
    for epoch in range(epochs):
        for index in torch.randperm(len(images)).split(batch)[: len(images) // batch]:
            loss = functional.cross_entropy(model(mirror(images[index])), labels[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: last loss {loss.item():.3f}", flush=True)


def export(model: nn.Module, path: Path) -> None:
    """Writes the model as ONNX, without the exporter's stack traces (they name this machine's folders)."""
    options = {"dynamo": True, "opset_version": 21, "dynamic_shapes": ({0: "batch"},), "verbose": False}
    names = {"input_names": ["image"], "output_names": ["logits"]}
    proto = torch.onnx.export(model, (torch.rand(2, 1, 28, 28),), **options, **names).model_proto
    graph = proto.graph
    for item in [proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def main() -> None:
    """Trains, reports the accuracy on all test images, and writes the files."""
    parser = argparse.ArgumentParser(description="Train the Fashion-MNIST example.")
    parser.add_argument("data", type=Path, help="the folder of the idx .gz files")
    folder = parser.parse_args().data
    images, labels = read_split(folder, "train")
    test_images, test_labels = read_split(folder, "t10k")
    pixels, test_pixels = torch.tensor(images) / 255, torch.tensor(test_images) / 255

    torch.manual_seed(0)
    model = FashionCnn().to(memory_format=torch.channels_last)
    print(f"{sum(parameter.numel() for parameter in model.parameters())} parameters")
    train(model, pixels, torch.tensor(labels).long())
    model.eval()
    with torch.inference_mode():
        guesses = torch.cat([model(part).argmax(1) for part in test_pixels.split(1000)]).numpy()
    print(f"top-1 on {len(guesses)} test images: {(guesses == test_labels).mean():.2%}")

    export(model.to(memory_format=torch.contiguous_format), HERE / "fashion-cnn.onnx")
    np.savez_compressed(HERE / "calibration.npz", image=pixels[:128].numpy())
    np.savez_compressed(HERE / "test.npz", image=test_images[:1000], label=test_labels[:1000])


if __name__ == "__main__":
    main()
