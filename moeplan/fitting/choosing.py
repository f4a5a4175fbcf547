"""Which runs shrink most the regret of a choice: numbers alone, from draws of what is not known.

Given draws of the value U (B, J) of J designs one of which will be chosen, and of what each of I runs would measure,
P (B, I) with noise of variance s^2, all moments are those of the draws. Runs S leave (best linear prediction)

    Cov(U | S) = Cov(U) - Cov(U, P_S) (Cov(P_S) + s^2)^-1 Cov(P_S, U).

With p the share of draws in which each design is the best and W = diag(p) - p p', runs are chosen to minimise
tr(W Cov(U | S)): half the mean variance of the difference in value of two designs, each as likely as it is to be the
best, which is what makes a choice between them wrong. The criterion is linear in the covariance (L-optimality), so the
gain of every run is exact and found at once, and greedy choice with exchanges (Fedorov 1972, Theory of Optimal
Experiments) comes near its minimum. Draws of a nonlinear law take the place of a Jacobian at one point.
"""

from __future__ import annotations

import math

import numpy as np

from moeplan.boxes import Floats

EXCHANGES = 10
"""Most rounds in which every run may be exchanged for a better one."""
REPEATS = 20
"""Measurements simulated for each draw when the regret to expect is estimated."""


def contrasts(values: Floats) -> Floats:
    """U W^(1/2), (B, J): what is to be known, from values (B, J)."""
    shares = np.bincount(np.argmax(values, axis=1), minlength=values.shape[1]) / len(values)
    centred = values - values.mean(axis=0)
    return np.asarray((centred - (centred @ shares)[:, None]) * np.sqrt(shares))


def choose(wanted: Floats, measured: Floats, noise: float, count: int) -> list[int]:
    """`count` runs, the most valuable first; one run may be chosen several times.

    `wanted` (B, J) are draws of what is to be known, `measured` (B, I) of what each run would measure, `noise` is the
    variance of one measurement.
    """
    both = _Known(wanted, measured, noise)
    known, chosen = both, list[int]()
    for _ in range(count):
        chosen.append(known.best())
        known = known.after(chosen[-1])
    for _ in range(EXCHANGES):
        before = list(chosen)
        for place in range(count):
            rest = both
            for run in chosen[:place] + chosen[place + 1 :]:
                rest = rest.after(run)
            chosen[place] = rest.best(chosen[place])
        if chosen == before:
            break
    ordered, left, known = list[int](), list(chosen), both
    while left:
        ordered.append(left.pop(int(np.argmax(known.gains()[left]))))
        known = known.after(ordered[-1])
    return ordered


def roots(draws: Floats) -> Floats:
    """Draws (B, ...) about their mean, over sqrt(B): their inner products are covariances."""
    return np.asarray((draws - draws.mean(axis=0)) / math.sqrt(len(draws)))


def left_by(wanted: Floats, measured: Floats, noise: float) -> Floats:
    """Draws (B, J) about 0 whose covariance is what measurements (B, S) leave of that of the draws `wanted`."""
    known = _Known(roots(wanted), roots(measured), noise)
    for run in range(measured.shape[1]):
        known = known.after(run)
    return np.asarray(known.wanted * math.sqrt(len(wanted)))


class _Known:
    """Columns whose inner products are covariances, given the runs so far."""

    def __init__(self, wanted: Floats, measured: Floats, noise: float) -> None:
        self.wanted, self.measured, self.noise = wanted, measured, noise

    def gains(self) -> Floats:
        """How much each run takes off the sum of the variances of what is wanted, (I,)."""
        spread = (self.measured**2).sum(axis=0) + self.noise
        return np.asarray(((self.wanted.T @ self.measured) ** 2).sum(axis=0) / spread)

    def best(self, unless: int | None = None) -> int:
        """The run that gains most; `unless`, where no other gains more by a part in a million."""
        gains = self.gains()
        found = int(np.argmax(gains))
        return unless if unless is not None and gains[found] <= gains[unless] * (1 + 1e-6) else found

    def after(self, run: int) -> _Known:
        """Given one more measurement of `run`: draws times the square root of the update (Potter 1963)."""
        c = self.measured[:, run]
        total = float(c @ c) + self.noise
        step = c / (total + math.sqrt(self.noise * total))
        return _Known(
            self.wanted - np.outer(step, c @ self.wanted), self.measured - np.outer(step, c @ self.measured), self.noise
        )


def regrets(values: Floats, own: Floats, measured: Floats, noise: float, *, seed: int) -> tuple[float, float]:
    """Mean regret of choosing by `own` values (J,) now, and to expect after measurements (B, S) of some runs.

    Under each draw taken as the truth, runs are measured with noise, values predicted anew from them, and the design
    that is then the best is compared with the best under the draw.
    """
    deviations, seen = values - values.mean(axis=0), measured - measured.mean(axis=0)
    count = len(values)
    covariance = seen.T @ seen / count + noise * np.eye(seen.shape[1])
    weights = np.linalg.solve(covariance, seen.T @ deviations / count)
    best, rows = values.max(axis=1), np.arange(count)
    rng = np.random.default_rng(seed)
    after = 0.0
    for _ in range(REPEATS):
        measurements = seen + math.sqrt(noise) * rng.standard_normal(seen.shape)
        chosen = np.argmax(own + measurements @ weights, axis=1)
        after += float((best - values[rows, chosen]).mean()) / REPEATS
    return float((best - values[:, int(np.argmax(own))]).mean()), after
