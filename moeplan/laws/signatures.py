"""A form is its signature: its variables, its coefficients with their bounds, and what it predicts, read from it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, get_type_hints

from moeplan.architecture.conventions import ARCHITECTURAL
from moeplan.laws import families, forms
from moeplan.laws.coefficients import Coordinate, Prediction


def _public_functions(module: Any) -> Mapping[str, Callable[..., Any]]:
    found = {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }
    return MappingProxyType(found)


FORMS = _public_functions(forms)
"""Every form by name: the public functions of `moeplan.laws.forms`."""
FAMILIES = _public_functions(families)
"""Every family by name: the public functions of `moeplan.laws.families`."""


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
    """The quantity predicted unless told otherwise, one of `moeplan.laws.law.PREDICTS`."""


@functools.cache
def form_variables(form: str) -> tuple[str, ...]:
    """The variables of a form, in order: its positional parameters."""
    parameters = inspect.signature(FORMS[form]).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.POSITIONAL_ONLY)


def trades_size(form: str) -> bool:
    """Whether a loss of this form trades an architecture's size against tokens, as choosing a design takes."""
    variables = form_variables(form)
    return "tokens" in variables and len(variables) > 1 and set(variables) <= set(ARCHITECTURAL)


def form_coefficients(form: str) -> dict[str, float | None]:
    """The coefficients of a form with their defaults (None: must be given): its keyword-only parameters."""
    parameters = inspect.signature(FORMS[form]).parameters.values()
    return {p.name: None if p.default is p.empty else p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


@functools.cache
def form_coordinates(form: str) -> FormCoordinates:
    """How a form is fitted, by the annotations of its coefficients and of its result."""
    return signature_coordinates(FORMS[form])


def signature_coordinates(form: Callable[..., Any]) -> FormCoordinates:
    """The same of a function; raises `TypeError` for a coefficient or a result whose annotation says nothing."""
    hints = get_type_hints(form, include_extras=True)

    def said(name: str, kind: type, example: str) -> Any:
        found = [x for x in getattr(hints.get(name), "__metadata__", ()) if isinstance(x, kind)]
        if len(found) != 1:
            what = "its result" if name == "return" else f"its coefficient {name}"
            raise TypeError(f"form {form.__name__}: {what} has no annotation of its meaning, for example {example}")
        return found[0]

    parameters = inspect.signature(form).parameters.values()
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    coordinates: dict[str, Coordinate] = {name: said(name, Coordinate, f"{name}: Amplitude") for name in names}
    result: Prediction = said("return", Prediction, "-> Loss")
    affine = tuple(name for name in names if coordinates[name].affine)
    return FormCoordinates(MappingProxyType(coordinates), affine, result.log, result.predicts)
