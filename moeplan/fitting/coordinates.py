"""In which coordinates each form is fitted, within which bounds, and where its starts are sought.

One table, form by form. A positive amplitude is fitted as its logarithm; exponents, levels and signed coefficients as
they are. Bounds say what the equation means (a loss falls with size, a level is not negative); start ranges say where
published values lie, with room to spare. `affine` names the coefficients that are solved exactly for given others
when starts are sought: in the predicted quantity itself, or in its logarithm (`log`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from moeplan.laws.law import form_coefficients


@dataclass(frozen=True)
class Coordinate:
    """How one coefficient is fitted."""

    kind: Literal["ln", "linear"]
    """Whether its logarithm is fitted, or it itself."""
    low: float
    """Least value of the coefficient."""
    high: float
    """Largest value."""
    start: tuple[float, float]
    """Range in which starts are sought, for a coefficient that is not affine."""
    role: Literal["level", "amplitude", "exponent", "signed"]
    """What it is: an irreducible level, a term's size, an exponent of known sign, or a number of either sign."""

    def inward(self, value: float) -> float:
        """The coordinate of a coefficient's value."""
        return math.log(value) if self.kind == "ln" else value


@dataclass(frozen=True)
class FormCoordinates:
    """How one form is fitted."""

    coordinates: Mapping[str, Coordinate]
    """By coefficient, in the form's order."""
    affine: tuple[str, ...]
    """Coefficients in which the prediction, or its logarithm, is affine for given others."""
    log: bool
    """Whether that is the logarithm."""
    predicts: str
    """What it predicts unless told otherwise, one of `moeplan.laws.law.PREDICTS`."""


LEVEL = Coordinate("linear", 0.0, math.inf, (0.0, 1.0), "level")
AMPLITUDE = Coordinate("ln", 1e-30, 1e30, (1e-2, 1e2), "amplitude")
FALLS = Coordinate("linear", 0.0, 3.0, (0.05, 0.7), "exponent")
"""An exponent written with a minus sign in the equation."""
SINKS = Coordinate("linear", -3.0, 0.0, (-0.7, -0.05), "exponent")
"""An exponent of a falling power, written as it is."""
START_EXPANSION = Coordinate("ln", 0.2, 20.0, (1.0, 6.0), "amplitude")
"""Es: Ehat of a dense model. Published: 1.7 to 4.3. Below Em by its bounds."""
LARGEST_EXPANSION = Coordinate("ln", 25.0, 1e6, (80.0, 2000.0), "amplitude")
"""Em: where more experts stop helping. Published: 239 to 478."""


def _signed(limit: float, start: float) -> Coordinate:
    return Coordinate("linear", -limit, limit, (-start, start), "signed")


def _ln(low: float, high: float, start: tuple[float, float]) -> Coordinate:
    return Coordinate("ln", low, high, start, "amplitude")


def _form(affine: str = "", *, log: bool = False, predicts: str = "loss", **coordinates: Coordinate) -> FormCoordinates:
    return FormCoordinates(MappingProxyType(coordinates), tuple(affine.split()), log, predicts)


COORDINATES: Mapping[str, FormCoordinates] = MappingProxyType(
    {
        "additive_power_law": _form("E A B", E=LEVEL, A=AMPLITUDE, B=AMPLITUDE, alpha=FALLS, beta=FALLS),
        "efficiency_leverage": _form(
            "a d gamma beta",
            log=True,
            predicts="efficiency_leverage",
            a=_signed(20.0, 1.0),
            d=_signed(2.0, 0.1),
            gamma=_signed(2.0, 0.1),
            beta=_signed(4.0, 0.3),
            A_start=_ln(1e-6, 0.9, (1e-3, 0.3)),
            A_max=_ln(1.0, 1e18, (1e2, 1e16)),
        ),
        "allocation_efficiency": _form(
            predicts="allocation_efficiency",
            coefficient=_ln(1e-9, 1e9, (1e-3, 1e2)),
            exponent=Coordinate("linear", 0.05, 0.95, (0.4, 0.65), "exponent"),
            w=_ln(1e-3, 1e2, (0.05, 2.0)),
        ),
        "active_shared_joint": _form(
            "e f m n a b c eps",
            e=AMPLITUDE,
            f=AMPLITUDE,
            m=AMPLITUDE,
            n=_signed(1e4, 10.0),
            k=_ln(1e-12, 1e6, (1e-4, 1.0)),
            h=_ln(1e-12, 1e6, (1e-4, 1.0)),
            a=AMPLITUDE,
            alpha=FALLS,
            b=AMPLITUDE,
            beta=FALLS,
            c=AMPLITUDE,
            eps=LEVEL,
        ),
        "expansion_joint": _form(
            "a b c",
            a=AMPLITUDE,
            alpha=SINKS,
            delta=_signed(3.0, 0.5),
            gamma=_signed(0.5, 0.02),
            b=AMPLITUDE,
            beta=SINKS,
            omega=_signed(3.0, 0.8),
            zeta=_signed(0.5, 0.04),
            Es=START_EXPANSION,
            Em=LARGEST_EXPANSION,
            c=LEVEL,
        ),
        "fine_grained": _form(
            "a b g_c c",
            a=AMPLITUDE,
            alpha=FALLS,
            b=AMPLITUDE,
            beta=FALLS,
            g_c=AMPLITUDE,
            gamma=Coordinate("linear", 0.0, 4.0, (0.2, 1.5), "exponent"),
            c=LEVEL,
        ),
        "activation_joint": _form(
            "a b c d e",
            a=AMPLITUDE,
            alpha=FALLS,
            b=AMPLITUDE,
            beta=FALLS,
            c=AMPLITUDE,
            lam=_signed(3.0, 0.5),
            d=AMPLITUDE,
            delta=_signed(3.0, 0.5),
            gamma=FALLS,
            e=LEVEL,
        ),
        "routed": _form(
            "a b c d",
            log=True,
            a=_signed(3.0, 0.2),
            b=_signed(3.0, 0.3),
            c=_signed(1.0, 0.05),
            d=_signed(30.0, 2.0),
            Es=START_EXPANSION,
            Em=LARGEST_EXPANSION,
        ),
        "weight_sparse": _form(
            "a_S c_S c",
            a_S=AMPLITUDE,
            b_S=Coordinate("linear", 0.0, 5.0, (0.2, 2.0), "exponent"),
            c_S=AMPLITUDE,
            b_N=FALLS,
            a_D=_ln(1e-6, 1e30, (1e4, 1e11)),
            b_D=FALLS,
            c=LEVEL,
        ),
        "compute_power_law": _form(
            "coefficient irreducible", coefficient=AMPLITUDE, exponent=_signed(3.0, 0.5), irreducible=LEVEL
        ),
        "size_tokens_power_law": _form(
            "coefficient size_exponent tokens_exponent",
            log=True,
            predicts="learning_rate",
            coefficient=AMPLITUDE,
            size_exponent=_signed(3.0, 1.0),
            tokens_exponent=_signed(3.0, 1.0),
        ),
        "expansion_power_law": _form(
            "ln_coefficient size_exponent expansion_exponent",
            log=True,
            predicts="learning_rate",
            ln_coefficient=_signed(100.0, 10.0),
            size_exponent=_signed(3.0, 1.0),
            expansion_exponent=_signed(3.0, 1.0),
        ),
        "linear_flops_per_token": _form(
            "slope intercept", predicts="flops_per_token", slope=AMPLITUDE, intercept=_signed(1e20, 1.0)
        ),
        "base_power_law": _form("A B E", A=AMPLITUDE, alpha=SINKS, B=AMPLITUDE, beta=SINKS, E=LEVEL),
        "upcycled": _form(
            "A B E",
            A=AMPLITUDE,
            alpha_1=_signed(3.0, 0.2),
            alpha_2=SINKS,
            alpha_3=_signed(0.5, 0.01),
            B=AMPLITUDE,
            beta=SINKS,
            E=LEVEL,
        ),
        "repeated_tokens": _form(predicts="effective_tokens", R=_ln(1e-2, 1e4, (1.0, 100.0))),
        "constant": _form("value", predicts="decay_fraction", value=AMPLITUDE),
        "expansion_interaction": _form(
            "A B C F",
            A=AMPLITUDE,
            alpha=FALLS,
            B=AMPLITUDE,
            beta=FALLS,
            C=AMPLITUDE,
            gamma=FALLS,
            F=LEVEL,
            d=_signed(0.2, 0.01),
            Es=START_EXPANSION,
            Em=LARGEST_EXPANSION,
        ),
        "expert_count_power_law": _form(
            "A B sigma",
            A=AMPLITUDE,
            alpha=FALLS,
            gamma=Coordinate("linear", -1.0, 3.0, (0.0, 0.5), "exponent"),
            B=AMPLITUDE,
            beta=FALLS,
            sigma=LEVEL,
        ),
    }
)
"""By form."""


@functools.cache
def form_coordinates(form: str) -> FormCoordinates:
    """The table's entry of a form, its coefficients in the order of the form's signature."""
    entry = COORDINATES[form]
    ordered = {name: entry.coordinates[name] for name in form_coefficients(form)}
    return FormCoordinates(MappingProxyType(ordered), entry.affine, entry.log, entry.predicts)
