"""Run a compiled model with its kernels, by ONNX Runtime and NumPy alone: python run.py MODEL.onnx [INPUTS.npz]."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime


def open_session(model: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """A session with ``MODEL.kernels.so``, if that lies beside the model and the system can load it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # 0: all cores
    options.add_session_config_entry("session.intra_op.spin_duration_us", "100")  # else for many milliseconds
    library = model.with_name(f"{model.stem}.kernels.so").resolve()
    if library.exists():
        try:
            options.register_custom_ops_library(str(library))
        except Exception as error:  # built for another kind of machine: the model runs without it
            print(f"without kernels: {error}", file=sys.stderr)
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: run.py MODEL.onnx [FEEDS.npz]")
    session = open_session(Path(sys.argv[1]))
    feeds = dict(np.load(sys.argv[2])) if len(sys.argv) > 2 else {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in value.shape]
        dtype = np.float32 if value.type == "tensor(float)" else np.int64
        feeds.setdefault(value.name, np.zeros(shape, dtype))
    for value, array in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        print(value.name, array.shape, array.dtype)
