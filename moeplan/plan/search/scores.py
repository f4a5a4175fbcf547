"""What every design of a space is worth at one budget: `Scores`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeplan.laws import Law
from moeplan.laws.law import relative_weights
from moeplan.numerics import Floats


@dataclass(frozen=True)
class Scores:
    """Every design of a space at one budget."""

    laws: tuple[Law, ...]
    """The laws that judge."""
    tokens: Floats
    """Training tokens of each design."""
    train_flops: Floats
    """Training FLOPs of each design."""
    allowed: NDArray[np.bool_]
    """Which designs meet every condition but the memory limit."""
    ln_compute: Floats
    """ln C_l of each law (rows), of each design (columns)."""
    feasible: NDArray[np.bool_]
    """Which designs meet every condition."""
    tokens_per_second: Floats | None = None
    """The speed of training that each design was judged at, where time is the budget."""
    kept: list[tuple[Callable[[Scores], Floats], Floats]] = field(default_factory=list, repr=False, compare=False)
    """What every design is worth by an objective, for whoever asks again; whoever judges some anew renews it."""

    def of(self, law: Law) -> Floats:
        """ln C_l by one of the laws, whether feasible or not."""
        found: Floats = self.ln_compute[self.laws.index(law)]
        return found

    def mean(self, laws: Sequence[Law]) -> Floats:
        """ln V over some of the laws; -inf where infeasible."""
        return np.where(self.feasible, self.unlimited_mean(laws), -np.inf)

    def unlimited_mean(self, laws: Sequence[Law]) -> Floats:
        """ln V over some of the laws, each by its weight, whether feasible or not."""
        if len(laws) == 1:
            return self.of(laws[0])
        weights = relative_weights(laws)
        parts = [
            self.of(law) if weight == 1 else weight * self.of(law) for law, weight in zip(laws, weights, strict=True)
        ]
        total = parts[0] + parts[1]
        for part in parts[2:]:  # one by one, so that the sum's order is fixed
            total += part
        total /= sum(weights)
        return total

    def take(self, index: Any) -> Scores:
        """The designs at `index` (an index array or a mask)."""
        return Scores(
            self.laws,
            self.tokens[index],
            self.train_flops[index],
            self.allowed[index],
            self.ln_compute[:, index],
            self.feasible[index],
            None if self.tokens_per_second is None else self.tokens_per_second[index],
        )
