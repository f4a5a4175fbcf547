"""What to run next: the choice of runs, the runs that could be made, and the list that comes out."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner

from moeplan import Budget
from moeplan.architecture.conventions import Variables
from moeplan.cli import cli
from moeplan.errors import InfeasibleError, UsageError
from moeplan.fitting.candidates import TOKENS_PER_PARAM, Candidates, make_candidates
from moeplan.fitting.choosing import around, choose, contrasts, left_by, regrets
from moeplan.fitting.limits import RunLimits, make_limits, one_gpu_bytes
from moeplan.fitting.result import FittedLaw
from moeplan.fitting.suggest import check_form, suggest
from moeplan.fitting.suggestion import Suggestion, read_suggestion
from moeplan.laws import Law, load_law
from moeplan.laws.law import Covariance, ResidualError
from moeplan.plan.choice import choose_design
from moeplan.plan.search.grid import Grid
from moeplan.plan.search.space import Space
from moeplan.records import from_json
from moeplan.report.fitting import fit_sections
from moeplan.report.markdown import markdown_text
from moeplan.report.schemas import document_schema
from tests.drawn_laws import kinds, uncertain, with_covariance
from tests.fitting_truths import write_runs

BUDGET = Budget("1e22", "80GB")
GRID = Grid(
    d_model=(1024, 2048, 3072), aspect_ratio=(64, 88), num_experts=(16, 64, 256), num_active_experts=(4, 8),
    granularity=(2, 4, 8), attention_width=(1, 1),
)  # fmt: skip
RNG = np.random.default_rng(7)
NOISE = 0.05


def left(wanted: np.ndarray, measured: np.ndarray, runs: list[int]) -> np.ndarray:
    """Cov(U | S) by the formula of a best linear prediction."""
    u, p = wanted - wanted.mean(axis=0), measured[:, runs] - measured[:, runs].mean(axis=0)
    between = u.T @ p / len(u)
    return u.T @ u / len(u) - between @ np.linalg.solve(p.T @ p / len(u) + NOISE * np.eye(len(runs)), between.T)


def draws(coefficients: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Draws of 5 values and 12 measurements that few coefficients move."""
    theta = RNG.standard_normal((150, coefficients))
    return theta @ RNG.standard_normal((coefficients, 5)), theta @ RNG.standard_normal((coefficients, 12))


def test_measurements_leave_the_conditional_covariance() -> None:
    """Updating draws run by run gives the covariance that the formula gives for all at once, repeated runs included."""
    wanted, measured = draws()
    runs = [3, 7, 7, 0]
    after = left_by(wanted, measured[:, runs], NOISE)
    np.testing.assert_allclose(after.T @ after / len(after), left(wanted, measured, runs), atol=1e-10)


SHARES = np.array([0.4, 0.3, 0.1, 0.1, 0.1])


def derivatives(near: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Derivatives of 5 designs and 25 runs of a loss smooth in one variable, near some draws, and what is known there.

    Designs lie beyond the runs, as those of a target do; every draw has powers of its own, as a nonlinear law has.
    """
    powers = RNG.uniform(0.2, 1.5, (near, 4, 1))
    designs, measured = (np.linspace(*ends, size) ** powers for ends, size in (((2, 3), 5), ((0.1, 1), 25)))
    known = RNG.uniform(0.1, 0.5, 6) ** powers
    return designs, measured, known @ known.swapaxes(1, 2) / NOISE + 0.1 * np.eye(4)


def variance(designs: np.ndarray, measured: np.ndarray, information: np.ndarray, runs: list[int]) -> float:
    """The criterion by its definition: mean over draws and pairs of designs of the variance of their difference."""
    c = measured[:, :, runs]
    covariance = np.linalg.inv(information + c @ c.swapaxes(1, 2) / NOISE)
    apart = (designs[:, :, :, None] - designs[:, :, None, :]).transpose(0, 2, 3, 1)
    variances = np.einsum("bjkp,bpq,bjkq->bjk", apart, covariance, apart)
    return float((variances * np.outer(SHARES, SHARES)).sum(axis=(1, 2)).mean()) / 2


def test_the_choice_is_near_the_best_of_all() -> None:
    """Of all triples of 25 runs, repeats included, the one chosen leaves at most 1 % more variance than the best."""
    for _ in range(3):
        designs, measured, information = derivatives()
        chosen = choose(contrasts(designs, SHARES), measured, information, NOISE, 3)
        every = itertools.combinations_with_replacement(range(25), 3)
        best = min(variance(designs, measured, information, list(runs)) for runs in every)
        assert variance(designs, measured, information, chosen) <= 1.01 * best


def test_the_choice_keeps_its_cost_and_is_near_the_best_that_does() -> None:
    """Of all triples of 25 runs that cost at most so much, the one chosen leaves at most 5 % more variance than the
    best."""
    for trial in range(10):
        designs, measured, information = derivatives(7)
        costs = np.random.default_rng(trial).uniform(0.1, 2.0, measured.shape[2])
        chosen = choose(contrasts(designs, SHARES), measured, information, NOISE, 3, costs, 1.5)
        assert costs[chosen].sum() <= 1.5
        triples = itertools.combinations_with_replacement(range(measured.shape[2]), 3)
        able = [list(runs) for runs in triples if costs[list(runs)].sum() <= 1.5]
        best = min(variance(designs, measured, information, runs) for runs in able)
        assert variance(designs, measured, information, chosen) <= 1.05 * best


def test_runs_come_in_order_of_value() -> None:
    """No other of the chosen runs would leave less variance than the first."""
    designs, measured, information = derivatives()
    chosen = choose(contrasts(designs, SHARES), measured, information, NOISE, 4)
    alone = [variance(designs, measured, information, [run]) for run in chosen]
    assert alone[0] == min(alone)


def test_regret_vanishes_with_all_known_and_stays_with_nothing() -> None:
    """Runs that measure every value without noise leave no regret; runs that measure none of it leave all."""
    values, _ = draws()
    own = values.mean(axis=0)
    now, none_left = regrets(values, own, values, 1e-12, seed=0)
    assert none_left[-1] < 1e-6 < now
    silent = np.tile(values[:, :1] * 0, (1, 2))
    assert regrets(values, own, silent, NOISE, seed=0)[1] == pytest.approx([now, now])


def test_regret_is_the_mean_share_wasted() -> None:
    """A choice that is right in half of the draws and worth e times too little in the rest wastes (1 - 1/e) / 2."""
    values = np.array([[0.0, -5.0], [0.0, 1.0]])
    now, _ = regrets(values, np.array([1.0, 0.0]), np.zeros((2, 1)), NOISE, seed=0)
    assert now == pytest.approx((1 - math.exp(-1)) / 2)


def test_what_runs_do_not_tell_stays_as_it_is() -> None:
    """Draws of which all is left are themselves, wherever the law's own values are; of which nothing is, these."""
    values, _ = draws()
    own = values.mean(axis=0) + 0.7
    deviations = values - values.mean(axis=0)
    np.testing.assert_allclose(around(own, values, deviations), values, atol=1e-12)
    np.testing.assert_allclose(around(own, values, 0 * deviations), np.tile(own, (len(values), 1)), atol=1e-12)


def test_candidates_can_be_trained_and_are_counted_exactly() -> None:
    """Every candidate keeps the compute and the range of tokens; its variables are those of its own integer shape."""
    law = load_law("ludziejewski2025")
    fit = law.objective
    assert fit is not None
    like = choose_design(Space(BUDGET, [law], base=GRID, reference=GRID), [law]).architecture
    found = make_candidates(fit, like, 4096, RunLimits(max_flops=1e19))
    assert found.train_flops.max() <= 1e19
    for run in RNG.choice(len(found), 20, replace=False):
        shape, tokens = found.architecture(int(run)), float(found.tokens[run])
        v = Variables(shape, 4096)
        assert [float(x) for x in v.select(fit.variables, fit.conventions, tokens)] == list(found.variables[:, run])
        assert float(v.get("flops_per_token")) * tokens == found.train_flops[run]
        assert TOKENS_PER_PARAM[0] <= tokens / shape.active_params() <= TOKENS_PER_PARAM[1]
        assert (shape.vocab_size, shape.tied_embeddings) == (like.vocab_size, like.tied_embeddings)


def candidates_within(limits: RunLimits) -> Candidates:
    """Runs for the joint law."""
    law = load_law("ludziejewski2025")
    like = choose_design(Space(BUDGET, [law], base=GRID, reference=GRID), [law]).architecture
    return make_candidates(law.require_objective(), like, 4096, limits)


def test_candidates_keep_params_and_memory() -> None:
    """No run has more params or takes more memory than asked for, though without limits some do."""
    for limits in (RunLimits(max_flops=1e20, max_params=1e9), RunLimits(max_flops=1e20, max_memory=24e9)):
        found, free = (candidates_within(each) for each in (limits, RunLimits(max_flops=1e20)))
        shapes = [found.architecture(run) for run in range(0, len(found), 5)]
        assert all(shape.total_params() <= limits.max_params for shape in shapes)
        assert all(one_gpu_bytes(shape, 4096)[0] <= limits.max_memory for shape in shapes)
        others = [free.architecture(run) for run in range(0, len(free), 5)]
        largest = max(others, key=lambda shape: shape.total_params())
        assert not limits.allows(largest, 4096)[0]


@pytest.mark.parametrize("gpus, days", [("8xA100-80GB", 2.0), ("1xH100", 0.5)])
def test_candidates_fit_the_gpus_and_their_days(gpus: str, days: float) -> None:
    """Every run has a layout that fits, and none takes longer than there is time; its days are at most those of the
    plan's own model of training time, in a batch of its own."""
    limits = make_limits(Budget(flops=1e23, memory="80GB"), gpus=gpus, days=days)
    found = candidates_within(limits)
    assert found.days.max() <= days * (1 + 1e-9)
    assert found.days.max() > days / 2
    for run in RNG.choice(len(found), 8, replace=False):
        training = limits.training(found.architecture(int(run)), 4096, float(found.tokens[run]))
        assert training.layouts[0].bytes_per_gpu <= training.usable_bytes
        assert 0.5 * found.days[run] < training.days <= found.days[run] * (1 + 1e-9)


def test_dense_runs_are_suggested_only_where_the_law_covers_them() -> None:
    """expansion_joint describes dense models, fine_grained does not; a law of 64 experts is given none but these."""
    law = load_law("ludziejewski2025")
    like = choose_design(Space(BUDGET, [law], base=GRID, reference=GRID), [law]).architecture
    for name, dense in (("ludziejewski2025", True), ("krajewski2024", False)):
        fit = load_law(name).objective
        assert fit is not None
        found = make_candidates(fit, like, 4096, RunLimits(max_flops=1e19))
        shapes = [found.architecture(run) for run in range(0, len(found), 7)]
        assert any(shape.is_dense for shape in shapes) == dense
        if "num_experts" in fit.fixed:
            assert {shape.num_experts for shape in shapes} == {fit.fixed["num_experts"]}


def moved(name: str, which: tuple[str, ...], deviation: float) -> Law:
    """A bundled law of which only some coefficients are uncertain."""
    law = load_law(name)
    assert law.objective is not None
    own = kinds(law.objective)
    matrix = np.diag([deviation**2 if key in which else 0.0 for key in own])
    return with_covariance(law, Covariance(own, tuple(map(tuple, matrix.tolist()))), ResidualError(0.005, 50))


def law_with_draws() -> Law:
    """The joint law, uncertain in every coefficient."""
    law = uncertain("ludziejewski2025", 0.05)
    assert law.objective is not None
    assert law.objective.covariance is not None
    return with_covariance(law, law.objective.covariance, ResidualError(0.005, 50))


def grid() -> Grid:
    """The small grid at the budget's vocabulary."""
    return dataclasses.replace(GRID, vocab_size=BUDGET.vocab_size, tied_embeddings=bool(BUDGET.tied_embeddings))


@pytest.fixture(scope="module")
def found() -> Suggestion:
    """Four runs for the small grid."""
    return suggest(law_with_draws(), BUDGET, 4, 1e19, base=grid(), threads=1)


def test_suggested_runs_shrink_regret_and_intervals(found: Suggestion) -> None:
    """The runs cost what is stated, none more than allowed; regret and the interval of the loss become smaller.

    What is to be expected then holds what the law says now, ties between designs included.
    """
    assert len(found.runs) == 4
    assert all(run.train_flops <= 1e19 for run in found.runs)
    assert sum(run.train_flops for run in found.runs) == pytest.approx(found.train_flops)
    assert found.regret_after < found.regret_now
    assert found.runs[-1].regret_after == found.regret_after
    loss = next(x for x in found.expected if x.quantity == "loss")
    assert loss.low < loss.low_after < loss.value < loss.high_after < loss.high
    assert all(x.low_after <= x.value <= x.high_after for x in found.expected)


def test_the_suggestion_is_the_same_every_time_and_reads_back(found: Suggestion, tmp_path: Path) -> None:
    """Two calls agree to the last digit, and its file holds all of it."""
    again = suggest(law_with_draws(), BUDGET, 4, 1e19, base=grid(), threads=2)
    assert again == found
    file = tmp_path / "next.json"
    file.write_text(found.to_text(), encoding="utf-8")
    assert read_suggestion(file).to_json() == found.to_json()


def test_a_list_for_given_gpus_ends_in_time() -> None:
    """On one GPU for half a day: every run fits it, the days add up to the total and end in time, and what the list
    says of itself reads back."""
    limits = make_limits(BUDGET, gpus="1xA100-80GB", days=0.5)
    found = suggest(law_with_draws(), BUDGET, 4, limits, base=grid())
    assert (found.gpus, found.max_days) == ("1xA100-80GB SXM", 0.5)
    assert found.days is not None
    assert found.days <= 0.5
    assert found.days.low < found.days < found.days.high
    assert found.days == pytest.approx(math.fsum(run.days or math.inf for run in found.runs))
    assert all(run.memory_bytes <= 80e9 for run in found.runs)
    assert from_json(Suggestion, found.to_json()).to_json() == found.to_json()
    words = "runs take at least"
    with pytest.raises(InfeasibleError, match=words):
        suggest(law_with_draws(), BUDGET, 100, make_limits(BUDGET, gpus="1xA100-80GB", days=0.05), base=grid())


def test_what_is_unknown_is_what_is_run() -> None:
    """If only the saturation of experts is unknown, the first run has many experts."""
    law = moved("ludziejewski2025", ("Em",), 0.5)
    first = suggest(law, BUDGET, 1, 1e19, base=grid(), threads=1).runs[0]
    assert first.sees["expansion_ratio"] > 30


@pytest.mark.verify
def test_proxies_of_verify_can_be_made_of_them(found: Suggestion) -> None:
    """Every suggested shape is one that verify builds, with its text's vocabulary, and gets the tokens suggested."""
    pytest.importorskip("torch")
    from moeplan.verification.ladder import Data, Settings
    from moeplan.verification.suggested_study import suggested_ladder

    data = Data("builtin", "0" * 16, 256, 10**9)
    ladder = suggested_ladder(found, data, Settings("fp32", 1, False))
    assert {rung.architecture.vocab_size for rung in ladder.rungs} == {256}
    tokens = sorted({rung.steps * rung.batch_sequences * ladder.seq_len for rung in ladder.rungs})
    wanted = sorted({run.tokens for run in found.runs})
    assert len(tokens) == len(wanted)
    assert tokens == pytest.approx(wanted, rel=0.05)


def test_laws_that_no_run_can_be_suggested_for_say_why() -> None:
    """A law without draws, one that cannot search and one of leverage are refused with the reason."""
    for law, words in (
        (load_law("ludziejewski2025"), "no draws"),
        (load_law("clark2022"), "cannot choose a design"),
        (load_law("tian2025"), "no single run"),
    ):
        with pytest.raises(InfeasibleError, match=words):
            suggest(law, BUDGET, 4, 1e19, base=grid())


@pytest.mark.parametrize(
    "form, predicts, draws, words",
    [
        ("clark2022", "", None, "cannot choose a design"),
        ("base_power_law", "", None, "cannot choose a design"),
        ("tian2025", "", None, "no single run"),
        ("auto", "efficiency_leverage", None, "no single run"),
        ("auto", "", 0, "draws 0"),
    ],
)
def test_what_form_and_draws_forbid_is_known_before_the_fit(
    form: str, predicts: str, draws: int | None, words: str
) -> None:
    """Neither runs nor a law are needed to say that none can be suggested."""
    with pytest.raises((InfeasibleError, UsageError), match=words):
        check_form(form, predicts, draws)
    check_form("ludziejewski2025")
    check_form("auto")


@pytest.mark.parametrize(
    "count, max_flops, words",
    [(0, 1e19, "from 1 to 100"), (101, 1e19, "from 1 to 100"), (4, 1e22, "below"), (4, math.inf, "finite")],
)
def test_counts_and_computes_that_cannot_be_are_refused(count: int, max_flops: float, words: str) -> None:
    """No runs, too many, and runs as large as the target."""
    with pytest.raises(UsageError, match=words):
        suggest(law_with_draws(), BUDGET, count, max_flops, base=grid())


def test_too_little_compute_for_any_proxy_is_refused() -> None:
    """At 1e12 FLOPs not even the smallest proxy gets its tokens."""
    with pytest.raises(InfeasibleError, match="small enough"):
        suggest(law_with_draws(), BUDGET, 2, 1e12, base=grid())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """36 runs of the joint law with noise."""
    law = load_law("ludziejewski2025")
    fit = law.objective
    assert fit is not None
    rng = np.random.default_rng(3)
    rows = [(n, n * t, e) for n in np.geomspace(5e7, 8e8, 4) for t in (5.0, 20.0, 80.0) for e in (1.0, 6.0, 30.0)]
    active, tokens, expansion = np.array(rows).T
    loss = fit(active, tokens, expansion) * np.exp(0.003 * rng.standard_normal(len(rows)))
    columns = {"active_params": active, "tokens": tokens, "expansion_ratio": expansion, "loss": loss}
    return write_runs(tmp_path_factory.mktemp("runs") / "runs.csv", columns)


TARGET = "--flops 1e22 --memory 80GB --fix d_model=2048"


def test_the_command_refuses_before_it_reads_the_runs() -> None:
    """A form that no runs can be suggested for ends with exit code 1 and one sentence, though there is no such file."""
    asked = ["fit", "absent.csv", "--form", "clark2022", "--suggest", "3", "--max-flops", "1e20", "--for", TARGET]
    result = CliRunner().invoke(cli, asked)
    assert result.exit_code == 1
    assert "cannot choose a design" in result.stderr
    assert result.stderr.count("\n") == 1


def test_fit_suggests_and_writes_a_list(runs: str, tmp_path: Path) -> None:
    """The command prints the runs in JSON, writes them to a file, and lists them in the report."""
    file = tmp_path / "next.json"
    asked = ["fit", runs, "--form", "ludziejewski2025", "--prior", "ludziejewski2025", "--draws", "100"]
    asked += ["--suggest", "3", "--max-flops", "1e20", "--gpus", "8xA100-80GB", "--days", "2", "--for", TARGET]
    asked += ["--runs", str(file)]
    result = CliRunner().invoke(cli, [*asked, "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)["suggestion"]
    assert printed == read_suggestion(file).to_json()
    jsonschema.validate(json.loads(file.read_text(encoding="utf-8")), document_schema("suggestion"))
    jsonschema.validate(json.loads(result.stdout), document_schema("fit"))
    assert len(printed["runs"]) == 3
    assert printed["target_flops"] == 1e22
    law = from_json(FittedLaw, json.loads(result.stdout))
    assert law.suggestion is not None
    assert law.suggestion.days is not None
    assert law.suggestion.days <= 2
    text = markdown_text(fit_sections(law))
    assert "What to run next" in text
    assert "One after another on 8xA100-80GB SXM they take" in text


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--suggest", "6"], "--suggest needs --max-flops"),
        (["--max-flops", "1e20"], "--max-flops needs --suggest"),
        (["--suggest", "6", "--max-flops", "1e20"], "--suggest needs --for"),
        (["--suggest", "0", "--max-flops", "1e20", "--for", TARGET], "from 1 to 100"),
        (["--suggest", "6", "--max-flops", "1e23", "--for", TARGET], "below"),
        (["--suggest", "6", "--days", "2", "--for", TARGET], "days need gpus"),
        (["--suggest", "6", "--gpus", "8xA100-80GB", "--days", "0", "--for", TARGET], "above 0"),
        (["--suggest", "6", "--gpus", "8xB300000", "--for", TARGET], "B300000"),
        (["--suggest", "6", "--max-params", "-1", "--for", TARGET], "max_params"),
        (["--suggest", "6", "--max-memory", "many", "--for", TARGET], "max_memory"),
        (["--gpus", "8xA100-80GB"], "--gpus needs --suggest"),
        (["--suggest", "6", "--max-flops", "much", "--for", TARGET], "much"),
        (["--suggest", "6", "--max-flops", "1e20", "--for", "--flops 1e22"], "memory limit"),
        (["--suggest", "6", "--max-flops", "1e20", "--for", "--law x"], "--law"),
        (["--suggest", "6", "--max-flops", "1e20", "--for", "'--flops"], "quot"),
        (["--suggest", "6", "--max-flops", "1e20", "--for", "1e22"], "1e22"),
    ],
)
def test_what_cannot_be_suggested_for_is_one_sentence(runs: str, arguments: list[str], words: str) -> None:
    """Each mistake ends with exit code 2 and one sentence that names it, before anything is fitted."""
    result = CliRunner().invoke(cli, ["fit", runs, "--form", "ludziejewski2025", *arguments])
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
