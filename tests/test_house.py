"""The house keeps its shape: imports one way, small modules, everything documented, light start."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("dsl", "ir", "passes", "codegen", "compiler")
MODULES = sorted(path for room in (*ROOMS, "benchmarks") for path in (ROOT / room).glob("*.py"))
LONGEST_MODULE, LONGEST_FUNCTION = 400, 60
HEAVY = ("torch", "onnx", "onnx_ir", "onnxruntime", "tvm", "scipy", "networkx")


def test_imports_run_one_way() -> None:
    run = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_rooms_are_flat() -> None:
    nested = [path for room in ROOMS for path in (ROOT / room).rglob("*.py") if path.parent != ROOT / room]
    assert nested == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_modules_are_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LONGEST_MODULE
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    long = [f"{node.name}: {_length(node)}" for node in functions if _length(node) > LONGEST_FUNCTION]
    assert long == []


def _length(node: ast.FunctionDef) -> int:
    """Lines of code, without the docstring."""
    first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
    return (node.end_lineno or node.lineno) - first.lineno + 1


def test_no_import_cycles() -> None:
    graph = {f"qcc.{path.parent.name}.{path.stem}": _imports(path) for path in MODULES if path.parent.name in ROOMS}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name in done or name not in graph:
            return
        for other in graph[name]:
            visit(other, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def _imports(path: Path) -> set[str]:
    """Modules of ours that a module needs when it runs; imports for type checkers alone don't count."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


def test_checking_a_policy_loads_nothing_heavy() -> None:
    script = (
        "import sys; from qcc.__main__ import main; code = main(['check', sys.argv[1]]); "
        f"print(code, [name for name in {HEAVY} if name in sys.modules])"
    )
    policy = ROOT / "examples" / "fashion" / "fashion.qpolicy"
    run = subprocess.run([sys.executable, "-c", script, policy], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.splitlines()[-1] == "0 []", run.stdout + run.stderr
