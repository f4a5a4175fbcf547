"""The fitted law beside the bundled ones: optima and efficiency at a budget, never losses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from moeplan.fitting.optimum import SIZES, HeldVariables, has_optimum, optimal_active_params
from moeplan.fitting.result import BundledOptimum
from moeplan.laws import Fit, law_names, load_law
from moeplan.numerics import Floats

_REACH, _STEPS = 1e4, 40
"""How far below a budget an equivalent one is sought, and in how many steps a decade the fitted law is tabulated."""


def compare(
    shape: HeldVariables, coefficients: Mapping[str, float], budgets: list[float], *, dense: bool
) -> tuple[BundledOptimum, ...]:
    """Optima of the bundled laws of the same reach at `budgets`, judged by the fitted law.

    Of the same reach are laws that predict loss from size, tokens and variables that the runs have, and that speak of
    the same kind of model.
    """
    found = []
    if not budgets:
        return ()
    own = {name: np.array([value]) for name, value in coefficients.items()}
    table = _table(shape, own, budgets)
    for law_name in law_names():
        fit = load_law(law_name).objective
        if fit is None or not _same_reach(fit, shape, dense):
            continue
        others = {**shape.others, **(fit.dense if dense else {})}
        theirs = HeldVariables(
            fit.form, shape.total_over_active, {name: others[name] for name in fit.variables if name in others}
        )
        for train_flops in budgets:
            size = optimal_active_params(theirs, {k: np.array([v]) for k, v in fit.coefficients.items()}, train_flops)[
                0
            ]
            if not np.isfinite(size):
                continue
            found.append(
                BundledOptimum(
                    law=f"{law_name}/{fit.name}",
                    train_flops=train_flops,
                    active_params=float(size),
                    tokens=train_flops / (6 * float(size)),
                    efficiency=_efficiency(shape, own, table, float(size), train_flops),
                )
            )
    return tuple(found)


def _same_reach(fit: Fit, shape: HeldVariables, dense: bool) -> bool:
    if fit.predicts != "loss" or not has_optimum(fit.form):
        return False
    if dense and not (fit.is_dense_only or fit.dense):
        return False
    if not dense and fit.is_dense_only:
        return False
    known = {"tokens", *SIZES, *shape.others, *(fit.dense if dense else ())} - {"base_params", "nonzero_params"}
    return set(fit.variables) <= known


def _table(shape: HeldVariables, own: Mapping[str, Floats], budgets: list[float]) -> tuple[Floats, Floats]:
    """ln C and the fitted law's least loss there, over all budgets and what lies below them."""
    low, high = min(budgets) / _REACH, max(budgets)
    flops = np.geomspace(low, high, int(_STEPS * np.log10(high / low)) + 2)
    sizes = optimal_active_params(shape, own, flops)
    losses = np.asarray(shape.loss(own, sizes[:, None], flops[:, None]))[:, 0]
    found = np.isfinite(losses)
    return np.log(flops[found]), losses[found]


def _efficiency(
    shape: HeldVariables, own: Mapping[str, Floats], table: tuple[Floats, Floats], size: float, train_flops: float
) -> float | None:
    """The budget at which the fitted law's own best is as good as `size` at `train_flops`, over that budget."""
    ln_flops, losses = table
    loss = float(np.asarray(shape.loss(own, np.array([[size]]), train_flops))[0, 0])
    if len(losses) < 2 or not losses[-1] <= loss <= losses[0] or (np.diff(losses) >= 0).any():
        return None
    return min(1.0, float(np.exp(np.interp(-loss, -losses, ln_flops)) / train_flops))
