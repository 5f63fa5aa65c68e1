"""Packages that bring definitions of their own: the template in `examples/plugin`, in a folder of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qcc.ir.plugins import GROUPS, plugins

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "examples" / "plugin"
ENTRY = "[{group}]\nx = {module}\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As pip would install it, without pip: its packages and what tells of them."""
    site = tmp_path_factory.mktemp("site")
    (site / "qcc_example").symlink_to(TEMPLATE / "src" / "qcc_example")
    info = site / "qcc_example-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: qcc-example\nVersion: 0.1.0\n")
    groups = (f"[qcc.{kind}]\nexample = qcc_example.{kind}\n" for kind in ("passes", "formats", "metrics", "targets"))
    (info / "entry_points.txt").write_text("\n".join(groups))
    return site


def python(site: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """With a folder on the path."""
    env = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_template_passes_its_own_tests(installed: Path) -> None:
    tests = str(TEMPLATE / "tests")
    run = python(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "--rootdir", tests, tests)
    assert run.returncode == 0, run.stdout + run.stderr


def test_its_pages_are_in_the_manual(installed: Path) -> None:
    assert "numerical precision, Gupta et al." in python(installed, "-m", "qcc", "passes", "stochastic").stdout
    found = python(installed, "-m", "qcc", "doctor").stdout
    assert "qcc-example, targets" in found and "qcc_example.targets, 0.1.0" in found


def test_without_it_nothing_is_known(tmp_path: Path) -> None:
    run = python(tmp_path, "-m", "qcc", "passes", "stochastic")
    assert run.returncode and "stochastic" in run.stderr


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Path]:
    """A package with one module of passes, to be written."""
    (tmp_path / "mine" / "passes").mkdir(parents=True)
    for folder in ("mine", "mine/passes"):
        (tmp_path / folder / "__init__.py").write_text("")
    info = tmp_path / "mine-2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: mine\nVersion: 2\n")
    (info / "entry_points.txt").write_text(ENTRY.format(group="qcc.passes", module="mine.passes"))
    yield tmp_path


def checked(site: Path) -> "subprocess.CompletedProcess[str]":
    policy = site / "p.qpolicy"
    policy.write_text("qpolicy 1\nrule linear { weights = int4 group 32 }\n")
    return python(site, "-m", "qcc", "check", str(policy))


def test_a_module_that_fails_is_told(other: Path) -> None:
    (other / "mine" / "passes" / "odd.py").write_text('"""Odd."""\n\nraise RuntimeError("too old")\n')
    run = checked(other)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert "error[Q597]: `qcc.passes.odd` of the plugin `mine` cannot be loaded: RuntimeError: too old" in run.stderr
    assert "pip uninstall mine" in run.stderr


def test_a_package_that_is_missing_is_told(other: Path) -> None:
    (other / "mine-2.dist-info" / "entry_points.txt").write_text(ENTRY.format(group="qcc.passes", module="mine.gone"))
    run = checked(other)
    assert run.returncode == 1 and "error[Q597]: the plugin `mine` names `mine.gone`: there is no package" in run.stderr


def test_a_keyword_that_is_taken_is_told(other: Path) -> None:
    text = (ROOT / "passes" / "rounding" / "nearest.py").read_text()
    (other / "mine" / "passes" / "nearer.py").write_text(text)
    run = checked(other)
    assert run.returncode == 1
    assert "error[Q598]: two definitions are called `nearest`, in `qcc.passes.nearer` and in" in run.stderr


def test_a_plugin_that_is_right_changes_nothing_else(installed: Path) -> None:
    assert checked(installed).returncode == 0


def test_every_group_joins_a_package_of_ours() -> None:
    assert all(package.startswith("qcc.") for package in GROUPS.values())
    assert all(one.group in GROUPS for one in plugins())
