"""From runs to a law of one's own: `fit("runs.csv", form="expansion_joint")`."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moeplan.errors import InfeasibleError, UsageError
from moeplan.fitting import result as res
from moeplan.fitting.bootstrap import PER_COEFFICIENT, bootstrap
from moeplan.fitting.holdout import SHARE, hold_out, rms
from moeplan.fitting.identify import identify, with_draws
from moeplan.fitting.prior import WIDTH, Prior, make_prior
from moeplan.fitting.problem import DELTA, Problem, make_problem
from moeplan.fitting.reading import read_runs
from moeplan.fitting.runs import Runs
from moeplan.fitting.solve import solve
from moeplan.fitting.start import distinct, fits
from moeplan.fitting.sufficiency import candidates, check
from moeplan.fitting.summary import method_of, summarise
from moeplan.laws import load_law
from moeplan.laws.law import PREDICTS
from moeplan.laws.signatures import FORMS, form_coordinates, form_variables
from moeplan.numerics import Floats

DRAWS = 1000
"""Bootstrap draws unless told otherwise."""
AUTO = "auto"
"""Stands for the form that predicts held-out runs best."""
MINIMA = 3
"""Minima that each draw is started from: the fit and the next best."""
NEARLY = 1.1
"""Objective of another minimum, over the fit's, up to which draws are started from it, too; and held-out error of
another form, over the least, up to which the two are equal."""
LEAST_NOISE = 3e-4
"""Least scatter of repeated runs, in ln: the spread of three seeds of clark2022's dense 130M runs. Keeps a
prior from yielding to a handful of runs that a form can pass through."""
PRIOR_ROUNDS = 3
"""How often noise and coefficients are estimated in turn under a prior."""
_MOST_DRAWS = 100_000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def fit(
    runs: str | Path | Sequence[str | Path],
    form: str = AUTO,
    *,
    name: str = "",
    predicts: str = "",
    columns: Mapping[str, str] | None = None,
    where: Iterable[str] = (),
    exclude: Iterable[str] = (),
    drop_highest_loss: int = 0,
    keep_best: bool = False,
    conventions: Mapping[str, str] | None = None,
    fixed: Mapping[str, float] | None = None,
    prior: str = "",
    prior_width: float = WIDTH,
    delta: float = DELTA,
    holdout: float = SHARE,
    draws: int = DRAWS,
    cluster: str = "",
    level: float = 0.9,
    seed: int = 0,
    at: Iterable[float] = (),
    command: str = "",
    progress: Callable[[str], None] | None = None,
) -> res.FittedLaw:
    """Fit a law to runs: coefficients with intervals, what the runs leave open, held-out error, optima.

    Minimises sum_i huber(ln prediction_i - ln observation_i; delta) over the form's coefficients (Hoffmann et al. 2022,
    arXiv 2203.15556, section 3.3), from starts by variable projection; intervals are percentiles of bootstrap draws
    (`moeplan.fitting.bootstrap`).

    Parameters
    ----------
    runs : str or Path, or several
        CSV, JSON lines or Parquet with a column for each quantity, by glossary names or their aliases.
    form : str
        A form ("additive_power_law"), a law whose form is meant ("ludziejewski2025"), or "auto".
    name : str
        Name of the law; default the file's own.
    predicts : str
        What was measured, one of `moeplan.laws.law.PREDICTS`; default what the form predicts.
    columns, where, exclude, drop_highest_loss, keep_best, conventions
        See `moeplan.fitting.runs.read_runs`.
    fixed : mapping, optional
        What all runs have and no column says: {"num_experts": 64, "tokens": 130e9}.
    prior : str
        A law with the same form whose coefficients are the prior; prior_width is the width where it has no standard
        errors, as a share of the coefficient.
    delta : float
        Where the objective turns from quadratic to linear [ln]; infinity is least squares.
    holdout : float
        Share of the runs, the largest by compute, that is first predicted by the others; 0 for none.
    draws : int
        Bootstrap draws; 0 for no intervals.
    cluster : str
        Column whose equal cells rise and fall together, drawn as one.
    level : float
        Probability that the intervals are meant to cover.
    seed : int
        Seed of the draws.
    at : iterable of float
        Further budgets for the law's optimum [FLOPs].

    Raises
    ------
    UsageError
        For a file that cannot be read as runs, with line and column, and for arguments that cannot be.
    InfeasibleError
        For runs that cannot determine the form.
    """
    say = progress or (lambda _: None)
    _check_arguments(draws, level, holdout, delta, seed, at)
    if name and not _NAME.fullmatch(name):
        raise UsageError(f"name {name!r} must be a word of letters, digits, '.', '_' and '-', for example my-law")
    chosen, target = resolve_form(form, predicts)
    say("reading the runs")
    files = [runs] if isinstance(runs, (str, Path)) else list(runs)
    table = read_runs(
        files,
        columns=columns,
        where=where,
        exclude=exclude,
        drop_highest_loss=drop_highest_loss,
        keep_best=keep_best,
        target=target,
        conventions=conventions,
        fixed=fixed,
    )
    scores: tuple[res.FormScore, ...] = ()
    if chosen == AUTO:
        say("comparing the forms")
        scores = compare_forms(table, target, delta, holdout)
        chosen = scores[0].form
    check(table, chosen, target, has_prior=bool(prior))
    problem = _problem(table, chosen, target, delta)
    say("predicting the largest runs")
    held_out, held_out_says = hold_out(problem, table.column("train_flops"), holdout)
    say("fitting")
    minima = fits(problem)
    found: Prior | None = None
    without = minima[0]
    if prior:
        found = make_prior(prior, problem, prior_width)
        problem, minima = _with_prior(problem, found, without)
    say("asking what the runs determine")
    identified = identify(problem, minima[0])
    say("drawing")
    objective = problem.objective(minima, problem.residuals(minima)[0])
    clusters = _clusters(table, cluster)
    units = table.count if clusters is None else int(clusters.max()) + 1
    needed = 0 if prior else PER_COEFFICIENT * (len(problem.names) - len(problem.fixed))
    few = warning = ""
    if draws and identified.determined < units < needed:
        what = "clusters" if cluster else "runs"
        few = f"too few {what} for intervals: {units}, and they hold from {needed} on; give more, or a --prior"
        warning = f"there are too few {what} for intervals of so many coefficients; give more, or a --prior"
    drawn = (
        bootstrap(
            problem,
            minima[objective <= NEARLY * objective[0]][:MINIMA],
            draws,
            seed=seed,
            level=level,
            clusters=clusters,
            determined=identified.determined,
        )
        if draws and not few and (table.count > identified.determined or prior)
        else None
    )
    if drawn is not None:
        identified = with_draws(identified, problem, minima[0], drawn.y)
    say("finding optima")
    return summarise(
        table,
        problem,
        minima,
        identified,
        drawn,
        target,
        name=name or _name_of(files[0]),
        command=command
        or f"moeplan.fit({str(files[0]) if len(files) == 1 else [str(file) for file in files]!r}, {form!r})",
        method=method_of(problem, objective, drawn, few, draws, cluster, seed, level),
        hold_out=(held_out, held_out_says),
        scores=scores,
        prior=found,
        without=without,
        at=list(at),
        level=level,
        warning=warning,
    )


def _with_prior(problem: Problem, prior: Prior, without: Floats) -> tuple[Problem, Floats]:
    """The problem with a prior and its minima; the noise, which the prior is weighed against, is estimated in turn."""
    residuals, _ = problem.residuals(without[None])
    noise = problem.noise(residuals[0], min(len(problem.names), problem.num_runs - 1))
    pulled = dataclasses.replace(problem, pull=prior.pull(max(noise, LEAST_NOISE**2)))
    minima = fits(pulled)
    for _ in range(PRIOR_ROUNDS):
        residuals, _ = pulled.residuals(minima[:1])
        noise = pulled.noise(residuals[0], identify(pulled, minima[0]).determined)
        pulled = dataclasses.replace(problem, pull=prior.pull(max(noise, LEAST_NOISE**2)))
        found = solve(pulled, minima)
        minima = distinct(found.y[np.argsort(found.objective, kind="stable")], pulled)
    return pulled, minima


def resolve_form(form: str, predicts: str = "") -> tuple[str, str]:
    """The form meant by a form's or a law's name, and what it predicts; raises `UsageError` for neither."""
    if predicts and predicts not in PREDICTS:
        raise UsageError(f"predicts {predicts!r} is not known; known are {', '.join(PREDICTS)}")
    if form == AUTO:
        return AUTO, predicts or "loss"
    if form in FORMS:
        return form, predicts or form_coordinates(form).predicts
    try:
        law = load_law(form)
    except UsageError:
        if form.endswith((".yaml", ".yml")):
            raise
        import difflib

        near = difflib.get_close_matches(form, FORMS, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are auto, {', '.join(FORMS)}"
        raise UsageError(f"form {form!r} is neither a form nor a law; {hint}") from None
    fits_of = [law.fits[law.chosen]] if law.chosen else list(law.fits.values())
    if not fits_of:
        raise UsageError(f"law {form!r} has no form; known are {', '.join(FORMS)}")
    meant = law.objective or fits_of[0]
    return meant.form, predicts or meant.predicts


def compare_forms(runs: Runs, predicts: str, delta: float, share: float) -> tuple[res.FormScore, ...]:
    """Every form that the runs can determine, by its error on the largest runs, the best first.

    Raises `InfeasibleError` if there is none.
    """
    scores = []
    for form in candidates(runs, predicts):
        count = len(form_coordinates(form).coordinates)
        try:
            check(runs, form, predicts)
        except InfeasibleError as refused:
            scores.append(res.FormScore(form, count, None, None, str(refused), ()))
            continue
        problem = _problem(runs, form, predicts, delta)
        held_out, says = hold_out(problem, runs.column("train_flops"), share or SHARE)
        y = fits(problem)[0]
        open_ones = tuple(identify(problem, y).says)
        error = rms(problem.residuals(y[None])[0])
        scores.append(res.FormScore(form, count, held_out.rms if held_out else None, error, says, open_ones))
    able = [score for score in scores if score.rms is not None]
    if not able:
        why = f": {scores[0].says}" if scores else f"; its columns are {', '.join(runs.table.columns)}"
        raise InfeasibleError(
            f"{runs.table.file}: no form that predicts {predicts} can be determined from these runs{why}"
        )
    # Without a hold-out the fewest coefficients win over a closer fit.
    order = sorted(
        scores,
        key=lambda s: (s.rms is None, s.held_out is None, s.held_out or 0.0, s.coefficients),
    )
    # A handful of runs held out does not tell errors apart that differ by less than `NEARLY`; what is known of the
    # coefficients does: open ones let the draws run far, and intervals with them.
    best = order[0]
    if best.unidentified and best.held_out is not None:
        alike = [s for s in order if s.held_out is not None and s.held_out <= NEARLY * best.held_out]
        chosen = min(alike, key=lambda s: len(s.unidentified))
        order.remove(chosen)
        order.insert(0, chosen)
    return tuple(order)


def _problem(runs: Runs, form: str, target: str, delta: float) -> Problem:
    columns = {name: runs.require(name, form) for name in form_variables(form)}
    return make_problem(form, columns, runs.require(target, form), delta=delta)


def _check_arguments(draws: int, level: float, holdout: float, delta: float, seed: int, at: Iterable[float]) -> None:
    if isinstance(draws, bool) or not isinstance(draws, int) or not (draws == 0 or 20 <= draws <= _MOST_DRAWS):
        raise UsageError(f"draws {draws!r} must be 0 for none, or a whole number from 20 to {_MOST_DRAWS}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"seed {seed!r} must be a whole number of at least 0")
    if not 0.5 <= level < 1:
        raise UsageError(f"level {level} must be from 0.5 to below 1, for example 0.9")
    if not 0 <= holdout <= 0.8:
        raise UsageError(f"holdout {holdout} must be a share from 0 to 0.8, for example {SHARE}")
    if math.isnan(delta) or delta <= 0:
        raise UsageError(f"delta {delta} must be above 0, for example {DELTA}, or inf for least squares")
    for budget in at:
        if not (math.isfinite(budget) and budget > 0):
            raise UsageError(f"budget {budget} must be positive and finite, for example 1e22")


def _clusters(runs: Runs, column: str) -> NDArray[np.intp] | None:
    if not column:
        return None
    cells = runs.texts(column)
    known = {cell: place for place, cell in enumerate(dict.fromkeys(cells))}
    if len(known) < 5:
        raise UsageError(f"column {column!r} has {len(known)} clusters; at least 5 are needed to draw from")
    return np.array([known[cell] for cell in cells])


def _name_of(path: str | Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(path).stem).strip("-.") or "fitted"
