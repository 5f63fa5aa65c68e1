"""Quantizers of modules, which Olive runs before a model is exported: roundings to blocks, heads and tables apart."""

import re

from qcc.compiler.draft.settings import Settings, number

DATA = "data is given to `qcc compile --data`"
CHOICE = "more bits for some are left to the allocator by `int4 | int8`, with a `budget { size <= ... }` of the file"
LAST = "any[position == last]"


def gptq(step: Settings) -> None:
    """Weights by GPTQ, of Olive's own or of another package."""
    damping = step.optional_number("damp_percent", "percdamp")
    _linear(step, "gptq" if damping is None else f"gptq(damping = {damping:g})", size=128, symmetric=True)
    if not step.flag("desc_act", default=True):
        step.miss("desc_act", "columns are taken in the order of their inputs' power")
    step.moot(DATA, "data_config", "nsamples", "seqlen", "layers_block_name", "device", "batch_size")


def own_gptq(step: Settings) -> None:
    """Olive's own GPTQ, whose codes have zero points unless it is told otherwise."""
    damping = step.optional_number("damp_percent")
    _linear(step, "gptq" if damping is None else f"gptq(damping = {damping:g})", size=128, symmetric=False)
    step.moot(DATA, "data_config", "device")


def nearest(step: Settings) -> None:
    """Rounding to nearest; behind another quantizer it takes what that one left."""
    _linear(step, "nearest", size=128, symmetric=False)


def awq(step: Settings) -> None:
    """Scales by what activations weigh."""
    bits = step.number("w_bit", "bits", default=4)
    size = step.number("q_group_size", "group_size", default=128)
    loose = step.flag("zero_point", default=True)
    step.draft.set("linear", weights=_format(bits, size, loose), fold="awq")
    step.moot(DATA, "data_config", "calib_data", "split", "text_column")
    step.moot("kernels are a target's", "version", "input_model_dtype")


def rotated(step: Settings) -> None:
    """Rotations before rounding."""
    step.draft.set("any", rotate="hadamard")
    if str(step.take("rotation", "rotate_mode", default="hadamard")).lower() != "hadamard":
        step.miss("rotation" if "rotation" in step.found else "rotate_mode", "rotations are Hadamard's")
    step.moot("signs of rotations are drawn from `calibrate { seed = ... }`", "seed")


def mixed(step: Settings) -> None:
    """Which layers get more bits: a share of the weights, of which a file's size is not known."""
    step.miss("algorithm", CHOICE)
    step.miss("ratio", CHOICE)
    step.moot("what a layer loses is measured at the outputs, on all data", "bits", "high_bits", "group_size", "sym")


def quark(step: Settings) -> None:
    """AMD's quantizer: schemes of weights alone."""
    scheme = str(step.take("quant_scheme", default=""))
    found = re.fullmatch(r"(?:w_)?(u?)int(\d)_(?:wo|per_group)(?:_(\d+))?(?:_a?sym)?", scheme)
    if found is None:
        step.miss("quant_scheme", "only schemes of weights in blocks are known")
        return
    step.draft.set("linear", weights=_format(float(found[2]), float(found[3] or 128), bool(found[1])))
    if step.take("quant_algo") == "awq":
        step.draft.set("linear", fold="awq")
    elif step.found.get("quant_algo"):
        step.miss("quant_algo", "there is no pass like it")
    for name in step.names("exclude_layers"):
        step.draft.keep_named(name, glob=True)
    step.moot(DATA, "dataset", "num_calib_data", "seq_len", "data_type", "model_export", "trust_remote_code")


def _linear(step: Settings, rounding: str, *, size: float, symmetric: bool) -> None:
    """Linear layers, the last one and tables where they are asked for, and what is said of some modules."""
    bits = step.number("bits", "wbits", default=4)
    size = step.number("group_size", default=size)
    loose = not step.flag("sym", default=symmetric)
    format = _format(bits, size, loose)
    before = step.draft.rules.get("linear", {})
    if "weights" not in before:
        step.draft.set("linear", weights=format, rounding=rounding)
    if step.flag("lm_head", default=False):
        step.draft.set(LAST, weights=format, rounding=rounding)
    elif "weights" not in before:
        step.draft.keep(LAST)
    if step.flag("embeds", default=False):
        step.draft.set("embedding", weights=format)
    for key in ("overrides", "dynamic"):
        for path, value in step.inner(key).found.items():
            _override(step, f"{key}.{path}", path, value, (bits, size, loose))


def _override(step: Settings, place: str, path: str, value: object, default: tuple[float, float, bool]) -> None:
    """Another format for modules of a name, or none: patterns that begin with a minus are left as they are."""
    if re.search(r"lm_head", path):
        selector = LAST
    elif re.search(r"embed_tokens$", path):
        selector = "embedding"
    else:
        pattern = re.sub(r"^[+-]:", "", path)
        if "(?" in pattern:
            step.draft.miss(step.place(place), value, "expressions of policies do not look ahead")
            return
        selector = f"any[name ~ /{re.sub(r'/', '.', pattern)}/]"
    if path.startswith("-:"):
        step.draft.keep(selector)
        return
    given = Settings(value if isinstance(value, dict) else {}, step.draft, step.place(place))
    bits = given.number("bits", default=default[0])
    size = given.number("group_size", default=default[1])
    loose = not given.flag("sym", default=not default[2])
    given.moot("columns are taken in the order of their inputs' power", "desc_act")
    given.finish()
    step.draft.set(selector, weights=_format(bits, size, loose))


def _format(bits: float, size: float, loose: bool) -> str:
    block = f"group {size:g}" if number(size) is not None and size > 0 else "channel"
    return f"int{bits:g} {block}{' asym' if loose else ''}"
