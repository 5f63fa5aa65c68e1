"""Making a model smaller whose weights are sums of levels, without looking at data again."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir

from qcc.ir.errors import ModelError
from qcc.ir.model.model import Written
from qcc.ir.onnx.file.external import entries_of
from qcc.ir.onnx.file.levels import LeveledModel
from qcc.ir.onnx.file.load import parse
from qcc.ir.onnx.file.save import framed_size, save_parts, size_apart, size_of_parts

Counts = Mapping[str, int]
HELP = "compile it with `weights = stack(8)`: `qcc passes stack` tells more"


class Trimmer:
    """A file that can be made smaller.

    Args:
        path: of the model.
        output: what it becomes, whose name tells where large weights lie.

    Raises:
        ModelError: it cannot be read, has no levels, or other ones than it says.
    """

    def __init__(self, path: Path, output: Path) -> None:
        self._output = output
        located = parse(path)
        self._path, self._folder, self._apart = path, located.folder, bool(located.data_files)
        try:
            self._model = LeveledModel(located.proto)
        except LookupError as error:
            raise ModelError("Q370", f"`{path.name}` has no levels that could be left out", HELP) from error
        except ValueError as error:
            help = "trim the file that `qcc compile` wrote, as it wrote it"
            raise ModelError("Q371", f"the levels of `{path.name}` are not what it says: {error}", help) from error
        self.levels = self._model.levels

    @property
    def smallest(self) -> Counts:
        """One level of each weight."""
        return dict.fromkeys(self.levels.counts, 1)

    def size(self, counts: Counts) -> int:
        """Of the files, exactly, with so many levels of each weight."""
        return self._sized(*self._cut(counts))

    def fitting(self, most_bytes: float) -> Counts:
        """The levels that fit: in their order, those left out that do not.

        Raises:
            ModelError: not even the first ones do.
        """
        counts = dict(self.smallest)
        if most_bytes < (least := self.size(counts)):
            help = f"the smallest that it can be is {least:,} bytes"
            message = f"`{self._path.name}` cannot be made as small as {int(most_bytes):,} bytes"
            raise ModelError("Q372", message, help)
        taken, left, bytes_of = [], most_bytes - least, self._level_bytes()
        for name, count in self.levels.steps():
            if count == counts[name] + 1 and bytes_of[name, count] <= left:
                taken.append(name)
                counts[name] += 1
                left -= bytes_of[name, count]
        while taken and self.size(counts) > most_bytes:  # nodes and names, which only the whole tells
            counts[taken.pop()] -= 1
        return counts

    def write(self, counts: Counts, path: Path) -> Written:
        """Write the model with so many levels of each weight, all of it or nothing.

        Raises:
            ModelError: the place cannot be written to.
        """
        proto, large = self._cut(counts)
        written = save_parts(proto, large, path, "always" if self._apart else "never")
        whole = self.levels.counts
        return replace(written, levels={name: count for name, count in counts.items() if count < whole[name]})

    def _cut(self, counts: Counts) -> tuple[onnx.ModelProto, list[ir.Value]]:
        """The model, and apart from it its large constants."""
        proto = self._model.cut(counts)
        small = [one for one in proto.graph.initializer if one.data_location != onnx.TensorProto.EXTERNAL]
        large = [self._large(one) for one in proto.graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(small)
        return proto, large

    def _large(self, tensor: onnx.TensorProto) -> ir.Value:
        """A constant that lies in a file."""
        entries = entries_of(tensor)
        offset, length = int(entries.get("offset", "0")), entries.get("length")
        held = ir.ExternalTensor(
            str(self._folder / entries["location"]),
            offset,
            None if length is None else int(length),
            ir.DataType(tensor.data_type),
            shape=ir.Shape(tensor.dims),
            name=tensor.name,
        )
        return ir.Value(name=tensor.name, const_value=held)

    def _sized(self, proto: onnx.ModelProto, large: list[ir.Value]) -> int:
        return size_apart(proto, large, self._output) if self._apart else size_of_parts(proto, large)

    def _level_bytes(self) -> dict[tuple[str, int], int]:
        """What the constants of each level take; nodes are for the whole to tell."""
        found: dict[tuple[str, int], int] = defaultdict(int)
        for tensor in self._model.proto.graph.initializer:
            apart = tensor.data_location == onnx.TensorProto.EXTERNAL
            size = framed_size(self._large(tensor)) if apart else tensor.ByteSize()
            found[self._model.needed(tensor.name)] += size
        return found
