"""How a model is written: the choices, apart from the code that needs ONNX to carry them out."""

from typing import Literal

ExternalData = Literal["auto", "always", "never"]
OLDEST_OPSET, NEWEST_OPSET = 7, 25
