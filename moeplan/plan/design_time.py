"""Training time of designs beside a plan's on its GPUs, and the price of each: `design_times(choice, indices)`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from moeplan.plan.budget import Budget
from moeplan.plan.choice import Choice
from moeplan.plan.training_run import DesignTime


def design_times(choice: Choice, indices: Sequence[int]) -> tuple[DesignTime, ...]:
    """The times of the designs at `indices` of a choice's search, whose speed is known; none without GPUs."""
    if choice.clock is None or not indices:
        return ()
    places = sorted({choice.index, *indices})
    kept = np.zeros(len(choice.space), dtype=bool)
    kept[places] = True
    space, flops = choice.space.take(kept), choice.flops
    if choice.budget.served_tokens:  # equal compute of training: what serving takes is not taken from it once more
        space = space.at(_training_alone(choice.budget))
        flops = float(choice.scores.train_flops[choice.index])
    at_equal = space.score(flops).unlimited_mean(choice.laws)
    value = dict(zip(places, at_equal.tolist(), strict=True))
    own = mfu_and_days(choice, choice.index)
    found = []
    for index in indices:
        mfu, days = mfu_and_days(choice, index)
        found.append(DesignTime(mfu, days, math.exp(value[index] - value[choice.index]), own[0] / mfu))
    return tuple(found)


def _training_alone(budget: Budget) -> Budget:
    """The same budget with nothing to serve."""
    flops = 0.0 if budget.days else budget.flops  # the days make them again
    demand = dataclasses.replace(budget.demand, served=0.0)
    return dataclasses.replace(budget, flops=flops, inference_tokens=0.0, demand=demand)


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
