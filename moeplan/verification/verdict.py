"""The verdict of a measured leverage on a plan: four of them, and when each is given.

A plan claims a side: its predicted Efficiency Leverage lies above 1 or below. Short runs cannot test its size, and the
law's domain (1e18 FLOPs and more) lies above everything that trains in minutes, so only the side is judged:

* **consistent**: the whole interval of the measured leverage lies on the plan's side of 1.
* **inconsistent in sign**: the whole interval lies on the other side, the router is healthy, and the law, extrapolated
  to the proxies' own compute, expects the plan's side there too.
* **router unhealthy**: not consistent, and some expert has more than `UNHEALTHY_LOAD` times the mean load. This is a
  fault of the short training, not evidence against the plan.
* **underpowered**: everything else. The interval contains 1, or there is one seed and no interval; or the runs are too
  small to contradict the plan, because the law itself, extrapolated, expects the other side at this compute.

An extrapolated number can thus make a verdict be withheld; nothing passes or fails by it. The plan's side is that of
its predicted leverage; if the prediction's own interval contains 1 there is no side, and nothing to be consistent with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from moeplan.verification.estimate import MeasuredLeverage

Verdict = Literal["consistent", "inconsistent in sign", "underpowered", "router unhealthy"]

UNHEALTHY_LOAD = 4.0
"""Largest load of an expert / mean load above which a router has not balanced; healthy short runs end at 1.6 to 3.7."""


@dataclass(frozen=True)
class VerdictReached:
    """A verdict and its reason."""

    verdict: Verdict
    """One of the four."""
    reason: str
    """Why, in a sentence."""


def side(leverage: float) -> int:
    """1 above a leverage of 1, -1 below, 0 at it."""
    return (leverage > 1) - (leverage < 1)


def resolved_side(low: float, high: float) -> int:
    """The side of 1 that a whole interval lies on; 0 if it contains 1."""
    return side(low) if side(low) == side(high) else 0


def reach_verdict(
    measured: MeasuredLeverage, *, plan_low: float, plan_high: float, law_here: float, load: float
) -> VerdictReached:
    """The verdict on one measured leverage.

    `plan_low` and `plan_high` are the interval of the plan's prediction, `law_here` the law extrapolated to the
    compute of the proxies, `load` the largest load of an expert in the runs behind it.
    """
    claimed = resolved_side(plan_low, plan_high)
    found = resolved_side(measured.low, measured.high) if measured.degrees_of_freedom else 0
    if claimed == 0:
        return VerdictReached("underpowered", "the plan's own interval contains 1, so it claims no side to check")
    wins = "above" if claimed > 0 else "below"
    if found == claimed:
        return VerdictReached("consistent", f"the whole interval lies {wins} 1, as the plan's prediction does")
    if load > UNHEALTHY_LOAD:
        return VerdictReached(
            "router unhealthy",
            f"an expert has {load:.1f} times the mean load (healthy: at most {UNHEALTHY_LOAD:g}), so the MoE was not "
            "trained well enough to judge it",
        )
    if not measured.degrees_of_freedom:
        return VerdictReached("underpowered", "one seed has no spread, so there is no interval; give two seeds or more")
    if found == 0:
        return VerdictReached("underpowered", "the interval contains 1")
    if side(law_here) != claimed:
        return VerdictReached(
            "underpowered",
            f"the interval lies on the other side of 1 than the plan, but so does the law extrapolated to this compute "
            f"({law_here:.2g}): runs this small cannot contradict the plan",
        )
    return VerdictReached(
        "inconsistent in sign", f"the whole interval lies on the other side of 1: the plan predicts {wins} 1"
    )


def seeds_needed(measured: MeasuredLeverage) -> int | None:
    """Seeds at which the interval would leave 1 out, if the leverage is what was measured; None if none would.

    The half-width towards 1 is taken to fall as 1/sqrt(seeds), and a tenth is spared: the next draw has its own luck.
    """
    effect = math.log(measured.efficiency_leverage)
    if measured.bound or not measured.degrees_of_freedom or effect == 0:
        return None
    half_width = abs(effect - math.log(measured.low if effect > 0 else measured.high))
    return max(measured.seeds, math.ceil(measured.seeds * (1.1 * half_width / abs(effect)) ** 2))
