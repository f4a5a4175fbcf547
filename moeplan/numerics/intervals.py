"""Intervals of draws, and of the normal."""

from __future__ import annotations

import math

import numpy as np

from moeplan.numerics import Floats


def interval(values: Floats, level: float) -> tuple[float, float]:
    """The central interval of draws that holds a share `level` of them; NaN where fewer than half are finite."""
    finite = values[np.isfinite(values)]
    if 2 * len(finite) <= len(values):
        return math.nan, math.nan
    low, high = np.quantile(finite, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def normal_quantile(level: float) -> float:
    """Half-width of the central interval of a standard normal that holds a share `level`."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + level / 2)
