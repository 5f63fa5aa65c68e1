"""What can be wrong with a model, said once and in the user's words."""


class ModelError(Exception):
    """The input model, or what is asked of it, is at fault.

    Args:
        code: the diagnostic's code, ``Q4xx``.
        message: lower case, no full stop.
        help: what to do about it, if something can be done.
    """

    def __init__(self, code: str, message: str, help: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.help = help


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """A pass or an encoding declines a layer; ``reason`` says why, ``broken`` that the layer itself is no good."""

    def __init__(self, reason: str, broken: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.broken = broken


def first_line(error: BaseException) -> str:
    """A foreign exception in one line, without the runtime's prefix ``[ONNXRuntimeError] : 1 : FAIL :``."""
    text = str(error).strip()
    if not text:
        return type(error).__name__
    line = text.splitlines()[0]
    return (line.split(" : ", 3)[-1] if line.startswith("[ONNXRuntimeError]") else line)[:300]
