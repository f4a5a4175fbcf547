"""Learning rates of a study: which are tried for each arm, which one is taken, and how it is carried to other widths.

One size of each arm tries three rates, then further ones until those that could be taken are inside; the rules are the
same for both arms.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from moeplan.errors import InfeasibleError
from moeplan.verification.spec import RunSpec

TUNING_FACTORS = (0.5, 1.0, 2.0)
"""Learning rates tried first, in units of `TUNING_CENTRE`'s; more follow where the best is at an edge."""
STEADY = 0.02
"""Largest excess of loss over the best rate's at which a smaller rate is taken, the same in both arms. One run a rate
cannot tell 2 % apart, and what looks best may be a rate at which only some seeds train: at the dense arm's best, .048
at d32, two seeds of d32L1 at 7.6e10 FLOPs ended 11 % apart and of d48L1 21 %; at half of it three seeds of d32L1 lay
within 2 %, at a mean 2 % lower. At 3e11 FLOPs half of it costs the best size .3 % at most."""
MOST_RATES = 7
"""Most learning rates that an arm tries: further ones by the same factor until the best is inside."""
TUNING_CENTRE = 0.048
"""Middle of the learning rates tried, at d_model `TUNING_WIDTH` [AdamW, matrices], the same for both arms: of .016,
.032 and .064 the best were .032 or .064 in either arm (d32L1, 1.1e11 to 1.5e11 FLOPs)."""
TUNING_BUDGET = 2.0
"""Compute of a tuning run in units of the ladder's base, the same for both arms: the best rate of the smallest dense
budget is not that of larger ones (d32L1: .016 at 1.5e10 FLOPs, but 5 % more loss than .032 at 6e10)."""
TUNING_WIDTH = 32
"""The width that `TUNING_CENTRE` is for [features]."""
TUNING_SEED = 0
"""Seed of the tuning runs; those that are measured have 1, 2, ..., so that no tuned run is counted."""

Transfer = Callable[[float, int, int], float]
"""From the tuned rate and its d_model to the rate at another d_model."""


def transfer_learning_rate(rate: float, from_d_model: int, to_d_model: int) -> float:
    """The learning rate of another width: rate * sqrt(from_d_model / to_d_model).

    A spec's learning_rate is that of the matrices; embedding and norms learn at learning_rate * d_model / 64. Under
    Adam 1/width is the rule for matrices of very wide models (Yang et al. 2022, arXiv 2203.03466, table 3), but proxies
    are not wide and their runs are short. Measured over 400 steps of 1536 tokens of Python, loss by rate, one or two
    seeds: dense d32L1 .032 2.175, .064 2.088, d96L2 .0107 1.976, .0185 1.906, .032 1.889, .064 2.143; MoE (184 experts,
    k = 8) d32L1 .032 2.065, .064 1.955, d64L1 .016 1.947, .0226 1.914, .032 1.856, .064 1.956. So the best rate falls
    by about 2 where the width of dense models triples. With .032 at d32, 1/width costs the larger size .07 (dense) and
    .03 (MoE) more than 1/sqrt(width); with .064 the two are about equal.
    """
    return rate * math.sqrt(from_d_model / to_d_model)


def bracketing(tried: Sequence[tuple[RunSpec, float]], most: int = MOST_RATES) -> tuple[RunSpec, ...]:
    """One more rate for each arm where it could change what `steady` takes; () where none could.

    Up where the best so far is the largest tried, down where the one taken is the smallest. `tried` has the loss of
    each tuning run, infinite where it diverged. An arm whose runs all diverged goes down, and none tries more than
    `most`.
    """
    more = []
    for arm in dict.fromkeys(spec.arm for spec, _ in tried):
        own = sorted(((spec, loss) for spec, loss in tried if spec.arm == arm), key=lambda pair: pair[0].learning_rate)
        best = min(range(len(own)), key=lambda place: own[place][1])
        down = steady([loss for _, loss in own]) == 0
        if len(own) >= most or not (down or best == len(own) - 1):
            continue
        spec = own[0 if down else -1][0]
        factor = TUNING_FACTORS[0] if down else TUNING_FACTORS[-1]
        more.append(dataclasses.replace(spec, learning_rate=float(f"{spec.learning_rate * factor:.4g}")))
    return tuple(more)


def steady(losses: Sequence[float]) -> int:
    """The place of the first loss within `STEADY` of the least; losses are by rising rate."""
    return next(place for place, loss in enumerate(losses) if loss <= (1 + STEADY) * min(losses))


def tuned_rates(losses: Sequence[tuple[RunSpec, float]]) -> dict[str, float]:
    """The rate that `steady` takes of each arm's; raises `InfeasibleError` if all of an arm diverged."""
    rates: dict[str, float] = {}
    for arm in dict.fromkeys(spec.arm for spec, _ in losses):
        own = sorted((spec.learning_rate, loss) for spec, loss in losses if spec.arm == arm and math.isfinite(loss))
        if not own:
            raise InfeasibleError(f"every learning rate tried for the {arm} arm diverged; nothing can be measured")
        rates[arm] = own[steady([loss for _, loss in own])][0]
    return rates
