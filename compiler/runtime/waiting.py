"""How long threads of a session wait for work before they sleep."""

from qcc.ir.onnx.file.runtime import onnxruntime

AWAKE_US = 100
"""Longer than what one thread does between two layers that all share, and too short to keep a core from others."""
ENTRY = "session.intra_op.spin_duration_us"


def wait_awake(options: onnxruntime.SessionOptions, awake_us: int | None = AWAKE_US) -> None:
    """Let threads sleep that had no work for so many microseconds.

    By itself the runtime counts a million pauses, which takes 3 to 500 ms by the processor. All threads but one are
    awake between runs then; where others need the cores, they take them from the threads that work.

    Args:
        options: changed. Runtimes that are older than the entry pass it over.
        awake_us: None changes nothing.

    Source: microsoft/onnxruntime, pull request 27916, for what the pauses take.
    """
    if awake_us is not None:
        options.add_session_config_entry(ENTRY, str(awake_us))
