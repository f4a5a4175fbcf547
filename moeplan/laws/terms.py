"""The terms of an equation and the regions where each keeps its sign, as a law's file states them under `terms`.

A term is what one affine coefficient brings to a prediction (to its logarithm, where the form is affine in that), the
other affine ones at nothing: `a` of ludziejewski2025 is a*Eh^delta*Na^(alpha + gamma*ln Eh). What hangs on none of them
is the `rest`; a form without any is one term, named by what it predicts. A statement reads

    a falls with expansion_ratio where active_params < 1.34e10

and is about that variable alone, the others held. `turns` stands where no single variable parts the rising from the
falling. `check_terms` holds every statement against samples of the variables; a boundary must be where the sign turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeplan.architecture.conventions import Variables
from moeplan.laws.law import Fit
from moeplan.laws.signatures import FORMS, form_coordinates
from moeplan.laws.statements import Statement, read_statement

Samples = Mapping[str, NDArray[np.float64]]
"""Values of a fit's variables, one array each, of equal length."""

_STEP = 1e-4
"""Relative step by which a variable is moved."""
_STILL = 1e-11
"""Relative change of a term below which it does not see a variable: rounding."""
REST = "rest"
"""The term that hangs on no affine coefficient."""
_NEAR = 0.02
"""Distance from a boundary, relative, within which a sign may be either: boundaries are stated to three digits."""


@dataclass(frozen=True)
class TermResult:
    """A statement of a law's file held against the equation, over samples."""

    law: str
    """Name of the law."""
    fit: str
    """Name of the fit."""
    says: str
    """The statement."""
    region: str
    """Where it holds, in words."""
    inside: int
    """Samples in that region."""
    samples: int
    """Samples in all."""
    passed: bool
    """Whether it is so."""
    found: str
    """The sign found instead, and where; "" if it is as stated."""


def term_names(form: str) -> tuple[str, ...]:
    """The terms of a form: its affine coefficients and the rest, or for a form without any what it predicts."""
    found = form_coordinates(form)
    return (*found.affine, REST) if found.affine else (found.predicts,)


def term_values(fit: Fit, term: str, values: Samples) -> NDArray[np.float64]:
    """One term of a fit: the prediction with the others' affine coefficients at nothing, less that with all of them.

    Nothing is 0, and 1 for an amplitude of a form that is affine in its logarithm.
    """
    found = form_coordinates(fit.form)
    none = {name: 1.0 if found.log and found.coordinates[name].kind == "ln" else 0.0 for name in found.affine}

    def predicted(coefficients: Mapping[str, float]) -> NDArray[np.float64]:
        with np.errstate(all="ignore"):
            value = np.asarray(FORMS[fit.form](*(values[name] for name in fit.variables), **coefficients), dtype=float)
            return np.log(value) if found.log and found.affine else value

    rest = predicted({**fit.coefficients, **none})
    if term not in found.affine:
        return rest
    return predicted({**fit.coefficients, **none, term: fit.coefficients.get(term, none[term])}) - rest


def directions(fit: Fit, term: str, variable: str, values: Samples) -> NDArray[np.intp]:
    """-1 where a term falls with a variable alone, 1 where it rises, 0 where it does not see it."""
    moved = {**values, variable: values[variable] * (1 + _STEP)}
    here, there = term_values(fit, term, values), term_values(fit, term, moved)
    change = np.broadcast_to(there - here, np.shape(values[variable]))
    scale = np.broadcast_to(np.abs(here) + np.abs(there), np.shape(change))
    return np.where(np.abs(change) <= _STILL * np.maximum(scale, 1e-300), 0, np.sign(change)).astype(np.intp)


def check_terms(fit: Fit, values: Samples) -> list[TermResult]:
    """Every statement of a fit's file held against samples, and every term and variable of which none is made."""
    results = []
    statements = [parsed for text in fit.terms if (parsed := read_statement(text)) is not None]
    stated: dict[tuple[str, str], list[Statement]] = {}
    for statement in statements:
        stated.setdefault((statement.term, statement.variable), []).append(statement)
    for term in term_names(fit.form):
        still = True
        for variable in fit.variables:
            signs = directions(fit, term, variable, values)
            still = still and not signs.any()
            made = stated.pop((term, variable), [])
            if made:
                results += [_held(fit, statement, signs, values) for statement in made]
                results += _uncovered(fit, made, signs, values)
            elif signs.any():
                found = f"it is not stated how {term} moves with {variable}"
                results.append(_result(fit, f"{term} with {variable}", "", 0, len(signs), found))
        if still and term in fit.coefficients:
            count = len(next(iter(values.values())))
            results.append(_result(fit, f"{term} is constant", "everywhere", count, count, ""))
    known = f"{fit.form} has no such term or variable; its terms are {', '.join(term_names(fit.form))}"
    results += [_result(fit, str(one), "", 0, 0, known) for unknown in stated.values() for one in unknown]
    return results


def _result(fit: Fit, says: str, region: str, inside: int, samples: int, found: str) -> TermResult:
    return TermResult(fit.law, fit.name, says, region, inside, samples, not found, found)


def _inside(statement: Statement, values: Samples, margin: float = 0.0) -> NDArray[np.bool_]:
    """Samples in a statement's region, at least a relative `margin` away from its bound."""
    if not statement.where:
        return np.ones(len(next(iter(values.values()))), dtype=bool)
    found = values[statement.where]
    if statement.below:
        return np.asarray(found < statement.bound * (1 - margin))
    return np.asarray(found > statement.bound * (1 + margin))


def _held(fit: Fit, statement: Statement, signs: NDArray[np.intp], values: Samples) -> TermResult:
    if statement.where and statement.where not in values:
        found = f"{statement.where} is no variable of {fit.form}"
        return _result(fit, str(statement), statement.region, 0, len(signs), found)
    inside = _inside(statement, values)
    count = int(inside.sum())
    if statement.direction == "turns":
        both = (signs[inside] > 0).any() and (signs[inside] < 0).any()
        found = "" if both else f"it {'rises' if (signs[inside] > 0).any() else 'falls'} at every sample"
        return _result(fit, str(statement), statement.region, count, len(signs), found)
    wanted = -1 if statement.direction == "falls" else 1
    wrong = _inside(statement, values, _NEAR) & (signs == -wanted)
    found = ""
    if wrong.any():
        place = int(np.argmax(wrong))
        instead = "rises" if wanted < 0 else "falls"
        at = ", ".join(f"{name}={values[name][place]:.4g}" for name in fit.variables)
        found = f"{statement.term} {instead} with {statement.variable} at {at}"
    return _result(fit, str(statement), statement.region, count, len(signs), found)


def _uncovered(fit: Fit, made: Sequence[Statement], signs: NDArray[np.intp], values: Samples) -> Iterable[TermResult]:
    """Samples that no statement's region holds, where the term nevertheless moves."""
    if any(statement.where and statement.where not in values for statement in made):
        return
    held = np.any([_inside(statement, values, -_NEAR) for statement in made], axis=0)
    left = ~held & (signs != 0)
    if left.any():
        place = int(np.argmax(left))
        at = ", ".join(f"{name}={values[name][place]:.4g}" for name in fit.variables)
        says = f"{made[0].term} with {made[0].variable}"
        yield _result(fit, says, "", 0, len(signs), f"nothing is stated of {says} at {at}")


def extrapolated_turns(fit: Fit, variables: Variables, tokens: Any) -> list[Statement]:
    """Statements of a fit in whose region a design lies while all that the fit was measured on lies outside it."""
    found = []
    for statement in (parsed for text in fit.terms if (parsed := read_statement(text)) is not None):
        if statement.where in fit.domain:
            value = float(variables.get(statement.where, fit.convention(statement.where), tokens))
            nearest = fit.domain[statement.where][0 if statement.below else 1]
            inside, measured = (
                (x < statement.bound) if statement.below else (x > statement.bound) for x in (value, nearest)
            )
            if inside and not measured:
                found.append(statement)
    return found


def box(ranges: Mapping[str, tuple[float, float]], count: int = 4000) -> dict[str, Any]:
    """Samples spread evenly over the logarithms of ranges: the additive recurrence of the golden ratio's kin."""
    names = list(ranges)
    root = 2.0
    for _ in range(60):  # the root of x^(n+1) = x + 1, whose powers spread best in n dimensions
        root = (1 + root) ** (1 / (len(names) + 1))
    steps = np.array([root ** -(i + 1) for i in range(len(names))])
    unit = (0.5 + np.outer(np.arange(1, count + 1), steps)) % 1
    return {
        name: np.exp(np.log(low) + unit[:, i] * (np.log(high) - np.log(low)))
        for i, (name, (low, high)) in enumerate(ranges.items())
    }
