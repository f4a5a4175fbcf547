"""Fit the constants of the model of throughput to runs, and validate it on what was left out.

The fit is a robust one with priors: with e the error of ln tokens/s over 0.1, a run adds 2*(sqrt(1 + e^2) - 1) times
its weight, and a constant ((ln value - ln prior)/ln_sd)^2. Runs of one model, device and precision, of which releases
repeat many, weigh 1/sqrt(n) each.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from moeplan.cost.training.throughput.runs import Run
from moeplan.cost.training.throughput.settings import Constants, constants, priors
from moeplan.errors import UsageError

Vector = Any
_ERROR = 0.10
"""Error of ln tokens/s beyond which a run counts by its distance, not the square of it."""
_FEWEST = 8
"""Runs that a fit needs."""


@dataclass(frozen=True)
class Calibration:
    """Constants fitted to runs."""

    constants: Constants
    """The values."""
    ln_stderr: dict[str, float]
    """Standard error of the logarithm of each fitted one."""
    errors: tuple[float, ...]
    """Predicted over true tokens/s, less 1, of each run."""


@dataclass(frozen=True)
class LeftOut:
    """Errors of runs by fits that did not see their group."""

    what: str
    """The kind of group left out: model, device or family."""
    groups: tuple[str, ...]
    """The group of each run."""
    errors: tuple[float, ...]
    """Predicted over true tokens/s, less 1, of each run."""

    def of(self, group: str) -> list[float]:
        """Errors of one group."""
        return [error for name, error in zip(self.groups, self.errors, strict=True) if name == group]


@dataclass(frozen=True)
class Spread:
    """How large errors are."""

    count: int
    """Runs."""
    median: float
    """Median of their absolute values."""
    p90: float
    """90th percentile."""
    within_30: float
    """Share within 30 %."""
    bias: float
    """Median with its sign."""

    @classmethod
    def of(cls, errors: Sequence[float]) -> Spread:
        """Of some errors."""
        size = np.abs(np.asarray(errors))
        within = float(np.mean(size <= 0.30))
        bias = float(np.median(errors))
        return cls(len(size), float(np.median(size)), float(np.quantile(size, 0.9)), within, bias)


def predictions(runs: Sequence[Run], fitted: Constants | None = None) -> Vector:
    """Tokens a second of one GPU of each run."""
    return np.array([float(run.step(fitted).tokens_per_second) for run in runs])


def errors(runs: Sequence[Run], fitted: Constants | None = None) -> list[float]:
    """Predicted over true tokens/s, less 1, of each run."""
    true = np.array([run.tokens_per_second for run in runs])
    return [float(x) for x in predictions(runs, fitted) / true - 1]


def weights(runs: Sequence[Run]) -> Vector:
    """Weight of each run: near-duplicates of several releases share theirs."""
    kinds = [(run.model, run.device.name, run.precision) for run in runs]
    many = Counter(kinds)
    return np.array([run.weight / math.sqrt(many[kind]) for run, kind in zip(runs, kinds, strict=True)])


def fit(runs: Sequence[Run], start: Constants | None = None) -> Calibration:
    """The constants that runs and priors make most likely; raises `UsageError` for too few runs."""
    from scipy.optimize import least_squares

    if len(runs) < _FEWEST:
        raise UsageError(f"{len(runs)} runs are too few to fit throughput; give at least {_FEWEST}")
    known, base = priors(), constants()
    names = list(known)
    centre = np.log([known[name].centre for name in names])
    ln_sd = np.array([known[name].ln_sd for name in names])
    true = np.log([run.tokens_per_second for run in runs])
    weight = np.sqrt(weights(runs))

    def unpack(logs: Vector) -> Constants:
        return dataclasses.replace(base, **{n: float(x) for n, x in zip(names, np.exp(logs), strict=True)})

    def residuals(logs: Vector) -> Vector:
        error = (np.log(predictions(runs, unpack(logs))) - true) / _ERROR
        robust = np.sign(error) * np.sqrt(2 * (np.sqrt(1 + error**2) - 1))
        return np.concatenate([robust * weight, (logs - centre) / ln_sd])

    first = centre if start is None else np.log([getattr(start, name) for name in names])
    found = least_squares(residuals, first, x_scale=ln_sd, diff_step=1e-3, ftol=1e-5, max_nfev=25)
    covariance = np.linalg.inv(found.jac.T @ found.jac)
    best = unpack(found.x)
    stderr = {n: float(x) for n, x in zip(names, np.sqrt(np.diag(covariance)), strict=True)}
    return Calibration(best, stderr, tuple(errors(runs, best)))


GROUPS: dict[str, Callable[[Run], str]] = {
    "model": lambda run: run.model,
    "device": lambda run: run.device.name,
    "family": lambda run: run.family,
}
"""Groups of runs that can be left out together."""


def leave_out(runs: Sequence[Run], what: str, start: Constants | None = None) -> LeftOut:
    """Errors of each run by a fit to the runs of the other groups."""
    groups = [GROUPS[what](run) for run in runs]
    result = [0.0] * len(runs)
    for group in dict.fromkeys(groups):
        kept = [run for run, name in zip(runs, groups, strict=True) if name != group]
        own = [i for i, name in enumerate(groups) if name == group]
        found = errors([runs[i] for i in own], fit(kept, start).constants)
        for i, error in zip(own, found, strict=True):
            result[i] = error
    return LeftOut(what, tuple(groups), tuple(result))


def mfu_rank(runs: Sequence[Run], found: Sequence[float]) -> float:
    """Kendall's tau between the MFU of runs, as shares of the bf16 peak, and that predicted with errors `found`."""
    from scipy.stats import kendalltau

    flops = [float(run.step().model_flops / run.step().tokens) for run in runs]
    true = [run.tokens_per_second * f / run.device.bf16_flops for run, f in zip(runs, flops, strict=True)]
    predicted = [mfu * (1 + error) for mfu, error in zip(true, found, strict=True)]
    return float(kendalltau(true, predicted).statistic)


def half_width(found: Sequence[float], share: float = 0.8) -> float:
    """Half-width in ln tokens/s of the interval around a prediction that holds `share` of runs with these errors."""
    return float(np.quantile(np.abs(np.log1p(np.asarray(found))), share))


def coverage(left_out: LeftOut, share: float = 0.8) -> float:
    """Share of runs inside intervals whose width comes from the left-out errors of the other groups alone."""
    inside = 0
    for group in dict.fromkeys(left_out.groups):
        others = [e for name, e in zip(left_out.groups, left_out.errors, strict=True) if name != group]
        width = half_width(others, share)
        inside += sum(abs(math.log1p(error)) <= width for error in left_out.of(group))
    return inside / len(left_out.errors)


def site_scale(runs: Sequence[Run], fitted: Constants | None = None) -> float:
    """True over predicted tokens/s of a site: the median over its runs, one number for all of its designs."""
    if not runs:
        raise UsageError("no run tells how fast the site is; give at least one")
    return float(np.median([1 / (1 + error) for error in errors(runs, fitted)]))


@dataclass(frozen=True)
class Validation:
    """A fit to a table of runs, and how it does on what it did not see."""

    fit: Calibration
    """The fit to all of them."""
    left_out: tuple[LeftOut, ...]
    """Errors with each model, device and family left out."""
    mfu_rank: float
    """Kendall's tau of MFU over left-out models."""
    coverage: float
    """Share of runs of left-out models inside intervals for 80 % that other models' left-out errors give."""
    design_ln_sd: float
    """Standard deviation in ln tokens/s that those intervals imply."""


def validate(runs: Sequence[Run]) -> Validation:
    """Fit all runs, then each set without one model, device or family; minutes for a few hundred runs."""
    whole = fit(runs)
    left_out = {
        what: leave_out(runs, what, whole.constants) for what in GROUPS if len({GROUPS[what](r) for r in runs}) > 1
    }
    if "model" not in left_out:
        raise UsageError("all runs are of one model; give runs of two or more, so that one can be left out")
    by_model = left_out["model"]
    return Validation(
        whole,
        tuple(left_out.values()),
        mfu_rank(runs, by_model.errors),
        coverage(by_model),
        half_width(by_model.errors) / NormalDist().inv_cdf(0.9),
    )
