"""Policies that make chains of kernels of convolutions: static integers, and a target that has kernels."""

import random

CHAIN = "chain"
"""As `compare` calls what comes of them."""
TARGETS = ("cpu", "cpu", "cpu(avx2)", "cpu(avx512-vnni, avx2)")
WEIGHTS = ("int8 channel", "int8 channel", "int7 channel", "int6 channel")
RANGES = ("absmax", "percentile", "mse", "entropy")


def policy(rng: random.Random) -> str:
    """A policy, all of whose words are good."""
    words = [f"range = {rng.choice(RANGES)}"] if rng.random() < 0.4 else []
    if rng.random() < 0.2:
        words.append(f"by = {rng.choice(('channel', 'group'))}")
    options = f"({', '.join(words)})" if words else ""
    kind = rng.choice(("conv", "conv", "any"))
    rounding = rng.choice(("", "; rounding = nearest", "; rounding = gptq"))
    rule = f"rule {kind} {{ weights = {rng.choice(WEIGHTS)}; activations = static{options}{rounding} }}"
    return f"qpolicy 1\ntarget {rng.choice(TARGETS)}\ncalibrate generated {{ samples = 8 }}\n{rule}\n"
