"""Suggested proxy runs against an isoFLOP grid of equal cost: `python -m pytest tests/benchmarks`, a few minutes.

Each truth is a bundled law with its coefficients moved at random by 10 %, which every run measures with 1 % noise. 21
small runs are fitted, with the bundled law of the form as the prior; then either the 6 suggested runs are added or a
uniform isoFLOP grid of the same total compute (three budgets a factor of 4 apart; sizes even in the logarithm over all
that a budget can train at 3 to 400 tokens a param, everything else stepped evenly), the law is fitted again and
recommends a design, whose regret under the truth is what counts. In a third of the trials the truth's form is not the
fitted one.

The bound of .8 on the ratio of medians is not met: over 50 trials it was 1.00 (.0130 against .01305 in ln compute;
means .238 against .297; better in 18 trials, worse in 7, equal in 25). The set-up was changed three times before (no
prior; other sizes of the random move; a coarser grid of targets), each time with a new seed, after seeing results.
Where the truth's form is not the fitted one the ratio was .72; with the fitted form right, both leave almost no regret.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

import numpy as np
import pytest
from numpy.typing import NDArray

from moeplan import Budget
from moeplan.answer import Answer
from moeplan.fitting.bootstrap import bootstrap
from moeplan.fitting.candidates import Candidates, make_candidates
from moeplan.fitting.coordinates import form_coordinates
from moeplan.fitting.estimate import _with_prior
from moeplan.fitting.prior import make_prior
from moeplan.fitting.problem import make_problem
from moeplan.fitting.start import fits
from moeplan.fitting.suggest import suggest
from moeplan.grid import Grid
from moeplan.laws import Fit, Law, load_law
from moeplan.laws.law import Covariance, Residual, form_variables
from moeplan.search import Space
from moeplan.variables import Variables

Floats = NDArray[np.float64]
Record = Callable[[str, object], None]

SEED = 20_260_614
NOISE, MAX_FLOPS, FIRST_FLOPS, SUGGESTED, INITIAL = 0.01, 1e20, 2e18, 6, 21
CASES = (
    ("ludziejewski2025", "ludziejewski2025", 17),
    ("abnar2025", "abnar2025", 17),
    ("zhao2025", "ludziejewski2025", 16),
)
"""The truth's law, the law whose form is fitted, and how many truths."""
WIDTH = 0.1
"""How far a truth's coefficients are from the bundled ones, as a share: half the default width of a prior."""
PRIORS = {"expansion_joint": "ludziejewski2025", "activation_joint": "abnar2025"}
"""The prior of each form: 21 runs do not determine ten coefficients, and nobody plans by some at their bounds."""
MOST = 0.8
"""Median regret of the suggested runs over that of the grid, at most."""
BUDGET = Budget("1e23", "80GB")
GRID = Grid(
    d_model=(1024, 1280, 1536, 1792, 2048, 2304, 2560, 3072, 3584, 4096, 4608, 5120, 6144, 7168),
    aspect_ratio=(64, 76, 88, 100, 112),
    num_experts=(16, 24, 32, 40, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512),
    num_active_experts=(4, 5, 6, 7, 8, 10, 12),
    attention_width=(1, 1),
)
"""Designs of the target: a coarser grid than the declared one, for speed; fine enough that regrets are seldom 0."""
STEPS = (0.6180339887, 0.7548776662, 0.8191725134)
"""Strides of even steps through [0, 1)."""


def objective(law: Law) -> Fit:
    """The fit that judges."""
    assert law.objective is not None
    return law.objective


def with_fit(law: Law, name: str, **changed: object) -> Law:
    """A law under another name, its objective changed."""
    fit = dataclasses.replace(objective(law), law=name, **changed)  # type: ignore[arg-type]
    return dataclasses.replace(law, name=name, fits=MappingProxyType({fit.name: fit}))


def truth(name: str, rng: np.random.Generator) -> Law:
    """A bundled law with its coefficients moved."""
    law = load_law(name)
    table = form_coordinates(objective(law).form).coordinates
    moved = {
        key: value * (math.exp(WIDTH * z) if table[key].kind == "ln" else 1 + WIDTH * z)
        for (key, value), z in zip(
            objective(law).coefficients.items(), rng.standard_normal(len(objective(law).coefficients)), strict=True
        )
    }
    return with_fit(law, "truth", coefficients=MappingProxyType(moved))


def measure(law: Law, runs: list[tuple[Variables, float]], rng: np.random.Generator) -> Floats:
    """Losses of runs under the truth, with noise."""
    losses = np.array([float(objective(law).at(v, tokens)) for v, tokens in runs])
    return np.asarray(losses * np.exp(NOISE * rng.standard_normal(len(runs))))


def fitted(law: Law, runs: list[tuple[Variables, float]], losses: Floats, seed: int, draws: int) -> Law:
    """The form of `law` fitted to runs, with draws if there are to be any."""
    own = objective(law)
    columns = np.array([[float(x) for x in v.select(own.variables, own.conventions, t)] for v, t in runs]).T
    problem = make_problem(own.form, dict(zip(form_variables(own.form), columns, strict=True)), losses)
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
    domain = {name: (float(x.min()), float(x.max())) for name, x in zip(own.variables, columns, strict=True)}
    return with_fit(
        law, "fitted", coefficients=MappingProxyType(values), covariance=covariance, domain=domain,
        residual=Residual(rms, len(runs) - len(values)),
    )  # fmt: skip


def space(*laws: Law) -> Space:
    """The target's designs, judged by laws."""
    grid = dataclasses.replace(GRID, vocab_size=BUDGET.vocab_size, tied_embeddings=bool(BUDGET.tied_embeddings))
    return Space(BUDGET, laws, base=grid, reference=grid)


def regret(law: Law, true: Law) -> float:
    """ln of the best C_l under the truth over that of the design that a law recommends."""
    scores = space(law, true).score(BUDGET.flops)
    best = int(np.argmax(scores.mean([0])))  # not a tie of it: ties go by what no law sees
    by_truth = scores.mean([1])
    return float(by_truth.max() - by_truth[best])


def grid_runs(fit: Fit, candidates: Candidates, most: float, count: int, shift: float) -> list[tuple[Variables, float]]:
    """`count` runs at each of three budgets, `most` the largest: sizes even in ln, the rest stepped evenly."""
    level = np.rint(np.log2(most / candidates.train_flops))
    ln = np.log(np.maximum(candidates.variables, 1e-3))
    size = fit.variables.index("active_params" if "active_params" in fit.variables else "total_params")
    others = [i for i, name in enumerate(fit.variables) if i != size and name != "tokens"]
    found = []
    for halvings in (0, 2, 4):
        pool = np.flatnonzero(level == halvings)
        low, high = ln[:, pool].min(axis=1), ln[:, pool].max(axis=1)
        scaled = (ln[:, pool] - low[:, None]) / np.maximum(high - low, 1e-9)[:, None]
        for place in range(count):
            away = (scaled[size] - (place + 0.5) / count) ** 2
            for i, step in zip(others, STEPS, strict=False):
                away = away + (scaled[i] - (shift + 0.17 * halvings + step * (place + 1)) % 1) ** 2
            run = int(pool[np.argmin(away)])
            found.append((Variables(candidates.architecture(run), BUDGET.seq_len), float(candidates.tokens[run])))
    return found


def trial(case: tuple[str, str, int]) -> tuple[float, float, float]:
    """Regret before any further run, after the suggested ones, and after the grid."""
    true_name, name, seed = case
    rng = np.random.default_rng([SEED, seed])
    true, law = truth(true_name, rng), load_law(name)
    like = Answer(space(load_law("ludziejewski2025")), BUDGET, 1).architecture
    candidates = functools.partial(make_candidates, objective(law), like, BUDGET.seq_len)
    runs = grid_runs(objective(law), candidates(FIRST_FLOPS), FIRST_FLOPS, INITIAL // 3, rng.random())
    losses = measure(true, runs, rng)
    first = fitted(law, runs, losses, seed, 200)
    found = suggest(first, BUDGET, SUGGESTED, MAX_FLOPS, base=space(first).grid, threads=1)
    chosen = [(Variables(run.architecture, BUDGET.seq_len), float(run.tokens)) for run in found.runs]
    count = math.ceil(found.train_flops / (1.3125 * MAX_FLOPS))  # 1 + 1/4 + 1/16
    most = found.train_flops / (1.3125 * count)
    grid = grid_runs(objective(law), candidates(most), most, count, 0.0)
    cost = sum(float(v.get("flops_per_token")) * tokens for v, tokens in grid)
    assert cost == pytest.approx(found.train_flops, rel=1e-6)
    after = []
    for more in (chosen, grid):
        again = np.concatenate([losses, measure(true, more, np.random.default_rng([SEED, seed, len(more)]))])
        after.append(regret(fitted(law, runs + more, again, seed, 0), true))
    return regret(first, true), after[0], after[1]


def test_suggested_runs_leave_less_regret_than_an_isoflop_grid(record_property: Record) -> None:
    """Over 50 truths of three forms the median regret is at most .8 times that of a uniform grid of equal cost."""
    cases = [(true, name, 100 * i + k) for i, (true, name, count) in enumerate(CASES) for k in range(count)]
    with ThreadPoolExecutor(2) as threads:
        found = np.array(list(threads.map(trial, cases)))
    start = 0
    for true, name, count in CASES:
        medians = np.median(found[start : start + count], axis=0)
        start += count
        text = "before {:.3f}, suggested {:.3f}, grid {:.3f}".format(*medians)
        record_property(f"median regret, truth {true}, form of {name}", text)
    before, suggested, grid = np.median(found, axis=0)
    record_property(
        f"median regret of {len(found)} truths [ln compute]",
        f"before {before:.3f}, suggested {suggested:.3f}, grid {grid:.3f}: {suggested / grid:.2f} (at most {MOST:g})",
    )
    assert suggested <= MOST * grid
