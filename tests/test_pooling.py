"""The pooled leverage: its rule by hand, what it must hold, its calibration, and its score on publications left out."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import combinations

import jsonschema
import numpy as np
import pytest
from scipy import stats

from moeplan import Budget, backtest, plan_schema, recommend
from moeplan.architecture.published import find_model
from moeplan.laws import load_law
from moeplan.laws.law import Outside
from moeplan.laws.leverage import leverage_by, pooled_laws, predict
from moeplan.laws.pooling import (
    _NORMAL,
    _STUDENT,
    LEVEL,
    MEASURED,
    PER_DECADE,
    RANGE_ONLY,
    SCATTER,
    STUDIES,
    beyond,
    farthest,
    pool,
)
from moeplan.laws.roles import LEVERAGE_LAW, POOLED_LAWS, SECOND_OPINIONS
from moeplan.plan.document import Plan
from moeplan.records import to_json
from moeplan.report.page import numbers_without_source
from moeplan.report.plan_page import page_sections
from moeplan.studies.backtest.scores import BackTest, IntervalScore
from tests.generated import ROOT


@pytest.fixture(scope="module")
def test() -> BackTest:
    """The back-test of every bundled law."""
    return backtest()


@pytest.fixture(scope="module")
def small() -> Plan:
    """A plan by which tian2025 says 5.27 and the other laws 2.4, 3.2, 6.0 and 8.7, all outside its own interval."""
    return recommend(Budget("3.7e20", "24GB"), alternatives=0)


@pytest.fixture(scope="module")
def large() -> Plan:
    """A plan far beyond everything measured."""
    return recommend(Budget("3.6e24", "1400GB"), alternatives=0)


def said(plan: Plan) -> list[float]:
    """EL of a plan by every pooled law, for the split of compute that there is."""
    others = {other.law: other.efficiency_leverage for other in plan.leverage.others}
    own = plan.leverage.efficiency_leverage * plan.leverage.allocation_efficiency
    return [{**others, LEVERAGE_LAW: own}[law] for law in plan.leverage.pooled.weights]


def held(plan: Plan, low: float, high: float) -> int:
    """How many of the pooled laws an interval holds."""
    return sum(low <= value <= high for value in said(plan))


# ---------------------------------------------------------------------------------------------------- the rule


def test_pool_by_hand() -> None:
    """Two laws at 2 and 8, the second one decade out: weights 1/v, Student's t of one degree of freedom."""
    found = pool([math.log(2), math.log(8)], [0.0, 1.0], 0.5, scatter=0.3)
    v = (0.09, 0.09 + 0.17**2)
    weights = np.array([1 / v[0], 1 / v[1]])
    mean = (weights * np.log([2, 8])).sum() / weights.sum()
    q = (weights * (np.log([2, 8]) - mean) ** 2).sum()
    assert q > 1
    expected = math.hypot(stats.t.ppf(0.95, 1) * math.sqrt(q / weights.sum()), stats.norm.ppf(0.95) * 0.17 * 0.5)
    assert found.mean == pytest.approx(mean)
    assert found.half_width == pytest.approx(expected, rel=1e-4)
    assert found.weights == pytest.approx(weights / weights.sum())


def test_quantiles() -> None:
    """The quantiles stand in no paper's margin: they are Student's and the normal's at the level."""
    at = (1 + LEVEL) / 2
    assert pytest.approx([stats.t.ppf(at, free) for free in range(1, len(_STUDENT) + 1)], abs=5e-5) == _STUDENT
    assert pytest.approx(stats.norm.ppf(at), abs=5e-5) == _NORMAL
    assert len(_STUDENT) >= len(POOLED_LAWS) - 1


def test_agreement_does_not_shrink_it_and_disagreement_widens_it() -> None:
    """Laws that say the same leave the interval of their scatter; the farther they differ, or lie out, the wider."""
    decades = [0.0] * 5
    alike = pool([1.0] * 5, decades, 0.0)
    assert alike.half_width == pytest.approx(2.1318 * SCATTER / math.sqrt(5))
    widths = [pool([1 - x, 1, 1, 1, 1 + x], decades, 0.0).half_width for x in (0.2, 1.0, 2.0)]
    assert alike.half_width == widths[0] < widths[1] < widths[2]
    assert pool([1.0] * 5, [2.0] * 5, 0.0).half_width > alike.half_width
    assert pool([1.0] * 5, decades, 2.0).half_width > alike.half_width
    far = pool([1.0, 2.0], [0.0, 3.0], 0.0)
    assert far.weights[0] > far.weights[1]
    assert far.mean < 1.5


def test_how_far_outside() -> None:
    """The farthest variable counts; active params and tokens make compute together, so their distances add up."""
    assert farthest([]) == 0.0
    one = [Outside("train_flops", 1e22, 1e18, 1e20), Outside("granularity", 1.0, 10.0, 16.0)]
    assert farthest(one) == pytest.approx(2)
    assert farthest([Outside("active_params", 1e10, 1e7, 1e9), Outside("tokens", 1e14, 1e9, 1e12)]) == pytest.approx(3)
    assert beyond(MEASURED[0]) == beyond(1e20) == beyond(MEASURED[1]) == 0.0
    assert beyond(100 * MEASURED[1]) == pytest.approx(2) == beyond(MEASURED[0] / 100)


def test_one_vote_a_publication() -> None:
    """The pool has every bundled law that knows dense models, and no two of one publication."""
    laws = pooled_laws()
    assert [law.name for law in laws] == list(POOLED_LAWS)
    for one, other in combinations(laws, 2):
        assert one.citation.arxiv != other.citation.arxiv
    assert {law for law in SECOND_OPINIONS if load_law(law).has_dense} <= set(POOLED_LAWS)


@pytest.mark.parametrize("model, tokens", [("OLMoE-1B-7B", 43e9), ("Qwen3-30B-A3B", 1e12), ("DeepSeek-V3", 14.8e12)])
def test_what_is_pooled_is_what_the_laws_say(model: str, tokens: float) -> None:
    """The pooled EL is the weighted geometric mean of the laws' own, tian2025's times phi; it is in its interval."""
    from moeplan.architecture.conventions import Variables

    shape = find_model(model).architecture
    found = predict(load_law(LEVERAGE_LAW), [], shape, tokens, 4096)
    pooled, variables = found.pooled, Variables(shape, 4096)
    logs = [math.log(leverage_by(law, variables, tokens).efficiency_leverage) for law in pooled_laws()]
    logs[0] += math.log(found.allocation_efficiency)
    assert list(pooled.weights) == list(POOLED_LAWS)
    assert sum(pooled.weights.values()) == pytest.approx(1)
    assert math.log(pooled.middle) == pytest.approx(np.dot(list(pooled.weights.values()), logs))
    own = float(variables.get("train_flops", "non_embedding_full_attention", tokens))
    assert pooled.decades_outside == beyond(own)
    assert pooled.dense_low.train_flops == pytest.approx(pooled.low * own)
    assert pooled.dense_high.train_flops == pytest.approx(pooled.high * own)
    if pooled.decades_outside > RANGE_ONLY:
        assert pooled.efficiency_leverage is None
        assert pooled.dense is None
    else:
        assert pooled.efficiency_leverage == pytest.approx(pooled.middle)
        assert pooled.dense is not None
        assert pooled.dense.train_flops == pytest.approx(pooled.middle * own)
        assert pooled.dense_low.total_params < pooled.dense.total_params < pooled.dense_high.total_params


# ---------------------------------------------------------------------------------------------------- what it must hold


def test_a_small_plan_holds_what_the_laws_say(small: Plan) -> None:
    """tian2025's own interval, 4.7 to 5.9, holds no other law; the pooled one holds most laws, and is no wider than
    all of them."""
    own, pooled = small.leverage, small.leverage.pooled
    assert own.efficiency_leverage == pytest.approx(5.27, abs=0.1)
    values = said(small)
    assert sorted(round(value, 1) for value in values[1:]) == pytest.approx([2.4, 3.2, 6.0, 8.7], abs=0.2)
    assert all(not own.low <= other.efficiency_leverage <= own.high for other in own.others)
    assert held(small, pooled.low, pooled.high) >= 3
    assert pooled.efficiency_leverage is not None
    assert min(values) < pooled.efficiency_leverage < max(values)


def test_a_plan_far_out_has_a_range_that_holds_what_the_laws_say(large: Plan) -> None:
    """At 3.6e24 FLOPs laws say 1.3 to 27; the headline has no point, and its range holds four of the five."""
    pooled, values = large.leverage.pooled, said(large)
    assert pooled.efficiency_leverage is None
    assert pooled.decades_outside > RANGE_ONLY
    assert max(values) / min(values) > 15
    assert held(large, pooled.low, pooled.high) >= 4
    assert pooled.high / pooled.low > 10


def test_a_plan_without_a_point_is_a_plan(large: Plan) -> None:
    """Its JSON meets the schema and reads back, and on its page every number has a source."""
    data = json.loads(large.to_text())
    jsonschema.validate(data, plan_schema())
    assert data["leverage"]["pooled"]["efficiency_leverage"] is None
    assert Plan.from_json(data) == large
    assert numbers_without_source(page_sections(large), data) == []


def test_published_models_hold_most_laws() -> None:
    """Over published models at growing compute the interval holds most laws on average, and never fewer than half."""
    law, shares = load_law(LEVERAGE_LAW), []
    for model in ("OLMoE-1B-7B", "Qwen3-30B-A3B", "Mixtral-8x7B", "GLM-4.5", "DeepSeek-V3", "Kimi-K2"):
        shape = find_model(model).architecture
        for per_param in (20, 100, 400):
            found = predict(law, [], shape, per_param * shape.active_params(), 4096)
            values = [found.efficiency_leverage * found.allocation_efficiency]
            values += [other.efficiency_leverage for other in found.others]
            shares.append(np.mean([found.pooled.low <= value <= found.pooled.high for value in values]))
    assert min(shares) >= 0.5
    assert np.mean(shares) >= 0.6


# ---------------------------------------------------------------------------------------------------- the studies


def test_the_rule_states_what_the_back_test_gives(test: BackTest) -> None:
    """Scatter, measured compute and number of studies of the rule are the back-test's, and so is the widening."""
    assert test.pool is not None
    assert pytest.approx(test.pool.scatter, abs=0.005) == SCATTER
    assert pytest.approx((test.pool.measured_low, test.pool.measured_high), rel=0.001) == MEASURED
    assert test.pool.studies == STUDIES == len(test.intervals)
    rule = load_law(LEVERAGE_LAW).predicting("efficiency_leverage").uncertainty
    assert rule is not None
    assert (rule.per_decade_outside, rule.level) == (PER_DECADE, LEVEL)


def scores(test: BackTest) -> dict[str, IntervalScore]:
    """The scores by method."""
    return {score.method: score for score in test.interval_scores}


def test_the_pool_beats_simpler_intervals(test: BackTest) -> None:
    """With each publication left out, the pool's mean interval score is below tian2025's own and a constant's."""
    found = scores(test)
    assert found["pooled"].score < found["tian2025"].score < found["constant"].score
    assert found["pooled"].coverage == 1.0
    assert found["tian2025"].coverage == pytest.approx(8 / 11)
    assert found["pooled"].width < found["constant"].width


def test_interval_scores_by_hand(test: BackTest) -> None:
    """Width plus twenty times the miss, bounds and ranges missed on their side only, one vote a publication."""
    for method, score in scores(test).items():
        by_publication: dict[str, list[float]] = {}
        widths = []
        for row in test.intervals:
            low, high = np.log(row.intervals[method])
            allowed = row.claimed_low or 0.0, row.claimed_high or math.inf
            miss = max(0.0, math.log(allowed[0]) - high if allowed[0] else 0.0, low - math.log(allowed[1]))
            by_publication.setdefault(row.publication, []).append(high - low + 20 * miss)
            widths.append(high - low)
        votes = {name: np.mean(values) for name, values in by_publication.items()}
        assert score.by_publication == pytest.approx(votes)
        assert score.score == pytest.approx(np.mean(list(votes.values())))
        assert score.width == pytest.approx(np.median(widths))
    assert len(scores(test)["pooled"].by_publication) == 5


def test_a_constant_is_a_log_normal_of_what_is_left(test: BackTest) -> None:
    """Without OLMoE's publication three means are left, of ln EL at equal loss: Student's predictive interval."""
    rows = {row.study: row for row in test.intervals}
    equal: dict[str, list[float]] = {}
    for row in test.intervals:
        if row.claimed_low == row.claimed_high and row.publication != rows["olmoe-1b-7b"].publication:
            equal.setdefault(row.publication, []).append(math.log(row.claimed_low or 0))
    votes = [np.mean(values) for values in equal.values()]
    assert len(votes) == 3
    half = stats.t.ppf(0.95, 2) * np.std(votes, ddof=1) * math.sqrt(1 + 1 / 3)
    found = rows["olmoe-1b-7b"].intervals["constant"]
    assert np.log(found) == pytest.approx([np.mean(votes) - half, np.mean(votes) + half])
    # Its plain normal, narrower, does worse still.
    plain = 1.6449 * np.std(votes, ddof=1)
    claimed = math.log(rows["olmoe-1b-7b"].claimed_low or 0)
    assert 2 * plain + 20 * max(0, np.mean(votes) - plain - claimed) > 2 * half


def test_what_is_left_out_is_left_out_whole(test: BackTest) -> None:
    """Another loss of a left-out MoE, or another digit of its own law, changes nothing of its pooled interval."""
    from moeplan.studies.backtest.intervals import leverage_intervals

    laws = list(pooled_laws())

    def again(**changes: float) -> dict[str, tuple[float, ...]]:
        results = [
            dataclasses.replace(
                row,
                predictions=tuple(
                    dataclasses.replace(said, predicted=said.predicted and said.predicted * changes.get(said.law, 1.0))
                    for said in row.predictions
                ),
            )
            for row in test.results
        ]
        _, rows, _ = leverage_intervals(laws, results, test.ladder)
        return {row.study: row.intervals["pooled"] for row in rows}

    for row in test.intervals:
        assert again()[row.study] == pytest.approx(row.intervals["pooled"])
    moved = again(tian2025=1.5)
    assert moved["ling-mini-beta"] == again()["ling-mini-beta"], "tian2025's own publication"
    assert moved["olmoe-1b-7b"] != again()["olmoe-1b-7b"]


def test_only_where_every_pooled_law_is_asked() -> None:
    """The back-test of one law says nothing of the pool."""
    alone = backtest([LEVERAGE_LAW])
    assert (alone.pool, alone.intervals, alone.interval_scores) == (None, (), ())


def test_json_has_it(test: BackTest) -> None:
    """Scores, intervals and calibration stand in the JSON."""
    data = json.loads(json.dumps(to_json(test), allow_nan=False))
    assert {score["method"] for score in data["interval_scores"]} == {"pooled", "tian2025", "constant"}
    assert data["pool"]["studies"] == len(data["intervals"])
    assert {"study", "publication", "claimed_low", "claimed_high", "intervals"} == set(data["intervals"][0])


# ---------------------------------------------------------------------------------------------------- one answer


def test_leverage_chooses_nothing(small: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another pool the plan is the same to the byte, but for what is said of the pooled leverage."""
    from moeplan.laws import leverage

    monkeypatch.setattr(leverage, "POOLED_LAWS", (LEVERAGE_LAW, "abnar2025"))
    other = recommend(Budget("3.7e20", "24GB"), alternatives=0).to_json()
    mine = small.to_json()
    assert other["leverage"].pop("pooled") != mine["leverage"].pop("pooled")
    mine["leverage"].pop("others")
    other["leverage"].pop("others")
    mine["provenance"].pop("law_digests")
    other["provenance"].pop("law_digests")
    assert json.dumps(other, sort_keys=True) == json.dumps(mine, sort_keys=True)


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("PER_DECADE", 0.0, "0 in its place scores {:.2f}"),
        ("PER_DECADE", 0.3, ".3 scores {:.2f}"),
        ("_STUDENT", (_NORMAL,) * 10, "normal quantiles in place of Student's ({:.2f}, misses)"),
    ],
)
def test_docs_tell_what_else_was_tried(
    name: str, value: object, words: str, test: BackTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The docs' scores of other constants are those that the back-test gives with them; its table is generated."""
    from moeplan.laws import pooling
    from moeplan.studies.backtest import intervals

    monkeypatch.setattr(pooling, name, value)
    monkeypatch.setattr(intervals, name, value, raising=False)
    _, _, found = intervals.leverage_intervals(pooled_laws(), test.results, test.ladder)
    docs = " ".join((ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8").split())
    assert words.format(next(score for score in found if score.method == "pooled").score) in docs
    assert "begin generated: intervals" in docs
