"""Budgets in a row, from tight to loose, answered with shared searches: `Sweep`.

Along a sweep neither compute nor memory falls, so V of a design never falls, and what is feasible stays so. Between
two steps that are known, only designs can be chosen that at the looser one reach the best V of the tighter one (less a
tie); all others are left out, which makes the steps between cheap without changing any answer. Grids, memory and
reference tables are built once for all budgets with the same vocabulary, on as many devices.
"""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeplan.errors import InfeasibleError
from moeplan.plan.budget import Budget
from moeplan.plan.choice import Choice, choose_design
from moeplan.plan.law_selection import LawSelection
from moeplan.plan.search.scores import Scores
from moeplan.plan.search.space import MORE, TIE, Space
from moeplan.plan.sweep_spaces import ROUNDING, Gain, Steps, SweepSpaces, Vocabulary, vocabulary_of
from moeplan.plan.sweep_timed import TimedSweep

Seen = Callable[[int, Space, Scores], None]
"""Called with a step, its space and its scores; both hold at least every design that can be chosen there."""
MOST_KEPT = 0.7
"""Share of the designs kept above which none is left out."""


def taken(space: Space, low: Scores, high: Scores, kept: NDArray[np.bool_]) -> tuple[Space, Scores, Scores]:
    """The designs where `kept` with their scores at two steps, which stay the same where the compute is; all of them
    where most are kept, since a copy takes longer than to score the rest, and stays as long as the steps between."""
    if kept.mean() > MOST_KEPT:
        return space, low, high
    below = low.take(kept)
    if low.ln_compute is high.ln_compute:
        return space.take(kept), below, dataclasses.replace(below, feasible=high.feasible[kept])
    return space.take(kept), below, high.take(kept)


class Sweep(SweepSpaces):
    """Budgets from tight to loose that differ in compute (or time) and memory alone, and what `recommend` chooses."""

    def __init__(self, budgets: Sequence[Budget], laws: LawSelection, **options: Any) -> None:
        super().__init__(budgets, laws, **options)
        self._chosen_among: dict[tuple[Vocabulary, bool], Space | None] = {}
        self._most: dict[tuple[int, Gain], float] = {}

    def choice(self, step: int) -> Choice:
        """The choice at a step, as `recommend` makes it; raises `InfeasibleError` if nothing is feasible."""
        try:
            return self._whole(step, finer=False)
        except InfeasibleError:
            if not self.finer:
                raise
            return self._whole(step, finer=True)

    def _whole(self, step: int, *, finer: bool) -> Choice:
        budget = self.budgets[step]
        space = self.space(budget, finer)
        if isinstance(space, InfeasibleError):
            raise space
        return choose_design(space.at(budget), self.laws.objective)

    def choices(self, done: Callable[[int, Choice], None], steps: Sequence[int] | None = None) -> None:
        """Call `done` with every step's choice, in any order; those without one go to `infeasible`.

        A choice's scores hold what competes for it, not every design.
        """

        def see(step: int, space: Space, scores: Scores) -> None:
            try:
                choice = choose_design(space, self.laws.objective, scores)
            except InfeasibleError as error:
                self.infeasible[step] = error
            else:
                self.infeasible.pop(step, None)  # the finer grid may have what the declared one had not
                done(step, choice)

        steps = range(len(self.budgets)) if steps is None else steps
        for stretch in self.stretches(steps):
            timed = self.budgets[stretch[0]].gpus is not None
            for finer in (False, True) if self.finer else (False,):
                # As `recommend` does: halved steps are tried only where the declared grid has nothing.
                left = tuple(step for step in stretch if step in self.infeasible) if finer else stretch
                if left and timed:
                    TimedSweep(self).climb(left, done, finer=finer)
                elif left:
                    self._climb(left, finer=finer, seen=see)

    def first(self, gain: Gain, target: float, *, after: int = -1, before: int | None = None) -> int | None:
        """The first step after `after` (and before `before`) whose chosen design gains at least `target`."""
        stretches = list(self.stretches(range(after + 1, len(self.budgets) if before is None else before)))
        for stretch in stretches:
            if stretch is not stretches[-1] and self.most_gained(stretch[-1], gain) < target:
                continue
            empty = self._empty(stretch) if self.finer else 0
            for part, finer in ((stretch[:empty], True), (stretch[empty:], False)):
                found = self._first_of(part, gain, target, finer) if part else None
                if found is not None:
                    return found
        return None

    def most_gained(self, step: int, gain: Gain) -> float:
        """What no design gains up to a step, whatever laws choose; infinite where that is not known without them.

        All that fit are asked, each trained with all of the compute, with which its gain does not fall. So a vocabulary
        whose budgets are far too small is left out without a reference table of any law.
        """
        budget = self.budgets[step]
        if self.finer or budget.gpus is not None:
            return math.inf
        if (step, gain) not in self._most:
            space = self.bare_space(budget)
            self._most[step, gain] = -math.inf if space.is_empty else float(gain(space, _trained(space)).max())
        return self._most[step, gain]

    def _first_of(self, steps: Steps, gain: Gain, target: float, finer: bool) -> int | None:
        """The first of steps of one vocabulary."""
        if self.budgets[steps[0]].gpus is not None:
            return TimedSweep(self).first(steps, gain, target, finer=finer)
        space = self._contenders(self.budgets[steps[0]], finer)
        return None if space is None else _First(self, gain, target).find(steps, space)

    def _contenders(self, budget: Budget, finer: bool) -> Space | None:
        """The space of a vocabulary, judged by the objective laws, which alone choose; None if nothing can fit.

        Where its steps differ in memory alone, only those designs that can be chosen at one of them.
        """
        key = vocabulary_of(budget), finer
        if key not in self._chosen_among:
            whole = self.space(budget, finer)
            space = whole.judged_by(self.laws.objective) if isinstance(whole, Space) else None
            steps = [step for step, each in enumerate(self.budgets) if vocabulary_of(each) == key[0]]
            alike = len({self.budgets[step].flops for step in steps}) == 1 and "training" not in budget.memory_for
            if space is not None and alike:
                here, scores = self.see(space, steps[-1])
                # The tightest step that leaves something, told by its memory.
                least = here.memory[scores.allowed].min(initial=np.iinfo(np.int64).max)
                place = bisect_left(steps, True, key=lambda step: bool(least <= self.budgets[step].usable_bytes))
                if place < len(steps):
                    here, scores = self.see(here, steps[place], scores)
                    space = here.take(self._records(here, scores))
            self._chosen_among[key] = space
        return self._chosen_among[key]

    def _empty(self, stretch: Steps) -> int:
        """How many steps, from the tightest, have nothing feasible on the declared grid."""
        space = self.space(self.budgets[stretch[0]], finer=False)
        if isinstance(space, InfeasibleError):
            return len(stretch)
        timed = self.budgets[stretch[0]].gpus is not None

        def leaves_something(step: int) -> bool:
            if timed:
                return TimedSweep(self).choice(space, step) is not None
            return bool(self.see(space, step)[1].feasible.any())

        # What is feasible stays so as budgets loosen: the infeasible steps come first, and their end is bisected.
        return bisect_left(stretch, True, key=leaves_something)

    def see(self, space: Space, step: int, known: Scores | None = None) -> tuple[Space, Scores]:
        """A space at a step, with its scores; `known` are scores of the same designs at the same compute."""
        here = space.at(self.budgets[step])
        if known is not None:
            limited = here.limit(known)
            # A reference table may not reach far enough below what is the best here: scoring anew extends it.
            if not here.short(limited):
                return here, limited
        return here, here.score(here.budget.flops)

    def same_compute(self, first: int, last: int, scores: Scores) -> Scores | None:
        """The scores of one step if they are also another's, but for the memory limit."""
        return scores if self.budgets[first].flops == self.budgets[last].flops else None

    def _climb(self, steps: Steps, *, finer: bool, seen: Seen) -> None:
        first, last = steps[0], steps[-1]
        whole = self.space(self.budgets[first], finer)
        if isinstance(whole, InfeasibleError):
            self.infeasible |= dict.fromkeys(steps, whole)
            return
        space, low = self.see(whole, first)
        seen(first, space, low)
        if last != first:
            space, high = self.see(whole, last, self.same_compute(first, last, low))
            seen(last, space, high)
            kept = self.eligible(space, last, low, high)
            if kept.any():  # here, so that the scores of all designs go
                space, low, high = taken(space, low, high, kept)
            self._between(steps, space, low, high, seen)

    def _between(self, steps: Steps, space: Space, low: Scores, high: Scores, seen: Seen) -> None:
        """See the steps between the first and the last, both known."""
        if len(steps) < 3:
            return
        # Halving, so that each level scores only what the level above left: log2(steps) levels of shrinking spaces.
        first, last, place = steps[0], steps[-1], len(steps) // 2
        kept = self.eligible(space, last, low, high)
        if kept.any():
            space, low, high = taken(space, low, high, kept)
        here, scores = self.see(space, steps[place], self.same_compute(first, last, low))
        seen(steps[place], here, scores)
        self._between(steps[: place + 1], here, low, scores, seen)
        self._between(steps[place:], here, scores, high, seen)

    def eligible(self, space: Space, last: int, low: Scores, high: Scores) -> NDArray[np.bool_]:
        """Which designs can be chosen between two steps that are scored `low` and `high`; `last` is the looser one."""
        # Let x be chosen at a step s between the two: V_s(x) >= max V_s * (1 - tie). No design's V falls with a looser
        # budget, so V_high(x) >= V_s(x) and max V_s >= max V_low: V_high(x) >= max V_low * (1 - tie), `least` below.
        budget = self.budgets[last]
        before, after = low.unlimited_mean(self.laws.objective), high.unlimited_mean(self.laws.objective)
        rises = bool((after >= before - ROUNDING)[low.allowed & high.allowed].all())
        if not rises:  # a law of one's own that falls
            return np.ones(len(space), dtype=bool)
        # What a bound on tokens_per_param allows may cease to be allowed; anything else stays feasible.
        sure = low.feasible & high.feasible
        least = before[sure].max(initial=-np.inf) + np.log1p(-TIE) - ROUNDING
        # MORE of the memory: the price of memory at a step is V with that much more of it.
        kept: NDArray[np.bool_] = (after >= least) & (space.memory <= budget.usable_bytes * MORE)
        if low.ln_compute is high.ln_compute and low.feasible.any():
            kept &= self._records(space, high)
        return kept if budget.limits("tokens_per_param") else kept & high.allowed

    def _records(self, space: Space, scores: Scores) -> NDArray[np.bool_]:
        """Which designs can be chosen at some memory limit where nothing else differs: few.

        What needs less memory is feasible wherever they are, so that none of it may be better by more than a tie. Some
        design must be feasible at the tightest step: for it the reference tables reach far enough down, or V of what
        needs little memory may still change.
        """
        value = np.where(scores.allowed, scores.unlimited_mean(self.laws.objective), -np.inf)
        order = np.argsort(space.memory, kind="stable")
        best = np.maximum.accumulate(value[order])
        kept = np.empty(len(value), dtype=bool)
        kept[order] = value[order] >= best + np.log1p(-TIE) - ROUNDING
        return kept


def _trained(space: Space) -> Scores:
    """Every design trained with all of the compute, judged by no law."""
    flops = np.full(len(space), space.budget.flops)
    everything = np.ones(len(space), dtype=bool)
    return Scores((), flops / space.flops_per_token, flops, everything, np.empty((0, len(space))), everything)


class _First:
    """The first step whose choice gains enough, found by bounds on what any choice between two steps can gain."""

    def __init__(self, sweep: Sweep, gain: Gain, target: float) -> None:
        self.sweep, self.gain, self.target = sweep, gain, target

    def find(self, steps: Steps, space: Space) -> int | None:
        """The step, or None; all steps are of the space."""
        first, last, sweep = steps[0], steps[-1], self.sweep
        here, high = sweep.see(space, last)
        if self.gain(here, high).max() < self.target:  # it does not fall with compute: as below, of all designs
            return None
        tight, low = sweep.see(space, first, sweep.same_compute(first, last, high))
        if self._reaches(tight, low):
            return first
        if last == first:
            return None
        kept = sweep.eligible(here, last, low, high)
        if not kept.any():
            return None
        # Here, so that the scores of all designs go while the steps between are searched.
        return self._between(steps, *taken(here, low, high, kept))

    def _reaches(self, space: Space, scores: Scores) -> bool:
        index = space.choose(scores.mean(self.sweep.laws.objective), scores)
        return index is not None and bool(self.gain(space, scores)[index] >= self.target)

    def _between(self, steps: Steps, space: Space, low: Scores, high: Scores) -> int | None:
        """The first step after steps[0], which is known to gain too little."""
        first, last, sweep = steps[0], steps[-1], self.sweep
        kept = sweep.eligible(space, last, low, high)
        if not kept.any():
            return None
        # Gain does not fall with compute: if no eligible design reaches the target at the looser end, none does before.
        if self.gain(space.at(sweep.budgets[last]), high)[kept].max() < self.target:
            return None
        space, low, high = taken(space, low, high, kept)
        looser = space.at(sweep.budgets[last])
        if len(steps) == 2:
            return last if self._reaches(looser, high) else None
        # The chosen design's gain may rise and fall from step to step, so that plain bisection could miss the first:
        # the tighter half is searched whole before the looser one.
        place = len(steps) // 2
        here, scores = sweep.see(space, steps[place], sweep.same_compute(first, last, low))
        found = self._between(steps[: place + 1], here, low, scores)
        return found if found is not None else self._between(steps[place:], here, scores, high)
