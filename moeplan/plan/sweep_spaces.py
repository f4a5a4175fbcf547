"""The designs that budgets in a row choose among: one space for all that share a vocabulary."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from moeplan.errors import InfeasibleError
from moeplan.numerics import Floats
from moeplan.plan.budget import Budget
from moeplan.plan.choice import make_space
from moeplan.plan.law_selection import LawSelection
from moeplan.plan.planner import between_steps_may_help
from moeplan.plan.search.grid import Grid
from moeplan.plan.search.scores import Scores
from moeplan.plan.search.space import Space

Gain = Callable[[Space, Scores], Floats]
"""The gain of each design of a space at its budget; at a fixed design it may not fall with compute."""
Steps = tuple[int, ...]
Vocabulary = tuple[int, bool, int]
"""What steps must share to share a grid and its memory: vocabulary, whether it is tied, devices of the memory limit."""
ROUNDING = 1e-9
"""Of ln V: how far it may differ when a design is scored among others."""


class SweepSpaces:
    """Budgets from tight to loose that differ in compute (or time) and memory alone, with the spaces that they share.

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
        self.budgets, self.laws, self.threads, self.say, self._grid = budgets, laws, threads, say, grid
        # All budgets have the same fixed and bounded variables, so one answers for all.
        self.finer = between_steps_may_help(budgets[0])
        self._spaces: dict[tuple[Vocabulary, bool], Space | InfeasibleError] = {}
        self.infeasible: dict[int, InfeasibleError] = {}
        """Why steps have no choice."""

    def stretches(self, steps: Sequence[int]) -> Iterator[Steps]:
        """The steps by their vocabulary, and so by their grid."""
        for _, group in itertools.groupby(steps, key=lambda step: vocabulary_of(self.budgets[step])):
            yield tuple(group)

    def space(self, budget: Budget, finer: bool) -> Space | InfeasibleError:
        """The designs for all budgets of one vocabulary; with `finer`, of the grid with halved steps."""
        key = vocabulary_of(budget), finer
        if key not in self._spaces:
            self.say("searching between the grid's steps" if finer else "building the grid")
            same = [each for each in self.budgets if vocabulary_of(each) == key[0]]
            base, reference = self._grids(budget, finer)
            span = same[0].flops, same[-1].flops
            # The loosest budget admits the most designs: a space made for it holds those of every tighter one.
            try:
                self._spaces[key] = make_space(
                    same[-1], self.laws.searching, base=base, reference=reference, threads=self.threads, span=span
                )
            except InfeasibleError as error:
                self._spaces[key] = error
        return self._spaces[key]

    def bare_space(self, budget: Budget) -> Space:
        """The designs of the declared grid that fit one budget, which no law can judge."""
        base, reference = self._grids(budget, finer=False)
        return Space(budget, (), base=base, reference=reference, references=(), threads=self.threads)

    def _grids(self, budget: Budget, finer: bool) -> tuple[Grid, Grid]:
        """The grid of a budget's designs, and that of the references."""
        reference = self._grid or budget.reference_grid()
        return budget.declared_grid(reference.halved() if finer else reference), reference


def vocabulary_of(budget: Budget) -> Vocabulary:
    """What a budget must share with another to share its space."""
    return budget.vocab_size, bool(budget.tied_embeddings), budget.num_devices
