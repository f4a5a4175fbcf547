"""The designs near a function's best without asking it of each: branch and bound over boxes of designs.

Designs are points with a few coordinates, the variables that a law sees. They are put into boxes (about 30 % wide in
each coordinate) and these into finer ones (about 6 %); a coordinate of few distinct values gets a box for each. A
function that rises or falls in every coordinate inside a box, in either direction, is largest at one of its corners, so
that a box whose corners are all worse than a design already known cannot hold the best. What the function bends
inside a box that it turns around in is allowed for by a slack, `SLACK` times the box's corners' range.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeplan.numerics import Floats, Indices

Part = tuple[Sequence[int], Callable[[Floats], Floats]]
"""A function and the coordinates that it sees."""

WIDTHS = (0.32, 0.06)
"""Widths of the boxes in ln, the coarse ones first."""
FEW = 24
"""A coordinate of no more distinct values than this is split by value."""
SLACK = 0.02
"""Allowance for bending inside a box, as a share of the range of its corners."""


@dataclass(frozen=True)
class _Level:
    """Boxes of one width."""

    low: Floats
    """Least value of each coordinate, (dims, boxes)."""
    high: Floats
    """Largest value of each coordinate, (dims, boxes)."""
    starts: Indices
    """Where each begins among the boxes (or designs) of the level below, and the end, (boxes + 1,)."""


def cells(columns: Floats, width: float) -> NDArray[np.int64]:
    """The box of each column of a table (dims, n): equal numbers are one box."""
    codes = np.zeros(columns.shape[1], dtype=np.int64)
    for row in columns:
        distinct = np.unique(row)
        if len(distinct) <= FEW:
            own = np.searchsorted(distinct, row)
        else:
            logs = np.log(row) if distinct[0] > 0 else row
            own = np.floor((logs - logs.min()) / width).astype(np.int64)
        codes = codes * (int(own.max()) + 1) + own
        if int(codes.max()) > 1 << 30:  # far fewer boxes than products: number them anew
            codes = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    return codes


class Boxes:
    """Designs in boxes, over coordinates (dims, n) and an addend (n,) that is known of each design.

    The function asked is f(coordinates) + addend; f must accept (dims, m) and return (m,).
    """

    def __init__(self, columns: Floats, addend: Floats) -> None:
        codes = [cells(columns, width) for width in WIDTHS]
        self.order: Indices = np.lexsort(codes[::-1])
        self.columns, self.addend = columns[:, self.order], addend[self.order]
        coarse, fine = (code[self.order] for code in codes)
        fresh = np.flatnonzero(np.diff(fine) | np.diff(coarse)) + 1
        starts = np.concatenate(([0], fresh))
        low, high = (end.reduceat(self.columns, starts, axis=1) for end in (np.minimum, np.maximum))
        self._most = np.maximum.reduceat(self.addend, starts)
        self._fine = _Level(low, high, np.append(starts, len(self.addend)))
        fresh = np.flatnonzero(np.diff(coarse[starts])) + 1
        starts = np.concatenate(([0], fresh))
        low, high = np.minimum.reduceat(low, starts, axis=1), np.maximum.reduceat(high, starts, axis=1)
        self._coarse = _Level(low, high, np.append(starts, len(self._most)))
        self._coarse_most = np.maximum.reduceat(self._most, starts)

    def near(
        self, function: Callable[[Floats], Floats], least: float, within: float, parts: Sequence[Part] = ()
    ) -> tuple[Indices, Floats]:
        """The designs within `within` of the largest value of f + addend, and their values; at least one has `least`.

        Indices are the columns' as they were given, in rising order. Where f is a sum of `parts` that see few
        coordinates each, boxes are judged by the parts' corners.
        """
        least -= within
        function_parts = parts or [(range(len(self.columns)), function)]
        alive = np.flatnonzero(self._bound(function_parts, self._coarse, self._coarse_most, slice(None)) >= least)
        boxes = _ranges(self._coarse.starts, alive)
        alive = boxes[self._bound(function_parts, self._fine, self._most, boxes) >= least]
        places = _ranges(self._fine.starts, alive)
        values = function(self.columns[:, places]) + self.addend[places]
        if not (values >= least).any():  # f turns around in its boxes by more than the slack: nothing was ruled out
            places = np.arange(len(self.addend))
            values = function(self.columns) + self.addend
        kept = values >= max(float(values.max(initial=-np.inf)) - within, least)
        found, values = self.order[places[kept]], values[kept]
        order = np.argsort(found)
        return found[order], values[order]

    def _bound(self, parts: Sequence[Part], level: _Level, most: Floats, which: Any) -> Floats:
        """Upper bound of the value over all designs of a box."""
        low, high = level.low[:, which], level.high[:, which]
        total: Floats = most[which].copy()
        for rows, function in parts:
            wide = [i for i in rows if (low[i] != high[i]).any()]
            best, worst = np.full(low.shape[1], -np.inf), np.full(low.shape[1], np.inf)
            corner = low.copy()
            for ends in itertools.product((False, True), repeat=len(wide)):
                for i, end in zip(wide, ends, strict=True):
                    corner[i] = high[i] if end else low[i]
                value = function(corner)
                best, worst = np.fmax(best, value), np.fmin(worst, value)
            # A corner without a value says nothing, so the box must be opened.
            total += np.where(np.isfinite(worst), best + SLACK * (best - worst), np.inf)
        return total


def _ranges(starts: Indices, chosen: Indices) -> Indices:
    """The members of the `chosen` boxes in a row."""
    first, lengths = starts[chosen], starts[chosen + 1] - starts[chosen]
    total = int(lengths.sum())
    offsets = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.asarray(np.arange(total) - offsets + np.repeat(first, lengths))
