"""A piece of a graph that runs in torch, so that gradients of its results by its constants are to be had.

The graph may be of any framework. An op runs by its canonical kind, function and attributes; what no constant in
question changes, masks and positions and sizes among it, comes from the graph's own runner. It is what Fisher
information is read off, and what trains constants.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from qcc.ir.errors import ModelError
from qcc.ir.fx.piece import axes, products, values  # noqa: F401 - they fill the table
from qcc.ir.fx.piece.call import Call, Unsupported, function_of
from qcc.ir.fx.tensors import to_array, to_tensor
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Feeds, Op

NEAR = 1e-3  # of the largest number of an output, which torch and the graph's runner may be apart


class TorchPiece:
    """The way from some constants of a graph to values of it.

    ``reach`` are those of the constants all of whose ways torch knows; the others are constants as all are.

    Args:
        graph: it is read, and kept.
        outputs: values that are wanted.
        constants: by which gradients are asked.

    Raises:
        ModelError: none of them is reached, ``Q646``.
    """

    def __init__(self, graph: Graph, outputs: Sequence[str], constants: Iterable[str]) -> None:
        self._graph = graph
        ops = graph.ops()
        wanted = _needed(ops, outputs)
        floats = [op for op in ops if op.name in wanted and _is_run(graph, op)]
        asked = [name for name in dict.fromkeys(constants) if graph.constant(name) is not None]
        self.reach = tuple(name for name in asked if _known(floats, name))
        self._ops = _behind(floats, self.reach)
        if not self._ops:
            raise ModelError("Q646", "gradients pass through none of the model's weights", HELP)
        made = {name for op in self._ops for name in op.outputs if name}
        self.outputs = tuple(name for name in outputs if name in made)
        read = dict.fromkeys(name for op in self._ops for name in op.inputs if name and name not in made)
        self._held = {name: array for name in read if (array := graph.constant(name)) is not None}
        self._fed = tuple(name for name in read if name not in self._held)
        self._sized = [op for op in self._ops if (found := function_of(op)) is not None and found.sized]
        fed = [value.name for value in graph.inputs]
        aside = tuple(name for name in self._fed if name not in fed)
        shaped = [op.outputs[0] for op in self._sized]
        self._runner = graph.runner(fed, [*dict.fromkeys((*aside, *shaped, *self.outputs))])
        self._aside = graph.runner(fed, aside) if aside else None
        self._sizes: dict[object, dict[str, Tensor]] = {}
        self.move("cpu")

    def move(self, device: str) -> None:
        """Compute on a device of torch's, which holds the constants then."""
        self._device = device
        self._tensors = {name: to_tensor(np.asarray(array)).to(device) for name, array in self._held.items()}

    def start(self) -> dict[str, Tensor]:
        """The constants in reach as they are, to be changed and given to `run`."""
        return {name: self._tensors[name].clone() for name in self.reach}

    def known(self, feeds: Feeds) -> dict[str, Array]:
        """What the graph itself makes of feeds: all that `run` does not compute, and the outputs."""
        return {**{name: np.asarray(array) for name, array in feeds.items()}, **self._runner(feeds)}

    def placed(self, feeds: Feeds) -> dict[str, Tensor]:
        """What `run` reads of feeds, on the device: for those that are run again and again.

        Sizes of results are asked of the graph once for feeds of the same shapes, and the same numbers that are not
        floats.
        """
        have = {**feeds, **(self._aside(feeds) if self._aside else {})}
        key = tuple((name, array.shape, _facts(array)) for name, array in sorted(feeds.items()))
        if key not in self._sizes:
            known = self.known(feeds) if self._sized else {}
            shapes = {op.outputs[0]: known[op.outputs[0]].shape for op in self._sized}
            self._sizes[key] = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        return {**self._sizes[key], **{name: to_tensor(have[name]).to(self._device) for name in self._fed}}

    def run(self, known: Mapping[str, Array | Tensor], constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs under some constants.

        Args:
            known: what `known` or `placed` gave for the feeds.
            constants: those in reach, or some of them.

        Raises:
            ModelError: an op says less than its run takes, ``Q646``.
        """
        have = {**self._tensors, **constants}
        fed = ((name, known[name]) for name in self._fed)
        have |= {name: one if isinstance(one, Tensor) else to_tensor(one).to(self._device) for name, one in fed}
        for op in self._ops:
            found = function_of(op)
            assert found is not None
            sizes = (tuple(known[op.outputs[0]].shape),) if found.sized else ()
            try:
                made = found.run(Call(op, tuple(have[name] if name else None for name in op.inputs), sizes))
            except Unsupported as reason:
                raise ModelError("Q646", f"gradients do not pass `{op.name}`: {reason}", HELP) from reason
            results = (made,) if isinstance(made, Tensor) else made
            have.update((name, one) for name, one in zip(op.outputs, results, strict=False) if name)
        return {name: have[name] for name in self.outputs}

    def check(self, feeds: Feeds) -> None:
        """Hold torch's outputs to those of the graph.

        Raises:
            ModelError: they are apart, ``Q646``.
        """
        known = self.known(feeds)
        with torch.no_grad():
            found = self.run(known, {})
        for name, tensor in found.items():
            wanted, got = known[name], to_array(tensor)
            most = float(np.abs(wanted).max(initial=0))
            near = got.shape == wanted.shape and float(np.abs(got - wanted).max(initial=0)) <= NEAR * most
            if not near:  # also where one is not a number
                raise ModelError("Q646", f"PyTorch computes `{name}` otherwise than the model", HELP)

    def pulled(self, known: Mapping[str, Array], weights: Mapping[str, Array]) -> dict[str, Array]:
        """What a weighted sum of outputs changes by: ``d sum(weights * outputs) / d constant``, by constant.

        Args:
            known: what `known` gave for the feeds.
            weights: by output, in its shape.
        """
        constants = {name: one.requires_grad_() for name, one in self.start().items()}
        outputs = self.run(known, constants)
        total = torch.stack([(outputs[name] * to_tensor(array)).sum() for name, array in weights.items()]).sum()
        gradients = torch.autograd.grad(total, list(constants.values()), allow_unused=True)
        found = zip(constants.items(), gradients, strict=True)
        return {
            name: to_array(torch.zeros_like(one) if gradient is None else gradient) for (name, one), gradient in found
        }


HELP = "measure by runs instead: leave `--by gradients` out"


def _is_run(graph: Graph, op: Op) -> bool:
    """Torch is to run an op: gradients may pass it, as it makes floats, or it tells which of two floats counts."""
    kinds = {graph.value(name).dtype for name in op.outputs if name}
    return any("float" in kind for kind in kinds) or (kinds == {"bool"} and function_of(op) is not None)


def _facts(array: Array) -> bytes:
    """What of a feed may tell the sizes of results, beside its own."""
    return b"" if np.issubdtype(array.dtype, np.floating) else array.tobytes()


def _needed(ops: Sequence[Op], outputs: Iterable[str]) -> set[str]:
    """The names of the ops that make values."""
    read, found = set(outputs), set[str]()
    for op in reversed(ops):
        if read.intersection(op.outputs):
            found.add(op.name)
            read.update(op.inputs)
    return found


def _behind(ops: Sequence[Op], constants: Iterable[str]) -> list[Op]:
    """The ops that constants change, in their order."""
    changed, found = set(constants), list[Op]()
    for op in ops:
        if changed.intersection(op.inputs):
            changed.update(name for name in op.outputs if name)
            found.append(op)
    return found


def _known(ops: Sequence[Op], constant: str) -> bool:
    """Torch runs all that a constant changes, and something is."""
    found = _behind(ops, [constant])
    return bool(found) and all(function_of(op) is not None for op in found)
