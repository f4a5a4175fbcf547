"""Continuous families of models: how a paper itself turns one size into params and FLOPs.

A law's own optimum at a compute budget depends on what its authors counted as a model. A family is a function of one
continuous size (positional) and of fixed choices (keyword-only); it returns the law's variables and the FLOPs per
token, in that paper's convention. Law files name a family for their checks and for comparisons at continuous size.
"""

from __future__ import annotations

from typing import Any

Value = Any


def six_total_params(total_params: Value, /) -> tuple[dict[str, Value], Value]:
    """Dense models by total params: C = 6*N*D."""
    return {"total_params": total_params}, 6 * total_params


def six_active_params(active_params: Value, /, *, expansion_ratio: float) -> tuple[dict[str, Value], Value]:
    """Models by active params at one expansion ratio: C = 6*Na*D."""
    return {"active_params": active_params, "expansion_ratio": expansion_ratio}, 6 * active_params


def krajewski_blocks(
    d_model: Value, /, *, expansion_ratio: float, granularity: float
) -> tuple[dict[str, Value], Value]:
    """Blocks of E*G ungated experts of width 4*d/G, G of them active, num_layers = d/64 (Krajewski et al. 2024).

    N = d^2*(8E + 4)*L without embeddings; FLOPs per token (12*d^2*6 + 14*d*E*G)*L, the second term the router's.
    """
    layers = d_model / 64
    total = d_model**2 * (8 * expansion_ratio + 4) * layers
    active = 12 * d_model**2 * layers
    flops = (12 * d_model**2 * 6 + d_model * expansion_ratio * granularity * 14) * layers
    return {"total_params": total, "active_params": active, "granularity": granularity}, flops


def top1_blocks(d_model: Value, /, *, activation_ratio: float, vocab_size: float) -> tuple[dict[str, Value], Value]:
    """Blocks of 1/activation_ratio experts with one active, num_layers = d/64, untied embeddings: C = 6*Na*D."""
    layers = d_model / 64
    embeddings = 2 * vocab_size * d_model
    active = 12 * d_model**2 * layers + embeddings
    total = (4 + 8 / activation_ratio) * d_model**2 * layers + embeddings
    variables = {"total_params": total, "active_params": active, "activation_ratio": activation_ratio}
    return variables, 6 * active
