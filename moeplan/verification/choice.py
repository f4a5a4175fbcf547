"""The largest ladder that a time, a budget and the text allow."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

from moeplan.architecture.shape import Architecture
from moeplan.errors import InfeasibleError, UsageError
from moeplan.units import format_count, format_duration, format_flops
from moeplan.verification.ladder import (
    LEAST_STEPS,
    MAX_EPOCHS,
    STEP,
    Data,
    Ladder,
    Seconds,
    Settings,
    ladder_flops,
    ladder_seconds,
    least_steps,
    make_ladder,
    most_epochs,
)
from moeplan.verification.options import duration_option, flops_option

FIRST_BASE = 1e9
"""The smallest base compute tried [FLOPs]."""


@dataclass(frozen=True)
class LadderChoice:
    """The ladder taken, and what kept it from being larger."""

    ladder: Ladder
    """The ladder."""
    limit: str
    """The limit that the next larger one breaks, in words."""


def choose_ladder(
    planned: Architecture,
    settings: Settings,
    data: Data,
    *,
    time: float | None = None,
    budget: float | None = None,
    seconds: Seconds | None = None,
    workers: int = 1,
    at_least: bool = False,
) -> LadderChoice:
    """The largest ladder within `time` [s] (by the forecast `seconds`), or within `budget` [FLOPs], and the data.

    Raises `InfeasibleError` where even the smallest ladder that means anything is too large, with what it needs; with
    `at_least` the smallest is taken however long it lasts, for a time that nobody asked for.
    """
    if (time is None) == (budget is None):
        raise UsageError("give either a time or a compute budget for the proxy runs, not both")
    best: Ladder | None = None
    for power in itertools.count():
        ladder = make_ladder(planned, FIRST_BASE * STEP**power, settings, data.vocab_size)
        if least_steps(ladder) < LEAST_STEPS:
            continue
        broken = _broken(ladder, data, time, budget, seconds, workers)
        if broken:
            if best is None and at_least and most_epochs(ladder, data) <= MAX_EPOCHS:
                return LadderChoice(ladder, "")
            if best is None:
                less = "" if most_epochs(ladder, data) > MAX_EPOCHS else _less(planned, ladder, data, seconds, workers)
                raise InfeasibleError(f"even the smallest ladder of proxy runs needs {broken}{less}")
            return LadderChoice(best, broken)
        best = ladder
    raise AssertionError("every ladder fits")


def _less(planned: Architecture, ladder: Ladder, data: Data, seconds: Seconds | None, workers: int) -> str:
    """The least that a ladder needs as an option, and what a smaller question would, as the end of a sentence."""

    def least(of: Ladder) -> str:
        if seconds is None:
            return f"--budget {flops_option(ladder_flops(of, data))}"
        return f"--time {duration_option(ladder_seconds(of, data, seconds, workers))}"

    settings = ladder.settings
    if settings == dataclasses.replace(settings, seeds=1, controls=False):
        return f"; give {least(ladder)}"
    smaller = make_ladder(planned, ladder.base, dataclasses.replace(settings, seeds=1, controls=False), data.vocab_size)
    without = " without --controls" if settings.controls else ""
    return f"; give {least(ladder)}, or --seeds 1{without} with {least(smaller)}, which tells no interval"


def _broken(
    ladder: Ladder, data: Data, time: float | None, budget: float | None, seconds: Seconds | None, workers: int
) -> str:
    """The limit that a ladder breaks, as the end of a sentence; "" if none."""
    epochs = most_epochs(ladder, data)
    if epochs > MAX_EPOCHS:
        return (
            f"{epochs:.1f} epochs of the {format_count(data.train_tokens)} training tokens, more than {MAX_EPOCHS:g}; "
            "give more text with --data"
        )
    if budget is not None:
        total = ladder_flops(ladder, data)
        return f"{format_flops(total)} FLOPs, more than {format_flops(budget)}" if total > budget else ""
    assert time is not None
    assert seconds is not None
    needed = ladder_seconds(ladder, data, seconds, workers)
    return f"about {format_duration(needed)}, more than {format_duration(time)}" if needed > time else ""
