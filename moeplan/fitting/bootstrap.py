"""How far the coefficients may be off: the fit repeated under random weights of the runs.

Each draw gives every run (or every cluster of runs that rise and fall together) a random weight of mean 1, the smooth
form of drawing runs with replacement (Rubin 1981, The Bayesian Bootstrap): a draw never loses a corner of the design
altogether, which matters with a few dozen runs. With a prior, each draw also pulls to a centre drawn from it.

Intervals are percentiles of the draws, of coefficients and of anything computed from them. Weights are exponential,
of variance 1, for an objective with linear tails. A quadratic one hugs few runs too closely, so weights are gamma, of
variance f^2, which spreads draws f times as far: f = (t/z * sqrt(n/(n - p)))^q, n runs (or clusters), p coefficients
that the runs determine, t and z the quantiles of Student's t with n - p degrees of freedom and of the normal, q the
share of the runs in the quadratic part of the objective. In its linear part, where runs scatter by much more than
delta, q is near 0: the draws of such an objective spread enough as they are. A fit passes through p runs whatever they
scatter by (least absolute values: Koenker and Bassett 1978, theorem 3.1); these are not counted.

Draws spread by their weights, and are not drawn apart afterwards: where runs leave coefficients a curved valley, or one
of them a bound, points beyond the draws lie off the valley, and their predictions to one side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeplan.fitting.problem import Problem
from moeplan.fitting.solve import solve
from moeplan.numerics import Floats
from moeplan.numerics.intervals import normal_quantile

TOLERANCE = 1e-6
"""Root mean square change of ln predictions at which a draw has converged: a thousandth of any run's own noise."""
MAX_STEPS = 400
"""Steps after which a draw is taken as it is."""
PER_COEFFICIENT = 3
"""Runs (or clusters) for each coefficient, below which there are no intervals: draws of an objective with linear tails
hug the runs that it passes through, and theirs cover 60 to 80 % where 90 % are meant (`tests.coverage`)."""


@dataclass(frozen=True)
class Draws:
    """Coefficients as they might have come out."""

    y: Floats
    """Coordinates of each draw, (B, P)."""
    variance: float
    """Variance of the weights."""
    unconverged: int
    """Draws that did not converge."""


def bootstrap(
    problem: Problem,
    fitted: Floats,
    count: int,
    *,
    seed: int = 0,
    level: float = 0.9,
    clusters: NDArray[np.intp] | None = None,
    determined: int | None = None,
) -> Draws:
    """`count` draws around `fitted` (K, P), the fit first and then other minima nearly as good, tried as well.

    `clusters` (R,) numbers the runs' clusters from 0; `determined` is how many coefficients the runs determine.
    """
    rng = np.random.default_rng(seed)
    units = problem.num_runs if clusters is None else int(clusters.max()) + 1
    coefficients = len(problem.names) if determined is None else determined
    residuals, _ = problem.residuals(fitted[:1])
    variance = stretch(residuals[0], problem.delta, units, coefficients, level) ** 2
    weights = np.maximum(rng.gamma(1 / variance, size=(count, units)), 1e-100)  # not all 0 at a huge variance
    weights /= weights.mean(axis=1, keepdims=True)
    if clusters is not None:
        weights = weights[:, clusters]
    centers = None
    if problem.pull is not None:
        centers = problem.pull.center + problem.pull.width * rng.standard_normal((count, len(problem.names)))
    best_y, best = np.tile(fitted[0], (count, 1)), np.full(count, np.inf)
    converged = np.zeros(count)
    for start in fitted:
        found = solve(
            problem,
            np.tile(start, (count, 1)),
            weights,
            centers=centers,
            tolerance=TOLERANCE,
            max_steps=MAX_STEPS,
        )
        better = found.objective < best
        best_y[better], best[better] = found.y[better], found.objective[better]
        converged[better] = found.converged[better]
    return Draws(best_y, variance, int(count - converged.sum()))


def stretch(residuals: Floats, delta: float, units: int, coefficients: int, level: float) -> float:
    """The factor f by which draws must spread further than under exponential weights; see the module."""
    from scipy.special import stdtrit

    freedom = max(units - coefficients, 1)
    students = float(stdtrit(freedom, 0.5 + level / 2)) / normal_quantile(level)
    passed = min(coefficients / units, 1 - 1 / units)
    quadratic = max((float((np.abs(residuals) <= delta).mean()) - passed) / (1 - passed), 0.0)
    return float((students * math.sqrt(units / freedom)) ** quadratic)
