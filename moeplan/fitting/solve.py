"""Gauss-Newton with damping (Levenberg-Marquardt) on the whole objective, for many starts or draws at a time.

Each step minimises the quadratic that touches the Huber function from above (weights min(1, delta/|r|)), so that the
objective falls at every accepted step. Coordinates at a bound whose gradient points outward are held there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moeplan.fitting.problem import Problem
from moeplan.numerics import Floats

MAX_STEPS = 400
"""Steps after which a point is taken as it is."""
TOLERANCE = 1e-11
"""A point has converged when a step moves ln predictions by less than this (root mean square)."""
_LEAST_DAMPING, _MOST_DAMPING = 1e-14, 1e12
CHUNK = 1 << 22
"""Numbers in the Jacobian of one chunk of points: what stays in memory without harm."""


@dataclass(frozen=True)
class Solutions:
    """Where each start or draw ended."""

    y: Floats
    """Coordinates, (B, P)."""
    objective: Floats
    """The objective there, (B,)."""
    converged: Floats
    """Whether it converged, (B,), 0 or 1."""
    steps: int
    """Most steps that any of them took."""


def solve(
    problem: Problem,
    starts: Floats,
    multiplicity: Floats | None = None,
    *,
    centers: Floats | None = None,
    box: tuple[Floats, Floats] | None = None,
    tolerance: float = TOLERANCE,
    max_steps: int = MAX_STEPS,
) -> Solutions:
    """The nearest minimum of the objective from each of `starts` (B, P).

    `multiplicity` (B, R) weighs the runs; `centers` (B, P) are where the prior of each pulls to, in place of the
    problem's own; `box` are bounds (B, P) of each, in place of the form's.
    """
    size = max(1, CHUNK // (problem.num_runs * starts.shape[1]))
    low, high = (np.broadcast_to(bound, starts.shape) for bound in (box or problem.bounds()))
    parts = []
    for first in range(0, len(starts), size):
        part = slice(first, first + size)
        given = _Given(
            low[part],
            high[part],
            None if multiplicity is None else multiplicity[part],
            None if centers is None else centers[part],
        )
        parts.append(_solve(problem, starts[part], given, tolerance, max_steps))
    return Solutions(
        y=np.concatenate([part.y for part in parts]),
        objective=np.concatenate([part.objective for part in parts]),
        converged=np.concatenate([part.converged for part in parts]),
        steps=max(part.steps for part in parts),
    )


@dataclass(frozen=True)
class _Given:
    """Bounds and weights of each point of a batch."""

    low: Floats
    """Bounds from below, (B, P)."""
    high: Floats
    """Bounds from above, (B, P)."""
    multiplicity: Floats | None
    """Weights of the runs, (B, R)."""
    centers: Floats | None
    """Where its prior pulls to, (B, P)."""

    def of(self, keep: Any) -> _Given:
        """The same for some of the points."""
        multiplicity = None if self.multiplicity is None else self.multiplicity[keep]
        return _Given(
            self.low[keep], self.high[keep], multiplicity, None if self.centers is None else self.centers[keep]
        )


def _solve(problem: Problem, starts: Floats, given: _Given, tolerance: float, max_steps: int) -> Solutions:
    y = np.clip(starts, given.low, given.high)
    residuals, jacobian = problem.residuals(y)
    value = problem.objective(y, residuals, given.multiplicity, given.centers)
    damping = np.full(len(y), 1e-3)
    converged = np.zeros(len(y))
    best_y, best_value = y.copy(), value.copy()
    alive = np.arange(len(y))  # what the working arrays hold
    steps = 0
    for steps in range(1, max_steps + 1):  # noqa: B007  # reported
        step, moved = _step(problem, y, residuals, jacobian, damping, given)
        trial = np.clip(y + step, given.low, given.high)
        trial_residuals, trial_jacobian = problem.residuals(trial)
        trial_value = problem.objective(trial, trial_residuals, given.multiplicity, given.centers)
        better = trial_value <= value
        done = (moved < tolerance) | ((damping >= _MOST_DAMPING) & ~better)
        damping = np.clip(np.where(better, damping / 8, damping * 5), _LEAST_DAMPING, _MOST_DAMPING)
        y = np.where(better[:, None], trial, y)
        value = np.where(better, trial_value, value)
        residuals = np.where(better[:, None], trial_residuals, residuals)
        if better.all():
            jacobian = trial_jacobian
        else:
            jacobian[better] = trial_jacobian[better]
        best_y[alive], best_value[alive] = y, value
        converged[alive[done & np.isfinite(value)]] = 1.0
        keep = ~done & np.isfinite(value)
        if not keep.any():
            break
        if not keep.all():
            alive, y, value, damping, given = alive[keep], y[keep], value[keep], damping[keep], given.of(keep)
            residuals, jacobian = residuals[keep], jacobian[keep]
    return Solutions(best_y, best_value, converged, steps)


def _step(
    problem: Problem, y: Floats, residuals: Floats, jacobian: Floats, damping: Floats, given: _Given
) -> tuple[Floats, Floats]:
    """The damped step (B, P), and the root mean square change of ln predictions that it means (B,)."""
    weights = problem.weights(residuals)
    total = float(problem.num_runs)
    if given.multiplicity is not None:
        weights = weights * given.multiplicity
    slope = np.matmul(jacobian, (weights * residuals)[:, :, None])[:, :, 0]
    hessian = np.matmul(jacobian * weights[:, None, :], jacobian.transpose(0, 2, 1))
    if problem.pull is not None:
        center = problem.pull.center if given.centers is None else given.centers
        slope = slope + (y - center) * problem.pull.curvature
        hessian = hessian + np.diag(problem.pull.curvature)
    held = ((y <= given.low) & (slope > 0)) | ((y >= given.high) & (slope < 0))
    slope = np.where(held, 0.0, slope)
    diagonal = np.einsum("bpp->bp", hessian).copy()
    # A column without any effect must not make the system singular.
    floor = 1e-30 + 1e-14 * diagonal.max(axis=1, keepdims=True)
    scale = np.where(held, 0.0, 1 / np.sqrt(np.maximum(diagonal, floor)))
    scaled = hessian * scale[:, :, None] * scale[:, None, :]
    index = np.arange(y.shape[1])
    scaled[:, index, index] = 1 + damping[:, None]
    step = -scale * np.linalg.solve(scaled, (scale * slope)[:, :, None])[:, :, 0]
    change = np.einsum("bp,bpq,bq->b", step, hessian, step)
    return step, np.sqrt(np.maximum(change, 0.0) / total)
