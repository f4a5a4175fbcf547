"""The dense side of a law: its loss of dense models, the compute that reaches a loss, and its best dense shapes.

Sizes are continuous, C = 6*N*D; `optimal_dense` alone gives an exact integer shape.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from moeplan.architecture.conventions import Variables
from moeplan.architecture.proportions import nearest_dense, tokens_for
from moeplan.architecture.shape import Architecture
from moeplan.errors import LawError
from moeplan.laws import Fit, Law
from moeplan.laws.signatures import FORMS
from moeplan.numerics.bisection import first_where

_DENSE_SIZES = np.geomspace(1e5, 1e15, 2001)
"""Continuous dense sizes tried [params]; steps of 1.2 %, the optimum is flat to 1e-5 within one."""


def dense_fit(law: Law) -> Fit:
    """The fit that describes dense models; raises `LawError` if the law has none."""
    fit = law.objective
    if fit is None or not (fit.dense or fit.dense_fit):
        raise LawError(f"law {law.full_name} has no dense counterpart, so it says nothing about dense models")
    return law.fits[fit.dense_fit] if fit.dense_fit else fit


def dense_loss(law: Law, total_params: Any, tokens: Any) -> Any:
    """The law's loss of dense models: every size is N, every ratio the one of a dense model."""
    fit = dense_fit(law)
    values = {"total_params": total_params, "active_params": total_params, "tokens": tokens, **fit.dense}
    missing = [name for name in fit.variables if name not in values]
    if missing:
        raise LawError(f"law {law.full_name} does not say what {missing[0]} a dense model has")
    return fit(*(values[name] for name in fit.variables))


def dense_size(law: Law, variables: Variables) -> float:
    """The size of a dense architecture [params] as the law's dense side counts it."""
    fit = dense_fit(law)
    name = "total_params" if "total_params" in fit.variables else "active_params"
    return float(variables.get(name, fit.convention(name)))


def dense_compute(law: Law, loss: float) -> float:
    """C_dense [FLOPs]: the least 6*N*D at which the law's best dense model reaches `loss` [nats]; inf if never."""

    def best(train_flops: float) -> float:
        return float(np.min(dense_loss(law, _DENSE_SIZES, train_flops / (6 * _DENSE_SIZES))))

    low, high = math.log(1e12), math.log(1e40)
    if best(math.exp(high)) > loss:
        return math.inf
    return math.exp(first_where(lambda ln_compute: best(math.exp(ln_compute)) <= loss, low, high))


def dense_params_at_tokens(law: Law, loss: float, tokens: float = 1.0) -> float:
    """The dense size [params] with the same loss on `tokens` (not seen by laws at fixed tokens); inf if none has."""
    low, high = math.log(1e3), math.log(1e20)
    if float(dense_loss(law, math.exp(high), tokens)) > loss:
        return math.inf
    return math.exp(first_where(lambda ln_size: float(dense_loss(law, math.exp(ln_size), tokens)) <= loss, low, high))


def dense_phi(law: Law, dense: Fit, v: Variables, train_flops: float) -> float:
    """phi of a dense model: the MoE's rule about the dense optimum M_opt(C)."""
    if law.allocation is None:
        return 1.0
    optimum = {name: dense.coefficients[name] for name in ("coefficient", "exponent")}
    allocation = {**law.allocation.coefficients, **optimum}
    per_token = np.float64(v.get("flops_per_token", dense.convention("flops_per_token")))
    return float(FORMS["allocation_efficiency"](per_token, np.float64(train_flops), **allocation))


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
