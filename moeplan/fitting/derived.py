"""Quantities of runs that follow from others: C = 6*Na*D, and the ratios of experts by their definitions."""

from __future__ import annotations

from collections.abc import Callable

from moeplan.fitting.optimum import FLOPS_PER_PARAM
from moeplan.numerics import Floats

DENSE_AT_ONE = ("num_experts", "num_active_experts", "expansion_ratio", "activation_ratio", "G")
"""Quantities that are 1 (or 0, or absent) for a dense model."""
DENSE_UP_TO = {"shared_ratio": 0.0, "num_shared_experts": 0.0, "granularity": 4 / 3}
"""Quantities that are no larger for a dense model (granularity: a gated block of d_ff = 1.5*d_model)."""
DENSE_RULES = (("total_params", "active_params"), ("active_params", "total_params"), ("base_params", "active_params"))
"""Rules that hold for dense models alone."""
_Compute = Callable[..., Floats]
_PER = f"{FLOPS_PER_PARAM}*Na"
RULES: dict[str, tuple[tuple[tuple[str, ...], _Compute, str], ...]] = {
    "tokens": (
        (("steps", "batch_tokens"), lambda steps, batch: steps * batch, "steps * batch_tokens"),
        (
            ("train_flops", "active_params"),
            lambda flops, active: flops / (FLOPS_PER_PARAM * active),
            f"train_flops / ({_PER})",
        ),
        (
            ("tokens_per_param", "active_params"),
            lambda ratio, active: ratio * active,
            "tokens_per_param * active_params",
        ),
    ),
    "batch_tokens": (
        (
            ("batch_sequences", "seq_len"),
            lambda sequences, length: sequences * length,
            "batch_sequences * seq_len",
        ),
    ),
    "train_flops": (
        (
            ("flops_per_token", "tokens"),
            lambda per_token, tokens: per_token * tokens,
            "flops_per_token * tokens",
        ),
    ),
    "active_params": (
        (("total_params",), lambda total: total, "total_params: nothing says that fewer are active"),
        (("base_params",), lambda base: base, "base_params"),
        (("nonzero_params",), lambda nonzero: nonzero, "nonzero_params"),
    ),
    "total_params": ((("active_params",), lambda active: active, "active_params: nothing says that there are more"),),
    "base_params": ((("active_params",), lambda active: active, "active_params: the dense model's own size"),),
    "flops_per_token": ((("active_params",), lambda active: FLOPS_PER_PARAM * active, _PER),),
    "tokens_per_param": (
        (("tokens", "active_params"), lambda tokens, active: tokens / active, "tokens / active_params"),
    ),
    "activation_ratio": (
        (
            ("num_experts", "num_active_experts"),
            lambda experts, active: active / experts,
            "num_active_experts / num_experts",
        ),
    ),
    "expansion_ratio": (
        (
            ("num_experts", "num_active_experts", "num_shared_experts"),
            lambda experts, active, shared: (experts + shared) / (active + shared),
            "(num_experts + shared) / (num_active_experts + shared), experts of equal width",
        ),
        (
            ("num_experts", "num_active_experts"),
            lambda experts, active: experts / active,
            "num_experts / num_active_experts",
        ),
        (("activation_ratio",), lambda ratio: 1 / ratio, "1 / activation_ratio"),
    ),
    "G": (
        (
            ("num_active_experts", "num_shared_experts"),
            lambda active, shared: active + shared,
            "num_active_experts + num_shared_experts",
        ),
    ),
    "shared_ratio": (
        (
            ("num_active_experts", "num_shared_experts"),
            lambda active, shared: shared / (active + shared),
            "num_shared_experts / (num_active_experts + num_shared_experts)",
        ),
    ),
    "granularity": ((("d_model", "d_expert"), lambda width, expert: 2 * width / expert, "2 * d_model / d_expert"),),
}
"""By quantity the ways to compute it: from which others, how, and the same in words; the first that can be counts."""
