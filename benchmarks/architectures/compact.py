"""What a compact module takes: at rest beside what is stored of its weights, and at a call beside decoding them once.

    python -m benchmarks.architectures.compact [--only NAME ...] [--backend NAME]

A row is a module of `benchmarks.architectures` whose weights are stored in int4 group 16: the bytes of its tensors
over those of codes, scales and all that is not a weight; and the processor time of a call, one thread, over that of the
float module's and of all its decoding alone, the three in turns, and of the call under `torch.compile` (`inductor`
takes a C++ compiler). How far the outputs of that are from the module's own is of the largest one.
"""

import argparse
import logging
import time
import warnings
import zlib
from collections.abc import Callable
from statistics import median

import torch
from torch.fx import Graph, GraphModule, Node

import qcc
from benchmarks.architectures import export
from benchmarks.processes.timing import machine

POLICY = "qpolicy 1\nrule any { weights = int4 group 16 }\nverify { cosine >= 0 }"
CHOSEN = ("bert", "gpt2", "timm-vit", "mobilenet-v3", "resnext")
ROUNDS = 30
DECODING = "qcc_"  # the names of what decodes start so


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", default=CHOSEN)
    parser.add_argument("--backend", default="aot_eager")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    print(f"# {machine()}, one thread\n# python -m benchmarks.architectures.compact")
    print("| model | bytes at rest | of what is stored | a call, of decoding and float | torch.compile | apart |")
    print("| --- | --- | --- | --- | --- | --- |")
    builders = export.catalogue()
    for name in arguments.only:
        print(row(name, builders[name], arguments.backend), flush=True)


@torch.no_grad()
def row(name: str, builder: export.Builder, backend: str) -> str:
    """Of a model."""
    seed = zlib.crc32(name.encode())
    torch.manual_seed(seed)
    module, shapes = builder()
    export.randomise(module.eval(), shapes, seed)
    given = export.inputs(shapes, export.BATCH, None, 1)
    result = qcc.compile(module, POLICY, example_inputs=given)
    compact = result.model
    assert isinstance(compact, GraphModule)
    weights = sum(layer.params for layer in result.layers) * 4
    stored = sum(layer.bits * layer.params / 8 for layer in result.layers) + held(_read(module, given)) - weights
    decode = decoding(compact)
    compiled: torch.nn.Module = torch.compile(compact, backend=backend)  # type: ignore[assignment]  # a module's
    compiled(*given)
    runs = (lambda: module(*given), decode, lambda: compact(*given), lambda: compiled(*given))
    plain, decoded, *calls = in_turns(*runs)
    pairs = zip(export.reference(compiled, given), export.reference(compact, given), strict=True)
    apart = max(export.distance(got, wanted) for got, wanted in pairs)
    at_rest = held(compact)
    whole, fused = (one / (plain + decoded) for one in calls)
    return f"| {name} | {at_rest:,} | {at_rest / stored:.3f} | {whole:.2f} | {fused:.2f} | {apart:.0e} |"


def _read(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> torch.nn.Module:
    """The module with what its exported program reads alone, norms folded as in what it is compared with."""
    result = qcc.compile(module, "qpolicy 1\nrule any { keep }\nverify { cosine >= 0 }", example_inputs=given)
    assert isinstance(result.model, torch.nn.Module)
    return result.model


def held(module: torch.nn.Module) -> int:
    """The bytes of a module's tensors, those that share their memory once."""
    found = [tensor.untyped_storage() for tensor in (*module.parameters(), *module.buffers())]
    return sum({one.data_ptr(): one.nbytes() for one in found}.values())


def decoding(module: GraphModule) -> GraphModule:
    """All that decodes weights, and nothing else."""
    graph, copies = Graph(), dict[Node, Node]()
    nodes = [one for one in module.graph.nodes if one.op == "get_attr" or one.name.startswith(DECODING)]
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    ends = [one for one in nodes if one.op != "get_attr" and any(user not in copies for user in one.users)]
    graph.output(tuple(copies[one] for one in ends))
    return GraphModule(module, graph)


def in_turns(*runs: Callable[[], object]) -> list[float]:
    """The median processor seconds of each."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, kept in zip(runs, seconds, strict=True):
            start = time.thread_time()
            run()
            kept.append(time.thread_time() - start)
    return [median(kept) for kept in seconds]


if __name__ == "__main__":
    main()
