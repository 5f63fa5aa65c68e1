"""What an installation takes: every package that qcc asks for, and what those ask for, with their bytes.

    python -m benchmarks.scale.installed [EXTRA ...]

Counted in the environment at hand, by the files that pip recorded, compiled ones among them; what is asked for under
conditions that do not hold here is left out. An extra that is named is counted too.
"""

import argparse
import re
from importlib import metadata
from pathlib import Path

MB = 1e6
NAME = re.compile(r"^([A-Za-z0-9._-]+)")
EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)")


def asked(name: str, extras: frozenset[str]) -> list[str]:
    """The packages that one asks for."""
    found = []
    for line in metadata.requires(name) or []:
        extra, match = EXTRA.search(line), NAME.match(line)
        holds = extra is None or extra[1] in extras
        if match is not None and holds and "python_version <" not in line and "sys_platform" not in line:
            found.append(match[1])
    return found


def size(name: str) -> int:
    """Bytes of the files of a package."""
    files = metadata.files(name) or []
    places = (Path(str(one.locate())) for one in files)
    return sum(path.stat().st_size for path in places if path.is_file())


def main() -> None:
    """Print the table, the largest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*")
    extras = frozenset(parser.parse_args().extras)
    sizes: dict[str, int] = {}
    todo = asked("qcc", extras)
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name in sizes:
            continue
        try:
            sizes[name] = size(name)
            todo += asked(name, frozenset())
        except metadata.PackageNotFoundError:
            print(f"{name} is not installed here, and not counted")
    for name, taken in sorted(sizes.items(), key=lambda one: -one[1]):
        print(f"{name:24} {taken / MB:8.1f} MB")
    print(f"{'together':24} {sum(sizes.values()) / MB:8.1f} MB, beside qcc itself")


if __name__ == "__main__":
    main()
