"""Writing an encoded weight in a form, by the module of `forms` that is called like it."""

from collections.abc import Mapping
from functools import lru_cache

import onnx_ir as ir

import qcc.ir.onnx.emit.forms
from qcc.ir.discovery import classes
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.graph.form import Form
from qcc.ir.graph.ops import Weight
from qcc.ir.kernel.op import LinearOp
from qcc.ir.kernel.region import NO_REGIONS, Region
from qcc.ir.onnx.emit.writer import FormWriter


@lru_cache
def writers() -> Mapping[str, type[FormWriter]]:
    """The writers by their forms' names."""
    found = classes(qcc.ir.onnx.emit.forms, FormWriter)  # type: ignore[type-abstract]  # concrete ones
    return {one.__module__.rpartition(".")[2]: one for one in found}


def write(
    form: Form, model: ir.Model, weight: Weight, encoded: Encoded, regions: Mapping[str, Region] = NO_REGIONS
) -> tuple[LinearOp, ...]:
    """See `FormWriter.write`."""
    writer = writers()[form.writer or form.name](model, weight, encoded, regions)
    writer.form = form
    return writer.write()
