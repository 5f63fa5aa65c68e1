"""The noise at the outputs as gradients foresee it."""

from typing import ClassVar

from qcc.compiler.metrics.output_error import OutputError


class Fisher(OutputError):  # noqa: N818 - a metric, no exception
    """`output_error` foreseen by gradients (Fisher information), a run back a sample instead of one a candidate.

    To first order in the errors; takes PyTorch. Layers that gradients do not reach are measured, as is what the whole
    choice loses.
    """

    rank: ClassVar[int] = 11
    title: ClassVar[str] = "output error, foreseen"
    foreseen: ClassVar[bool] = True
