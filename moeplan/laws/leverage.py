"""Efficiency Leverage of an architecture: by the leverage law, with an interval, and by others that know dense models.

EL = C_dense / C_moe at equal loss. A loss law speaks through compute: C_dense is the compute at which its own best
dense model (sizes continuous, C = 6*N*D) reaches the loss that it gives the MoE, C_moe the MoE's compute in the law's
own FLOPs. Losses of two laws never meet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from moeplan.architecture.conventions import Variables
from moeplan.architecture.shape import Architecture
from moeplan.errors import LawError
from moeplan.laws import Fit, Law, Uncertainty
from moeplan.plan.document import DenseEquivalent, Leverage, LeverageOpinion
from moeplan.plan.search.grid import SMALL_D_MODEL, attention_fields

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
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if best(math.exp(middle)) <= loss else (middle, high)
    return math.exp((low + high) / 2)


def dense_params_at_tokens(law: Law, loss: float, tokens: float = 1.0) -> float:
    """The dense size [params] with the same loss on `tokens` (not seen by laws at fixed tokens); inf if none has."""
    low, high = math.log(1e3), math.log(1e20)
    if float(dense_loss(law, math.exp(high), tokens)) > loss:
        return math.inf
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if float(dense_loss(law, math.exp(middle), tokens)) <= loss else (middle, high)
    return math.exp((low + high) / 2)


def leverage_by(law: Law, variables: Variables, tokens: float) -> LeverageOpinion:
    """EL of an architecture trained on `tokens` by one law; raises `LawError` for a law without a dense counterpart."""
    fit = law.objective
    if fit is None or not law.has_dense:
        raise LawError(f"law {law.full_name} has no dense counterpart, so it says nothing about dense models")
    extrapolated = bool(fit.outside(variables, tokens))
    value = float(fit.at(variables, tokens))
    if fit.predicts == "efficiency_leverage":
        return LeverageOpinion(law.full_name, value, extrapolated, "its own formula")
    if "tokens" not in fit.variables:
        ratio = dense_params_at_tokens(law, value) / float(
            variables.get("active_params", fit.convention("active_params"))
        )
        tokens_fixed = fit.fixed.get("tokens", 0)
        basis = f"dense size of equal loss / active size, both at {tokens_fixed / 1e9:.0f}B tokens"
        return LeverageOpinion(law.full_name, ratio, extrapolated, basis)
    own_flops = float(variables.get("train_flops", fit.convention("train_flops"), tokens))
    ratio = dense_compute(law, value) / own_flops
    return LeverageOpinion(law.full_name, ratio, extrapolated, "best dense of equal loss, continuous sizes, C = 6*N*D")


def predict(law: Law, others: Sequence[Law], architecture: Architecture, tokens: float, seq_len: int) -> Leverage:
    """EL with its interval by a leverage law, the dense model it equals, and what the other laws say."""
    variables = Variables(architecture, seq_len)
    fit = law.predicting("efficiency_leverage")
    value = float(fit.at(variables, tokens))
    rule = fit.uncertainty
    decades = sum(outside.decades for outside in fit.outside(variables, tokens) if outside.name in fit.variables)
    width = rule.half_width(decades) if rule else math.nan
    own_flops = float(variables.get("train_flops", fit.convention("train_flops"), tokens))
    phi = float(law.allocation.at(variables, tokens)) if law.allocation else 1.0
    opinions = [leverage_by(other, variables, tokens) for other in others if other.has_dense and other.name != law.name]
    return Leverage(
        efficiency_leverage=value,
        low=value * math.exp(-width),
        high=value * math.exp(width),
        level=rule.level if rule else math.nan,
        rule=_rule_text(rule, decades, width) if rule else "the law gives no residual",
        decades_outside=decades,
        allocation_efficiency=phi,
        dense=_dense_equivalent(law, value * phi * own_flops, architecture, seq_len),
        others=tuple(opinion for opinion in opinions if math.isfinite(opinion.efficiency_leverage)),
    )


def _rule_text(rule: Uncertainty, decades: float, width: float) -> str:
    """The interval's rule with its numbers."""
    z = NormalDist().inv_cdf(0.5 + rule.level / 2)
    outside = (
        f" and {rule.per_decade_outside:g} for each of {decades:.2f} decades outside the measured range "
        f"({rule.per_decade_source}), added in squares"
    )
    return (
        f"{100 * rule.level:.0f} % interval: EL divided and multiplied by {math.exp(width):.3g}, the exponential of "
        f"{z:.3f} standard errors of ln EL: {rule.rms:g} inside the measured range ({rule.source})"
        f"{outside if decades else ''}; at least {rule.floor:g} in all"
    )


def _dense_equivalent(law: Law, train_flops: float, like: Architecture, seq_len: int) -> DenseEquivalent:
    """The compute-optimal dense model of a leverage law at `train_flops` (its FLOPs), as an integer shape."""
    fit = law.predicting("flops_per_token", "dense_flops_per_token")
    convention = fit.convention("flops_per_token")

    def flops(shape: Architecture) -> float:
        return float(Variables(shape, seq_len).get("flops_per_token", convention))

    target = float(fit(train_flops))
    shape = nearest_dense(lambda shape: flops(shape) / target, like)
    return DenseEquivalent(
        total_params=shape.total_params(),
        non_embedding_params=shape.total_params("non_embedding"),
        tokens=round(train_flops / flops(shape)),
        train_flops=train_flops,
        architecture=shape,
    )


def nearest_dense(ratio: Callable[[Architecture], float], like: Architecture) -> Architecture:
    """The dense shape whose `ratio` (some size over what it should be) is nearest to 1, with vocabulary as `like`."""

    def nearest(shapes: list[Architecture]) -> Architecture:
        return shapes[int(np.argmin(np.abs(np.log(np.array([ratio(shape) for shape in shapes])))))]

    # The width nearest at the usual aspect ratio, then the depth nearest at that width.
    widths = (*range(128, SMALL_D_MODEL, 64), *range(SMALL_D_MODEL, 65536, 128))
    d_model = nearest([dense_shape(width, like) for width in widths]).d_model
    depths = range(max(1, round(d_model / 100)), max(1, round(d_model / 76)) + 1)
    return nearest([dense_shape(d_model, like, depth) for depth in depths])


def dense_shape(d_model: int, like: Architecture, num_layers: int = 0) -> Architecture:
    """A dense model of one width: d_ff = (8/3)*d_model, vocabulary and tying as `like`; 0 layers for d_model/88."""
    heads = max(1, d_model // (64 if d_model < SMALL_D_MODEL else 128))
    heads = max(4, round(heads / 4) * 4) if heads < 32 else round(heads / 8) * 8
    fields = attention_fields(d_model, np.int64(heads), like.attention)
    plain: dict[str, Any] = {name: value if isinstance(value, str) else int(value) for name, value in fields.items()}
    return Architecture(
        **plain,
        num_layers=num_layers or max(1, round(d_model / 88)),
        vocab_size=like.vocab_size,
        d_ff=max(64, round(8 / 3 * d_model / 64) * 64),
        tied_embeddings=like.tied_embeddings,
    )
