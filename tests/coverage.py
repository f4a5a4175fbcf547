"""How often `moeplan fit`'s intervals hold the truth: `python -m tests.coverage` prints a table as in docs/fit.md.

Runs are drawn anew in every trial, evenly over the ranges of `tests.fitting_truths`, with 1 % of scatter, and fitted as
the command does it, from a file. A coefficient counts where the report calls it determined, a prediction where the
report gives an interval; both are said as the share of such trials in which the interval holds the truth. The seed was
fixed before the first run and is not to be changed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from moeplan.estimates import Estimate
from moeplan.fitting import FittedLaw, fit
from moeplan.fitting.optimum import HeldVariables, optimal_active_params
from moeplan.fitting.result import Optimum
from moeplan.laws.signatures import FORMS, form_coordinates, form_variables
from tests.fitting_truths import design, predictions, truths, write_runs

COVERAGE_SEED = 20_261_127
FORMS_TRIED = ("additive_power_law", "expansion_joint", "fine_grained", "active_shared_joint", "efficiency_leverage")
SIZES = (18, 25, 40, 100)
TRIALS, DRAWS, NOISE = 200, 400, 0.01
ACTIVE_SHARE = 0.1
"""Active params over all of them, for a form that sees the latter alone."""
LEAST, MOST = 0.83, 0.96
"""Coverage of a 90 % interval that passes, of 200 trials: their own scatter is 2.1 %."""
TRUTHS = truths()


class Told(NamedTuple):
    """An interval that the report gave."""

    quantity: str
    """A coefficient, or loss or size with the place of its budget among those shown."""
    holds: bool
    """Whether it holds the truth."""


@dataclass(frozen=True)
class Coverage:
    """What the trials of one form with one number of runs found."""

    form: str
    """The form."""
    runs: int
    """Runs of each trial."""
    trials: int
    """Trials."""
    held: Mapping[str, int]
    """Intervals that held the truth, by quantity."""
    told: Mapping[str, int]
    """Intervals that were given, by quantity."""

    def share(self, quantities: Iterable[str]) -> float:
        """Share of the intervals given for some quantities, together, that held the truth; NaN for none."""
        names = [name for name in quantities if name in self.told]
        told = sum(self.told[name] for name in names)
        return sum(self.held[name] for name in names) / told if told else float("nan")


def trial(form: str, runs: int, number: int, draws: int = DRAWS) -> list[Told]:
    """One trial: the intervals that the report gives, and whether they hold the truth."""
    seeds = np.random.SeedSequence([COVERAGE_SEED, FORMS_TRIED.index(form), runs, number]).generate_state(2)
    columns = design(form, runs, seed=int(seeds[0]))
    target = form_coordinates(form).predicts
    noise = NOISE * np.random.default_rng(int(seeds[1])).standard_normal(runs)
    columns[target] = predictions(form, columns, TRUTHS[form]) * np.exp(noise)
    if "active_params" not in columns and "granularity" in columns and "total_params" in columns:
        columns["active_params"] = ACTIVE_SHARE * columns["total_params"]
    with TemporaryDirectory(prefix="moeplan-") as folder:
        path = write_runs(Path(folder) / "runs.csv", columns)
        fitted = fit(path, form, holdout=0, draws=draws, seed=number)
    return [*_coefficients(fitted), *_predictions(fitted)]


def _coefficients(fitted: FittedLaw) -> Iterable[Told]:
    for c in fitted.coefficients:
        if c.identified and c.low is not None and c.high is not None:
            yield Told(c.name, c.low <= TRUTHS[fitted.form][c.name] <= c.high)


def _predictions(fitted: FittedLaw) -> Iterable[Told]:
    for place, optimum in enumerate(fitted.optima):
        size, value = _truth(fitted, optimum)
        shown = {"value": (optimum.value, value), "size": (optimum.active_params, size)}
        for name, (estimate, true) in shown.items():
            if isinstance(estimate, Estimate) and estimate.low is not None and estimate.high is not None:
                yield Told(f"{name} {place + 3 - len(fitted.optima)}", estimate.low <= true <= estimate.high)


def _truth(fitted: FittedLaw, optimum: Optimum) -> tuple[float, float]:
    """The true best size at a budget and the true value there, everything else held as the report holds it."""
    known = {name: np.array([value]) for name, value in TRUTHS[fitted.form].items()}
    budget = optimum.train_flops
    if "tokens" in form_variables(fitted.form):
        held = {name: value for name, value in fitted.held.items() if name != "total_over_active"}
        shape = HeldVariables(fitted.form, fitted.held["total_over_active"], held)
        size = optimal_active_params(shape, known, budget)
        return float(size[0]), float(np.squeeze(shape.loss(known, size[:, None], budget)))
    values = {**fitted.held, "train_flops": budget}
    found = FORMS[fitted.form](*(values[name] for name in form_variables(fitted.form)), **TRUTHS[fitted.form])
    return float("nan"), float(found)


def cover(form: str, runs: int, trials: int = TRIALS, draws: int = DRAWS, processes: int = 1) -> Coverage:
    """All trials of one form with one number of runs."""
    one = partial(trial, form, runs, draws=draws)
    if processes > 1:
        with ProcessPoolExecutor(processes) as pool:
            found = list(pool.map(one, range(trials), chunksize=8))
    else:
        found = [one(number) for number in range(trials)]
    held: dict[str, int] = {}
    told: dict[str, int] = {}
    for quantity, holds in (each for intervals in found for each in intervals):
        told[quantity] = told.get(quantity, 0) + 1
        held[quantity] = held.get(quantity, 0) + holds
    return Coverage(form, runs, trials, held, told)


def row(found: Coverage) -> str:
    """A row of the table: shares of all coefficients, predictions and best sizes together, or that there are none."""
    kinds: dict[str, list[str]] = {"": [], "value": [], "size": []}
    for name in found.told:
        kinds[name.split()[0] if " " in name else ""].append(name)
    shares = [found.share(names) for names in kinds.values()]
    cells = [
        "too few runs" if not found.told else "" if np.isnan(share) else f"{100 * share:.0f} %" for share in shares
    ]
    return f"| {found.form} | {found.runs} | {found.trials} | {' | '.join(cells)} |"


def main(arguments: list[str] | None = None) -> int:
    """Print the coverage of every form and number of runs, a row each, quantity by quantity with --each."""
    parser = argparse.ArgumentParser(prog="python -m tests.coverage", description=__doc__)
    parser.add_argument("forms", nargs="*", default=FORMS_TRIED)
    parser.add_argument("--runs", type=int, nargs="+", default=SIZES)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--each", action="store_true")
    given = parser.parse_args(arguments)
    print("| form | runs | trials | coefficients | predictions | best sizes |\n|---|---|---|---|---|---|", flush=True)
    for form in given.forms:
        for runs in given.runs:
            found = cover(form, runs, given.trials, given.draws, given.processes)
            print(row(found), flush=True)
            if given.each:
                print(form, runs, {q: f"{found.held[q]}/{n}" for q, n in sorted(found.told.items())}, flush=True)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
