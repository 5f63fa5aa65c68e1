"""The weights of recurrent modules of PyTorch: each layer's and direction's own, by its path."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import qcc
from qcc.ir.fx.graph import FxGraph
from qcc.ir.graph.ops import Kind

POLICY = "qpolicy 1\nrule recurrent { weights = int8 channel }\nverify { cosine >= 0.99 }"


class Tagger(nn.Module):
    """A recurrent module between a product and the mean of its outputs, and its last state beside them."""

    def __init__(self, made: nn.RNNBase) -> None:
        super().__init__()
        self.enter, self.run = nn.Linear(6, made.input_size), made

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        found, state = self.run(self.enter(tokens))
        return found.mean(1), state[0] if isinstance(state, tuple) else state


MADE: dict[str, Callable[[], nn.RNNBase]] = {
    "lstm": lambda: nn.LSTM(8, 16, 2, batch_first=True, bidirectional=True),
    "lstm without biases": lambda: nn.LSTM(8, 16, bias=False),
    "lstm with a projection": lambda: nn.LSTM(16, 32, 2, proj_size=16),
    "gru": lambda: nn.GRU(8, 16, 2, dropout=0.5),
    "rnn": lambda: nn.RNN(8, 32, nonlinearity="relu"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_weights_are_found_and_stored_in_few_bits(name: str) -> None:
    torch.manual_seed(1)
    module, tokens = Tagger(MADE[name]()).eval(), torch.randn(3, 5, 6)
    wanted = module(tokens)
    paths = [f"run.{path}" for path, one in module.run.named_parameters() if one.dim() == 2]
    result = qcc.compile(module, POLICY, example_inputs=(tokens,))
    assert sorted(row.name for row in result.layers if row.kinds == ("recurrent",)) == sorted(paths)
    held = result.model.state_dict()
    assert all(held[f"{path}.codes"].dtype == torch.uint8 for path in paths)
    for one, other in zip(result.model(tokens), wanted, strict=True):
        np.testing.assert_allclose(one.detach(), other.detach(), atol=0.02)  # 8 bits of sums below one


def test_what_a_weight_is_multiplied_with_is_told_where_it_is_a_value() -> None:
    module = Tagger(MADE["lstm"]()).eval()
    graph = FxGraph.export(module, (torch.randn(3, 5, 6),))
    found = {one.name: one.layers[0] for one in graph.weights() if one.kinds == {Kind.RECURRENT}}
    entered = next(one.layers[0].output for one in graph.weights() if one.name == "enter")
    first = {"run.weight_ih_l0", "run.weight_ih_l0_reverse"}
    assert {name for name, layer in found.items() if layer.input == entered} == first
    assert {layer.input for name, layer in found.items() if name not in first} == {""}
    outputs = {name for op in graph.ops() for name in op.outputs}
    assert {layer.output for layer in found.values()} <= outputs
