"""The noise of runs between seeds: how large it is at every rung, and how well that is known.

    ln s^2 = a_arm - b * ln D

with s the standard deviation of a run's ln loss and D its tokens. One level for all runs of an arm would be wrong by a
factor of ten: short runs begin to learn at a moment that hangs on the seed, long ones end up alike. Over 14 studies of
minutes (168 rungs of two or three seeds) b was 1.9 to 4.4 where the smallest run had 1e10 FLOPs or more; twice the log
likelihood rose by 157 for 14 parameters, more than with compute (121), steps (120) or loss (153) in place of D.

The coefficients maximise the gamma likelihood of the rungs' variances, which weighs relative errors alike (Davidian and
Carroll 1987, JASA 82, "Variance function estimation"). What all runs of a seed share (the same text in the same order)
is taken out before: it is in both arms and does not move a leverage.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moeplan.verification.groups import Array, Group

FLOOR = 1e-12
"""Least variance of ln loss that counts: a millionth of a loss is arithmetic, not noise."""


@dataclass(frozen=True)
class Noise:
    """The noise of two arms, together."""

    scales: tuple[Array, ...]
    """s of each group, arm by arm [ln nats/token]; 0 where no rung has two seeds."""
    pool: Array
    """Deviations of all runs from their groups' means in units of s, what their seed shares left out."""
    shared: dict[int, float]
    """What all runs of a seed share, as a deviation of ln loss."""
    uncertainty: Array
    """Covariance of ln s^2 over all groups, times a half: its inverse diagonal is the degrees of freedom of each."""

    def student_factor(self, pulls: Array, level: float) -> float:
        """Student's t quantile over the normal one, for a sum of which each group brings the variance `pulls`.

        Degrees of freedom are 2 / Var(ln of the variance), as a chi-square's; with one level of noise an arm that is
        the formula of Welch (1947) and Satterthwaite (1946).
        """
        total = float(pulls.sum())
        if not total or not self.uncertainty.any():
            return 1.0
        shares = pulls / total
        freedom = 1.0 / float(shares @ self.uncertainty @ shares)
        from scipy.special import ndtri, stdtrit

        tail = 0.5 + level / 2
        return float(stdtrit(freedom, tail) / ndtri(tail))


def noise_of(arms: Sequence[Sequence[Group]]) -> Noise:
    """The noise of the runs of each arm."""
    groups = [group for arm in arms for group in arm]
    deviations = [_deviations(group) for group in groups]
    shared = {
        seed: float(np.median([own[seed] for own in deviations if seed in own] or [0.0]))
        for seed in sorted({seed for group in groups for seed in group.seeds})
    }
    own = [np.array([value - shared[seed] for seed, value in each.items()]) for each in deviations]
    repeated = [place for place, each in enumerate(own) if len(each)]
    if not repeated:
        nothing = tuple(np.zeros(len(arm)) for arm in arms)
        return Noise(nothing, np.zeros(1), shared, np.zeros((len(groups), len(groups))))
    X = _regressors(arms, repeated)
    weights = np.array([len(own[place]) - 1 for place in repeated], dtype=float)
    variances = np.array([max(float(np.mean(own[place] ** 2)), FLOOR) for place in repeated])
    scales = np.exp(X @ _gamma_fit(X[repeated], variances, weights) / 2)
    pool = np.concatenate([own[place] / scales[place] for place in repeated])
    information = X[repeated].T @ (X[repeated] * weights[:, None])
    ends = np.cumsum([0, *(len(arm) for arm in arms)])
    return Noise(
        tuple(scales[start:end] for start, end in itertools.pairwise(ends)),
        pool - pool.mean(),
        shared,
        X @ np.linalg.pinv(information) @ X.T,
    )


def _deviations(group: Group) -> dict[int, float]:
    """Deviations of ln losses from their mean by seed, stretched by sqrt(S/(S-1)); none of a single run."""
    logs = np.log(group.losses)
    if len(logs) < 2:
        return {}
    stretch = math.sqrt(len(logs) / (len(logs) - 1))
    return {seed: float(x - logs.mean()) * stretch for seed, x in zip(group.seeds, logs, strict=True)}


def _regressors(arms: Sequence[Sequence[Group]], repeated: Sequence[int]) -> Array:
    """A column an arm, and ln D; an arm without repeated runs has the level of the others."""
    arm = np.array([place for place, groups in enumerate(arms) for _ in groups])
    known = sorted(set(arm[list(repeated)]))
    arm = np.where(np.isin(arm, known), arm, known[0])
    log_tokens = np.log([group.tokens for groups in arms for group in groups])
    log_tokens -= log_tokens[list(repeated)].mean()
    return np.stack([*((arm == place).astype(float) for place in known), log_tokens], axis=1)


def _gamma_fit(X: Array, variances: Array, weights: Array) -> Array:
    """The coefficients c of ln variance = X @ c that minimise sum w * (v*exp(-X@c) + X@c), by Fisher scoring."""
    inverse = np.linalg.pinv(X.T @ (X * weights[:, None]))
    c = inverse @ X.T @ (weights * math.log(float(np.average(variances, weights=weights))))

    def cost(at: Array) -> float:
        return float(np.sum(weights * (variances * np.exp(-X @ at) + X @ at)))

    for _ in range(100):
        step = inverse @ X.T @ (weights * (variances * np.exp(-X @ c) - 1))
        while cost(c + step) > cost(c) and np.abs(step).max() > 1e-9:
            step = step / 2
        if np.abs(step).max() <= 1e-9:
            break
        c = c + step
    return np.asarray(c)
