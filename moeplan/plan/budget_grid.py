"""The grid of a budget: the declared one, narrowed or widened to what the budget fixes and bounds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from moeplan.architecture.proportions import SMALL_D_MODEL
from moeplan.errors import InfeasibleError
from moeplan.plan.search.grid import Grid

LARGEST = {"d_model": 65536, "num_experts": 8192, "d_expert": 65536, "num_heads": 512, "num_dense_layers": 1}
"""Largest sizes that a grid is widened to."""


def narrowed(
    base: Grid,
    fix: Mapping[str, float],
    ranges: Mapping[str, tuple[float, float]],
    limits: Callable[[str], tuple[float, float] | None],
) -> Grid:
    """`base` with the axes that `fix` and `ranges` leave; `limits` are both, as least and largest value of a variable.

    Raises `InfeasibleError` for a value that the divisibility rules forbid, with the nearest ones that they allow.
    """
    changes: dict[str, Any] = {}
    for axis, largest in LARGEST.items():
        own = limits(axis)
        if own and own[1] > largest * (1 + 1e-6):
            raise InfeasibleError(f"{axis}={own[1]:g} is beyond any grid here; the largest is {largest}")
    for axis, step in (("d_model", 64), ("num_experts", 8), ("d_expert", 16), ("num_heads", 4)):
        if axis in fix:
            value = int(fix[axis])
            if axis in ("d_model", "d_expert") and value >= SMALL_D_MODEL:
                step = 128 if axis == "d_model" else 64
            if value < step or value % step:
                lower = value // step * step
                near = f"are {lower} and {lower + step}" if lower else f"is {step}"
                raise InfeasibleError(f"{axis}={value} must be a multiple of {step}; nearest {near}")
            changes[axis] = (value,)
        elif axis in ranges:
            changes[axis] = _within(getattr(base, axis), *ranges[axis], step)
    whole = (("num_active_experts", 1), ("num_shared_experts", 0), ("num_layers", 1), ("num_dense_layers", 0))
    for axis, least in whole:
        if limits(axis):
            first, last = (int(fix[axis]),) * 2 if axis in fix else map(int, ranges[axis])
            changes[axis] = tuple(range(max(first, least), min(last, 1024) + 1))
    if "num_layers" in changes:
        changes["min_layers"], changes["max_layers"] = 1, 1024
    if limits("granularity") and not (limits("num_active_experts") or limits("G")):
        # Fine experts need many of them to keep the attention share.
        changes["num_active_experts"] = (*base.num_active_experts, 16, 20, 24, 32)
    if "granularity" in fix:
        changes["granularity"] = (float(fix["granularity"]) or 1.0,)
    elif "granularity" in ranges:
        low, high = ranges["granularity"]
        outside = [x for x in (low, high) if x > 0 and not 2 <= x <= 16]
        changes["granularity"] = tuple(sorted({x for x in base.granularity if low <= x <= high} | set(outside))) or (
            max(low, 1e-3),
        )
    # Ratios and sums that the declared axes cannot reach widen them.
    if limits("shared_ratio") and not limits("num_shared_experts"):
        changes["num_shared_experts"] = tuple(range(9))
    active = limits("G")
    if active and not limits("num_active_experts"):
        most = max(changes.get("num_shared_experts", base.num_shared_experts))
        fewest, most = max(1, int(active[0]) - most), min(int(active[1]), 1024)
        changes["num_active_experts"] = tuple(range(fewest, max(most, fewest) + 1))
    for name in ("G", "shared_ratio"):
        bounds = limits(name)
        if bounds:
            changes[name] = bounds
    share = limits("attention_share")
    if share:
        changes["attention_share"] = share
    activation = limits("activation_ratio")
    if activation:
        changes["min_activation_ratio"] = min(base.min_activation_ratio, activation[0])
    return dataclasses.replace(base, **changes)


def _within(values: tuple[int, ...], low: float, high: float, step: int) -> tuple[int, ...]:
    """The axis' own values inside [low, high], the ends, and beyond the axis eight more steps a doubling."""
    inside = {x for x in values if low <= x <= high}
    first, last = -(-math.ceil(low) // step) * step, int(high) // step * step
    if first > last:
        raise InfeasibleError(f"{low:g}..{high:g} holds no multiple of {step}; nearest is {max(first, step)}")
    inside |= {max(first, step), last}
    beyond = max(values, default=step)
    while beyond < last:
        beyond += max(step, beyond // 8 // step * step)
        if low <= beyond <= high:
            inside.add(beyond)
    return tuple(sorted(inside))
