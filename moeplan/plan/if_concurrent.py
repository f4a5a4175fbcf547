"""What serving more users at a time would cost, where little room is left beside the weights: `if_concurrent(choice)`.

A plan that fills its memory often has room for the cache of a single sequence. Designs that hold more of them are among
those that the search has judged already, so this asks their memory alone: the answer is that of the same question with
`concurrency` set.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from moeplan.cost.inference_memory import total_inference_bytes
from moeplan.numerics import Floats
from moeplan.plan.choice import Choice
from moeplan.plan.document import IfConcurrent
from moeplan.plan.search.space import TIE
from moeplan.plan.serving_run import ServingUse

USERS = 64
"""Sequences at a time that a served model is expected to hold."""
_SHARES = (0.15, 0.5, 1.0)
"""Shares of V below the best within which designs are asked, one after the other until one has the memory."""


def if_concurrent(choice: Choice, serving: ServingUse) -> IfConcurrent | None:
    """The best design that serves `USERS` at a time in the same memory.

    None where the choice has room for them, where no memory limit is given, where what is served is part of the budget,
    or where no design has room.
    """
    room, budget = serving.concurrency, choice.budget
    if budget.memory is None or budget.served_tokens or budget.pays_hours:
        return None
    if budget.serving.concurrency >= USERS or (room is not None and room.most_sequences >= USERS):
        return None
    feasible = choice.space.limit(choice.scores).feasible
    value = np.where(feasible, choice.scores.unlimited_mean(choice.laws), -np.inf)  # on GPUs, bounds of it
    for share in _SHARES:
        least = choice.best_ln_value + math.log1p(-share) if share < 1 else -np.inf
        index = choice.best_among(_with_room(choice, feasible & (value >= least)))
        if index is None:
            continue
        here: Floats = choice.scores.mean(choice.laws)
        # What ties with the best was asked as well.
        if here[index] + math.log1p(-TIE) >= least:
            return _found(choice, index, float(here[index]))
    return None


def _with_room(choice: Choice, asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the designs that are asked hold so many sequences."""
    if not asked.any():
        return asked
    budget = choice.budget
    serving = dataclasses.replace(budget.serving, concurrency=USERS)
    bytes_of = (
        block.designs.count(lambda shape: total_inference_bytes(shape, serving, budget.num_devices))
        for block in choice.space.take(asked).blocks
    )
    found = asked.copy()
    found[asked] = np.concatenate(list(bytes_of)) <= budget.usable_bytes
    return found


def _found(choice: Choice, index: int, ln_value: float) -> IfConcurrent:
    other = choice.at(index)
    return IfConcurrent(
        concurrency=USERS,
        total_params=other.architecture.total_params(),
        active_params=other.architecture.active_params(),
        tokens=other.tokens,
        value_ratio=math.exp(ln_value - choice.best_ln_value),
    )
