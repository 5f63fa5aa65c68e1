"""How a model is written: the choices, apart from the code that carries them out."""

from typing import Literal

PROGRAM = ".pt2"
"""The suffix of files that hold programs of torch.export."""
ONNX = ".onnx"
"""That of ONNX models."""
PACKED = ".rans"
"""The suffix of models for transport."""
LOOP = ".sampler.json"
"""That of the tables of the loops that models are run in."""
ExternalData = Literal["auto", "always", "never"]
OLDEST_OPSET, NEWEST_OPSET = 1, 28
"""The versions of ONNX's default operator set that are read."""
LEAST_RAISED, MOST_RAISED = 7, 25
"""Those that a model can be raised to: from the first that the runtime runs whole to the last that it knows whole."""
