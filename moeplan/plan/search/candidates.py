"""The reference designs that may be a law's best at some compute, ready to be asked for their losses.

`Table` asks designs by the law's form. Where the tokens' term of a loss is a power, n*D^nu with n and nu of the
design's class (see `moeplan.plan.search.reference`), `Additive` knows more: with D = C/M a design's loss is
F + n*M^-nu * C^nu, so that F and n*M^-nu, found once, give its loss at any C for one exponential a class. Forms with
exponentials in every term take a dozen times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeplan.numerics import Floats

TOLERANCE = 1e-9
"""How far a loss by its two terms may be off by rounding, relatively."""
_TOKENS = (1e10, 1e11, 1e12, 1e8, 1e15)
"""Training tokens at which the tokens' term is found to be a power of them: by the first three, tried by all."""
Loss = Callable[[Floats, float], Floats]
"""Losses of designs, given as columns of FLOPs per token and the law's variables but tokens, at ln C."""


@dataclass(frozen=True)
class Table:
    """Designs that are asked by the law's form."""

    loss: Loss
    """What asks them."""
    columns: Floats
    """FLOPs per token and the law's variables but tokens, (rows, designs)."""

    def at(self, ln_compute: float) -> Floats:
        """Losses of all."""
        return self.loss(self.columns, ln_compute)

    def take(self, kept: Any) -> Table:
        """Some of them: a mask, or places."""
        return Table(self.loss, self.columns[:, kept])

    def least(self, ln_compute: float, losses: Floats) -> float:
        """The least of their `losses`."""
        return float(losses.min())


@dataclass(frozen=True)
class Additive:
    """Designs whose losses are sums of two terms."""

    table: Table
    """All designs, to ask those by the law's form that are told by their terms to be the best."""
    floor: Floats
    """F of each design."""
    slope: Floats
    """n*M^-nu of each."""
    factor: Floats
    """n of each class."""
    power: Floats
    """nu of each class."""
    code: NDArray[np.intp]
    """The class of each design."""
    index: NDArray[np.intp]
    """Its column in the table."""

    def at(self, ln_compute: float) -> Floats:
        """Losses of all, each within `TOLERANCE`."""
        found: Floats = np.exp(self.power * ln_compute)[self.code]
        found *= self.slope
        found += self.floor
        return found

    def take(self, kept: NDArray[np.bool_]) -> Additive:
        """Some of them."""
        return Additive(
            self.table, self.floor[kept], self.slope[kept], self.factor, self.power, self.code[kept], self.index[kept]
        )

    def least(self, ln_compute: float, losses: Floats) -> float:
        """The least loss by the law's form: of those designs whose `losses` may be the least."""
        near = self.index[losses <= losses.min() * (1 + 2 * TOLERANCE)]
        return float(self.table.take(near).at(ln_compute).min())


def additive(table: Table, codes: NDArray[np.intp], at: Callable[[Sequence[Floats], float], Any]) -> Additive | None:
    """The designs of a table by the terms of their losses; None if the tokens' term is no power of tokens.

    Parameters
    ----------
    table : Table
        The designs.
    codes : array
        The class of each.
    at : callable
        Losses at values of the law's variables but tokens, and a number of tokens.
    """
    per_token, *values = table.columns
    count = int(codes.max()) + 1
    first = np.zeros(count, dtype=np.intp)  # of a class that no design has, any design
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    examples = [value[first] for value in values]
    found = _power(lambda tokens: np.broadcast_to(at(examples, tokens), count))
    if found is None:
        return None
    factor, power = found
    floor = at(values, _TOKENS[0]) - (factor * _TOKENS[0] ** power)[codes]
    slope = factor[codes] * np.exp(-power[codes] * np.log(per_token))
    return Additive(table, floor, slope, factor, power, codes, np.arange(len(codes)))


def _power(losses: Callable[[float], Floats]) -> tuple[Floats, Floats] | None:
    """n and nu of the term n*D^nu in losses at D tokens; None if they are not of this kind.

    The differences of three losses at tokens D, 10*D and 100*D give both; all tokens tried must agree.
    """
    said = {tokens: losses(tokens) for tokens in _TOKENS}
    a, b, c, *_ = said.values()
    with np.errstate(all="ignore"):
        ratio = (b - c) / (a - b)
        power = np.log10(ratio)
        factor = (a - b) / (_TOKENS[0] ** power * (1 - ratio))
        floor = a - factor * _TOKENS[0] ** power
        errors = [np.abs(floor + factor * tokens**power - loss) / np.abs(loss) for tokens, loss in said.items()]
        good = np.max(errors, axis=0) <= TOLERANCE / 10
    return (factor, power) if good.all() else None
