"""What the driver asks of a policy's target: how forms cost there, and which kernels it makes."""

from functools import partial

from qcc.codegen.target.find import targets
from qcc.codegen.target.target import AnyTarget
from qcc.compiler.plan.plan import Kernels
from qcc.dsl.policy.policy import Policy
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.forms.choose import Chooser, choose
from qcc.ir.forms.kernel import kernel_op
from qcc.ir.graph.ops import Weight


def target_of(policy: Policy) -> AnyTarget:
    """The target that a policy names."""
    return targets()[policy.target.name]


def runtime_chooser(policy: Policy) -> Chooser:
    """Forms as the runtime alone has them, by what they cost on a policy's target, whichever its processors."""
    return partial(choose, costs=target_of(policy).costs())


def unserved(kernels: Kernels, weight: Weight, encoding: Encoding) -> str:
    """Why no kernel of these takes a weight that the form of kernels holds; empty if one does."""
    conv = weight.kinds == {"conv"}
    op = kernel_op(encoding, weight.shape, (), conv, weight.reads != {None})
    if kernels.of.serves(op, kernels.names, kernels.activations):
        return ""
    return f"these processors have no kernel for {'convolutions' if conv else encoding.text}"
