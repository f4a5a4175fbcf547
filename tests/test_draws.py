"""Draws of a fitted law's coefficients: what its file says of them, the same every time."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from moeplan.errors import LawError
from moeplan.fitting import fit, law_text
from moeplan.laws import law_names, load_law
from moeplan.laws.draws import DRAWS, coefficient_draws, drawn_law, law_draws, matrix_root
from moeplan.laws.law import Covariance
from moeplan.laws.signatures import form_coordinates
from moeplan.numerics.intervals import interval
from tests.drawn_laws import correlated, drawn_as, kinds, uncertain, with_covariance

LAW = "ludziejewski2025"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, Path]:
    """A law fitted to 90 runs of known coefficients with 1 % noise, and its file."""
    truth = load_law(LAW).objective
    assert truth is not None
    rng = np.random.default_rng(11)
    folder = tmp_path_factory.mktemp("fitted")
    lines = ["active_params,tokens,expansion_ratio,loss"]
    for e in (1, 2, 4, 8, 16, 32):
        for n in np.geomspace(5e7, 3e9, 5):
            for per_param in (3, 12, 50):
                loss = float(truth(n, n * per_param, e)) * np.exp(0.01 * rng.standard_normal())
                lines.append(f"{n!r},{n * per_param!r},{e},{loss!r}".replace("np.float64(", "").replace(")", ""))
    (folder / "runs.csv").write_text("\n".join(lines) + "\n")
    found = fit(folder / "runs.csv", "expansion_joint", draws=400, name="own")
    (folder / "own.yaml").write_text(law_text(found))
    return found, folder / "own.yaml"


def test_draws_have_the_covariance_they_are_drawn_from() -> None:
    """Over 40,000 draws means, deviations and correlations are those of the file, in its coordinates, to 2 %."""
    law = correlated("krajewski2024", 0.02, 3)
    of = law.objective
    assert of is not None
    assert of.covariance is not None
    drawn = coefficient_draws(of, 40_000)
    assert drawn is not None
    assert drawn.held == 0
    own = of.covariance.coordinates
    y = np.array([np.log(drawn.values[name]) if own[name] == "ln" else drawn.values[name] for name in own])
    center = [np.log(of.coefficients[name]) if own[name] == "ln" else of.coefficients[name] for name in own]
    scale = np.sqrt(np.diag(np.array(of.covariance.matrix)))
    assert np.abs((y.mean(axis=1) - center) / scale).max() < 0.02
    assert np.cov(y) / np.outer(scale, scale) == pytest.approx(
        np.array(of.covariance.matrix) / np.outer(scale, scale), abs=0.025
    )


def test_draws_are_the_same_every_time_and_another_seed_changes_them() -> None:
    """Two calls agree to the last bit; the seed, and the law's name, make the draws."""
    of = uncertain(LAW, 0.05).objective
    assert of is not None
    first, second = coefficient_draws(of), coefficient_draws(of)
    other, named = coefficient_draws(of, seed=1), coefficient_draws(dataclasses.replace(of, law="another"))
    assert first
    assert second
    assert other
    assert named
    assert all((first.values[name] == second.values[name]).all() for name in of.coefficients)
    assert not (first.values["a"] == other.values["a"]).any()
    assert not (first.values["a"] == named.values["a"]).any()


def test_directions_without_variance_stay() -> None:
    """A covariance of rank one moves coefficients along that direction alone, and zero variance moves nothing."""
    law = load_law(LAW)
    of = law.objective
    assert of is not None
    direction = np.zeros(len(of.coefficients))
    direction[[0, 4]] = 0.1, -0.2
    rank_one = Covariance(kinds(of), tuple(map(tuple, np.outer(direction, direction).tolist())))
    drawn = coefficient_draws(dataclasses.replace(of, covariance=rank_one))
    assert drawn is not None
    moved = {name: np.log(values / of.coefficients[name]) for name, values in drawn.values.items() if name in "ab"}
    assert moved["b"] == pytest.approx(-2 * moved["a"], abs=1e-9)
    for name, value in of.coefficients.items():
        if name not in ("a", "b"):
            assert drawn.values[name] == pytest.approx(value, rel=1e-9)
    still = coefficient_draws(dataclasses.replace(of, covariance=uncertain(LAW, 0.0).objective.covariance))  # type: ignore[union-attr]
    assert still is not None
    for name, value in of.coefficients.items():
        assert still.values[name] == pytest.approx(value, rel=1e-14)


def test_the_root_of_a_matrix_that_rounding_made_indefinite() -> None:
    """A hair of negative variance is none."""
    matrix = np.array([[1.0, 1.0], [1.0, 1.0 - 1e-15]])
    root = matrix_root(matrix)
    assert np.isfinite(root).all()
    assert root @ root.T == pytest.approx(matrix, abs=1e-12)


def test_draws_keep_to_the_form() -> None:
    """No draw leaves the bounds of its form, even from a covariance far too wide for them, and that is told."""
    of = uncertain("hoffmann2022", 3.0).objective
    assert of is not None
    drawn = coefficient_draws(of, 300)
    assert drawn is not None
    table = form_coordinates(of.form).coordinates
    for name, values in drawn.values.items():
        assert (values >= table[name].low * (1 - 1e-12)).all()
        assert (values <= table[name].high * (1 + 1e-12)).all()
    tight = dataclasses.replace(of, coefficients=MappingProxyType({**of.coefficients, "alpha": 2.9}))
    wide = tuple(tuple(1e6 if i == j else 0.0 for j in range(5)) for i in range(5))
    held = coefficient_draws(dataclasses.replace(tight, covariance=Covariance(kinds(of), wide)), 100)
    assert held is not None
    assert held.held > 50


@pytest.mark.parametrize("name", law_names())
def test_bundled_laws_have_no_draws(name: str) -> None:
    """Published standard errors are no covariance: coefficients of one fit are correlated, nobody says how."""
    assert law_draws(load_law(name)) == {}


def test_a_draw_makes_a_law() -> None:
    """A drawn law has the draw's coefficients, and everything else of its own."""
    law = uncertain(LAW, 0.05)
    draws = law_draws(law)
    made = drawn_law(law, draws, 7)
    assert made.objective is not None
    assert law.objective is not None
    assert dict(made.objective.coefficients) == {key: x[7] for key, x in draws[law.objective.name].values.items()}
    assert dataclasses.replace(made.objective, coefficients=law.objective.coefficients) == law.objective


def test_a_fitted_law_carries_its_own_draws(fitted: tuple[object, Path]) -> None:
    """The file of a fit holds the first of its draws, and these are what intervals are made of, in another order."""
    law = load_law(str(fitted[1]))
    of = law.objective
    assert of is not None
    assert of.covariance is not None
    assert len(of.covariance.draws) == DRAWS
    drawn = coefficient_draws(of)
    assert drawn is not None
    assert drawn.stored
    table = np.array(of.covariance.draws)
    for place, name in enumerate(of.covariance.coordinates):
        assert sorted(drawn.values[name]) == sorted(table[:, place])
    rows = {tuple(row) for row in table.tolist()}
    assert {
        tuple(row) for row in zip(*(drawn.values[n].tolist() for n in of.covariance.coordinates), strict=True)
    } == rows


def test_intervals_are_those_of_the_fit(fitted: tuple[object, Path]) -> None:
    """A coefficient's interval over the file's draws is the fit's own, but for the fewer draws."""
    found, path = fitted
    of = load_law(str(path)).objective
    assert of is not None
    drawn = coefficient_draws(of)
    assert drawn is not None
    for coefficient in found.coefficients:  # type: ignore[attr-defined]
        low, high = interval(drawn.values[coefficient.name], 0.9)
        slack = 0.25 * (coefficient.high - coefficient.low) + 1e-8 * abs(coefficient.value)
        assert low == pytest.approx(coefficient.low, abs=slack)
        assert high == pytest.approx(coefficient.high, abs=slack)


def test_the_normal_of_a_covariance_is_wider_than_curved_draws(fitted: tuple[object, Path]) -> None:
    """Where coefficients trade along a curve the covariance alone says less: its intervals are wider, not narrower."""
    law = load_law(str(fitted[1]))
    of = law.objective
    assert of is not None
    assert of.covariance is not None
    alone = dataclasses.replace(of, covariance=dataclasses.replace(of.covariance, draws=()))
    at = np.float64(1e9), np.float64(2e10), np.float64(8.0)
    widths = []
    for one in (of, alone):
        drawn = coefficient_draws(one, 400)
        assert drawn is not None
        low, high = interval(np.asarray(dataclasses.replace(one, coefficients=drawn.values)(*at)), 0.9)
        assert low < float(of(*at)) < high
        widths.append(high - low)
    assert widths[1] > widths[0]


@pytest.mark.parametrize(
    "line, says",
    [
        ("1 2", "must be 7 numbers"),
        ("1 2 3 4 5 6 x", "must be 7 numbers"),
        ("1 2 3 4 5 6 inf", "must be 7 numbers"),
        ("-1 2 3 4 5 6 7", "must be above 0"),
    ],
)
def test_broken_draws_are_told_with_their_line(tmp_path: Path, line: str, says: str) -> None:
    """A line of draws that is no draw is an error of the file that names the line."""
    law = load_law("krajewski2024")
    of = law.objective
    assert of is not None
    names = list(of.coefficients)
    zeros = ", ".join(["[" + ", ".join(["0"] * len(names)) + "]"] * len(names))
    coordinates = ", ".join(f"{name}: {kind}" for name, kind in kinds(of).items())
    text = Path(law.path).read_text()
    start = text.index(f"  {of.name}:\n") + len(f"  {of.name}:\n")
    good = " ".join(f"{of.coefficients[name]:.10g}" for name in names)
    block = (
        f"    covariance:\n      coordinates: {{{coordinates}}}\n      matrix: [{zeros}]\n      draws: |\n"
        f"        {good}\n        {line}\n"
    )
    (tmp_path / "broken.yaml").write_text(text[:start] + block + text[start:])
    with pytest.raises(LawError, match=rf"draws has .*{says}|draws has in line 2 .*{says}") as error:
        load_law(str(tmp_path / "broken.yaml"))
    assert "line 2" in str(error.value)


def test_stored_draws_repeat_where_more_are_asked_for() -> None:
    """A file of few draws serves any number of them, each as often as the others."""
    law = load_law(LAW)
    assert law.objective is not None
    rng = np.random.default_rng(1)
    columns = {
        name: value * np.exp(0.01 * rng.standard_normal(20)) for name, value in law.objective.coefficients.items()
    }
    of = drawn_as(law, columns).objective
    assert of is not None
    drawn = coefficient_draws(of, 60)
    assert drawn is not None
    assert sorted(np.unique(drawn.values["a"], return_counts=True)[1]) == [3] * 20
    assert with_covariance(law, of.covariance).objective == of  # type: ignore[arg-type]
