"""Write a script by which a shell completes the commands of qcc, their options, and the names of files.

It is made from the commands as they are: after an upgrade, make it anew.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from qcc.compiler.commands import cli
from qcc.compiler.console import terminal

SHELLS = ("bash", "zsh", "fish")
EXAMPLES = """examples:
  qcc completion bash > ~/.local/share/bash-completion/completions/qcc
  qcc completion zsh > ~/.zfunc/_qcc      with ~/.zfunc in fpath, before compinit
  qcc completion fish > ~/.config/fish/completions/qcc.fish
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")


@dataclass(frozen=True)
class _Option:
    """An option of a command: its spellings, its help, and the words that it takes."""

    spellings: tuple[str, ...]
    help: str
    choices: tuple[str, ...]
    takes: bool


def run(args: argparse.Namespace) -> int:
    """Write the script."""
    commands = {name: _options(name) for name in cli.COMMANDS}
    terminal.write({"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell](commands))
    return 0


def _options(name: str) -> list[_Option]:
    parser = cli.parser_of(name, cli.command_module(name))
    found = []
    for one in parser._actions:  # argparse tells them nowhere else
        if one.help is not argparse.SUPPRESS and one.option_strings:
            choices = tuple(str(word) for word in one.choices or ())
            found.append(_Option(tuple(one.option_strings), one.help or "", choices, one.nargs != 0))
    return found


def _bash(commands: dict[str, list[_Option]]) -> str:
    lines = ["# Completion of qcc for bash, by `qcc completion bash`.", "_qcc() {"]
    lines += ['    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"', "    COMPREPLY=()"]
    lines += ['    if [ "$COMP_CWORD" -eq 1 ]; then']
    lines += [f'        COMPREPLY=($(compgen -W "{" ".join(commands)} help --version --help" -- "$word"))']
    lines += ["        return", "    fi", '    case "${COMP_WORDS[1]} $before" in']
    for name, options in commands.items():
        for one in options:
            if one.choices:
                patterns = "|".join(f'"{name} {spelling}"' for spelling in one.spellings)
                lines.append(
                    f'    {patterns}) COMPREPLY=($(compgen -W "{" ".join(one.choices)}" -- "$word")); return ;;'
                )
    lines += ["    esac", '    if [[ "$word" != -* ]]; then', '        COMPREPLY=($(compgen -f -- "$word"))']
    lines += ["        return", "    fi", '    case "${COMP_WORDS[1]}" in']
    for name, options in commands.items():
        words = " ".join(spelling for one in options for spelling in one.spellings)
        lines.append(f'    {name}) COMPREPLY=($(compgen -W "{words}" -- "$word")) ;;')
    return "\n".join([*lines, "    esac", "}", "complete -o filenames -F _qcc qcc", ""])


def _zsh(commands: dict[str, list[_Option]]) -> str:
    lines = ["#compdef qcc", "# Completion of qcc for zsh, by `qcc completion zsh`.", "_qcc() {"]
    lines += ["    if (( CURRENT == 2 )); then", "        local -a commands=("]
    lines += [f"            {_quoted(f'{name}:{summary}')}" for name, summary in cli.COMMANDS.items()]
    lines += ["        )", "        _describe command commands", "        return", "    fi", '    case "$words[2]" in']
    for name, options in commands.items():
        lines.append(f"    {name}) _arguments -S \\")
        lines += [f"        {_quoted(_zsh_option(one, spelling))} \\" for one in options for spelling in one.spellings]
        lines.append("        '*:file:_files' ;;")
    return "\n".join(
        [*lines, "    esac", "}", 'if [ "$funcstack[1]" = _qcc ]; then _qcc "$@"; else compdef _qcc qcc; fi', ""]
    )


def _zsh_option(one: _Option, spelling: str) -> str:
    told = "".join(f"\\{char}" if char in "[]:\\" else char for char in _plain(one.help))
    value = "" if not one.takes else f":value:({' '.join(one.choices)})" if one.choices else ":value:_files"
    return f"*{spelling}[{told}]{value}"


def _fish(commands: dict[str, list[_Option]]) -> str:
    lines = ["# Completion of qcc for fish, by `qcc completion fish`."]
    for name, summary in cli.COMMANDS.items():
        lines.append(f"complete -c qcc -n __fish_use_subcommand -f -a {name} -d {_quoted(summary)}")
    for name, options in commands.items():
        for one in options:
            names = " ".join(_fish_spelling(spelling) for spelling in one.spellings)
            value = f" -x -a {_quoted(' '.join(one.choices))}" if one.choices else " -r" if one.takes else ""
            seen = _quoted(f"__fish_seen_subcommand_from {name}")
            lines.append(f"complete -c qcc -n {seen} {names}{value} -d {_quoted(_plain(one.help))}")
    return "\n".join([*lines, ""])


def _fish_spelling(spelling: str) -> str:
    return f"-l {spelling[2:]}" if spelling.startswith("--") else f"-s {spelling[1:]}"


def _plain(help: str) -> str:
    return help.replace("%%", "%").replace("\n", " ")


def _quoted(text: str | Sequence[str]) -> str:
    return "'" + str(text).replace("'", "'\\''") + "'"
