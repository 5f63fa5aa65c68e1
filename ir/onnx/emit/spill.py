"""Constants that encoding makes, put aside in a file until the model is written, so that memory does not hold them."""

from pathlib import Path

import onnx_ir as ir

LEAST_BYTES = 1 << 16


class Spill:
    """A file that constants are added to.

    Args:
        path: of the file, which is made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self, graph: ir.Graph) -> None:
        """Put the large constants of a graph that lie in memory into the file.

        Raises:
            OSError: it cannot be written.
        """
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if isinstance(tensor, ir.Tensor | ir.PackedTensor) and tensor.nbytes >= LEAST_BYTES:
                value.const_value = self._put(name, tensor)

    def _put(self, name: str, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
        with self._path.open("ab") as file:
            offset = file.tell()
            file.write(tensor.tobytes())
        shape = ir.Shape(tensor.shape.numpy())
        return ir.ExternalTensor(str(self._path), offset, tensor.nbytes, tensor.dtype, shape=shape, name=name)
