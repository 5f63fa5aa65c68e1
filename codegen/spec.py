"""What the builder of a library and the templates agree on: which families of templates serve a target."""

from qcc.codegen.target import VNNI, CpuTarget


def variants(target: CpuTarget, activations: str) -> tuple[str, ...]:
    """The families of templates that serve a target, the one for few rows first."""
    if activations == "exact" or not target.has(*VNNI):
        return ("exact",)
    return ("int8", "bf16") if target.has("amx_bf16") else ("int8",)
