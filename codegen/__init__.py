"""Machine kernels for encoded layers: TVM makes the code, ONNX Runtime runs it.

``library.build`` takes kernel specs and a target and writes one shared library, which ONNX Runtime loads by
``register_custom_ops_library`` and which takes over the model's functions of the domain ``qcc``. TVM is loaded only
while it builds, by ``generate`` and the templates; the library needs none. The room imports ``qcc.ir`` alone.
"""

from qcc.ir.plugins import joined

__path__ = joined(list(__path__), __name__)
