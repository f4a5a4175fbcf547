"""The measured leverage: planted values are covered, verdicts follow their definition. Nothing here trains."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from scipy.special import stdtrit

from moeplan.architecture.shape import Architecture
from moeplan.errors import InfeasibleError
from moeplan.plan.document import Plan
from moeplan.report.blocks import Chart, Section
from moeplan.report.charts import charts_of
from moeplan.report.schemas import document_schema
from moeplan.report.terminal import terminal_text
from moeplan.report.verification import verification_charts, verification_sections
from moeplan.verification import estimate, study
from moeplan.verification.choice import LadderChoice
from moeplan.verification.estimate import MeasuredLeverage, measure
from moeplan.verification.groups import Group
from moeplan.verification.ladder import Ladder
from moeplan.verification.leverage_study import LeverageStudy
from moeplan.verification.machine import Machine
from moeplan.verification.noise import noise_of
from moeplan.verification.options import StudyOptions
from moeplan.verification.power import power
from moeplan.verification.save import COLUMNS, runs_csv
from moeplan.verification.spec import RunResult
from moeplan.verification.study import Prepared
from moeplan.verification.verdict import UNHEALTHY_LOAD, reach_verdict, seeds_needed
from moeplan.verification.verification import Verification, verification_schema
from tests.verify_cases import DATA, PLANNED, invented, invented_result, plan_for, small_ladder


def plain_interval(moe: list[Group], dense: list[Group], rng: np.random.Generator) -> tuple[float, float]:
    """ln of the percentile interval at the largest budget by a plain bootstrap: seeds with replacement, the same for
    every run, and documents with replacement."""
    count, documents, seeds = 1000, len(moe[0].document_tokens), len(moe[0].seeds)
    weights = rng.multinomial(documents, np.full(documents, 1 / documents), size=count).astype(float)
    tokens = weights @ moe[0].document_tokens
    picks = rng.integers(seeds, size=(count, seeds))
    drawn = []
    for groups in (moe, dense):
        columns = []
        for group in groups:
            losses = np.log((weights @ group.documents.T) / tokens[:, None])
            columns.append(np.take_along_axis(losses, picks, axis=1).mean(axis=1))
        drawn.append(np.stack(columns, axis=1))
    ours, theirs = estimate.envelope(moe, drawn[0]), estimate.envelope(dense, drawn[1])
    sample = estimate.invert(theirs.log_flops, theirs.log_losses, ours.log_losses[:, -1]) - ours.log_flops[:, -1]
    low, high = np.quantile(sample, [0.05, 0.95])
    return float(low), float(high)


@pytest.mark.parametrize("leverage, noise", [(1.3, (0.012, 0.010)), (0.8, (0.02, 0.01))])
def test_planted_leverage_is_covered(leverage: float, noise: tuple[float, float]) -> None:
    """In at least 85 % of 200 trials with two seeds the 90 % interval holds the planted leverage, at most twice as
    wide as a plain bootstrap's; so it does where the MoE's losses spread twice as far as the dense ones."""
    rng = np.random.default_rng(7)
    covered, widths, plain = 0, [], []
    for _ in range(200):
        moe, dense = invented(rng, leverage, noise=noise)
        found = measure(moe, dense)[-1]
        covered += found.low <= leverage <= found.high
        widths.append(math.log(found.high / found.low))
        low, high = plain_interval(moe, dense, rng)
        plain.append(high - low)
    assert covered >= 170
    assert np.median(widths) <= 2 * np.median(plain)
    assert np.mean(widths) <= 2 * np.mean(plain)


@pytest.mark.parametrize(
    "leverage, falls, seeds",
    [
        (1.0, 3.0, 2),
        pytest.param(1.6, 4.4, 2, marks=pytest.mark.slow),
        pytest.param(1.0, 2.0, 3, marks=pytest.mark.slow),
    ],
)
def test_a_planted_leverage_is_covered_where_noise_falls(leverage: float, falls: float, seeds: int) -> None:
    """Where noise falls with tokens as steeply as measured the interval holds the planted leverage in at least 85 % of
    100 trials, 1 (a plan against itself) included, and is narrower than with one level of noise for all runs."""
    rng = np.random.default_rng(5)
    covered, widths, level = 0, [], []
    for _ in range(100):
        arms = invented(rng, leverage, noise=(0.005, 0.005), falls=falls, shared=0.003, seeds=seeds)
        found, even = (measure(*each)[-1] for each in (arms, one_length(arms)))
        covered += found.low <= leverage <= found.high
        widths.append(math.log(found.high / found.low))
        level.append(math.log(even.high / even.low))
    assert covered >= 85
    assert np.median(widths) < np.median(level)


def one_length(arms: tuple[list[Group], list[Group]]) -> tuple[list[Group], list[Group]]:
    """The same runs as if all had one number of tokens."""
    moe, dense = ([dataclasses.replace(group, tokens=10**7) for group in arm] for arm in arms)
    return moe, dense


def test_noise_is_found_where_it_was_planted() -> None:
    """In the median of 100 worlds the noise of the longest dense runs is found 10 % too small to 20 % too large and its
    fall within a quarter, whether all runs of a seed share nothing or a great deal."""
    for shared in (0.0, 0.1):
        rng, scales, falls = np.random.default_rng(2), [], []
        for _ in range(100):
            arms = invented(rng, 1.3, noise=(0.02, 0.01), falls=3.0, shared=shared, documents=400)
            found = noise_of(arms).scales[1]
            longest, shortest = (pick(arms[1], key=lambda group: group.tokens) for pick in (max, min))
            first, last = (found[arms[1].index(group)] for group in (shortest, longest))
            scales.append(last)
            falls.append(2 * math.log(first / last) / math.log(longest.tokens / shortest.tokens))
        assert 0.009 <= np.median(scales) <= 0.012
        assert np.median(falls) == pytest.approx(3.0, rel=0.25)


def test_one_level_of_noise_has_the_freedom_of_welch_and_satterthwaite() -> None:
    """Where all runs have the same tokens, degrees of freedom are (sum of variances)^2 / sum of squares over n each."""
    moe, dense = one_length(invented(np.random.default_rng(1), 1.3))
    pulls = np.array([3.0, *[0.0] * (len(moe) - 1), 1.0, *[0.0] * (len(dense) - 1)])
    freedom = (3 + 1) ** 2 / (3**2 / estimate.degrees_of_freedom(moe) + 1 / estimate.degrees_of_freedom(dense))
    expected = stdtrit(freedom, 0.95) / stdtrit(1e9, 0.95)
    assert noise_of((moe, dense)).student_factor(pulls, 0.9) == pytest.approx(expected, rel=1e-6)


def test_without_a_second_seed_there_is_no_noise() -> None:
    """Single runs say nothing of noise: none is drawn, and no factor stretches what documents bring."""
    arms = invented(np.random.default_rng(1), 1.3, seeds=1)
    found = noise_of(arms)
    assert not np.concatenate(found.scales).any()
    assert found.student_factor(np.ones(len(arms[0]) + len(arms[1])), 0.9) == 1.0


@pytest.mark.parametrize("leverage", [0.6, 1.0, 1.9])
def test_without_noise_the_leverage_is_exact(leverage: float) -> None:
    """Noiseless losses give the planted leverage to 3 %, what is left being the curve between dense budgets."""
    moe, dense = invented(np.random.default_rng(0), leverage, noise=(0, 0), shared=0, documents=200)
    for found in measure(moe, dense):
        assert found.efficiency_leverage == pytest.approx(leverage, rel=0.03)


def test_six_budgets_let_an_irreducible_loss_be_fitted() -> None:
    """With six dense budgets a third estimator stands beside the others and comes nearer than one power law."""
    budgets = (0.25, 0.5, 1, 2, 4, 8)
    moe, dense = invented(np.random.default_rng(0), 1.5, noise=(0, 0), shared=0, documents=500, dense_budgets=budgets)
    by = measure(moe, dense)[-1].by_estimator
    assert set(by) == set(estimate.ESTIMATORS)
    assert abs(math.log(by["irreducible_loss"] / 1.5)) < abs(math.log(by["power_law"] / 1.5))
    moe, dense = invented(np.random.default_rng(0), 1.5)
    assert "irreducible_loss" not in measure(moe, dense)[-1].by_estimator


@pytest.mark.parametrize("leverage, bound", [(20.0, "at least"), (0.03, "at most")])
def test_nothing_is_read_far_outside_the_dense_budgets(leverage: float, bound: str) -> None:
    """A MoE beyond what dense runs bracket gets a bound at 1.5 times the last dense budget, and no time ratio."""
    moe, dense = invented(np.random.default_rng(3), leverage)
    found = measure(moe, dense)[-1]
    edge = 1.5 * 4 / 2 if bound == "at least" else 0.5 / 1.5 / 2
    assert found.bound == bound
    assert found.efficiency_leverage == pytest.approx(edge, rel=1e-6)
    assert found.wall_clock is None
    assert edge / 1.001 <= found.high if bound == "at least" else found.low <= edge * 1.001


def test_what_both_arms_share_cancels() -> None:
    """Noise that all runs of a seed share, however large, moves neither value nor interval by much."""
    quiet, loud = (measure(*invented(np.random.default_rng(11), 1.3, shared=shared))[-1] for shared in (0.0, 0.2))
    assert quiet.efficiency_leverage == pytest.approx(loud.efficiency_leverage, rel=0.05)
    ratio = math.log(loud.high / loud.low) / math.log(quiet.high / quiet.low)
    assert 0.8 < ratio < 1.25


def test_time_ratio_is_compute_ratio_times_speed_ratio() -> None:
    """Dense runs three times as fast a FLOP turn a leverage of 1.5 in compute into 0.5 in time."""
    moe, dense = invented(np.random.default_rng(0), 1.5, noise=(0, 0), shared=0, documents=200)
    found = measure(moe, dense)[-1]
    assert found.wall_clock == pytest.approx(found.efficiency_leverage / 3, rel=1e-6)


def test_envelope_takes_the_least_and_never_rises() -> None:
    """The best size of a budget counts; a dearer budget with a larger loss is pooled with its neighbour."""
    values = np.array([[3.0, 2.0, 2.4, 1.0], [1.0, 2.0, 3.0, 4.0]])
    assert estimate.falling(values).tolist() == [[3.0, 2.2, 2.2, 1.0], [2.5, 2.5, 2.5, 2.5]]
    moe, _ = invented(np.random.default_rng(0), 1.0)
    for group in estimate.frontier(moe):
        rivals = [g for g in moe if g.budget == group.budget]
        assert np.mean(group.losses) == min(np.mean(g.losses) for g in rivals)


def test_one_budget_or_none_measures_nothing() -> None:
    """Without two dense budgets, or without MoE runs, there is no leverage."""
    moe, dense = invented(np.random.default_rng(0), 1.0)
    assert measure(moe, dense[:2]) == ()
    assert measure([], dense) == ()


# Verdicts ---------------------------------------------------------------------------------------------------------


def measured(low: float, high: float, *, freedom: int = 12, seeds: int = 2) -> MeasuredLeverage:
    """A leverage with this interval."""
    value = math.sqrt(low * high)
    return MeasuredLeverage(
        1e12, 2.0, "1e12/d64L2", value, low, high, 0.9, "", low, high, {"envelope": value}, 1.0, seeds, freedom
    )


def verdict(
    low: float, high: float, *, plan: tuple[float, float] = (4, 9), here: float = 1.5, load: float = 2.0
) -> str:
    """The verdict on an interval."""
    return reach_verdict(measured(low, high), plan_low=plan[0], plan_high=plan[1], law_here=here, load=load).verdict


def test_verdicts_follow_their_definition() -> None:
    """Each verdict where, and only where, its definition says."""
    assert verdict(1.1, 1.6) == "consistent"
    assert verdict(1.1, 1.6, here=0.5) == "consistent"  # more than the law expects so small
    assert verdict(0.5, 0.9) == "inconsistent in sign"
    assert verdict(0.9, 1.6) == "underpowered"
    assert verdict(0.5, 0.9, here=0.7) == "underpowered"  # the law itself expects a loss at this compute
    assert verdict(0.5, 0.9, load=4.1) == "router unhealthy"
    assert verdict(0.9, 1.6, load=4.1) == "router unhealthy"
    assert verdict(1.1, 1.6, load=4.1) == "consistent"  # it won in spite of its router
    assert verdict(0.5, 0.9, load=UNHEALTHY_LOAD) == "inconsistent in sign"
    assert verdict(0.5, 0.9, plan=(0.4, 0.8), here=0.7) == "consistent"
    assert verdict(1.1, 1.6, plan=(0.4, 0.8), here=0.7) == "inconsistent in sign"
    assert verdict(1.1, 1.6, plan=(0.9, 1.3)) == "underpowered"  # the plan claims no side


def test_one_seed_decides_nothing() -> None:
    """Without a second seed there is no interval, so nothing is consistent or inconsistent."""
    for interval in ((1.1, 1.6), (0.5, 0.9)):
        one = reach_verdict(measured(*interval, freedom=0, seeds=1), plan_low=4, plan_high=9, law_here=2.0, load=1.5)
        assert one.verdict == "underpowered"
        assert "two seeds" in one.reason


def test_seeds_needed_shrink_the_interval_past_one() -> None:
    """An interval whose half-width is twice the effect needs a little more than four times the seeds."""
    found = measured(math.exp(0.1 - 0.2), math.exp(0.1 + 0.2))
    assert seeds_needed(found) == math.ceil(2 * (1.1 * 2) ** 2)
    assert seeds_needed(measured(0.5, 2.0)) is None


# A whole study with invented runs ----------------------------------------------------------------------------------


def studied(
    leverage: float, *, base: float = 1e15, seeds: int = 3, controls: bool = False
) -> tuple[Verification, Plan]:
    """What a study of the planned model says in a world with this leverage."""
    plan = plan_for(PLANNED)
    ladder = small_ladder(base, seeds=seeds, controls=controls)
    rng = np.random.default_rng(1)
    tuned, results = invented_runs(ladder, leverage, rng)
    machine = Machine("an invented one", False, "fp32", 2, lambda spec: spec.tokens / 1e5)
    planned = LeverageStudy(plan).outline_of(LadderChoice(ladder, ""), DATA, machine)
    return LeverageStudy(plan).conclude(
        Prepared(planned, ladder, DATA), tuned, results, command="moeplan verify plan.json"
    ), plan


def invented_runs(ladder: Ladder, leverage: float, rng: np.random.Generator) -> tuple[list[RunResult], list[RunResult]]:
    """Results of every run of a ladder."""
    specs = ladder.tuning(DATA)
    rates = {"moe": specs[1].learning_rate, "dense": specs[4].learning_rate}
    measuring = ladder.measured(DATA, rates, lambda rate, old, new: rate * old / new)
    return (
        [invented_result(spec, rng, leverage) for spec in specs],
        [invented_result(spec, rng, leverage) for spec in measuring],
    )


def test_a_planted_effect_is_consistent_and_a_reversed_one_is_not() -> None:
    """Where the law expects the plan's side, a leverage of 1.8 reads consistent and one of 0.55 inconsistent in sign;
    both are outside the law's domain below 1e18 FLOPs."""
    for leverage, expected in ((1.8, "consistent"), (0.55, "inconsistent in sign")):
        found, _ = studied(leverage)
        last = found.leverages[-1]
        assert last.law_here > 1
        assert found.verdict == expected
        assert last.measured.low <= leverage <= last.measured.high
        assert found.outside_domain
        assert any("utside the law's domain" in note for note in found.notes)
        assert "extrapolat" in " ".join(found.notes)


def test_runs_too_small_to_contradict_are_underpowered() -> None:
    """At 1e10 FLOPs the law, extrapolated, expects dense models to win: losing there is no evidence, and the larger
    runs that would be are named with their time."""
    found, _ = studied(0.55, base=1e10)
    assert found.leverages[-1].law_here < 1
    assert found.leverages[-1].measured.high < 1
    assert found.verdict == "underpowered"
    assert "cannot contradict" in found.reason
    assert found.power.train_flops is not None
    assert found.power.train_flops > found.leverages[-1].measured.train_flops
    assert "--time" in found.power.says


def test_an_open_question_names_seeds_and_time() -> None:
    """An interval around 1 gets the number of seeds and the time that would leave 1 out."""
    found, plan = studied(1.0, base=1e11, seeds=2)
    wide = dataclasses.replace(
        found.leverages[-1], measured=measured(0.92, 1.25), verdict="underpowered", reason="the interval contains 1"
    )
    advice = power(plan, wide, small_ladder(1e11), DATA, found.outline)
    assert advice.seeds is not None
    assert advice.seeds > 2
    assert f"--seeds {advice.seeds} --time" in advice.says
    assert advice.detectable == pytest.approx(math.sqrt(1.25 / 0.92))


def test_controls_come_out_as_known() -> None:
    """One expert covers a leverage of 1, other seeds cover it, and a frozen router is worse."""
    found, _ = studied(1.5, controls=True)
    by_name: dict[str, list[str]] = {}
    for control in found.controls:
        by_name.setdefault(control.control, []).append(control.verdict)
        if control.control == "one_expert":
            assert control.low <= 1 <= control.high
    assert by_name == {
        "one_expert": ["as expected"], "second_seed": ["as expected"], "frozen_router": ["as expected"]
    }  # fmt: skip


def test_a_control_that_fails_is_seen() -> None:
    """If a frozen router did better than the trained one, its line would say not as expected."""
    plan, ladder = plan_for(PLANNED), small_ladder(1e15, seeds=3, controls=True)
    rng = np.random.default_rng(1)
    tuned, results = invented_runs(ladder, 1.5, rng)
    better = [
        dataclasses.replace(
            r, loss=r.loss * 0.8, document_losses=tuple(x * 0.8 for x in r.document_losses)
        ) if r.spec.frozen_router else r
        for r in results
    ]  # fmt: skip
    machine = Machine("x", False, "fp32", 2, lambda spec: 1.0)
    planned = LeverageStudy(plan).outline_of(LadderChoice(ladder, ""), DATA, machine)
    found = LeverageStudy(plan).conclude(Prepared(planned, ladder, DATA), tuned, better)
    assert {c.control: c.verdict for c in found.controls}["frozen_router"] == "not as expected"


def test_diverged_runs_are_told_and_count_nowhere() -> None:
    """A run that diverged twice leaves its rung with the other seeds and is in the notes; an arm without any run at
    all is refused."""
    plan, ladder = plan_for(PLANNED), small_ladder(1e15, seeds=3)
    tuned, results = invented_runs(ladder, 1.5, np.random.default_rng(1))
    machine = Machine("x", False, "fp32", 2, lambda spec: 1.0)
    planned = LeverageStudy(plan).outline_of(LadderChoice(ladder, ""), DATA, machine)

    def diverged(result: RunResult) -> RunResult:
        return dataclasses.replace(
            result, status="diverged", attempts=2, loss=0.0, document_losses=(), document_tokens=()
        )

    found = LeverageStudy(plan).conclude(Prepared(planned, ladder, DATA), tuned, [diverged(results[0]), *results[1:]])
    assert any("1 runs diverged" in note for note in found.notes)
    assert sum(run.status == "diverged" for run in found.runs) == 1
    assert runs_csv(found.runs, found.outline.seq_len).count("\n") == len(results)  # a heading, and all but one
    gone = [diverged(r) if r.spec.arm == "moe" else r for r in results]
    with pytest.raises(InfeasibleError, match="diverged"):
        LeverageStudy(plan).conclude(Prepared(planned, ladder, DATA), tuned, gone)


def test_an_unbalanced_router_is_the_verdict() -> None:
    """An expert with five times the mean load is told as such, not held against the plan."""
    plan, ladder = plan_for(PLANNED), small_ladder(1e15, seeds=3)
    tuned, results = invented_runs(ladder, 0.6, np.random.default_rng(1))
    sick = [
        dataclasses.replace(r, routing=dataclasses.replace(r.routing, load=(5.0,))) if r.routing else r for r in results
    ]
    machine = Machine("x", False, "fp32", 2, lambda spec: 1.0)
    planned = LeverageStudy(plan).outline_of(LadderChoice(ladder, ""), DATA, machine)
    found = LeverageStudy(plan).conclude(Prepared(planned, ladder, DATA), tuned, sick)
    assert found.verdict == "router unhealthy"
    assert "5.0 times" in found.reason


# What is written ----------------------------------------------------------------------------------------------------


def test_json_goes_out_and_back_and_fits_its_schema() -> None:
    """A verification survives JSON, and the schema accepts it."""
    found, _ = studied(1.5, controls=True)
    data = json.loads(json.dumps(found.to_json()))
    assert verification_schema() == document_schema("verification")
    jsonschema.validate(data, verification_schema())
    jsonschema.validate(data["outline"], document_schema("verification_outline"))
    assert Verification.from_json(data).to_json() == data


def test_the_report_says_what_was_found() -> None:
    """Headline with verdict, both leverages and the domain; the law's value here is marked as extrapolated."""
    found, plan = studied(1.5, controls=True)
    text = terminal_text(verification_sections(found), 100)
    head = " ".join(text.split())[:300]
    assert head.startswith("Consistent (outside the law's domain): measured leverage 1.")
    pooled = plan.leverage.pooled
    assert f"predicts {pooled.middle:#.2g}x ({pooled.low:#.2g}x–{pooled.high:#.2g}x) at" in head.replace("* ", " ")
    far = dataclasses.replace(found, plan_decades_outside=2.5)
    head = " ".join(terminal_text(verification_sections(far), 100).split())[:300]
    assert f"predicts {pooled.low:#.2g}x–{pooled.high:#.2g}x* at" in head, "beyond two decades there is no point"
    assert "as expected" in text
    law = next(line for line in text.splitlines() if line.strip().endswith("consistent"))
    assert law.split()[-2].endswith("x*")


def test_charts_hold_both_arms_and_both_leverages() -> None:
    """Loss against compute has runs and envelope of each arm; the leverage has its interval and the prediction."""
    found, plan = studied(1.5)
    charts = verification_charts(found)
    assert all(isinstance(chart, Chart) for chart in charts)
    loss, leverage = charts_of([Section("", charts)])
    assert [series.name for series in loss.series] == ["MoE envelope", "MoE runs", "dense envelope", "dense runs"]
    runs = loss.series[1]
    assert len(runs.x) == sum(r.arm == "moe" and r.purpose == "measure" for r in found.runs)
    assert leverage.series[0].low[-1] == found.leverages[-1].measured.low
    assert leverage.series[2].y == (plan.leverage.pooled.middle,)


def test_runs_are_saved_as_glossary_columns() -> None:
    """One row a measured run, counts equal to the architecture's, dense runs with ratios of one."""
    found, _ = studied(1.5, controls=True)
    lines = [line.split(",") for line in runs_csv(found.runs, found.outline.seq_len).splitlines()]
    assert tuple(lines[0]) == COLUMNS
    rows = [dict(zip(COLUMNS, line, strict=True)) for line in lines[1:]]
    measured_runs = [r for r in found.runs if r.purpose == "measure" and not r.control]
    assert len(rows) == len(measured_runs)
    for row, run in zip(rows, measured_runs, strict=True):
        shape: Architecture = run.architecture
        assert int(row["total_params"]) == shape.total_params()
        assert int(row["active_params"]) == shape.active_params()
        assert float(row["loss"]) == pytest.approx(run.loss, rel=1e-6)
        assert int(row["train_flops"]) == pytest.approx(run.train_flops, rel=1e-9)
        dense = run.arm == "dense"
        assert (float(row["activation_ratio"]), float(row["expansion_ratio"])) == (
            (1.0, 1.0) if dense else (pytest.approx(8 / 184), pytest.approx(185 / 9))
        )


@pytest.mark.parametrize("faster", ["fp32", "bf16"])
def test_the_arithmetic_that_allows_larger_runs_is_taken(
    faster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """auto takes the arithmetic whose ladder is larger in the same time, whatever was faster in the probe's shapes."""
    machine = Machine("x", False, "fp32", 2, lambda spec: spec.tokens / (1e5 if spec.precision == faster else 5e4))
    monkeypatch.setattr(study, "probe_machine", lambda where, folder: machine)
    monkeypatch.setattr(study, "describe", lambda source, folder: DATA)
    planned = study.outline(LeverageStudy(plan_for(PLANNED), StudyOptions(time=600.0)), tmp_path)
    assert planned.precision == faster
    assert planned.seconds is not None
    assert planned.seconds <= 600
