"""Infeasibility: why a search finds nothing, in one sentence with the nearest value that would work."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from moeplan.errors import InfeasibleError, UsageError
from moeplan.plan.budget import Budget
from moeplan.plan.search.scores import Scores
from moeplan.plan.search.space import Space
from moeplan.plan.search.variables import DESIGN_VARIABLES
from moeplan.texts import counted
from moeplan.units import format_bytes, format_count, format_flops

_FREED = {
    "shared_ratio": {"shared_ratio": (0.0, 1.0)},
    "G": {"G": (0.0, 1e9)},
    "attention_share": {"attention_share": (0.0, 1.0)},
}
"""Changes that take a bound off the grid, for bounds that none of its axes has."""


def why_no_designs(space: Space) -> str:
    """Why a space is empty: fixed and bounded variables, or the memory limit."""
    budget = space.budget
    if space.num_designs == 0:
        given = [*budget.fix, *budget.ranges]
        if not given:
            low, high = (100 * share for share in space.grid.attention_share)
            return (
                f"no architecture of the grid keeps attention within {low:g}-{high:g} % of its FLOPs at sequences "
                f"of {budget.seq_len} tokens; allow more with --range attention_share=0.25..0.9"
            )
        given = _clashing(space, given)
        for name in given:
            nearest = _nearest(space, name)
            if nearest is not None:
                others = [f"{x}={_range_text(budget, x)}" for x in given if x != name]
                together = f" with {', '.join(others)}" if others else ""
                return (
                    f"no architecture of the grid has {name}={_range_text(budget, name)}{together}; "
                    f"nearest is {_number(name, nearest)}"
                )
        everything = ", ".join(f"{name}={_range_text(budget, name)}" for name in given)
        return f"no architecture of the grid meets {everything} together"
    return _too_small(budget, space.smallest_bytes)


def _clashing(space: Space, given: list[str]) -> list[str]:
    """The fewest of the variables given that no architecture of the grid meets together."""

    def met(names: Sequence[str]) -> bool:
        budget = space.budget
        fix = {name: value for name, value in budget.fix.items() if name in names}
        ranges = {name: ends for name, ends in budget.ranges.items() if name in names}
        try:
            grid = dataclasses.replace(budget, fix=fix, ranges=ranges).grid(space.reference_grid)
        except (InfeasibleError, UsageError):
            return False
        return any(grid.product(d_model) is not None for d_model in grid.d_model)

    few = (names for size in range(1, len(given)) for names in itertools.combinations(given, size))
    return list(next((names for names in few if not met(names)), given))


def _too_small(budget: Budget, smallest_bytes: float) -> str:
    held = ", ".join(f"{name}={_range_text(budget, name)}" for name in (*budget.fix, *budget.ranges))
    what = f"any MoE of the grid with {held}" if held else "any MoE of the grid"
    needed = smallest_bytes / (1 - budget.headroom)
    devices = budget.num_devices
    each = f"{devices}x" if devices > 1 else ""
    return (
        f"memory limit {budget.memory} is too small for {what}: the smallest needs "
        f"{each}{format_bytes(_ceiling(max(needed, 1e6)), 4)}, {100 * budget.headroom:g} % headroom included"
    )


def why_none_feasible(space: Space, scores: Scores) -> str:
    """The condition that leaves none of a space's designs, with the nearest value that the others allow."""
    budget = space.budget
    everything = np.arange(len(space))
    fits = space.memory <= budget.usable_bytes
    if not fits.any():
        return _too_small(budget, float(space.memory.min()))
    names = (*budget.fix, *budget.ranges)
    values = {name: space.values(name, everything, scores) for name in names}
    inside = {}
    for name in names:
        low, high = budget.limits(name) or (0.0, np.inf)
        inside[name] = (low <= values[name]) & (values[name] <= high)
    # What is served may cost all of the budget: a design that is left less than a token to train on is near nothing.
    paid = fits & (space.values("tokens", everything, scores) >= 1) if budget.served_tokens else fits
    for name in names:
        others = paid.copy()
        for other in names:
            if other != name:
                others &= inside[other]
        if others.any() and not (others & inside[name]).any():
            low, high = budget.limits(name) or (0.0, np.inf)
            options = values[name][others]
            distance = np.maximum(low - options, options - high)
            nearest = float(options[np.argmin(distance)])
            together = [f"{other}={_range_text(budget, other)}" for other in names if other != name]
            under = " with " + ", ".join(together) if together else ""
            return (
                f"no design that fits {limits_text(budget)} has "
                f"{name}={_range_text(budget, name)}{under}; nearest is {_number(name, nearest)}"
            )
    met = np.logical_and.reduce([fits, *inside.values()]) if paid.any() else fits
    if met.any():
        active = float(space.values("active_params", everything, scores)[met].min())
        reason = _why_not_served(space, met) if budget.demand.serve_gpus is not None else ""
        reason = reason or _too_much_served(budget, active)
        if reason:
            return reason
    if budget.multiple_of:
        multiples = ", ".join(f"{name} of {multiple}" for name, multiple in budget.multiple_of.items())
        return f"no design that fits {limits_text(budget)} has multiples: {multiples}; leave out the largest"
    given = ", ".join(f"{name}={_range_text(budget, name)}" for name in names)
    if budget.gpus and met.any():  # what is left are the GPUs and how they are to be used
        layout = f" by the layout {budget.layout}; leave it to the search" if budget.layout else "; give more GPUs"
        held = f" with {given}" if given else ""
        return f"no design that fits {limits_text(budget)}{held} trains on {budget.gpus}{layout}"
    return f"no design that fits {limits_text(budget)} meets {given} together"


def _too_much_served(budget: Budget, active_params: float) -> str:
    """What serving alone costs where the design of fewest active params has nothing left to train on; "" otherwise."""
    if budget.pays_hours or 2 * active_params * budget.served_tokens < budget.flops:
        return ""
    most = budget.flops / (2 * active_params)
    return (
        f"no design can be trained on {limits_text(budget)}: serving {format_count(budget.served_tokens)} tokens alone "
        f"costs more, whatever the design; serve at most {format_count(0.9 * most, 2)} tokens"
    )


def _why_not_served(space: Space, meets: Any) -> str:
    """What keeps all that meet the rest from being served as asked, or leaves nothing to train with; "" if neither."""
    budget, demand = space.budget, space.budget.demand
    seconds = np.concatenate([np.asarray(block.served_seconds) for block in space.blocks])[meets]
    if not np.isfinite(seconds).any():
        each = [
            np.broadcast_to(
                demand.throughput(block.designs, budget.serving, 1 - budget.headroom).fastest, block.memory.shape
            )
            for block in space.blocks
        ]
        fastest = float(np.concatenate(each)[meets].max())
        if not fastest:
            return (
                f"no design that fits {budget.memory} fits {demand.serve_gpus} with a sequence of "
                f"{demand.load.context:,} tokens and {100 * budget.headroom:g} % headroom; serve on more devices"
            )
        return (
            f"no design that fits {budget.memory} answers at {demand.tokens_per_second_per_user:g} tokens a second per "
            f"user on {demand.serve_gpus}; the fastest reaches {_floor(fastest)}"
        )
    share = float(budget.serving_share(seconds).min()) if budget.pays_hours else 0.0
    if share >= 1:
        return (
            f"serving {format_count(demand.served)} tokens on {demand.serve_gpus} alone takes {share:.3g} times the "
            f"budget of {format_count(budget.gpu_hours)} GPU-hours, whatever the design; serve at most "
            f"{format_count(0.9 * demand.served / share, 2)} tokens"
        )
    return ""


def _ceiling(value: float) -> float:
    """A number rounded up to four digits, so that it can be asked for as it is printed."""
    scale = 10.0 ** (np.floor(np.log10(value)) - 3)
    return float(np.ceil(value / scale) * scale)


def _floor(value: float) -> str:
    """A number rounded down to two digits, so that it can be asked for."""
    scale = 10.0 ** (np.floor(np.log10(value)) - 1)
    return f"{np.floor(value / scale) * scale:g}"


def _nearest(space: Space, name: str) -> float | None:
    """The value nearest to a bounded variable that the grid has under the other conditions; None if none helps."""
    freed: dict[str, Any] = _FREED.get(name, {})
    axes = {"num_layers": ("num_layers", "min_layers", "max_layers")}.get(name, (name,))
    freed = freed or {axis: getattr(space.reference_grid, axis) for axis in axes if hasattr(space.grid, axis)}
    low, high = space.budget.limits(name) or (0.0, np.inf)
    values = dataclasses.replace(space.grid, **freed).values(name)
    nearest = min(values, key=lambda x: max(low - x, x - high), default=None)
    return None if nearest is None or low <= nearest <= high else nearest


def limits_text(budget: Budget) -> str:
    """The limits of a budget, in words."""
    flops = counted(budget.days, "day(s)") if budget.timed else f"{format_flops(budget.flops)} FLOPs"
    return flops + (f" and {budget.memory}" if budget.memory else "")


def _number(name: str, value: float) -> str:
    if DESIGN_VARIABLES[name].integer:
        return str(int(value))
    return format_count(value, 4) if value >= 1e4 else f"{value:.4g}"


def _range_text(budget: Budget, name: str) -> str:
    if name in budget.fix:
        return _number(name, budget.fix[name])
    low, high = budget.ranges[name]
    return f"{_number(name, low)}..{_number(name, high)}"
