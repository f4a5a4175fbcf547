"""Intervals of draws."""

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
