"""The paper's own numbers, recomputed: what a law file lists under `checks`.

A check is told by its `find`:

* `value` (the default): the fit at `given`;
* `product`: the product of the fits in `fits` at `given`, under any name in `expect`;
* `reduced`: the coefficients left when the variables in `given` are fixed (`moeplan.laws.reduced`);
* `minimum` or `maximum`: the place (and value) of the extremum over the one variable in `over`;
* `crossing`: the place in `over` where the two fits in `fits` are equal;
* `dense_equivalent`: the value in `over` of that variable at which a dense model has the loss of `given`;
* `compute_optimum`: the least loss at `given.train_flops` over the continuous size of the fit's family (range `over`),
  tokens being train_flops / flops_per_token; the family's fixed choices stand in `given`, lists of them in `choices`.

`expect` names quantities, `within` the tolerance: `absolute`, `relative`, or a mapping of one of these by quantity.
A table is one check with `rows`: each has its own `given` (added to the check's) and its own `expect`.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from moeplan.errors import LawError
from moeplan.laws import reduced
from moeplan.laws.law import Fit, Law
from moeplan.laws.reader import FileSection
from moeplan.laws.signatures import FAMILIES
from moeplan.numerics.bisection import first_where

Given = dict[str, float]


@dataclass(frozen=True)
class CheckResult:
    """One number of a paper beside the one the law file gives."""

    law: str
    """Name of the law."""
    says: str
    """The paper's statement."""
    quantity: str
    """The quantity compared."""
    expected: float
    """The paper's number."""
    found: float
    """The number recomputed."""
    tolerance: str
    """How near they must be, in words."""
    passed: bool
    """Whether they are."""


def run_checks(law: Law) -> list[CheckResult]:
    """Recompute every number that the law's file lists; raises `LawError` for a check that cannot be run."""
    results = []
    for check in law.checks:
        for says, given, expect in _cases(check):
            found = _found(law, check, given)
            for quantity in expect:
                if quantity not in found:
                    raise expect.error(quantity, f"is not what this check gives: {', '.join(found)}")
                expected, value = expect.number(quantity), float(found[quantity])
                passed, tolerance = _near(check, quantity, value, expected)
                results.append(CheckResult(law.name, says, quantity, expected, value, tolerance, passed))
    return results


def _cases(check: FileSection) -> Iterator[tuple[str, Given, FileSection]]:
    """What one check of a file says, is given and expects: once, or once for each of its rows."""
    single = "rows" not in check
    check.only(
        ("says", "fit", "fits", "find", "over", "given", "choices", "expect", "rows", "within"),
        ("says", "within", *(["expect"] if single else [])),
    )
    says, given = check.text("says"), check.section("given", optional=True).numbers()
    if single:
        yield says, given, check.section("expect")
        return
    for row in check.sections("rows"):
        row.only(("given", "expect"), ("given", "expect"))
        own = row.section("given").numbers()
        yield (
            f"{says}: {', '.join(f'{name} {value:g}' for name, value in own.items())}",
            given | own,
            row.section("expect"),
        )


def _near(check: FileSection, quantity: str, value: float, expected: float) -> tuple[bool, str]:
    within = check.section("within")
    if quantity in within:
        within = within.section(quantity)
    if "absolute" in within:
        limit, unit = within.number("absolute"), ""
    else:
        limit, unit = within.number("relative"), " relative"
    error = abs(value - expected) / (abs(expected) if unit else 1)
    return bool(math.isfinite(value) and error <= limit), f"{limit:g}{unit}"


def _found(law: Law, check: FileSection, given: Given) -> dict[str, Any]:
    """Every quantity that a check gives, by name."""
    find = check.text("find", "value")
    if find == "product":
        product = math.prod(_evaluate(fit, given, check) for fit in _fits(law, check))
        return dict.fromkeys(_expected(check), product)
    if find == "crossing":
        return _crossing(_fits(law, check), given, check)
    finders: dict[str, Callable[[Law, Fit, Given, FileSection], dict[str, Any]]] = {
        "value": lambda law, fit, given, check: {fit.predicts: _evaluate(fit, given, check)},
        "reduced": _reduced,
        "minimum": lambda law, fit, given, check: _extremum(fit, given, check, sign=1),
        "maximum": lambda law, fit, given, check: _extremum(fit, given, check, sign=-1),
        "dense_equivalent": _dense_equivalent,
        "compute_optimum": _compute_optimum,
    }
    if find not in finders:
        raise check.error("find", f"is {find!r}; known are {', '.join(sorted([*finders, 'crossing', 'product']))}")
    return finders[find](law, _fit(law, check, "fit", check.text("fit")), given, check)


def _expected(check: FileSection) -> list[str]:
    sections = check.sections("rows") or [check]
    return [quantity for section in sections for quantity in section.section("expect")]


def _fit(law: Law, check: FileSection, key: str, name: str) -> Fit:
    if name not in law.fits:
        raise check.error(key, f"is {name!r}; this file's fits are {', '.join(law.fits)}")
    return law.fits[name]


def _fits(law: Law, check: FileSection) -> list[Fit]:
    fits = [_fit(law, check, "fits", name) for name in check.texts("fits")]
    if len(fits) != 2:
        raise check.error("fits", "must name two fits")
    return fits


def _evaluate(fit: Fit, values: dict[str, Any], check: FileSection) -> Any:
    return fit(*(_given(name, values, check) for name in fit.variables))


def _given(name: str, values: dict[str, Any], check: FileSection) -> Any:
    if name not in values:
        raise check.error("given", f"lacks {name}")
    return values[name]


def _range(check: FileSection) -> tuple[str, float, float]:
    over = check.section("over")
    if len(over) != 1:
        raise check.error("over", "must name one variable with its range")
    ((name, bounds),) = over.items()
    numeric = isinstance(bounds, list) and all(isinstance(bound, (int, float)) for bound in bounds)
    if not numeric or len(bounds) != 2 or not 0 < bounds[0] < bounds[1]:
        raise over.error(name, f"is {bounds!r}, must be [lowest, highest], both above 0")
    return name, float(bounds[0]), float(bounds[1])


def _reduced(law: Law, fit: Fit, given: Given, check: FileSection) -> dict[str, Any]:
    reduce = getattr(reduced, f"reduced_{fit.form}", None)
    if reduce is None:
        raise check.error("find", f"is 'reduced', which the form {fit.form} does not have")
    fixed = [p.name for p in inspect.signature(reduce).parameters.values() if p.kind is p.POSITIONAL_ONLY]
    left: dict[str, Any] = reduce(*(_given(name, given, check) for name in fixed), **fit.coefficients)
    return left


def _extremum(fit: Fit, given: Given, check: FileSection, sign: int) -> dict[str, Any]:
    name, low, high = _range(check)
    place = minimize_on(lambda x: sign * _evaluate(fit, {**given, name: x}, check), low, high)
    return {name: place, fit.predicts: _evaluate(fit, {**given, name: place}, check)}


def _crossing(fits: list[Fit], given: Given, check: FileSection) -> dict[str, Any]:
    name, low, high = _range(check)
    first, second = fits

    def gap(x: float) -> float:
        at = {**given, name: x}
        return float(_evaluate(first, at, check) - _evaluate(second, at, check))

    return {name: _root_on(gap, low, high, check)}


def _dense_equivalent(law: Law, fit: Fit, given: Given, check: FileSection) -> dict[str, Any]:
    name, low, high = _range(check)
    if not fit.dense and not fit.dense_fit:
        raise check.error("fit", "has no dense counterpart")
    dense = law.fits[fit.dense_fit] if fit.dense_fit else fit
    loss = _evaluate(fit, given, check)
    at = given | dict(fit.dense)
    return {name: _root_on(lambda x: float(_evaluate(dense, {**at, name: x}, check) - loss), low, high, check)}


def _root_on(gap: Callable[[float], float], low: float, high: float, check: FileSection) -> float:
    """The place in [low, high] where `gap` changes its sign, by bisection of the logarithm."""
    rising = gap(low) < 0
    if rising == (gap(high) < 0):
        raise check.error("over", f"holds no crossing between {low:g} and {high:g}")
    return math.exp(first_where(lambda ln_x: (gap(math.exp(ln_x)) < 0) != rising, math.log(low), math.log(high)))


def _compute_optimum(law: Law, fit: Fit, given: Given, check: FileSection) -> dict[str, Any]:
    choices = check.section("choices", optional=True)
    for name, options in choices.items():
        if not isinstance(options, list):
            raise choices.error(name, f"is {options!r}, must be a list")
    _, low, high = _range(check)
    train_flops = _given("train_flops", given, check)
    rest = {name: value for name, value in given.items() if name != "train_flops"}
    options = [dict(zip(choices, picked, strict=True)) for picked in itertools.product(*choices.values())]
    return compute_optimum(fit, train_flops, low, high, [{**rest, **option} for option in options])


def compute_optimum(
    fit: Fit, train_flops: float, low: float, high: float, choices: list[dict[str, float]]
) -> dict[str, float]:
    """The least loss of a fit at `train_flops` over its family's size in [low, high] and over `choices`.

    Sizes are continuous and counted in the law's own convention: D = train_flops / flops_per_token. Returns the
    optimum's variables, its tokens, `choices` and the loss; raises `LawError` for a fit without a family, and for
    choices that are not the family's own.
    """
    if not fit.family:
        raise LawError(f"{fit.full_name} has no family of models, so it has no continuous optimum")
    family = FAMILIES[fit.family]
    wanted = [p.name for p in inspect.signature(family).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for choice in choices:
        if set(choice) != set(wanted):
            needs = ", ".join(wanted) or "no choices"
            raise LawError(f"{fit.full_name}: family {fit.family} needs {needs}, not {', '.join(choice) or 'none'}")

    def trained(size: Any, choice: dict[str, float]) -> dict[str, Any]:
        variables, flops = family(size, **choice)
        values = {**choice, **variables, "tokens": train_flops / flops}
        return {**values, fit.predicts: fit(*(values[name] for name in fit.variables))}

    best: dict[str, float] = {}
    for choice in choices:
        size = minimize_on(lambda x, choice=choice: trained(x, choice)[fit.predicts], low, high)
        found = trained(size, choice)
        if not best or found[fit.predicts] < best[fit.predicts]:
            best = found
    return best


def minimize_on(function: Any, low: float, high: float, points: int = 129, rounds: int = 12) -> float:
    """The place of the least value of a vectorised function on [low, high]: a log grid, refined around the best."""
    for _ in range(rounds):
        grid = np.geomspace(low, high, points)
        best = int(np.argmin(function(grid)))
        low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, points - 1)])
        if high / low < 1 + 1e-12:
            break
    return math.sqrt(low * high)
