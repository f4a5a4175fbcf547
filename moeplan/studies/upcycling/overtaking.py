"""When a MoE from scratch overtakes an upcycled one, by liew2025."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from moeplan.architecture.shape import Architecture
from moeplan.laws import load_law
from moeplan.numerics.bisection import first_where
from moeplan.studies.upcycling.result import Crossing
from moeplan.units import format_count

LAW = "liew2025"
"""The law of upcycling."""
_SOUGHT = (1e8, 1e13)
"""Tokens between which a crossing is looked for; beyond, the law's curves cross again, which nothing supports."""


def overtaking_tokens(base_params: float, base_tokens: float) -> float | None:
    """Tokens D2 at which liew2025's MoE from scratch overtakes the upcycled one; None if it does not.

    The first crossing of L_scratch(N1, D2) and L_upcycled(N1, D1, D2) between 1e8 and 1e13 tokens, where the one from
    scratch is worse before.
    """

    def overtaken(tokens: float) -> bool:
        return _scratch_loss(base_params, tokens) <= _upcycled_loss(base_params, base_tokens, tokens)

    low, high = _SOUGHT
    grid = np.geomspace(low, high, 200)
    first = next((i for i, tokens in enumerate(grid) if overtaken(float(tokens))), None)
    if first is None:
        return None
    if first == 0:
        return low
    return float(first_where(overtaken, float(grid[first - 1]), float(grid[first])))


@functools.cache
def _fits() -> tuple[Any, Any]:
    law = load_law(LAW)
    return law.fits["scratch"], law.fits["upcycled"]


def _scratch_loss(base_params: float, tokens: float) -> float:
    return float(_fits()[0](base_params, tokens))


def _upcycled_loss(base_params: float, base_tokens: float, tokens: float) -> float:
    return float(_fits()[1](base_params, base_tokens, tokens))


def crossing_of(params: int, dense_tokens: float, tokens: int, per_token: float, shape: Architecture) -> Crossing:
    """What the law says of a dense model of `params` on `dense_tokens`, made into `shape` and trained on `tokens`."""
    where = overtaking_tokens(params, dense_tokens)
    domain, fixed = _fits()[1].domain, _fits()[1].fixed
    values = {"base_params": params, "base_tokens": dense_tokens, "tokens": tokens}
    outside = [
        f"{name} {format_count(values[name])} ({format_count(low)}–{format_count(high)})"
        for name, (low, high) in domain.items()
        if not low <= values[name] <= high
    ]
    outside += [f"{name} {getattr(shape, name)} (only {value:g})" for name, value in fixed.items()
                if getattr(shape, name) != value]  # fmt: skip
    outside += ["a shared expert"] * bool(shape.num_shared_experts)
    same: float | None = None
    if not outside:
        wanted = _upcycled_loss(params, dense_tokens, tokens)
        low, high = _SOUGHT
        if _scratch_loss(params, high) <= wanted:
            same = float(first_where(lambda t: _scratch_loss(params, t) <= wanted, low, high))
    return Crossing(where, None if where is None else where * per_token, same, not outside, tuple(outside))
