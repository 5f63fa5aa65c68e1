"""CUDA's kernels on a card: how far products are from float64's, and what they take beside cuBLAS.

    python -m benchmarks.cuda [--format int4_group32] [--size 4096] [--copies 24]

Needs a CUDA device, PyTorch that uses it, and TVM. Kernels are handed to the driver as a library does it. A row is a
number of activations' rows: microseconds of a call in a captured graph of 96 calls, the median of 20 replays, once of
the same weights, which the second cache holds, and once of so many copies by turns, which it does not; cuBLAS has half
floats of the same shape.
"""

import argparse
import ctypes
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch

from qcc.codegen.cuda.generate import ptx
from qcc.codegen.cuda.processors import DRIVER, PROCESSORS
from qcc.codegen.cuda.product import MANY, OUTPUTS, WARP, WARPS
from qcc.ir.encoding import fit
from qcc.ir.encoding.blocked import named
from qcc.ir.kernel.op import LinearOp

ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
CALLS, REPLAYS = 96, 20
Call = Callable[[int, int], None]


class Kernels:
    """The kernels of an op, loaded by the driver."""

    def __init__(self, op: LinearOp) -> None:
        self.op, self.driver, self.module = op, ctypes.CDLL(DRIVER), ctypes.c_void_p()
        text, self.orders = ptx([op], PROCESSORS["sm_80"])
        self._check(self.driver.cuModuleLoadData(ctypes.byref(self.module), text.encode() + b"\0"))

    def launch(self, tensors: dict[str, Any], rows: int, sizes: tuple[int, int], stream: int) -> None:
        """Start one on a stream; sizes are those of the outputs and the inputs."""
        many, function = MANY if rows > 1 else 1, ctypes.c_void_p()
        name = f"{self.op.name}_rows{many}_float16"
        self._check(self.driver.cuModuleGetFunction(ctypes.byref(function), self.module, f"{name}_kernel".encode()))
        numbers = {"inputs": sizes[1], "outputs": sizes[0], "rows": rows}
        values = [
            ctypes.c_int(numbers[one]) if one in numbers else ctypes.c_void_p(tensors[one].data_ptr())
            for one in self.orders[name]
        ]
        arguments = (ctypes.c_void_p * len(values))(
            *(ctypes.cast(ctypes.pointer(one), ctypes.c_void_p) for one in values)
        )
        grid = (-(-sizes[0] // OUTPUTS), -(-rows // many), 1)
        block = (WARP, WARPS, 1)
        self._check(self.driver.cuLaunchKernel(function, *grid, *block, 0, ctypes.c_void_p(stream), arguments, None))

    def _check(self, status: int) -> None:
        if status:
            raise RuntimeError(f"the CUDA driver gave {status}")


def microseconds(call: Call) -> float:
    """Of one of the calls of a captured graph."""
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        call(0, stream.cuda_stream)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        for at in range(CALLS):
            call(at, stream.cuda_stream)
    found = []
    for _ in range(REPLAYS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) * 1000 / CALLS)
    return float(median(found))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", default="int4_group32")
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--copies", type=int, default=24)
    given = parser.parse_args()
    size, encoding = given.size, named(given.format)
    op = LinearOp(encoding)
    weight = np.random.default_rng(0).standard_normal((size, size), np.float32)
    encoded = fit.encode(weight, encoding)
    exact = torch.from_numpy(encoded.decode().astype(np.float64)).cuda()
    held = {name: torch.from_numpy(array).cuda() for name, array in op.arrays(encoded.parts).items()}
    copies = [{name: one.clone() for name, one in held.items()} for _ in range(given.copies)]
    halves = [torch.randn(size, size, device="cuda").half() for _ in range(given.copies // 2)]
    kernels = Kernels(op)
    print(f"# {torch.cuda.get_device_name()}, {given.format}, {size}x{size}")
    print("| rows | apart | us, in the cache | us, by turns | cuBLAS, in the cache | by turns |")
    print("| --- | --- | --- | --- | --- | --- |")
    for rows in ROWS:
        x, y = torch.randn(rows, size, device="cuda"), torch.empty(rows, size, device="cuda")
        half, to = x.half(), torch.empty(rows, size, device="cuda", dtype=torch.half)

        def ours(at: int, stream: int, turns: int, x: Any = x, y: Any = y, rows: int = rows) -> None:
            kernels.launch({**copies[at % turns], "x": x, "y": y}, rows, (size, size), stream)

        def theirs(at: int, _: int, turns: int, half: Any = half, to: Any = to) -> None:
            torch.mm(half, halves[at % turns].T, out=to)

        ours(0, torch.cuda.current_stream().cuda_stream, 1)
        want = x.double() @ exact.T
        apart = float((y.double() - want).abs().max() / want.abs().max())
        times = [
            microseconds(lambda at, stream, call=call, turns=turns: call(at, stream, turns))  # type: ignore[misc]
            for call, most in ((ours, len(copies)), (theirs, len(halves)))
            for turns in (1, most)
        ]
        print(f"| {rows} | {apart:.0e} | {' | '.join(f'{one:.1f}' for one in times)} |", flush=True)


if __name__ == "__main__":
    main()
