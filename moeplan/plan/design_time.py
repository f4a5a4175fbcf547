"""Training time of designs beside a plan's on its GPUs, and the price of each: `design_times(choice, indices)`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from moeplan.plan.choice import Choice
from moeplan.plan.training_run import DesignTime


def design_times(choice: Choice, indices: Sequence[int]) -> tuple[DesignTime, ...]:
    """The times of the designs at `indices` of a choice's search, whose speed is known; none without GPUs."""
    if choice.clock is None or not indices:
        return ()
    places = sorted({choice.index, *indices})
    kept = np.zeros(len(choice.space), dtype=bool)
    kept[places] = True
    at_equal = choice.space.take(kept).score(choice.flops).unlimited_mean(choice.laws)
    value = dict(zip(places, at_equal.tolist(), strict=True))
    own = mfu_and_days(choice, choice.index)
    found = []
    for index in indices:
        mfu, days = mfu_and_days(choice, index)
        found.append(DesignTime(mfu, days, math.exp(value[index] - value[choice.index]), own[0] / mfu))
    return tuple(found)


def mfu_and_days(choice: Choice, index: int) -> tuple[float, float]:
    """Utilisation, and days with pauses, of a design of a choice on GPUs whose speed is known."""
    clock, budget = choice.clock, choice.budget
    assert clock is not None
    assert budget.gpus is not None
    peak = budget.gpus.count * budget.gpus.device.bf16_flops
    per_token = float(choice.space.flops_per_token[index])
    tokens = float(math.floor(choice.scores.tokens[index]))
    mfu = budget.mfu or float(clock.speeds.tokens_per_second[index]) * per_token / peak
    goodput = 1.0 if budget.mfu else budget.goodput
    return mfu, tokens * per_token / (mfu * peak * goodput) / 86400
