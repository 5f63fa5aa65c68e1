"""The canonical functions of each kind of op, with the attributes that each has: the words both adapters speak.

They are those of the vocabulary (`vocabulary.ops`). An attribute is there whenever it is known, defaults included; one
that is missing is unknown. Axes count from zero wherever the rank is known.

- ``transposed``: those of the first two operands whose last two axes are swapped before they are multiplied, a linear
  op's weight among them. The layout in which that is stored is its exporter's choice; a weight's view tells it too.
- ``terms``: of a product that says which axes go with which, as ``bsd,dhk->bhsk``: a letter an axis, in the order in
  which they come. Two operands, none of which has a letter twice; all that is summed over, both have.
- An average over the whole of all spatial axes is a ``mean``, whatever the framework calls it.
- ``kernel``, ``strides``, ``dilations``: one number a spatial axis; ``pads``: all begins, then all ends.
- ``sizes``: of a split's parts, of an adaptive pool's output, of a reshape's output; -1 is unknown.
- ``axis`` of a layer or RMS norm: the first that is normalised, as are all that follow.
- ``heads``: of the queries, and of keys and values. ``scale``: what the scores are multiplied by.
  ``cap``: the bound that a hyperbolic tangent keeps them under; 0 for none.
- ``min``, ``max`` of a clip: its bounds, which are also its second and third inputs.
"""

from collections.abc import Callable

from qcc.ir.graph.ops import Kind
from qcc.ir.vocabulary.definition import OpDef
from qcc.ir.vocabulary.find import OPS

FUNCTIONS: dict[tuple[Kind, str], frozenset[str]] = {
    (Kind(kind), function): one.names for (kind, function), one in OPS.items()
}


def kinds(names: Callable[[OpDef], str]) -> dict[str, tuple[Kind, str]]:
    """A framework's ops by the names that definitions have for them, with the kind and function of each."""
    return {name: (Kind(one.kind), one.function) for one in OPS.values() for name in names(one).split()}
