"""Small transformers, of the library of that name and our own, and recurrent models; see `export`.

Imported only when models are built: it needs torch.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

TOKENS, SAMPLES = 16, 800
SHAPES: dict[str, tuple[int, ...]] = {
    "input_ids": (TOKENS,),
    "attention_mask": (TOKENS,),
    "token_type_ids": (TOKENS,),
    "decoder_input_ids": (TOKENS,),
    "input_values": (SAMPLES,),
}


@dataclass(frozen=True)
class Spec:
    """A model of the library and what to ask of it."""

    kind: str
    """Name of the class."""
    options: dict[str, Any]
    """Of its configuration."""
    inputs: str = "input_ids"
    """Names, separated by blanks."""
    outputs: str = "logits"
    """Names, separated by blanks."""
    attention: str = "sdpa"
    part: str = ""
    """The submodule to take."""
    experts: str = ""
    """How a mixture of experts is computed."""


def text(width: int, heads: int = 4, layers: int = 2, **more: Any) -> dict[str, Any]:
    """Options most text models share."""
    names = {"hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": layers, "pad_token_id": 0}
    return {**names, "vocab_size": 203, "intermediate_size": 104, "max_position_embeddings": 64, **more}


def image(width: int, heads: int = 4, size: int = 32, **more: Any) -> dict[str, Any]:
    """Options most vision transformers share."""
    names = {"hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": 2, "image_size": size}
    return {**names, "patch_size": 8, "intermediate_size": 104, "mlp_ratio": 2, **more}


def encdec(width: int, **more: Any) -> dict[str, Any]:
    """Options of the encoder-decoder family of BART."""
    sides = [(f"{side}_{name}", value) for side in ("encoder", "decoder") for name, value in SIDE.items()]
    return {**dict(sides), "d_model": width, "vocab_size": 203, "max_position_embeddings": 64, **more}


SIDE = {"layers": 2, "attention_heads": 4, "ffn_dim": 104}
GPT2 = {"n_embd": 48, "n_head": 4, "n_layer": 2, "n_positions": 64, "vocab_size": 203}
MPT = {"n_heads": 4, "n_layers": 2, "vocab_size": 203, "max_seq_len": 64}
STAGES = {"hidden_sizes": [24, 40, 56, 72], "depths": [1, 2, 1, 1], "num_channels": 3}
DECODERS = {
    "llama": Spec("LlamaForCausalLM", text(64, num_key_value_heads=2), "input_ids attention_mask"),
    "llama-mha": Spec("LlamaForCausalLM", text(48, tie_word_embeddings=True), attention="eager"),
    "qwen2": Spec("Qwen2ForCausalLM", text(64, num_key_value_heads=2)),
    "qwen3": Spec("Qwen3ForCausalLM", text(64, num_key_value_heads=2, head_dim=24), attention="eager"),
    "mistral": Spec("MistralForCausalLM", text(72, 6, num_key_value_heads=3, sliding_window=8)),
    "gemma": Spec("GemmaForCausalLM", text(48, num_key_value_heads=1, head_dim=16)),
    "gemma2": Spec("Gemma2ForCausalLM", text(56, num_key_value_heads=2, head_dim=16), attention="eager"),
    "gemma3": Spec("Gemma3ForCausalLM", text(56, num_key_value_heads=2, head_dim=16)),
    "phi": Spec("PhiForCausalLM", text(64, partial_rotary_factor=0.5)),
    "phi3": Spec("Phi3ForCausalLM", text(64, num_key_value_heads=2), attention="eager"),
    "gpt-neox": Spec("GPTNeoXForCausalLM", text(56), "input_ids attention_mask", attention="eager"),
    "gpt2": Spec("GPT2LMHeadModel", GPT2, "input_ids attention_mask"),
    "gpt-neo": Spec(
        "GPTNeoForCausalLM",
        {**text(48), "num_heads": 4, "num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 6},
        attention="eager",
    ),
    "gptj": Spec("GPTJForCausalLM", {**GPT2, "rotary_dim": 8}, attention="eager"),
    "gpt-bigcode": Spec("GPTBigCodeForCausalLM", {**GPT2, "n_embd": 56}),
    "opt": Spec("OPTForCausalLM", text(48, ffn_dim=104, word_embed_proj_dim=32), "input_ids attention_mask"),
    "bloom": Spec("BloomForCausalLM", {**text(48), "n_head": 4, "n_layer": 2}, attention="eager"),
    "mpt": Spec("MptForCausalLM", {"d_model": 48, **MPT}, attention="eager"),
    "falcon": Spec("FalconForCausalLM", text(64), "input_ids attention_mask"),
    "falcon-new": Spec("FalconForCausalLM", text(64, num_kv_heads=2, new_decoder_architecture=True)),
    "stablelm": Spec("StableLmForCausalLM", text(64, num_key_value_heads=2, use_qkv_bias=True)),
    "starcoder2": Spec("Starcoder2ForCausalLM", text(64, num_key_value_heads=2), attention="eager"),
    "olmo2": Spec("Olmo2ForCausalLM", text(64, num_key_value_heads=2)),
    "cohere": Spec("CohereForCausalLM", text(64, num_key_value_heads=2, use_qk_norm=True)),
    "granite": Spec("GraniteForCausalLM", text(64, num_key_value_heads=2, residual_multiplier=0.5)),
    "mixtral": Spec("MixtralForCausalLM", text(48, num_key_value_heads=2, num_local_experts=4), experts="batched_mm"),
    "mamba": Spec("MambaForCausalLM", {**text(48), "state_size": 8, "time_step_rank": 4}, attention="eager"),
}
XLNET = {"d_model": 48, "n_head": 4, "n_layer": 2, "d_inner": 96, "vocab_size": 203}
PAIR = "input_ids attention_mask"
LAST = "last_hidden_state"
ENCODERS = {
    "bert": Spec("BertForSequenceClassification", text(72, 6), PAIR + " token_type_ids"),
    "bert-pooler": Spec("BertModel", text(48), PAIR, "last_hidden_state pooler_output", "eager"),
    "distilbert": Spec(
        "DistilBertForMaskedLM",
        {"dim": 48, "n_heads": 4, "n_layers": 2, "hidden_dim": 104, "vocab_size": 203, "max_position_embeddings": 64},
        PAIR,
    ),
    "roberta": Spec("RobertaForMaskedLM", text(56), PAIR, attention="eager"),
    "albert": Spec("AlbertModel", text(64, layers=3, embedding_size=24), PAIR, LAST),
    "electra": Spec("ElectraForPreTraining", text(64, embedding_size=40), PAIR),
    "deberta-v2": Spec(
        "DebertaV2Model",
        text(64, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8, share_att_key=True),
        PAIR,
        LAST,
        "eager",
    ),
    "mpnet": Spec("MPNetModel", text(48), PAIR, LAST, "eager"),
    "mobilebert": Spec("MobileBertModel", text(64, embedding_size=32, intra_bottleneck_size=32), PAIR, LAST, "eager"),
    "squeezebert": Spec("SqueezeBertModel", text(64, embedding_size=64), PAIR, LAST, "eager"),
    "modernbert": Spec("ModernBertForMaskedLM", text(64, layers=4, local_attention=6), PAIR),
    "convbert": Spec("ConvBertModel", text(64, embedding_size=32, conv_kernel_size=5), PAIR, LAST, "eager"),
    "roformer": Spec("RoFormerModel", text(64, embedding_size=32), PAIR, LAST, "eager"),
    "esm": Spec("EsmModel", text(64, mask_token_id=1, position_embedding_type="rotary"), PAIR, LAST, "eager"),
    "fnet": Spec("FNetModel", text(48), "input_ids", LAST, "eager"),
    "xlnet": Spec(
        "XLNetModel",
        XLNET,
        "input_ids",
        LAST,
        "eager",
    ),
    "t5-encoder": Spec("T5EncoderModel", {**text(48), "d_model": 48, "d_kv": 12, "d_ff": 96}, PAIR, LAST, "eager"),
    "t5": Spec(
        "T5ForConditionalGeneration",
        {"d_model": 48, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4, "vocab_size": 203}
        | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        "input_ids decoder_input_ids",
        attention="eager",
    ),
    "bart-encoder": Spec("BartModel", encdec(48), PAIR, LAST, part="encoder"),
    "bart": Spec("BartForConditionalGeneration", encdec(56), "input_ids decoder_input_ids"),
    "marian": Spec("MarianMTModel", encdec(48, pad_token_id=0), "input_ids decoder_input_ids", attention="eager"),
}
PIXELS = "pixel_values"
MASKED = {"num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 104}
VISION = {
    "vit": Spec("ViTForImageClassification", image(60), PIXELS),
    "deit": Spec("DeiTForImageClassificationWithTeacher", image(48), PIXELS, attention="eager"),
    "beit": Spec("BeitModel", image(48, use_relative_position_bias=True), PIXELS, LAST, "eager"),
    "dinov2": Spec("Dinov2Model", image(48), PIXELS, LAST),
    "dinov2-swiglu": Spec("Dinov2Model", image(48, use_swiglu_ffn=True), PIXELS, LAST, "eager"),
    "swin": Spec(
        "SwinModel",
        {"image_size": 32, "patch_size": 2, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        PIXELS,
        LAST,
        "eager",
    ),
    "swinv2": Spec(
        "Swinv2Model",
        {"image_size": 32, "patch_size": 2, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        PIXELS,
        LAST,
        "eager",
    ),
    "segformer": Spec(
        "SegformerForSemanticSegmentation",
        {"hidden_sizes": [16, 32, 40, 48], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]}
        | {"decoder_hidden_size": 40, "image_size": 64},
        PIXELS,
        attention="eager",
    ),
    "pvt-v2": Spec(
        "PvtV2Model",
        {"hidden_sizes": [16, 32, 40, 48], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]}
        | {"image_size": 64},
        PIXELS,
        LAST,
        "eager",
    ),
    "poolformer": Spec("PoolFormerModel", {"hidden_sizes": [16, 24, 40, 48], "depths": [1] * 4}, PIXELS, LAST, "eager"),
    "convnext": Spec("ConvNextForImageClassification", STAGES, PIXELS, attention="eager"),
    "convnextv2": Spec("ConvNextV2ForImageClassification", STAGES, PIXELS, attention="eager"),
    "mobilenet-v1": Spec("MobileNetV1Model", {"depth_multiplier": 0.125}, PIXELS, LAST, "eager"),
    "mobilenet-v2": Spec("MobileNetV2ForImageClassification", {"depth_multiplier": 0.25}, PIXELS, attention="eager"),
    "regnet": Spec(
        "RegNetForImageClassification", {**STAGES, "embedding_size": 16, "groups_width": 8}, PIXELS, attention="eager"
    ),
    "resnet": Spec("ResNetForImageClassification", {**STAGES, "embedding_size": 24}, PIXELS, attention="eager"),
    "resnet-basic": Spec(
        "ResNetForImageClassification",
        {**STAGES, "embedding_size": 24, "layer_type": "basic"},
        PIXELS,
        attention="eager",
    ),
    "efficientnet": Spec(
        "EfficientNetForImageClassification",
        {"width_coefficient": 0.25, "depth_coefficient": 0.6, "image_size": 64, "hidden_dim": 320},
        PIXELS,
        attention="eager",
    ),
    "mobilevit": Spec(
        "MobileViTModel",
        {"hidden_sizes": [36, 48, 60], "neck_hidden_sizes": [8, 12, 16, 20, 24, 28, 72], "image_size": 64}
        | {"output_stride": 16},
        PIXELS,
        LAST,
        "eager",
    ),
    "levit": Spec(
        "LevitModel",
        {"hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "depths": [1, 1, 1], "key_dim": [8, 8, 8]}
        | {"image_size": 128},
        PIXELS,
        LAST,
        "eager",
    ),
    "cvt": Spec(
        "CvtModel", {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 4], "depth": [1, 2, 3]}, PIXELS, LAST, "eager"
    ),
    "siglip-vision": Spec("SiglipVisionModel", image(48), PIXELS, "last_hidden_state pooler_output"),
    "clip": Spec(
        "CLIPModel",
        {"text_config": text(48, eos_token_id=2), "vision_config": image(60), "projection_dim": 40},
        "input_ids pixel_values",
        "text_embeds image_embeds",
    ),
    "whisper-encoder": Spec(
        "WhisperModel",
        encdec(48, num_mel_bins=20, max_source_positions=32, max_target_positions=64, pad_token_id=0),
        "input_features",
        LAST,
        part="encoder",
    ),
    "whisper": Spec(
        "WhisperForConditionalGeneration",
        encdec(48, num_mel_bins=20, max_source_positions=32, max_target_positions=64, pad_token_id=0),
        "input_features decoder_input_ids",
        attention="eager",
    ),
    "wav2vec2": Spec(
        "Wav2Vec2Model",
        text(48, conv_dim=[24, 24, 32], conv_kernel=[10, 3, 3], conv_stride=[5, 2, 2], num_feat_extract_layers=3)
        | {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
        "input_values",
        LAST,
        "eager",
    ),
    "hubert": Spec(
        "HubertModel",
        text(48, conv_dim=[24, 32], conv_kernel=[10, 3], conv_stride=[5, 2], num_feat_extract_layers=2)
        | {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "feat_extract_norm": "layer"}
        | {"do_stable_layer_norm": True, "conv_bias": True},
        "input_values",
        LAST,
    ),
}
MODELS = {**DECODERS, **ENCODERS, **VISION}


class Plain(nn.Module):
    """A model of the library with positional arguments and tensors for results."""

    def __init__(self, model: nn.Module, spec: Spec) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs = model, spec.inputs.split(), spec.outputs.split()

    def forward(self, a: Tensor, b: Tensor | None = None, c: Tensor | None = None) -> tuple[Tensor, ...]:
        """The outputs that were asked for."""
        result = self.model(**dict(zip(self.inputs, (a, b, c), strict=False)))
        return tuple(result[name] for name in self.outputs)


def build(spec: Spec) -> tuple[nn.Module, dict[str, tuple[int, ...]]]:
    """The model, and the shapes of its inputs without the batch."""
    kind = getattr(importlib.import_module("transformers"), spec.kind)
    config = kind.config_class(**spec.options)
    config.use_cache = False
    experts = {"experts_implementation": spec.experts} if spec.experts else {}
    model = kind._from_config(config, attn_implementation=spec.attention, **experts)
    size = {**spec.options, **spec.options.get("vision_config", {})}.get("image_size", 64)
    mel = getattr(config, "num_mel_bins", 0)
    shapes = {**SHAPES, "pixel_values": (3, size, size), "input_features": (mel, 64)}
    part = model.get_submodule(spec.part) if spec.part else model
    return Plain(part, spec), {name: shapes[name] for name in spec.inputs.split()}


class VitBlock(nn.Module):
    """timm's ViT block: one projection to q, k and v, split by a reshape and a permutation; layer scale."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.scale1, self.scale2 = (nn.Parameter(torch.full((width,), 1e-6)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Attention, then the feed-forward layer, each scaled and added."""
        batch, places, width = x.shape
        parts = self.qkv(self.norm1(x)).reshape(batch, places, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.scale1 * self.proj(y.transpose(1, 2).reshape(batch, places, width))
        mixed: Tensor = x + self.scale2 * self.mlp(self.norm2(x))
        return mixed


class Patches(nn.Module):
    """Patches of an image as a sequence with learnt positions."""

    def __init__(self, width: int, patch: int, places: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, width, patch, patch)
        self.place = nn.Parameter(torch.zeros(1, places, width))

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, places, width]``."""
        places: Tensor = self.project(x).flatten(2).transpose(1, 2)
        return places + self.place


class MixerBlock(nn.Module):
    """MLP-Mixer: one feed-forward layer over the places, one over the channels."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.over_places = nn.Sequential(nn.Linear(places, 40), nn.GELU(), nn.Linear(40, places))
        self.over_width = nn.Sequential(nn.Linear(width, 80), nn.GELU(), nn.Linear(80, width))

    def forward(self, x: Tensor) -> Tensor:
        """Mix, add, mix, add."""
        x = x + self.over_places(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        mixed: Tensor = x + self.over_width(self.norm2(x))
        return mixed


class Over(nn.Module):
    """A body, then the mean or the last step over the places, then a linear layer."""

    def __init__(self, body: nn.Module, width: int, last: bool = False) -> None:
        super().__init__()
        self.body, self.last, self.head = body, last, nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[batch, 10]``."""
        y = self.body(x)
        y = y[0] if isinstance(y, tuple) else y  # a recurrent layer also gives its state
        logits: Tensor = self.head(y[:, -1] if self.last else y.mean(1))
        return logits


def timm_vit() -> nn.Module:
    """timm's vision transformer."""
    return Over(nn.Sequential(Patches(60, 8, 16), VitBlock(60, 3), VitBlock(60, 3), nn.LayerNorm(60)), 60)


def mlp_mixer() -> nn.Module:
    """MLP-Mixer."""
    return Over(nn.Sequential(Patches(56, 8, 16), MixerBlock(16, 56), MixerBlock(16, 56), nn.LayerNorm(56)), 56)


def gru() -> nn.Module:
    """A recurrent classifier over ``[batch, 12, 24]``."""
    return Over(nn.GRU(24, 40, num_layers=2, batch_first=True), 40, last=True)


def lstm() -> nn.Module:
    """A bidirectional recurrent classifier over ``[batch, 12, 24]``."""
    return Over(nn.LSTM(24, 36, num_layers=2, batch_first=True, bidirectional=True), 72)


OWN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "timm-vit": (timm_vit, (3, 32, 32)),
    "mlp-mixer": (mlp_mixer, (3, 32, 32)),
    "gru": (gru, (12, 24)),
    "lstm": (lstm, (12, 24)),
}
"""The name of a model: its builder, and the shape of its input without the batch."""
