"""Where each term of each law keeps its sign: stated in the files, held against the default grid."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from moeplan.architecture.conventions import Variables
from moeplan.architecture.published import find_model
from moeplan.cli import cli
from moeplan.errors import LawError
from moeplan.laws import Law, law_names, load_law
from moeplan.laws.statements import Statement, read_statement
from moeplan.laws.terms import box, check_terms, directions, extrapolated_turns, term_names, term_values
from moeplan.studies.law_terms import samples, term_results

LAWS = [load_law(name) for name in law_names()]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_every_law_states_where_its_terms_keep_their_sign(law: Law) -> None:
    """Every term of every bundled fit has its region, and all hold over the default grid."""
    assert all(fit.terms or not fit.variables for fit in law.fits.values())
    results = term_results(law)
    assert [result for result in results if not result.passed] == []
    for fit in law.fits.values():
        named = {result.says.split()[0] for result in results if result.fit == fit.name}
        assert set(term_names(fit.form)) & set(fit.coefficients) <= named


def test_terms_add_up_to_the_prediction() -> None:
    """The terms of a loss, the constant one among them, sum to it; those of a leverage sum to its logarithm."""
    for law in LAWS:
        for fit in law.fits.values():
            values = samples(fit)
            names = term_names(fit.form)
            if len(names) == 1:
                continue
            total = sum(term_values(fit, name, values) for name in names)
            expected = fit(*(values[name] for name in fit.variables))
            if fit.form in ("efficiency_leverage", "routed", "size_tokens_power_law", "expansion_power_law"):
                expected = np.log(expected)
            np.testing.assert_allclose(np.broadcast_to(total, np.shape(expected)), expected, rtol=1e-9)


def test_where_the_size_term_of_ludziejewski2025_turns() -> None:
    """delta + gamma*ln(Na) is 0 at exp(.2285/.0098) = 1.34e10 active params, five times its largest model."""
    fit = load_law("ludziejewski2025").objective
    assert fit is not None
    turn = math.exp(0.2285 / 0.0098)
    assert turn == pytest.approx(1.34e10, rel=0.005)
    values = {"active_params": np.array([turn * 0.99, turn * 1.01]), "tokens": np.full(2, 1e12)}
    signs = directions(fit, "a", "expansion_ratio", values | {"expansion_ratio": np.full(2, 16.0)})
    assert signs.tolist() == [-1, 1]
    assert turn > 4.9 * fit.domain["active_params"][1]
    losses = fit(100e9, 1e13, np.array([1.0, 8.0, 32.0]))
    assert losses[0] > losses[1] > losses[2], "the loss still falls there, through the data term"


def test_a_plan_says_where_a_law_has_turned() -> None:
    """Past the turn, beyond all that was measured, a design is told of it; among the measured sizes it is not."""
    fit = load_law("ludziejewski2025").objective
    assert fit is not None
    turned = extrapolated_turns(fit, Variables(find_model("DeepSeek-V3").architecture, 4096), 14.8e12)
    assert [str(one) for one in turned] == ["a rises with expansion_ratio where active_params > 1.34e10"]
    assert extrapolated_turns(fit, Variables(find_model("OLMoE-1B-7B").architecture, 4096), 1e9) == []


def scratch(tmp_path: Path, law: str, old: str, new: str) -> Path:
    """A copy of a bundled law's file with one change."""
    text = Path(load_law(law).path).read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / f"{law}.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("law", "old", "new", "sentence"),
    [
        ("ludziejewski2025", "delta: -0.2285", "delta: 0.2285", "a rises with expansion_ratio at active_params="),
        ("ludziejewski2025", "< 1.34e10", "< 2e10", "a rises with expansion_ratio at active_params="),
        ("ludziejewski2025", "gamma: 0.0098", "gamma: -0.0098", "a falls with expansion_ratio at active_params="),
        ("zhao2025", "beta: 0.4694", "beta: -0.4694", "b rises with tokens at total_params="),
        ("tian2025", "d: -7.61e-2", "d: 7.61e-2", "d rises with activation_ratio at activation_ratio="),
        ("hoffmann2022", "terms: [A falls", "terms: [E falls", "it is not stated how A moves with total_params"),
        ("abnar2025", "      - b falls with tokens\n", "", "it is not stated how b moves with tokens"),
    ],
)
def test_a_flipped_sign_is_caught(tmp_path: Path, law: str, old: str, new: str, sentence: str) -> None:
    """A law with a sign or a bound changed in a scratch copy fails --check with the sentence that says where."""
    path = scratch(tmp_path, law, old, new)
    done = CliRunner().invoke(cli, ["laws", "--check", str(path)], prog_name="moeplan", env={"COLUMNS": "400"})
    assert done.exit_code == 1
    assert "Failures of terms" in done.stdout
    assert sentence in " ".join(done.stdout.split())


def test_statements_are_read_strictly(tmp_path: Path) -> None:
    """A statement has one form; anything else is refused with the line and what would do."""
    assert read_statement("a falls with tokens") == Statement("a", "falls", "tokens")
    parsed = read_statement("a falls with expansion_ratio where active_params < 1.34e10")
    assert parsed == Statement("a", "falls", "expansion_ratio", "active_params", True, 1.34e10)
    assert str(parsed) == "a falls with expansion_ratio where active_params < 1.34e10"
    assert read_statement("a sinks with tokens") is None
    path = scratch(tmp_path, "hoffmann2022", "A falls with total_params", "A sinks with total_params")
    with pytest.raises(LawError, match=r"terms has 'A sinks with total_params', must read as"):
        load_law(path)


def test_samples_cover_the_grid_evenly() -> None:
    """Boxes are filled evenly in the logarithm; grid samples hold every width and budgets from 1e18 to 1e26."""
    points = box({"tokens": (1e9, 1e13), "base_params": (1e7, 1e12)}, 1000)
    for name, (low, high) in {"tokens": (1e9, 1e13), "base_params": (1e7, 1e12)}.items():
        share = (np.log(points[name]) - math.log(low)) / math.log(high / low)
        assert np.histogram(share, bins=10, range=(0, 1))[0] == pytest.approx(np.full(10, 100), abs=12)
    fit = load_law("tian2025").objective
    assert fit is not None
    found = samples(fit)
    assert found["train_flops"].min() < 2e18
    assert found["train_flops"].max() > 5e25
    assert all(result.samples > 1000 for result in check_terms(fit, found))
