"""Which kernel an op of the domain ``qcc`` asks for: the op's name says it, in both directions."""

import re
from dataclasses import dataclass

from qcc.codegen.target import VNNI, CpuTarget
from qcc.ir.packing import planes

CHUNK = 32  # inputs that share the scale of rounded activations; a group is a whole number of them
PANEL_CHUNKS = 8  # of a panel in the matrix product: 2 kB each, to stay in the first cache
NAME = re.compile(r"linear_int([2-8])_(?:group([1-9]\d*)|(channel))(_asym)?(_bias)?")


class SpecError(ValueError):
    """A kernel that cannot be made."""


@dataclass(frozen=True, order=True)
class LinearKernel:
    """A product of activations with an encoded matrix: ``y[..., out] = x[..., in] @ decode(codes)[out, in].T + bias``.

    Args:
        bits: of a code, 2 to 8.
        group: inputs that share a scale, a multiple of 32; None for all of them (``channel``).
        symmetric: there is no stored zero point.
        bias: one float32 an output is added.
    """

    bits: int
    group: int | None
    symmetric: bool = True
    bias: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise SpecError(f"no kernel for codes of {self.bits} bits")
        if self.group is not None and (self.group < CHUNK or self.group % CHUNK):
            raise SpecError(f"a kernel's group is a multiple of {CHUNK}, not {self.group}")

    @property
    def op(self) -> str:
        """The op's name in the domain ``qcc``."""
        block = "channel" if self.group is None else f"group{self.group}"
        return f"linear_int{self.bits}_{block}{'' if self.symmetric else '_asym'}{'_bias' if self.bias else ''}"

    @property
    def planes(self) -> tuple[int, ...]:
        """Widths of the planes of a code, lowest first; each is one input of the op."""
        return planes(self.bits)


def parse(op: str) -> LinearKernel:
    """The kernel that an op's name asks for.

    Raises:
        SpecError: it is no such name.
    """
    found = NAME.fullmatch(op)
    if found is None:
        raise SpecError(f"`{op}` names no kernel")
    bits, group, _, asymmetric, bias = found.groups()
    return LinearKernel(int(bits), int(group) if group else None, not asymmetric, bool(bias))


def variants(target: CpuTarget, activations: str) -> tuple[str, ...]:
    """The families of templates that serve a target, the one for few rows first."""
    if activations == "exact" or not target.has(*VNNI):
        return ("exact",)
    return ("int8", "bf16") if target.has("amx_bf16") else ("int8",)
