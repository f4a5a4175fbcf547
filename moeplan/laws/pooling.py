"""One leverage of several laws, with an interval that controlled studies calibrate: `pooled_leverage`.

Every law that knows dense models is one opinion y = ln EL and has one vote, for each is of another publication. An
opinion is as sure as laws proved on controlled studies, and the less so the farther the design lies outside what the
law was measured on, by d factors of ten (`farthest`):

    v = SCATTER^2 + (PER_DECADE*d)^2,   mean = sum(y/v)/sum(1/v)

The mean's variance is q/sum(1/v) with q = max(1, sum((y - mean)^2/v)/(n - 1)): it grows where the laws differ by more
than they erred on the studies, and does not shrink where they happen to agree (the modified Knapp-Hartung rule of
random-effects meta-analysis, Student's t with n - 1 degrees of freedom; Stat. Med. 22 (2003) 2693, BMC Med. Res.
Methodol. 15 (2015) 99). On the studies the laws' errors averaged out; nothing shows that they still do beyond
everything measured, so that (PER_DECADE*D)^2, normal, is added for the D factors of ten of compute outside it.

SCATTER, MEASURED and STUDIES are what `moeplan backtest` gives (`moeplan.studies.backtest.intervals`), which also
judges the rule on every publication left out. PER_DECADE was fixed beforehand: it is the widening that tian2025's own
file states, and the scores hardly depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from moeplan.laws.law import Outside
from moeplan.quantities import SHARE, TIMES
from moeplan.records import Line

LEVEL = 0.9
"""Probability that the interval is meant to cover."""
SCATTER = 0.37
"""Root mean square of a law's ln(predicted/claimed) on studies, less what lies outside; one vote a publication."""
PER_DECADE = 0.17
"""Added to it in squares for each factor of ten outside, in ln EL."""
MEASURED = (2.4e17, 7.05e21)
"""Compute of everything measured [FLOPs]: the laws' ranges, and studies of a MoE and a dense model of equal loss."""
STUDIES = 11
"""Controlled studies that the rule is judged by."""
RANGE_ONLY = 2.0
"""Factors of ten outside everything measured beyond which leverage is a range, without a point."""

_NORMAL = 1.6449
"""Quantile of the normal distribution at (1 + LEVEL)/2."""
_STUDENT = (6.3138, 2.9200, 2.3534, 2.1318, 2.0150, 1.9432, 1.8946, 1.8595, 1.8331, 1.8125)
"""Quantile of Student's t at (1 + LEVEL)/2 for 1, 2, ... degrees of freedom."""


@dataclass(frozen=True)
class DenseWorth:
    """A dense model, its compute split into size and tokens as the leverage law finds best for dense models."""

    total_params: int
    """N [params], embeddings included."""
    tokens: int
    """D, training tokens."""
    train_flops: float
    """Its compute in the leverage law's FLOPs."""


@dataclass(frozen=True)
class PooledLeverage:
    """Efficiency Leverage by all laws that know dense models, with an interval that controlled studies calibrate."""

    efficiency_leverage: float | None
    """EL of the design as its compute is split, the laws' weighted geometric mean; null beyond two factors of ten."""
    low: Annotated[float, TIMES]
    """Lower end of the interval."""
    high: Annotated[float, TIMES]
    """Upper end of the interval."""
    level: Annotated[float, SHARE]
    """Probability that the interval is meant to cover."""
    decades_outside: float
    """How far the design's compute lies outside everything measured, in factors of 10."""
    weights: Annotated[dict[Line, float], SHARE]
    """The laws with their weights, which add up to 1."""
    by_law: Annotated[dict[Line, float], TIMES]
    """EL by each of these laws, of the design as its compute is split."""
    studies: int
    """Controlled studies that the interval is judged by."""
    rule: Line
    """What the interval is made of."""
    dense: DenseWorth | None
    """The dense model of equal loss at this EL; null without one."""
    dense_low: DenseWorth
    """The one at the lower end."""
    dense_high: DenseWorth
    """The one at the upper end."""

    @property
    def middle(self) -> float:
        """The middle of the interval on a scale of ratios: EL, where there is a point."""
        return math.sqrt(self.low * self.high)


@dataclass(frozen=True)
class Pool:
    """Opinions pooled in ln EL."""

    mean: float
    """Their weighted mean."""
    half_width: float
    """Half-width of the interval about it."""
    weights: tuple[float, ...]
    """Their weights, which add up to 1."""


def pool(logs: Sequence[float], decades: Sequence[float], beyond: float, scatter: float = SCATTER) -> Pool:
    """Opinions in ln EL, each so many decades outside its own law's range, pooled `beyond` everything measured."""
    precisions = [1 / (scatter**2 + (PER_DECADE * d) ** 2) for d in decades]
    total = sum(precisions)
    mean = sum(p * y for p, y in zip(precisions, logs, strict=True)) / total
    free = max(1, len(logs) - 1)
    spread = sum(p * (y - mean) ** 2 for p, y in zip(precisions, logs, strict=True)) / free
    student = _STUDENT[min(free, len(_STUDENT)) - 1]
    half_width = math.hypot(student * math.sqrt(max(1.0, spread) / total), _NORMAL * PER_DECADE * beyond)
    return Pool(mean, half_width, tuple(p / total for p in precisions))


def farthest(outside: Iterable[Outside]) -> float:
    """How far a design lies outside a law's range, in factors of ten: by the variable that is farthest out.

    Active params and tokens count as one, their distances added: laws that give ranges of both, and none of compute,
    are then as far from a design as those that give one of compute.
    """
    decades = {o.variable: o.decades for o in outside}
    return max(decades.pop("active_params", 0.0) + decades.pop("tokens", 0.0), *decades.values(), 0.0)


def beyond(train_flops: float, measured: tuple[float, float] = MEASURED) -> float:
    """How far a compute [FLOPs] lies outside everything measured, in factors of ten."""
    low, high = measured
    return max(0.0, math.log10(low / train_flops), math.log10(train_flops / high))
