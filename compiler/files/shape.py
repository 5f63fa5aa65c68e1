"""What JSON must look like, spelled as JSON is."""

import math
from collections.abc import Mapping
from typing import Any


class ShapeError(ValueError):
    """JSON is not as it must be."""


def check_shape(value: object, shape: Any, place: str) -> None:  # noqa: ANN401  (spelled as below)
    """See that JSON has a shape.

    Args:
        value: as `json.loads` gives it.
        shape: a type of plain values; ``[shape]`` for a list; ``{str: shape}`` for an object with any names, or with
            these names among others; ``(shape, None)`` for what may be null.
        place: of the value, for messages.

    Raises:
        ShapeError: it does not, or a number is not finite, or text is none that can be written.
    """
    if isinstance(shape, tuple):
        shape = type(None) if value is None else shape[0]
    if isinstance(shape, type):
        _check_plain(value, shape, place)
    elif not isinstance(value, type(shape)):
        raise ShapeError(f"`{place}` is {'a list' if isinstance(shape, list) else 'an object'}")
    elif isinstance(value, list):
        for at, one in enumerate(value):
            check_shape(one, shape[0], f"{place}[{at}]")
    elif isinstance(value, Mapping):
        for name in value if str in shape else shape:
            if name not in value:
                raise ShapeError(f"`{place}` has no `{name}`")
            check_shape(value[name], shape.get(name, shape.get(str)), f"{place}.{name}")


def _check_plain(value: object, kind: type, place: str) -> None:
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise ShapeError(f"`{place}` is {'nothing' if kind is type(None) else kind.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ShapeError(f"`{place}` is a number")
    if isinstance(value, str) and value != value.encode(errors="replace").decode():
        raise ShapeError(f"`{place}` is text")
