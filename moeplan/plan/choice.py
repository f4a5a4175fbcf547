"""The choice of one design at a budget: the best by the objective laws that, where training must fit, can be trained.

`choose_design` makes a `Choice`, which a plan is assembled from (`moeplan.plan.assembly`). Where nothing can be chosen,
`InfeasibleError` says what leaves nothing and what would work.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moeplan.architecture.conventions import Variables
from moeplan.architecture.shape import Architecture
from moeplan.errors import InfeasibleError
from moeplan.laws import Law, load_law
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.numerics import Floats
from moeplan.plan.budget import Budget
from moeplan.plan.infeasibility import why_no_designs, why_none_feasible
from moeplan.plan.search.scores import Scores
from moeplan.plan.search.space import TIE, Space
from moeplan.plan.search.variables import Design, design_of

if TYPE_CHECKING:
    from moeplan.plan.search.clock import Clock

NEAR_BEST = 0.05
"""Of designs within this share of the best V the training time is asked exactly, where GPUs are given."""
ALL = 1 - 1e-15
"""The share of the best V within which all are."""
Objective = Callable[[Scores], Floats]
"""A value of every design of the scores, feasible or not, that is to be large."""
Pick = Callable[[Scores], int]
"""A rule that picks one of the designs that are feasible by their scores."""


@dataclass(frozen=True)
class Choice:
    """One design chosen among the scores of a budget."""

    space: Space
    """The designs that it was chosen among, with the budget."""
    laws: tuple[Law, ...]
    """The objective laws."""
    scores: Scores
    """Every design's score at the budget; what cannot be trained is not feasible where training must fit."""
    index: int
    """The chosen design's place among them."""
    clock: Clock | None = None
    """What training takes on the budget's GPUs; None without GPUs."""

    @property
    def budget(self) -> Budget:
        """The budget."""
        return self.space.budget

    @cached_property
    def architecture(self) -> Architecture:
        """The chosen design."""
        return self.space.architecture(self.index)

    @cached_property
    def tokens(self) -> int:
        """Its training tokens."""
        return int(self.scores.tokens[self.index])

    @property
    def timed(self) -> bool:
        """Whether time was the budget."""
        return self.clock is not None and self.clock.timed

    @property
    def flops(self) -> float:
        """Compute of the budget; where time is the budget, what the chosen design trains for in it [FLOPs]."""
        if self.clock is None:
            return self.budget.flops
        return float(self.scores.train_flops[self.index]) if self.timed else self.clock.flops

    @cached_property
    def ln_value(self) -> Floats:
        """ln V of every design; -inf where infeasible."""
        return self.scores.mean(self.laws)

    @cached_property
    def best_ln_value(self) -> float:
        """ln of the largest V, at or within a tie of the chosen design's."""
        return float(self.ln_value.max())

    @cached_property
    def design(self) -> Design:
        """The chosen design in numbers."""
        return self.describe(self.index, self.ln_value)

    def at(self, index: int) -> Choice:
        """The same search with the design at `index` in place of the best."""
        return dataclasses.replace(self, index=index)

    def chosen_by(self, pick: Pick) -> Choice:
        """The same search with what a rule picks in place of the best.

        The scores stay those of the best, so that both are told by the same numbers.
        """
        return self.at(pick(self.scores))

    def best_by(self, ln_value: Floats, scores: Scores | None = None) -> int:
        """The design that `ln_value` would choose, by these scores or others of the same space."""
        return choose_by(self.space, ln_value, scores or self.scores)

    def describe(self, index: int, ln_value: Floats, scores: Scores | None = None) -> Design:
        """A design of the scores in numbers; V by `ln_value`."""
        tokens, seq_len = int((scores or self.scores).tokens[index]), self.budget.seq_len
        fit = load_law(LEVERAGE_LAW).predicting("efficiency_leverage")
        leverage = float(fit.at(Variables(self.space.architecture(index), seq_len), self.budget.worth(tokens)))
        alone = Variables(self.space.designs(index), seq_len)
        return design_of(alone, tokens, math.exp(float(ln_value[index])), leverage)

    def with_more(self, compute: float = 1.0, memory: float = 1.0) -> Choice:
        """The choice at so many times the compute, or the time where that is the budget, and the memory."""
        space, clock, scores = self.space, self.clock, None
        if clock is not None and self.timed and memory == 1 and not self.budget.served_tokens:
            found = clock.with_more_time(self.scores, _prices_of(self.laws), compute)
            if found is not None:
                clock, scores = found
                space = clock.space
        scores = scores or self._with_more(compute, memory)
        return Choice(space, self.laws, scores, choose_by(space, scores.mean(self.laws), scores), clock)

    def _with_more(self, compute: float, memory: float) -> Scores:
        """The scores of all designs with more."""
        if self.clock is not None:
            # without a limit of the served model, memory is that of the GPUs
            own = self.budget.memory is not None or memory == 1
            clock = self.clock
            if not own:
                near = [self.scores.mean(laws) for laws in (self.laws, *((law,) for law in self.laws))]
                best = [value >= value.max() + math.log1p(-TIE) for value in near]
                clock = clock.with_more_memory(memory, np.flatnonzero(np.any(best, axis=0)))
            known = self.scores if own and compute == 1 and not self.budget.pays_hours else None
            return clock.scores(_prices_of(self.laws), time=compute, memory=memory, known=known)
        if compute == 1 and not self.budget.pays_hours:
            return self.space.limit(self.scores, memory)
        return self.space.score(self.budget.flops * compute, memory)

    @property
    def num_feasible(self) -> int:
        """Designs that meet every condition.

        Whether GPUs can train them is asked of those near the best alone: left out are those whose params alone are too
        many for them, not others that no layout trains.
        """
        scores = self.scores if self.clock is None else self.clock.unasked(self.scores)
        return int(np.count_nonzero(self.space.limit(scores).feasible))

    def settle(self, some: NDArray[np.bool_], *, opinions: bool = True) -> None:
        """Ask exactly, on GPUs, what the best of some designs take to train: by V, and with `opinions` by each law."""
        if self.clock is not None:
            sets = [self.laws, *((law,) for law in self.space.laws)] if opinions else [self.laws]
            self.clock.settle(self.scores, [(Mean(laws), TIE) for laws in sets], among=some)

    def settle_all(self, some: NDArray[np.bool_], most: int) -> bool:
        """Ask exactly, on GPUs, what all of some designs take to train, if they are at most so many.

        False if nothing is learnt.
        """
        if self.clock is None:
            return False
        unknown = some & ~self.clock.speeds.exact
        if not 0 < np.count_nonzero(unknown) <= most:
            return False
        self.clock.settle(self.scores, [(Mean(self.laws), ALL)], among=some)
        return bool((unknown & self.clock.speeds.exact).any())

    def settle_within(self, share: float) -> None:
        """Ask exactly, on GPUs, what all designs within a share of the best V take to train."""
        if self.clock is not None:
            self.clock.settle(self.scores, [(Mean(self.laws), share)])

    def best_among(self, free: NDArray[np.bool_]) -> int | None:
        """The best design of some; None if none of them is feasible."""
        self.settle(free, opinions=False)
        ln_value = self.scores.mean(self.laws)
        return self.space.choose(np.where(free, ln_value, -np.inf), self.scores)


def make_space(budget: Budget, laws: Sequence[Law], **options: Any) -> Space:
    """The designs that can fit a budget, as `Space` makes them; raises `InfeasibleError` if there are none."""
    space = Space(budget, laws, **options)
    if space.is_empty:
        raise InfeasibleError(why_no_designs(space))
    return space


def choose_by(space: Space, ln_value: Floats, scores: Scores) -> int:
    """The best design by `ln_value`, ties broken as the search does; raises `InfeasibleError` if none is feasible."""
    index = space.choose(ln_value, scores)
    if index is None:
        raise InfeasibleError(why_none_feasible(space, scores))
    return index


def choose_design(space: Space, laws: Sequence[Law], scores: Scores | None = None, *, opinions: bool = True) -> Choice:
    """The best design of a space by the objective laws; on GPUs, the best that they can train.

    `scores` are the space's at its budget, if they are known already; on GPUs they are asked for anew. Without
    `opinions` they are exact near the best V alone, not near the best by each law.
    """
    laws = tuple(laws)
    if space.budget.gpus is None:
        scores = scores or space.score(space.budget.flops)
        return Choice(space, laws, scores, choose_by(space, scores.mean(laws), scores))
    from moeplan.plan.trainable import clock_of, why_untrainable  # late, so that a plan without GPUs starts fast

    clock = clock_of(space)
    objectives = _objectives(space.laws, laws) if opinions else [(Mean(laws), TIE)]
    scores = clock.scores(objectives)
    while True:
        if not scores.feasible.any():
            raise InfeasibleError(why_untrainable(space, scores, clock))
        index = choose_by(space, scores.mean(laws), scores)
        if not clock.check(scores, objectives, index):  # another layout is faster after all, where many were asked
            clock.settle(scores, objectives)
        elif clock.fills_days(index):
            return Choice(space, laws, scores, index, clock)
        else:  # the compute that fills the days is the choice's
            scores = clock.scores(objectives)


def known_best(space: Space, laws: Sequence[Law]) -> float:
    """ln of the best V of a space whose designs can all be trained at speeds that are known; -inf if none is feasible.

    It spares what `choose_design` does to be sure of one design.
    """
    laws = tuple(laws)
    if space.budget.gpus is None:
        return float(space.score(space.budget.flops).mean(laws).max())
    from moeplan.plan.trainable import clock_of  # late, so that a plan without GPUs starts fast

    return float(clock_of(space).scores([(Mean(laws), TIE)]).mean(laws).max())


def _objectives(everyone: Sequence[Law], laws: tuple[Law, ...]) -> list[tuple[Objective, float]]:
    """What a plan asks the best of: V, each law alone, all but one, and the worst of them."""
    sets: list[tuple[Law, ...]] = [(law,) for law in everyone]
    if len(laws) > 1:
        sets += [tuple(other for other in laws if other != law) for law in laws]
    others: list[Objective] = [Mean(some) for some in _distinct(sets) if some != laws]
    least: list[Objective] = [functools.partial(worst, laws)] if len(laws) > 1 else []
    return [(Mean(laws), NEAR_BEST), *((objective, TIE) for objective in (*others, *least))]


def _prices_of(laws: tuple[Law, ...]) -> list[tuple[Objective, float]]:
    """What the price of more asks the best of: V, and each law alone."""
    sets = [laws, *((law,) for law in laws)]
    return [(Mean(some), TIE) for some in _distinct(sets)]


@dataclass(frozen=True)
class Mean:
    """ln V over some laws, as an objective; two over the same laws are equal."""

    laws: tuple[Law, ...]
    """The laws."""

    def __call__(self, scores: Scores) -> Floats:
        """It, of every design, feasible or not."""
        return scores.unlimited_mean(self.laws)


def worst(laws: tuple[Law, ...], scores: Scores) -> Floats:
    """ln of the least efficiency by any of the laws: C_l / the largest C_l of a feasible design."""
    least = np.full(len(scores.tokens), np.inf)
    for law in laws:
        own = scores.of(law)
        np.minimum(least, own - own[scores.feasible].max(initial=-np.inf), out=least)
    return least


def _distinct(sets: list[tuple[Law, ...]]) -> list[tuple[Law, ...]]:
    return [some for place, some in enumerate(sets) if some not in sets[:place]]
