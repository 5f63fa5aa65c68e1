"""Completion scripts hold every command and option, and shells read them."""

import shutil
import subprocess

import pytest

from qcc.__main__ import main
from qcc.compiler.commands.cli import COMMANDS


def _script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_is_in_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = _script(shell, capsys)
    assert [name for name in COMMANDS if name not in script] == []
    assert "keep-failed" in script
    if (found := shutil.which(shell)) is not None:
        run = subprocess.run([found, "-n", "/dev/stdin"], input=script, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("words", "found"),
    [("qcc chec", "check"), ("qcc check --form", "--format"), ("qcc check --format sa", "sarif")],
)
def test_bash_completes(words: str, found: str, capsys: pytest.CaptureFixture[str]) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    asked = f"\nCOMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}; _qcc; echo ${{COMPREPLY[*]}}"
    run = subprocess.run([bash, "-c", _script("bash", capsys) + asked], capture_output=True, text=True)
    assert run.stdout.split() == [found]


def test_an_unknown_shell_reject(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "invalid choice: 'tcsh'" in capsys.readouterr().err
