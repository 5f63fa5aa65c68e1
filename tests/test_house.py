"""The house keeps its shape: imports one way, small modules and folders, everything documented, light start."""

import ast
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("dsl", "ir", "passes", "codegen", "compiler")
MODULES = sorted(path for room in (*ROOMS, "benchmarks") for path in (ROOT / room).rglob("*.py"))
LONGEST_MODULE, LONGEST_FUNCTION, LARGEST_FOLDER = 400, 60, 15
HEAVY = ("torch", "onnx", "onnx_ir", "onnxruntime", "tvm", "scipy", "networkx")
CPU_MAKING = ("templates", "tiles", "rows", "library", "ceilings")
CUDA_MAKING = ("product", "generate", "library")
MAKING = (
    "qcc.codegen.library.",
    "qcc.codegen.tir.",
    *(f"qcc.codegen.cpu.{name}" for name in CPU_MAKING),
    *(f"qcc.codegen.cuda.{name}" for name in CUDA_MAKING),
)


def test_imports_run_one_way() -> None:
    run = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_folders_are_small() -> None:
    modules = [path.parent for path in MODULES if path.name != "__init__.py"]
    assert {str(folder): modules.count(folder) for folder in modules if modules.count(folder) > LARGEST_FOLDER} == {}


def test_every_folder_is_packaged() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in MODULES if path.relative_to(ROOT).parts[0] in ROOMS}
    assert sorted(packages) == sorted(["qcc", *(".".join(("qcc", *folder.parts)) for folder in folders)])


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_modules_are_small() -> None:
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in MODULES}
    assert {str(path): count for path, count in lines.items() if count > LONGEST_MODULE} == {}


def test_functions_are_short() -> None:
    functions = [
        (path, node) for path in MODULES for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef)
    ]
    lengths = {f"{path}: {node.name}": _length(node) for path, node in functions}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def _length(node: ast.FunctionDef) -> int:
    """Lines of code, without the docstring."""
    first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
    return (node.end_lineno or node.lineno) - first.lineno + 1


def test_no_import_cycles() -> None:
    """Imports for type checkers count: who must be read to understand a file."""
    graph = {_name(path): _imports(path) for path in MODULES if path.relative_to(ROOT).parts[0] in ROOMS}
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


def _name(path: Path) -> str:
    return ".".join(("qcc", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def _imports(path: Path) -> set[str]:
    """Modules of ours that a module names outside of its functions."""
    found: set[str] = set()
    tree = _tree(path)
    blocks = [node.body for node in tree.body if isinstance(node, ast.If)]
    for node in (*tree.body, *(inner for block in blocks for inner in block)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


RUNTIME = ("qcc.compiler.runtime", "qcc.compiler.measure.time_forms")
"""What knows ONNX Runtime, since it runs on it."""
FRAMEWORKS = ("qcc.ir.onnx", "qcc.ir.fx", "onnx", "onnx_ir", "onnxruntime", "torch")


def test_the_driver_names_no_framework() -> None:
    """Functions' own imports count."""
    found = [
        f"{_name(path)}: {name}"
        for path in MODULES
        if path.relative_to(ROOT).parts[0] in ("compiler", "passes")
        if not _name(path).startswith(RUNTIME)
        for node in ast.walk(_tree(path))
        for name in _named(node)
        if any(name == one or name.startswith(f"{one}.") for one in FRAMEWORKS)
    ]
    assert found == []


def _named(node: ast.AST) -> list[str]:
    """The modules that an import names."""
    if isinstance(node, ast.ImportFrom):
        return [node.module or "", *(f"{node.module}.{one.name}" for one in node.names)]
    return [one.name for one in node.names] if isinstance(node, ast.Import) else []


def test_a_name_has_one_meaning() -> None:
    """A public class or function is defined once; what a folder's modules all have by contract is left out."""
    places: dict[str, list[str]] = {}
    for path in MODULES:
        if path.relative_to(ROOT).parts[0] not in ROOMS:
            continue
        for node in _tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(_name(path))
    assert {name: homes for name, homes in places.items() if len(homes) > 1} == {}


def test_checking_a_policy_loads_nothing_heavy() -> None:
    """Nor how targets make their kernels: of a target it takes the names alone."""
    script = (
        "import sys; from qcc.__main__ import main; code = main(['check', sys.argv[1]]); "
        f"print(code, [name for name in sys.modules if name in {HEAVY} or name.startswith({MAKING})])"
    )
    policy = ROOT / "examples" / "fashion" / "fashion.qpolicy"
    run = subprocess.run([sys.executable, "-c", script, policy], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.splitlines()[-1] == "0 []", run.stdout + run.stderr


def test_only_encodings_know_how_they_are_decoded() -> None:
    """Elsewhere nobody asks for the bits or the symmetry of codes: a new encoding or grid would be read as another.

    How many bits a part takes in a file, it says itself; interpreters ask a grid for its planes and numbers.
    """
    asked = []
    for path in MODULES:
        place = path.relative_to(ROOT)
        if place.parts[0] not in ROOMS or place.parts[:2] == ("ir", "encoding"):
            continue
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Attribute) and node.attr in ("bits", "symmetric"):
                of = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
                if node.attr == "symmetric" or of in ("encoding", "grid", "found", "stored", "format"):
                    asked.append(f"{place}:{node.lineno}")
    assert asked == []
