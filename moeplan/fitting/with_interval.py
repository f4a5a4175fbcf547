"""A fitted quantity with its interval."""

from __future__ import annotations

import math

import numpy as np

from moeplan.fitting.bootstrap import Draws
from moeplan.numerics import Floats
from moeplan.numerics.intervals import interval


def triple(values: Floats, drawn: Draws | None, level: float) -> tuple[float | None, float | None, float | None]:
    """The fit's own value (the first) and the interval of the draws' (the others); None for what is not finite."""
    first = float(values[0]) if np.isfinite(values[0]) else None
    if drawn is None:
        return first, None, None
    low, high = interval(values[1:], level)
    return first, low if math.isfinite(low) else None, high if math.isfinite(high) else None
