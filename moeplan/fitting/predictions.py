"""Predictions of a fitted law at a budget, where its form trades nothing off: it sees compute itself, or size alone or
tokens alone while the other was the same in all runs. Everything else is held at the runs' middle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from moeplan.errors import UsageError
from moeplan.estimates import Estimate
from moeplan.fitting.bootstrap import Draws
from moeplan.fitting.optimum import FLOPS_PER_PARAM, SIZES
from moeplan.fitting.problem import Problem
from moeplan.fitting.result import Optimum
from moeplan.fitting.runs import Runs
from moeplan.fitting.sufficiency import varies
from moeplan.fitting.with_interval import estimate
from moeplan.laws.signatures import FORMS, form_variables
from moeplan.numerics import Floats


def predictions(
    runs: Runs,
    problem: Problem,
    coefficients: Mapping[str, Floats],
    drawn: Draws | None,
    held: Mapping[str, float],
    budgets: Sequence[float],
    level: float,
    *,
    asked: bool,
) -> tuple[Optimum, ...]:
    """The prediction at each budget with its interval; empty where the form sees nothing that compute decides.

    Raises `UsageError` there if budgets were asked for.
    """
    flops = runs.column("train_flops")
    found = []
    for budget in budgets:
        values = _variables(runs, problem.form, held, budget)
        if values is None:
            if asked:
                raise UsageError(
                    f"--at has no place with {problem.form}: it sees {', '.join(form_variables(problem.form))}, which "
                    "a budget does not decide; leave --at out, or fit a form that sees compute, or size and tokens"
                )
            return ()
        with np.errstate(all="ignore"):
            predicted = FORMS[problem.form](*(values[name] for name in form_variables(problem.form)), **coefficients)
        predicted = np.broadcast_to(np.asarray(predicted, dtype=float), np.shape(next(iter(coefficients.values()))))
        inside = flops is not None and bool(flops.min() * (1 - 1e-9) <= budget <= flops.max() * (1 + 1e-9))
        size, tokens = (Estimate(values[name]) if name in values else None for name in ("active_params", "tokens"))
        found.append(Optimum(budget, inside, size, tokens, estimate(predicted, drawn, level)))
    return tuple(found)


def _variables(runs: Runs, form: str, held: Mapping[str, float], budget: float) -> dict[str, float] | None:
    """The form's variables at a budget; None where it does not decide them."""
    names = set(form_variables(form))
    values = {name: value for name, value in held.items() if name in names}
    values |= {"train_flops": budget}
    per_token = None
    if names & {*SIZES, "flops_per_token"}:
        tokens = _same(runs, "tokens")
        if tokens is None or names & {"tokens", "tokens_per_param"}:
            return None
        per_token = budget / tokens
        size = per_token / FLOPS_PER_PARAM
        values |= dict.fromkeys(SIZES, size) | {"flops_per_token": per_token}
        values["total_params"] = size * held.get("total_over_active", 1.0)
    elif names & {"tokens", "tokens_per_param"}:
        active = _same(runs, "active_params")
        if active is None:
            return None
        values["tokens"] = budget / (FLOPS_PER_PARAM * active)
        values["tokens_per_param"] = values["tokens"] / active
    elif "train_flops" not in names:
        return None
    return values


def _same(runs: Runs, name: str) -> float | None:
    """A quantity that is the same in all runs; None where it is varied or not known."""
    values = runs.column(name)
    return None if values is None or varies(values) else float(values[0])
