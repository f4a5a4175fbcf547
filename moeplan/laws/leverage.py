"""Efficiency Leverage of an architecture: pooled over the laws that know dense models, and by each of them.

EL = C_dense / C_moe at equal loss. A loss law speaks through compute: C_dense is the compute at which its own best
dense model (sizes continuous, C = 6*N*D) reaches the loss that it gives the MoE, C_moe the MoE's compute in the law's
own FLOPs. Losses of two laws never meet. `moeplan.laws.pooling` makes one leverage of them, with an interval.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated

from moeplan.architecture.conventions import Variables
from moeplan.architecture.proportions import nearest_dense
from moeplan.architecture.shape import Architecture
from moeplan.errors import LawError
from moeplan.laws import Law, Uncertainty, load_law
from moeplan.laws.dense import dense_compute, dense_params_at_tokens
from moeplan.laws.pooling import (
    LEVEL,
    PER_DECADE,
    RANGE_ONLY,
    SCATTER,
    STUDIES,
    DenseWorth,
    PooledLeverage,
    beyond,
    farthest,
    pool,
)
from moeplan.laws.roles import POOLED_LAWS
from moeplan.quantities import SHARE
from moeplan.records import Line


@dataclass(frozen=True)
class LeverageOpinion:
    """Efficiency Leverage by one law with a dense counterpart."""

    law: Line
    """The law."""
    efficiency_leverage: float
    """Compute of the law's own best dense model with the same loss / compute of the plan, in the law's own FLOPs."""
    extrapolated: bool
    """Whether the plan lies outside the law's domain."""
    basis: Line
    """How the law compares, in words."""


@dataclass(frozen=True)
class DenseEquivalent:
    """The dense model that should reach the same loss, by the leverage law: its compute is C*EL*phi."""

    total_params: int
    """N [params], embeddings included."""
    non_embedding_params: int
    """N without embeddings [params]."""
    tokens: int
    """D, training tokens."""
    train_flops: float
    """Its compute in the leverage law's FLOPs."""
    architecture: Architecture
    """An integer shape of that size."""


@dataclass(frozen=True)
class Leverage:
    """Predicted Efficiency Leverage: pooled, by the leverage law alone, and by other laws."""

    pooled: PooledLeverage
    """The headline: EL by all laws that know dense models."""
    efficiency_leverage: float
    """EL by the leverage law alone, at its best split of compute: dense compute / MoE compute at equal loss."""
    low: float
    """Lower end of the leverage law's own interval."""
    high: float
    """Upper end of that interval."""
    level: Annotated[float, SHARE]
    """Probability that the interval is meant to cover."""
    rule: Line
    """The parts that the interval is made of."""
    decades_outside: float
    """How far the equation's variables lie outside its domain, in factors of 10, summed."""
    allocation_efficiency: float
    """phi: what is left of EL because the budget is split into size and tokens off the law's optimum (at most 1)."""
    dense: DenseEquivalent
    """The dense model that it equals by the leverage law alone, phi included."""
    others: tuple[LeverageOpinion, ...]
    """The other laws with a dense counterpart; never folded into the leverage law's interval."""


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


def pooled_laws() -> tuple[Law, ...]:
    """The laws that are pooled, as far as they know dense models (a user's law of the same name may not)."""
    return tuple(law for law in map(load_law, POOLED_LAWS) if law.has_dense)


def predict(law: Law, others: Sequence[Law], architecture: Architecture, tokens: float, seq_len: int) -> Leverage:
    """EL pooled, by a leverage law with its own interval and the dense model it equals, and by other laws.

    The others are the pooled laws, and those of `others` that compare with dense models.
    """
    variables = Variables(architecture, seq_len)
    fit = law.predicting("efficiency_leverage")
    value = float(fit.at(variables, tokens))
    rule = fit.uncertainty
    decades = sum(outside.decades for outside in fit.outside(variables, tokens) if outside.variable in fit.variables)
    width = rule.half_width(decades) if rule else math.nan
    own_flops = float(variables.get("train_flops", fit.convention("train_flops"), tokens))
    phi = float(law.allocation.at(variables, tokens)) if law.allocation else 1.0
    together = pooled_laws()
    heard = {other.full_name: other for other in others if other.has_dense and other.name != law.name}
    heard |= {one.full_name: one for one in together if one.name != law.name and one.full_name not in heard}
    opinions = [leverage_by(other, variables, tokens) for other in heard.values()]
    known = {said.law: said.efficiency_leverage for said in opinions if math.isfinite(said.efficiency_leverage)}
    # A leverage law's own EL is at the best split of compute; loss laws judge the split that there is.
    known[law.full_name] = value * phi
    heard[law.full_name] = law
    pooled = [(heard[one.full_name], known[one.full_name]) for one in together if known.get(one.full_name, 0.0) > 0]
    return Leverage(
        pooled=_pooled(pooled, law, variables, tokens, own_flops),
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


def _pooled(
    said: Sequence[tuple[Law, float]], law: Law, variables: Variables, tokens: float, own_flops: float
) -> PooledLeverage:
    """EL by all laws together, from that by each, and the dense models that it is worth (split as `law` says)."""
    outside = beyond(own_flops)
    decades = [farthest(one.require_objective().outside(variables, tokens)) for one, _ in said]
    found = pool([math.log(value) for _, value in said], decades, outside)
    low, high, point = found.mean - found.half_width, found.mean + found.half_width, outside <= RANGE_ONLY

    def worth(log: float) -> DenseWorth:
        dense = _dense_equivalent(law, math.exp(log) * own_flops, variables.shape, variables.seq_len)
        return DenseWorth(dense.total_params, dense.tokens, dense.train_flops)

    return PooledLeverage(
        efficiency_leverage=math.exp(found.mean) if point else None,
        low=math.exp(low),
        high=math.exp(high),
        level=LEVEL,
        decades_outside=outside,
        weights={one.full_name: weight for (one, _), weight in zip(said, found.weights, strict=True)},
        by_law={one.full_name: value for one, value in said},
        studies=STUDIES,
        rule=_pooled_rule(len(said), outside),
        dense=worth(found.mean) if point else None,
        dense_low=worth(low),
        dense_high=worth(high),
    )


def _pooled_rule(laws: int, outside: float) -> str:
    """The pooled interval's rule with its numbers."""
    further = (
        f"; {PER_DECADE:g} for each of {outside:.2f} factors of ten of compute outside everything measured is added in "
        "squares"
        if outside
        else ""
    )
    return (
        f"{100 * LEVEL:.0f} % interval of the weighted geometric mean of {laws} laws, one vote a publication: a law's "
        f"ln EL is off by {SCATTER:g} as on the {STUDIES} studies and by {PER_DECADE:g} for each factor of ten outside "
        f"its own range, and by more where the laws differ by more{further} (moeplan backtest)"
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
    target = float(fit(train_flops))
    shape = nearest_dense(lambda shape: _flops_per_token(shape, seq_len, convention) / target, like)
    return DenseEquivalent(
        total_params=shape.total_params(),
        non_embedding_params=shape.total_params("non_embedding"),
        tokens=round(train_flops / _flops_per_token(shape, seq_len, convention)),
        train_flops=train_flops,
        architecture=shape,
    )


@functools.lru_cache(maxsize=4096)
def _flops_per_token(shape: Architecture, seq_len: int, convention: str) -> float:
    return float(Variables(shape, seq_len).get("flops_per_token", convention))
