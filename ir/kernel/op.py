"""The ops that kernel libraries take, in domain ``qcc``: a product with a stored weight, and the steps behind it.

An op's name says all that its inputs and its meaning depend on, in both directions: ``linear_int4_group32_bias_gelu``
multiplies by 4-bit codes that share a scale by 32, adds a bias and applies a gelu. So the writer of a model, the
builder of a library and the library itself need no other word between them. ``conv1x1_...`` are the same products along
the second axis of ``x``: convolutions of one point.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from qcc.ir.encoding.packing import planes
from qcc.ir.vocabulary.definition import EpilogueStep, Operand
from qcc.ir.vocabulary.find import STEPS as VOCABULARY_STEPS

CHUNK = 32  # inputs that kernels read at once; a group is a whole number of them
LONGEST = 1 << 16  # inputs that a static op may have: it adds up their products in 32 bits


BIAS, KEEP = "bias", "keep"
STEPS: Mapping[str, EpilogueStep] = {
    **VOCABULARY_STEPS,
    KEEP: EpilogueStep(KEEP, lines=lambda v, y, _, __: [f"kept = Identity ({v})", f"{y} = Identity ({v})"]),
}
"""By name: those of the vocabulary, and ``keep``, which makes the value so far a second output.

A norm takes its epsilon from the op's attribute ``epsilon``.
"""

MAX_TENSORS = 2
_WORDS = "|".join(sorted(STEPS, key=len, reverse=True))
_STORED = r"int([2-8])_(?:group([1-9]\d*)|(channel))(_asym)?(_static)?|(bf16)"
_NAME = re.compile(rf"(linear|conv1x1)_(?:{_STORED})((?:_(?:{_WORDS}))*)", re.ASCII)


class OpError(ValueError):
    """No kernel goes by such a name."""


@dataclass(frozen=True, order=True)
class LinearOp:
    """``y[..., out] = steps(x[..., in] @ decode(weight)[out, in].T)``.

    Args:
        bits: of a code, 2 to 8; 16 for weights that are bfloat16 themselves.
        group: inputs that share a scale, a multiple of 32; None for all of them (``channel``), or without scales.
        symmetric: there is no stored zero point.
        steps: names of `STEPS`, in order.
        pointwise: the inputs are channels: ``y[n, out, ...] = steps(decode(weight) @ x[n, in, ...])``. A bias is then
            the first step, which adds a number to each channel, and no step is a norm.
        static: ``x`` is rounded to int8 by a step that is an input of the op, before all else: ``input_scale *
            clip(rint(x / input_scale), -128, 127)`` is multiplied.
    """

    bits: int
    group: int | None = None
    symmetric: bool = True
    steps: tuple[str, ...] = ()
    pointwise: bool = False
    static: bool = False

    def __post_init__(self) -> None:
        if not (2 <= self.bits <= 8 or self.bits == 16):
            raise OpError(f"no kernel for codes of {self.bits} bits")
        if self.group is not None and (self.group < CHUNK or self.group % CHUNK):
            raise OpError(f"a kernel's group is a multiple of {CHUNK}, not {self.group}")
        if self.static and (self.is_float or self.group is not None or self.pointwise):
            raise OpError("activations with a static step meet codes of linear layers with one scale a channel")
        whole = [step for step in self.steps if STEPS[step].whole]
        if len(whole) > 1 or (whole and self.steps[-1] not in whole):
            raise OpError("only the last step may be a norm")
        if KEEP in self.steps and (not whole or self.steps.index(KEEP) != len(self.steps) - 2):
            raise OpError("a value is kept right before the norm")
        if sum(kind == "tensor" for step in self.steps for _, kind in STEPS[step].operands) > MAX_TENSORS:
            raise OpError(f"kernels take at most {MAX_TENSORS} tensors beside the input")
        if self.pointwise and (whole or BIAS in self.steps[1:]):
            raise OpError("a convolution's bias is its first step, and none is a norm")
        if _steps("".join(f"_{step}" for step in self.steps)) != self.steps:
            raise OpError(f"the names of {', '.join(self.steps)} in a row read as other steps")

    @property
    def is_float(self) -> bool:
        """The weights are bfloat16 numbers, with no codes and no scales."""
        return self.bits == 16

    @property
    def stored(self) -> str:
        """How the weight is stored, as the name spells it."""
        if self.is_float:
            return "bf16"
        block = "channel" if self.group is None else f"group{self.group}"
        return f"int{self.bits}_{block}{'' if self.symmetric else '_asym'}"

    @property
    def name(self) -> str:
        """The op's name in domain ``qcc``."""
        kind = "conv1x1" if self.pointwise else "linear"
        return "_".join((kind, self.stored, *(("static",) if self.static else ()), *self.steps))

    @property
    def weight_inputs(self) -> tuple[str, ...]:
        """The inputs that hold the weight, by name: planes ``[out, in * width / 8]`` of bytes, lowest bits first, the
        ``scale [out, groups]`` (float16 or float32) and the ``zero [out, groups]`` (int8, asymmetric only); or the
        bfloat16 ``weight [out, in]``. Behind them the ``input_scale []`` (float32) of a static op.
        """
        if self.is_float:
            return ("weight",)
        names = [f"plane{position}" for position in range(len(planes(self.bits)))]
        return (*names, "scale", *(() if self.symmetric else ("zero",)), *(("input_scale",) if self.static else ()))

    @property
    def step_inputs(self) -> tuple[tuple[str, Operand], ...]:
        """The operands of the steps, in order, with names of their own."""
        found: list[tuple[str, Operand]] = []
        for step in self.steps:
            for name, kind in STEPS[step].operands:
                count = sum(one.rstrip("0123456789") == name for one, _ in found)
                found.append((f"{name}{count}" if count else name, kind))
        return tuple(found)

    @property
    def inputs(self) -> tuple[str, ...]:
        """All inputs in order: ``x``, the weight, the operands of the steps."""
        return ("x", *self.weight_inputs, *(name for name, _ in self.step_inputs))

    @property
    def outputs(self) -> tuple[str, ...]:
        """``y``, and where a step keeps it, the value before the norm."""
        return ("y", "kept") if KEEP in self.steps else ("y",)


def parse(name: str) -> LinearOp:
    """The op that a name stands for.

    Raises:
        OpError: it is no such name.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise OpError(f"`{name}` names no kernel")
    kind, bits, group, _, asymmetric, static, half, rest = found.groups()
    width, block = 16 if half else int(bits), int(group) if group else None
    return LinearOp(width, block, not asymmetric, _steps(rest), kind != "linear", bool(static))


def _steps(names: str) -> tuple[str, ...]:
    return tuple(re.findall(f"_({_WORDS})", names))
