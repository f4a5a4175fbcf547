"""Dense models to stand beside a MoE, each an exact integer shape: of equal size, or best at equal compute."""

from __future__ import annotations

import dataclasses

from moeplan.architecture.conventions import Variables
from moeplan.architecture.shape import Architecture
from moeplan.laws import Law
from moeplan.laws.leverage import nearest_dense


def dense_of_size(total_params: float, like: Architecture) -> Architecture:
    """The dense shape with params (embeddings included) nearest to `total_params`, vocabulary and tying as `like`.

    Width and depth come first, at the usual proportions; then d_ff, between 2 and 4 times d_model in steps of 64.
    """
    shape = nearest_dense(lambda shape: shape.total_params() / total_params, like)
    low, high = 2 * shape.d_model // 64, 4 * shape.d_model // 64
    widths = [dataclasses.replace(shape, d_ff=64 * step) for step in range(max(1, low), max(1, high) + 1)]
    return min(widths, key=lambda shape: abs(shape.total_params() - total_params))


def optimal_dense(law: Law, train_flops: float, like: Architecture, seq_len: int) -> Architecture:
    """The dense shape that a leverage law finds best at `train_flops` by moeplan's count.

    Its FLOPs per token M are nearest to the law's M_opt(C), both as the law counts them.
    """
    fit = law.predicting("flops_per_token", "dense_flops_per_token")
    convention = fit.convention("flops_per_token")

    def ratio(shape: Architecture) -> float:
        own = float(Variables(shape, seq_len).get("flops_per_token", convention))
        return own / float(fit(own * tokens_for(shape, train_flops, seq_len)))

    return nearest_dense(ratio, like)


def tokens_for(shape: Architecture, train_flops: float, seq_len: int) -> float:
    """Training tokens that `train_flops` by moeplan's count pay for."""
    return train_flops / float(shape.flops_per_token(seq_len))
