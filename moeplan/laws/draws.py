"""A fitted law as it might have come out: draws of its coefficients from what its file says of them.

A law file made by `moeplan fit` carries a sample of the fit's own bootstrap draws (`moeplan.fitting.bootstrap`), and
these are taken as they are, so that a law has the same intervals here as in the report of its fit. A file that gives
a covariance alone is taken at its word: coefficients are drawn from the normal with that covariance about the fit, in
the coordinates that it states (ln or linear). Where coefficients trade against each other along a curve, as exponents
and amplitudes of a loss do when few runs determine them, the normal leaves the curve, and its intervals come out too
wide, never too narrow by much.

Standard errors alone (`stderr`) draw nothing: coefficients of one fit are strongly correlated, so that errors drawn
apart would say far too much of a prediction's.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from moeplan.laws import Fit, Law
from moeplan.laws.law import Covariance
from moeplan.laws.signatures import form_coordinates
from moeplan.numerics import Floats

DRAWS = 200
"""Draws that a law file carries, and that are made where it carries none."""
SEED = 20_260_401
"""Seed of the draws."""
_TRIES = 40
"""How often draws beyond the form's bounds are drawn again before they are held at them."""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Draws of one fit's coefficients."""

    values: Mapping[str, Floats]
    """By coefficient, (count,); the fit's own value where it is not drawn."""
    stored: bool
    """Whether they are the fit's own draws, from its file."""
    held: int
    """Draws that had to be held at a bound of the form."""

    def fit(self, of: Fit, place: int) -> Fit:
        """The fit with the coefficients of one draw."""
        coefficients = {name: float(values[place]) for name, values in self.values.items()}
        return dataclasses.replace(of, coefficients=MappingProxyType(coefficients))


def coefficient_draws(fit: Fit, count: int = DRAWS, seed: int = SEED) -> Drawn | None:
    """`count` draws of a fit's coefficients, the same every time; None for a fit without a covariance.

    Draws of two fits are taken as independent: their order is shuffled by the fits' names.
    """
    if fit.covariance is None:
        return None
    name = int.from_bytes(hashlib.sha256(fit.full_name.encode()).digest()[:8], "big")
    rng = np.random.default_rng([seed, name])
    names = list(fit.covariance.coordinates)
    logs = np.array([kind == "ln" for kind in fit.covariance.coordinates.values()])
    held = 0
    if fit.covariance.draws:
        table = np.array(fit.covariance.draws)
        order = rng.permutation(len(table))
        table = table[order[np.arange(count) % len(table)]]
    else:
        center = np.array([fit.coefficients[name] for name in names])
        center = np.where(logs, np.log(np.where(logs, center, 1.0)), center)
        y, held = _normal(fit, center, logs, count, rng)
        table = np.where(logs, np.exp(np.where(logs, y, 0.0)), y)
    values = {name: np.full(count, value) for name, value in fit.coefficients.items()}
    values |= {name: table[:, i] for i, name in enumerate(names)}
    return Drawn(values, bool(fit.covariance.draws), held)


def _normal(
    fit: Fit, center: Floats, logs: NDArray[np.bool_], count: int, rng: np.random.Generator
) -> tuple[Floats, int]:
    """Draws (count, P) from the normal inside the form's bounds, and how many had to be held at them."""
    covariance: Covariance | None = fit.covariance
    assert covariance is not None
    root = matrix_root(np.array(covariance.matrix))
    table = form_coordinates(fit.form).coordinates
    ends = np.array([(table[name].low, table[name].high) for name in covariance.coordinates]).T
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.where(logs, np.log(ends), ends)
    # A fit outside its form's bounds is not pulled inside.
    low, high = np.minimum(np.where(np.isnan(low), -np.inf, low), center), np.maximum(high, center)
    y = center + rng.standard_normal((count, len(center))) @ root.T
    for _ in range(_TRIES):
        outside = ((y < low) | (y > high)).any(axis=1)
        if not outside.any():
            return y, 0
        y[outside] = center + rng.standard_normal((int(outside.sum()), len(center))) @ root.T
    outside = ((y < low) | (y > high)).any(axis=1)
    return np.clip(y, low, high), int(outside.sum())


def matrix_root(matrix: Floats) -> Floats:
    """R with R R^T = the matrix; directions of negative variance, by rounding, get none."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def drawn_law(law: Law, draws: Mapping[str, Drawn], place: int) -> Law:
    """The law with the coefficients of one draw in every fit that has them; `draws` by the fit's name."""
    changed = {name: drawn.fit(law.fits[name], place) for name, drawn in draws.items()}
    return dataclasses.replace(law, fits=MappingProxyType({**law.fits, **changed}))


def law_draws(law: Law, count: int = DRAWS, seed: int = SEED) -> dict[str, Drawn]:
    """Draws of every fit of a law that has a covariance, by the fit's name; empty if its objective has none."""
    if law.objective is None or law.objective.covariance is None:
        return {}
    found = {name: coefficient_draws(fit, count, seed) for name, fit in law.fits.items()}
    return {name: drawn for name, drawn in found.items() if drawn is not None}
