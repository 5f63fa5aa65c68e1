"""Configurations of NVIDIA's Model Optimizer: `quant_cfg` by patterns of quantizers, and its algorithm."""

import re
from typing import Any

from qcc.compiler.draft.settings import Settings, number
from qcc.dsl.syntax.literals import quote

NAME = "modelopt"
OPS = {"linear": {"MatMul", "Gemm"}, "conv": {"Conv"}}
WEIGHTS, INPUTS = "weight_quantizer", "input_quantizer"


def recognized(config: dict[str, Any]) -> bool:
    """Whether a configuration is one of these."""
    return "quant_cfg" in config or "quantize_mode" in config


def translate(config: Settings) -> None:
    """Translate: patterns in order, the later ones over the earlier, or arguments of its quantizer of ONNX files."""
    if "quantize_mode" in config.found:
        translate_onnx(config)
        config.finish()
        return
    patterns = config.inner("quant_cfg")
    for pattern in list(patterns.found):
        _pattern(patterns, pattern)
    patterns.finish()
    _algorithm(config)
    config.finish()


def translate_onnx(given: Settings) -> None:
    """Arguments of `modelopt.onnx.quantization`, which Olive passes on."""
    mode = str(given.take("quantize_mode", "precision", default="int8")).lower()
    given.take("algorithm")
    method = str(given.take("calibration_method", default=given.found.get("algorithm", ""))).lower()
    if mode == "int4":
        size = given.number("block_size", "int4_block_size", default=128)
        given.draft.set("linear", weights=f"int4 group {size:g}", rounding="nearest")
        if method in ("awq_lite", "awq"):
            given.draft.set("linear", fold="awq")
        elif method == "awq_clip":
            reason = "ranges are searched for by the error of weights (`nearest(clip = mse)`), not of products"
            given.draft.miss(given.place("calibration_method"), method, reason)
    elif mode in ("int8", "fp8"):
        named, left_out = given.names("op_types_to_quantize"), set(given.names("op_types_to_exclude"))
        for kind, ops in OPS.items():
            if ops & left_out or (named and not ops & set(named)):
                continue
            given.draft.set(kind, weights=f"{mode} channel")
            if mode == "int8":
                given.draft.set(kind, activations="static")  # `entropy` has one range, too
        if mode == "fp8":
            given.draft.miss(
                given.place("quantize_mode"), mode, "activations are rounded to int8, not to fp8: none are"
            )
    else:
        given.draft.miss(given.place("quantize_mode"), mode, "there is no format like it")
    given.take("op_types_to_quantize", "op_types_to_exclude")
    for pattern in given.names("nodes_to_exclude"):
        given.draft.keep(f"any[name ~ /{re.sub(r'/', '.', pattern)}/]")
    if given.take("high_precision_dtype") not in (None, "fp32"):
        given.miss(
            "high_precision_dtype", "what is not rounded stays as it is; `graph fp16` computes it in half precision"
        )
    given.moot("files are given to `qcc compile`", "onnx_path", "output_path", "log_level", "log_file", "simplify")
    given.moot("data is given to `qcc compile --data`", "calibration_data", "calibration_data_path", "calibration_eps")
    given.moot("data is given to `qcc compile --data`", "calibration_shapes", "calibration_providers", "tokenizer_dir")
    given.moot("data is given to `qcc compile --data`", "calibration_params", "use_random_calibration_data")
    given.moot("how it is worked on leaves no trace", "calibrate_per_node", "keep_intermediate_files", "dq_only")


def _pattern(patterns: Settings, pattern: str) -> None:
    value = patterns.found[pattern]
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        patterns.miss(pattern, "one quantizer behind another: `stack(...)` says so of weights")
        return
    if not isinstance(value, dict):
        patterns.miss(pattern)
        return
    given = patterns.inner(pattern)
    off = not given.flag("enable", default=True)
    if pattern == "default":
        if not off:
            given.miss("enable", "what no rule says stays as it is")
        given.moot("what is not said stays as it is", *given.found)
    elif pattern.startswith("nn."):
        _class(patterns, pattern, given, off)
    elif WEIGHTS in pattern:
        _weights(given, _selector(pattern.partition(WEIGHTS)[0]), off)
    elif INPUTS in pattern:
        _inputs(given, _selector(pattern.partition(INPUTS)[0]), off)
    elif off and not re.search(r"(output|bmm|softmax)", pattern):
        given.draft.keep(_selector(pattern))
        given.moot("what is not rounded stays as it is", *given.found)
    elif off:
        given.moot("values that no layer with a weight reads stay as they are", *given.found)
    else:
        given.draft.miss(given.path, given.found, "only weights and what their layers read are rounded")
        given.taken |= set(given.found)
    given.finish()


def _class(patterns: Settings, pattern: str, given: Settings, off: bool) -> None:
    """A class of modules: norms and the like have no weight that is stored otherwise."""
    kinds = {"nn.Linear": "linear", "nn.Conv2d": "conv", "nn.Conv1d": "conv", "nn.Embedding": "embedding"}
    nested = all(isinstance(one, dict) and one.get("enable") is False for one in given.found.values())
    if pattern in kinds and (off or nested):
        given.draft.keep(kinds[pattern])
    elif not off and not nested:
        given.draft.miss(patterns.place(pattern), given.found, "only layers with weights are stored otherwise")
        given.taken |= set(given.found)
    given.moot("what is not rounded stays as it is", *given.found)


def _selector(pattern: str) -> str:
    """Layers by the part of a pattern that names modules."""
    name = pattern.strip("*.")
    return "linear, conv" if not name else f"any[name ~ {quote(f'*{name}*')}]"


def _weights(given: Settings, selector: str, off: bool) -> None:
    if off:
        given.draft.keep(selector)
        given.moot("what is not rounded stays as it is", *given.found)
        return
    blocks = given.inner("block_sizes")
    size = blocks.optional_number("-1", "-2")
    scale = blocks.take("scale_bits")
    blocks.moot("weights are rounded once", "type")
    blocks.finish()
    bits = given.take("num_bits", default=8)
    given.take("axis")
    axis = given.found.get("axis")
    block = f"group {size:g}" if size else "tensor" if axis is None and "axis" in given.found else "channel"
    text = re.sub(r"[\s()\[\]]", "", str(bits))
    format = {"4,3": f"fp8 {block}", "2,1": f"fp4 {block}", "5,2": f"fp8 e5m2 {block}"}.get(text)
    if text == "2,1" and size == 16 and scale is not None:
        format = "nvfp4"
    elif text == "2,1" and size == 32 and re.sub(r"\D", "", str(scale)) == "80":
        format = "mxfp4"
    elif number(bits) is not None and 1 <= float(bits) <= 8:
        format = f"int{float(bits):g} {block}"
    elif scale is not None and text != "2,1":
        given.draft.miss(f"{given.path}.block_sizes.scale_bits", scale, "scales are of 16 bits here")
    if format is None:
        given.draft.miss(given.place("num_bits"), bits, "there is no format like it")
        return
    given.draft.set(selector, weights=format)
    given.moot("weights are rounded once", "type", "calibrator", "fake_quant")


def _inputs(given: Settings, selector: str, off: bool) -> None:
    if off:
        given.moot("what is not rounded stays as it is", *given.found)
        return
    bits = given.take("num_bits", default=8)
    dynamic = given.take("type", default="static") == "dynamic"
    if bits != 8 or "block_sizes" in given.found:
        given.taken |= set(given.found)
        given.draft.miss(
            given.path, given.found, "activations are rounded to int8, by one step for each token or layer"
        )
        return
    given.take("axis")
    given.moot("ranges are found by `static(range = ...)`", "calibrator", "fake_quant")
    given.draft.set(selector, activations="dynamic" if dynamic else "static")


def _algorithm(config: Settings) -> None:
    value = config.take("algorithm")
    given = Settings(value if isinstance(value, dict) else {"method": value}, config.draft, "algorithm")
    method = str(given.take("method", default="max"))
    if method in ("awq_lite", "awq_full", "awq_clip", "awq"):
        config.draft.set("linear", fold="awq")
        given.moot("the search has a grid of its own", "alpha_step", "max_co_batch_size", "debug")
    elif method == "smoothquant":
        alpha = given.number("alpha", default=0.5)
        config.draft.set("linear", fold=f"smoothquant({alpha:g})")
    elif method in ("svdquant",):
        given.miss("method", "a low rank beside a weight is a format: `low_rank(...)`")
    elif method not in ("max", "None", "mse"):
        given.miss("method", "there is no pass like it")
    given.finish()
