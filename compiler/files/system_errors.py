"""What the operating system may refuse, through no fault of ours."""

import errno

from qcc.dsl.diagnostics.diagnostic import Diagnostic

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
