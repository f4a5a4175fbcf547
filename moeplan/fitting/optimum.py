"""The optimum of a fitted law at a compute budget: size against tokens under C = 6*Na*D, with everything else held.

Sizes are continuous and counted as the runs count them. Total params follow active ones at the runs' own ratio; every
other variable stays at the runs' middle. Batched over draws, so that the optimum has an interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from moeplan.laws.signatures import FORMS, form_variables
from moeplan.numerics import Floats

FLOPS_PER_PARAM = 6
"""Training FLOPs of one token per active param (Hoffmann et al. 2022, Appendix F, and every law's C = 6*N*D)."""
SIZES = ("active_params", "total_params", "base_params", "nonzero_params")
"""Variables that are a model's size."""


@dataclass(frozen=True)
class HeldVariables:
    """Variables held while the size is varied, with their values."""

    form: str
    """The form."""
    total_over_active: float
    """Total params / active params; 1 for dense models."""
    others: Mapping[str, float]
    """Every variable of the form but size and tokens."""

    def variables(self, active_params: Any, tokens: Any) -> list[Any]:
        """The form's variables, in order, at sizes and tokens."""
        values: dict[str, Any] = dict.fromkeys(SIZES, active_params) | dict(self.others)
        values |= {"total_params": active_params * self.total_over_active, "tokens": tokens}
        return [values[name] for name in form_variables(self.form)]

    def loss(self, coefficients: Mapping[str, Any], active_params: Any, train_flops: Any) -> Any:
        """The prediction at sizes (..., S) for coefficients (...)."""
        tokens = train_flops / (FLOPS_PER_PARAM * active_params)
        columns = {name: np.asarray(value)[..., None] for name, value in coefficients.items()}
        with np.errstate(all="ignore"):
            return FORMS[self.form](*self.variables(active_params, tokens), **columns)


def has_optimum(form: str) -> bool:
    """Whether a form trades size against tokens."""
    variables = form_variables(form)
    return "tokens" in variables and any(name in variables for name in SIZES)


def optimal_active_params(shape: HeldVariables, coefficients: Mapping[str, Any], train_flops: Any) -> Floats:
    """The size of least loss at a budget; NaN where it is at no finite size.

    One for each draw of `coefficients` (B,), or for each of several budgets (B,). A grid over eight decades around the
    square root of C/6, then finer ones around the least value.
    """
    budgets = np.atleast_1d(np.asarray(train_flops, dtype=float))
    count = max(len(np.atleast_1d(next(iter(coefficients.values())))), len(budgets))
    middle = np.log(np.sqrt(budgets / FLOPS_PER_PARAM))[:, None]
    grid = np.broadcast_to(middle + np.linspace(-9.0, 9.0, 145), (count, 145))
    at = _least(shape, coefficients, grid, budgets[:, None])
    edge = (at <= grid[:, 0] + 1e-9) | (at >= grid[:, -1] - 1e-9)
    step = grid[0, 1] - grid[0, 0]
    for _ in range(4):
        fine = at[:, None] + np.linspace(-step, step, 17)
        at = _least(shape, coefficients, fine, budgets[:, None])
        step /= 8
    return np.asarray(np.where(edge, np.nan, np.exp(at)))


def _least(shape: HeldVariables, coefficients: Mapping[str, Any], grid: Floats, train_flops: Floats) -> Floats:
    losses = np.asarray(shape.loss(coefficients, np.exp(grid), train_flops))
    best = np.argmin(np.where(np.isfinite(losses), losses, np.inf), axis=1)
    return np.asarray(grid[np.arange(len(grid)), best])
