"""Searches that start warm: the designs of the last questions, kept, and scored again where compute or memory change.

A `Space` holds every design of a grid with what does not depend on the budget. It answers any question of the same
grid, vocabulary and way of serving: another compute, memory limit, number of tokens or law's weight is a matter of
scoring. The answer is that of `moeplan.plan.planner.recommend`, to the last digit.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from moeplan.errors import InfeasibleError
from moeplan.numerics import Floats
from moeplan.plan.budget import Budget
from moeplan.plan.choice import Choice, choose_design, make_space
from moeplan.plan.infeasibility import why_no_designs
from moeplan.plan.law_selection import LawSelection
from moeplan.plan.planner import between_steps_may_help, search
from moeplan.plan.search.scores import Scores
from moeplan.plan.search.space import MORE, TIE, Space

KEPT, MOST_KEPT = 4, 2_000_000
"""How many spaces are kept, of how many designs altogether: each takes some 100 bytes, and its scores again as many."""
MEMORY_REACH = 4.0
"""How many times the memory of the question that a space is made for it holds, so that a curve can show more."""
COMPUTE_REACH = 10.0
"""How many times less and more compute than that of the question it can be scored at."""
POINTS = 60
"""Points of a curve along memory."""
BELOW = 64.0
"""How far below the space's memory a curve starts."""


@dataclasses.dataclass
class _Warm:
    space: Space
    judges: Hashable
    """What its references depend on."""
    usable: float
    """Bytes on the fullest device that its designs need at most."""
    span: tuple[float, float]
    """Compute that it can be scored at [FLOPs]."""

    def reaches(self, flops: float) -> bool:
        """Whether it can be scored at a compute."""
        return self.span[0] <= flops <= self.span[1]


@dataclasses.dataclass(frozen=True)
class Curve:
    """The choice at each of several memory limits."""

    limits: list[float]
    """Memory of a device [bytes]."""
    space: Space
    """Designs that can be chosen at one of them."""
    scores: Scores
    """Their scores."""
    chosen: NDArray[np.intp]
    """The place of each limit's choice among them."""
    ln_value: Floats
    """ln V of each limit's choice."""


class Spaces:
    """The last few spaces, by what they depend on."""

    def __init__(self) -> None:
        self.sparing = False
        """Whether a space is made for its question alone, which takes less memory."""
        self._kept: dict[Hashable, _Warm] = {}

    def clear(self) -> None:
        """Forget them all."""
        self._kept.clear()

    def choice(self, budget: Budget, laws: LawSelection) -> Choice:
        """What `recommend` chooses; raises as it does."""
        try:
            return choose_design(self.space(budget, laws), laws.objective)
        except InfeasibleError:
            if not between_steps_may_help(budget):
                raise
            return search(budget, laws, say=lambda _: None)  # between the grid's steps, which nobody asks twice

    def space(self, budget: Budget, laws: LawSelection) -> Space:
        """The designs that can fit a budget, as `make_space` gives them; raises `InfeasibleError` if there are none."""
        space = self._reaching(budget, laws).space
        # A copy, so that what is learnt of designs' training stays with the question that asked for it.
        fitting = space.take(space.memory <= budget.usable_bytes * MORE)
        if fitting is space:
            fitting = copy.copy(space)
            fitting.known = {}
        here = fitting.at(budget)
        here.laws = laws.searching  # with the question's weights, which no reference knows
        if here.is_empty:
            raise InfeasibleError(why_no_designs(here))
        return here

    def along_memory(self, budget: Budget, laws: LawSelection) -> Curve | None:
        """The choice at memory limits around the budget's, each as `recommend` makes it; None if nothing is feasible.

        At equal compute only those designs are asked that can be chosen at some limit: what needs less memory is no
        better than them by more than a tie.
        """
        warm = self._reaching(budget, laws)
        space = copy.copy(warm.space).at(budget)
        space.laws = laws.searching
        scores = space.score(budget.flops)
        value = np.where(scores.allowed, scores.unlimited_mean(laws.objective), -np.inf)
        order = np.argsort(space.memory, kind="stable")
        best = np.maximum.accumulate(value[order])
        chosen = np.zeros(len(value), dtype=bool)
        chosen[order] = (value[order] >= best + math.log1p(-TIE) - 1e-9) & np.isfinite(best)
        if not chosen.any():
            return None
        space, scores = space.take(chosen), scores.take(chosen)
        least = max(float(space.memory.min()), warm.usable / BELOW)
        most = min(warm.usable / MORE, budget.usable_bytes * MEMORY_REACH)
        limits, places = [], []
        for limit in np.geomspace(least * 1.001, most, POINTS) if most > least else ():
            here = dataclasses.replace(scores, feasible=scores.allowed & (space.memory <= limit))
            index = space.choose(here.mean(laws.objective), here)
            if index is not None:
                limits.append(float(limit) / (1 - budget.headroom))
                places.append(index)
        chosen = np.array(places, dtype=np.intp)
        return Curve(limits, space, scores, chosen, scores.unlimited_mean(laws.objective)[chosen])

    def _reaching(self, budget: Budget, laws: LawSelection) -> _Warm:
        """A space that holds all designs which a budget and 10 % more memory allow."""
        reference = budget.reference_grid()
        demand = (budget.demand, budget.headroom) if budget.demand.serve_gpus is not None else None
        judges = reference, tuple((law.path, law.chosen, law.digest) for law in laws.searching)
        key = (judges, budget.grid(budget.declared_grid(reference)), budget.serving, budget.num_devices, demand)
        warm = self._kept.pop(key, None)
        if warm is None or warm.usable < budget.usable_bytes * MORE or not warm.reaches(budget.flops):
            warm = self._made(budget, laws, judges, [*self._kept.values(), *([warm] if warm else [])])
        self._kept[key] = warm  # behind those that were asked before
        while len(self._kept) > KEPT or sum(len(each.space) for each in self._kept.values()) > MOST_KEPT:
            if len(self._kept) == 1:
                break
            self._kept.pop(next(iter(self._kept)))
        return warm

    def _made(self, budget: Budget, laws: LawSelection, judges: Hashable, others: list[_Warm]) -> _Warm:
        """A new space, judged by references that are known already where there are some."""
        usable = budget.usable_bytes * MORE
        if budget.memory is not None and not self.sparing:
            usable = 2.0 ** math.ceil(math.log2(usable * MEMORY_REACH))
        known = next((each for each in others if each.judges == judges and each.reaches(budget.flops)), None)
        span = known.span if known else (budget.flops / COMPUTE_REACH, budget.flops * COMPUTE_REACH)
        references = known.space.references if known else None
        factor = usable / budget.usable_bytes
        return _Warm(
            make_space(budget, laws.searching, memory_factor=factor, span=span, references=references),
            judges,
            usable,
            span,
        )
