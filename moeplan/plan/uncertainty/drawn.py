"""Predictions of a law with draws for single designs, under every draw at once: losses, and leverage over dense models.

C_dense(L), the compute at which the law's best dense model (sizes continuous, C = 6*N*D) has the loss L, is tabulated
for every draw once; leverage under a draw is that by the law's own coefficients times the ratio of both tables, so
that what the tables lack in sharpness cancels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from moeplan.architecture.conventions import Variables
from moeplan.laws import Law
from moeplan.laws.dense import dense_loss
from moeplan.laws.draws import DRAWS, SEED, Drawn, law_draws
from moeplan.laws.leverage import leverage_by
from moeplan.numerics import Floats
from moeplan.numerics.intervals import interval

LEVEL = 0.9
"""Probability that intervals are meant to cover."""
Ends = tuple[float, float] | None
"""An interval, or none where half of the draws give no finite number."""
_SIZES = np.geomspace(1e5, 1e15, 101)
"""Continuous dense sizes tried [params]; the least loss is that of the parabola through the best three."""
_LN_COMPUTE = np.log(10) * np.arange(14, 32, 1 / 12)
"""Knots of C_dense."""


def ends(values: Floats) -> Ends:
    """The interval of draws, as the report of a fit makes it."""
    low, high = interval(np.asarray(values, dtype=float), LEVEL)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


class DrawnLaw:
    """A law with draws of its coefficients."""

    def __init__(self, law: Law, draws: Mapping[str, Drawn], seed: int = SEED) -> None:
        self.law, self.draws, self.seed = law, draws, seed
        self.count = len(next(iter(draws[law.require_objective().name].values.values())))
        fits = {}
        for name, fit in law.fits.items():
            # Each fit's coefficients as a column (draws, 1), so that it is asked under all of them at once.
            columns: Any = {key: x[:, None] for key, x in draws[name].values.items()} if name in draws else None
            fits[name] = dataclasses.replace(fit, coefficients=columns) if columns else fit
        self._drawn = dataclasses.replace(law, fits=MappingProxyType(fits))

    def predictions(self, v: Variables, tokens: float) -> Floats:
        """Its objective at a design trained on `tokens`, under every draw, (draws,)."""
        return self._each(self._drawn.require_objective().at(v, tokens))

    def dense_losses(self, size: float, tokens: float) -> Floats:
        """The law's loss of a dense model under every draw, (draws,)."""
        return self._each(dense_loss(self._drawn, size, tokens))

    def _each(self, values: Any) -> Floats:
        return np.asarray(np.broadcast_to(np.asarray(values, dtype=float), (self.count, 1))[:, 0])

    def run_losses(self, losses: Floats) -> Floats | None:
        """Losses that single runs would measure, under every draw with the runs' scatter; None if that is not known."""
        sigma = self.law.require_objective().scatter
        if sigma is None:
            return None
        scatter = np.random.default_rng(self.seed).standard_normal((50, len(losses)))
        return np.asarray((losses * np.exp(sigma * scatter)).ravel())

    def leverages(self, v: Variables, tokens: float) -> Floats | None:
        """EL of a design under every draw, (draws,); None for a law without a dense counterpart."""
        if not self.law.has_dense:
            return None
        own = leverage_by(self.law, v, tokens).efficiency_leverage
        if self.law.require_objective().predicts == "efficiency_leverage":
            return self.predictions(v, tokens)
        return own * self.dense_ratios(self.predictions(v, tokens), float(self.law.require_objective().at(v, tokens)))

    def dense_ratios(self, losses: Floats, loss: float) -> Floats:
        """C_dense of `losses` under every draw / C_dense of `loss` by the law itself.

        inf where none is as good, NaN if that holds of the law itself.
        """
        here, there = self._own_curve, self._curves
        own = float(_read(here, np.array([loss]))[0])
        if not math.isfinite(own):
            return np.full(len(losses), np.nan)
        return np.asarray(np.exp(_read(there, losses) - own))

    @cached_property
    def _curves(self) -> Floats:
        """Least loss of dense models at the knots, (draws, knots)."""
        return _least(self._drawn, self.count)

    @cached_property
    def _own_curve(self) -> Floats:
        return _least(self.law, 1)


def draw(law: Law, count: int = DRAWS, seed: int = SEED) -> DrawnLaw | None:
    """A law with its draws; None if its file gives no covariance."""
    draws = law_draws(law, count, seed)
    return DrawnLaw(law, draws, seed) if draws else None


def _least(law: Law, count: int) -> Floats:
    curves = np.empty((count, len(_LN_COMPUTE)))
    rows = np.arange(count)
    for place, ln_compute in enumerate(_LN_COMPUTE):
        losses = np.broadcast_to(dense_loss(law, _SIZES, math.exp(ln_compute) / (6 * _SIZES)), (count, len(_SIZES)))
        best = np.clip(np.argmin(losses, axis=1), 1, len(_SIZES) - 2)
        left, middle, right = (losses[rows, best + step] for step in (-1, 0, 1))
        bend = left - 2 * middle + right
        dip = np.where(bend > 0, (right - left) ** 2 / (8 * np.where(bend > 0, bend, 1.0)), 0.0)
        curves[:, place] = np.fmin(middle - dip, np.fmin(left, right))
    return np.minimum.accumulate(curves, axis=1)


def _read(curves: Floats, losses: Floats) -> Floats:
    """ln C_dense at a loss on each curve; inf beyond its end."""
    found = np.empty(len(curves))
    for row, (curve, loss) in enumerate(zip(curves, losses, strict=True)):
        found[row] = np.interp(-loss, -curve, _LN_COMPUTE, right=np.inf) if np.isfinite(curve).all() else np.nan
    return found
