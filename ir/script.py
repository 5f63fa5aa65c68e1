"""A script of the user's, run as a module: one way for all that may name one."""

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from qcc.ir.errors import ModelError, first_line


def run_script(path: Path, name: str, code: str) -> ModuleType:
    """Run a script as a module, with its own folder in the path; nothing is left beside it.

    Args:
        path: of the script.
        name: of the module: where classes of the script look for it.
        code: of the diagnostic.

    Raises:
        ModelError: there is none, or it fails.
    """
    if not path.is_file():
        raise ModelError(code, f"no such script: `{path}`")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(code, f"`{path}` is no script of Python", help="its name ends in `.py`")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a script may raise
        raise ModelError(code, f"the script `{path}` fails: {fault_in(error, path)}") from error
    finally:
        sys.dont_write_bytecode = writes
    return module


def fault_in(error: BaseException, script: Path | None) -> str:
    """An error of the user's code, with the line of the script where it arose."""
    if isinstance(error, SystemExit):
        return "it exits"
    place = ""
    if script is not None:
        lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == str(script)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        place = "" if line is None else f", line {line}"
    return f"{type(error).__name__}: {first_line(error)}{place}"
