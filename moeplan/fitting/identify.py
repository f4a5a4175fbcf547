"""Identifiability: which coefficients the runs determine and which they leave open, in words.

Directions in which the predictions for the runs do not change at all are found from the singular values of the
Jacobian. Coefficients that they do change, but too little, are found one by one:

* a level (an irreducible loss) by its profile: it is fixed 25 % below and above, everything else fitted again; if
  the runs do not tell either from the fit at 90 %, it is not identified;
* an exponent of known sign by the same profile at 50 % below and above;
* an amplitude by its term's size at the middle of the runs (its own value is the term's at one param and one token,
  which nobody trained), not identified if the term is not known within a factor of 2 at 90 %;
* any other coefficient by its own interval (and its draws): a factor of 2 for positive ones, four times the range in
  which published values lie for those of either sign.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeplan.fitting.problem import Problem
from moeplan.fitting.solve import solve
from moeplan.laws.signatures import FORMS
from moeplan.numerics import Floats
from moeplan.texts import counted

LEVEL_SHIFT, EXPONENT_SHIFT = 0.25, 0.5
"""How far a level and an exponent are moved to see whether the runs notice."""
FACTOR = 2.0
"""Within which a term's size must be known."""
AMPLITUDE_FACTOR = 100.0
"""Within which the amplitude of a term of known size must be."""
LEVEL = 0.9
"""At which the runs must tell."""
_ANYTHING = math.log(1e4)
"""Half-width of an interval in ln from which no number is worth giving."""
_RANK = 1e-8
"""Singular values below this share of the largest are no more than rounding."""


@dataclass(frozen=True)
class Identified:
    """Identifiability of a fit."""

    says: Mapping[str, str]
    """Why a coefficient is not determined, by coefficient; absent where it is."""
    directions: tuple[str, ...]
    """Everything that is not determined, a sentence each."""
    determined: int
    """How many combinations of coefficients the runs determine at all."""
    covariance: Floats
    """Covariance of the coordinates near the fit, (P, P); 0 for coefficients at a bound."""
    at_bound: Mapping[str, float]
    """Coefficients that stand at a bound of the form, with that bound."""
    noise: float
    """The objective's unit (`Problem.noise`)."""


def identify(problem: Problem, y: Floats) -> Identified:
    """Identifiability of a problem's coefficients at its fit `y` (P,)."""
    names = problem.names
    low, high = problem.bounds()
    residuals, jacobian = problem.residuals(y[None])
    r, j = residuals[0], jacobian[0]
    at_bound = {
        name: float(problem.coefficients(y)[name])
        for i, name in enumerate(names)
        if name not in problem.fixed and (y[i] <= low[i] or y[i] >= high[i])
    }
    free = [i for i, name in enumerate(names) if name not in at_bound and name not in problem.fixed]
    pull = None if problem.pull is None else problem.pull.curvature
    rank, null = _null_directions(j[free], None if pull is None else pull[free])
    noise = problem.noise(r, rank)
    covariance = np.zeros((len(names), len(names)))
    seen = math.sqrt(problem.sharpness(r)) * j[free]
    covariance[np.ix_(free, free)] = _covariance(seen, noise, None if pull is None else pull[free])
    if problem.pull is not None:  # what is as wide as its prior is the prior's, not the runs'
        from_prior = np.minimum(np.diag(covariance) / problem.pull.width**2, 1.0).sum()
        rank = max(1, round(len(free) - float(from_prior)))
    says: dict[str, str] = {}
    directions = []
    if null:
        part = np.abs(np.array(null)).max(axis=0) > 0.1
        involved = [names[i] for i, is_part in zip(free, part, strict=True) if is_part]
        sentence = _null_sentence(involved, len(null))
        directions.append(sentence)
        says |= dict.fromkeys(involved, sentence)
    for name, value in at_bound.items():
        says[name] = f"{name} is not identified: it stands at the bound {value:.3g} of the form"
        directions.append(says[name])
    if problem.num_runs <= len(free) and pull is None:
        sentence = (
            f"{_listed(list(names))} not identified: {counted(problem.num_runs, 'run(s)')} for "
            f"{counted(len(free), 'coefficient(s)')} leave nothing that could tell how far off they are"
        )
        return Identified(dict.fromkeys(names, sentence), (sentence,), rank, covariance, at_bound, noise)
    if pull is None:
        weak = _weak_sentences(problem, y, [i for i in free if names[i] not in says], covariance, noise)
        says |= weak
        directions += weak.values()
    return Identified(says, tuple(directions), rank, covariance, at_bound, noise)


def with_draws(identified: Identified, problem: Problem, y: Floats, draws: Floats) -> Identified:
    """The same, and what the draws (B, P) tell: positive coefficients that spread over more than the factor either way,
    sizes of terms whose sign is open, and all that follow what is open beyond their own draws, since in a flat valley
    draws stop where they begin, near the fit `y` (P,)."""
    says = dict(identified.says)
    directions = list(identified.directions)
    for i, (name, coordinate) in enumerate(problem.table.coordinates.items()):
        affine = name in problem.table.affine
        if name in says or problem.pull is not None:
            continue
        low, high = (float(x) for x in np.quantile(draws[:, i], [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]))
        if coordinate.kind == "ln":
            # An amplitude is judged by its term; its own value moves with the term's exponent.
            is_open = high - low > 2 * math.log(AMPLITUDE_FACTOR if affine else FACTOR)
            low, high = math.exp(low), math.exp(high)
        else:
            is_open = coordinate.role == "signed" and affine and not problem.table.log and low < 0 < high
        if is_open:
            ends = f"{low:.3g} to {high:.3g}"
            says[name] = f"{name} is not identified: {100 * LEVEL:g} % of the draws spread over {ends}"
            directions.append(says[name])
    if problem.pull is None:
        for name, sentence in _following(problem, y, draws, says, identified).items():
            says[name] = sentence
            directions.append(sentence)
    return dataclasses.replace(identified, says=says, directions=tuple(directions))


def _following(
    problem: Problem, y: Floats, draws: Floats, says: Mapping[str, str], identified: Identified
) -> dict[str, str]:
    """Coefficients that move beyond their draws where an open one is moved, unnoticed, and the rest fitted again."""
    found: dict[str, str] = {}
    lows, highs = np.quantile(draws, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=0)
    asked = {}
    for i, name in enumerate(problem.names):
        if name in says and name not in problem.fixed:
            is_ln = problem.table.coordinates[name].kind == "ln"
            shift = math.log(FACTOR) if is_ln else EXPONENT_SHIFT * abs(float(y[i]))
            asked[i] = np.array([y[i] - shift, y[i] + shift, lows[i], highs[i]])
    for i, (moved, unnoticed) in _moved(problem, y, asked, identified.noise).items():
        for j, other in enumerate(problem.names):
            beyond = (moved[:, j] < lows[j]) | (moved[:, j] > highs[j])
            if other not in says and other not in found and (beyond & unnoticed).any():
                found[other] = f"{other} is not identified: it goes with {problem.names[i]}, which the runs leave open"
    return found


def _moved(
    problem: Problem, y: Floats, asked: Mapping[int, Floats], noise: float
) -> dict[int, tuple[Floats, NDArray[np.bool_]]]:
    """By coordinate, the fits (K, P) with it at each of the values (K,) asked for, everything else fitted again, and
    whether the runs do not notice at 90 %."""
    if not asked:
        return {}
    low, high = problem.bounds()
    place = np.repeat(list(asked), [len(values) for values in asked.values()])
    row = np.arange(len(place))
    starts, box = np.tile(y, (len(row), 1)), (np.tile(low, (len(row), 1)), np.tile(high, (len(row), 1)))
    starts[row, place] = np.clip(np.concatenate(list(asked.values())), low[place], high[place])
    box[0][row, place] = box[1][row, place] = starts[row, place]
    found = solve(problem, starts, box=box, tolerance=1e-6)
    here = problem.objective(y[None], problem.residuals(y[None])[0])[0]
    unnoticed = 2 * (found.objective - here) / noise < quantile() ** 2
    return {i: (found.y[place == i], unnoticed[place == i]) for i in asked}


def quantile(level: float = LEVEL) -> float:
    """Half-width of the central interval of a standard normal."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + level / 2)


def _null_directions(j: Floats, pull: Floats | None) -> tuple[int, list[Floats]]:
    """Rank of a Jacobian (P, R) and the directions (in scaled coordinates) that it does not see."""
    size = np.sqrt((j * j).sum(axis=1))
    blind = size <= 1e-10 * max(float(size.max(initial=0.0)), 1e-300)
    scaled = j / np.where(blind, 1.0, size)[:, None]
    if pull is not None:
        return len(j), []
    if not len(j):
        return 0, []
    # The triangle of a QR decomposition has the same left singular vectors, and no side as long as the runs.
    triangle = np.asarray(np.linalg.qr(np.where(blind[:, None], 0.0, scaled).T, mode="r"))
    left, values, _ = np.linalg.svd(triangle.T, full_matrices=True)
    values = np.concatenate((values, np.zeros(len(j) - len(values))))
    rank = int((values > _RANK * values[0]).sum())
    return rank, [left[:, i] for i in range(rank, len(j))]


def _covariance(j: Floats, noise: float, pull: Floats | None) -> Floats:
    information = j @ j.T / noise
    if pull is not None:
        information = information + np.diag(pull / noise)
    size = np.sqrt(np.maximum(np.diag(information), 1e-300))
    scaled = information / np.outer(size, size)
    # The ridge keeps an unseen direction at a huge but finite variance.
    inverse = np.linalg.inv(scaled + 1e-13 * np.eye(len(j)))
    return np.asarray(inverse / np.outer(size, size))


def _null_sentence(involved: list[str], open_directions: int) -> str:
    if len(involved) == open_directions:
        it = "it" if open_directions == 1 else "them"
        return f"{_listed(involved)} not identified: no run's prediction depends on {it}"
    left = len(involved) - open_directions
    return (
        f"{_listed(involved)} not identified: the runs determine only {left} combination{'s' if left > 1 else ''} of "
        f"these {len(involved)}"
    )


def _listed(names: list[str]) -> str:
    return f"{names[0]} is" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} are"


def _weak_sentences(problem: Problem, y: Floats, asked: list[int], covariance: Floats, noise: float) -> dict[str, str]:
    """Why coefficients are not identified, of those asked for; absent where they are."""
    shifts = {"level": LEVEL_SHIFT, "exponent": EXPONENT_SHIFT}
    roles = {i: problem.table.coordinates[problem.names[i]].role for i in asked}
    profiled = {i: y[i] * np.array([1 - shifts[role], 1 + shifts[role]]) for i, role in roles.items() if role in shifts}
    profiles = _moved(problem, y, profiled, noise)
    found = {}
    for i in asked:
        sentence = (
            _profile_sentence(problem, y, i, *profiles[i])
            if i in profiles
            else _weak_sentence(problem, y, i, covariance)
        )
        if sentence:
            found[problem.names[i]] = sentence
    return found


def _weak_sentence(problem: Problem, y: Floats, i: int, covariance: Floats) -> str:
    """Why coefficient `i` is not identified by its own interval, or by its term's; "" if it is."""
    name = problem.names[i]
    coordinate = problem.table.coordinates[name]
    width = quantile() * math.sqrt(max(float(covariance[i, i]), 0.0))
    value = float(problem.coefficients(y)[name])
    if coordinate.role == "signed":
        most = 4 * max(-coordinate.start[0], coordinate.start[1])
        if name in problem.table.affine or width <= most:
            return ""
        return f"{name} is not identified: {value:.3g} may be off by {width:.2g} either way"
    if name in problem.table.affine and not problem.table.log:
        gradient = _term_gradient(problem, y, name)
        width = quantile() * math.sqrt(max(float(gradient @ covariance @ gradient), 0.0))
        if width <= np.log(FACTOR):
            return ""
        return f"{name} is not identified: its term is not known within a factor of {FACTOR:g} even amid the runs"
    if width <= np.log(FACTOR):
        return ""
    if width > _ANYTHING:
        return f"{name} is not identified: the runs say next to nothing about it"
    return f"{name} is not identified: {value:.3g} may be off by a factor of {math.exp(width):.2g} either way"


def _profile_sentence(problem: Problem, y: Floats, i: int, moved: Floats, unnoticed: NDArray[np.bool_]) -> str:
    """Why a level or an exponent is not identified, from its profile (K, P); "" if the runs notice it all."""
    if not unnoticed.any():
        return ""
    name = problem.names[i]
    what = (
        f"the irreducible level {name}" if problem.table.coordinates[name].role == "level" else f"the exponent {name}"
    )
    others = " and ".join(f"{value:.3g}" for value, no in zip(moved[:, i], unnoticed, strict=True) if no)
    return (
        f"{what} is not identified: with {others} in place of {y[i]:.3g} the runs are described as well, at "
        f"{100 * LEVEL:g} %"
    )


def _term_gradient(problem: Problem, y: Floats, name: str) -> Floats:
    """Gradient (P,) of the logarithm of a term's size at the middle of the runs."""
    middle = tuple(np.array([np.exp(np.mean(np.log(x))) if (x > 0).all() else np.mean(x)]) for x in problem.variables)
    center = dataclasses.replace(problem, variables=middle, observed=np.ones(1))
    step = 1e-5
    points = np.concatenate([y + step * np.eye(len(y)), y - step * np.eye(len(y))])
    with np.errstate(all="ignore"):
        found = FORMS[problem.form](*center.variables, **center.duals(points))
        terms = np.log(np.abs(np.broadcast_to(found.parts[name], (len(points), 1))[:, 0]))
    gradient = (terms[: len(y)] - terms[len(y) :]) / (2 * step)
    return np.asarray(np.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0))
