"""What the operating system may refuse, through no fault of ours."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from qcc.compiler.files.spoken import in_words
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.errors import ModelError

REFUSED = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG,
    errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOTDIR, errno.EISDIR, errno.ENODEV, errno.ESTALE,
)  # fmt: skip


def refused(error: OSError) -> Diagnostic | None:
    """The diagnostic for an error of the system's; None where it is no refusal."""
    if error.errno not in REFUSED:
        return None
    message = f"`{error.filename}`: {error.strerror}" if error.filename else str(error.strerror)
    return Diagnostic("Q409", message)


@contextmanager
def told() -> Iterator[None]:
    """Tell what is wrong with a model, and what the system refuses, as diagnostics.

    Raises:
        QccError: of either.
    """
    try:
        yield
    except ModelError as error:
        raise QccError([in_words(Diagnostic(error.code, error.message, help=error.help))]) from error
    except QccError as error:
        error.diagnostics = tuple(map(in_words, error.diagnostics))
        raise
    except OSError as error:
        if found := refused(error):
            raise QccError([in_words(found)]) from error
        raise
