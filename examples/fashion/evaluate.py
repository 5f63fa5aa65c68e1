"""Measures a model of this example on the packaged test images, in plain ONNX Runtime.

python evaluate.py fashion-cnn.onnx
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime as ort


def main() -> None:
    """Prints the top-1 accuracy and the size of the file."""
    parser = argparse.ArgumentParser(description="Top-1 of a model on the packaged test images.")
    parser.add_argument("model", type=Path)
    path = parser.parse_args().model

    with np.load(Path(__file__).parent / "test.npz") as test:
        images, labels = test["image"].astype(np.float32) / 255, test["label"]
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": images})
    correct = int((logits.argmax(1) == labels).sum())
    print(f"{path.name}: {path.stat().st_size:,} bytes, top-1 {correct / len(labels):.1%} ({correct} of {len(labels)})")


if __name__ == "__main__":
    main()
