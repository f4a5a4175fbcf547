"""The result of a fit as the frozen `FittedLaw`: intervals from draws, residuals, optima, comparisons, conventions."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import moeplan
from moeplan.architecture.conventions import ARCHITECTURAL
from moeplan.fitting import result as res
from moeplan.fitting.bootstrap import Draws
from moeplan.fitting.compare import compare
from moeplan.fitting.holdout import rms
from moeplan.fitting.identify import Identified
from moeplan.fitting.only_just import ONLY_JUST, is_only_just, of_identified
from moeplan.fitting.optimum import FLOPS_PER_PARAM, SIZES, HeldVariables, has_optimum, optimal_active_params
from moeplan.fitting.predictions import predictions
from moeplan.fitting.prior import Prior
from moeplan.fitting.problem import Problem, spread
from moeplan.fitting.runs import Runs
from moeplan.fitting.warn import beyond_warnings, interval_warnings, run_warnings
from moeplan.fitting.with_interval import estimate
from moeplan.laws import load_law
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.laws.signatures import FORMS, form_variables
from moeplan.numerics import Floats
from moeplan.numerics.intervals import interval

ROUTING = {"activation_ratio", "expansion_ratio", "granularity", "G", "shared_ratio", "num_experts"}
"""Variables by which a form tells Mixture-of-Experts models apart; one without them, fitted to runs that nothing calls
a MoE, is a law of dense models."""
STORED = 200
"""Draws that a fitted law carries: what `moeplan.laws.draws` makes intervals of."""
PROFILE_POINTS = 25
"""Sizes of one isoFLOP profile."""
MOSTLY_PRIOR = 0.5
"""Share of the prior from which a coefficient is known from it rather than from the runs."""


def method_of(
    problem: Problem, objective: Floats, drawn: Draws | None, few: str, draws: int, cluster: str, seed: int,
    level: float,
) -> res.Method:  # fmt: skip
    """How it was fitted, in the words of the report."""
    words = "none: no draws were asked for"
    if draws and drawn is None:
        words = "none: with as many coefficients as runs a form passes through all of them, whatever their error"
    if few:
        words = f"none: {few}"
    if drawn is not None:
        words = (
            f"central {100 * level:g} % of {draws} bootstrap draws (random weights of the "
            f"{'clusters' if cluster else 'runs'}, gamma of variance {drawn.variance:.3f})"
        )
        if drawn.unconverged:
            words += f"; {drawn.unconverged} draws had not converged after the last step"
    return res.Method(
        delta=problem.delta if math.isfinite(problem.delta) else None,
        objective=float(objective[0]),
        minima=len(objective),
        draws=0 if drawn is None else draws,
        unit=cluster or "run",
        seed=seed,
        level=level,
        interval=words,
    )


def summarise(
    runs: Runs,
    problem: Problem,
    minima: Floats,
    identified: Identified,
    drawn: Draws | None,
    target: str,
    *,
    name: str,
    command: str,
    method: res.Method,
    hold_out: tuple[res.HoldOut | None, str],
    scores: tuple[res.FormScore, ...],
    prior: Prior | None,
    without: Floats,
    at: list[float],
    level: float,
    warning: str = "",
) -> res.FittedLaw:
    """The whole answer: coefficients and what follows from them, with intervals where there are draws."""
    y = minima[0]
    values = {name: float(value) for name, value in problem.coefficients(y).items()}
    residuals = -problem.residuals(y[None])[0][0]
    flops = runs.column("train_flops")
    held = _held(runs, problem.form)
    dense = not runs.says_moe
    fixed = dict(runs.fixed)
    if dense and target == "loss" and not ROUTING & set(form_variables(problem.form)):
        fixed.setdefault("activation_ratio", 1.0)
    optima, profiles, comparisons = _optima(runs, problem, y, drawn, held, at, level, dense, target)
    domain = _domain(runs, problem)
    shrinkage = _shrinkage(problem, prior, without, y, identified)
    return res.FittedLaw(
        schema=res.SCHEMA,
        moeplan_version=moeplan.__version__,
        command=command,
        name=name,
        runs=res.RunsUsed(
            file=", ".join(Path(file).name for file in runs.table.files),
            digest=runs.table.digest,
            rows=len(runs.table.lines),
            used=runs.count,
            excluded=tuple(res.ExcludedRun(x.line, x.reason) for x in runs.excluded),
            columns={name: runs.naming.columns[name] for name in _used_columns(runs, problem, target)},
            derived=dict(runs.derived),
            least_flops=None if flops is None else float(flops.min()),
            most_flops=None if flops is None else float(flops.max()),
        ),
        form=problem.form,
        equation=_equation(problem.form),
        predicts=target,
        method=method,
        coefficients=_coefficients(problem, values, identified, drawn, level, shrinkage),
        covariance=_covariance(problem, drawn),
        quality=_quality(problem, residuals, identified.determined),
        unidentified=identified.directions,
        hold_out=hold_out[0],
        hold_out_says=hold_out[1],
        compared=scores,
        prior=prior.law if prior else "",
        shrinkage=shrinkage,
        residuals=_residuals(runs, problem, residuals),
        optima=optima,
        profiles=profiles,
        held=held,
        comparisons=comparisons,
        conventions=_conventions(runs, domain, target),
        domain=domain,
        fixed=fixed,
        warnings=(
            *beyond_warnings(optima, problem.observed, at, target.replace("_", " ")),
            *run_warnings(runs, problem, residuals, identified.at_bound),
            *interval_warnings(optima, residuals),
            *((warning,) if warning else ()),
        ),
    )


def _equation(form: str) -> str:
    return " ".join((inspect.getdoc(FORMS[form]) or "").split("\n\n")[0].split())


def _used_columns(runs: Runs, problem: Problem, target: str) -> list[str]:
    needed = [*form_variables(problem.form), target, "train_flops", "active_params", "tokens"]
    return [name for name in dict.fromkeys([*needed, *runs.naming.columns]) if name in runs.naming.columns]


def _coefficients(
    problem: Problem,
    values: Mapping[str, float],
    identified: Identified,
    drawn: Draws | None,
    level: float,
    shrinkage: tuple[res.Shrinkage, ...],
) -> tuple[res.Coefficient, ...]:
    held = {s.name for s in shrinkage if s.weight > MOSTLY_PRIOR}
    table = problem.table.coordinates
    draws = None if drawn is None else problem.coefficients(drawn.y)
    made = []
    for name, value in values.items():
        low, high = (None, None) if draws is None else interval(draws[name], level)
        says = identified.says.get(name, "")
        if (stands := identified.standings.get(name)) and low is not None and high is not None:
            low, high = of_identified(stands, value, low, high, level, table[name])
            says = ONLY_JUST if is_only_just(stands, level) else says
        if name in identified.at_bound:
            says = f"stands at the bound {identified.at_bound[name]:.3g} of the form"
        if name in held:
            says = "known from the prior rather than from the runs"
        made.append(
            res.Coefficient(
                name=name,
                value=value,
                stderr=None if drawn is None else _stderr(problem, drawn, name, value),
                low=low,
                high=high,
                coordinate=table[name].kind,
                identified=name not in identified.says and name not in held,
                says=says,
            )
        )
    return tuple(made)


def _stderr(problem: Problem, drawn: Draws, name: str, value: float) -> float:
    """Standard deviation over the draws; of the logarithm, times the value, where that was fitted."""
    deviation = float(np.std(drawn.y[:, problem.names.index(name)]))
    return deviation * value if problem.table.coordinates[name].kind == "ln" else deviation


def _covariance(problem: Problem, drawn: Draws | None) -> res.FittedCovariance | None:
    if drawn is None:
        return None
    matrix = np.atleast_2d(np.cov(drawn.y, rowvar=False))
    matrix = (matrix + matrix.T) / 2
    kinds = {name: c.kind for name, c in problem.table.coordinates.items()}
    values = problem.coefficients(drawn.y[:STORED])
    return res.FittedCovariance(
        dict(kinds),
        tuple(tuple(float(x) for x in row) for row in matrix),
        tuple(tuple(float(values[name][i]) for name in kinds) for i in range(len(drawn.y[:STORED]))),
    )


def _quality(problem: Problem, residuals: Floats, determined: int) -> res.Quality:
    variance = float(np.var(np.log(problem.observed)))
    return res.Quality(
        rms=rms(residuals),
        median=float(np.median(np.abs(residuals))),
        largest=float(np.abs(residuals).max()),
        degrees_of_freedom=max(problem.num_runs - determined, 0),
        explained=1 - float(np.mean(residuals**2)) / variance if variance else 0.0,
    )


def _residuals(runs: Runs, problem: Problem, residuals: Floats) -> tuple[res.RunResidual, ...]:
    scale = spread(residuals)
    flops = runs.column("train_flops")
    predicted = problem.observed * np.exp(-residuals)
    order = np.argsort(-np.abs(residuals), kind="stable")
    names = form_variables(problem.form)
    return tuple(
        res.RunResidual(
            line=runs.lines[i],
            train_flops=None if flops is None else float(flops[i]),
            observed=float(problem.observed[i]),
            predicted=float(predicted[i]),
            residual=float(residuals[i]),
            scaled=float(residuals[i] / scale) if scale > 1e-15 else 0.0,
            variables={name: float(x[i]) for name, x in zip(names, problem.variables, strict=True)},
        )
        for i in order
    )


def _shrinkage(
    problem: Problem, prior: Prior | None, without: Floats, y: Floats, identified: Identified
) -> tuple[res.Shrinkage, ...]:
    if prior is None:
        return ()
    values, alone = problem.coefficients(y), problem.coefficients(without)
    center = problem.coefficients(prior.center)
    return tuple(
        res.Shrinkage(
            name=name,
            prior=float(center[name]),
            width=float(prior.width[i]),
            basis=prior.basis[i],
            without=float(alone[name]),
            value=float(values[name]),
            weight=float(min(identified.covariance[i, i] / prior.width[i] ** 2, 1.0)),
        )
        for i, name in enumerate(problem.names)
    )


def _held(runs: Runs, form: str) -> dict[str, float]:
    """The runs' middle of everything but size and tokens, for optima and comparisons."""
    held = {}
    for name in ("expansion_ratio", "activation_ratio", "granularity", "G", "shared_ratio", "num_experts"):
        values = runs.column(name)
        if values is not None:
            held[name] = float(np.quantile(values, 0.5, method="nearest"))
    for name in form_variables(form):
        if name not in held and name not in (*SIZES, "tokens", "train_flops"):
            held[name] = float(np.quantile(runs.require(name, form), 0.5, method="nearest"))
    return {**held, "total_over_active": runs.total_over_active()}


def _domain(runs: Runs, problem: Problem) -> dict[str, tuple[float, ...]]:
    domain: dict[str, tuple[float, ...]] = {}
    for name, values in zip(form_variables(problem.form), problem.variables, strict=True):
        domain[name] = (float(values.min()), float(values.max()))
    for name in ("active_params", "train_flops"):
        column = runs.column(name)
        if name not in domain and column is not None and name in ARCHITECTURAL:
            domain[name] = (float(column.min()), float(column.max()))
    return domain


def _conventions(runs: Runs, domain: Mapping[str, tuple[float, ...]], predicts: str) -> dict[str, str]:
    """How each variable is counted; compute by C = 6*Na*D unless architectures or the user say otherwise."""
    found = {name: runs.convention(name) for name in domain if runs.convention(name)}
    if predicts == "efficiency_leverage":  # as the law that the form comes from counts them
        own = load_law(LEVERAGE_LAW).predicting(predicts)
        return {name: runs.conventions.get(name, own.convention(name)) for name in (*found, "flops_per_token")}
    non_embedding = runs.convention("active_params") == "non_embedding"
    for name in ("train_flops", "flops_per_token"):
        given = runs.conventions.get(name) or runs.conventions.get("train_flops")
        counted = "six_non_embedding" if non_embedding else "six_active_params"
        found[name] = given or (runs.convention(name) if runs.shapes_known else counted)
    return found


def _budgets(runs: Runs, at: list[float]) -> list[float]:
    """The runs' largest budget, a hundredth of it where they reach so far down, ten times it, and those asked for."""
    flops = runs.column("train_flops")
    if flops is None:
        return sorted(set(at))
    most, least = float(flops.max()), float(flops.min())
    own = [most / 100] if most / 100 >= least else []
    rounded = [float(f"{budget:.0e}") for budget in (*own, most, 10 * most)]
    return sorted({*rounded, *at})


def _optima(
    runs: Runs,
    problem: Problem,
    y: Floats,
    drawn: Draws | None,
    held: Mapping[str, float],
    at: list[float],
    level: float,
    dense: bool,
    target: str,
) -> tuple[tuple[res.Optimum, ...], tuple[res.Profile, ...], tuple[res.BundledOptimum, ...]]:
    points = y[None] if drawn is None else np.concatenate([y[None], drawn.y])
    coefficients = problem.coefficients(points)
    budgets = _budgets(runs, at)
    if target != "loss" or not has_optimum(problem.form) or runs.column("active_params") is None:
        found = predictions(runs, problem, coefficients, drawn, held, budgets, level, asked=bool(at))
        return found, (), ()
    others = {name: value for name, value in held.items() if name != "total_over_active"}
    shape = HeldVariables(problem.form, held["total_over_active"], others)
    flops = runs.column("train_flops")
    optima, profiles = [], []
    for budget in budgets:
        inside = flops is not None and bool(flops.min() * (1 - 1e-9) <= budget <= flops.max() * (1 + 1e-9))
        sizes = optimal_active_params(shape, coefficients, budget)
        losses = np.asarray(shape.loss(coefficients, sizes[:, None], budget))[:, 0]
        optimum = (sizes, budget / (FLOPS_PER_PARAM * sizes), losses)
        optima.append(res.Optimum(budget, inside, *(estimate(values, drawn, level) for values in optimum)))
        profiles.append(_profile(runs, shape, coefficients, budget, inside, sizes[0], drawn, level))
    own = {name: float(value[0]) for name, value in coefficients.items()}
    return tuple(optima), tuple(profiles), compare(shape, own, budgets, dense=dense)


def _profile(
    runs: Runs,
    shape: HeldVariables,
    coefficients: Mapping[str, Floats],
    budget: float,
    inside: bool,
    best: float,
    drawn: Draws | None,
    level: float,
) -> res.Profile:
    middle = best if math.isfinite(best) else math.sqrt(budget / FLOPS_PER_PARAM / 20)
    sizes = middle * np.geomspace(1 / 8, 8, PROFILE_POINTS)
    losses = np.asarray(
        shape.loss(
            coefficients, np.broadcast_to(sizes, (len(coefficients[next(iter(coefficients))]), len(sizes))), budget
        )
    )
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    if drawn is not None:
        ends = [interval(losses[1:, i], level) for i in range(len(sizes))]
        low, high = tuple(end[0] for end in ends), tuple(end[1] for end in ends)
    return res.Profile(budget, inside, tuple(sizes.tolist()), tuple(losses[0].tolist()), low, high)
