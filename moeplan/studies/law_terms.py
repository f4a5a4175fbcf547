"""Laws' statements on their terms, held against the default grid: designs of every width, from 1e18 to 1e26 FLOPs."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from moeplan.architecture.conventions import ARCHITECTURAL, Variables
from moeplan.laws import Fit, Law
from moeplan.laws.terms import TermResult, box, check_terms
from moeplan.plan.search.designs import Designs
from moeplan.plan.search.grid import Grid

BUDGETS = tuple(10.0**power for power in range(18, 27))
"""Training FLOPs at which the grid's designs are trained here."""
_PER_WIDTH = 60
"""Designs of each width."""
_GRID = Grid()
ELSEWHERE: Mapping[str, tuple[float, float]] = {
    "base_params": (1e7, 1e12),
    "base_tokens": (1e9, 1e13),
    "nonzero_params": (1e6, 1e12),
    "weight_sparsity": (1e-3, 0.95),
    "unique_tokens": (1e9, 1e13),
    "tokens": (1e9, 1e14),
}
"""Ranges of variables that no architecture has."""


def term_results(law: Law) -> list[TermResult]:
    """Every statement that a law's file makes of its terms, checked; empty for a file that makes none."""
    stating = [fit for fit in law.fits.values() if fit.terms or not fit.variables]
    return [result for fit in stating for result in check_terms(fit, samples(fit))]


def samples(fit: Fit) -> dict[str, Any]:
    """Values of a fit's variables over the default grid, in its own conventions; over ranges where it has others."""
    if not set(fit.variables) <= set(ARCHITECTURAL):
        return box({name: ELSEWHERE[name] for name in fit.variables})
    if not fit.variables:
        return {"": np.zeros(1)}
    columns: dict[str, list[Any]] = {name: [] for name in fit.variables}
    for designs in _designs():
        variables = Variables(designs, _GRID.seq_len)
        per_token = variables.get("flops_per_token")
        for budget in BUDGETS:
            values = variables.select(fit.variables, fit.conventions, budget / per_token)
            for name, column in zip(fit.variables, values, strict=True):
                columns[name].append(np.broadcast_to(column, per_token.shape))
    return {name: np.concatenate(parts) for name, parts in columns.items()}


@functools.cache
def _designs() -> tuple[Designs, ...]:
    """Some designs of every width of the default grid, evenly spread over its order."""
    blocks = [block for d_model in _GRID.d_model if (block := _GRID.block(d_model)) is not None]
    return tuple(b.take(np.linspace(0, len(b) - 1, min(_PER_WIDTH, len(b))).astype(int)) for b in blocks)
