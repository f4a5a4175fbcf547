"""The choice of one design at a budget: the best by the objective laws that, where training must fit, can be trained.

`choose_design` makes a `Choice`, which a plan is assembled from (`moeplan.plan.assembly`). Where nothing can be chosen,
`InfeasibleError` says what leaves nothing and what would work.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from moeplan.architecture.conventions import Variables
from moeplan.architecture.shape import Architecture
from moeplan.errors import InfeasibleError
from moeplan.laws import Law, load_law
from moeplan.laws.hyperparameters import hyperparameter_laws, hyperparameters
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.numerics import Floats
from moeplan.plan.budget import Budget
from moeplan.plan.infeasibility import why_no_designs, why_none_feasible
from moeplan.plan.search.space import Scores, Space
from moeplan.plan.search.variables import Design, design_of
from moeplan.plan.training_and_serving import batch_sequences, state_bytes_per_gpu

MOST_RULED_OUT = 500
"""Designs that no layout may spread before the search for a trainable one gives up."""
_OVERHEADS = 8
"""After every so many designs that cannot be trained, those of clearly as much model state are dropped unasked."""


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
    most_params: float = math.inf
    """Params whose state, times the least overhead seen, fills the training GPUs, where training must fit."""

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
        """The same search with what a rule picks in place of the best; where training must fit, the first that does.

        The scores stay those of the best, so that both are told by the same numbers.
        """
        return self.at(_choose(self.space, self.laws, self.scores, pick).index)

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

    def with_more(self, compute: float = 1.0, memory: float = 1.0) -> Scores:
        """The scores at so many times the compute and the memory."""
        if compute == 1 and not self.budget.pays_hours:
            scores = self.space.limit(self.scores, memory)
        else:
            scores = self.space.score(self.budget.flops * compute, memory)
        return _within_state(self.space, scores, self.most_params * memory)


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


def choose_design(space: Space, laws: Sequence[Law], scores: Scores | None = None) -> Choice:
    """The best design of a space by the objective laws; with training limits, the first of the best that trains.

    `scores` are the space's at its budget, if they are known already.
    """
    laws = tuple(laws)

    def best(scores: Scores) -> int:
        return choose_by(space, scores.mean(laws), scores)

    return _choose(space, laws, scores or space.score(space.budget.flops), best)


def _choose(space: Space, laws: tuple[Law, ...], scores: Scores, pick: Pick) -> Choice:
    if "training" not in space.budget.memory_for:
        return Choice(space, laws, scores, pick(scores))
    return _choose_trainable(space, laws, scores, pick)


def _choose_trainable(space: Space, laws: tuple[Law, ...], scores: Scores, pick: Pick) -> Choice:
    """The first design that `pick` takes and some layout can train on the budget's GPUs.

    Asking for a layout takes milliseconds, so the designs are asked one by one from the best down; those that fail
    leave the scores, and those whose model state alone is too large leave them beforehand.
    """
    from moeplan.plan.layouts import least_bytes  # late, so that a plan whose training need not fit starts fast

    budget, gpus, usable = space.budget, space.budget.gpus, space.budget.usable_training_bytes
    assert gpus is not None
    assert usable is not None
    state = state_bytes_per_gpu(1.0, budget.optimizer, gpus.count)
    most_params = usable / state
    scores = _within_state(space, scores, most_params)
    if not scores.feasible.any():
        raise InfeasibleError(
            f"no design that fits can be trained on {gpus} with {budget.optimizer}: weights, gradients and "
            "optimizer state take too much memory; use more GPUs"
        )
    overheads: list[float] = []
    ruled_out = 0
    while True:
        index = pick(scores)
        architecture = space.architecture(index)
        least = least_bytes(architecture, budget, _batch(architecture, float(scores.tokens[index]), budget))
        if least is not None and least <= usable:
            return Choice(space, laws, scores, index, most_params)
        scores.feasible[index] = False
        if least is None:
            ruled_out += 1
            if ruled_out > MOST_RULED_OUT:
                raise InfeasibleError(
                    f"no layout of {gpus} divides heads, experts, layers and batch of {ruled_out} designs; "
                    "try a number of GPUs with more factors of 2"
                )
        else:
            overheads.append(least / (state * architecture.total_params()))
            if len(overheads) % _OVERHEADS == _OVERHEADS - 1:
                # What the state grew by in designs that failed, the next ones will hardly escape.
                most_params = usable / state / (1 + 0.9 * (min(overheads) - 1))
                scores = _within_state(space, scores, most_params)
        if not scores.feasible.any():
            raise InfeasibleError(f"no design that fits can be trained on {gpus}: every layout breaks a rule or memory")


def _within_state(space: Space, scores: Scores, most_params: float) -> Scores:
    """The scores without the designs of more params, where that is a limit; a copy that may be changed."""
    if most_params == math.inf:
        return scores
    params = space.values("total_params", np.arange(len(space)), scores)
    return dataclasses.replace(scores, feasible=scores.feasible & (params <= most_params))


def _batch(architecture: Architecture, tokens: float, budget: Budget) -> int:
    """Sequences of a step by the law whose batch is taken."""
    law, *_ = hyperparameter_laws(budget.hyperparameters)
    (own,) = hyperparameters([law], architecture, tokens, budget.seq_len)
    return batch_sequences(own.batch_tokens, budget.seq_len, budget.gpus.count if budget.gpus else 1)
