"""Fitted laws as files: what they hold, what reads them, what is refused; and the command with its report."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner, Result

from moeplan.cli import cli
from moeplan.errors import LawError
from moeplan.fitting import FittedLaw, fit, fitted_schema, law_text
from moeplan.laws import load_law
from moeplan.laws.signatures import FORMS, form_coordinates
from moeplan.plan.budget import Budget
from moeplan.plan.planner import recommend
from moeplan.report.blocks import Chart
from moeplan.report.fitting import fit_sections, profile_chart, residual_chart
from moeplan.report.markdown import markdown_text
from moeplan.report.terminal import terminal_text
from tests.fitting_truths import design, predictions, truths, write_runs

TRUTHS = truths()


def run(*args: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, list(args), prog_name="moeplan", env={"COLUMNS": "100"})


def joint_runs(path: Path, noise: float = 0.002) -> str:
    """Runs of a joint law over size, tokens and expansion, dense ones included."""
    rows = [(n, n * t, e) for e in (1, 2, 4, 8, 16, 32) for n in np.geomspace(5e7, 3e9, 5) for t in (3, 12, 50)]
    columns = dict(zip(("active_params", "tokens", "expansion_ratio"), np.array(rows).T, strict=True))
    observed = predictions("expansion_joint", columns, TRUTHS["expansion_joint"])
    rng = np.random.default_rng(12)
    return write_runs(path, {**columns, "loss": observed * np.exp(noise * rng.standard_normal(len(rows)))})


@pytest.fixture(scope="module")
def runs_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of joint runs."""
    return joint_runs(tmp_path_factory.mktemp("runs") / "runs.csv")


@pytest.fixture(scope="module")
def fitted(runs_file: str) -> FittedLaw:
    """The law fitted to them."""
    return fit(runs_file, "ludziejewski2025", name="mine", draws=100, command="moeplan fit runs.csv")


@pytest.fixture(scope="module")
def law_file(fitted: FittedLaw, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The law as a file."""
    path = tmp_path_factory.mktemp("laws") / "mine.yaml"
    path.write_text(law_text(fitted), encoding="utf-8")
    return str(path)


def test_a_fitted_law_reads_back_to_the_last_bit(fitted: FittedLaw, law_file: str) -> None:
    """Coefficients, covariance, domain and conventions of the file are the fit's own."""
    law = load_law(law_file)
    own = law.fits["loss"]
    assert dict(own.coefficients) == fitted.values
    assert own.grade == "fitted"
    assert own.covariance is not None
    assert fitted.covariance is not None
    assert own.covariance.matrix == fitted.covariance.matrix
    assert list(own.covariance.coordinates) == list(own.coefficients)
    assert own.covariance.coordinates["a"] == "ln"
    assert own.covariance.coordinates["alpha"] == "linear"
    assert own.residual is not None
    assert own.residual.rms == fitted.quality.rms
    assert own.residual.degrees_of_freedom == fitted.quality.degrees_of_freedom
    assert own.domain["expansion_ratio"] == (1, 32)
    assert own.dense == {"expansion_ratio": 1}
    assert own.conventions["train_flops"] == "six_active_params"
    assert fitted.runs.digest in str(law.citation)
    assert "moeplan fit runs.csv" in str(law.citation)
    assert law.can_search
    assert law.has_dense


def test_the_same_runs_give_the_same_bytes(runs_file: str, fitted: FittedLaw) -> None:
    """Fitting again gives the same file and the same JSON, byte for byte."""
    again = fit(runs_file, "ludziejewski2025", name="mine", draws=100, command="moeplan fit runs.csv")
    assert law_text(again) == law_text(fitted)
    assert again.to_text() == fitted.to_text()


def test_recommend_takes_a_fitted_law_at_once(law_file: str) -> None:
    """The file is a law like any other: it chooses a design, and its digest stands in the plan."""
    plan = recommend(Budget("1e21", "24GB"), laws=[law_file])
    assert plan.architecture.num_experts > 0
    assert load_law(law_file).digest in plan.to_text()


def test_laws_shows_a_fitted_law(law_file: str) -> None:
    """`moeplan laws law.yaml` says that it was fitted, to what, and how well; its JSON holds the covariance."""
    text = run("laws", law_file).stdout
    assert "fitted by moeplan to the user's own runs" in " ".join(text.split())
    assert "75 degrees of freedom" in text or "79 degrees of freedom" in text
    record = json.loads(run("laws", law_file, "--json").stdout)
    assert len(record["fits"]["loss"]["covariance"]["matrix"]) == 11


def test_a_fitted_leverage_law_can_choose_designs(tmp_path: Path) -> None:
    """Leverage sees neither size nor tokens, so its file takes over the discount for a misallocated budget."""
    rows = list(itertools.product((0.008, 0.03, 0.1, 0.5), (2, 4, 8, 16), (1e18, 1e19, 1e20)))
    names = ("activation_ratio", "granularity", "train_flops")
    columns = dict(zip(names, np.array(rows, dtype=float).T, strict=True))
    observed = predictions("efficiency_leverage", columns, TRUTHS["efficiency_leverage"])
    path = write_runs(tmp_path / "runs.csv", {**columns, "EL": observed * np.exp(1e-3 * np.sin(np.arange(48)))})
    found = fit(path, "tian2025", draws=0)
    (tmp_path / "el.yaml").write_text(law_text(found), encoding="utf-8")
    law = load_law(tmp_path / "el.yaml")
    assert law.can_search
    assert law.objective is not None
    assert law.objective.convention("train_flops") == "non_embedding_full_attention"
    assert law.objective.coefficients["gamma"] == pytest.approx(TRUTHS["efficiency_leverage"]["gamma"], rel=0.05)
    assert law.objective.covariance is None, "no draws, no covariance"


@pytest.mark.parametrize("form", FORMS)
def test_every_form_goes_from_runs_to_a_law_file(form: str, tmp_path: Path) -> None:
    """Every form is fitted, reported and written as a law that loads, whatever it predicts."""
    columns = design(form, 30)
    observed = predictions(form, columns, TRUTHS[form])
    noise = np.exp(0.003 * np.random.default_rng(1).standard_normal(len(observed)))
    target = form_coordinates(form).predicts
    found = fit(write_runs(tmp_path / "runs.csv", {**columns, target: observed * noise}), form, draws=20)
    (tmp_path / "law.yaml").write_text(law_text(found), encoding="utf-8")
    assert dict(load_law(tmp_path / "law.yaml").fits[target].coefficients) == found.values
    assert terminal_text(fit_sections(found))
    assert found.to_json()


FIT = """schema: moeplan.law/1
name: own
title: t
citation: {authors: a, title: t}
digits: d
fits:
  loss:
    predicts: loss
    form: compute_power_law
    coefficients: {coefficient: 95.0, exponent: -0.1, irreducible: 1.6}
    grade: fitted
    covariance:
      coordinates: {coefficient: ln, exponent: linear}
      matrix: [[0.04, -0.001], [-0.001, 0.0001]]
    residual: {rms: 0.01, degrees_of_freedom: 7}
"""


def test_a_law_without_a_year_is_a_fit_of_ones_own(tmp_path: Path) -> None:
    """Covariance and residual are read; a citation without a year has none."""
    path = tmp_path / "own.yaml"
    path.write_text(FIT, encoding="utf-8")
    law = load_law(path)
    own = law.fits["loss"]
    assert own.covariance is not None
    assert own.covariance.matrix[0] == (0.04, -0.001)
    assert own.residual is not None
    assert own.residual.degrees_of_freedom == 7
    assert str(law.citation) == "a. t. "


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("[[0.04, -0.001], [-0.001, 0.0001]]", "[[0.04, -0.001]]", "2 rows of 2 numbers"),
        ("[[0.04, -0.001], [-0.001, 0.0001]]", "[[0.04, -0.001], [-0.002, 0.0001]]", "not symmetric"),
        ("[[0.04, -0.001], [-0.001, 0.0001]]", "[[-0.04, -0.001], [-0.001, 0.0001]]", "variance -0.04"),
        ("[[0.04, -0.001], [-0.001, 0.0001]]", "[[0.04, -0.1], [-0.1, 0.0001]]", "correlation above 1"),
        ("[[0.04, -0.001], [-0.001, 0.0001]]", "[[0.04, x], [x, 0.0001]]", "2 rows of 2 numbers"),
        ("exponent: linear}", "exponent: log}", "ln, linear"),
        ("exponent: linear}", "exponent: ln}", "not above 0"),
        ("exponent: linear}", "slope: linear}", "not a known key"),
        ("rms: 0.01", "rms: -0.01", "at least 0"),
        ("{rms: 0.01, degrees_of_freedom: 7}", "{rms: 0.01}", "degrees_of_freedom"),
    ],
)
def test_a_wrong_covariance_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    """Shape, symmetry, signs, correlations and words of a covariance are checked, with the file's line."""
    path = tmp_path / "own.yaml"
    assert old in FIT
    path.write_text(FIT.replace(old, new), encoding="utf-8")
    with pytest.raises(LawError, match="line") as error:
        load_law(path)
    assert says in str(error.value)


def test_the_json_is_what_its_schema_says(fitted: FittedLaw) -> None:
    """Every field is explained, and the result validates."""
    schema = fitted_schema()
    jsonschema.Draft202012Validator(schema).validate(fitted.to_json())
    assert fitted.to_json()["schema"] == "moeplan.fit/1"
    for definition in schema["$defs"].values():
        for name, field in definition["properties"].items():
            assert field["description"], name


def test_the_command_writes_a_law_and_reports(runs_file: str, tmp_path: Path) -> None:
    """`moeplan fit` prints the report on stdout, names the file on stderr, and the file loads."""
    output = tmp_path / "team.yaml"
    result = run("fit", runs_file, "--form", "expansion_joint", "--draws", "50", "--output", str(output), "--full")
    assert result.exit_code == 0, result.stderr
    assert f"Law written to {output}" in result.stderr
    assert load_law(output).name == "team"
    for title in ("Coefficients", "Compute-optimal sizes", "Bundled laws of the same reach", "Largest residuals"):
        assert title in result.stdout
    assert "ludziejewski2025/loss" in result.stdout


def test_the_command_speaks_json_and_markdown(runs_file: str) -> None:
    """--json prints the whole result, --markdown the report's tables; not both."""
    record = json.loads(run("fit", runs_file, "--form", "expansion_joint", "--draws", "0", "--json").stdout)
    assert record["form"] == "expansion_joint"
    assert record["covariance"] is None
    assert (
        "| line |" in run("fit", runs_file, "--form", "expansion_joint", "--draws", "0", "--markdown", "--full").stdout
    )
    assert run("fit", runs_file, "--json", "--markdown").exit_code == 2


@pytest.mark.parametrize(
    "text, code",
    [("N,loss\n1,2\n", 2), ("N,D,loss\n1,2,3\n4,5,6\n", 2), ("N,D,loss\n1e8,2e9,3\n4e8,5e9,2.5\n", 1)],
)
def test_no_file_is_written_where_nothing_was_fitted(tmp_path: Path, text: str, code: int) -> None:
    """A file that is no runs ends with 2, runs that determine nothing with 1; one sentence, and no law file."""
    (tmp_path / "runs.csv").write_text(text, encoding="utf-8")
    output = tmp_path / "law.yaml"
    result = run("fit", str(tmp_path / "runs.csv"), "--form", "additive_power_law", "--output", str(output))
    assert result.exit_code == code
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize(
    "flags, says",
    [
        (["--output", "law.json"], "ends in .yaml"),
        (["--map", "total_params"], "NAME=VALUE"),
        (["--map", "a=b", "--map", "a=c"], "twice"),
        (["--fixed", "num_experts=many"], "no number"),
        (["--at", "soon"], "not a quantity"),
        (["--draws", "few"], "valid integer"),
    ],
)
def test_flags_that_cannot_be_are_refused(runs_file: str, flags: list[str], says: str) -> None:
    """Exit code 2 and one sentence with the value."""
    result = run("fit", runs_file, *flags)
    assert result.exit_code == 2
    assert says in result.stderr


def test_the_report_says_what_was_fitted_and_how_well(fitted: FittedLaw) -> None:
    """The headline names form, runs, residual and what is open; every table of numbers says where it comes from."""
    sections = fit_sections(fitted)
    headline = terminal_text(sections, width=100).split("runs  ")[0]
    assert "mine: expansion_joint fitted to 90 of 90 runs" in " ".join(headline.split())
    assert "identified" in headline
    titles = [section.title for section in sections]
    assert titles.index("Compute-optimal sizes") < titles.index("Largest residuals")
    assert "Coefficients" in markdown_text(sections)


def test_charts_hold_every_run_and_every_budget(fitted: FittedLaw) -> None:
    """The residual plot has a point for each run; the profile a line for each budget, dashed beyond the runs."""
    residuals, profile = residual_chart(fitted), profile_chart(fitted)
    assert isinstance(residuals, Chart)
    assert isinstance(profile, Chart)
    assert len(residuals.series[0].x) == 90
    assert [series.name.endswith("*") for series in profile.series] == [not x.inside for x in fitted.optima]
    for series in profile.series:
        assert all(low <= y <= high for low, y, high in zip(series.low, series.y, series.high, strict=True))


def test_comparisons_are_efficiencies_of_laws_that_speak_of_moe(fitted: FittedLaw) -> None:
    """The runs' own law is as good as the fitted one; dense-only laws are not heard; nothing exceeds 1."""
    laws = {c.law for c in fitted.comparisons}
    assert "ludziejewski2025/loss" in laws
    assert not laws & {"hoffmann2022/loss", "besiroglu2024/loss"}
    for c in fitted.comparisons:
        assert c.efficiency is None or 0 < c.efficiency <= 1 + 1e-9
        if c.law == "ludziejewski2025/loss":
            assert c.efficiency == pytest.approx(1, abs=0.02)
