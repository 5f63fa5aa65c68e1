"""The C compiler that makes the shim and links a library, for this machine's architecture or another."""

import importlib.util
import os
import shlex
import shutil
import sys
from dataclasses import dataclass

from qcc.codegen.target.errors import BuildError
from qcc.codegen.target.machine import here

GLIBC = "2.28"  # the oldest that zig links for: that of Debian 10 and RHEL 8
NATIVE = ("cc", "gcc", "clang")


@dataclass(frozen=True)
class Compiler:
    """A compiler for one architecture.

    Args:
        command: the words that call it.
        identity: which it is, in whatever folder this Python lies.
    """

    command: tuple[str, ...]
    identity: str


def compiler(architecture: str) -> Compiler:
    """The compiler for Linux on that architecture, as LLVM's triples spell it.

    It is what ``CC_<architecture>`` names, or for this machine's own ``CC``; else zig, where it is installed, since its
    libraries run with an old glibc too; else what the system has.

    Raises:
        BuildError: there is none.
    """
    own = architecture == here()
    for variable in (f"CC_{architecture}", *(["CC"] if own else [])):
        if words := shlex.split(os.environ.get(variable, "")):
            found = shutil.which(words[0])
            if not found:
                raise BuildError(f"{variable} names a C compiler that is not there: `{words[0]}`")
            return Compiler((found, *words[1:]), " ".join((found, *words[1:])))
    if version := zig_version():
        words = ["cc", "-target", f"{architecture}-linux-gnu.{GLIBC}"]
        return Compiler((sys.executable, "-m", "ziglang", *words), f"zig {version} {' '.join(words)}")
    for name in (*(NATIVE if own else ()), f"{architecture}-linux-gnu-gcc"):
        if found := shutil.which(name):
            return Compiler((found,), found)
    if own:
        raise BuildError("kernels need a C compiler: install cc, or name one in CC")
    raise BuildError(
        f"kernels for {architecture} need a C compiler that makes code for it: `pip install 'qcc[cross]'` brings zig, "
        f"or name one in CC_{architecture}"
    )


def zig_version() -> str:
    """The version of zig that is installed as a Python package; empty if none is."""
    from importlib.metadata import version  # loads a reader of mails

    return version("ziglang") if importlib.util.find_spec("ziglang") else ""
