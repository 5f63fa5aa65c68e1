"""Workflows of Olive: its passes, in the order in which they stand."""

from collections.abc import Callable
from typing import Any

from qcc.compiler.draft.settings import Settings
from qcc.compiler.draft.tools.onnxruntime import translate_arguments

NAME = "olive"
EXPORTS = "qcc takes the exported model, or exports a .pt2 file"
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
    step.moot(ENGINE, "disable_search", "host", "evaluator", "clean_run_cache", "output_name")
    inner = step.inner("config") if isinstance(step.found.get("config"), dict) else step
    translator = PASSES.get(kind)
    if translator is None:
        step.draft.miss(step.place("type"), step.found.get("type"), "there is no pass like it")
        inner.finish()
    else:
        translator(inner)
        inner.finish()
    step.finish()


def _moot(step: Settings) -> None:
    step.moot(EXPORTS, *step.found)


def _optimized(step: Settings) -> None:
    if step.flag("float16", "fp16", default=False):
        step.draft.set("any", weights="fp16")
    step.moot("ONNX Runtime does so when it loads the model", *step.found)


def _half(step: Settings) -> None:
    step.draft.set("any", weights="fp16")
    for name in step.names("node_block_list"):
        step.draft.keep_named(name)


def _blocks(step: Settings) -> None:
    translate_arguments(step, static=False, blocks=True)


def _static(step: Settings) -> None:
    translate_arguments(step, static=True, blocks=False)


def _dynamic(step: Settings) -> None:
    translate_arguments(step, static=False, blocks=False)


def _either(step: Settings) -> None:
    mode = str(step.take("quant_mode", default="static"))
    translate_arguments(step, static=mode == "static", blocks=False)


def _gptq(step: Settings) -> None:
    bits, size = step.number("bits", "wbits", default=4), step.number("group_size", default=128)
    damping = step.optional_number("damp_percent", "percdamp")
    loose = not step.flag("sym", default=True)
    rounding = "gptq" if damping is None else f"gptq(damping = {damping:g})"
    step.draft.set("linear", weights=f"int{bits:g} {_block(size)}{' asym' if loose else ''}", rounding=rounding)
    if not step.flag("desc_act", default=True):
        step.miss("desc_act", "columns are taken in the order of their inputs' power")
    if not step.flag("lm_head", default=False):
        step.draft.keep("any[position == last]")
    step.moot("data is given to `qcc compile --data`", "data_config", "nsamples", "seqlen", "layers_block_name")


def _awq(step: Settings) -> None:
    bits = step.number("w_bit", "bits", default=4)
    size = step.number("q_group_size", "group_size", default=128)
    loose = step.flag("zero_point", default=True)
    step.draft.set("linear", weights=f"int{bits:g} {_block(size)}{' asym' if loose else ''}", fold="awq")
    step.moot("data is given to `qcc compile --data`", "data_config", "calib_data", "split", "text_column")
    step.moot("kernels are a target's", "version", "input_model_dtype")


def _rotated(step: Settings) -> None:
    step.draft.set("any", rotate="hadamard")
    step.moot("signs of rotations are drawn from `calibrate { seed = ... }`", "seed")


def _block(size: float) -> str:
    return f"group {size:g}" if size > 0 else "channel"


PASSES: dict[str, Callable[[Settings], None]] = {
    "onnxconversion": _moot,
    "modelbuilder": _blocks,
    "onnxopversionconversion": _moot,
    "dynamictofixedshape": _moot,
    "ortperftuning": _moot,
    "ortsessionparamstuning": _moot,
    "orttransformersoptimization": _optimized,
    "onnxmodeloptimizer": _optimized,
    "onnxpeepholeoptimizer": _optimized,
    "onnxfloattofloat16": _half,
    "onnxmatmul4quantizer": _blocks,
    "onnxblockwisertnquantization": _blocks,
    "onnxmatmulnbitsquantizer": _blocks,
    "onnxhqqquantization": _blocks,
    "onnxquantization": _either,
    "onnxstaticquantization": _static,
    "onnxdynamicquantization": _dynamic,
    "gptqquantizer": _gptq,
    "gptq": _gptq,
    "autoawqquantizer": _awq,
    "quarot": _rotated,
    "spinquant": _rotated,
}
"""By Olive's names in lower case."""
