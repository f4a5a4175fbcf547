"""A fitted quantity with its interval."""

from __future__ import annotations

import math

from moeplan.estimates import Estimate
from moeplan.fitting.bootstrap import Draws
from moeplan.numerics import Floats
from moeplan.numerics.intervals import interval


def estimate(values: Floats, drawn: Draws | None, level: float) -> Estimate | None:
    """The fit's own value (the first) with the interval of the draws' (the others); None where it is not finite."""
    if not math.isfinite(values[0]):
        return None
    ends = () if drawn is None else interval(values[1:], level)
    return Estimate(float(values[0]), *(end if math.isfinite(end) else None for end in ends))
