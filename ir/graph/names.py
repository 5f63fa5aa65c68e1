"""What a layer is called elsewhere: PyTorch writes the path of a module with dots, its ONNX exporters with slashes too.

encoder.layer.0.output     the module's path; files of `torch.onnx.export(..., dynamo=True)`, `torch.export`
encoder/layer.0/output     the older exporter, where `layer` is a list of modules
stages/stages.0/conv       the same, where `stages` is called itself: stages.0.conv

Of a layer that became two, one behind the other, each is called as it was, with a mark behind: what is asked of the
layer is asked of both.
"""

import re
from itertools import pairwise

DOWN, UP = "#down", "#up"  # of the layer that makes fewer channels, and of the one that reads them

_NUMBER = re.compile(r"\d+(#\d+)?")


def spellings(name: str) -> tuple[str, ...]:
    """All that a layer may be called: its name, the same path as the other exporters spell it, and what it was of."""
    whole = name.removesuffix(DOWN).removesuffix(UP)
    if whole != name:
        return (name, *spellings(whole))
    if "/" in name:
        return tuple(dict.fromkeys((name, _dotted(name))))
    return tuple(dict.fromkeys((name, _slashed(name, called=False), _slashed(name, called=True))))


def _dotted(name: str) -> str:
    """The module's path: a part that the next one says again is told once."""
    parts = name.strip("/").split("/")
    said = [one for one, after in pairwise(parts) if not after.startswith(f"{one}.")]
    return ".".join((*said, parts[-1]))


def _slashed(name: str, called: bool) -> str:
    """The path in parts; what a number counts stands before it, and once more alone if it is ``called`` itself."""
    parts: list[str] = []
    for word in name.split("."):
        if not parts or not _NUMBER.fullmatch(word):
            parts.append(word)
        elif called and "." not in parts[-1]:
            parts.append(f"{parts[-1]}.{word}")
        else:
            parts[-1] += f".{word}"
    return "/".join(parts)
