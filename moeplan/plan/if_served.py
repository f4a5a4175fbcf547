"""What a plan would be if the same budget also had to serve its users: `if_served(choice)`.

Laboratories' choices of active params are nearest to a demand of three times their own training tokens
(`moeplan.studies.labs`), so a plan that counts training alone says what that would change.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from moeplan.errors import InfeasibleError, UsageError
from moeplan.plan.budget import Budget
from moeplan.plan.choice import Choice, choose_design, known_best
from moeplan.plan.life import IfServed
from moeplan.plan.search.space import TIE, Space

MULTIPLE = 3.0
"""Tokens served / the plan's own training tokens."""
_NEAR = 0.15
"""Share of V that such a demand seldom costs more than."""


def if_served(choice: Choice) -> IfServed | None:
    """The best design with `MULTIPLE` times the choice's tokens to serve; None if some are served, or none can be."""
    if choice.budget.served_tokens:
        return None
    served = float(f"{MULTIPLE * choice.tokens:.2g}")
    try:
        other = _best(choice, choice.space.at(_serving(choice.budget, served)))
    except InfeasibleError:
        return None
    return IfServed(
        served=served,
        multiple=MULTIPLE,
        total_params=other.architecture.total_params(),
        active_params=other.architecture.active_params(),
        tokens=other.tokens,
        value_ratio=math.exp(other.best_ln_value - choice.best_ln_value),
    )


def _best(choice: Choice, space: Space) -> Choice:
    """The best of a space that has the choice's designs and, for each of them, no more compute to train it on.

    No design gains by having less. So those near the choice's best, of known speed on GPUs, are judged first, and then
    all that, with the choice's own compute, reach what was found: no other can be better or tie.
    """
    scores = choice.scores  # on GPUs, of what was not asked exactly it has bounds
    value = np.where(choice.space.limit(scores).feasible, scores.unlimited_mean(choice.laws), -np.inf)
    near = scores.feasible & (value >= choice.best_ln_value + math.log1p(-_NEAR))
    reached = known_best(space.take(near), choice.laws) if near.any() else -math.inf
    needed = value >= reached + math.log1p(-TIE)  # all, where none of those near leaves compute to train on
    return choose_design(space.take(needed), choice.laws, opinions=False)


def _serving(budget: Budget, served: float) -> Budget:
    """The same budget with tokens to serve, paid in GPU-hours where the devices are known."""
    flops = 0.0 if budget.days else budget.flops  # the days make them again
    if budget.demand.serve_gpus is not None and budget.gpus is not None:
        try:
            return dataclasses.replace(budget, flops=flops, demand=dataclasses.replace(budget.demand, served=served))
        except UsageError:  # devices of two kinds without prices
            pass
    return dataclasses.replace(budget, flops=flops, inference_tokens=served)
