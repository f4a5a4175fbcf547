"""Intervals of coefficients that are only just identified: how far they reach, given that they are called so.

A coefficient is called identified where it comes out far enough from 0: z standard errors, at least c of them. Of
one whose true distance is less than c, just those estimates are shown that noise made too large, and an interval that
holds 90 % of the time holds far less often among them (the winner's curse). Where the ordinary interval, q standard
errors either way, reaches past c, the end nearer to 0 is therefore that of the normal cut off at c: the m at which

    P(Z >= z | Z >= c) = 1 - level,    Z normal about m with variance 1

About a true distance of at most c, intervals of those called identified err in just 1 - level of the cases, all on this
side: the other end, z + q, cannot lie below it. Further out the ordinary interval errs in at most that many. Where
either sign counts as identified, c bounds |Z|, and either side may err in half of 1 - level. Truncated normals for
estimates that are shown because of their size: Zhong and Prentice 2008, Biostatistics 9(4), for associations in a
genome; Lee, Sun, Sun and Taylor 2016, Annals of Statistics 44(3), for what a lasso selects.

A rule about a logarithm, such as a term known within a factor of 2, is one about z as well: the standard error of a
logarithm is 1/z. Predictions are not chosen by what they come out as, and draws stay as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from moeplan.laws.coefficients import Coordinate
from moeplan.numerics.bisection import first_where
from moeplan.numerics.intervals import normal_quantile

ONLY_JUST = "only just identified: one that came out a little nearer to 0 would not be, so the interval reaches further"


@dataclass(frozen=True)
class Standing:
    """How far from 0 a coefficient came out that is called identified, and how far it had to."""

    z: float
    """Distance from 0 [standard errors]."""
    least: float
    """The least distance at which it is called identified [standard errors]."""
    either_sign: bool = False
    """Whether it is called so on either side of 0."""


def reach(standing: Standing, level: float) -> float:
    """Distance from the estimate to the nearer end of its interval [standard errors], see the module; at most z where
    the sign is known."""
    z, ordinary = max(standing.z, standing.least), normal_quantile(level)
    if z - ordinary >= standing.least:
        return ordinary
    furthest = -standing.least if standing.either_sign else 0.0
    errs = (1 - level) / 2 if standing.either_sign else 1 - level
    end = first_where(lambda mean: _upper(z - mean) > errs * _called(standing, mean), furthest, z)
    return max(z - end, ordinary)


def _called(standing: Standing, mean: float) -> float:
    """P(called identified) about a true distance `mean`."""
    below = _upper(standing.least + mean) if standing.either_sign else 0.0
    return _upper(standing.least - mean) + below


def _upper(x: float) -> float:
    """P(Z >= x) of a standard normal."""
    return 0.5 * math.erfc(x / math.sqrt(2))


def of_identified(
    standing: Standing, value: float, low: float, high: float, level: float, coordinate: Coordinate
) -> tuple[float, float]:
    """The interval of a coefficient that is called identified, from the ordinary one, in the form's bounds.

    For a coefficient fitted as itself the half-width to the nearer end grows as `reach` does. For an amplitude that end
    falls by the factor by which that of its term does, of relative size 1 - reach/z. Any other positive coefficient may
    do nothing where it is 0 or where it is infinite, as the ratio at which a law saturates: both of its ends move so,
    and where they would reach both, it is not called identified at all.
    """
    ordinary, reached = normal_quantile(level), reach(standing, level)
    if reached <= ordinary:
        return low, high
    if coordinate.kind == "ln":
        left = max(1 - reached / standing.z, 0.0) / max(1 - ordinary / standing.z, 1e-300)
        if coordinate.affine:
            return low * left, high
        return max(low * left, coordinate.low), min(high / left, coordinate.high) if left else coordinate.high
    near, far = (low, high) if value > 0 else (high, low)
    near = value + (near - value) * reached / ordinary
    if not standing.either_sign:
        near = max(near, 0.0) if value > 0 else min(near, 0.0)
    return (near, far) if value > 0 else (far, near)


def is_only_just(standing: Standing, level: float) -> bool:
    """Whether its interval reaches further than an ordinary one."""
    return reach(standing, level) > normal_quantile(level)


def says_nothing(standing: Standing, level: float) -> bool:
    """Whether its interval reaches 0: where both ends move, it reaches infinity as well, and nothing is known."""
    return reach(standing, level) >= standing.z * (1 - 1e-9)
