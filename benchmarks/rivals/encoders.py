"""A sentence encoder of BERT's kind in CTranslate2: its weights are taken out of the ONNX model, by their names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rivals.runtimes import Given, MissingError, Rival, Run
from qcc.compiler.files.open_model import open_model
from qcc.ir.graph.graph import Graph

EMBEDDINGS, LAYER = "model.embeddings.", "model.encoder.layer."
CHANNELS = 32  # of a head of MiniLM
NAMES = ("input_ids", "attention_mask", "token_type_ids")


def ctranslate2_int8(given: Given) -> Rival:
    """CTranslate2, int8; what its encoder gives is averaged over tokens and normed by numpy."""
    try:
        import ctranslate2
    except ImportError:
        raise MissingError("pip install ctranslate2") from None
    graph = open_model(given.model).graph
    folder = given.folder / "ctranslate2"
    _Converter(graph).save(folder)

    def start(threads: int) -> Run:
        encoder = ctranslate2.Encoder(str(folder), compute_type="int8", intra_threads=threads, inter_threads=1)

        def run(feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            ids, mask, kinds = (feeds[name] for name in NAMES)
            lengths = mask.sum(axis=1)
            tokens = [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]
            sorts = [row[:length].tolist() for row, length in zip(kinds, lengths, strict=True)]
            states = np.array(encoder.forward_batch(tokens, token_type_ids=sorts).last_hidden_state)
            kept = mask[:, : states.shape[1], None].astype(np.float32)
            mean = (states * kept).sum(axis=1) / kept.sum(axis=1)
            return [mean / np.linalg.norm(mean, axis=1, keepdims=True)]

        return run

    return Rival(sum(one.stat().st_size for one in folder.iterdir()), start)


class _Converter:
    """Fills CTranslate2's description of an encoder from a graph's constants."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.matrices = {weight.name: graph.matrix(weight) for weight in graph.weights()}
        self.layers = sum(name.endswith("attention.self.query") for name in self.matrices)
        if not self.layers or f"{EMBEDDINGS}word_embeddings" not in self.matrices:
            raise MissingError("takes encoders of BERT's kind, whose layers have its names")

    def save(self, folder: Path) -> None:
        """Write the model in int8."""
        from ctranslate2.specs import common_spec, transformer_spec

        width = self.matrices[f"{LAYER}0.attention.self.query"].shape[0]
        encoder = transformer_spec.TransformerEncoderSpec(
            self.layers,
            width // CHANNELS,
            pre_norm=False,
            activation=common_spec.Activation.GELU,
            layernorm_embedding=True,
            num_source_embeddings=2,
            embeddings_merge=common_spec.EmbeddingsMerge.ADD,
        )
        encoder.scale_embeddings = False
        for at, name in enumerate(("word_embeddings", "token_type_embeddings")):
            encoder.embeddings[at].weight = self._matrix(EMBEDDINGS + name)
        encoder.position_encodings.encodings = self._matrix(f"{EMBEDDINGS}position_embeddings")
        self._norm(encoder.layernorm_embedding, f"{EMBEDDINGS}LayerNorm")
        for at, layer in enumerate(encoder.layer):
            self._layer(layer, f"{LAYER}{at}.")
        model = transformer_spec.TransformerEncoderModelSpec(encoder)
        words = self.matrices[f"{EMBEDDINGS}word_embeddings"].shape[0]
        model.register_vocabulary([str(word) for word in range(words)])
        model.config.unk_token = "0"
        model.validate()
        model.optimize(quantization="int8")
        folder.mkdir()
        model.save(str(folder))

    def _layer(self, layer: Any, start: str) -> None:
        parts = [f"{start}attention.self.{name}" for name in ("query", "key", "value")]
        first = layer.self_attention.linear[0]
        first.weight = np.concatenate([self._matrix(name) for name in parts])
        first.bias = np.concatenate([self._vector(f"{name}.bias") for name in parts])
        self._linear(layer.self_attention.linear[1], f"{start}attention.output.dense")
        self._norm(layer.self_attention.layer_norm, f"{start}attention.output.LayerNorm")
        self._linear(layer.ffn.linear_0, f"{start}intermediate.dense")
        self._linear(layer.ffn.linear_1, f"{start}output.dense")
        self._norm(layer.ffn.layer_norm, f"{start}output.LayerNorm")

    def _linear(self, to: Any, name: str) -> None:
        to.weight, to.bias = self._matrix(name), self._vector(f"{name}.bias")

    def _norm(self, to: Any, name: str) -> None:
        to.gamma, to.beta = self._vector(f"{name}.weight"), self._vector(f"{name}.bias")

    def _matrix(self, name: str) -> np.ndarray:
        return np.array(self.matrices[name], np.float32)

    def _vector(self, name: str) -> np.ndarray:
        return np.array(self.graph.constant(name), np.float32)
