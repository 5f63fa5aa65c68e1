"""Configurations of NNCF: its JSON files, and arguments of `compress_weights` and `quantize`."""

import re
from typing import Any

from qcc.compiler.draft.settings import Settings
from qcc.dsl.syntax.literals import quote

NAME = "nncf"
MODES = {
    "int8": "int8 channel",
    "int8_sym": "int8 channel",
    "int8_asym": "int8 channel asym",
    "nf4": "nf4",
    "e2m1": "mxfp4",
    "mxfp4": "mxfp4",
    "nvfp4": "nvfp4",
    "fp4": "fp4",
    "fp8_e4m3": "fp8",
}
CALLS = ("compress_weights", "quantize", "quantize_with_accuracy_control")
WEIGHTS = {
    "mode",
    "ratio",
    "group_size",
    "ignored_scope",
    "awq",
    "scale_estimation",
    "gptq",
    "all_layers",
    "backup_mode",
}
QUANTIZE = {"preset", "fast_bias_correction", "model_type", "subset_size", "ignored_scope"}
KINDS = {
    "Conv": "conv",
    "MatMul": "linear",
    "Gemm": "linear",
    "Gather": "embedding",
    "Linear": "linear",
    "Conv2d": "conv",
}
DATA = "data is given to `qcc compile --data`"
CHOICE = "more bits for some are left to the allocator by `int4 | int8`, with a `budget { size <= ... }` of the file"
TRAINED = "it is learned while the model is trained"


def recognized(config: dict[str, Any]) -> bool:
    """Whether a configuration is one of these."""
    return (
        "compression" in config
        or len(WEIGHTS & set(config)) >= 2
        or len(QUANTIZE & set(config)) >= 2
        or any(name in config for name in CALLS)
    )


def translate(config: Settings) -> None:
    """Translate."""
    config.moot("inputs are the model's", "input_info", "model", "target_device")
    config.moot("how a model is trained or logged leaves no trace", "log_dir", "nncf_logging", "dataset", "epochs")
    config.moot(
        TRAINED, "optimizer", "batch_size", "workers", "pretrained", "num_classes", "multiprocessing_distributed"
    )
    if "compression" in config.found:
        value = config.take("compression")
        steps = value if isinstance(value, list) else [value]
        for at, step in enumerate(steps):
            path = "compression" if len(steps) == 1 else f"compression.{at}"
            _algorithm(Settings(step if isinstance(step, dict) else {}, config.draft, path))
        config.finish()
        return
    named = [name for name in CALLS if name in config.found]
    for name in named:
        (compressed if name == "compress_weights" else quantized)(config.inner(name))
    if not named:
        weights = len(WEIGHTS & set(config.found)) > len(QUANTIZE & set(config.found)) or "mode" in config.found
        (compressed if weights else quantized)(config)
    config.finish()


def compressed(given: Settings) -> None:
    """Arguments of `compress_weights`."""
    mode = str(given.take("mode", default="int8_asym")).rpartition(".")[2].lower()
    size = given.number("group_size", default=-1 if mode.startswith("int8") else 128)
    format = MODES.get(mode)
    if format is None and (found := re.fullmatch(r"int4_(sym|asym)", mode)):
        block = f"group {size:g}" if size > 0 else "channel"
        format = f"int4 {block}" + (" asym" if found[1] == "asym" else "")
    elif format in ("nf4", "fp4", "fp8") and size > 0:
        format = f"{format} group {size:g}"
    elif format == "mxfp4" and "group_size" in given.found and size != 32:
        given.draft.miss(given.place("group_size"), size, "blocks of mxfp4 are of 32")
    if format is None:
        given.draft.miss(given.place("mode"), mode, "there is no format like it")
        format = "int8 channel"
    backup = str(given.take("backup_mode", default="int8_asym")).rpartition(".")[2].lower()
    other = "float" if backup == "none" else MODES.get(backup)
    if other is None:
        given.draft.miss(given.place("backup_mode"), backup, "there is no format like it: int8_asym is taken")
        other = MODES["int8_asym"]
    ratio = given.number("ratio", default=1.0)
    if not 0 <= ratio <= 1:
        given.draft.miss(given.place("ratio"), ratio, "it is no share: 1 is taken")
    if 0 <= ratio < 1 and not mode.startswith("int8"):
        given.draft.miss(given.place("ratio"), ratio, CHOICE)
    given.draft.set("linear", weights=format)
    whole = given.flag("all_layers", default=False) or mode.startswith("int8")
    if not whole:
        given.draft.set("any[position == last]", weights=other)
    given.draft.set("embedding", weights=format if whole else other)
    if given.flag("gptq", default=False):
        given.draft.set("linear", rounding="gptq")
    if given.flag("awq", default=False):
        given.draft.set("linear", fold="awq")
    if given.flag("scale_estimation", default=False):
        given.miss("scale_estimation", "scales are searched for by the clip of `rounding` (`clip = mse`)")
    if given.flag("lora_correction", default=False):
        given.miss("lora_correction", "a low rank beside a weight is a format: `low_rank(...)`")
    given.moot(
        "what each layer loses is measured at the outputs, on all data", "sensitivity_metric", "subset_size", "dataset"
    )
    advanced = given.inner("advanced_parameters")
    advanced.moot("how it is worked on leaves no trace", "backend_params", "statistics_path")
    advanced.finish()
    _ignored(given)
    given.finish()


def quantized(given: Settings) -> None:
    """Arguments of `quantize`: weights and activations in 8 bits."""
    mode = str(given.take("mode", default="")).rpartition(".")[2].lower()
    if mode:
        given.miss("mode", "activations are rounded to int8")
    if given.take("max_drop") is not None:
        given.miss(
            "max_drop", "what may be lost is said by `budget { drop(accuracy) <= ... }`, for a score of your own"
        )
    given.moot(DATA, "drop_type", "validation_fn", "validation_dataset", "max_num_iterations")
    _quantized(given, weights=True)


def _quantized(given: Settings, *, weights: bool) -> None:
    if weights:
        for kind in ("linear", "conv"):
            given.draft.set(kind, weights="int8 channel", activations="static")
        given.draft.set("embedding", weights="int8 channel")
    given.moot("which zero points activations have is the form's choice", "preset", "overflow_fix")
    given.moot(DATA, "subset_size", "calibration_dataset", "initializer")
    if not given.flag("fast_bias_correction", default=True):
        given.miss("fast_bias_correction", "biases are not corrected")
    given.moot("what a layer is, the graph tells", "model_type")
    advanced = given.inner(
        "advanced_parameters" if "advanced_parameters" in given.found else "advanced_quantization_parameters"
    )
    alphas = advanced.inner("smooth_quant_alphas")
    smooth = alphas.number("matmul", default=advanced.number("smooth_quant_alpha", default=-1))
    alphas.finish()
    if smooth >= 0:
        given.draft.set("linear", fold=f"smoothquant({smooth:g})")
    advanced.finish()
    _ignored(given)
    given.finish()


def _algorithm(given: Settings) -> None:
    name = str(given.take("algorithm", default=""))
    if name == "quantization":
        _quantization(given)
    elif name in ("magnitude_sparsity", "rb_sparsity", "const_sparsity"):
        _sparsity(given)
    elif name == "filter_pruning":
        params = given.inner("params")
        share = params.number("pruning_target", default=0.5)
        given.draft.set("conv", structure=f"channels(keep = {100 * (1 - share):g}%)")
        params.moot(
            TRAINED, "schedule", "num_init_steps", "pruning_steps", "filter_importance", "interlayer_ranking_type"
        )
        params.finish()
        _ignored(given)
    else:
        given.draft.miss(given.place("algorithm"), name, "there is no pass like it")
    given.moot(TRAINED, "initializer", "compression_lr_multiplier", "export_to_onnx_standard_ops")
    given.finish()


def _quantization(given: Settings) -> None:
    weights, activations = given.inner("weights"), given.inner("activations")
    bits = weights.number("bits", default=8)
    block = "channel" if weights.flag("per_channel", default=True) else "tensor"
    loose = weights.take("mode", default="symmetric") == "asymmetric"
    format = f"int{bits:g} {block}{' asym' if loose else ''}"
    wide = activations.number("bits", default=8)
    if wide != 8:
        activations.miss("bits", "activations are rounded to 8 bits")
    activations.moot("which zero points activations have is the form's choice", "mode", "per_channel", "signed")
    for kind in ("linear", "conv"):
        given.draft.set(kind, weights=format, activations="static")
    given.draft.set("embedding", weights=format)
    for part in (weights, activations):
        _ignored(part)
        part.finish()
    _quantized(given, weights=False)


def _sparsity(given: Settings) -> None:
    params = given.inner("params")
    level = params.number("sparsity_target", "sparsity_level", default=0.5)
    for kind in ("linear", "conv"):
        given.draft.set(kind, sparsity=f"unstructured(keep = {100 * (1 - level):g}%)")
    params.moot(TRAINED, *params.found)
    params.finish()
    _ignored(given)


def _ignored(given: Settings) -> None:
    value = given.found.get("ignored_scope", given.found.get("ignored_scopes"))
    if not isinstance(value, dict):
        for name in given.names("ignored_scope", "ignored_scopes"):
            _scope(given, name)
        return
    given.take("ignored_scope", "ignored_scopes")
    inner = Settings(value, given.draft, given.place("ignored_scope"))
    for name in inner.names("names"):
        given.draft.keep_named(name)
    for pattern in inner.names("patterns"):
        given.draft.keep(_expression(pattern))
    for op in inner.names("types"):
        if op in KINDS:
            given.draft.keep(KINDS[op])
        else:
            given.draft.miss(inner.place("types"), op, "only what layers with weights become is said")
    inner.moot("what is not there is told anyway", "validate")
    inner.finish()


def _expression(pattern: str) -> str:
    """Layers by a regular expression; a slash ends one in a policy, unless it is escaped already."""
    escaped = re.sub(r"\\.|/", lambda found: "\\/" if found[0] == "/" else found[0], pattern)
    return f"any[name ~ /{escaped}/]"


def _scope(given: Settings, name: str) -> None:
    """A scope of a module: its path between slashes, with classes in brackets, or an expression behind `{re}`."""
    if name.startswith("{re}"):
        given.draft.keep(_expression(name[4:]))
        return
    parts = re.findall(r"\[([^\]]+)\]", name)
    given.draft.keep(
        f"any[name ~ {quote('*' + '*'.join(parts) + '*')}]" if parts else f"any[name ~ {quote(f'*{name}*')}]"
    )
