"""Adapters that were trained beside MiniLM's last block, in files and unfolded: do they score alike?

    python -m benchmarks.adapters --models FOLDER --evaluate FOLDER --data FOLDER [--kinds KIND ...]

FOLDER of models holds ``minilm.onnx``, of evaluation ``evaluate.py``, of data ``sts-train.csv``, ``sts-dev.csv`` and
``minilm-tokenizer.json``. Each kind is trained for some steps on pairs of STS-B's train split, in PyTorch, beside a
last block whose weights are the model's own; what was trained is written as training libraries write it. A row is a
kind: the bytes of its file, the score on STS-B's dev split (Spearman x 100, sentences cut at 32 tokens) of the block
with the adapter as a branch of its own, run by PyTorch, and of the compiled model, run by ONNX Runtime; the largest
difference of embeddings; the ops, and the bits of a weight under int4 beside the base's. ``--kinds`` takes some of the
rows, ``--keep FOLDER`` keeps files and models for `benchmarks.packs`, and ``--variants N`` trains as many LoRAs there
instead, each from a start of its own and on pairs of its own.
"""

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import torch
from scipy.linalg import lu
from scipy.stats import spearmanr
from torch import Tensor, nn

import qcc
from benchmarks.processes.timing import machine
from qcc.compiler.report.result import average_bits
from qcc.ir.open_file import open_file

BLOCK = "model.encoder.layer.5"
RANK, ALPHA, STEPS, BATCH, LENGTH = 4, 8.0, 40, 16, 32
LAYERS = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
          "intermediate.dense", "output.dense")  # fmt: skip
HEADS = 12
Trained = Mapping[str, Tensor]
INT4 = "rule linear { weights = int4 group 32 }\n"


def _unchanged(_name: str, _read: Tensor, made: Tensor) -> Tensor:
    return made


class LastBlock(nn.Module):
    """A block of BERT with its weights, whose products may be changed."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.held = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
        self.change: Callable[[str, Tensor, Tensor], Tensor] = _unchanged

    def linear(self, name: str, x: Tensor) -> Tensor:
        """A product of the block, with what hangs beside it."""
        held = self.held
        return self.change(name, x, nn.functional.linear(x, held[f"{name}.weight"], held[f"{name}.bias"]))

    def norm(self, name: str, x: Tensor) -> Tensor:
        """A norm of the block."""
        return nn.functional.layer_norm(x, x.shape[-1:], self.held[f"{name}.weight"], self.held[f"{name}.bias"], 1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Embeddings of length one."""
        shape = (*x.shape[:2], HEADS, -1)
        q, k, v = (self.linear(name, x).view(shape).transpose(1, 2) for name in LAYERS[:3])
        seen = (mask[:, None, None, :] > 0).expand(-1, 1, x.shape[1], -1)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).reshape(x.shape)
        x = self.norm("attention.output.LayerNorm", x + self.linear(LAYERS[3], mixed))
        wide = nn.functional.gelu(self.linear(LAYERS[4], x))
        x = self.norm("output.LayerNorm", x + self.linear(LAYERS[5], wide))
        weight = mask[..., None].to(x.dtype)
        return nn.functional.normalize((x * weight).sum(1) / weight.sum(1), dim=-1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("models", "evaluate", "data"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--variants", type=int, default=0)
    args = parser.parse_args()
    bench = _Bench(args.models / "minilm.onnx", _module(args.evaluate / "evaluate.py"), args.steps)
    print(machine())
    if args.variants:
        args.keep.mkdir(exist_ok=True)
        for seed in range(args.variants):
            bench.trained("lora", args.keep / f"lora-{seed}.safetensors", seed)
        return
    base = bench.score(bench.pairs(bench.model, bench.dev))
    print(f"base: STS-B dev {base:.2f}, {len(onnx.load(bench.model).graph.node)} ops\n")
    print("| kind | file, bytes | unfolded, PyTorch | folded | embeddings apart | ops | bits under int4, base's |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        keep = args.keep or Path(folder)
        keep.mkdir(exist_ok=True)
        for kind in args.kinds:
            print(bench.row(kind, keep), flush=True)


class _Bench:
    def __init__(self, model: Path, evaluate: ModuleType, steps: int) -> None:
        self.model, self.evaluate, self.steps = model, evaluate, steps
        graph = open_file(model).graph
        self._known = {value.name for value in graph.inputs}
        weights = {}
        for weight in graph.weights():
            layer = weight.layers[0]
            if layer.name.startswith(f"{BLOCK}."):
                name = layer.name.removeprefix(f"{BLOCK}.")
                weights[f"{name}.weight"] = graph.matrix(weight)
                weights[f"{name}.bias"] = graph.constant(str(layer.bias))
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            for part in ("weight", "bias"):
                weights[f"{name}.{part}"] = graph.constant(f"{BLOCK}.{name}.{part}")
        self.weights: dict[str, np.ndarray] = {name: array for name, array in weights.items() if array is not None}
        query = next(one for weight in graph.weights() for one in weight.layers if one.name == f"{BLOCK}.{LAYERS[0]}")
        self._before = graph.runner([one.name for one in graph.inputs], [query.input])
        self._at = query.input
        self.train, self.dev = (self._texts(split) for split in ("train", "dev"))

    def row(self, kind: str, keep: Path) -> str:
        """One kind: trained, written, compiled, scored."""
        file = keep / f"{kind}.safetensors"
        block = self.trained(kind, file)
        (keep / f"{kind}.qpolicy").write_text(f'qpolicy 1\nadapter "{file.name}" {{ alpha = {ALPHA:g} }}\n')
        folded = keep / f"{kind}.onnx"
        if not qcc.compile(self.model, keep / f"{kind}.qpolicy", output=folded).passed:
            raise SystemExit(f"{kind} does not hold")
        text = (keep / f"{kind}.qpolicy").read_text() + INT4
        (keep / "int4.qpolicy").write_text(text)
        small = qcc.compile(self.model, keep / "int4.qpolicy", output=keep / "int4.onnx")
        plain = qcc.compile(self.model, f"qpolicy 1\n{INT4}", output=keep / "plain.onnx")
        (one, other), (left, right) = self._blocks(block, self.dev), self.pairs(folded, self.dev)
        apart = float(np.abs(np.concatenate([one - left, other - right])).max())
        nodes = len(onnx.load(folded).graph.node)
        bits = f"{average_bits(small.layers):.3f}, {average_bits(plain.layers):.3f}"
        scores = f"{self.score((one, other)):.2f} | {self.score((left, right)):.2f}"
        return f"| {kind} | {file.stat().st_size:,} | {scores} | {apart:.1e} | {nodes} | {bits} |"

    def trained(self, kind: str, file: Path, seed: int = 0) -> LastBlock:
        """A kind, trained and written."""
        torch.manual_seed(seed)
        block = LastBlock(self.weights)
        trained, change, tensors = KINDS[kind](block)
        block.change = change
        self._fit(block, trained, seed)
        _write(file, {name: np.ascontiguousarray(one) for name, one in tensors().items()})
        return block

    def pairs(self, model: Path, texts: "tuple[np.ndarray, list[str], list[str]]") -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of both sides by ONNX Runtime."""
        session = self.evaluate.session(str(model), None)
        found = [[session.run(None, feed)[0] for feed in self._feeds(side)] for side in texts[1:]]
        return np.concatenate(found[0]), np.concatenate(found[1])

    def score(self, found: tuple[np.ndarray, np.ndarray]) -> float:
        """Spearman x 100 on the dev split."""
        one, other = found
        cosine = (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
        return 100 * float(spearmanr(cosine, self.dev[0]).statistic)

    def _blocks(self, block: LastBlock, texts: Any) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            found = [[block(*self._hidden(feed)).numpy() for feed in self._feeds(side)] for side in texts[1:]]
        return np.concatenate(found[0]), np.concatenate(found[1])

    def _fit(self, block: LastBlock, trained: Trained, seed: int) -> None:
        """Cosines to scores, pair by pair."""
        optimiser = torch.optim.Adam(trained.values(), lr=2e-3)
        draw = np.random.default_rng(seed)
        for _ in range(self.steps):
            some = draw.choice(len(self.train[0]), BATCH, replace=False)
            sides = [block(*self._hidden(self._feed([texts[at] for at in some]))) for texts in self.train[1:]]
            wanted = torch.from_numpy(self.train[0][some] / 5).float()
            loss = nn.functional.mse_loss((sides[0] * sides[1]).sum(-1), wanted)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()

    def _hidden(self, feed: Mapping[str, np.ndarray]) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self._before(feed)[self._at]), torch.from_numpy(feed["attention_mask"])

    def _texts(self, split: str) -> tuple[np.ndarray, list[str], list[str]]:
        found: tuple[np.ndarray, list[str], list[str]] = self.evaluate.sts(split)
        return found

    def _feed(self, texts: list[str]) -> dict[str, np.ndarray]:
        feed = self.evaluate.bert_feed(self.evaluate.tokens("minilm", texts, pad=True, length=LENGTH))
        return {name: array for name, array in feed.items() if name in self._known}

    def _feeds(self, texts: list[str]) -> "list[dict[str, np.ndarray]]":
        return [self._feed(texts[at : at + 50]) for at in range(0, len(texts), 50)]


Kind = Callable[
    [LastBlock], tuple[Trained, Callable[[str, Tensor, Tensor], Tensor], Callable[[], dict[str, np.ndarray]]]
]


def _numpy(one: Tensor) -> np.ndarray:
    found: np.ndarray = one.detach().numpy()
    return found


def _lora(block: LastBlock) -> Any:
    down = {name: nn.Parameter(torch.randn(RANK, block.held[f"{name}.weight"].shape[1]) / 20) for name in LAYERS}
    up = {name: nn.Parameter(torch.zeros(len(block.held[f"{name}.weight"]), RANK)) for name in LAYERS}

    def change(name: str, x: Tensor, y: Tensor) -> Tensor:
        return y + ALPHA / RANK * (x @ down[name].T) @ up[name].T

    def tensors() -> dict[str, np.ndarray]:
        at = "base_model.model.encoder.layer.5"
        parts = (("lora_A", down), ("lora_B", up))
        return {f"{at}.{name}.{part}.weight": _numpy(ones[name]) for part, ones in parts for name in LAYERS}

    return {**{f"d{n}": one for n, one in down.items()}, **{f"u{n}": one for n, one in up.items()}}, change, tensors


def _difffit(block: LastBlock) -> Any:
    gain = {name: nn.Parameter(torch.ones(len(block.held[f"{name}.weight"]))) for name in LAYERS}
    shift = {name: nn.Parameter(torch.zeros(len(block.held[f"{name}.weight"]))) for name in LAYERS}

    def tensors() -> dict[str, np.ndarray]:
        parts = (("gamma", gain), ("shift", shift))
        return {f"{BLOCK}.{name}.{part}": _numpy(ones[name]) for part, ones in parts for name in LAYERS}

    trained = {**{f"g{n}": one for n, one in gain.items()}, **{f"s{n}": one for n, one in shift.items()}}
    return trained, lambda name, _, y: y * gain[name] + shift[name], tensors


def _loldu(block: LastBlock) -> Any:
    """The first ranks of the diagonals of square and other layers."""
    left, old, upper, z = {}, {}, {}, {}
    for name in LAYERS:
        lower, right = lu(block.held[f"{name}.weight"].double().numpy(), permute_l=True)
        diagonal = np.diag(right)[: 16 * RANK]
        left[name] = torch.from_numpy(lower[:, : 16 * RANK]).float()
        upper[name] = torch.from_numpy(right[: 16 * RANK] / diagonal[:, None]).float()
        old[name] = torch.from_numpy(diagonal.copy()).float()
        z[name] = nn.Parameter(old[name].clone())
    scale = ALPHA / (16 * RANK)

    def change(name: str, x: Tensor, y: Tensor) -> Tensor:
        return y + scale * ((x @ upper[name].T) * (z[name] - old[name])) @ left[name].T

    def tensors() -> dict[str, np.ndarray]:
        return {f"{BLOCK}.{name}.vector_z": _numpy(z[name]) for name in LAYERS}

    return z, change, tensors


def _sparse(block: LastBlock) -> Any:
    """One number of a hundred, those that are largest."""
    places = {
        n: torch.topk(block.held[f"{n}.weight"].abs().reshape(-1), block.held[f"{n}.weight"].numel() // 100)[1]
        for n in LAYERS
    }
    values = {name: nn.Parameter(torch.zeros(len(places[name]))) for name in LAYERS}

    def change(name: str, x: Tensor, y: Tensor) -> Tensor:
        weight = block.held[f"{name}.weight"]
        delta = torch.zeros(weight.numel()).index_add(0, places[name], values[name]).view_as(weight)
        return y + x @ delta.T

    def tensors() -> dict[str, np.ndarray]:
        found = {f"{BLOCK}.{name}.indices": _numpy(places[name]).astype(np.int32) for name in LAYERS}
        return found | {f"{BLOCK}.{name}.values": _numpy(values[name]) for name in LAYERS}

    return values, change, tensors


KINDS: dict[str, Kind] = {"lora": _lora, "difffit": _difffit, "loldu": _loldu, "sparse": _sparse}
NAMES = {"float32": "F32", "int32": "I32"}


def _write(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    head, data = {}, b""
    for name, array in tensors.items():
        start, data = len(data), data + array.tobytes()
        head[name] = {"dtype": NAMES[array.dtype.name], "shape": array.shape, "data_offsets": [start, len(data)]}
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("evaluate", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
