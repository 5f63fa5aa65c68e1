"""The form ``decoded``."""

from qcc.ir.kernel.op import LinearOp
from qcc.ir.onnx.emit.ops import OnnxOps
from qcc.ir.onnx.emit.writer import FormWriter


class DecodedWriter(FormWriter):
    """Writes the decoding of a whole weight, which folds when the session starts."""

    def write(self) -> tuple[LinearOp, ...]:
        """``W  -->  decode(parts)``."""
        if self.is_float:
            self._decoded_floats()
        else:
            self._decoded()
        return ()

    def _decoded(self) -> None:
        """``W  -->  decode(codes, scale)``, folded when the session starts."""
        anchor, view = self.first_reader(), self._weight.view
        turned = self._encoded.turned() if view.is_transposed and not view.is_matrix else None
        encoded, rows_first = turned or self._encoded, turned is None and not view.is_matrix
        shape = tuple(view.shape[axis] for axis in view.order) if rows_first else view.shape
        ops = OnnxOps(self, anchor, self._dtype(), shape, own=True)
        value = ops.finish(encoded.encoding.decode(ops, lambda name: self.part(name, encoded), encoded.shape))
        self._replace_constant(value, rows_first, anchor)

    def _decoded_floats(self) -> None:
        """``W  -->  Cast(w)``, folded when the session starts."""
        anchor, name = self.first_reader(), self._encoded.encoding.text
        table = self.floats(name, self._weight.view.array(self._encoded.codes), name)
        self._replace_constant(self.cast(table, self._dtype(), anchor), False, anchor)
