"""A form and runs as a least-squares problem: residuals, their Jacobian, bounds, and the objective.

The objective is sum_i w_i * huber(ln prediction_i - ln observation_i; delta) with huber(r; delta) = r^2/2 for
|r| <= delta and delta*(|r| - delta/2) beyond: quadratic for small residuals, linear for outliers (Hoffmann et al. 2022,
arXiv 2203.15556, section 3.3, with delta 1e-3). An infinite delta is least squares.

Everything is batched: coordinates have shape (B, P), residuals (B, R), Jacobians (B, P, R) for B points, P coefficients
and R runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moeplan.fitting.dual import Dual
from moeplan.laws.signatures import FORMS, FormCoordinates, form_coordinates, form_variables
from moeplan.numerics import Floats

DELTA = 1e-3
"""Where the objective turns from quadratic to linear, in ln (Hoffmann et al. 2022, section 3.3)."""


@dataclass(frozen=True)
class Pull:
    """A Gaussian prior in the fit's coordinates: adds weight * sum((y - center)^2 / (2*width^2)) to the objective."""

    center: Floats
    """Where it pulls to, (P,)."""
    width: Floats
    """How weakly, (P,); infinite for a coefficient without a prior."""
    weight: float
    """One unit of log-likelihood in units of the objective."""

    @property
    def curvature(self) -> Floats:
        """Second derivative by coordinate, (P,)."""
        return np.asarray(self.weight / self.width**2)


@dataclass(frozen=True)
class Problem:
    """A form to be fitted to runs."""

    form: str
    """Name of the form."""
    variables: tuple[Floats, ...]
    """The form's variables over the runs, each (R,)."""
    observed: Floats
    """Observations, (R,), above 0."""
    delta: float = DELTA
    """Where the objective turns linear, in ln; infinite for least squares."""
    pull: Pull | None = None
    """The prior, if there is one."""
    fixed: Mapping[str, float] = field(default_factory=dict)
    """Coefficients held at a value."""

    @property
    def table(self) -> FormCoordinates:
        """How the form is fitted."""
        return form_coordinates(self.form)

    @property
    def names(self) -> tuple[str, ...]:
        """The coefficients, in order."""
        return tuple(self.table.coordinates)

    @property
    def num_runs(self) -> int:
        """R."""
        return len(self.observed)

    def bounds(self) -> tuple[Floats, Floats]:
        """Least and largest value of each coordinate, (P,)."""
        table = self.table.coordinates
        low = [_inward(c.kind, self.fixed.get(name, c.low)) for name, c in table.items()]
        high = [_inward(c.kind, self.fixed.get(name, c.high)) for name, c in table.items()]
        return np.array(low, dtype=float), np.array(high, dtype=float)

    def coefficients(self, y: Floats) -> dict[str, Floats]:
        """Coefficients at coordinates (..., P), each (...)."""
        table = self.table.coordinates
        return {name: np.exp(y[..., i]) if c.kind == "ln" else y[..., i] for i, (name, c) in enumerate(table.items())}

    def coordinates(self, coefficients: Mapping[str, float]) -> Floats:
        """Coordinates (P,) of coefficients, inside the bounds."""
        inward = [c.inward(coefficients[name]) for name, c in self.table.coordinates.items()]
        return np.asarray(np.clip(np.array(inward), *self.bounds()))

    def duals(self, y: Floats) -> dict[str, Dual]:
        """The coefficients at coordinates (B, P), with derivatives by the coordinates."""
        values = self.coefficients(y)
        table = self.table.coordinates
        return {
            name: Dual(value[:, None], {name: value[:, None] if table[name].kind == "ln" else 1.0})
            for name, value in values.items()
        }

    def predict(self, y: Floats) -> Any:
        """Predictions (B, R) at coordinates (B, P)."""
        coefficients = {name: value[:, None] for name, value in self.coefficients(y).items()}
        return FORMS[self.form](*self.variables, **coefficients)

    def residuals(self, y: Floats) -> tuple[Floats, Floats]:
        """ln(prediction) - ln(observation), (B, R), and its derivatives by the coordinates, (B, P, R)."""
        with np.errstate(all="ignore"):  # a trial step may leave where the form has a value; its objective is infinite
            found = FORMS[self.form](*self.variables, **self.duals(y))
            prediction = np.broadcast_to(found.value, (len(y), self.num_runs))
            jacobian = np.zeros((len(y), len(self.names), self.num_runs))
            for i, name in enumerate(self.names):
                if name in found.parts:
                    jacobian[:, i, :] = found.parts[name]
            jacobian /= prediction[:, None, :]
            residuals = np.log(prediction) - np.log(self.observed)
        return residuals, jacobian

    def losses(self, residuals: Floats) -> Floats:
        """The Huber function of each residual."""
        size = np.abs(residuals)
        if not np.isfinite(self.delta):
            return np.asarray(0.5 * size * size)
        inner = np.minimum(size, self.delta)
        return np.asarray(inner * (size - 0.5 * inner))

    def weights(self, residuals: Floats) -> Floats:
        """Weights of the quadratic that touches the Huber function from above: min(1, delta/|r|)."""
        if not np.isfinite(self.delta):
            return np.ones_like(residuals)
        return np.asarray(self.delta / np.maximum(np.abs(residuals), self.delta))

    def objective(
        self, y: Floats, residuals: Floats, multiplicity: Floats | None = None, centers: Floats | None = None
    ) -> Floats:
        """The objective at points (B, P) with residuals (B, R).

        Each run counts `multiplicity` (B, R) times; `centers` (B, P) are where the prior pulls to, if not the same
        for all.
        """
        losses = self.losses(residuals)
        total = losses.sum(axis=1) if multiplicity is None else np.einsum("br,br->b", losses, multiplicity)
        if self.pull is not None:
            center = self.pull.center if centers is None else centers
            total = total + 0.5 * ((y - center) ** 2 * self.pull.curvature).sum(axis=1)
        return np.asarray(np.where(np.isfinite(total), total, np.inf))

    def slope(self, residuals: Floats) -> Floats:
        """Derivative of the Huber function at each residual."""
        return np.asarray(np.clip(residuals, -self.delta, self.delta))

    def noise(self, residuals: Floats, determined: int) -> float:
        """The objective's unit: what it rises by when twice the log-likelihood falls by 2, from residuals (R,).

        E[psi^2]/E[psi'] with psi the Huber function's derivative, R - determined degrees of freedom; for least squares
        it is the variance of the residuals.
        """
        freedom = max(self.num_runs - determined, 1)
        squared = float((self.slope(residuals) ** 2).sum()) / freedom
        return max(squared / self.sharpness(residuals), 1e-30)

    def sharpness(self, residuals: Floats) -> float:
        """E[psi']: the objective's second derivative by a run's ln prediction, from residuals (R,); 1 for squares.

        It is the density of residuals around 0 times 2*delta, taken over half their spread.
        """
        if not np.isfinite(self.delta):
            return 1.0
        window = max(self.delta, 0.5 * spread(residuals))
        return max(float((np.abs(residuals) < window).mean()), 1 / self.num_runs) * self.delta / window


def spread(residuals: Floats) -> float:
    """A robust standard deviation: 1.4826 * median absolute value (the factor makes it sigma for Gaussian noise)."""
    return 1.4826 * float(np.median(np.abs(residuals)))


def make_problem(form: str, columns: Mapping[str, Any], observed: Any, **options: Any) -> Problem:
    """A problem from columns by the names of variables."""
    variables = tuple(np.asarray(columns[name], dtype=float) for name in form_variables(form))
    return Problem(form, variables, np.asarray(observed, dtype=float), **options)


def _inward(kind: str, value: float) -> float:
    if kind == "linear":
        return value
    return float(np.log(value))
