"""What a plan would be if the same budget also had to serve its users: `if_served(choice)`.

Laboratories' choices of active params are nearest to a demand of three times their own training tokens
(`moeplan.studies.labs`), so a plan that counts training alone says what that would change.
"""

from __future__ import annotations

import dataclasses
import math

from moeplan.errors import InfeasibleError, UsageError
from moeplan.plan.budget import Budget
from moeplan.plan.choice import Choice, choose_design
from moeplan.plan.life import IfServed

MULTIPLE = 3.0
"""Tokens served / the plan's own training tokens."""


def if_served(choice: Choice) -> IfServed | None:
    """The best design with `MULTIPLE` times the choice's tokens to serve; None if some are served, or none can be."""
    if choice.budget.served_tokens:
        return None
    served = float(f"{MULTIPLE * choice.tokens:.2g}")
    try:
        space = choice.space.at(_serving(choice.budget, served))
        other = choose_design(space, choice.laws, opinions=False)
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


def _serving(budget: Budget, served: float) -> Budget:
    """The same budget with tokens to serve, paid in GPU-hours where the devices are known."""
    flops = 0.0 if budget.days else budget.flops  # the days make them again
    if budget.demand.serve_gpus is not None and budget.gpus is not None:
        try:
            return dataclasses.replace(budget, flops=flops, demand=dataclasses.replace(budget.demand, served=served))
        except UsageError:  # devices of two kinds without prices
            pass
    return dataclasses.replace(budget, flops=flops, inference_tokens=served)
