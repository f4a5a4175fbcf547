"""Degrees of parallelism that are tried for the fastest layout, and a layout with its share of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from moeplan.cost.training.parallelism import Layout, Recompute

TENSOR, EXPERT, CONTEXT = (1, 2, 4, 8), (1, 2, 4, 8, 16, 32, 64), (1, 2, 4, 8, 16)
"""tp, ep and cp that are tried."""
PIPELINE = (1, 2, 4, 8, 16, 32, 64)
"""pp that are tried."""
MICRO_BATCHES = (1, 2, 4)
"""Sequences of a micro-batch that are tried."""
RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "full")
"""Recomputation that is tried, the fastest first."""
LONG = 8192
"""Tokens of a sequence beyond which cp is tried."""


class _Degrees(NamedTuple):
    tp: int
    cp: int
    etp: int
    micro_batch: int
    pp: int
    virtual_stages: int
    recompute: Recompute


class Degrees(_Degrees):
    """What of a layout its ceiling depends on; ep and dp are open."""

    @cached_property
    def unstaged(self) -> Degrees:
        """The same with one stage, by which what stages have in common is known."""
        return self._replace(pp=1)

    @cached_property
    def single(self) -> Degrees:
        """The same with one stage and one sequence, by which what these have in common is known."""
        return self._replace(pp=1, micro_batch=1)

    @cached_property
    def without_recomputation(self) -> Degrees:
        """The same with nothing recomputed."""
        return self._replace(recompute="none")


@dataclass(frozen=True)
class Spread:
    """A layout and how much of the batch its steps take."""

    layout: Layout
    """The layout."""
    num_micro_batches: int
    """Micro-batches of a step in each pipeline."""

    @property
    def batch(self) -> int:
        """Sequences of a step."""
        return self.layout.dp * self.layout.micro_batch * self.num_micro_batches
