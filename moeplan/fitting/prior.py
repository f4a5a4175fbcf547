"""A bundled law as a prior: what the runs cannot determine stays near it.

A Gaussian in the coordinates fitted, centred at the law's coefficients. Its width is the published standard error
where there is one, else a stated share of the coefficient. Its strength against the runs follows from their own noise,
as in a posterior: the pull on a coefficient that the runs determine well is nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moeplan.errors import UsageError
from moeplan.fitting.problem import Problem, Pull
from moeplan.laws import Fit, Law, load_law
from moeplan.numerics import Floats

WIDTH = 0.2
"""Width of a prior without a published standard error, as a share of the coefficient: twice what laws of one form that
were fitted to different families of models usually differ by in their exponents."""


@dataclass(frozen=True)
class Prior:
    """A law's coefficients as a prior for a form."""

    law: str
    """The law's full name."""
    center: Floats
    """Its coefficients in the fit's coordinates, (P,)."""
    width: Floats
    """Standard deviations in these coordinates, (P,)."""
    basis: tuple[str, ...]
    """Where each width comes from."""

    def pull(self, noise: float) -> Pull:
        """The prior as a term of an objective whose unit of log-likelihood is `noise`."""
        return Pull(self.center, self.width, noise)


def find_fit(name: str, form: str) -> tuple[Law, Fit]:
    """The fit of a law that has a form; raises `UsageError` if it has none."""
    law = load_law(name)
    fits = [law.fits[law.chosen]] if law.chosen else list(law.fits.values())
    for fit in fits:
        if fit.form == form:
            return law, fit
    forms = ", ".join(dict.fromkeys(fit.form for fit in fits))
    raise UsageError(f"prior {name!r} has no fit of the form {form}; it has {forms}")


def make_prior(name: str, problem: Problem, width: float = WIDTH) -> Prior:
    """The prior that a bundled law gives for a problem's form."""
    if not 0 < width < float("inf"):
        raise UsageError(f"prior width {width} must be above 0, for example {WIDTH}")
    law, fit = find_fit(name, problem.form)
    widths, basis = [], []
    for coefficient, coordinate in problem.table.coordinates.items():
        value = fit.coefficients.get(coefficient, 0.0)
        if coefficient in fit.stderr:
            widths.append(fit.stderr[coefficient] / (value if coordinate.kind == "ln" else 1.0))
            basis.append("the published standard error")
        else:
            widths.append(width if coordinate.kind == "ln" else width * abs(value) or width)
            basis.append(f"{width:g} of the coefficient, as stated")
    center = problem.coordinates({name: fit.coefficients.get(name, 0.0) for name in problem.names})
    return Prior(f"{law.name}/{fit.name}", center, np.array(widths), tuple(basis))
