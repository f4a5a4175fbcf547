"""The public runs of three papers, fitted again. Their folder is named by MOEPLAN_RUNS; see CONTRIBUTING.md."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from moeplan.fitting import FittedLaw, fit
from moeplan.fitting.reading import read_runs
from moeplan.laws import load_law

RUNS = Path(os.environ.get("MOEPLAN_RUNS") or "no-such-folder")

pytestmark = pytest.mark.skipif(
    not RUNS.is_dir(), reason="MOEPLAN_RUNS names no folder with the public runs (hoffmann2022_extracted.csv, ...)"
)

CLARK = ["k=1", "routing_frequency=0.5", "seed=42"]
"""Top-1 routing in every second block, one seed of the dense runs: what the law is about."""


@pytest.fixture(scope="module")
def chinchilla() -> FittedLaw:
    """The refit of the extracted points without the five highest losses."""
    path = RUNS / "hoffmann2022_extracted.csv"
    return fit(path, "besiroglu2024", drop_highest_loss=5, at=[5.76e23])


def test_the_chinchilla_points_give_the_replication(chinchilla: FittedLaw) -> None:
    """245 points, 5 left out: E 1.8172, A 477.9, B 2142.8, alpha .3473, beta .3672, each within 1 %."""
    assert (chinchilla.runs.rows, chinchilla.runs.used, len(chinchilla.runs.excluded)) == (245, 240, 5)
    for name, value in {"E": 1.8172, "A": 477.9, "B": 2142.8, "alpha": 0.3473, "beta": 0.3672}.items():
        assert chinchilla.values[name] == pytest.approx(value, rel=0.01)
    assert not chinchilla.unidentified
    assert chinchilla.runs.columns["total_params"] == "Model Size"


def test_the_replications_standard_errors(chinchilla: FittedLaw) -> None:
    """The intervals are as wide as the replication's published standard errors say, within 40 %."""
    published = load_law("besiroglu2024").fits["loss"].stderr
    stderr = {c.name: c.stderr for c in chinchilla.coefficients}
    for name in ("E", "A", "alpha", "beta"):
        assert stderr[name] == pytest.approx(published[name], rel=0.4)


def test_the_optimum_of_gophers_budget(chinchilla: FittedLaw) -> None:
    """N* at 5.76e23 FLOPs lies between 60B and 75B, and its 90 % interval covers Chinchilla's own 70B."""
    optimum = next(x for x in chinchilla.optima if x.train_flops == 5.76e23)
    assert optimum.active_params is not None
    assert 60e9 < optimum.active_params < 75e9
    assert optimum.active_params.low is not None
    assert optimum.active_params.high is not None
    assert optimum.active_params.low < 70e9 < optimum.active_params.high
    assert not optimum.inside


def test_all_245_points_bend_the_law(chinchilla: FittedLaw) -> None:
    """With the five highest losses in, E and beta move far beyond their standard errors: hence they are left out."""
    every = fit(RUNS / "hoffmann2022_extracted.csv", "besiroglu2024", draws=0)
    assert every.runs.used == 245
    assert every.values["E"] > 1.88
    assert every.values["beta"] > 0.44


@pytest.mark.parametrize("router, name, runs", [("S-Base", "s-base", 58), ("Hash", "hash", 56), ("RL-R", "rl-r", 59)])
def test_the_routed_end_points_give_their_law(router: str, name: str, runs: int) -> None:
    """Least squares on the log of the released end points gives the law's digits within 1 %, for each router."""
    found = fit(
        RUNS / "clark2022_final.csv",
        "clark2022",
        where=[f"router_type={router},Dense", *CLARK],
        fixed={"tokens": 130e9},
        delta=np.inf,
        draws=0,
    )
    assert found.runs.used == runs
    for letter, value in load_law("clark2022").fits[name].coefficients.items():
        assert found.values[letter] == pytest.approx(value, rel=0.01), letter


@pytest.mark.parametrize("delta", [1e-3, np.inf])
def test_marins_grid_leaves_the_irreducible_loss_open(delta: float) -> None:
    """26 cells, RMSE about .30 %; the irreducible loss is reported as not identified, by either objective."""
    found = fit(
        RUNS / "marin2026_grid.csv",
        "additive_power_law",
        columns={"total_params": "active_nonemb"},
        fixed={"num_experts": 64, "num_active_experts": 4, "num_shared_experts": 1},
        delta=delta,
        draws=200,
    )
    assert found.runs.used == 26
    assert found.quality.rms == pytest.approx(0.0030, abs=0.0001)
    assert [c.name for c in found.coefficients if not c.identified] == ["E"]
    assert any("irreducible" in text for text in found.unidentified)
    assert found.conventions["total_params"] == "non_embedding"


def test_no_public_run_lies_inside_the_project() -> None:
    """The tables are read where they are, never copied: none of their names is a file of the project."""
    root = Path(__file__).resolve().parent.parent
    names = {path.name for path in RUNS.glob("*.csv")}
    assert names
    folders = (root / "moeplan", root / "tests", root / "laws")
    assert not names & {path.name for folder in folders for path in folder.rglob("*.csv")}


def test_columns_of_the_public_runs_are_found() -> None:
    """Aliases cover the column names that three projects chose."""
    runs = read_runs(RUNS / "clark2022_final.csv", where=["router_type=Hash", *CLARK])
    assert runs.naming.aliases["loss"] == "loss_validation"
    assert runs.naming.aliases["active_params"] == "dense_parameter_count"
    np.testing.assert_array_equal(runs.column("expansion_ratio"), runs.column("num_experts"))
    marin = read_runs(RUNS / "marin2026_iso.csv")
    assert marin.naming.aliases["train_flops"] == "budget"
    flops = marin.column("train_flops")
    assert flops is not None
    active, tokens = marin.column("active_params"), marin.column("tokens")
    assert active is not None
    assert tokens is not None
    np.testing.assert_allclose(flops / (6 * active * tokens), 1.0, atol=0.7)  # the project's own count of compute
