"""Where what was built or measured once is kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder of kernel libraries and measured ceilings; it need not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qcc"
