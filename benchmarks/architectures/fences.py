"""Where two runs round activations otherwise: only between two whole numbers, where the last bit of a sum decides?

A sum of floats is another one in its last bits when it is made in another order, and a number that lies just between
two whole ones becomes either. What reads it then reads a whole step more or less, so outputs that are apart tell
nothing. Here each rounded value of the module is computed of the rounded values of the file, and compared with the
file's: what differs then differs by this rounding alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from qcc.compiler.calibrate.generate import Batch
from qcc.ir.onnx.file.runtime import onnxruntime

if TYPE_CHECKING:
    from torch.fx import GraphModule

NEAR = 1e-5  # of a step: two steps are one, whose ranges were seen in sums of different orders


@dataclass
class Fences:
    """What differs: of how many rounded numbers how many, how far off at most from between two whole numbers, in steps.

    ``found`` are the rounded values that both have, ``asked`` those of the file.
    """

    numbers: int = 0
    differ: int = 0
    furthest: float = 0.0
    found: int = 0
    asked: int = 0

    @property
    def text(self) -> str:
        """In few words; nothing where nothing is rounded."""
        if not self.asked:
            return ""
        told = f"{self.differ} of {self.numbers:,}" + (f", off by {self.furthest:.0e}" if self.differ else "")
        return told if self.found == self.asked else f"{told}; {self.found} of {self.asked} values found"


def fences(module: "GraphModule", path: Path, inputs: Sequence[Batch], folder: Path) -> Fences:
    """Compare the rounded values of a compact module with those of its ONNX file.

    Args:
        module: the module.
        path: the file.
        inputs: what both are run on.
        folder: where a copy of the file that returns them may lie.
    """
    model, total = onnx.load(path), Fences()
    pairs = [(one.input[1], one.output[0]) for one in model.graph.node if one.op_type == "QuantizeLinear"]
    steps = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    readers = {one.input[0]: one for one in model.graph.node if one.op_type == "DequantizeLinear"}
    told = [(steps[step], readers[codes].output[0]) for step, codes in pairs if step in steps and codes in readers]
    told = [(step, name) for step, name in told if step.size == 1]
    if not told:
        return total
    there = {one.name for one in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for _, name in told if name not in there)
    onnx.save(model, folder / "shown.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(folder / "shown.onnx", options, providers=["CPUExecutionProvider"])
    for feeds in inputs:
        fed = {one.name: feeds[one.name] for one in session.get_inputs()}
        values = session.run([name for _, name in told], fed)
        _compare(module, feeds, [(float(step), value) for (step, _), value in zip(told, values, strict=True)], total)
    return total


def _compare(module: "GraphModule", feeds: Batch, said: Sequence[tuple[float, np.ndarray]], total: Fences) -> None:
    import torch
    from torch.fx import Interpreter, Node

    waiting = list(said)  # in the order of the file, which is the program's where steps and shapes are the same

    class FromTheFile(Interpreter):
        """Reads what the file says in the place of each rounded value."""

        def run_node(self, n: Node) -> Any:
            found = super().run_node(n)
            clamped = n.all_input_nodes[0] if n.all_input_nodes else None
            if n.target is not torch.ops.aten.mul.Tensor or clamped is None or not _is_rounded(clamped):
                return found
            step = float(torch.as_tensor(self.env[n.args[1]] if isinstance(n.args[1], Node) else n.args[1]))
            fits = (one for one in waiting if abs(one[0] - step) < NEAR * step and one[1].shape == tuple(found.shape))
            one = next(fits, None)
            if one is None:
                return found
            waiting.pop(next(at for at, other in enumerate(waiting) if other is one))
            value = one[1]
            before = self.env[clamped.all_input_nodes[0].all_input_nodes[0]].double().numpy()
            other = np.abs(found.numpy() - value) > step / 2
            total.numbers, total.found = total.numbers + value.size, total.found + 1
            total.differ += int(other.sum())
            fence = np.abs(np.abs(before - np.floor(before)) - 0.5)
            total.furthest = max(total.furthest, float(fence[other].max(initial=0)))
            return torch.from_numpy(value)

    def _is_rounded(node: Node) -> bool:
        named = [node.target, *(one.target for one in node.all_input_nodes)]
        return named == [torch.ops.aten.clamp.default, torch.ops.aten.round.default]

    total.asked += len(said)
    with torch.no_grad():
        FromTheFile(module, garbage_collect_values=False).run(
            *(torch.from_numpy(np.asarray(array)) for array in feeds.values())
        )
