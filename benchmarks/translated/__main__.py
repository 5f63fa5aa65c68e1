"""What `qcc translate` makes of other tools' published configurations, beside what those tools make of them.

    python -m benchmarks.translated --evaluate FOLDER --models FOLDER --data FOLDER [--python PYTHON] [--only NAME ...]

``configurations.json`` has five of each tool, with where each is from: the values of its options, without what names
parts of another model. PYTHON has the other tools (``pip install onnxruntime onnx nncf nvidia-modelopt olive-ai``
and their ONNX extras); what does not run there is named and has no row of its own. FOLDER of evaluation holds
``evaluate.py``, of models ``minilm.onnx``, ``resnet20-cifar10.onnx`` and ``vww-mobilenetv1.onnx``, of data an
``.npz`` a task. Both calibrate on the first three quarters of the data; ``noise`` is the power of the outputs'
difference to the float model's over theirs on the last quarter, ``score`` the task's on its dev split, which neither
saw. All files run in plain ONNX Runtime, without kernels.
"""

import argparse
import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import qcc
from benchmarks.processes.children import run
from benchmarks.processes.timing import machine
from qcc.compiler.draft.translate import Translation, translate
from qcc.dsl.diagnostics.report import QccError

HERE = Path(__file__).parent
LIMIT_S = 900
MODELS = {
    "resnet20": ("resnet20-cifar10.onnx", "cifar10", "top1"),
    "vww": ("vww-mobilenetv1.onnx", "vww", "top1"),
    "minilm": ("minilm.onnx", "stsb", "spearman_x100"),
}


@dataclass(frozen=True)
class Task:
    """A model, its data and what judges it."""

    model: Path
    first: Path
    last: Mapping[str, np.ndarray]
    name: str
    metric: str
    evaluate: ModuleType

    def score(self, model: Path) -> float:
        """On the task's dev split."""
        return float(self.evaluate.measure(self.name, self.evaluate.session(str(model), None))[self.metric])

    def noise(self, model: Path) -> float:
        """Over the float model's outputs."""
        got, wanted = self._outputs(model), self._outputs(self.model)
        return float(np.square(got - wanted).sum() / np.square(wanted).sum())

    def _outputs(self, model: Path) -> np.ndarray:
        session = self.evaluate.session(str(model), None)
        wanted = [one.name for one in session.get_inputs()]
        rows = range(len(next(iter(self.last.values()))))
        runs = [session.run(None, {name: self.last[name][at : at + 1] for name in wanted})[0] for at in rows]
        return np.concatenate(runs).astype(np.float64)

    def row(self, model: Path) -> str:
        """Cells of a table."""
        files = [model] if model == self.model else [one for one in model.parent.rglob("*") if one.is_file()]
        size = sum(one.stat().st_size for one in files if one.suffix not in (".html", ".lock", ".json", ".qpolicy"))
        return f"{size:,} | {self.score(model):.2f} | {self.noise(model):.2g}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("evaluate", "models", "data"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    print(f"{machine()}\n", flush=True)
    listed: list[dict[str, Any]] = json.loads((HERE / "configurations.json").read_text(encoding="utf-8"))
    chosen = [one for one in listed if not args.only or any(word in one["name"] for word in args.only)]
    print("| configuration | model | theirs: bytes | score | noise | ours: bytes | score | noise | not translated |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        evaluate = _module(args.evaluate / "evaluate.py")
        tasks = {name: _task(name, args.models, args.data, Path(folder), evaluate) for name in MODELS}
        for name in dict.fromkeys(one["model"] for one in chosen):
            print(f"| float | {name} | {tasks[name].row(tasks[name].model)} | | | | |", flush=True)
        for one in chosen:
            print(_row(one, tasks[one["model"]], args.python), flush=True)


def _row(one: Mapping[str, Any], task: Task, python: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(one["config"]), encoding="utf-8")
        theirs, ours = (Path(folder) / name / "model.onnx" for name in ("theirs", "ours"))
        theirs.parent.mkdir()
        ours.parent.mkdir()
        given = Path(folder) / task.model.name  # some tools write on what they are given
        shutil.copyfile(task.model, given)
        words = [python, HERE / "other_tools.py", one["tool"], config, given, task.first, theirs]
        child = run(words, LIMIT_S)
        found = task.row(theirs) if child.returncode == 0 else f"did not run: {_last(child.stderr)} | |"
        told, left = _ours(translate(config, one["tool"]), task, ours)
        return f"| {one['name']} | {one['model']} | {found} | {told} | {left} |"


def _ours(translation: Translation, task: Task, output: Path) -> tuple[str, str]:
    left = ", ".join(f"`{each.path.rpartition('.')[2]}`" for each in translation.left)
    policy = output.with_suffix(".qpolicy")
    policy.write_text(translation.text, encoding="utf-8")
    try:
        qcc.compile(task.model, policy, output=output, data=task.first)
    except QccError as error:
        return f"{error.diagnostics[0].code}: {error.diagnostics[0].message} | |", left
    return task.row(output), left


def _last(text: str) -> str:
    lines: Sequence[str] = text.strip().splitlines() or ["nothing said"]
    return lines[-1].replace("|", " ")[:100]


def _task(name: str, models: Path, data: Path, folder: Path, evaluate: ModuleType) -> Task:
    file, task, metric = MODELS[name]
    arrays = dict(np.load(data / f"{task}.npz"))
    split = len(next(iter(arrays.values()))) * 3 // 4
    first = folder / f"{name}.npz"
    np.savez(first, **{key: array[:split] for key, array in arrays.items()})
    return Task(models / file, first, {key: array[split:] for key, array in arrays.items()}, task, metric, evaluate)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("evaluate", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
