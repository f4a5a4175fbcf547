"""The fit itself: derivatives, recovery of known coefficients, minima, identifiability, priors, draws."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from moeplan.errors import UsageError
from moeplan.fitting import fit
from moeplan.fitting.bootstrap import bootstrap, stretch
from moeplan.fitting.identify import identify
from moeplan.fitting.optimum import HeldVariables, has_optimum, optimal_active_params
from moeplan.fitting.problem import Problem, make_problem
from moeplan.fitting.solve import solve
from moeplan.fitting.start import fits, projected, sequence
from moeplan.laws import load_law
from moeplan.laws.checks import compute_optimum
from moeplan.laws.coefficients import Amplitude, Loss
from moeplan.laws.signatures import FORMS, form_coefficients, form_coordinates, form_variables, signature_coordinates
from moeplan.numerics.intervals import interval
from tests.fitting_truths import design, predictions, problem, truths, write_runs

TRUTHS = truths()


def test_every_form_has_coordinates_for_its_own_coefficients() -> None:
    """Every form says of all its coefficients how they are fitted, and every published value lies inside the bounds."""
    for form in FORMS:
        entry = form_coordinates(form)
        assert set(entry.coordinates) == set(form_coefficients(form))
        assert set(entry.affine) <= set(entry.coordinates)
        for name, value in TRUTHS[form].items():
            assert entry.coordinates[name].low <= value <= entry.coordinates[name].high, (form, name)


def test_a_form_without_bounds_is_told_what_it_lacks() -> None:
    """A coefficient that is only a float, and a result that does not say what it is, are named."""

    def bare(tokens: float, /, *, A: Amplitude, beta: float) -> Loss:
        return A * tokens**-beta

    def vague(tokens: float, /, *, A: Amplitude) -> float:
        return A * tokens

    with pytest.raises(TypeError, match="form bare: its coefficient beta has no annotation"):
        signature_coordinates(bare)
    with pytest.raises(TypeError, match="form vague: its result has no annotation"):
        signature_coordinates(vague)


@pytest.mark.parametrize("form", FORMS)
def test_derivatives_are_those_of_the_complex_step(form: str) -> None:
    """The Jacobian that follows from the equation agrees with the complex step to rounding, for every form."""
    p = problem(form, count=20)
    y = p.coordinates(TRUTHS[form])[None]
    _, jacobian = p.residuals(y)
    for i, name in enumerate(p.names):
        point = {key: complex(value) for key, value in p.coefficients(y[0]).items()}
        step = 1e-30
        scale = point[name].real if p.table.coordinates[name].kind == "ln" else 1.0
        point[name] += 1j * step * scale
        values = np.asarray(FORMS[form](*p.variables, **point)) * np.ones(p.num_runs)
        expected = (values / values.real).imag / step
        np.testing.assert_allclose(jacobian[0, i], expected, rtol=1e-9, atol=1e-12 * np.abs(jacobian).max())


@pytest.mark.parametrize("form", FORMS)
def test_known_coefficients_are_recovered(form: str) -> None:
    """From data without noise every form predicts to 1e-6, and identified coefficients come back to 1e-4."""
    p = problem(form)
    y = fits(p)[0]
    residuals, _ = p.residuals(y[None])
    assert np.abs(residuals).max() < 1e-6
    found, unidentified = p.coefficients(y), identify(p, y).says
    for name, value in TRUTHS[form].items():
        if name not in unidentified:
            assert found[name] == pytest.approx(value, rel=1e-4), name
    assert set(unidentified) <= ({"A_max"} if form == "efficiency_leverage" else set())


def test_the_objective_is_the_huber_function() -> None:
    """r^2/2 up to delta, delta*(|r| - delta/2) beyond, continuous with its derivative; infinite delta is squares."""
    p = Problem("constant", (), np.ones(4), delta=0.1)
    np.testing.assert_allclose(p.losses(np.array([0.05, -0.1, 0.3, -2.0])), [0.00125, 0.005, 0.025, 0.195])
    np.testing.assert_allclose(p.slope(np.array([0.05, -0.1, 0.3, -2.0])), [0.05, -0.1, 0.1, -0.1])
    squares = dataclasses.replace(p, delta=np.inf)
    np.testing.assert_allclose(squares.losses(np.array([3.0])), [4.5])


def test_least_squares_agrees_with_scipy() -> None:
    """With an infinite delta the fit is the least-squares solution that an independent solver finds."""
    from scipy.optimize import least_squares

    p = problem("additive_power_law", count=40, noise=0.01, delta=np.inf)
    y = fits(p)[0]

    def residuals(z: np.ndarray) -> np.ndarray:
        return np.asarray(p.residuals(z[None])[0][0])

    other = least_squares(residuals, p.coordinates(TRUTHS["additive_power_law"]), x_scale="jac", xtol=1e-14, ftol=1e-14)
    assert p.objective(y[None], p.residuals(y[None])[0])[0] == pytest.approx(other.cost, rel=1e-9)
    np.testing.assert_allclose(y, other.x, rtol=1e-4)


def test_no_accepted_step_raises_the_objective() -> None:
    """From poor starts the objective only falls, and every end lies within the bounds."""
    p = problem("expansion_joint", count=50, noise=0.01)
    start = projected(p)[:20]
    before = p.objective(start, p.residuals(start)[0])
    found = solve(p, start)
    assert (found.objective <= before).all()
    low, high = p.bounds()
    assert ((found.y >= low) & (found.y <= high)).all()


def test_outliers_pull_no_more_than_the_objective_allows() -> None:
    """One loss that is wrong by a factor of 3 moves the exponent of size under 1 % of what it moves least squares."""
    clean = problem("additive_power_law", count=60, noise=1e-4)
    spoilt = clean.observed.copy()
    spoilt[7] *= 3
    moved = []
    for delta in (1e-3, np.inf):
        problems = (dataclasses.replace(clean, observed=x, delta=delta) for x in (clean.observed, spoilt))
        one, other = (float(p.coefficients(fits(p)[0])["alpha"]) for p in problems)
        moved.append(abs(other - one))
    assert moved[0] < 0.01 * moved[1]


def test_the_start_sequence_fills_the_cube() -> None:
    """Every one of 4x4 cells holds about its share of the first 256 points in two dimensions."""
    points = sequence(256, 2)
    cells = np.histogram2d(points[:, 0], points[:, 1], bins=4, range=[[0, 1], [0, 1]])[0]
    assert cells.min() >= 12
    assert cells.max() <= 20


def test_bounds_hold_a_level_at_zero() -> None:
    """Where the runs have no irreducible loss, the level stands at its bound of 0 and is said to."""
    columns = design("additive_power_law", 40)
    coefficients = {**TRUTHS["additive_power_law"], "E": 0.0}
    observed = predictions("additive_power_law", columns, coefficients)
    p = make_problem("additive_power_law", columns, observed * np.exp(np.linspace(-1e-3, 1e-3, 40) ** 3))
    y = fits(p)[0]
    assert p.coefficients(y)["E"] == pytest.approx(0, abs=1e-3)


def test_two_token_counts_leave_their_term_open() -> None:
    """Two token counts cannot tell a term's size, its exponent and the irreducible loss apart; all three are named."""
    columns = design("additive_power_law", 40)
    columns["tokens"] = np.where(np.arange(40) % 2, 1e10, 1e11)
    observed = predictions("additive_power_law", columns, TRUTHS["additive_power_law"])
    p = make_problem("additive_power_law", columns, observed)
    found = identify(p, fits(p)[0])
    assert found.determined == 4
    assert {"B", "beta", "E"} <= set(found.says)
    assert "alpha" not in found.says


def test_what_the_form_does_not_feel_is_named() -> None:
    """tian2025's A_max is so large that nothing depends on it: it is named as not identified."""
    p = problem("efficiency_leverage", noise=1e-5)
    assert "A_max" in identify(p, fits(p)[0]).says


def test_noise_makes_the_irreducible_loss_unidentified() -> None:
    """Runs far from their limit with 3 % noise do not determine it; the same runs with .01 % noise do."""
    says = []
    for noise in (0.03, 1e-4):
        p = problem("additive_power_law", count=16, noise=noise, seed=3)
        says.append(set(identify(p, fits(p)[0]).says))
    assert "E" in says[0]
    assert "E" not in says[1]


def test_the_covariance_of_least_squares_is_the_textbook_one() -> None:
    """s^2 (J J^T)^-1 with s^2 = sum r^2/(n - p), and the draws' spread agrees with it within a quarter."""
    p = problem("additive_power_law", count=120, noise=1e-3, delta=np.inf)
    y = fits(p)
    residuals, jacobian = p.residuals(y[:1])
    s2 = float((residuals[0] ** 2).sum()) / (120 - 5)
    expected = np.linalg.inv(jacobian[0] @ jacobian[0].T) * s2
    found = identify(p, y[0])
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-5)
    drawn = bootstrap(p, y[:1], 800, seed=1)
    np.testing.assert_allclose(drawn.y.std(axis=0), np.sqrt(np.diag(expected)), rtol=0.25)


def test_draws_depend_on_the_seed_alone() -> None:
    """The same seed gives the same bytes, another seed other ones."""
    p = problem("additive_power_law", count=30, noise=0.01)
    y = fits(p)[:1]
    one, again, other = (bootstrap(p, y, 50, seed=seed).y for seed in (1, 1, 2))
    assert one.tobytes() == again.tobytes()
    assert one.tobytes() != other.tobytes()


def test_clusters_are_drawn_whole() -> None:
    """Runs counted four times over, each four a cluster, spread as the runs themselves do; as runs, half as much."""
    p = problem("additive_power_law", count=30, noise=0.003)
    y = fits(p)[:1]
    copies = dataclasses.replace(
        p, variables=tuple(np.repeat(x, 4) for x in p.variables), observed=np.repeat(p.observed, 4)
    )
    own = bootstrap(p, y, 400, seed=5).y.std(axis=0)
    clustered = bootstrap(copies, y, 400, seed=5, clusters=np.repeat(np.arange(30), 4)).y.std(axis=0)
    loose = bootstrap(copies, y, 400, seed=5).y.std(axis=0)
    np.testing.assert_allclose(clustered, own, rtol=1e-3)
    assert (loose < 0.75 * own).all()


def test_draws_are_stretched_where_the_objective_is_quadratic() -> None:
    """18 runs and 5 coefficients: t/z*sqrt(18/13) = 1.27 for small residuals, nothing for large ones."""
    assert stretch(np.full(18, 1e-5), 1e-3, 18, 5, 0.9) == pytest.approx(1.77093 / 1.64485 * (18 / 13) ** 0.5, rel=1e-4)
    assert stretch(np.full(18, 1.0), 1e-3, 18, 5, 0.9) == 1


def test_an_interval_is_central() -> None:
    """5 to 95 of the numbers 0 to 100; nothing where most draws have no value."""
    assert interval(np.arange(101.0), 0.9) == pytest.approx((5, 95))
    assert np.isnan(interval(np.array([1.0, np.nan, np.nan]), 0.9)).all()


@pytest.mark.parametrize("expansion_ratio", [1.0, 8.0, 32.0])
def test_optima_are_those_of_the_laws_own_checks(expansion_ratio: float) -> None:
    """The batched optimum of ludziejewski2025 is the one that its checks find by another method (Table 1)."""
    law = load_law("ludziejewski2025").fits["loss"]
    shape = HeldVariables(law.form, 1.0, {"expansion_ratio": expansion_ratio})
    own = {name: np.array([value, value]) for name, value in law.coefficients.items()}
    expected = compute_optimum(law, 1e21, 1e7, 1e13, [{"expansion_ratio": expansion_ratio}])
    np.testing.assert_allclose(optimal_active_params(shape, own, 1e21), expected["active_params"], rtol=1e-3)


def test_forms_without_size_or_tokens_have_no_optimum() -> None:
    """Only forms that see both trade one against the other."""
    assert has_optimum("expansion_joint")
    assert has_optimum("active_shared_joint")
    assert not has_optimum("routed")
    assert not has_optimum("efficiency_leverage")


def runs_of(form: str, path: Path, count: int, noise: float, seed: int = 1) -> str:
    """A runs file of a form with known coefficients."""
    columns = design(form, count, seed)
    rng = np.random.default_rng(seed + 7)
    observed = predictions(form, columns, TRUTHS[form]) * np.exp(noise * rng.standard_normal(count))
    return write_runs(path, {**columns, form_coordinates(form).predicts: observed})


def test_a_prior_holds_what_the_runs_leave_open(tmp_path: Path) -> None:
    """Ten runs cannot determine the joint law's saturation; with its prior Em stays near 290, and says so."""
    path = runs_of("expansion_joint", tmp_path / "runs.csv", 10, 0.003)
    found = fit(path, "expansion_joint", prior="ludziejewski2025", draws=100)
    shrunk = {s.name: s for s in found.shrinkage}
    assert shrunk["Em"].weight > 0.8
    assert found.values["Em"] == pytest.approx(290.4521, rel=0.1)
    assert found.prior == "ludziejewski2025/loss"
    em = next(c for c in found.coefficients if c.name == "Em")
    assert em.stderr == pytest.approx(0.2 * 290, rel=0.4)  # the prior's own width, not zero
    assert not em.identified
    assert "prior" in em.says


def test_a_prior_gives_way_to_the_runs(tmp_path: Path) -> None:
    """200 runs without noise of besiroglu2024 overrule the prior of hoffmann2022."""
    path = runs_of("additive_power_law", tmp_path / "runs.csv", 200, 1e-5)
    truth = TRUTHS["additive_power_law"]
    found = fit(path, "additive_power_law", prior="hoffmann2022", draws=0)
    assert found.values["alpha"] == pytest.approx(truth["alpha"], rel=0.01)
    assert all(s.weight < 0.05 for s in found.shrinkage)


def test_a_prior_needs_the_same_form(tmp_path: Path) -> None:
    """clark2022 says nothing about a form that it does not have."""
    path = runs_of("additive_power_law", tmp_path / "runs.csv", 20, 0.01)
    with pytest.raises(UsageError, match=r"clark2022.*additive_power_law.*routed"):
        fit(path, "additive_power_law", prior="clark2022")


def test_auto_takes_the_form_that_predicts_the_largest_runs(tmp_path: Path) -> None:
    """Runs of the joint law are best predicted by it among all forms that see their columns."""
    path = runs_of("expansion_joint", tmp_path / "runs.csv", 80, 1e-4)
    found = fit(path, "auto", draws=0)
    assert found.form == "expansion_joint"
    errors = [score.held_out for score in found.compared if score.held_out is not None]
    assert errors == sorted(errors)
    assert len(errors) >= 2


def test_the_hold_out_is_of_the_largest_runs(tmp_path: Path) -> None:
    """A law that changes above 1e21 FLOPs is caught by the held-out runs, in size and in sign."""
    columns = design("additive_power_law", 60)
    flops = 6 * columns["total_params"] * columns["tokens"]
    observed = predictions("additive_power_law", columns, TRUTHS["additive_power_law"])
    worse = observed * np.where(flops >= np.quantile(flops, 0.8), 1.05, 1.0)
    found = fit(write_runs(tmp_path / "runs.csv", {**columns, "loss": worse}), "additive_power_law", draws=0)
    assert found.hold_out is not None
    assert found.hold_out.held_out == 12
    assert found.hold_out.rms == pytest.approx(np.log(1.05), rel=0.02)
    assert found.hold_out.bias == pytest.approx(np.log(1.05), rel=0.02)


def test_variables_of_forms_are_in_the_designs() -> None:
    """Every form's variables are covered by these tests."""
    for form in FORMS:
        assert set(design(form, 3)) == set(form_variables(form))
