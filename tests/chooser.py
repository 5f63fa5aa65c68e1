"""The targets there are, and the choice of forms for the one that a policy without one means."""

from functools import partial

from qcc.codegen.target.find import targets
from qcc.ir.forms import choose as forms

PLAIN, CPU = targets()["onnxruntime"], targets()["cpu"]
choose = partial(forms.choose, costs=PLAIN.costs())
