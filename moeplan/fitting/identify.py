"""Identifiability: which coefficients the runs determine and which they leave open, in words.

Directions in which the predictions for the runs do not change at all are found from the singular values of the
Jacobian. Coefficients that they do change, but too little, are found one by one:

* a level (an irreducible loss) by its profile: it is fixed 25 % below and above, everything else fitted again; if
  the runs do not tell either from the fit at 90 %, or its draws spread as far, it is not identified;
* an exponent of known sign by the same profile at 50 % below and above, and its draws;
* an amplitude by its term's size at the middle of the runs (its own value is the term's at one param and one token,
  which nobody trained), not identified if the term is not known within a factor of 2 at 90 %;
* any other coefficient by its own interval (and its draws): a factor of 2 for positive ones, four times the range in
  which published values lie for those of either sign.

All but the last of these ask whether a coefficient came out far enough from 0, in standard errors: how far it did goes
with the answer, for the interval (`moeplan.fitting.only_just`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from moeplan.fitting.only_just import Standing, says_nothing
from moeplan.fitting.problem import Problem
from moeplan.fitting.solve import solve
from moeplan.laws.signatures import FORMS
from moeplan.numerics import Floats
from moeplan.numerics.intervals import normal_quantile
from moeplan.texts import counted

SHIFTS = {"level": 0.25, "exponent": 0.5}
"""How far a level and an exponent are moved to see whether the runs notice, as a share of themselves, by role."""
FACTOR = 2.0
"""Within which a term's size must be known."""
AMPLITUDE_FACTOR = 100.0
"""Within which the amplitude of a term of known size must be."""
SIZES = (0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
"""Shares of the prediction that the term of an open amplitude is tried at."""
LEVEL = 0.9
"""At which the runs must tell."""
_AT_LEVEL = normal_quantile(LEVEL)
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
    standings: Mapping[str, Standing] = field(default_factory=dict)
    """How far from 0 they came out, of coefficients that are determined by that."""


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
    standings: dict[str, Standing] = {}
    if pull is None:
        for name, found in _asked_one_by_one(problem, y, [i for i in free if names[i] not in says], covariance, noise):
            if isinstance(found, Standing):
                standings[name] = found
            else:
                says[name] = found
                directions.append(found)
    return Identified(says, tuple(directions), rank, covariance, at_bound, noise, standings)


def with_draws(identified: Identified, problem: Problem, y: Floats, draws: Floats) -> Identified:
    """The same, and what the draws (B, P) tell: levels, exponents and positive coefficients whose own draws spread over
    more than they may, terms whose sign is open, and all that follow what is open beyond their own draws, since in a
    flat valley draws stop where they begin, near the fit `y` (P,)."""
    says = dict(identified.says)
    directions = list(identified.directions)
    standings = dict(identified.standings)
    for i, (name, coordinate) in enumerate(problem.table.coordinates.items()):
        affine = name in problem.table.affine
        if name in says or name in problem.fixed or problem.pull is not None:
            continue
        low, high = (float(x) for x in np.quantile(draws[:, i], [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]))
        width, is_open, stands = (high - low) / 2, False, None
        if coordinate.kind == "ln":
            # An amplitude is judged by its term; its own value moves with the term's exponent.
            is_open = width > math.log(AMPLITUDE_FACTOR if affine else FACTOR)
            stands = None if affine else _of_logarithm(width)
            low, high = math.exp(low), math.exp(high)
        elif coordinate.role in SHIFTS:
            shift, size = SHIFTS[coordinate.role], abs(float(y[i]))
            is_open = width > shift * size
            stands = Standing(_AT_LEVEL * size / max(width, 1e-300), _AT_LEVEL / shift)
        elif affine and not problem.table.log:
            is_open = low < 0 < high
            near = min(abs(y[i] - low), abs(y[i] - high))
            stands = Standing(_AT_LEVEL * abs(float(y[i])) / max(near, 1e-300), _AT_LEVEL, either_sign=True)
        if stands is not None:
            stands = standings[name] = min(stands, standings.get(name, stands), key=lambda each: each.z - each.least)
            is_open = is_open or (coordinate.kind == "ln" and says_nothing(stands, LEVEL))
        if is_open:
            ends = f"{low:.3g} to {high:.3g}"
            says[name] = f"{name} is not identified: {100 * LEVEL:g} % of the draws spread over {ends}"
            directions.append(says[name])
    if problem.pull is None:
        for name, sentence in _following(problem, y, draws, says, identified).items():
            says[name] = sentence
            directions.append(sentence)
    standings = {name: stands for name, stands in standings.items() if name not in says}
    return dataclasses.replace(identified, says=says, directions=tuple(directions), standings=standings)


def _of_logarithm(width: float) -> Standing:
    """Where a quantity stands whose logarithm is known to `width` either way at 90 %, and must be within the factor."""
    return Standing(_AT_LEVEL / max(width, 1e-300), _AT_LEVEL / math.log(FACTOR))


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
            shift = math.log(FACTOR) if is_ln else SHIFTS["exponent"] * abs(float(y[i]))
            asked[i] = np.array([y[i] - shift, y[i] + shift, lows[i], highs[i], *_sized(problem, y, i)])
    for i, (moved, noticed) in _moved(problem, y, asked, identified.noise).items():
        for j, other in enumerate(problem.names):
            beyond = (moved[:, j] < lows[j]) | (moved[:, j] > highs[j])
            if other not in says and other not in found and (beyond & (noticed < _AT_LEVEL)).any():
                found[other] = f"{other} is not identified: it goes with {problem.names[i]}, which the runs leave open"
    return found


def _sized(problem: Problem, y: Floats, i: int) -> Floats:
    """Coordinates of an amplitude at which its term is each of `SIZES` of the prediction amid the runs: one that came
    out as next to nothing stays so when it is doubled, though the runs may allow for it. None of what is no term."""
    name = problem.names[i]
    if name not in problem.table.affine or problem.table.log or problem.table.coordinates[name].kind != "ln":
        return np.zeros(0)
    term, prediction = (float(x[0]) for x in _amid_the_runs(problem, y[None], name))
    return np.asarray(y[i] + np.log(np.array(SIZES) * prediction / term)) if term > 0 else np.zeros(0)


def _moved(problem: Problem, y: Floats, asked: Mapping[int, Floats], noise: float) -> dict[int, tuple[Floats, Floats]]:
    """By coordinate, the fits (K, P) with it at each of the values (K,) asked for, everything else fitted again, and
    how much the runs notice (K,): the square root of the deviance, in standard errors."""
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
    noticed = np.sqrt(np.maximum(2 * (found.objective - here) / noise, 0.0))
    return {i: (found.y[place == i], noticed[place == i]) for i in asked}


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


def _asked_one_by_one(
    problem: Problem, y: Floats, asked: list[int], covariance: Floats, noise: float
) -> Iterator[tuple[str, str | Standing]]:
    """Why coefficients are not identified, of those asked for, or how far from 0 they stand, where that decides."""
    roles = {i: problem.table.coordinates[problem.names[i]].role for i in asked}
    profiled = {i: y[i] * np.array([1 - SHIFTS[role], 1 + SHIFTS[role]]) for i, role in roles.items() if role in SHIFTS}
    profiles = _moved(problem, y, profiled, noise)
    for i in asked:
        found = (
            _by_profile(problem, y, i, SHIFTS[roles[i]], *profiles[i])
            if i in profiles
            else _by_width(problem, y, i, covariance)
        )
        if found is not None:
            yield problem.names[i], found


def _by_width(problem: Problem, y: Floats, i: int, covariance: Floats) -> str | Standing | None:
    """Coefficient `i` by its own interval, or by its term's."""
    name = problem.names[i]
    coordinate = problem.table.coordinates[name]
    width = _AT_LEVEL * math.sqrt(max(float(covariance[i, i]), 0.0))
    value = float(problem.coefficients(y)[name])
    if coordinate.role == "signed":
        most = 4 * max(-coordinate.start[0], coordinate.start[1])
        if name in problem.table.affine or width <= most:
            return None
        return f"{name} is not identified: {value:.3g} may be off by {width:.2g} either way"
    if name in problem.table.affine and not problem.table.log:
        gradient = _term_gradient(problem, y, name)
        width = _AT_LEVEL * math.sqrt(max(float(gradient @ covariance @ gradient), 0.0))
        if width <= np.log(FACTOR):
            return _of_logarithm(width)
        return f"{name} is not identified: its term is not known within a factor of {FACTOR:g} even amid the runs"
    if width <= np.log(FACTOR):
        return _of_logarithm(width)
    if width > _ANYTHING:
        return f"{name} is not identified: the runs say next to nothing about it"
    return f"{name} is not identified: {value:.3g} may be off by a factor of {math.exp(width):.2g} either way"


def _by_profile(problem: Problem, y: Floats, i: int, shift: float, moved: Floats, noticed: Floats) -> str | Standing:
    """A level or an exponent by its profile: the fits (K, P) with it moved by a share `shift` of itself."""
    unnoticed = noticed < _AT_LEVEL
    if not unnoticed.any():
        return Standing(float(noticed.min()) / shift, _AT_LEVEL / shift)
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
    step = 1e-5
    terms, _ = _amid_the_runs(problem, np.concatenate([y + step * np.eye(len(y)), y - step * np.eye(len(y))]), name)
    with np.errstate(divide="ignore"):
        terms = np.log(terms)
    gradient = (terms[: len(y)] - terms[len(y) :]) / (2 * step)
    return np.asarray(np.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0))


def _amid_the_runs(problem: Problem, y: Floats, name: str) -> tuple[Floats, Floats]:
    """Size of an amplitude's term at the middle of the runs, and the prediction there, at points (B, P)."""
    middle = tuple(np.array([np.exp(np.mean(np.log(x))) if (x > 0).all() else np.mean(x)]) for x in problem.variables)
    center = dataclasses.replace(problem, variables=middle, observed=np.ones(1))
    with np.errstate(all="ignore"):
        found = FORMS[problem.form](*center.variables, **center.duals(y))
        term, prediction = (np.broadcast_to(x, (len(y), 1))[:, 0] for x in (found.parts[name], found.value))
    return np.abs(term), np.asarray(prediction)
