"""How well a form predicts runs larger than those it is fitted to: the largest by compute are held out.

This is what a law is for, so it is asked before the final fit to all runs; forms are compared by it, too.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from moeplan.fitting.problem import Problem
from moeplan.fitting.result import HoldOut
from moeplan.fitting.start import fits
from moeplan.numerics import Floats
from moeplan.texts import counted

SHARE = 0.2
"""Share of the runs that is held out unless told otherwise."""


def hold_out(problem: Problem, train_flops: Floats | None, share: float = SHARE) -> tuple[HoldOut | None, str]:
    """Fit all but the largest `share` of the runs and predict these; or None, and why not."""
    if train_flops is None:
        return None, "the runs do not say their training compute, so none is the largest"
    count = round(share * problem.num_runs)
    if share == 0:
        return None, "no hold-out was asked for"
    order = np.argsort(train_flops, kind="stable")
    cut = train_flops[order[problem.num_runs - max(count, 1)]]
    held = train_flops >= cut * (1 - 1e-9)  # runs of one budget stay together
    fitted = int((~held).sum())
    if fitted <= len(problem.names) - len(problem.fixed) and problem.pull is None:
        return None, f"without the largest runs only {fitted} are left for {len(problem.names)} coefficients"
    if fitted < 3:
        return None, f"smaller than the largest: only {counted(fitted, 'run(s)')}"
    if any(np.ptp(x[~held]) <= 1e-9 * np.abs(x).max() for x in problem.variables):
        return None, "the smaller runs do not vary all that the form sees"
    train = part(problem, ~held)
    y = best_fit(train)
    inside, _ = train.residuals(y[None])
    outside, _ = part(problem, held).residuals(y[None])
    if not np.isfinite(outside).all():
        return None, "the fit to the smaller runs predicts no finite number for the largest"
    return (
        HoldOut(
            share=float(held.mean()),
            fitted=fitted,
            held_out=int(held.sum()),
            from_flops=float(cut),
            rms_fitted=rms(inside),
            rms=rms(outside),
            bias=float(-outside.mean()),
        ),
        "",
    )


def part(problem: Problem, keep: NDArray[np.bool_]) -> Problem:
    """The problem with some of its runs."""
    return dataclasses.replace(
        problem, variables=tuple(x[keep] for x in problem.variables), observed=problem.observed[keep]
    )


def best_fit(problem: Problem) -> Floats:
    """The coordinates (P,) of the least objective over all starts."""
    return np.asarray(fits(problem)[0])


def rms(residuals: Floats) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(residuals**2)))
