"""The command line: which command, and what becomes of what goes wrong."""

import argparse
import gc
import importlib
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import FrameType, ModuleType
from typing import NoReturn

from qcc.compiler.console import terminal
from qcc.compiler.console.usage import UsageError
from qcc.compiler.files.spoken import in_words
from qcc.compiler.files.system_errors import refused
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.spelling import did_you_mean, nearest
from qcc.ir.errors import ModelError

COMMANDS = {
    "compile": "make a model smaller, as a policy says",
    "check": "tell everything that is wrong with a policy",
    "fmt": "lay policies out",
    "explain": "say what a diagnostic means, or what a policy does to each layer of a model",
    "inspect": "show what a model is made of",
    "analyze": "tell which layers of a model are sensitive, in which format",
    "sweep": "show what a policy would lose at every size that its formats allow",
    "tune": "search for values of a policy's parameters that lose less",
    "trim": "make a compiled model smaller, whose weights are stacks of levels",
    "expand": "make the model again that was packed for transport",
    "pack": "store models of one family in a folder, each constant once",
    "genai": "write a folder from which onnxruntime-genai generates",
    "bench": "time models against each other, and compare what they compute",
    "targets": "list the processors that kernels can be built for, and what this machine is",
    "passes": "list what a policy may name, each with its manual page",
    "presets": "list the policies that come with qcc",
    "init": "look at a model and write a first policy for it",
    "translate": "write the policy that a configuration of another tool comes to",
    "report": "compare two builds by their lock files",
    "doctor": "look at the installation: what works, what is missing, and what is lost without it",
    "lsp": "serve an editor",
    "completion": "write a script by which a shell completes commands and options",
}
FOLDERS = {
    "language": ("check", "fmt", "explain", "passes", "presets", "lsp", "init", "translate"),
    "machine": ("targets", "completion", "doctor"),
}
"""Where the modules of commands lie that are not about models."""
EMPTY = re.compile(r"(--[\w-]+=)?\s*")
"""An argument that says nothing: a path would be the folder that one is in, and a policy the default one."""
EXAMPLES = """examples:
  qcc compile model.onnx                     eight bits a weight, no data needed
  qcc compile model.onnx -p my.qpolicy       as the policy says
  qcc explain model.onnx -p my.qpolicy       what it would do to each layer, and why
  qcc bench model.onnx model.qcc.onnx        how fast both are, and how far apart
  qcc explain Q202                           what a diagnostic means
"""
INPUT, USAGE, DEMAND, BUG, HUNG_UP, INTERRUPTED, TERMINATED = 1, 2, 3, 70, 129, 130, 143
DEMANDS = ("Q310", "Q320", "Q361")  # the policy is right, but the model can't be, or isn't, what it demands


class Parser(argparse.ArgumentParser):
    """A parser whose errors are raised, with the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of ending the process."""
        help = f"`{self.prog} --help` lists the options"
        if message.startswith("unrecognized arguments: "):
            word = message.partition(": ")[2].split()[0]
            message = f"unknown argument of `{self.prog}`: `{word}`"
            near = nearest(word.partition("=")[0], self._option_string_actions) if word.startswith("-") else None
            help = f"did you mean `{near}`?" if near else help
        raise UsageError(message, help)


def run(words: Sequence[str], alone: bool = False) -> int:
    """Run a command line and tell what goes wrong; the exit status is returned.

    Args:
        words: of it.
        alone: this process is there for nothing else.
    """
    format = _format_of(words)
    try:
        return _interruptible(words, alone)
    except UsageError as error:
        return _tell(Diagnostic("usage", error.message, help=error.help), format, USAGE)
    except QccError as error:
        return _report(error.diagnostics, format, _status(error))
    except ModelError as error:
        return _report([Diagnostic(error.code, error.message, help=error.help)], format, INPUT)
    except BrokenPipeError:
        raise
    except _Terminated as end:
        return _tell(Diagnostic(end.word, end.word), format, end.status)
    except KeyboardInterrupt:
        return _tell(Diagnostic("interrupted", "interrupted"), format, INTERRUPTED)
    except Exception as error:
        if isinstance(error, OSError) and (found := refused(error)):
            return _report([found], format, INPUT)
        describe_crash = importlib.import_module("qcc.compiler.console.crash").describe_crash
        return _tell(describe_crash(error, words), format, BUG)


def _interruptible(words: Sequence[str], alone: bool) -> int:
    try:
        with _ended_by_signals():
            return _dispatch(words, alone)
    except Exception as error:
        # a module in C that is just being imported makes an ImportError of it
        if (end := _interruption_behind(error)) is not None:
            raise end from None
        raise


def _interruption_behind(error: BaseException) -> KeyboardInterrupt | None:
    seen: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in seen:
        if isinstance(at, KeyboardInterrupt):
            return at
        seen.append(at)
        at = at.__cause__ or at.__context__
    return None


def _status(error: QccError) -> int:
    codes = {one.code for one in error.diagnostics}
    return DEMAND if codes.intersection(DEMANDS) else INPUT


def _dispatch(words: Sequence[str], alone: bool) -> int:
    if words and words[0] == "help":
        words = [*words[1:2], "--help"]
    if not words or words[0] in ("-h", "--help"):
        terminal.write(_overview())
        return 0
    if words[0] in ("-V", "--version"):
        terminal.write_line(f"qcc {importlib.import_module('importlib.metadata').version('qcc')}")
        return 0
    name = words[0]
    if name not in COMMANDS:
        raise _unknown(words)
    if any(EMPTY.fullmatch(word) for word in words[1:]):
        raise UsageError("an argument is empty", "is it a variable that is not set?")
    with _for_good() if alone else nullcontext():
        module = command_module(name)
    try:
        arguments = parser_of(name, module).parse_intermixed_args(_files(words[1:]))
    except SystemExit as end:  # --help
        return int(end.code or 0)
    return int(module.run(arguments))


def _files(words: Sequence[str]) -> list[str]:
    """Words of which those behind `--` are files, whatever they begin with."""
    if "--" not in words:
        return list(words)
    at = words.index("--")
    return [*words[:at], *(f"./{word}" if word.startswith("-") else word for word in words[at + 1 :])]


def command_module(name: str) -> ModuleType:
    """The module of a command."""
    folder = next((f"{folder}." for folder, names in FOLDERS.items() if name in names), "")
    return importlib.import_module(f"qcc.compiler.commands.{folder}{name}")


@contextmanager
def _for_good() -> Iterator[None]:
    """What is loaded stays: to look for garbage in it again and again takes a fifth of the time of `qcc check`."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def parser_of(name: str, module: ModuleType) -> Parser:
    """A command's parser."""
    parser = Parser(
        prog=f"qcc {name}",
        description=terminal.paragraphs(module.__doc__ or ""),
        epilog=terminal.examples(module.EXAMPLES),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.configure(parser)
    return parser


def _overview() -> str:
    lines = ["qcc: a compression compiler for neural networks", "", "usage: qcc COMMAND ...", "", "commands:"]
    listed = terminal.pairs(COMMANDS.items(), "  ")
    return "\n".join(
        [*lines, listed, "`qcc COMMAND --help` lists a command's options.", "", terminal.examples(EXAMPLES)]
    )


def _unknown(words: Sequence[str]) -> UsageError:
    name = words[0]
    if name.startswith("-"):
        return UsageError(f"unknown option: `{name}`", "`qcc --help` lists the commands")
    if name.endswith((".onnx", ".pt2")):
        return UsageError(f"unknown command: `{name}`", f"did you mean `qcc compile {name}`?")
    if name.endswith(".qpolicy"):
        return UsageError(f"unknown command: `{name}`", f"did you mean `qcc check {name}`?")
    return UsageError(f"unknown command: `{name}`", did_you_mean(name, COMMANDS, "command"))


def _format_of(words: Sequence[str]) -> str:
    """The format that errors are told in, also those of a command line that cannot be parsed."""
    for at, word in enumerate(words):
        if word in ("--format=json", "--format=github", "--format=sarif"):
            return word.partition("=")[2]
        if word == "--format" and words[at + 1 : at + 2] in (["json"], ["github"], ["sarif"]):
            return words[at + 1]
    return "text"


def _report(diagnostics: Sequence[Diagnostic], format: str, status: int) -> int:
    found = [in_words(one) for one in diagnostics]
    if format == "json":
        terminal.write_json({"diagnostics": terminal.as_json(found)})
    terminal.report(found, format)
    return status


def _tell(one: Diagnostic, format: str, status: int) -> int:
    """Tell what has no page of its own."""
    if format in ("json", "sarif"):
        return _report([one], format, status)
    terminal.note_lines(f"qcc: {one.message}", *([f"  = help: {one.help}"] if one.help else []))
    return status


class _Terminated(KeyboardInterrupt):
    """A signal asked the process to end: it does as after Ctrl-C, tidily."""

    def __init__(self, word: str, status: int) -> None:
        super().__init__(word)
        self.word, self.status = word, status


ENDS = {signal.SIGTERM: ("terminated", TERMINATED), signal.SIGHUP: ("hung up", HUNG_UP)}


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> None:
        raise _Terminated(*ENDS[signal.Signals(number)])

    ignored = {number for number in ENDS if signal.getsignal(number) is signal.SIG_IGN}  # nohup
    before = {number: signal.signal(number, end) for number in ENDS if number not in ignored}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
