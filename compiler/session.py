"""Running a model that was written, in plain ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from qcc.dsl.diagnostics import Diagnostic, QccError, did_you_mean
from qcc.ir.errors import first_line
from qcc.ir.graph import Value

PREFIX = "qcc."
DTYPES = {"float": "float32", "double": "float64"}


class Session:
    """A model ready to run.

    ``inputs`` and ``outputs`` say what it takes and gives; ``provenance`` what its compilation left in it.

    Args:
        path: an ``.onnx`` file.

    Raises:
        QccError: there is no such file, or the runtime refuses it.
    """

    def __init__(self, path: str | Path) -> None:
        if not Path(path).is_file():
            raise QccError([Diagnostic("Q400", f"no such file: `{path}`")])
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises a dozen unrelated classes
            message = f"ONNX Runtime cannot load the model: {first_line(error)}"
            raise QccError([Diagnostic("Q405", message)]) from error
        self.inputs: tuple[Value, ...] = tuple(map(_value, self._session.get_inputs()))
        self.outputs: tuple[Value, ...] = tuple(map(_value, self._session.get_outputs()))
        metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.provenance: dict[str, str] = {
            key: text for key, text in sorted(metadata.items()) if key.startswith(PREFIX)
        }

    def run(self, feeds: Mapping[str, object]) -> dict[str, np.ndarray]:
        """The outputs by name.

        Args:
            feeds: arrays by input name, or lists and numbers, which take the input's type.

        Raises:
            QccError: a feed is missing, unknown or unfit.
        """
        known = {value.name: value for value in self.inputs}
        for name in feeds:
            if name not in known:
                raise QccError([Diagnostic("Q406", f"the model has no input `{name}`", help=did_you_mean(name, known))])
        missing = [name for name in known if name not in feeds]
        if missing:
            raise QccError([Diagnostic("Q406", f"input `{missing[0]}` is not fed")])
        arrays = {name: _array(feed, known[name]) for name, feed in feeds.items()}
        names = [value.name for value in self.outputs]
        try:
            return dict(zip(names, self._session.run(names, arrays), strict=True))
        except Exception as error:
            message = f"ONNX Runtime failed while running the model: {first_line(error)}"
            raise QccError([Diagnostic("Q406", message)]) from error


def _value(one: onnxruntime.NodeArg) -> Value:
    element = str(one.type).removeprefix("tensor(").removesuffix(")")
    return Value(one.name, tuple(one.shape), DTYPES.get(element, element))


def _array(feed: object, value: Value) -> object:
    if isinstance(feed, np.ndarray) or value.dtype == "string":
        return feed
    try:
        return np.asarray(feed, dtype=value.dtype)
    except (TypeError, ValueError) as error:
        raise QccError([Diagnostic("Q406", f"input `{value.name}` takes {value.dtype}: {error}")]) from error
