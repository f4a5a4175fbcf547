"""Which reference designs may be a loss law's best at some compute: the rest need not be asked for their losses.

Where the tokens' term of a law mixes with nothing but a few discrete variables, its partners, designs of one class (of
the same values of these) lose the same by fewer tokens. So `undominated` drops a design that has a cheaper one of its
class with no more loss: few are left of a law without partners. Of one with partners most are left, and `Bound` drops
those that some designs, asked beforehand, show not to be the best at any knot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeplan.numerics import Floats
from moeplan.plan.search.candidates import Additive

_MARGIN = 1e-6
"""How far above the bound a loss is still kept, relatively: more than rounding comes to."""


class Costs:
    """FLOPs per token of some designs, and their places in even bins of its logarithm."""

    def __init__(self, per_token: Any) -> None:
        self.per_token = np.asarray(per_token, dtype=float)
        self.shape = self.per_token.shape
        self._bins: dict[int, NDArray[np.intp]] = {}
        self._cells: dict[tuple[float, float, int], NDArray[np.intp]] = {}

    @cached_property
    def ln(self) -> Floats:
        """ln of the FLOPs per token."""
        return np.asarray(np.log(self.per_token))

    @cached_property
    def _along(self) -> Floats:
        """The place of each between the cheapest, 0, and the dearest, 1."""
        span = float(np.ptp(self.ln)) or 1.0
        return np.asarray((self.ln - self.ln.min()) / span)

    def cells(self, first: float, step: float, count: int) -> NDArray[np.intp]:
        """The cell of each between nodes in ln from `first`, `step` apart; 0 below all, the last above all.

        The bounds of several laws have the same nodes.
        """
        key = first, step, count
        if key not in self._cells:
            self._cells[key] = np.clip((self.ln - first) / step + 1, 0, count - 1).astype(np.intp)
        return self._cells[key]

    def bins(self, count: int) -> NDArray[np.intp]:
        """The bin of each of `count` ones; laws without partners ask for the same."""
        if count not in self._bins:
            self._bins[count] = (self._along * (count - 1)).astype(np.intp)
        return self._bins[count]


class Classes:
    """Combinations of the values of the tokens' partners, numbered."""

    def __init__(self, partners: Sequence[Floats]) -> None:
        self._distinct = [_distinct_values(values) for values in partners]
        self.count = int(np.prod([len(values) for values in self._distinct], dtype=np.float64))

    def codes(self, partners: Sequence[Any]) -> Any:
        """The class of each design; `count` where it is none of these."""
        codes: Any = np.intp(0)
        known: Any = True
        factor = 1
        for distinct, values in zip(self._distinct, partners, strict=True):
            place = np.minimum(np.searchsorted(distinct, values), len(distinct) - 1)
            known = known & (distinct[place] == values)
            codes = codes + factor * place
            factor *= len(distinct)
        return np.where(known, codes, self.count)


def _distinct_values(values: Floats) -> Floats:
    """The distinct values, in order; np.unique would import numpy.ma for it, a third as much as numpy itself."""
    ordered = np.sort(values, axis=None)
    return np.asarray(ordered[np.append(True, ordered[1:] != ordered[:-1])])


def undominated(costs: Costs, codes: Any, classes: int, losses: Sequence[Floats]) -> NDArray[np.bool_]:
    """The designs that, in one of several `losses`, none of the same class with clearly less FLOPs per token equals.

    A cheaper design has more tokens at any compute, which only helps it. "Clearly" is by bins of FLOPs per token,
    which spares sorting: some dominated designs stay, but no other one goes.
    """
    bins = int(np.clip(losses[0].size / classes, 64, 8192))
    slot = codes * bins + costs.bins(bins)
    kept = np.zeros(costs.shape, dtype=bool)
    for loss in losses:
        least = np.full((classes, bins), np.inf)
        np.minimum.at(least.reshape(-1), slot.ravel(), loss.ravel())
        cheaper = np.full_like(least, np.inf)
        cheaper[:, 1:] = np.minimum.accumulate(least, axis=1)[:, :-1]
        kept |= loss < cheaper.reshape(-1)[slot]
    return kept


@dataclass(frozen=True)
class Bound:
    """The most loss with which a design may be the best at a knot, by its class and FLOPs per token.

    With R0(C_i) the least loss of some designs at the knots C_i, a design of loss F + n*(C/M)^nu can only be the best
    at one of them where

        F <= max over i of (R0(C_i) - n*(C_i/M)^nu).

    The right side falls with M and is convex in it (a largest of lines in M^-nu, and M^-nu is concave for nu between -1
    and 0), so that the straight line between two nodes of M lies above it.
    """

    tokens: float
    """The training tokens at which losses are compared with it."""
    first: float
    """ln of the first node of M."""
    step: float
    """Distance of the nodes in ln M."""
    level: Floats
    """The bound, as level + slope*M, of each class (rows; the last is for designs of no class) and cell between nodes,
    of which the first is below all nodes and the last above."""
    slope: Floats
    """As `level`."""

    @classmethod
    def of(cls, some: Additive, ln_compute: Floats, step: float, tokens: float) -> Bound | None:
        """The bound by some designs at the knots `ln_compute`; None if the law's exponents do not allow it."""
        n, nu = some.factor, some.power
        if not ((nu > -1) & (nu < 0) & (n > 0)).all():
            return None
        ln_cost = np.log(some.table.columns[0])
        nodes = np.arange(ln_cost.min(), ln_cost.max() + step, step)
        relief = np.exp(-np.outer(nu, nodes))
        most = np.full(relief.shape, -np.inf)
        for at in ln_compute:  # one knot at a time, in arrays that stay in the processor's cache
            np.maximum(most, some.at(at).min() - (n * np.exp(nu * at))[:, None] * relief, out=most)
        most += (n * tokens**nu)[:, None]
        most += _MARGIN * np.abs(most)
        cost = np.exp(nodes)
        slope = np.diff(most, axis=1) / np.diff(cost)
        inside = most[:, :-1] - slope * cost[:-1]
        # Below all nodes nothing is known; above them the bound falls on.
        level = np.column_stack((np.full(len(most), np.inf), inside, most[:, -1]))
        slope = np.pad(slope, ((0, 1), (1, 1)))
        return cls(tokens, float(nodes[0]), step, np.vstack((level, np.full((1, level.shape[1]), np.inf))), slope)

    def allows(self, costs: Costs, codes: Any, loss: Floats) -> NDArray[np.bool_]:
        """Which designs may be the best at a knot."""
        width = self.level.shape[1]
        place = costs.cells(self.first, self.step, width) + codes * width
        bound = self.slope.reshape(-1)[place]
        bound *= costs.per_token
        bound += self.level.reshape(-1)[place]
        return np.asarray(loss <= bound)
