"""C_l: the compute at which a law's own best design reaches a given loss (or leverage), without any memory limit.

For a law l and a design x, C_l(x) is the least compute at which some design of the reference grid (the default grid at
the plan's vocabulary and sequence length) is as good as x by that law alone. It depends on x alone, in FLOPs, so it can
be averaged over laws where losses cannot.

Loss laws: with R(C) = min over designs r of L(r, C/M(r)), C_l = R^-1(L(x)). Where the tokens' term of a law mixes with
nothing but a few discrete variables (found numerically, `token_partners`), most designs can be told never to be R's
minimum (`moeplan.plan.search.pruning`), which leaves a few hundred; R is computed at knots and interpolated.

Leverage laws: with EL_max(C) the largest leverage of any design, C' solves C'*EL_max(C') = C*EL(x)*phi(x) in the law's
own FLOPs, and C_l = C' times the design's ratio of moeplan's FLOPs to the law's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from moeplan.architecture.conventions import Variables
from moeplan.errors import LawError
from moeplan.laws import Fit, Law
from moeplan.laws.draws import coefficient_draws
from moeplan.numerics import Floats
from moeplan.numerics.branch_and_bound import cells
from moeplan.plan.search.candidates import TOLERANCE, Additive, Table, additive
from moeplan.plan.search.pruning import Bound, Classes, Costs, undominated

KNOTS_PER_DECADE = 16
"""Knots of R, at fixed places (so that C_l is the same under any budget); between them ln C_l is linear in the loss."""
DECADES_BELOW, DECADES_ABOVE = 3, 1
"""How far the knots reach below and above the budget at first; `extend` adds below where a budget buys little."""
_LN10 = float(np.log(10))
_LEAST_DECADE = 8  # no design of any grid is worth less than 1e8 FLOPs
_TOKENS = 1e12
"""Training tokens at which losses of designs are compared."""
_CHUNK = 1 << 14
"""Designs evaluated at a time: few enough to stay in the processor's cache."""
_FEW = 1 << 10
"""As many where each is evaluated at all knots."""
_OTHERS = 8
"""Draws of a fitted law's coefficients under which designs that may be best stay in its table."""
_CELL = 0.08
"""Width in ln of the cells of reference designs of which one stands for all, where other coefficients are tried."""


def token_partners(fit: Fit) -> tuple[str, ...]:
    """The variables of a loss fit that mix with tokens: those that change L(x, D1) - L(x, D0).

    Found by trying: each variable alone is moved inside a plausible range.
    """
    start = {"total_params": 3e9, "active_params": 5e8, "num_experts": 64.0, "expansion_ratio": 8.0, "G": 5.0}
    base = {name: start.get(name, 0.2 if name.endswith("ratio") else 4.0) for name in fit.variables}
    values = [base[name] for name in fit.variables]

    def gap(**changed: float) -> float:
        at = [changed.get(name, value) for name, value in zip(fit.variables, values, strict=True)]
        token = fit.variables.index("tokens")
        losses = []
        for tokens in (1e10, 1e12):
            at[token] = tokens
            losses.append(float(fit(*at)))
        return losses[0] - losses[1]

    still = gap()
    return tuple(
        name for name in fit.variables if name != "tokens" and abs(gap(**{name: base[name] * 1.7}) - still) > 1e-9
    )


class LossReference:
    """R^-1 of one loss law over the reference designs, as a table from loss to ln C.

    `collect` is called for each block of the reference grid; its results, in order, go to `finish`. `flops` names the
    convention that budgets are counted by. The designs that may be best with the coefficients of `others` stay in the
    table, too, for `under`.
    """

    def __init__(self, fit: Fit, flops: str, others: Sequence[Fit] = ()) -> None:
        self.fit, self.flops, self._others = fit, flops, tuple(others)
        self._static = tuple(name for name in fit.variables if name != "tokens")
        self._partners = token_partners(fit)
        self._bound: tuple[Bound, Classes] | None = None
        self.table: Floats = np.empty((0, 0))
        """Rows: FLOPs per token, then the law's variables but tokens. Columns: designs that may be best at some C."""
        self._losses = self._ln_compute = self._few_here = np.empty(0)

    def collect(self, v: Variables, costs: Costs | None = None) -> Floats:
        """The designs of one block that may be the best at some compute, as columns.

        `costs` are the block's FLOPs per token, where several laws share them.
        """
        costs = costs or Costs(v.get("flops_per_token", self.flops))
        return self._pruned(costs, v.select(self._static, self.fit.conventions), self._bound)

    def prepare(self, v: Variables) -> None:
        """Let the variables of designs know those that `judge` needs."""
        v.select(self._static, self.fit.conventions)

    def columns(self, v: Variables) -> Floats:
        """All designs of a block, as columns."""
        rows = v.get("flops_per_token", self.flops), *v.select(self._static, self.fit.conventions)
        return np.stack(np.broadcast_arrays(*rows))

    def bound_by(self, some: Sequence[Floats], most: float) -> None:
        """Let `collect` drop the designs that `some`, given as columns, show not to be the best at any knot.

        `most` is the largest budget [FLOPs]. Where designs that may be best under other coefficients stay in the
        table, nothing is known of these, so that it changes nothing.
        """
        found = None if self._others else self._additive(np.concatenate(some, axis=1))
        if found is not None:
            designs, classes = found
            knots = _knots(_LEAST_DECADE, math.floor(math.log10(most)) + 1 + DECADES_ABOVE)
            if bound := Bound.of(designs, knots, _LN10 / KNOTS_PER_DECADE, _TOKENS):
                self._bound = bound, classes

    def finish(self, blocks: Sequence[Floats], least: float, most: float) -> None:
        """Tabulate R around budgets from `least` to `most` FLOPs over all collected blocks."""
        table = np.concatenate(blocks, axis=1)
        self.table = self._pruned(Costs(table[0]), list(table[1:]))
        first, last = (math.floor(math.log10(flops)) for flops in (least, most))
        self._set(*self._tabulate(first - DECADES_BELOW, last + 1 + DECADES_ABOVE))

    def _additive(self, columns: Floats) -> tuple[Additive, Classes] | None:
        """Designs given as columns by the terms of their losses, and their classes; None if that cannot be."""
        values = list(columns[1:])
        classes = self._classes(values, columns.shape[1])
        if classes is None:
            return None
        codes = np.broadcast_to(classes.codes(self._partner_values(values)), columns.shape[1])
        found = additive(Table(self._at_compute, columns), codes, lambda *at: self._at(self.fit, *at))
        return None if found is None else (found, classes)

    @property
    def _candidates(self) -> Table | Additive:
        """The table's designs, ready to be asked for their losses; by the form where they are few."""
        found = self._additive(self.table) if self._partners else None
        return found[0] if found else Table(self._at_compute, self.table)

    def _at_compute(self, columns: Floats, ln_compute: float) -> Floats:
        """Losses of designs given as columns, trained for exp(`ln_compute`) FLOPs."""
        return self._loss(columns, np.exp(ln_compute) / columns[0])

    def extend(self, decades: int) -> bool:
        """Tabulate R further below; false if it reaches far enough for any budget."""
        first = round(self._ln_compute[-1] / _LN10)
        if first <= _LEAST_DECADE:
            return False
        ln_compute, losses = self._tabulate(max(first - decades, _LEAST_DECADE), first)
        self._set(
            np.concatenate((ln_compute[:-1], self._ln_compute[::-1])), np.concatenate((losses[:-1], self._losses[::-1]))
        )
        return True

    @property
    def least_ln_compute(self) -> float:
        """Where the table ends: ln C_l below it is continued straight."""
        return float(self._ln_compute[-1])

    def _tabulate(self, first: int, last: int) -> tuple[Floats, Floats]:
        """ln C and R(C) at the knots from 10**first to 10**last."""
        ln_compute = _knots(first, last)
        losses = np.empty(len(ln_compute))
        candidates = self._candidates
        at_last = candidates.at(ln_compute[-1])
        losses[0] = candidates.least(ln_compute[0], candidates.at(ln_compute[0]))
        losses[-1] = candidates.least(ln_compute[-1], at_last)
        if not (np.isfinite(losses[[0, -1]]).all() and losses[-1] < losses[0]):
            raise LawError(f"{self.fit.full_name} gives losses that do not fall with compute; check its coefficients")
        _fill(ln_compute, losses, (0, len(losses) - 1), candidates, at_last)
        return ln_compute, losses

    def _set(self, ln_compute: Floats, losses: Floats) -> None:
        self._losses, self._ln_compute = losses[::-1].copy(), ln_compute[::-1].copy()

    def _loss(self, table: Floats, tokens: Any, fit: Fit | None = None) -> Floats:
        """Losses of the table's columns (by another fit); in chunks that stay in the processor's cache."""
        fit = fit or self.fit
        losses = np.empty(table.shape[1])
        tokens = np.broadcast_to(tokens, losses.shape)
        for start in range(0, len(losses), _CHUNK):
            part = slice(start, start + _CHUNK)
            values = dict(zip(self._static, table[1:, part], strict=True))
            losses[part] = fit(*(tokens[part] if n == "tokens" else values[n] for n in fit.variables))
        return losses

    def _partner_values(self, values: Sequence[Any]) -> list[Any]:
        """Those of the law's variables but tokens that mix with tokens."""
        return [values[self._static.index(name)] for name in self._partners]

    def _classes(self, values: Sequence[Any], size: int) -> Classes | None:
        """The classes of `size` designs; None if they are too many, by a continuous partner."""
        classes = Classes(self._partner_values(values))
        return classes if classes.count <= size else None

    def _pruned(self, costs: Costs, values: Sequence[Any], within: tuple[Bound, Classes] | None = None) -> Floats:
        """The designs that may be the best at some compute, as columns: those within a bound, or else not dominated.

        `values` are the law's variables but tokens, as arrays that broadcast to the costs' shape.
        """
        shape, rows = costs.shape, (costs.per_token, *values)
        loss = np.broadcast_to(self._at(self.fit, values, _TOKENS), shape)
        if not np.isfinite(loss).all():
            raise LawError(f"{self.fit.full_name} gives losses that are not finite numbers; check its coefficients")
        if within is not None:
            bound, classes = within
            kept = bound.allows(costs, classes.codes(self._partner_values(values)), loss)
        elif (own := self._classes(values, loss.size)) is not None:
            drawn = [np.broadcast_to(self._at(other, values, _TOKENS), shape) for other in self._others]
            losses = [loss, *(np.where(np.isfinite(one), one, np.inf) for one in drawn)]
            kept = undominated(costs, own.codes(self._partner_values(values)), own.count, losses)
        else:  # nothing is comparable
            kept = np.ones(shape, dtype=bool)
        places = np.nonzero(kept)
        return np.stack([np.broadcast_to(row, shape)[places] for row in rows])

    def _at(self, fit: Fit, values: Sequence[Any], tokens: float) -> Any:
        """Losses by a fit at the law's variables but tokens, given in order."""
        static = dict(zip(self._static, values, strict=True))
        return fit(*(tokens if name == "tokens" else static[name] for name in fit.variables))

    def _best(self, table: Floats, train_flops: float) -> float:
        """R(C) over the designs of `table`."""
        return float(np.min(self._loss(table, train_flops / table[0])))

    def around(self, least: float, most: float) -> LossReference:
        """The reference with the knots around ln C from `least` to `most` alone, ready for `under`."""
        inside = np.flatnonzero((self._ln_compute >= least) & (self._ln_compute <= most))
        middle = int(np.argmin(np.abs(self._ln_compute - (least + most) / 2)))
        first, last = (int(inside[0]), int(inside[-1])) if len(inside) else (middle, middle)
        knots = slice(max(first - 1, 0), last + 2)
        other = copy.copy(self)
        other._losses, other._ln_compute = self._losses[knots], self._ln_compute[knots]
        other._few_here = other._few_losses()
        return other

    def covers(self, v: Variables, tokens: Any) -> bool:
        """Whether the table holds the losses of designs, so that nothing must be continued."""
        loss = self.fit.at(v, tokens)
        return bool(self._losses[0] <= loss.min() and loss.max() <= self._losses[-1])

    def under(self, fit: Fit) -> LossReference:
        """The reference if the law had the coefficients of `fit`.

        What they change of R is taken over few designs, the best of each cell of the table.
        """
        other = copy.copy(self)
        other.fit = fit
        # The larger the compute the less the loss, or nothing could be read from it.
        other._losses = np.maximum.accumulate(self._losses + (other._few_losses() - self._few_here))
        return other

    @cached_property
    def _few(self) -> Floats:
        """The best column of each cell of the table at the largest knot."""
        loss = self._loss(self.table, math.exp(self._ln_compute[0]) / self.table[0])
        order = np.lexsort((loss, codes := cells(self.table[1:], _CELL)))
        return np.asarray(self.table[:, order[np.append(True, np.diff(codes[order]) != 0)]])

    def _few_losses(self) -> Floats:
        """R over the few designs, at the knots."""
        table, ln_compute = self._few, self._ln_compute
        at_first = self._loss(table, math.exp(ln_compute[0]) / table[0])
        losses = np.empty(len(ln_compute))
        losses[-1] = self._best(table, math.exp(ln_compute[-1]))
        # None is as good at the largest compute as the best at the least: such a loss rises, and says nothing of C.
        alive = at_first <= losses[-1]
        if not (alive.any() and np.isfinite(losses[-1]) and np.isfinite(at_first).all()):
            return np.full(len(ln_compute), np.nan)
        table = table[:, alive]
        losses[0] = at_first.min()
        for place in range(1, len(ln_compute) - 1):
            losses[place] = self._best(table, math.exp(ln_compute[place]))
        return losses

    def ln_compute(self, loss: Any) -> Any:
        """ln C_l at a loss [nats]: interpolated; continued straight beyond the ends of the table."""
        x, y = self._losses, self._ln_compute
        slopes = [(y[a] - y[b]) / (x[a] - x[b]) if x[a] != x[b] else 0.0 for a, b in ((0, 1), (-1, -2))]
        return _continued(loss, x, y, slopes)

    def judge(self, v: Variables, tokens: Any, train_flops: Any) -> Any:
        """ln C_l of designs trained on `tokens` for `train_flops` (moeplan's count, unused: the loss says it all)."""
        return self.ln_compute(self.fit.at(v, tokens))


def _knots(first: int, last: int) -> Floats:
    """ln C of the knots from 10**first to 10**last."""
    return np.arange(first * KNOTS_PER_DECADE, last * KNOTS_PER_DECADE + 1.0) * (_LN10 / KNOTS_PER_DECADE)


def _continued(at: Any, x: Floats, y: Floats, slopes: Sequence[float]) -> Any:
    """y at values of x: interpolated, and continued straight beyond the ends at the two slopes."""
    found = np.interp(at, x, y)
    for beyond, end, slope in ((at < x[0], 0, slopes[0]), (at > x[-1], -1, slopes[1])):
        if np.any(beyond):
            found = np.where(beyond, y[end] + slope * (at - x[end]), found)
    return found


def _fill(
    ln_compute: Floats, losses: Floats, between: tuple[int, int], candidates: Table | Additive, at_last: Floats
) -> None:
    """R at the knots between two known ones, halving; `at_last` are the candidates' losses at the last one.

    Losses fall with compute, so that a design that at the last knot is still worse than the best at the first cannot
    be best in between: the nearer the knots, the fewer designs are asked.
    """
    first, last = between
    if last - first < 2:
        return
    alive = at_last <= losses[first] * (1 + TOLERANCE)
    if np.count_nonzero(alive) < 0.7 * len(alive):  # copying a smaller table must pay
        candidates, at_last = candidates.take(alive), at_last[alive]
    middle = (first + last) // 2
    at_middle = candidates.at(ln_compute[middle])
    losses[middle] = candidates.least(ln_compute[middle], at_middle)
    _fill(ln_compute, losses, (first, middle), candidates, at_middle)
    _fill(ln_compute, losses, (middle, last), candidates, at_last)


def _distinct(columns: Floats) -> Floats:
    """The distinct columns of a table."""
    # One key that mixes all rows sorts faster than the rows in turn; equal columns have equal keys.
    ordered = columns[:, np.argsort(np.sqrt(np.arange(2, 2 + len(columns))) @ columns, kind="stable")]
    new = np.ones(ordered.shape[1], dtype=bool)
    new[1:] = (np.diff(ordered, axis=1) != 0).any(axis=0)
    return ordered[:, new]


class LeverageReference:
    """C_l of a leverage law: its largest leverage at any compute, and the discount for a misallocated budget."""

    def __init__(self, law: Law, *, allocation: bool = True) -> None:
        fit = law.objective
        assert fit is not None
        self.fit = fit
        self.allocation = law.allocation if allocation else None
        self._static = tuple(name for name in fit.variables if name != "train_flops")
        self._ln_compute = self._ln_worth = np.empty(0)
        self.table: Floats = np.empty((0, 0))
        """The law's variables but compute; columns: the distinct designs."""

    def collect(self, v: Variables, costs: Costs | None = None) -> Floats:
        """The law's variables but compute, of one block's designs, as distinct columns; costs do not enter."""
        values = np.broadcast_arrays(*v.select(self._static, self.fit.conventions))
        return _distinct(np.stack([value.ravel() for value in values]))

    def prepare(self, v: Variables) -> None:
        """Let the variables of designs know those that `judge` needs."""
        v.get("flops_per_token", self.fit.convention("train_flops"))
        v.select(self._static, self.fit.conventions)
        if self.allocation is not None:
            v.select(self.allocation.variables, self.allocation.conventions, 1.0)

    def finish(self, blocks: Sequence[Floats], least: float, most: float) -> None:
        """Tabulate C*EL_max(C), whatever the budgets; EL_max is a power of C between knots."""
        self.table = _distinct(np.concatenate(blocks, axis=1))
        self._ln_compute = np.arange(_LEAST_DECADE, 36, 0.5) * _LN10
        self._ln_worth = self._ln_compute + np.log(self._best(self._ln_compute))

    def _best(self, ln_compute: Floats) -> Floats:
        """EL_max at each compute."""
        best, compute = np.full(len(ln_compute), -np.inf), np.exp(ln_compute)[:, None]
        for start in range(0, self.table.shape[1], _FEW):
            values = dict(zip(self._static, self.table[:, start : start + _FEW], strict=True))
            found = self.fit(*(compute if name == "train_flops" else values[name] for name in self.fit.variables))
            np.maximum(best, found.max(axis=1), out=best)
        return best

    def around(self, least: float, most: float) -> LeverageReference:
        """The reference with the knots around ln C from `least` to `most` alone, ready for `under`."""
        first, last = np.searchsorted(self._ln_compute, (least, most))
        knots = slice(max(int(first) - 1, 0), int(last) + 1)
        other = copy.copy(self)
        other._ln_compute, other._ln_worth = self._ln_compute[knots], self._ln_worth[knots]
        return other

    def covers(self, v: Variables, tokens: Any) -> bool:
        """Whether the table holds what designs are worth, so that nothing must be continued."""
        worth = np.log(v.get("train_flops", self.fit.convention("train_flops"), tokens)) + np.log(
            self.fit.at(v, tokens)
        )
        return bool(self._ln_worth[0] <= worth.min() and worth.max() <= self._ln_worth[-1])

    def under(self, fit: Fit) -> LeverageReference:
        """The reference if the law had the coefficients of `fit`."""
        other = copy.copy(self)
        other.fit = fit
        # Leverage may fall so fast that more compute would seem worth less; nothing could be read from that.
        other._ln_worth = np.maximum.accumulate(self._ln_compute + np.log(other._best(self._ln_compute)))
        return other

    def judge(self, v: Variables, tokens: Any, train_flops: Any) -> Any:
        """ln C_l of designs trained on `tokens` for `train_flops` by moeplan's count."""
        ln_own = np.log(v.get("train_flops", self.fit.convention("train_flops"), tokens))
        worth = ln_own + np.log(self.fit.at(v, tokens))
        if self.allocation is not None:
            worth = worth + np.log(self.allocation.at(v, tokens))
        return _continued(worth, self._ln_worth, self._ln_compute, (1.0, 1.0)) + np.log(train_flops) - ln_own


Reference = LossReference | LeverageReference


def make_reference(law: Law, flops: str, *, allocation: bool = True) -> Reference:
    """The reference of a law that can search, still to be filled from the blocks of the reference grid."""
    fit = law.objective
    assert fit is not None
    if fit.predicts == "efficiency_leverage":
        return LeverageReference(law, allocation=allocation)
    drawn = coefficient_draws(fit)
    return LossReference(fit, flops, [drawn.fit(fit, place) for place in range(_OTHERS)] if drawn else ())
