"""Every minimum worth knowing: starts by variable projection, refined in rounds, then shaken.

Starts: exponents come from a fixed low-discrepancy sequence over the form's start ranges, and for each the linear
coefficients are solved exactly (Golub and Pereyra 1973): least squared relative error for forms that are affine in
them, least squared error of the logarithm for forms whose logarithm is; amplitudes that come out negative are set to
a small share and the others solved again. The best of them by least squares and by the whole objective are refined in
rounds, fewer and further each time. An objective with linear tails has many near-equal minima where runs are few, so
where there are several the best are then shaken: fitted under random weights of the runs, and from there under equal
ones.

All numbers that look random come from fixed sequences: a fit is the same every time.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from moeplan.fitting.problem import Problem
from moeplan.fitting.solve import CHUNK, solve
from moeplan.laws.signatures import FORMS
from moeplan.numerics import Floats

SEARCHED = 500
"""Runs that starts are tried on at most."""
TRIED = 512
"""Points of the sequence for each dimension beyond the first."""
REFINED = 24
"""Starts that are refined for each dimension, by each of both objectives."""
ROUNDS = ((25, 1e-4), (60, 1e-5))
"""Steps and tolerance of each round of refinement; a quarter of the points goes on to the next."""
KEPT = 10
"""Distinct minima that are remembered."""
FINISHED = 4
"""The best of them, which are fitted to the end."""
SHAKEN = 32
"""Random weightings that the best minima are fitted under, in each round of shaking."""
SHAKES = 4
"""Most rounds of shaking; one that finds nothing better is the last."""
_SMALL_SHARE = 1e-3
"""Share of the prediction that an amplitude of the wrong sign is set to."""


def fits(problem: Problem) -> Floats:
    """Coordinates (K, P) of every distinct minimum that was found, the best first.

    Of many runs, some are searched for minima, which all of them then bring to the end.
    """
    if problem.num_runs > SEARCHED:
        some = np.sort(np.random.default_rng(0).choice(problem.num_runs, SEARCHED, replace=False))
        search = dataclasses.replace(
            problem, variables=tuple(x[some] for x in problem.variables), observed=problem.observed[some]
        )
        return _ordered(problem, solve(problem, fits(search)).y)
    minima = _ordered(problem, solve(problem, starts(problem), tolerance=1e-7, max_steps=100).y)[:KEPT]
    if len(minima) > 1 and len(problem.names) < problem.num_runs:
        rng = np.random.default_rng(0)
        for _ in range(SHAKES):
            best = _objective(problem, minima[:1])[0]
            minima = _ordered(problem, np.concatenate([minima, _shaken(problem, minima, rng)]))[:KEPT]
            if _objective(problem, minima[:1])[0] >= best * (1 - 1e-6):
                break
    return _ordered(problem, solve(problem, minima[:FINISHED]).y)


def _shaken(problem: Problem, minima: Floats, rng: np.random.Generator) -> Floats:
    """Minima that are found from fits under random weights of the runs, started from the best minima."""
    begin = minima[np.arange(SHAKEN) % min(len(minima), 4)]
    weights = rng.exponential(size=(SHAKEN, problem.num_runs))
    moved = solve(problem, begin, weights, tolerance=1e-4, max_steps=25).y
    settled = solve(problem, moved, tolerance=1e-5, max_steps=40)
    order = np.argsort(settled.objective, kind="stable")[: KEPT // 2]
    return solve(problem, settled.y[order], tolerance=1e-7, max_steps=60).y


def _objective(problem: Problem, y: Floats) -> Floats:
    return problem.objective(y, problem.residuals(y)[0])


def _ordered(problem: Problem, y: Floats) -> Floats:
    """Distinct points, the best first."""
    return distinct(y[np.argsort(_objective(problem, y), kind="stable")], problem)


def starts(problem: Problem) -> Floats:
    """Starts for the whole objective, (B, P), the best first."""
    y = projected(problem)
    dimensions = sum(name not in problem.table.affine for name in problem.names)
    count = REFINED * max(dimensions, 1)
    squares = dataclasses.replace(problem, delta=np.inf)
    values = [_both(problem, squares, part) for part in _parts(problem, y)]
    chosen = [np.argsort(np.concatenate(each), kind="stable")[:count] for each in zip(*values, strict=True)]
    # The squares' best are first brought to the squares' minimum: its basin is wide.
    y = np.concatenate([solve(squares, y[chosen[0]], tolerance=1e-4, max_steps=25).y, y[chosen[1]]])
    for steps, tolerance in ROUNDS:
        found = solve(problem, y, tolerance=tolerance, max_steps=steps)
        order = np.argsort(found.objective, kind="stable")
        y = distinct(found.y[order], problem)[: max(count // 2, KEPT)]
        count //= 4
    return y


def _both(problem: Problem, squares: Problem, y: Floats) -> tuple[Floats, Floats]:
    """Least squares and the whole objective at points (B, P)."""
    residuals, _ = problem.residuals(y)
    return squares.objective(y, residuals), problem.objective(y, residuals)


def _parts(problem: Problem, y: Floats) -> list[Floats]:
    """Points (B, P) in parts whose Jacobians take little memory."""
    return np.array_split(y, -(-len(y) * problem.num_runs * y.shape[1] // CHUNK))


def distinct(y: Floats, problem: Problem) -> Floats:
    """The points whose predictions differ, the first of equal ones."""
    residuals, _ = problem.residuals(y)
    kept: list[int] = []
    for i in np.flatnonzero(np.isfinite(residuals).all(axis=1)):
        if not kept or np.abs(residuals[kept] - residuals[i]).max(axis=1).min() > 1e-5:
            kept.append(int(i))
    return y[kept] if kept else y[:1]


def sequence(count: int, dimensions: int) -> Floats:
    """`count` points that fill the unit cube evenly: the additive recurrence of the generalised golden ratio."""
    ratio = 2.0
    for _ in range(60):  # the root of x^(d + 1) = x + 1
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    steps = (1 / ratio) ** np.arange(1, dimensions + 1)
    return np.asarray((0.5 + np.outer(np.arange(1, count + 1), steps)) % 1.0)


def projected(problem: Problem) -> Floats:
    """Points (B, P) over the start ranges, their affine coefficients solved exactly."""
    table = problem.table
    low, high = problem.bounds()
    searched = [i for i, name in enumerate(problem.names) if name not in table.affine and low[i] < high[i]]
    count = 1 if not searched else min(256 + TRIED * (len(searched) - 1), 3072)
    y = np.tile(np.where(np.isfinite(low) & (low == high), low, 0.0), (count, 1))
    spread = sequence(count, max(len(searched), 1))
    for place, i in enumerate(searched):
        coordinate = table.coordinates[problem.names[i]]
        first, last = (coordinate.inward(x) for x in coordinate.start)
        y[:, i] = first + spread[:, place] * (last - first)
    if table.affine:
        y = np.concatenate([solve_affine(problem, part) for part in _parts(problem, y)])
    return np.asarray(np.clip(y, low, high))


def solve_affine(problem: Problem, y: Floats) -> Floats:
    """Coordinates (B, P) with their affine coefficients solved for the others."""
    table, names = problem.table, problem.names
    low, high = problem.bounds()
    affine = [i for i, name in enumerate(names) if name in table.affine and low[i] < high[i]]
    y = y.copy()
    base, _ = problem.residuals(y)  # affine ones at coordinate 0: an amplitude of 1, a level of 0
    with np.errstate(all="ignore"):
        found = FORMS[problem.form](*problem.variables, **problem.duals(y))
    shape = (len(y), problem.num_runs)
    prediction = np.broadcast_to(found.value, shape)
    columns = np.stack([np.broadcast_to(found.parts.get(names[i], 0.0), shape) for i in affine], axis=1)
    if table.log:
        columns = columns / prediction[:, None, :]
        target = -base
        unit = np.zeros(len(affine))
    else:
        unit = np.array([1.0 if table.coordinates[names[i]].kind == "ln" else 0.0 for i in affine])
        target = problem.observed - prediction + np.einsum("bpr,p->br", columns, unit)
        columns, target = columns / problem.observed, target / problem.observed
    size = np.sqrt((columns * columns).mean(axis=2)) + 1e-300
    columns = columns / size[:, :, None]
    solution = _bounded(columns, target, np.array([_is_positive(problem, names[i], table.log) for i in affine]))
    solution = solution / size
    for place, i in enumerate(affine):
        value = solution[:, place]
        positive = table.coordinates[names[i]].kind == "ln" and not table.log
        y[:, i] = np.log(np.maximum(value, 1e-300)) if positive else value
    return np.asarray(np.nan_to_num(y, nan=0.0, posinf=1e3, neginf=-1e3))


def _is_positive(problem: Problem, name: str, log: bool) -> bool:
    coordinate = problem.table.coordinates[name]
    return not log and (coordinate.kind == "ln" or coordinate.low >= 0)


def _bounded(columns: Floats, target: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Least squares (B, K) of target (B, R) by columns (B, K, R), where `positive` ones must not be negative.

    Those that come out negative are set to a small share, the others solved again, until none is left.
    """
    with np.errstate(all="ignore"):
        gram = np.matmul(columns, columns.transpose(0, 2, 1))
        right = np.einsum("bkr,br->bk", columns, target)
        gram, right = np.nan_to_num(gram, posinf=0.0, neginf=0.0), np.nan_to_num(right, posinf=0.0, neginf=0.0)
    count = gram.shape[1]
    index = np.arange(count)
    gram[:, index, index] += 1e-12 * target.shape[1]  # two equal columns share
    held = np.zeros(right.shape, dtype=bool)
    solution = np.zeros_like(right)
    for _ in range(count + 1):
        fixed = np.where(held, _SMALL_SHARE, 0.0)
        system = np.where(held[:, :, None] | held[:, None, :], 0.0, gram)
        system[:, index, index] = np.where(held, 1.0, gram[:, index, index])
        reduced = right - np.einsum("bkl,bl->bk", gram, fixed)
        solution = np.linalg.solve(system, np.where(held, _SMALL_SHARE, reduced)[:, :, None])[:, :, 0]
        wrong = positive & (solution <= 0) & ~held
        if not wrong.any():
            break
        held |= wrong
    return np.asarray(solution)
