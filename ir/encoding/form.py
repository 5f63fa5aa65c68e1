"""Where an encoded weight is decoded."""

from enum import StrEnum


class Form(StrEnum):
    """Where the decoding happens."""

    FUSED = "fused"  # in the runtime's own kernel: memory stays compressed
    DECODED = "decoded"  # when the session starts: the float model's speed, and at least its memory
    ROWS = "rows"  # after the gather of the packed rows that are asked for
    KERNEL = "kernel"  # in a kernel that a library brings, else when the session starts
