"""What intervals rest on: enough runs, the linear covariance, and what goes with coefficients that are open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moeplan.fitting import fit
from moeplan.fitting.bootstrap import PER_COEFFICIENT, bootstrap, stretch
from moeplan.fitting.identify import identify, with_draws
from moeplan.fitting.problem import make_problem
from moeplan.fitting.solve import solve
from moeplan.fitting.start import fits
from moeplan.numerics import Floats
from tests import coverage
from tests.fitting_truths import design, predictions, truths, write_runs
from tests.fitting_truths import problem as made_problem


@pytest.mark.parametrize("delta, wanted", [(1e-3, np.pi / 2), (np.inf, 1.0)])
def test_covariance_is_that_of_the_objective(delta: float, wanted: float) -> None:
    """At 1 % of Gaussian scatter least squares has the variance of the scatter, the Huber objective with a delta of
    .1 % nearly that of least absolute values, pi/2 times as much (Koenker and Bassett 1978)."""
    residuals = 0.01 * np.random.default_rng(5).standard_normal((1, 20_000))
    p = make_problem("compute_power_law", {"train_flops": np.ones(20_000)}, np.ones(20_000), delta=delta)
    found = p.noise(residuals[0], 0) / p.sharpness(residuals[0])
    assert found == pytest.approx(wanted * 0.01**2, rel=0.06)


def test_runs_that_the_fit_passes_through_are_not_taken_for_small_scatter() -> None:
    """Least absolute values pass through as many runs as there are coefficients, however much runs scatter (Koenker and
    Bassett 1978, theorem 3.1): 12 of 40 residuals of 0 stretch nothing, nor do 12 clusters of 40 with four copies each;
    where all residuals are small the objective is quadratic in all of them."""
    residuals = np.concatenate([np.zeros(12), np.full(28, 0.01)])
    assert stretch(residuals, 1e-3, 40, 12, 0.9) == 1
    assert stretch(np.repeat(residuals, 4), 1e-3, 40, 12, 0.9) == 1
    assert stretch(np.zeros(40), 1e-3, 40, 12, 0.9) == pytest.approx(1.70113 / 1.64485 * (40 / 28) ** 0.5, rel=1e-4)


@pytest.mark.parametrize("delta", [1e-3, np.inf])
def test_draws_are_fits_under_their_weights(delta: float) -> None:
    """Draws of 25 runs of fine_grained, some with an irreducible level of 0, are where their weights put them: fitted
    again they gain less than 5 %. Drawn apart about the fit, as far as t with 18 degrees of freedom asks of least
    squares, they would leave the curved valley: most describe their runs twice as badly, and 1 % too high."""
    p = made_problem("fine_grained", 25, noise=0.01, seed=1, delta=delta)
    y, count = fits(p)[:1], 60
    drawn = bootstrap(p, y, count, seed=3)
    weights = np.random.default_rng(3).gamma(1 / drawn.variance, size=(count, 25))
    weights /= weights.mean(axis=1, keepdims=True)

    def objective(found: Floats) -> Floats:
        return p.objective(found, p.residuals(found)[0], weights)

    again = solve(p, drawn.y, weights, tolerance=1e-8)
    assert (again.objective > objective(drawn.y) * 0.95).all()
    assert (drawn.y[:, p.names.index("c")] == 0).any()
    apart = np.clip(y[0] + 1.24 * (drawn.y - y[0]), *p.bounds())
    assert np.median(objective(apart) / objective(drawn.y)) > 2
    assert np.median(np.log(p.predict(apart) / p.predict(drawn.y)).mean(axis=1)) > 0.01


def runs_of(form: str, count: int, folder: Path) -> str:
    """A file of runs of a form, with 1 % of scatter."""
    columns = design(form, count, seed=3)
    noise = 0.01 * np.random.default_rng(4).standard_normal(count)
    return write_runs(
        folder / "runs.csv", {**columns, "loss": predictions(form, columns, truths()[form]) * np.exp(noise)}
    )


def test_too_few_runs_have_no_interval(tmp_path: Path) -> None:
    """Twenty runs are too few for intervals of seven coefficients: the report says so in place of them, and a law file
    would repeat it; 21 are enough."""
    few = fit(runs_of("fine_grained", 20, tmp_path), "fine_grained", draws=40)
    assert 20 < PER_COEFFICIENT * 7 <= 21
    assert "too few runs for intervals: 20, and they hold from 21 on" in few.method.interval
    assert any("too few runs" in text for text in few.warnings)
    assert all(c.low is None and c.stderr is None for c in few.coefficients)
    assert all(x.value is None or x.value.low is None for x in few.optima)
    assert few.covariance is None
    enough = fit(runs_of("fine_grained", 21, tmp_path), "fine_grained", draws=40)
    assert "too few" not in enough.method.interval
    assert all(c.low is not None for c in enough.coefficients)


def test_what_goes_with_an_open_coefficient_is_open_too() -> None:
    """The routing terms of active_shared_joint have one scale, which 40 runs hardly know: an amplitude that came out a
    hundred times too large or small is never called identified, however near its draws stay to the fit, nor is n then;
    what is known stays so."""
    form, collapsed = "active_shared_joint", 0
    for trial in range(4):
        seeds = np.random.SeedSequence([777, 3, 40, trial]).generate_state(2)
        columns = design(form, 40, seed=int(seeds[0]))
        noise = 0.01 * np.random.default_rng(int(seeds[1])).standard_normal(40)
        p = make_problem(form, columns, predictions(form, columns, truths()[form]) * np.exp(noise))
        minima = fits(p)
        found = identify(p, minima[0])
        drawn = bootstrap(p, minima[:1], 60, seed=trial, determined=found.determined)
        says = with_draws(found, p, minima[0], drawn.y).says
        off = np.abs(minima[0] - p.coordinates(truths()[form]))
        far = {name for name in ("e", "f", "m") if off[p.names.index(name)] > np.log(100)}
        collapsed += {"e", "f"} <= far
        assert far | ({"n"} if {"e", "f"} <= far else set()) <= set(says)
        assert not {"a", "b", "alpha", "beta"} & set(says)
    assert collapsed >= 2


@pytest.mark.slow
@pytest.mark.parametrize("form", ["additive_power_law", "efficiency_leverage"])
def test_intervals_of_few_runs_hold_the_truth(form: str) -> None:
    """With 18 runs, 60 trials: the intervals of predictions hold the truth at least as often as 83 %, those of
    coefficients too; the whole table is made by `python -m tests.coverage`."""
    found = coverage.cover(form, 18, trials=60, draws=200)
    values = [name for name in found.told if name.startswith("value")]
    coefficients = [name for name in found.told if not name.startswith(("value", "size"))]
    assert found.share(values) >= coverage.LEAST
    assert found.share(coefficients) >= coverage.LEAST
