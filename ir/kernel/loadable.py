"""The path to load a library by, so that what is loaded is what lies there now."""

from pathlib import Path

_seen: dict[Path, list[tuple[int, int]]] = {}  # device and inode of what this process loaded from a path, in order


def loadable(library: Path) -> str:
    """The path to load a library by.

    It is absolute, since a bare name is looked for in the system's folders. A loaded library stays loaded, and the
    system knows it by its path alone; so a file that has taken the place of one that was loaded gets a new spelling.
    """
    path, status = library.resolve(), library.stat()
    seen, identity = _seen.setdefault(path, []), (status.st_dev, status.st_ino)
    if identity not in seen:
        seen.append(identity)
    return f"{path.parent}/{'./' * seen.index(identity)}{path.name}"
