"""The next runs to make: `suggest(law, budget, 6, 1e20)`, the proxy runs that best tell a law which model to recommend.

The law's draws (`moeplan.laws.draws`) say what its runs leave open. Under each draw the target's best design is
found anew (`moeplan.plan.uncertainty.redraw`). Every design that is ever the best, and every proxy run that could be
made (`moeplan.fitting.candidates`), has a loss by the law whose derivatives by the coefficients are known near each
draw; of these `moeplan.fitting.choosing` chooses the runs. What they are worth is then simulated over the draws: the
value ln C_l of the designs that may be the best, and what the runs would measure.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from moeplan import __version__
from moeplan.architecture.conventions import Variables
from moeplan.errors import InfeasibleError, UsageError
from moeplan.estimates import Estimate
from moeplan.fitting.candidates import Candidates, make_candidates
from moeplan.fitting.choosing import around, choose, contrasts, left_by, regrets
from moeplan.fitting.estimate import AUTO, LEAST_NOISE, resolve_form
from moeplan.fitting.limits import RunLimits, make_limits, one_gpu_bytes
from moeplan.fitting.problem import make_problem
from moeplan.fitting.result import FittedLaw
from moeplan.fitting.suggestion import SCHEMA, Expected, SuggestedRun, Suggestion
from moeplan.fitting.write import law_text
from moeplan.laws import Fit, Law, read_law
from moeplan.laws.draws import SEED, Drawn, law_draws
from moeplan.laws.law import NO_TRADE
from moeplan.laws.leverage import leverage_by
from moeplan.laws.signatures import FORMS, form_coordinates, form_variables, trades_size
from moeplan.numerics import Floats, Indices
from moeplan.plan.budget import Budget
from moeplan.plan.choice import Choice, choose_design, make_space
from moeplan.plan.search.grid import Grid
from moeplan.plan.search.space import TIE
from moeplan.plan.uncertainty.drawn import LEVEL, DrawnLaw, ends
from moeplan.plan.uncertainty.redraw import drawn_ln_compute, redraw
from moeplan.units import format_bytes, format_count

MOST_RUNS = 100
"""Most runs that are suggested at a time: beyond, fit again in between."""
NEAR = 64
"""Draws near which derivatives are taken: more change the choice little, and the time much."""
LEAST_VARIANCE = 1e-12
"""Variance over the draws of a coordinate that is held: none to speak of."""
_ASIDE = 1e-3
"""Weight of the predicted loss beside the choice: ln L counts for so much of a difference in ln L."""
OPEN = 10.0
"""Ends of an interval of leverage so many times apart say that the law hardly knows its own dense side."""
SHOWN = ("total_params", "active_params", "tokens", "expansion_ratio", "granularity")
"""Design variables whose intervals are shown."""
_NO_CHOICE = "it cannot choose a design, since"
_NOT_LOSS = "it predicts {}, which no single run measures; fit a form that predicts loss"
Bools = NDArray[np.bool_]


def suggest(
    law: Law,
    budget: Budget,
    count: int,
    limits: RunLimits | float,
    *,
    known: Floats | None = None,
    base: Grid | None = None,
    threads: int = 1,
    command: str = "",
    progress: Callable[[str], None] | None = None,
) -> Suggestion:
    """The `count` proxy runs within `limits` that shrink most the regret at `budget`.

    Parameters
    ----------
    law : Law
        A law with draws of its coefficients, as `moeplan fit` writes one.
    budget : Budget
        The budget whose recommendation is to become surer.
    count : int
        How many runs.
    limits : RunLimits or float
        What each run, and all of them together, must keep within (`moeplan.fitting.limits.make_limits`); a number is
        the most compute of one [FLOPs].
    known : array, optional
        The law's variables over the runs that it was fitted to, (variables, runs); without them, what is known near
        each draw is the covariance of the draws.
    base : Grid, optional
        Designs of the target to choose among; default the declared grid.
    threads : int
        Threads to search with; the answer does not depend on it.

    Raises
    ------
    UsageError
        For a count or limits that cannot be.
    InfeasibleError
        For a law that cannot choose a design, whose coefficients have no draws, or that no single run measures; for
        limits within which no runs are.
    """
    check_count(count)
    limits = limits if isinstance(limits, RunLimits) else make_limits(budget, limits)
    fit = _check(law)
    say = progress or (lambda _: None)
    say("recommending")
    choice = choose_design(make_space(budget, [law], base=base, reference=base, threads=threads), [law])
    say("recommending under every draw")
    draws = law_draws(law)
    drawn = DrawnLaw(law, draws)
    optima = redraw(choice, {law.full_name: draws}, drawn.count)
    designs = np.unique(np.append(optima.chosen, choice.index))
    values = drawn_ln_compute(choice, drawn, designs)
    finite = _enough(law.full_name, values)
    say("weighing proxy runs")
    candidates = make_candidates(fit, choice.architecture, budget.seq_len, limits)
    own = choice.scores.of(law)[designs]
    noise = _noise(fit) ** 2
    target = np.stack([_variables(choice, fit, int(index)) for index in designs], axis=1)
    shares = np.bincount(np.argmax(values[finite], axis=1), minlength=len(own))
    here = int(np.searchsorted(designs, choice.index))
    runs = _choose(fit, draws[fit.name], candidates, target, shares / shares.sum(), here, known, noise, count, limits)
    columns = {name: column[:, None] for name, column in draws[fit.name].values.items()}
    with np.errstate(all="ignore"):
        measured = np.log(FORMS[fit.form](*candidates.variables[:, runs], **columns))
    usable = _enough(law.full_name, values, measured)
    values, measured = values[usable], measured[usable]
    now, after = regrets(values, own, measured, noise, seed=SEED)
    expected = _expected(choice, drawn, fit, designs, usable, values, measured, own, noise)
    suggested = tuple(
        _run(candidates, fit, run, left, budget.seq_len, limits) for run, left in zip(runs, after, strict=True)
    )
    return Suggestion(
        schema=SCHEMA,
        moeplan_version=__version__,
        command=command or f"moeplan.fitting.suggest({law.full_name!r}, ..., {count}, {limits.max_flops:g})",
        law=law.full_name,
        form=fit.form,
        target_flops=budget.flops,
        target_memory="" if budget.memory is None else str(budget.memory),
        max_flops=limits.max_flops,
        max_params=limits.max_params if math.isfinite(limits.max_params) else None,
        max_memory=limits.max_memory if math.isfinite(limits.max_memory) else None,
        gpus="" if limits.gpus is None else str(limits.gpus),
        max_days=limits.days or None,
        seq_len=budget.seq_len,
        runs=suggested,
        train_flops=float(candidates.train_flops[runs].sum()),
        days=_sum([run.days for run in suggested]),
        candidates=len(candidates),
        noise=math.sqrt(noise),
        regret_now=now,
        regret_after=after[-1],
        expected=expected,
        level=LEVEL,
        draws=int(usable.sum()),
        notes=_notes(fit, candidates, runs, expected, limits, suggested),
    )


def check_count(count: int) -> None:
    """Raise `UsageError` for a number of runs that cannot be."""
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_RUNS:
        raise UsageError(f"suggest {count!r} must be a whole number of runs from 1 to {MOST_RUNS}")


def check_form(form: str, predicts: str = "", draws: int | None = None) -> None:
    """Refuse a fit for which no runs could be suggested, where its form and draws alone say so, before it is made.

    Raises `InfeasibleError` for a form that cannot choose a design or that no single run measures, `UsageError` for
    no draws.
    """
    chosen, target = resolve_form(form, predicts)
    refused = f"no runs can be suggested for form {chosen}"
    if target != "loss":
        raise InfeasibleError(f"{refused}: {_NOT_LOSS.format(target)}")
    if chosen != AUTO and not trades_size(chosen):
        raise InfeasibleError(f"{refused}: {_NO_CHOICE} {NO_TRADE}")
    if draws == 0:
        raise UsageError("draws 0 leaves nothing to suggest runs by; leave it out, or give at least 20")


def with_suggestion(
    fitted: FittedLaw,
    budget: Budget,
    count: int,
    limits: RunLimits,
    *,
    command: str = "",
    threads: int = 1,
    progress: Callable[[str], None] | None = None,
) -> FittedLaw:
    """A fitted law with what to run next; see `suggest`."""
    with TemporaryDirectory(prefix="moeplan-") as folder:
        # Through its own file format, so that runs are suggested for the law that recommend will read.
        path = Path(folder) / f"{fitted.name}.yaml"
        path.write_text(law_text(fitted), encoding="utf-8")
        law = dataclasses.replace(read_law(path), source=fitted.name)
    known = np.array([[run.variables[name] for run in fitted.residuals] for name in form_variables(fitted.form)])
    found = suggest(law, budget, count, limits, known=known, threads=threads, command=command, progress=progress)
    return dataclasses.replace(fitted, suggestion=found)


def _check(law: Law) -> Fit:
    """The fit that runs are suggested for; raises `InfeasibleError` with why there is none."""
    refused = f"no runs can be suggested for law {law.full_name}"
    if not law.can_search:
        raise InfeasibleError(f"{refused}: {_NO_CHOICE} {law.why_not}")
    fit = law.require_objective()
    if fit.predicts != "loss":
        raise InfeasibleError(f"{refused}: {_NOT_LOSS.format(fit.predicts)}")
    if fit.covariance is None:
        raise InfeasibleError(
            f"{refused}: it has no draws of its coefficients; fit it to more runs than it has coefficients, with "
            f"--draws above 0, or with --prior"
        )
    return fit


def _enough(law: str, *tables: Floats) -> Bools:
    """The draws (first axis) that have finite numbers in all of the tables; unless most have, `InfeasibleError`."""
    usable = np.array([all(np.isfinite(row).all() for row in rows) for rows in zip(*tables, strict=True)], dtype=bool)
    if 2 * usable.sum() <= len(usable):
        raise InfeasibleError(f"law {law} gives finite losses under too few of its draws to weigh runs by")
    return usable


def _noise(fit: Fit) -> float:
    """Standard deviation of a run's ln loss about the law, from the fit's residuals."""
    if fit.scatter is None or not (fit.residual and fit.residual.degrees_of_freedom):
        return LEAST_NOISE
    return max(fit.scatter, LEAST_NOISE)


def _choose(
    fit: Fit, draws: Drawn, candidates: Candidates, target: Floats, shares: Floats, own: int, known: Floats | None,
    noise: float, count: int, limits: RunLimits,
) -> list[int]:  # fmt: skip
    """The runs to make, from derivatives by the coefficients near each of the first draws.

    The loss of the recommended design, at the place `own` of the target's designs, counts a little, for where no design
    but that one is ever the best.
    """
    table = form_coordinates(fit.form).coordinates
    columns = np.stack([draws.values[name] for name in table], axis=1)
    logs = np.array([coordinate.kind == "ln" for coordinate in table.values()])
    y = np.where(logs, np.log(np.where(logs, columns, 1.0)), columns)
    near = y[:NEAR]
    designs, measured = (_derivatives(fit.form, variables, near) for variables in (target, candidates.variables))
    if known is None:
        inverse = np.linalg.inv(np.cov(y.T) + LEAST_VARIANCE * np.eye(y.shape[1]))
        information = np.asarray(inverse[None].repeat(len(near), axis=0), dtype=float)
    else:
        runs = _derivatives(fit.form, known, near)
        # What is held is known; in no coordinate is more left open near a draw than the draws leave open at all.
        least = np.diag(1 / np.maximum(y.var(axis=0), LEAST_VARIANCE))
        information = np.asarray(least + runs @ runs.swapaxes(1, 2) / noise, dtype=float)
    usable = _enough(fit.law, designs, measured, information)
    designs, measured, information = designs[usable], measured[usable], information[usable]
    level = designs[:, :, own]
    wanted = contrasts(designs, shares) + _ASIDE**2 * level[:, :, None] * level[:, None, :]
    if not limits.days:
        return choose(wanted, measured, information, noise, count)
    fastest = count * float(candidates.days.min())
    if fastest > limits.days:
        raise InfeasibleError(
            f"{count} runs take at least {fastest:.2g} days on {limits.gpus}, more than {limits.days:g}; ask for "
            f"fewer, or give more days"
        )
    return choose(wanted, measured, information, noise, count, candidates.days, limits.days)


def _derivatives(form: str, variables: Floats, y: Floats) -> Floats:
    """Derivatives of ln loss by the coordinates at points y (B, P), for designs (V, I): (B, P, I)."""
    columns = dict(zip(form_variables(form), variables, strict=True))
    return make_problem(form, columns, np.ones(variables.shape[1])).residuals(y)[1]


def _variables(choice: Choice, fit: Fit, index: int) -> Floats:
    """The law's variables of one design of the target."""
    v = Variables(choice.space.architecture(index), choice.budget.seq_len)
    tokens = choice.budget.worth(float(choice.scores.tokens[index]))
    return np.array([float(x) for x in v.select(fit.variables, fit.conventions, tokens)])


def _run(candidates: Candidates, fit: Fit, run: int, left: float, seq_len: int, limits: RunLimits) -> SuggestedRun:
    shape = candidates.architecture(run)
    variables = candidates.variables[:, run]
    days, memory = None, float(one_gpu_bytes(shape, seq_len)[0])
    if limits.gpus is not None:
        training = limits.training(shape, seq_len, float(candidates.tokens[run]))
        days, memory = training.days, training.layouts[0].bytes_per_gpu
    return SuggestedRun(
        architecture=shape,
        total_params=shape.total_params(),
        active_params=shape.active_params(),
        tokens=int(candidates.tokens[run]),
        train_flops=float(candidates.train_flops[run]),
        predicted=float(fit(*variables)),
        memory_bytes=memory,
        days=days,
        sees=dict(zip(fit.variables, variables.tolist(), strict=True)),
        regret_after=left,
    )


def _sum(days: list[Estimate | None]) -> Estimate | None:
    """Days of runs one after another, whose times err alike; None without times."""
    known = [each for each in days if each is not None]
    if not known:
        return None
    low, high = (
        [end for end in ends if end is not None] for ends in zip(*((x.low, x.high) for x in known), strict=True)
    )
    return Estimate(math.fsum(known), math.fsum(low), math.fsum(high))


def _expected(
    choice: Choice, drawn: DrawnLaw, fit: Fit, designs: Indices, usable: Bools, values: Floats, measured: Floats,
    own: Floats, noise: float,
) -> tuple[Expected, ...]:  # fmt: skip
    """Intervals of the recommendation's loss and leverage and of the best design's variables, now and after the runs.

    After the runs the draws keep the covariance that the runs leave, the nearer to the law's own values the less it is.
    """
    v, tokens = Variables(choice.architecture, choice.budget.seq_len), choice.budget.worth(float(choice.tokens))
    said = {"loss": (float(fit.at(v, tokens)), drawn.predictions(v, tokens))}
    leverages = drawn.leverages(v, tokens)
    if leverages is not None:
        said["efficiency_leverage"] = (leverage_by(drawn.law, v, tokens).efficiency_leverage, leverages)
    with np.errstate(all="ignore"):
        ln = {name: np.log([value, *draws[usable]]) for name, (value, draws) in said.items()}
    ln = {name: x for name, x in ln.items() if np.isfinite(x).all()}
    left = left_by(np.concatenate([values, *(x[1:, None] for x in ln.values())], axis=1), measured, noise)
    found = []
    for place, (name, (value, *draws)) in enumerate(ln.items()):
        now = ends(np.exp(draws))
        then = ends(np.exp(around(value, np.array(draws), left[:, len(own) + place])))
        if now and then:
            found.append(Expected(name, said[name][0], *now, *then))
    rank = choice.space.rank(designs, choice.scores)
    best_now, best_then = (_best(x, rank) for x in (values, around(own, values, left[:, : len(own)])))
    for name in SHOWN:
        column = np.asarray(choice.space.values(name, designs, choice.scores), dtype=float)
        shares = (0.5 - LEVEL / 2, 0.5 + LEVEL / 2)
        low, high = (float(x) for x in np.quantile(column[best_now], shares, method="nearest"))
        low_after, high_after = (float(x) for x in np.quantile(column[best_then], shares, method="nearest"))
        own_value = float(column[int(np.searchsorted(designs, choice.index))])
        found.append(Expected(name, own_value, low, high, low_after, high_after))
    return tuple(found)


def _best(values: Floats, rank: Indices) -> Indices:
    """The design that the search chooses by each row of ln C_l, (draws, designs): the first of those that tie."""
    ties = values >= values.max(axis=1, keepdims=True) + math.log1p(-TIE)
    return np.asarray(np.argmin(np.where(ties, rank, np.inf), axis=1))


def _notes(
    fit: Fit, candidates: Candidates, runs: list[int], expected: tuple[Expected, ...], limits: RunLimits,
    suggested: tuple[SuggestedRun, ...],
) -> tuple[str, ...]:  # fmt: skip
    notes = []
    largest = max(suggested, key=lambda run: run.memory_bytes)
    if limits.gpus is None and not math.isfinite(limits.max_memory):
        notes.append(
            f"Training the largest run, of {format_count(largest.total_params)} params, takes "
            f"{format_bytes(largest.memory_bytes)} on one GPU, a sequence at a time; runs for the machine that there "
            f"is are suggested with --gpus 8xA100-80GB --days 2, --max-params or --max-memory."
        )
    chosen = candidates.variables[:, runs]
    beyond = [
        f"{name} ({low:.4g} to {high:.4g})"
        for name, column in zip(fit.variables, chosen, strict=True)
        for low, high in [fit.domain.get(name, (0.0, math.inf))]
        if column.min() < low * (1 - 1e-9) or column.max() > high * (1 + 1e-9)
    ]
    if beyond:
        notes.append(f"Some of the runs lie beyond those that the law was fitted to in {', '.join(beyond)}.")
    for x in expected:
        if x.quantity == "efficiency_leverage" and x.high > OPEN * x.low:
            notes.append(
                f"EL is still open by a factor of {x.high / x.low:.3g}: the law hardly knows its dense models, "
                "and dense runs would tell."
            )
    if len(set(runs)) < len(runs):
        notes.append("A run that is listed more than once is to be made with as many seeds.")
    notes.append("Train them as the others were: same data, tokenizer, schedule, and a learning rate tuned alike.")
    return tuple(notes)
