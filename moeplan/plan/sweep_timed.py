"""Budgets in a row on GPUs, where layouts decide too: `TimedSweep`.

The steps between two that are known are searched among what may be chosen there. What a design reaches at a looser
step is bounded there from above, also where its training time is not known; more time, GPUs, batch or memory never
lowers it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from moeplan.errors import InfeasibleError
from moeplan.plan.choice import Choice, choose_design
from moeplan.plan.search.scores import Scores
from moeplan.plan.search.space import MORE, TIE, Space
from moeplan.plan.sweep_spaces import ROUNDING, Gain, Steps, SweepSpaces

FEW = 4000
"""So many designs are asked at once whether they gain enough,"""
NARROW = 16
"""between so many steps: what is further apart is halved first."""


class TimedSweep:
    """The choices of steps on GPUs."""

    def __init__(self, sweep: SweepSpaces) -> None:
        self.sweep = sweep

    def choice(self, space: Space, step: int) -> Choice | None:
        """The choice at a step among a space's designs; None, and why in `infeasible`, if there is none."""
        sweep = self.sweep
        try:
            choice = choose_design(space.at(sweep.budgets[step]), sweep.laws.objective, opinions=False)
        except InfeasibleError as error:
            sweep.infeasible[step] = error
            return None
        sweep.infeasible.pop(step, None)
        return choice

    def climb(self, steps: Steps, done: Callable[[int, Choice], None], *, finer: bool) -> None:
        """Call `done` with the choice at every step, all of one vocabulary."""
        whole = self._whole(steps, finer)
        high = None if whole is None else self.choice(whole, steps[-1])
        if whole is None or high is None:  # what nothing trains at the loosest nothing trains before it
            self.sweep.infeasible |= dict.fromkeys(steps, self.sweep.infeasible[steps[-1]])
            return
        done(steps[-1], high)
        low = self.choice(whole, steps[0]) if len(steps) > 1 else None
        if low is not None:
            done(steps[0], low)
        self._climb_between(steps, done, whole, low, high.scores)

    def _climb_between(
        self, steps: Steps, done: Callable[[int, Choice], None], space: Space, low: Choice | None, high: Scores
    ) -> None:
        """Choose between the first and the last step: `low` is the first's choice, `high` has the last's scores."""
        if len(steps) < 3:
            return
        if low is not None:
            kept = self._may_be_chosen(space.at(self.sweep.budgets[steps[-1]]), low, high)
            space, high = space.take(kept), high.take(kept)
        place = len(steps) // 2
        middle = self.choice(space, steps[place])
        if middle is None:  # as is everything before it
            self.sweep.infeasible |= dict.fromkeys(steps[1:place], self.sweep.infeasible[steps[place]])
        else:
            done(steps[place], middle)
            self._climb_between(steps[: place + 1], done, space, low, middle.scores)
        self._climb_between(steps[place:], done, space, middle, high)

    def first(self, steps: Steps, gain: Gain, target: float, *, finer: bool) -> int | None:
        """The first of steps of one vocabulary whose chosen design gains at least `target`; None if none does.

        Steps are left out where no design that may be chosen gains enough at the loosest of them, by its bounds.
        """
        whole = self._whole(steps, finer)
        if whole is None:
            return None
        whole = whole.judged_by(self.sweep.laws.objective)

        def reaches(choice: Choice) -> bool:
            return bool(gain(choice.space, choice.scores)[choice.index] >= target)

        def between(steps: Steps, low: Choice | None, high: Choice) -> int | None:
            """The first after steps[0], which is known to gain too little; `high` is of the last."""
            space = self._that_may_gain(gain, target, low, high, FEW if len(steps) <= NARROW else 0)
            if space is None:
                return None
            if len(steps) == 2:
                return steps[-1] if reaches(high) else None
            # What is chosen may gain less at a looser step: the tighter half is searched whole before the looser one.
            place = len(steps) // 2
            middle = self.choice(space, steps[place])
            found = None if middle is None else between(steps[: place + 1], low, middle)
            return found if found is not None else between(steps[place:], middle, high)

        high = self.choice(whole, steps[-1])
        if high is None or self._that_may_gain(gain, target, None, high, 0) is None:
            return None
        low = self.choice(whole, steps[0]) if len(steps) > 1 else high
        if low is not None and reaches(low):
            return steps[0]
        return between(steps, low, high) if len(steps) > 1 else None

    def _whole(self, steps: Steps, finer: bool) -> Space | None:
        """The space of the steps; None, and why in `infeasible`, where nothing can fit."""
        space = self.sweep.space(self.sweep.budgets[steps[0]], finer)
        if isinstance(space, InfeasibleError):
            self.sweep.infeasible |= dict.fromkeys(steps, space)
            return None
        return space

    def _that_may_gain(self, gain: Gain, target: float, low: Choice | None, high: Choice, most: int) -> Space | None:
        """The designs that may be chosen between two choices; None if none of them gains enough at the looser one.

        If at most so many may gain enough by their bounds alone, they are asked what they take.
        """
        while True:
            fits = high.space.memory <= high.budget.usable_bytes
            kept = fits if low is None else fits & self._may_be_chosen(high.space, low, high.scores)
            if not kept.any():
                return None
            space = high.space.take(kept)
            may_gain = kept.copy()
            may_gain[kept] = gain(space, high.scores.take(kept)) >= target
            if not may_gain.any():
                return None
            if not high.settle_all(may_gain, most):
                return space

    def _may_be_chosen(self, space: Space, low: Choice, high: Scores) -> NDArray[np.bool_]:
        """Which designs can be chosen between two steps; the space and the scores are of the looser one."""
        laws, budget = self.sweep.laws.objective, space.budget
        if budget.days and not budget.timed and not budget.mfu:  # compute follows the chosen design
            return np.ones(len(space), dtype=bool)
        least = low.best_ln_value + np.log1p(-TIE) - ROUNDING
        kept: NDArray[np.bool_] = (high.unlimited_mean(laws) >= least) & (space.memory <= budget.usable_bytes * MORE)
        return kept if budget.limits("tokens_per_param") else kept & high.allowed
