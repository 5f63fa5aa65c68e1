"""Workflows of Olive: its passes, in the order in which they stand."""

from collections.abc import Callable
from typing import Any

from qcc.compiler.draft.settings import Settings, number
from qcc.compiler.draft.tools import hugging_face, modelopt, nncf
from qcc.compiler.draft.tools.onnxruntime import translate_arguments

NAME = "olive"
EXPORTS = "qcc takes the exported model, or exports a .pt2 file"
PACKS = "how a file is cut, packed or described for a device is done with what qcc writes"
ENGINE = "where and how Olive runs says nothing about the model"


def recognized(config: dict[str, Any]) -> bool:
    """Whether a configuration is one of these."""
    return isinstance(config.get("passes"), dict | list)


def translate(config: Settings) -> None:
    """Translate."""
    config.moot("the model is given to `qcc compile`", "input_model")
    config.moot(
        ENGINE, "systems", "engine", "host", "target", "cache_dir", "output_dir", "output_name", "log_severity_level"
    )
    config.moot(ENGINE, "azureml_client", "no_artifacts", "clean_cache", "pass_flows", "workflow_id", "search_strategy")
    config.moot(ENGINE, "evaluate_input_model", "packaging_config", "plugins", "auto_optimizer_config")
    config.moot("data is given to `qcc compile --data`", "data_configs")
    config.moot("what must hold is said by `verify`, and a score of your own by `drop(...)`", "evaluators", "evaluator")
    passes = config.take("passes", default={})
    listed = list(enumerate(passes) if isinstance(passes, list) else passes.items() if isinstance(passes, dict) else ())
    if not listed:
        config.draft.miss("passes", passes, "there are no passes in it")
    for name, value in listed:
        steps = value if isinstance(value, list) else [value]
        for step in steps:
            if isinstance(step, dict):
                _pass(Settings(step, config.draft, config.place(f"passes.{name}")))
            else:
                config.draft.miss(config.place(f"passes.{name}"), step, "a pass is an object")
    config.finish()


def _pass(step: Settings) -> None:
    kind = str(step.take("type", default="")).lower()
    step.moot(ENGINE, "disable_search", "host", "evaluator", "clean_run_cache", "output_name", "reuse_cache")
    inner = step.inner("config") if isinstance(step.found.get("config"), dict) else step
    if inner.flag("save_as_external_data", default=False):
        step.draft.exported["external_data"] = "always"
    inner.moot("data lies beside the model, under its name", "external_data_name")
    translator = PASSES.get(kind)
    if translator is None:
        step.draft.miss(step.place("type"), step.found.get("type"), "there is no pass like it")
    else:
        translator(inner)
    inner.finish()
    step.finish()


def _exported(step: Settings) -> None:
    step.moot(EXPORTS, *step.found)


def _packed(step: Settings) -> None:
    step.moot(PACKS, *step.found)


def _surgery(step: Settings) -> None:
    step.miss("surgeries", "what changes the graph is done before: give qcc what comes out")


def _optimized(step: Settings) -> None:
    if step.flag("float16", "fp16", default=False):
        step.draft.set_first("any", weights="fp16")
    step.moot("ONNX Runtime does so when it loads the model", *step.found)


def _half(step: Settings) -> None:
    step.draft.set_first("any", weights="fp16")
    for name in step.names("node_block_list"):
        step.draft.keep_named(name)
    step.miss("op_block_list", "weights are stored in half precision, ops compute as they did")


def _blocks(step: Settings) -> None:
    translate_arguments(step, static=False, blocks=True)


def _nearest(step: Settings) -> None:
    """Products and tables alike, unless it is told which."""
    step.found.setdefault("op_types_to_quantize", ["MatMul", "Gather"])
    translate_arguments(step, static=False, blocks=True)


def _k_quant(step: Settings) -> None:
    """Blocks with zero points, whose ranges are searched for: what rounding to nearest does here."""
    bits, size = step.number("bits", default=4), step.number("block_size", default=32)
    step.draft.set("linear", weights=f"int{bits:g} group {size:g} asym", rounding="nearest")
    for name in step.names("nodes_to_exclude"):
        step.draft.keep_named(name)
    if step.take("accuracy_level") not in (None, 0):
        step.miss("accuracy_level", "what is multiplied is rounded by `activations`, or by the kernels of a target")


def _static(step: Settings) -> None:
    translate_arguments(step, static=True, blocks=False)


def _dynamic(step: Settings) -> None:
    translate_arguments(step, static=False, blocks=False)


def _either(step: Settings) -> None:
    mode = str(step.take("quant_mode", default="static"))
    translate_arguments(step, static=mode == "static", blocks=False)


def _builder(step: Settings) -> None:
    """ONNX Runtime's builder of language models: 4 bits in blocks, half precision, or floats."""
    precision = str(step.take("precision", default="fp32")).lower()
    step.moot(EXPORTS, "metadata_only", "search", "include_hidden_states", "exclude_embeds", "exclude_lm_head")
    step.moot("how kernels run is a target's", "enable_cuda_graph", "use_qdq", "use_webgpu_fp32", "use_8bits_moe")
    names = {key: key.removeprefix("int4_") for key in step.found if key.startswith("int4_")}
    if precision == "int4" and "weights" in step.draft.rules.get("linear", {}):
        _rest(step, {word: step.take(key) for key, word in names.items()})
    elif precision == "int4":
        given = Settings({"block_size": 32}, step.draft, step.path)
        for key, word in names.items():
            given.found[word] = step.take(key)
        translate_arguments(given, static=False, blocks=True)
    elif precision in ("fp16", "bf16"):
        step.draft.set_first("any", weights=precision)
    elif precision != "fp32":
        step.miss("precision", "there is no format like it")
    if precision != "int4":
        step.moot("nothing is stored in 4 bits", *names)
    extra = step.inner("extra_options")
    extra.moot(EXPORTS, "filename", "include_hidden_states", "exclude_embeds", "exclude_lm_head", "prune_lm_head")
    extra.finish()


def _rest(step: Settings, given: dict[str, object]) -> None:
    """The head that a quantizer left as it was; its other codes are taken as they are."""
    if "keep" in step.draft.rules.get(hugging_face.LAST, {}):
        size, loose = number(given.get("block_size")) or 32, given.get("is_symmetric") is False
        step.draft.set(hugging_face.LAST, weights=f"int4 group {size:g}{' asym' if loose else ''}", rounding="nearest")


def _compressor(step: Settings) -> None:
    """Intel's Neural Compressor: 8 bits of everything, or weights alone."""
    static = str(step.take("approach", default="static")) != "dynamic"
    weights = step.inner("weight_only_config")
    if step.found.get("approach") == "weight_only" or weights.found:
        bits, size = weights.number("bits", default=4), weights.number("group_size", default=32)
        loose = str(weights.take("scheme", default="asym")) == "asym"
        algorithm = str(weights.take("algorithm", default="rtn")).lower()
        block = f"group {size:g}" if size > 0 else "channel"
        rounding = "gptq" if algorithm == "gptq" else "nearest"
        step.draft.set("linear", weights=f"int{bits:g} {block}{' asym' if loose else ''}", rounding=rounding)
        if algorithm == "awq":
            step.draft.set("linear", fold="awq")
        elif algorithm not in ("gptq", "rtn"):
            weights.miss("algorithm", "of rounding methods there are nearest, gptq, qronos and descent")
        weights.finish()
    else:
        translate_arguments(step, static=static, blocks=False)
    recipes = step.inner("recipes")
    smooth = recipes.inner("smooth_quant_args")
    if recipes.flag("smooth_quant", default=False):
        step.draft.set("linear", fold=f"smoothquant({smooth.number('alpha', default=0.5):g})")
    smooth.finish()
    recipes.finish()
    step.moot(
        "what must hold is said by `verify`, and a score of your own by `drop(...)`", "metric", "tuning_criterion"
    )
    step.moot(hugging_face.DATA, "data_config", "calibration_sampling_size", "user_script", "device", "backend")


def _openvino(step: Settings) -> None:
    """NNCF behind OpenVINO."""
    step.moot(PACKS, "target_device", "user_script", "script_dir", "transform_fn", "data_config", "reuse_cache")
    extra = step.take("extra_configs")
    given = dict(step.found)
    for one in extra if isinstance(extra, list) else []:
        given |= one if isinstance(one, dict) else {}
    inner = Settings(given, step.draft, step.path, taken=set(step.taken))
    nncf.quantized(inner)
    step.taken |= set(step.found)


def _optimum(step: Settings) -> None:
    """Weights in OpenVINO's own words."""
    given = step.inner("ov_quant_config")
    step.moot(EXPORTS, "extra_args", *(key for key in step.found if key != "ov_quant_config"))
    word = str(given.take("weight_format", default="fp32"))
    loose = not given.flag("sym", default=False)
    if "backup_precision" in given.found:
        given.found["backup_mode"] = given.take("backup_precision")
    given.moot(EXPORTS, "task", "trust_remote_code", "stateful", "dataset")
    if word in ("int4", "int8"):
        mode = f"{word}_{'asym' if loose else 'sym'}"
        nncf.compressed(Settings({"mode": mode} | given.found, step.draft, given.path, taken=set(given.taken)))
        given.taken |= set(given.found)
    elif word in ("fp16", "bf16"):
        step.draft.set_first("any", weights=word)
    given.finish()


PASSES: dict[str, Callable[[Settings], None]] = {
    **dict.fromkeys(
        ("onnxconversion", "onnxopversionconversion", "dynamictofixedshape", "ortperftuning", "ortsessionparamstuning"),
        _exported,
    ),
    **dict.fromkeys(("openvinoconversion", "mobiusbuilder", "inputnchwtonhwc", "loadmodel"), _exported),
    **dict.fromkeys(
        (
            "epcontextbinarygenerator", "staticllm", "capturesplitinfo", "splitmodel", "composeonnxmodels",
            "openvinoencapsulation", "openvinoioupdate", "addolivemetadata", "vitisaiaddmetadata", "matmulnbitstoqdq",
            "qnnpreprocess",
        ),
        _packed,
    ),
    **dict.fromkeys(("orttransformersoptimization", "onnxmodeloptimizer", "onnxpeepholeoptimizer"), _optimized),
    **dict.fromkeys(
        ("onnxmatmul4quantizer", "onnxmatmulnbitsquantizer", "onnxhqqquantization"),
        _blocks,
    ),
    "onnxblockwisertnquantization": _nearest,
    **dict.fromkeys(("incquantization", "incstaticquantization", "incdynamicquantization"), _compressor),
    **dict.fromkeys(("quarkquantization", "quarkquantizationvitisai"), hugging_face.quark),
    **dict.fromkeys(("gptqquantizer", "gptqmodel"), hugging_face.gptq),
    **dict.fromkeys(("quarot", "spinquant"), hugging_face.rotated),
    "graphsurgeries": _surgery,
    "modelbuilder": _builder,
    "onnxfloattofloat16": _half,
    "onnxkquantquantization": _k_quant,
    "onnxquantization": _either,
    "onnxstaticquantization": _static,
    "onnxdynamicquantization": _dynamic,
    "gptq": hugging_face.own_gptq,
    "rtn": hugging_face.nearest,
    "autoawqquantizer": hugging_face.awq,
    "selectivemixedprecision": hugging_face.mixed,
    "nvmodeloptquantization": modelopt.translate_onnx,
    "openvinoquantization": _openvino,
    "openvinooptimumconversion": _optimum,
}  # fmt: skip
"""By Olive's names in lower case."""
