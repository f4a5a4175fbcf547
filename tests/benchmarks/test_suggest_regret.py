"""Suggested proxy runs against an isoFLOP grid of equal cost: `python -m pytest -n 0 tests/benchmarks`, some minutes.

Each truth is a bundled law with its coefficients moved at random by 10 %, which every run measures with .3 % noise
(the root mean square residual of marin2026's cells). 21 small runs are fitted, with the bundled law of the form as the
prior; then either the 6 suggested runs are added or a uniform isoFLOP grid (budgets a factor of 4 apart; sizes even in
the logarithm over all that a budget can train at 3 to 400 tokens a param, everything else stepped evenly) of the same
total compute: one of as many runs (two budgets of three sizes, the larger above what a suggested run may cost), and one
of 9 to 15 (three budgets, no run larger than a suggested one may be). The law is fitted again and recommends a design,
whose regret under the truth, the mean over 4 draws of the measurements' noise, is what counts. Truths under which the
first recommendation wastes less than 1 % leave nothing to learn and are drawn again. In a third of the trials the
truth's form is not the fitted one.

Of 50 truths the suggested runs left .40 times the median regret of the grid of as many runs (.0064 against .0160 in ln
compute; better in 32, worse in 6) and .64 times that of the grid of more (.0100; better in 26, worse in 8). The set-up
and the method were settled on other seeds, the seed below was drawn once. Earlier set-ups, with 1 % noise and a coarser
target, in which most truths left nothing to learn, could not tell the two apart (1.00 times, many ties).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from types import MappingProxyType

import numpy as np
import pytest

from moeplan import Budget
from moeplan.architecture.conventions import Variables
from moeplan.architecture.shape import Architecture
from moeplan.fitting.bootstrap import bootstrap
from moeplan.fitting.candidates import Candidates, make_candidates
from moeplan.fitting.estimate import _with_prior
from moeplan.fitting.limits import RunLimits
from moeplan.fitting.prior import make_prior
from moeplan.fitting.problem import make_problem
from moeplan.fitting.start import fits
from moeplan.fitting.suggest import suggest
from moeplan.laws import Fit, Law, load_law
from moeplan.laws.law import Covariance, ResidualError
from moeplan.laws.signatures import form_coordinates, form_variables
from moeplan.numerics import Floats
from moeplan.plan.choice import choose_design
from moeplan.plan.search.grid import Grid
from moeplan.plan.search.space import Space

Record = Callable[[str, object], None]

SEED = 20_261_122
NOISE, MAX_FLOPS, FIRST_FLOPS, SUGGESTED, INITIAL, REPEATS = 0.003, 1e20, 2e18, 6, 21, 4
CASES = (
    ("ludziejewski2025", "ludziejewski2025", 17),
    ("abnar2025", "abnar2025", 17),
    ("zhao2025", "ludziejewski2025", 16),
)
"""The truth's law, the law whose form is fitted, and how many truths."""
WIDTH = 0.1
"""How far a truth's coefficients are from the bundled ones, as a share: half the default width of a prior."""
LEAST = 0.01
"""Regret of the first recommendation from which there is something to learn [ln compute]."""
PRIORS = {"expansion_joint": "ludziejewski2025", "activation_joint": "abnar2025"}
"""The prior of each form: 21 runs do not determine ten coefficients, and nobody plans by some at their bounds."""
MOST = 0.8
"""Median regret of the suggested runs over that of either grid, at most."""
BUDGET = Budget("1e23", "80GB")
GRID = Grid(
    d_model=(*range(1024, 4097, 256), *range(4608, 8193, 512)),
    aspect_ratio=tuple(range(64, 113, 8)),
    num_experts=(*range(8, 65, 4), *range(72, 129, 8), *range(144, 257, 16), *range(288, 513, 32)),
    num_active_experts=(2, 3, 4, 5, 6, 7, 8, 10, 12),
    num_shared_experts=(0, 1),
    granularity=(4, 6, 8),
    attention_width=(1, 1),
)
"""Designs of the target: fewer than declared, for speed, but fine enough that regrets are seldom the same."""
STEPS = (0.6180339887, 0.7548776662, 0.8191725134)
"""Strides of even steps through [0, 1)."""


def with_fit(law: Law, name: str, **changed: object) -> Law:
    """A law under another name, its objective changed."""
    fit = dataclasses.replace(law.require_objective(), law=name, **changed)  # type: ignore[arg-type]
    return dataclasses.replace(law, name=name, fits=MappingProxyType({fit.name: fit}))


def truth(name: str, rng: np.random.Generator) -> Law:
    """A bundled law with its coefficients moved."""
    law = load_law(name)
    table = form_coordinates(law.require_objective().form).coordinates
    moved = {
        key: value * (math.exp(WIDTH * z) if table[key].kind == "ln" else 1 + WIDTH * z)
        for (key, value), z in zip(
            law.require_objective().coefficients.items(),
            rng.standard_normal(len(law.require_objective().coefficients)),
            strict=True,
        )
    }
    return with_fit(law, "truth", coefficients=MappingProxyType(moved))


def measure(law: Law, runs: list[tuple[Variables, float]], rng: np.random.Generator) -> Floats:
    """Losses of runs under the truth, with noise."""
    losses = np.array([float(law.require_objective().at(v, tokens)) for v, tokens in runs])
    return np.asarray(losses * np.exp(NOISE * rng.standard_normal(len(runs))))


def columns(fit: Fit, runs: list[tuple[Variables, float]]) -> Floats:
    """What a fit sees of runs, (variables, runs)."""
    return np.array([[float(x) for x in v.select(fit.variables, fit.conventions, t)] for v, t in runs]).T


def fitted(law: Law, runs: list[tuple[Variables, float]], losses: Floats, seed: int, draws: int) -> Law:
    """The form of `law` fitted to runs, with draws if there are to be any."""
    own = law.require_objective()
    seen = columns(own, runs)
    problem = make_problem(own.form, dict(zip(form_variables(own.form), seen, strict=True)), losses)
    minima = fits(problem)
    problem, minima = _with_prior(problem, make_prior(PRIORS[own.form], problem), minima[0])
    values = {name: float(value) for name, value in problem.coefficients(minima[0]).items()}
    residuals = problem.residuals(minima)[0]
    covariance = None
    if draws:
        near = problem.objective(minima, residuals)
        y = bootstrap(problem, minima[near <= 1.1 * near[0]][:3], draws, seed=seed).y
        drawn = np.stack(list(problem.coefficients(y).values()), axis=1)
        kinds = {name: c.kind for name, c in problem.table.coordinates.items()}
        covariance = Covariance(kinds, tuple(map(tuple, np.cov(y.T).tolist())), tuple(map(tuple, drawn.tolist())))
    rms = float(np.sqrt((residuals[0] ** 2).mean()))
    domain = {name: (float(x.min()), float(x.max())) for name, x in zip(own.variables, seen, strict=True)}
    return with_fit(
        law, "fitted", coefficients=MappingProxyType(values), covariance=covariance, domain=domain,
        residual=ResidualError(rms, len(runs) - len(values)),
    )  # fmt: skip


def target_grid() -> Grid:
    """The target's designs at the budget's vocabulary."""
    return dataclasses.replace(GRID, vocab_size=BUDGET.vocab_size, tied_embeddings=bool(BUDGET.tied_embeddings))


def scores(law: Law) -> Floats:
    """What a law makes of the target's designs, ln C_l."""
    grid = target_grid()
    return np.asarray(Space(BUDGET, [law], base=grid, reference=grid).score(BUDGET.flops).mean([law]))


def regret(law: Law, by_truth: Floats) -> float:
    """ln of the best C_l under the truth over that of the design that a law recommends."""
    return float(by_truth.max() - by_truth[np.argmax(scores(law))])  # not a tie of it: ties go by what no law sees


def grid_runs(
    fit: Fit, candidates: Candidates, most: float, budgets: int, sizes: int, shift: float = 0.0
) -> list[tuple[Variables, float]]:
    """`sizes` runs at each of `budgets`, `most` the largest: sizes even in ln, the rest stepped evenly."""
    level = np.rint(np.log2(most / candidates.train_flops))
    ln = np.log(np.maximum(candidates.variables, 1e-3))
    size = fit.variables.index("active_params" if "active_params" in fit.variables else "total_params")
    others = [i for i, name in enumerate(fit.variables) if i != size and name != "tokens"]
    found = []
    for halvings in range(0, 2 * budgets, 2):
        pool = np.flatnonzero(level == halvings)
        low, high = ln[:, pool].min(axis=1), ln[:, pool].max(axis=1)
        scaled = (ln[:, pool] - low[:, None]) / np.maximum(high - low, 1e-9)[:, None]
        for place in range(sizes):
            away = (scaled[size] - (place + 0.5) / sizes) ** 2
            for i, step in zip(others, STEPS, strict=False):
                away = away + (scaled[i] - (shift + 0.17 * halvings + step * (place + 1)) % 1) ** 2
            run = int(pool[np.argmin(away)])
            found.append((Variables(candidates.architecture(run), BUDGET.seq_len), float(candidates.tokens[run])))
    return found


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a trial starts: a truth, and a law fitted to small runs."""

    true: Law
    law: Law
    like: Architecture
    runs: list[tuple[Variables, float]]
    losses: Floats
    first: Law
    by_truth: Floats

    def candidates(self, max_flops: float) -> Candidates:
        """Runs that could be made."""
        return make_candidates(self.law.require_objective(), self.like, BUDGET.seq_len, RunLimits(max_flops=max_flops))


def start(case: tuple[str, str, int]) -> Start:
    """The truth of a seed, its small runs, and the first fit."""
    true_name, name, seed = case
    rng = np.random.default_rng([SEED, CASES.index(next(x for x in CASES if x[:2] == (true_name, name))), seed])
    true, law = truth(true_name, rng), load_law(name)
    grid = target_grid()
    like = choose_design(Space(BUDGET, [law], base=grid, reference=grid), [law]).architecture
    candidates = make_candidates(law.require_objective(), like, BUDGET.seq_len, RunLimits(max_flops=FIRST_FLOPS))
    runs = grid_runs(law.require_objective(), candidates, FIRST_FLOPS, 3, INITIAL // 3, rng.random())
    losses = measure(true, runs, rng)
    return Start(true, law, like, runs, losses, fitted(law, runs, losses, seed, 200), scores(true))


def is_learnable(case: tuple[str, str, int]) -> bool:
    """Whether the first recommendation wastes enough."""
    begun = start(case)
    return regret(begun.first, begun.by_truth) >= LEAST


def trial(case: tuple[str, str, int]) -> tuple[float, ...]:
    """Regret before any further run, after the suggested ones, after a grid of as many and after one of more."""
    begun, seed = start(case), case[2]
    known = columns(begun.first.require_objective(), begun.runs)
    found = suggest(begun.first, BUDGET, SUGGESTED, MAX_FLOPS, known=known, base=target_grid(), threads=1)
    chosen = [(Variables(run.architecture, BUDGET.seq_len), float(run.tokens)) for run in found.runs]
    grids = []
    for budgets, sizes in ((2, SUGGESTED // 2), (3, math.ceil(found.train_flops / (1.3125 * MAX_FLOPS)))):
        most = found.train_flops / (sizes * sum(0.25**i for i in range(budgets)))
        grids.append(grid_runs(begun.law.require_objective(), begun.candidates(most), most, budgets, sizes))
        cost = sum(float(v.get("flops_per_token")) * tokens for v, tokens in grids[-1])
        assert cost == pytest.approx(found.train_flops, rel=1e-6)
    after = []
    for place, more in enumerate((chosen, *grids)):
        left = []
        for repeat in range(REPEATS):
            rng = np.random.default_rng([SEED, seed, repeat, place])
            losses = np.concatenate([begun.losses, measure(begun.true, more, rng)])
            left.append(regret(fitted(begun.law, begun.runs + more, losses, seed, 0), begun.by_truth))
        after.append(float(np.mean(left)))
    return regret(begun.first, begun.by_truth), *after


def cases(true: str, name: str, count: int, workers: Executor) -> list[tuple[str, str, int]]:
    """The first `count` seeds of a form that leave something to learn."""
    found: list[tuple[str, str, int]] = []
    first = 0
    while len(found) < count:
        tried = [(true, name, seed) for seed in range(first, first + 8)]
        found += [case for case, is_one in zip(tried, workers.map(is_learnable, tried), strict=True) if is_one]
        first += 8
    return found[:count]


def test_suggested_runs_leave_less_regret_than_an_isoflop_grid(record_property: Record) -> None:
    """Over 50 truths of three forms the median regret is at most .8 times that of either grid of equal cost."""
    found = []
    with ProcessPoolExecutor(2, get_context("spawn")) as workers:
        for true, name, count in CASES:
            found.append(np.array(list(workers.map(trial, cases(true, name, count, workers)))))
            say(record_property, f"median regret, truth {true}, form of {name}", found[-1])
    every = np.concatenate(found)
    say(record_property, f"median regret of {len(every)} truths [ln compute] (at most {MOST:g})", every)
    _, suggested, grid_of_as_many, grid_of_more = np.median(every, axis=0)
    assert suggested <= MOST * min(grid_of_as_many, grid_of_more)


def say(record_property: Record, what: str, regrets: Floats) -> None:
    """Print medians, means, and how often which was better, against either grid."""
    before, suggested = np.median(regrets[:, :2], axis=0)
    text = [f"before {before:.4f}, suggested {suggested:.4f} (mean {regrets[:, 1].mean():.3f})"]
    for name, grid in (("grid of as many runs", regrets[:, 2]), ("grid of more runs", regrets[:, 3])):
        better, worse = (int((sign * (regrets[:, 1] - grid) > 1e-9).sum()) for sign in (-1, 1))
        text.append(
            f"{name} {np.median(grid):.4f} (mean {grid.mean():.3f}): {suggested / max(np.median(grid), 1e-9):.2f}, "
            f"better {better}, worse {worse}"
        )
    record_property(what, "; ".join(text))
