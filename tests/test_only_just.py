"""Intervals of coefficients that are called identified because of what they came out as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from moeplan.fitting import fit
from moeplan.fitting.only_just import Standing, is_only_just, of_identified, reach
from moeplan.laws.signatures import form_coordinates
from moeplan.numerics.intervals import normal_quantile
from moeplan.report.fitting import coefficient_blocks, seen
from tests.fitting_truths import design, predictions, truths, write_runs

RULES = {"level": 1.645 / 0.25, "exponent": 1.645 / 0.5, "factor of 2": 1.645 / np.log(2)}
"""Least distance from 0 at which each rule calls a coefficient identified [standard errors]."""
Z90 = normal_quantile(0.9)
EXPONENT = form_coordinates("additive_power_law").coordinates["alpha"]
AMPLITUDE = form_coordinates("additive_power_law").coordinates["A"]
SATURATION = form_coordinates("efficiency_leverage").coordinates["A_max"]


@pytest.mark.parametrize("beyond", [0.4, 0.8, 1.2, 1.6])
@pytest.mark.parametrize("least", RULES.values())
def test_the_nearer_end_is_that_of_the_truncated_normal(least: float, beyond: float) -> None:
    """Of normals about the nearer end, cut off at the least distance, one in ten lies as far out as the estimate: by
    scipy's truncated normal, which knows nothing of our equation; 0 where more of them do about 0 itself."""
    z = least + beyond
    end = z - reach(Standing(z, least), 0.9)
    if end > 1e-9:
        assert stats.truncnorm.sf(z, least - end, np.inf, loc=end) == pytest.approx(0.1, rel=1e-6)
    assert (end <= 1e-9) == (stats.truncnorm.sf(z, least, np.inf) >= 0.1)


@pytest.mark.parametrize("least", RULES.values())
def test_intervals_hold_the_truth_among_those_called_identified(least: float) -> None:
    """Of 40,000 estimates about each truth from half the least distance to four standard errors beyond it, those that
    are called identified have intervals that hold the truth in 90 to 95 % of the cases, wherever the truth lies, and in
    90 % about one below the least distance, where ordinary intervals hold it in less than 80 %, or never."""
    rng = np.random.default_rng(20_261_127)
    for truth in np.linspace(max(least / 2, least - 2.5), least + 4, 8):
        called = stats.truncnorm.rvs(least - truth, np.inf, loc=truth, size=40_000, random_state=rng)
        grid = np.linspace(least, called.max(), 4000)
        ends = np.interp(called, grid, [z - reach(Standing(z, least), 0.9) for z in grid])
        holds = (ends <= truth) & (truth <= called + Z90)
        assert 0.895 <= holds.mean() <= (0.905 if truth <= least else 0.955)
        if truth <= least - Z90 / 2:
            assert (called - Z90 <= truth).mean() < 0.8


def test_signs_hold_the_truth_where_either_would_do() -> None:
    """A coefficient of either sign that is called identified where its interval excludes 0: among these, intervals
    hold the truth in at least 90 % of the cases wherever it lies, 0 itself included, where ordinary ones never do."""
    rng = np.random.default_rng(5)
    for truth in (0.0, 0.5, 1.0, 2.0, 4.0):
        z = truth + rng.standard_normal(200_000)
        called = z[np.abs(z) > Z90]
        size, sign = np.abs(called), np.sign(called)
        grid = np.linspace(Z90, size.max(), 2000)
        nearer = np.interp(size, grid, [x - reach(Standing(x, Z90, either_sign=True), 0.9) for x in grid])
        holds = (nearer <= sign * truth) & (sign * truth <= size + Z90)
        assert 0.895 <= holds.mean() <= 0.955
        if not truth:
            assert not (size - Z90 <= truth).any()


def test_far_from_the_rule_intervals_are_the_ordinary_ones() -> None:
    """Where the ordinary interval does not reach past the least distance it is left alone; the nearer to it the
    estimate comes, the further the end reaches, without a jump, down to 0 and no further."""
    least = RULES["exponent"]
    assert reach(Standing(least + Z90 + 1e-6, least), 0.9) == Z90
    ends = []
    for z in np.linspace(least, least + 3, 100):  # at a value of 1 the standard error is 1/z
        low, high = of_identified(Standing(z, least), 1.0, 1 - Z90 / z, 1 + Z90 / z, 0.9, EXPONENT)
        assert high == 1 + Z90 / z
        assert 0 <= low <= 1 - Z90 / z + 1e-12
        ends.append(low)
    assert ends[0] == pytest.approx(0, abs=1e-12)
    assert np.all(np.diff(ends) >= -1e-12)
    assert np.diff(ends).max() < 0.1


def test_mirrored_and_logarithmic_coefficients() -> None:
    """A negative exponent has its upper end moved as a positive one its lower; an amplitude's end falls by the factor
    by which its term's does, to 0 where the term may be none; where a law saturates may lie at infinity as well."""
    stands = Standing(4.3, RULES["exponent"])
    low, high = of_identified(stands, 0.3, 0.19, 0.41, 0.9, EXPONENT)
    mirrored = of_identified(stands, -0.3, -0.41, -0.19, 0.9, EXPONENT)
    assert mirrored == (-high, -low)
    assert low < 0.19
    stands = Standing(3.5, RULES["factor of 2"])
    end, _ = of_identified(stands, 100.0, 10.0, 900.0, 0.9, AMPLITUDE)
    assert end / 10.0 == pytest.approx((3.5 - reach(stands, 0.9)) / (3.5 - Z90))
    assert of_identified(Standing(2.4, RULES["factor of 2"]), 100.0, 10.0, 900.0, 0.9, AMPLITUDE) == (0.0, 900.0)
    low, high = of_identified(stands, 100.0, 60.0, 180.0, 0.9, SATURATION)
    assert (60.0 / low, high / 180.0) == (pytest.approx(10.0 / end), pytest.approx(10.0 / end))
    assert of_identified(Standing(2.4, RULES["factor of 2"]), 23.0, 11.0, 43.0, 0.9, SATURATION) == (1.0, 1e18)


def test_the_report_says_which_coefficients_are_only_just_identified(tmp_path: Path) -> None:
    """Forty runs of fine_grained among which gamma comes out just far enough from 0: the table says "only just", its
    interval reaches below the draws', which stay as they are, and a sentence says why."""
    form = "fine_grained"
    for seed in range(60):
        columns = design(form, 40, seed=seed)
        noise = 0.01 * np.random.default_rng(seed + 100).standard_normal(40)
        columns["loss"] = predictions(form, columns, truths()[form]) * np.exp(noise)
        fitted = fit(write_runs(tmp_path / "runs.csv", columns), form, draws=60, holdout=0)
        found = [c for c in fitted.coefficients if c.says.startswith("only just")]
        if found:
            break
    assert found
    assert fitted.covariance is not None
    place = list(fitted.covariance.coordinates).index(found[0].name)
    draws = np.array(fitted.covariance.draws)[:, place]
    assert found[0].identified
    assert found[0].low is not None
    assert found[0].low < np.quantile(draws, 0.05)
    _, note = coefficient_blocks(seen(fitted))
    assert found[0].name in str(note)
    assert not any(is_only_just(Standing(z, 3.29), 0.9) for z in (6.5, 10.0))
