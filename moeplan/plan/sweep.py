"""Budgets in a row, from tight to loose, answered with shared searches: `Sweep`.

Along a sweep neither compute nor memory falls, so V of a design never falls, and what is feasible stays so. Between
two steps that are known, only designs can be chosen that at the looser one reach the best V of the tighter one (less a
tie); all others are left out, which makes the steps between cheap without changing any answer. Grids, memory and
reference tables are built once for all budgets with the same vocabulary, on as many devices.
"""

from __future__ import annotations

import dataclasses
import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from moeplan.errors import InfeasibleError
from moeplan.numerics import Floats
from moeplan.plan.budget import Budget
from moeplan.plan.choice import Choice, choose_design, make_space
from moeplan.plan.law_selection import LawSelection
from moeplan.plan.planner import between_steps_may_help
from moeplan.plan.search.grid import Grid
from moeplan.plan.search.space import MORE, TIE, Scores, Space

Gain = Callable[[Space, Scores], Floats]
"""The gain of each design of a space at its budget; at a fixed design it may not fall with compute."""
Steps = tuple[int, ...]
Vocabulary = tuple[int, bool, int]
"""What steps must share to share a grid and its memory: vocabulary, whether it is tied, devices of the memory limit."""
Seen = Callable[[int, Space, Scores], None]
"""Called with a step, its space and its scores; both hold at least every design that can be chosen there."""
_SLACK = 1e-9
"""Rounding of ln V: how far it may differ when a design is scored among others."""
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


class Sweep:
    """Budgets from tight to loose that differ in compute and memory alone, and what `recommend` chooses at each.

    `grid` stands in for the declared grid, at one vocabulary (for tests).
    """

    def __init__(
        self,
        budgets: Sequence[Budget],
        laws: LawSelection,
        *,
        threads: int = 1,
        say: Callable[[str], None] = lambda _: None,
        grid: Grid | None = None,
    ) -> None:
        self.budgets, self.laws, self.threads, self._say, self._grid = budgets, laws, threads, say, grid
        # All budgets have the same fixed and bounded variables, so one answers for all.
        self._finer = between_steps_may_help(budgets[0])
        self._spaces: dict[tuple[Vocabulary, bool], Space | InfeasibleError] = {}
        self._chosen_among: dict[tuple[Vocabulary, bool], Space | None] = {}
        self.infeasible: dict[int, InfeasibleError] = {}
        """Why steps have no choice."""

    def choice(self, step: int) -> Choice:
        """The choice at a step, as `recommend` makes it; raises `InfeasibleError` if nothing is feasible."""
        try:
            return self._whole(step, finer=False)
        except InfeasibleError:
            if not self._finer:
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
        for stretch in self._stretches(steps):
            timed = self.budgets[stretch[0]].gpus is not None
            for finer in (False, True) if self._finer else (False,):
                # As `recommend` does: halved steps are tried only where the declared grid has nothing.
                left = tuple(step for step in stretch if step in self.infeasible) if finer else stretch
                if left and timed:
                    _Timed(self, done).climb(left, finer=finer)
                elif left:
                    self._climb(left, finer=finer, seen=see)

    def first(self, gain: Gain, target: float, *, after: int = -1, before: int | None = None) -> int | None:
        """The first step after `after` (and before `before`) whose chosen design gains at least `target`."""
        for stretch in self._stretches(range(after + 1, len(self.budgets) if before is None else before)):
            empty = self._empty(stretch) if self._finer else 0
            for part, finer in ((stretch[:empty], True), (stretch[empty:], False)):
                space = self._contenders(self.budgets[stretch[0]], finer) if part else None
                if space is not None:
                    found = _First(self, gain, target).find(part, space)
                    if found is not None:
                        return found
        return None

    def _contenders(self, budget: Budget, finer: bool) -> Space | None:
        """The space of a vocabulary, judged by the objective laws, which alone choose; None if nothing can fit.

        Where its steps differ in memory alone, only those designs that can be chosen at one of them.
        """
        key = _vocabulary(budget), finer
        if key not in self._chosen_among:
            whole = self.space(budget, finer)
            space = whole.judged_by(self.laws.objective) if isinstance(whole, Space) else None
            steps = [step for step, each in enumerate(self.budgets) if _vocabulary(each) == key[0]]
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
        # What is feasible stays so as budgets loosen: the infeasible steps come first, and their end is bisected.
        return bisect_left(stretch, True, key=lambda step: bool(self.see(space, step)[1].feasible.any()))

    def _stretches(self, steps: Sequence[int]) -> Iterator[Steps]:
        """The steps by their vocabulary, and so by their grid."""
        for _, group in itertools.groupby(steps, key=lambda step: _vocabulary(self.budgets[step])):
            yield tuple(group)

    def space(self, budget: Budget, finer: bool) -> Space | InfeasibleError:
        """The designs for all budgets of one vocabulary; with `finer`, of the grid with halved steps."""
        key = _vocabulary(budget), finer
        if key not in self._spaces:
            self._say("searching between the grid's steps" if finer else "building the grid")
            same = [each for each in self.budgets if _vocabulary(each) == key[0]]
            reference = self._grid or budget.reference_grid()
            base = budget.declared_grid(reference.halved() if finer else reference)
            span = same[0].flops, same[-1].flops
            # The loosest budget admits the most designs: a space made for it holds those of every tighter one.
            try:
                self._spaces[key] = make_space(
                    same[-1], self.laws.searching, base=base, reference=reference, threads=self.threads, span=span
                )
            except InfeasibleError as error:
                self._spaces[key] = error
        return self._spaces[key]

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
        rises = bool((after >= before - _SLACK)[low.allowed & high.allowed].all())
        if budget.gpus is not None or not rises:  # layouts decide too; or a law of one's own that falls
            return np.ones(len(space), dtype=bool)
        # What a bound on tokens_per_param allows may cease to be allowed; anything else stays feasible.
        sure = low.feasible & high.feasible
        least = before[sure].max(initial=-np.inf) + np.log1p(-TIE) - _SLACK
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
        kept[order] = value[order] >= best + np.log1p(-TIE) - _SLACK
        return kept


class _Timed:
    """The choices of steps on GPUs, where layouts decide too: those between two known steps among what may be chosen.

    What a design reaches at a looser step is bounded there from above, also where its training time is not known; more
    time, GPUs, batch or memory never lowers it.
    """

    def __init__(self, sweep: Sweep, done: Callable[[int, Choice], None]) -> None:
        self.sweep, self.done = sweep, done

    def climb(self, steps: Steps, *, finer: bool) -> None:
        """Choose at every step, all of one vocabulary."""
        whole = self.sweep.space(self.sweep.budgets[steps[0]], finer)
        if isinstance(whole, InfeasibleError):
            self.sweep.infeasible |= dict.fromkeys(steps, whole)
            return
        high = self._choose(whole, steps[-1])
        if high is None:  # what nothing trains at the loosest nothing trains before it
            self.sweep.infeasible |= dict.fromkeys(steps[:-1], self.sweep.infeasible[steps[-1]])
            return
        low = self._choose(whole, steps[0]) if len(steps) > 1 else high
        self._between(steps, whole, low, high.scores)

    def _choose(self, space: Space, step: int) -> Choice | None:
        """The choice at a step; None if there is none."""
        sweep = self.sweep
        try:
            choice = choose_design(space.at(sweep.budgets[step]), sweep.laws.objective, opinions=False)
        except InfeasibleError as error:
            sweep.infeasible[step] = error
            return None
        sweep.infeasible.pop(step, None)
        self.done(step, choice)
        return choice

    def _between(self, steps: Steps, space: Space, low: Choice | None, high: Scores) -> None:
        """Choose between the first and the last step: `low` is the first's choice, `high` has the last's scores."""
        if len(steps) < 3:
            return
        if low is not None:
            kept = self._may_be_chosen(space, self.sweep.budgets[steps[-1]], low, high)
            space, high = space.take(kept), high.take(kept)
        place = len(steps) // 2
        middle = self._choose(space, steps[place])
        if middle is None:  # as is everything before it
            self.sweep.infeasible |= dict.fromkeys(steps[1:place], self.sweep.infeasible[steps[place]])
        else:
            self._between(steps[: place + 1], space, low, middle.scores)
        self._between(steps[place:], space, middle, high)

    def _may_be_chosen(self, space: Space, budget: Budget, low: Choice, high: Scores) -> NDArray[np.bool_]:
        """Which designs can be chosen between two steps; `budget` is the looser one's."""
        laws = self.sweep.laws.objective
        if budget.days and not budget.timed and not budget.mfu:  # compute follows the chosen design
            return np.ones(len(space), dtype=bool)
        least = low.best_ln_value + np.log1p(-TIE) - _SLACK
        after = high.unlimited_mean(laws)
        kept: NDArray[np.bool_] = (after >= least) & (space.memory <= budget.usable_bytes * MORE)
        return kept if budget.limits("tokens_per_param") else kept & high.allowed


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


def _vocabulary(budget: Budget) -> Vocabulary:
    return budget.vocab_size, bool(budget.tied_embeddings), budget.num_devices
