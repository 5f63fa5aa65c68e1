"""What is wrong with a command line."""


class UsageError(Exception):
    """The command line is wrong."""

    def __init__(self, message: str, help: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.help = help
