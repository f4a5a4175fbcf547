"""The paper's own numbers, recomputed: what a law file lists under `checks`.

A check is one of four things, told by `find`:

* absent: the fit at `given` equals `expect`;
* `minimum` or `maximum`: the place (and value) of the extremum over the one variable in `over`;
* `compute_optimum`: the least loss at `given.train_flops` over the continuous size of the fit's family (range `over`),
  tokens being train_flops / flops_per_token; the family's fixed choices stand in `given`, lists of them in `choices`;
* with `product: true`, the product of the fits in `fits` at `given`.

`expect` names quantities, `within` the tolerance: `absolute`, `relative`, or a mapping of one of these by quantity.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from moeplan.errors import LawError
from moeplan.laws.law import FAMILIES, Fit, Law
from moeplan.laws.reader import Section


@dataclass(frozen=True)
class CheckResult:
    """One number of a paper beside the one the law file gives."""

    law: str
    """Name of the law."""
    says: str
    """What the paper states."""
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
        check.only(
            ("says", "fit", "fits", "product", "find", "over", "given", "choices", "expect", "within"),
            ("says", "expect", "within"),
        )
        found = _found(law, check)
        for quantity in check.section("expect"):
            expected = check.section("expect").number(quantity)
            if quantity not in found:
                raise check.error("expect", f"names {quantity}, which this check does not give")
            value = float(found[quantity])
            passed, tolerance = _near(check, quantity, value, expected)
            results.append(CheckResult(law.name, check.text("says"), quantity, expected, value, tolerance, passed))
    return results


def _near(check: Section, quantity: str, value: float, expected: float) -> tuple[bool, str]:
    within = check.section("within")
    if quantity in within:
        within = within.section(quantity)
    within.only(("absolute", "relative", *check.section("expect")))
    if "absolute" in within:
        limit, unit = within.number("absolute"), ""
        error = abs(value - expected)
    else:
        limit, unit = within.number("relative"), " relative"
        error = abs(value / expected - 1)
    return bool(math.isfinite(value) and error <= limit), f"{limit:g}{unit}"


def _fit(law: Law, check: Section, name: str) -> Fit:
    if name not in law.fits:
        raise check.error("fit", f"is {name!r}; this file's fits are {', '.join(law.fits)}")
    return law.fits[name]


def _found(law: Law, check: Section) -> dict[str, Any]:
    given = check.section("given", optional=True).numbers()
    if check.get("product"):
        product = math.prod(float(_evaluate(_fit(law, check, name), given, check)) for name in check.texts("fits"))
        return {name: product for name in check.section("expect")}
    fit = _fit(law, check, check.text("fit"))
    find = check.text("find", "value")
    if find == "value":
        return {fit.predicts: _evaluate(fit, given, check)}
    if find in ("minimum", "maximum"):
        return _extremum(fit, given, check, sign=1 if find == "minimum" else -1)
    if find == "compute_optimum":
        return _compute_optimum(fit, given, check)
    raise check.error("find", f"is {find!r}; known are value, minimum, maximum, compute_optimum")


def _evaluate(fit: Fit, values: dict[str, Any], check: Section) -> Any:
    missing = [name for name in fit.variables if name not in values]
    if missing:
        raise check.error("given", f"lacks {missing[0]}")
    return fit(*(values[name] for name in fit.variables))


def _range(check: Section) -> tuple[str, float, float]:
    over = check.section("over")
    if len(over) != 1:
        raise check.error("over", "must name one variable with its range")
    ((name, bounds),) = over.items()
    return name, float(bounds[0]), float(bounds[1])


def _extremum(fit: Fit, given: dict[str, float], check: Section, sign: int) -> dict[str, Any]:
    name, low, high = _range(check)
    place = minimize_on(lambda x: sign * _evaluate(fit, {**given, name: x}, check), low, high)
    return {name: place, fit.predicts: _evaluate(fit, {**given, name: place}, check)}


def _compute_optimum(fit: Fit, given: dict[str, float], check: Section) -> dict[str, Any]:
    if not fit.family:
        raise check.error("fit", "has no family, so it has no compute optimum")
    choices = check.section("choices", optional=True)
    _, low, high = _range(check)
    options = [dict(zip(choices, picked, strict=True)) for picked in itertools.product(*choices.values())]
    return compute_optimum(fit, given.pop("train_flops"), low, high, [{**given, **option} for option in options])


def compute_optimum(
    fit: Fit, train_flops: float, low: float, high: float, choices: list[dict[str, float]]
) -> dict[str, float]:
    """The least loss of a fit at `train_flops` over its family's size in [low, high] and over `choices`.

    Sizes are continuous and counted in the law's own convention: D = train_flops / flops_per_token. Returns the
    optimum's variables, its tokens, `choices` and the loss; raises `LawError` for a fit without a family.
    """
    if not fit.family:
        raise LawError(f"{fit.full_name} has no family of models, so it has no continuous optimum")
    family = FAMILIES[fit.family]

    def trained(size: Any, choice: dict[str, float]) -> dict[str, Any]:
        variables, flops = family(size, **choice)
        values = {**choice, **variables, "tokens": train_flops / flops}
        return {**values, fit.predicts: fit(*(values[name] for name in fit.variables))}

    best: dict[str, float] = {}
    for choice in choices:
        size = minimize_on(lambda x, choice=choice: trained(x, choice)[fit.predicts], low, high)  # type: ignore[misc]
        found = trained(size, choice)
        if not best or found[fit.predicts] < best[fit.predicts]:
            best = found
    return best


def minimize_on(function: Any, low: float, high: float, points: int = 129, rounds: int = 12) -> float:
    """The place of the least value of a vectorised function on [low, high] (log-spaced): refine around the best point."""
    for _ in range(rounds):
        grid = np.geomspace(low, high, points)
        best = int(np.argmin(function(grid)))
        low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, points - 1)])
        if high / low < 1 + 1e-12:
            break
    return math.sqrt(low * high)
