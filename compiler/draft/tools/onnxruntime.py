"""Arguments of ONNX Runtime's `quantize_static`, `quantize_dynamic` and `MatMulNBitsQuantizer`."""

import re
from typing import Any

from qcc.compiler.draft.settings import Settings, number
from qcc.dsl.syntax.literals import quote

NAME = "onnxruntime"
FUNCTIONS = (
    "quantize_static", "quantize_dynamic", "MatMulNBitsQuantizer", "matmul_nbits_quantizer", "MatMul4BitsQuantizer",
)  # fmt: skip
KNOWN = {
    "weight_type",
    "quant_format",
    "per_channel",
    "reduce_range",
    "op_types_to_quantize",
    "calibrate_method",
    "extra_options",
}
KINDS = {
    "MatMul": "linear", "Gemm": "linear", "Conv": "conv", "ConvTranspose": "conv", "Gather": "embedding",
    "EmbedLayerNormalization": "embedding", "LSTM": "recurrent", "GRU": "recurrent",
}  # fmt: skip
RANGES = {"minmax": "absmax", "entropy": "absmax", "percentile": "percentile"}
"""By calibration methods; `Entropy`, with 128 bins for 128 codes, has one range to choose from, the largest numbers."""
FILES = "files are given to `qcc compile`"
FORM = "how codes lie in the file is chosen by what runs fastest"


def recognized(config: dict[str, Any]) -> bool:
    """Whether a configuration is one of these."""
    return (
        any(name in config for name in FUNCTIONS)
        or len(KNOWN & set(config)) >= 2
        or ("bits" in config and "block_size" in config)
    )


def translate(config: Settings) -> None:
    """Translate."""
    named = [name for name in FUNCTIONS if name in config.found]
    for name in named:
        translate_arguments(
            config.inner(name), static=name == "quantize_static", blocks="static" not in name and "dynamic" not in name
        )
    if not named:
        blocks = "block_size" in config.found
        translate_arguments(
            config, static="calibrate_method" in config.found or "activation_type" in config.found, blocks=blocks
        )
    config.finish()


def translate_arguments(given: Settings, *, static: bool, blocks: bool) -> None:
    """The arguments of one function."""
    given.moot(
        FILES, "model", "model_path", "model_input", "input_model", "model_output", "output_model", "output_path"
    )
    given.moot(
        "data is given to `qcc compile --data`", "calibration_data_reader", "data_config", "calibration_providers"
    )
    given.moot("how it is worked on leaves no trace", "verbose", "log_level", "tensors_range", "MinimumRealRange")
    given.moot(FORM, "quant_format", "prepare_qnn_config", "quant_preprocess")
    if given.flag("use_external_data_format", "save_as_external_data", default=False):
        given.draft.exported["external_data"] = "always"
    kinds = _kinds(given, ("MatMul",) if blocks else ("MatMul", "Gemm", "Conv", "Gather"))
    format = _blocked(given) if blocks else _plain(given)
    settings = {"weights": format} | _rounding(given)
    if not blocks:
        settings["rounding"] = "nearest(clip = absmax)"  # ranges of weights are the largest numbers there
        settings["activations"] = _range(given) if static else "dynamic"
    for op in given.names("op_types_to_exclude"):
        kinds = [kind for kind in kinds if kind != KINDS.get(op)]
    for kind in kinds:
        tables = ("weights",) if blocks else ("weights", "rounding")
        own = {name: value for name, value in settings.items() if kind != "embedding" or name in tables}
        if kind == "conv" and own.get("activations") == "dynamic":
            given.draft.miss(
                given.place("activation_type"), "dynamic", "steps computed as the model runs are for linear layers"
            )
            own.pop("activations")
        given.draft.set(kind, **own)
    if given.take("quant_axis") not in (None, 0, 1):
        given.miss("quant_axis")
    for name in given.names("nodes_to_exclude"):
        given.draft.keep_named(name)
    included = given.names("nodes_to_quantize", "nodes_to_include")
    if included:
        named = " and ".join(f"not any[name == {quote(name)}]" for name in included)
        given.draft.keep(f"any and {named}")
    _extra(given.inner("extra_options"))
    given.finish()


def _kinds(given: Settings, default: tuple[str, ...]) -> list[str]:
    ops = given.names("op_types_to_quantize") or list(default)
    for op in ops:
        if op not in KINDS:
            given.draft.miss(
                given.place("op_types_to_quantize"), op, "only what weights and their layers become is said"
            )
    return list(dict.fromkeys(KINDS[op] for op in ops if op in KINDS))


def _plain(given: Settings) -> str:
    key = "weight_type" if "weight_type" in given.found else "precision"
    bits, float8, unsigned = _type(given, given.take("weight_type", "precision", default="QInt8"), key)
    _type(given, given.take("activation_type", default="QInt8"), "activation_type", activations=True)
    block = "channel" if given.flag("per_channel", default=False) else "tensor"
    if given.flag("reduce_range", default=False):
        bits = min(bits, 7)
    symmetric = given.inner("extra_options").found.get("WeightSymmetric")
    loose = unsigned if symmetric is None else symmetric is False
    return f"fp8 {block}" if float8 else f"int{bits} {block}" + (" asym" if loose else "")


def _type(given: Settings, value: object, key: str, *, activations: bool = False) -> tuple[int, bool, bool]:
    """Bits, whether they are floats, and whether they have no sign."""
    text = str(value).rpartition(".")[2].lower().removeprefix("q")
    found = re.fullmatch(r"(u?)int(\d+)", text)
    if found and int(found[2]) <= 8 and not (activations and int(found[2]) < 8):
        return int(found[2]), False, bool(found[1])
    if text.startswith("float8") and not activations:
        return 8, True, False
    given.draft.miss(given.place(key), value, "codes have at most 8 bits" if found else "it is no type of codes here")
    return 8, False, False


def _blocked(given: Settings) -> str:
    bits = given.number("bits", "n_bits", "weight_bits", default=4)
    size = given.number("block_size", "group_size", default=128)
    block = f"group {size:g}" if size > 0 else "channel"
    loose = not given.flag("is_symmetric", "symmetric", "sym", default=True)
    if given.take("accuracy_level") not in (None, 0):
        given.miss("accuracy_level", "what is multiplied is rounded by `activations`, or by the kernels of a target")
    return f"int{bits:g} {block}" + (" asym" if loose else "")


def _rounding(given: Settings) -> dict[str, str]:
    algorithm = given.take("algo", "algorithm", "quant_method", "weight_only_quant_configs", "algo_config")
    if algorithm is None:
        return {}
    text = str(algorithm)
    if isinstance(algorithm, dict):
        inner = Settings(algorithm, given.draft, given.place("algo_config"))
        text = str(inner.take("algorithm", "algo", default="default"))
        inner.finish()
    name = text.lower().replace("_", "")
    if name in ("rtn", "default", "krtn"):
        return {"rounding": "nearest"}
    if name == "gptq":
        return {"rounding": "gptq"}
    given.draft.miss(
        given.place("algorithm"), algorithm, "of rounding methods there are nearest, gptq, qronos and descent"
    )
    return {}


def _range(given: Settings) -> str:
    method = str(given.take("calibrate_method", "calibration_method", default="MinMax")).rpartition(".")[2]
    found = RANGES.get(method.lower())
    if found is None:
        given.draft.miss(given.place("calibrate_method"), method, "ranges are absmax, percentile, mse or entropy")
        found = "absmax"
    percentile = given.inner("extra_options").found.get("CalibPercentile")
    more = f", percentile = {percentile:g}" if found == "percentile" and number(percentile) is not None else ""
    return "static" if found == "absmax" else f"static(range = {found}{more})"


def _extra(given: Settings) -> None:
    given.take("WeightSymmetric", "CalibPercentile")
    if given.flag("ActivationSymmetric", default=False):
        given.miss("ActivationSymmetric", "which zero points activations have is the form's choice")
    if given.flag("SmoothQuant", default=False):
        alpha = given.number("SmoothQuantAlpha", default=0.5)
        given.draft.set("linear", fold=f"smoothquant({alpha:g})")
    given.take("SmoothQuantFolding")
    if not given.flag("EnableSubgraph", "MatMulConstBOnly", default=True):
        given.miss("MatMulConstBOnly", "only products with weights are stored otherwise")
    given.moot(FORM, "AddQDQPairToWeight", "QDQKeepRemovableActivations", "DedicatedQDQPair", "UseQDQContribOps")
    given.finish()
