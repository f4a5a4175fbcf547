"""Budgets in a row, from tight to loose, answered with shared searches: `Ladder`.

Along a ladder neither compute nor memory falls, so V of a design never falls, and what is feasible stays so. Between
two rungs that are known, only designs can be chosen that at the looser one reach the best V of the tighter one (less a
tie); all others are left out, which makes the rungs between cheap without changing any answer. Grids, memory and
reference tables are built once for all budgets with the same vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from moeplan.errors import InfeasibleError
from moeplan.plan.answer import Answer
from moeplan.plan.budget import Budget
from moeplan.plan.planner import Panel, between_steps_may_help
from moeplan.plan.search.grid import Grid
from moeplan.plan.search.space import MORE, TIE, Floats, Scores, Space

Gain = Callable[[Space, Scores], Floats]
"""What is asked of each design of a space at its budget; it may not fall with compute at a fixed design."""
Rungs = tuple[int, ...]
Vocabulary = tuple[int, bool]
Seen = Callable[[int, Space, Scores], None]
"""Called with a rung, its space and its scores; both hold at least every design that can be chosen there."""
_SLACK = 1e-9
"""What the last digits of ln V may differ by when a design is scored among others."""


class Ladder:
    """Budgets from tight to loose that differ in compute and memory alone, and what `recommend` chooses at each.

    `grid` stands in for the declared grid, at one vocabulary (for tests).
    """

    def __init__(
        self,
        budgets: Sequence[Budget],
        panel: Panel,
        *,
        threads: int = 2,
        say: Callable[[str], None] = lambda _: None,
        grid: Grid | None = None,
    ) -> None:
        self.budgets, self.panel, self.threads, self._say, self._grid = budgets, panel, threads, say, grid
        self.columns = range(len(panel.chosen))
        self._finer = between_steps_may_help(budgets[0])
        self._spaces: dict[tuple[Vocabulary, bool], Space | InfeasibleError] = {}
        self.refusals: dict[int, InfeasibleError] = {}
        """Why rungs have no answer."""

    def answer(self, rung: int, alternatives: int = 0) -> Answer:
        """The whole answer at a rung, as `recommend` finds it; raises `InfeasibleError` if nothing is feasible."""
        try:
            return self._whole(rung, False, alternatives)
        except InfeasibleError:
            if not self._finer:
                raise
            return self._whole(rung, True, alternatives)

    def _whole(self, rung: int, finer: bool, alternatives: int) -> Answer:
        budget = self.budgets[rung]
        space = self._space(budget, finer)
        if isinstance(space, InfeasibleError):
            raise space
        return Answer(space.at(budget), budget, len(self.panel.chosen), alternatives)

    def answers(self, done: Callable[[int, Answer], None], rungs: Sequence[int] | None = None) -> None:
        """Call `done` with every rung's answer, in any order; those without one go to `refusals`.

        An answer's scores hold what competes for the choice, not every design.
        """

        def see(rung: int, space: Space, scores: Scores) -> None:
            try:
                answer = Answer(space, self.budgets[rung], len(self.panel.chosen), scores=scores)
            except InfeasibleError as error:
                self.refusals[rung] = error
            else:
                self.refusals.pop(rung, None)
                done(rung, answer)

        rungs = range(len(self.budgets)) if rungs is None else rungs
        for stretch in self._stretches(rungs):
            self._climb(stretch, finer=False, seen=see)
            failed = tuple(rung for rung in stretch if rung in self.refusals)
            if failed and self._finer:
                self._climb(failed, finer=True, seen=see)

    def first(self, gain: Gain, target: float, *, after: int = -1, before: int | None = None) -> int | None:
        """The first rung after `after` (and before `before`) whose chosen design gains at least `target`."""
        for stretch in self._stretches(range(after + 1, len(self.budgets) if before is None else before)):
            empty = self._empty(stretch) if self._finer else 0
            for part, finer in ((stretch[:empty], True), (stretch[empty:], False)):
                space = self._space(self.budgets[stretch[0]], finer) if part else None
                if isinstance(space, Space):  # the choice takes the chosen laws alone
                    found = _First(self, gain, target).find(part, space.heard_by(len(self.panel.chosen)))
                    if found is not None:
                        return found
        return None

    def _empty(self, stretch: Rungs) -> int:
        """How many rungs, from the tightest, have nothing feasible on the declared grid."""
        space = self._space(self.budgets[stretch[0]], finer=False)
        if isinstance(space, InfeasibleError):
            return len(stretch)
        low, high = 0, len(stretch)
        while low < high:
            middle = (low + high) // 2
            _, scores = self.see(space, stretch[middle])
            low, high = (low, middle) if scores.feasible.any() else (middle + 1, high)
        return low

    def _stretches(self, rungs: Sequence[int]) -> Iterator[Rungs]:
        """The rungs by their vocabulary, and so by their grid."""
        for _, group in itertools.groupby(rungs, key=lambda rung: _vocabulary(self.budgets[rung])):
            yield tuple(group)

    def _space(self, budget: Budget, finer: bool) -> Space | InfeasibleError:
        """The designs for all budgets of one vocabulary; with `finer`, of the grid with halved steps."""
        key = _vocabulary(budget), finer
        if key not in self._spaces:
            self._say("searching between the grid's steps" if finer else "building the grid")
            same = [each for each in self.budgets if _vocabulary(each) == key[0]]
            reference = self._grid or budget.reference_grid()
            base = reference.halved() if finer else reference
            span = same[0].flops, same[-1].flops
            try:
                self._spaces[key] = Space(
                    same[-1], self.panel.judges, base=base, reference=reference, threads=self.threads, span=span
                )
            except InfeasibleError as error:
                self._spaces[key] = error
        return self._spaces[key]

    def see(self, space: Space, rung: int, known: Scores | None = None) -> tuple[Space, Scores]:
        """A space at a rung, with its scores; `known` are scores of the same designs at the same compute."""
        here = space.at(self.budgets[rung])
        if known is not None:
            limited = here.limit(known)
            if not here.short(limited):
                return here, limited
        return here, here.score(here.budget.flops)

    def same_compute(self, first: int, last: int, scores: Scores) -> Scores | None:
        """The scores of one rung if they are also another's, but for the memory limit."""
        return scores if self.budgets[first].flops == self.budgets[last].flops else None

    def _climb(self, rungs: Rungs, *, finer: bool, seen: Seen) -> None:
        first, last = rungs[0], rungs[-1]
        whole = self._space(self.budgets[first], finer)
        if isinstance(whole, InfeasibleError):
            self.refusals |= dict.fromkeys(rungs, whole)
            return
        space, low = self.see(whole, first)
        seen(first, space, low)
        if last != first:
            space, high = self.see(whole, last, self.same_compute(first, last, low))
            seen(last, space, high)
            self._between(rungs, space, low, high, seen)

    def _between(self, rungs: Rungs, space: Space, low: Scores, high: Scores, seen: Seen) -> None:
        """See the rungs between the first and the last, both known."""
        if len(rungs) < 3:
            return
        first, last, place = rungs[0], rungs[-1], len(rungs) // 2
        kept = self.eligible(space, last, low, high)
        if kept.any() and not kept.all():
            space, low, high = space.take(kept), low.take(kept), high.take(kept)
        here, scores = self.see(space, rungs[place], self.same_compute(first, last, low))
        seen(rungs[place], here, scores)
        self._between(rungs[: place + 1], here, low, scores, seen)
        self._between(rungs[place:], here, scores, high, seen)

    def eligible(self, space: Space, last: int, low: Scores, high: Scores) -> NDArray[np.bool_]:
        """Which designs can be chosen between two rungs that are scored `low` and `high`; `last` is the looser one."""
        budget = self.budgets[last]
        before, after = low.unlimited_mean(self.columns), high.unlimited_mean(self.columns)
        rises = bool((after >= before - _SLACK)[low.allowed & high.allowed].all())
        if "training" in budget.memory_for or not rises:  # layouts decide too; or a law of one's own that falls
            return np.ones(len(space), dtype=bool)
        # What a bound on tokens_per_param allows may cease to be allowed; anything else stays feasible.
        sure = low.feasible & high.feasible
        least = before[sure].max(initial=-np.inf) + np.log1p(-TIE) - _SLACK
        kept: NDArray[np.bool_] = (after >= least) & (space.memory <= budget.usable_bytes * MORE)
        return kept if budget.limits("tokens_per_param") else kept & high.allowed


class _First:
    """The first rung whose choice gains enough, found by bounds on what any choice between two rungs can gain."""

    def __init__(self, ladder: Ladder, gain: Gain, target: float) -> None:
        self.ladder, self.gain, self.target = ladder, gain, target

    def find(self, rungs: Rungs, space: Space) -> int | None:
        """The rung, or None; all rungs are of the space."""
        first, last, ladder = rungs[0], rungs[-1], self.ladder
        here, low = ladder.see(space, first)
        if self._reaches(here, low):
            return first
        if last == first:
            return None
        here, high = ladder.see(space, last, ladder.same_compute(first, last, low))
        return self._between(rungs, here, low, high)

    def _reaches(self, space: Space, scores: Scores) -> bool:
        if not scores.feasible.any():
            return False
        chosen = space.choose(scores.mean(self.ladder.columns), scores)
        return bool(self.gain(space, scores)[chosen] >= self.target)

    def _between(self, rungs: Rungs, space: Space, low: Scores, high: Scores) -> int | None:
        """The first rung after rungs[0], which is known to gain too little."""
        first, last, ladder = rungs[0], rungs[-1], self.ladder
        kept = ladder.eligible(space, last, low, high)
        if not kept.any():
            return None
        space, low, high = space.take(kept), low.take(kept), high.take(kept)
        looser = space.at(ladder.budgets[last])
        if self.gain(looser, high).max() < self.target:
            return None
        if len(rungs) == 2:
            return last if self._reaches(looser, high) else None
        place = len(rungs) // 2
        here, scores = ladder.see(space, rungs[place], ladder.same_compute(first, last, low))
        found = self._between(rungs[: place + 1], here, low, scores)
        return found if found is not None else self._between(rungs[place:], here, scores, high)


def _vocabulary(budget: Budget) -> Vocabulary:
    return budget.vocab_size, bool(budget.tied_embeddings)
