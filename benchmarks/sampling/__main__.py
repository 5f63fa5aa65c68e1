"""Step caches, short loops and compressed diffusion models: how far samples are from the original's, and their time.

    python -m benchmarks.sampling cache MODEL LOOP [--evaluations 20] [--region "auto"]
    python -m benchmarks.sampling short MODEL LOOP [--counts 5,8,10]
    python -m benchmarks.sampling joint MODEL LOOP [--evaluations 20]

All is chosen on the loop's `seeds` and judged on its `judged`. Errors are roots of energies: of what differs, over that
of the original's samples.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

import qcc
from qcc.compiler.sampler.drive import Driver, whole_driver
from qcc.compiler.sampler.loop import SamplingLoop, read_loop
from qcc.compiler.sampler.noise import GRIDS
from qcc.compiler.sampler.table import WHOLE, LoopTable
from qcc.compiler.steps.schedule import CachedSegment, affine, corrected
from qcc.compiler.steps.search import distance, searched
from qcc.compiler.steps.step_cache import StepCaching
from qcc.dsl.policy.policy import Quantity, StepCache
from qcc.ir.graph.ops import Array
from qcc.ir.model.carried import Carried
from qcc.ir.onnx.model import OnnxModel

ROUNDS = 3
FIXED = ("ddim", "dpmpp_2m")


Rule = Callable[[int, int], list[CachedSegment]]


class Fixed(StepCaching):
    """A step cache whose schedule is a rule."""

    rule: Rule

    @cached_property
    def segments(self) -> tuple[CachedSegment, ...]:
        """As the rule has it."""
        return tuple(self.rule(len(self.table.rows), self.most))


def uniform(region: int) -> Callable[[int, int], list[CachedSegment]]:
    """Whole evaluations as evenly as they go."""
    return lambda steps, most: [CachedSegment(begin, end, region) for begin, end in _evenly(steps, most)]


def delta_dit(rear: int, front: int) -> Callable[[int, int], list[CachedSegment]]:
    """Delta-DiT's rule: evenly, rear blocks kept in the first half of the steps and front ones in the second."""
    return lambda steps, most: [
        CachedSegment(begin, end, rear if begin < steps // 2 else front) for begin, end in _evenly(steps, most)
    ]


def _evenly(steps: int, most: int) -> Iterator[tuple[int, int]]:
    yield from pairwise([*sorted({round(at * steps / most) for at in range(most)}), steps])


def opened(model: OnnxModel, path: Path, loop: LoopTable) -> Driver:
    """What runs a table beside a model."""
    graphs = {}
    for name, file in loop.graphs.items():
        at = path.with_name(file)
        graphs[name] = model.runner(at), [one.name for one in OnnxModel(at).graph.inputs]
    return Driver(loop, model.graph.inputs, graphs)


def cache(args: argparse.Namespace) -> None:
    """The program's schedule beside rules, at equal evaluations, and the time of the loop."""
    model, loop = OnnxModel(args.model), read_loop(args.loop)
    graph = model.graph.copy()
    graph.simplify()
    table, inputs = loop.table(), model.graph.inputs
    wanted = whole_driver(table, inputs, model.reference()).samples(loop.judged)
    asked = _regions(args.region)
    with tempfile.TemporaryDirectory() as folder:
        written = model.write(graph, Path(folder) / "net.onnx", "always").path
        found = {}
        for name, fit, kind, rule in _rivals(args):
            policy = StepCache(asked, Quantity(args.evaluations), fit)
            caching = kind(policy, table, loop.seeds, graph)
            if isinstance(caching, Fixed):
                caching.rule = rule
            driver = opened(model, written, caching.write(written))
            found[name] = distance(driver.samples(loop.judged), wanted)
            print(f"{name:32} {caching.scheduled.whole} whole, error {found[name]:.4%}", flush=True)
            if name == "program":
                for one in caching.segments:
                    print("   ", one.begin, one.end, caching.regions[one.region].text)
                _time(driver, whole_driver(table, inputs, model.runner(written)), loop)
                _reuse_error(caching, loop)


def _regions(text: str) -> tuple[tuple[str, tuple[int | str, ...]], ...]:
    policy = qcc.load_policy(f'qpolicy 1\nsampler "x.toml"\nstep_cache {{ region = {text}, evaluations = 50% }}\n')
    assert policy.step_cache is not None
    return policy.step_cache.regions


def _rivals(args: argparse.Namespace) -> Iterator[tuple[str, str, type[StepCaching], Rule]]:
    yield "program", "affine", StepCaching, uniform(0)
    yield "program, not corrected", "none", StepCaching, uniform(0)
    yield "uniform", "none", Fixed, uniform(0)
    yield "uniform, corrected", "affine", Fixed, uniform(0)
    if args.rear:
        yield "Delta-DiT's rule", "none", Fixed, delta_dit(1, 0)


def _time(one: Driver, other: Driver, loop: SamplingLoop) -> None:
    """The loop's wall time, in turns in one process."""
    taken: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(ROUNDS):
        for at, driver in enumerate((one, other)):
            begin = time.perf_counter()
            driver.samples(loop.judged[:1])
            taken[at].append(time.perf_counter() - begin)
    ratio = [a / b for a, b in zip(*taken.values(), strict=True)]
    print(f"    wall of one sample: {statistics.median(ratio):.3f}x, {min(ratio):.3f} to {max(ratio):.3f}", flush=True)


def _reuse_error(caching: StepCaching, loop: SamplingLoop) -> None:
    """What the last step's region misses of this step's, as it is and corrected; fitted on seeds, told on others."""
    for region in caching.regions:
        carried, graph = region.carried, caching.graph
        values = [name for name in (carried.value, carried.source) if name]
        fed = [one.name for one in graph.inputs]
        run = graph.runner(fed, [caching.table.output, *values])
        driver = Driver(caching.table, graph.inputs, {WHOLE: (run, fed)})

        fitted, told = (_kept(driver, seeds, carried) for seeds in (loop.seeds, loop.judged))
        lines, last = [], []
        for at in range(1, len(told)):
            after = corrected(told[at - 1], *affine(fitted[at - 1], fitted[at]))
            raw, left = (float(((one - told[at]) ** 2).sum() / (told[at] ** 2).sum()) for one in (told[at - 1], after))
            lines.append(f"{raw:.3f}>{left:.3f}")
            last.append(1 - left / raw)
        print(
            f"    {region.text}: {' '.join(lines[-8:])}; lower by {np.mean(last[-4:]):.1%} over the last 4", flush=True
        )


def _kept(driver: Driver, seeds: Sequence[int], carried: Carried) -> list[Array]:
    """What a region makes at each evaluation."""
    found: list[list[Array]] = [[] for _ in driver.table.rows]
    for one in driver.evaluations(seeds):
        found[one.at].append(one.made[carried.value] - (one.made[carried.source] if carried.source else 0))
    return [np.concatenate(one) for one in found]


def short(args: argparse.Namespace) -> None:
    """Searched loops beside fixed solvers on usual grids."""
    model, loop = OnnxModel(args.model), read_loop(args.loop)
    run, inputs = model.reference(), model.graph.inputs

    def drive(table: LoopTable) -> Driver:
        return whole_driver(table, inputs, run)

    wanted = drive(loop.table(loop.reference)).samples(loop.judged)
    for count in map(int, args.counts.split(",")):
        usual = {}
        for name, grid in GRIDS.items():
            steps = tuple(map(float, grid(loop.schedule, loop.begin, loop.end, count)))
            for solver in FIXED:
                usual[name, solver] = distance(drive(loop.over(steps, solver)).samples(loop.judged), wanted)
        best = min(usual, key=lambda one: usual[one])
        table = searched(loop, count, ("times", "order"), drive)
        error = distance(drive(table).samples(loop.judged), wanted)
        taken = [round(row.step, 3) for row in table.rows]
        print(f"{count} evaluations: {error:.4%}; best fixed {best}: {usual[best]:.4%}; steps {taken}", flush=True)


def joint(args: argparse.Namespace) -> None:
    """W8A8 and a step cache, each alone and both; data from the loop beside data from files."""
    loop = args.loop
    rule = f"rule linear {{ weights = int8 channel; activations = static({args.static}) }}\n"
    cached = f"step_cache {{ region = {args.region}, evaluations = {args.evaluations} }}\n"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(loop, Path(folder) / "loop.toml")
        head = 'sampler "loop.toml"\n'
        levels = rule.replace(" }", f'; levels = intervals(input "{read_loop(loop).step}") }}')
        kinds = {"W8A8": head + rule, "W8A8 by step": head + levels}
        kinds |= {"step cache": head + cached + "rule any { keep }\n", "both": head + cached + rule}
        kinds = {name: text for name, text in kinds.items() if not args.only or name in args.only}
        for name, text in kinds.items():
            (Path(folder) / "p.qpolicy").write_text(text, encoding="utf-8")
            result = qcc.compile(
                args.model, Path(folder) / "p.qpolicy", output=Path(folder) / f"{name.replace(' ', '-')}.onnx"
            )
            assert result.loop is not None
            print(f"{name:12} {result.loop.facts['distance']:.4%}", flush=True)
            if name.startswith("W8A8"):
                print(f"    noise of one evaluation: {_one_step(args, result.output):.4%}", flush=True)
        if args.images:
            _by_data(args, Path(folder), rule)


def _one_step(args: argparse.Namespace, path: Path) -> float:
    """The noise of an output over its signal, at what the original's loop feeds for seeds that judge."""
    model, loop = OnnxModel(args.model), read_loop(args.loop)
    table, made, wanted = loop.table(), list[Array](), list[Array]()
    other = qcc.Session(path)
    for one in whole_driver(table, model.graph.inputs, model.reference()).evaluations(loop.judged):
        wanted.append(one.made[table.output])
        made.append(other.run(dict(one.feeds))[table.output])
    return distance(np.stack(made), np.stack(wanted)) ** 2


def _by_data(args: argparse.Namespace, folder: Path, rule: str) -> None:
    """W8A8 with calibration from the loop and from images that are noised; noise on other images at all steps."""
    loop = read_loop(args.loop)
    images = np.load(args.images)[args.array].astype(np.float32)
    images = images.reshape(-1, 1, *images.shape[-2:]) / max(1.0, float(images.max())) * 2 - 1
    rng = np.random.default_rng(0)

    def feeds(some: Array) -> dict[str, Array]:
        step = rng.uniform(0.02, 1, len(some)).astype(np.float32)
        at = (slice(None), None, None, None)
        alpha, sigma = (
            curve(step.astype(np.float64))[at].astype(np.float32)
            for curve in (loop.schedule.alpha, loop.schedule.sigma)
        )
        noise = rng.standard_normal(some.shape, np.float32)
        return {"latent": alpha * some + sigma * noise, "time": step, "label": rng.integers(0, 11, len(some))}

    half = min(64, len(images) // 2)
    one = feeds(images[:half])
    np.savez(folder / "images.npz", latent=one["latent"], time=one["time"], label=one["label"])
    told, wanted = feeds(images[half : 2 * half]), None
    for name, text in {"loop": 'sampler "loop.toml"\n', "images": 'calibrate "images.npz"\n'}.items():
        (folder / "p.qpolicy").write_text(text + rule, encoding="utf-8")
        made = qcc.compile(args.model, folder / "p.qpolicy", output=folder / f"by-{name}.onnx")
        wanted = qcc.Session(args.model).run(told)["v"] if wanted is None else wanted
        print(f"W8A8 by {name}: noise {distance(qcc.Session(made.output).run(told)['v'], wanted) ** 2:.4%}", flush=True)


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cache", "short", "joint"))
    parser.add_argument("model", type=Path)
    parser.add_argument("loop", type=Path)
    parser.add_argument("--evaluations", type=int, default=20)
    parser.add_argument("--region", default="auto")
    parser.add_argument(
        "--rear", action="store_true", help="Delta-DiT's rule too, where the second region is the rear one"
    )
    parser.add_argument("--counts", default="5,8,10")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--array", default="image")
    parser.add_argument("--static", default="range = absmax", help="of `joint`: how steps of activations are found")
    parser.add_argument("--only", action="append", help="of `joint`: a kind to run; by default all")
    args = parser.parse_args()
    {"cache": cache, "short": short, "joint": joint}[args.what](args)


if __name__ == "__main__":
    main()
