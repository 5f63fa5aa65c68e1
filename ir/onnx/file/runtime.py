"""ONNX Runtime as all of qcc imports it: with its telemetry off.

From 1.25 on, packages for Linux write a device's id and a database under the user's cache folder, and send events, as
soon as they are loaded. Only a variable that is set before then keeps them from it; `disable_telemetry_events` comes
too late for the first of it, and serves where something else has loaded the runtime already.
"""

import os
from collections.abc import Sequence

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("ORT_TELEMETRY_DISABLED", "1")  # as some releases spell it

import onnxruntime

onnxruntime.disable_telemetry_events()

__all__ = ["onnxruntime", "usable"]


def usable(providers: Sequence[str] = ()) -> list[str]:
    """Those of some execution providers that this runtime has; its CPU's where it has none of them."""
    return [one for one in providers if one in onnxruntime.get_available_providers()] or ["CPUExecutionProvider"]
