"""Reading JSON as values of declared types: whatever does not fit is told with its place, and nothing is guessed."""

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from qcc.ir.forms.find import forms
from qcc.ir.graph.form import Form
from qcc.passes.contract.contract import Between

TAG = "is"  # of an object: the name of its class
Types = Mapping[str, type]


class DecodeError(ValueError):
    """A value is not of its type."""


def decode(value: object, hint: Any, known: Types, place: str) -> Any:  # noqa: ANN401  (of the type that is asked for)
    """The value as an instance of a type hint.

    Args:
        value: as `json.loads` gives it.
        hint: of plain types, tuples, literals, unions, `Between` bounds, dictionaries by string, and dataclasses.
        known: classes of objects by their tags.
        place: of the value, for messages.

    Raises:
        DecodeError: it is not of that type.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _bounded(decode(value, arguments[0], known, place), arguments[1:], place)
    if origin in (Union, types.UnionType):
        return _one_of(value, arguments, known, place)
    if origin is Literal:
        if not any(type(value) is type(one) and value == one for one in arguments):
            raise DecodeError(f"`{place}` is one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        return _tuple(value, arguments, known, place)
    if origin is dict:
        if not isinstance(value, dict):
            raise DecodeError(f"`{place}` is an object")
        return {key: decode(part, arguments[1], known, f"{place}.{key}") for key, part in value.items()}
    if hint is Form:
        if not isinstance(value, str) or value not in forms():
            raise DecodeError(f"`{place}` is one of {', '.join(forms())}")
        return forms()[value]
    if hint in (str, int, float, bool, type(None)):
        return _plain(value, hint, place)
    return _object(value, hint, known, place)


def fields(value: object, hints: Mapping[str, Any], known: Types, place: str) -> dict[str, Any]:
    """The named entries of an object, each of its type; others are left aside.

    Raises:
        DecodeError: it is no object, or an entry is missing or not of its type.
    """
    if not isinstance(value, dict):
        raise DecodeError(f"`{place}` is an object")
    for name in hints:
        if name not in value:
            raise DecodeError(f"`{place}` has no `{name}`")
    return {name: decode(value[name], hint, known, f"{place}.{name}") for name, hint in hints.items()}


def _plain(value: object, hint: type, place: str) -> object:
    allowed = (int, float) if hint is float else (hint,)
    if type(value) not in allowed:
        raise DecodeError(f"`{place}` is {'nothing' if hint is type(None) else hint.__name__}")
    if hint is float and not math.isfinite(_float(value)):
        raise DecodeError(f"`{place}` is a number")
    if isinstance(value, str) and not value.isascii() and value != value.encode(errors="replace").decode():
        raise DecodeError(f"`{place}` is text")
    return value


def _float(value: Any) -> float:  # noqa: ANN401
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _bounded(value: Any, bounds: tuple[object, ...], place: str) -> Any:  # noqa: ANN401
    for bound in bounds:
        if isinstance(bound, Between) and not bound.low <= value <= bound.high:
            raise DecodeError(f"`{place}` is from {bound.low:g} to {bound.high:g}")
    return value


def _one_of(value: object, hints: tuple[Any, ...], known: Types, place: str) -> Any:  # noqa: ANN401
    error = DecodeError(f"`{place}` is of no type that it may have")
    for hint in hints:
        try:
            return decode(value, hint, known, place)
        except DecodeError as refused:
            if (value is None) == (hint is type(None)):
                error = refused
    raise error


def _tuple(value: object, hints: tuple[Any, ...], known: Types, place: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise DecodeError(f"`{place}` is a list")
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(hints) != len(value):
        raise DecodeError(f"`{place}` has {len(hints)} entries")
    return tuple(
        decode(one, hint, known, f"{place}[{at}]") for at, (one, hint) in enumerate(zip(value, hints, strict=True))
    )


def _object(value: object, hint: Any, known: Types, place: str) -> Any:  # noqa: ANN401
    tag = value.get(TAG) if isinstance(value, dict) else None
    found = known.get(tag) if isinstance(tag, str) else None
    if not isinstance(value, dict) or found is None or not (isinstance(hint, type) and issubclass(found, hint)):
        raise DecodeError(f"`{place}` is a {getattr(hint, '__name__', hint)}")
    hints = get_type_hints(found, include_extras=True)
    names = [one.name for one in dataclasses.fields(found)]  # type: ignore[arg-type]
    if extra := sorted(set(value) - {TAG, *names}):
        raise DecodeError(f"`{place}` has no entry `{extra[0]}`")
    parts = fields(value, {name: hints[name] for name in names}, known, place)
    try:
        return found(**parts)
    except Exception as error:  # a class checks its fields as it likes
        raise DecodeError(f"`{place}`: {error}") from error
