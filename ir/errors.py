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


class Refused(Exception):
    """A pass or an encoding declines a layer; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
