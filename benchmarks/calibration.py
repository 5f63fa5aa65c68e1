"""What GPTQ makes of good and of bad calibration data, beside rounding to nearest.

    python -m benchmarks.calibration --models FOLDER --evaluate FOLDER --data FOLDER

FOLDER of models holds ``minilm.onnx``, of evaluation ``evaluate.py``, of data ``sts-train.csv`` and
``minilm-tokenizer.json``. Calibration takes sentences of STS-B's train split: the first 1,000, or the first 128, as
they are or padded to 64 tokens. A row is a format and data: the size, the score on STS-B's dev split (Spearman x 100),
the noise of the embeddings over their signal on 500 other train sentences, the seconds of compiling, and what the
report says of the data. The compiler holds out every fourth calibration sentence to judge what the others chose;
neither the dev split nor the 500 sentences are seen by it.
"""

import argparse
import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np

import qcc
from benchmarks.processes.timing import machine
from qcc.compiler.report.data import data_lines

FORMATS = ("int3 group 128", "int4 group 32")
SMALL, LARGE, LENGTH = 128, 1000, 64
JUDGES = slice(2000, 2500)
Feeds = Mapping[str, np.ndarray]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("models", "evaluate", "data"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--formats", nargs="*", default=FORMATS)
    args = parser.parse_args()
    model = args.models / "minilm.onnx"
    evaluate = _module(args.evaluate / "evaluate.py")
    known = _sentences(args.data)
    one_by_one = _tokens(args.data, known[: max(LARGE, JUDGES.stop)])
    judges = [_feed([one]) for one in one_by_one[JUDGES]]
    wanted = _embeddings(model, judges)
    data: dict[str, object] = {
        "nearest": None,
        f"gptq, {SMALL} padded to {LENGTH}": _rows(_feed(_tokens(args.data, known[:SMALL], LENGTH))),
        f"gptq, {SMALL} as they are": [_feed([one]) for one in one_by_one[:SMALL]],
        f"gptq, {LARGE:,}": [_feed([one]) for one in one_by_one[:LARGE]],
    }
    print(machine())
    print(f"float: STS-B dev {_score(evaluate, model):.2f}\n")
    print("| format | rounding and data | bytes | STS-B dev | noise, held-out sentences | seconds | data |")
    print("|---|---|---|---|---|---|---|")
    for text in args.formats:
        for name, feeds in data.items():
            print(_row(model, text, name, feeds, evaluate, judges, wanted), flush=True)


def _row(
    model: Path,
    text: str,
    name: str,
    feeds: object,
    evaluate: ModuleType,
    judges: Sequence[Feeds],
    wanted: np.ndarray,
) -> str:
    with tempfile.TemporaryDirectory() as folder:
        policy, output = Path(folder) / "one.qpolicy", Path(folder) / "out.onnx"
        rounding = "nearest" if feeds is None else "gptq"
        policy.write_text(f"qpolicy 1\nrule any {{ weights = {text}; rounding = {rounding} }}\n", encoding="utf-8")
        result = qcc.compile(model, policy, output=output, data=feeds)  # type: ignore[arg-type]  # None or feeds
        got = _embeddings(output, judges)
        noise = float(np.sum((got - wanted) ** 2) / np.sum(wanted**2))
        score = _score(evaluate, output)
    seconds = sum(result.seconds.values())
    told = "; ".join(data_lines(result.layers))
    return f"| {text} | {name} | {result.output_bytes:,} | {score:.2f} | {noise:.4f} | {seconds:.0f} | {told} |"


def _rows(feed: Feeds) -> list[Feeds]:
    """Each sentence for itself, as an .npz file is read."""
    return [{name: array[at : at + 1] for name, array in feed.items()} for at in range(len(feed["input_ids"]))]


def _score(evaluate: ModuleType, model: Path) -> float:
    return float(evaluate.measure("stsb", evaluate.session(str(model), None))["spearman_x100"])


def _embeddings(model: Path, feeds: Sequence[Feeds]) -> np.ndarray:
    session = qcc.Session(model, kernels=False)
    return np.concatenate([next(iter(session.run(one).values())) for one in feeds])


def _sentences(folder: Path) -> list[str]:
    lines = (folder / "sts-train.csv").read_text(encoding="utf-8").splitlines()
    parts = [line.split("\t") for line in lines]
    return list(dict.fromkeys(text.strip() for column in (5, 6) for text in (row[column] for row in parts)))


def _tokens(folder: Path, texts: Sequence[str], length: int | None = None) -> list[object]:
    tokenizer = import_module("tokenizers").Tokenizer.from_file(str(folder / "minilm-tokenizer.json"))
    tokenizer.enable_truncation(length or 256)
    tokenizer.no_padding()
    if length:
        tokenizer.enable_padding(pad_id=0, pad_token="[PAD]", length=length)
    return list(tokenizer.encode_batch(list(texts)))


def _feed(encodings: Sequence[object]) -> dict[str, np.ndarray]:
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {name: np.array([getattr(one, field) for one in encodings], np.int64) for name, field in columns.items()}


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("evaluate", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
