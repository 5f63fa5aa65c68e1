"""What ONNX Runtime does of a model in half precision: asked of its own graph, and not believed."""

from collections.abc import Iterable, Sequence

import onnx

from qcc.codegen.target.scratch import scratch
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.ir.model.model import Written
from qcc.ir.onnx.file.runtime import onnxruntime, usable
from qcc.passes.contract.contract import Edit
from qcc.passes.half.half import WHOLE, Half

INSERTED = "InsertedPrecisionFreeCast"  # what the runtime calls casts of its own, and what they make
MOST_BYTES = 1 << 30  # of a model whose graph is written out to be looked at


def on_device(providers: Sequence[str]) -> bool:
    """The runtime has other providers than the CPU's to run a model."""
    return usable(providers) != ["CPUExecutionProvider"]


def stand_in(half: Half) -> str:
    """What is run to verify a model where the runtime has no such ops: see `Model.emulation`."""
    return f"a copy of it whose ops each round what they make to {half.floats}, as ops of that type do"


def half_lines(
    half: Half, built: Iterable[Edit], written: Written, providers: Sequence[str], told: Diagnostics
) -> list[str]:
    """What is worth knowing of a written model in half precision; what does not run here is warned of."""
    lines = [edit.text for edit in built if edit.subject == WHOLE]
    if on_device(providers):
        return lines
    widened = widened_ops(written, providers)
    if widened is None:
        message = f"ONNX Runtime has no {half.floats} ops for this processor: the model does not run here"
        told.warning(
            "Q542",
            message,
            help=f"verified was {stand_in(half)}; run it where there are such ops, or take `graph fp16`",
        )
        return lines
    here = f"ONNX Runtime on this processor computes {widened:,} of them in float32, with casts of its own"
    return [*lines, here] if widened else lines


def widened_ops(written: Written, providers: Sequence[str] = ()) -> int | None:
    """How many ops of half precision the runtime runs in float32; None where it does not run the model.

    Of a model that is too large to be looked at it is 0.

    Raises:
        OSError: the file cannot be read.
    """
    looked_at = written.size_bytes <= MOST_BYTES
    with scratch() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if looked_at:
            options.optimized_model_filepath = str(folder / "graph.onnx")
        try:
            onnxruntime.InferenceSession(str(written.path), options, providers=usable(providers))
            if not looked_at:
                return 0
            nodes = onnx.load(folder / "graph.onnx", load_external_data=False).graph.node
        except Exception:  # the runtime raises a dozen unrelated classes
            return None
    others = (node for node in nodes if node.op_type != "Cast")
    return sum(any(INSERTED in name for name in (*node.input, *node.output)) for node in others)
