"""From losses to ratios of compute: a power law over compute, with an irreducible level that is given."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def fitted_exponent(flops: Sequence[float], losses: Sequence[float], irreducible: float) -> tuple[float, float]:
    """(ln A, exponent) of L = irreducible + A*C^-exponent through runs, least squares in ln(L - irreducible)."""
    slope, intercept = np.polyfit(np.log(flops), np.log(np.array(losses) - irreducible), 1)
    return float(intercept), -float(slope)


def compute_multiple(loss: float, other: float, irreducible: float, exponent: float) -> float:
    """How many times its compute a model of loss `other` needs to reach `loss`, by L = irreducible + A*C^-exponent.

    ((L_other - irreducible)/(L - irreducible))^(1/exponent), the "effective speedup" of the Marin project.
    """
    return math.exp(math.log((other - irreducible) / (loss - irreducible)) / exponent)


def interpolated_compute(flops: Sequence[float], losses: Sequence[float], loss: float, irreducible: float) -> float:
    """The compute at which a ladder of runs has `loss`, nan where it lies outside their losses.

    Between two runs ln C is linear in ln(L - irreducible). Runs are in the order of rising compute, falling loss.
    """
    heights = np.log(np.array(losses) - irreducible)
    wanted = math.log(loss - irreducible)
    if not heights[-1] <= wanted <= heights[0]:
        return math.nan
    return math.exp(float(np.interp(-wanted, -heights, np.log(flops))))


def extrapolated_compute(flops: Sequence[float], losses: Sequence[float], loss: float, irreducible: float) -> float:
    """The compute at which the power law fitted through a whole ladder has `loss`."""
    ln_amplitude, exponent = fitted_exponent(flops, losses, irreducible)
    return math.exp((ln_amplitude - math.log(loss - irreducible)) / exponent)
