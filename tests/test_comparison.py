"""`moeplan compare`: MoE against dense at equal something, any two models, and what each law says of them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner, Result

import moeplan
from moeplan import records
from moeplan.architecture.conventions import Variables
from moeplan.architecture.proportions import DENSE_WIDTHS, dense_of_size, dense_shape, nearest_dense
from moeplan.architecture.published import find_model
from moeplan.architecture.shape import Architecture
from moeplan.cli import cli
from moeplan.cost.inference_memory import total_inference_bytes
from moeplan.errors import InfeasibleError, LawError, UsageError
from moeplan.laws import load_law
from moeplan.laws.dense import optimal_dense
from moeplan.plan.budget import Budget
from moeplan.plan.document import Plan
from moeplan.plan.planner import recommend
from moeplan.quantities import times
from moeplan.report.blocks import Items, Section, Table
from moeplan.report.comparison import better_by, comparison_charts, comparison_sections
from moeplan.report.markdown import markdown_text
from moeplan.report.page import numbers_without_source
from moeplan.report.sections import headline
from moeplan.report.terminal import terminal_text
from moeplan.report.text import Text
from moeplan.studies.comparison import compare
from moeplan.studies.comparison.answers import best_dense, law_column
from moeplan.studies.comparison.candidate import state_bytes
from moeplan.studies.comparison.findings import findings
from moeplan.studies.comparison.optima import savings, spread
from moeplan.studies.comparison.resources import (
    EqualResources,
    bits_at,
    equal_resources,
    interpolated,
    studies,
    verdict,
    zhao2025_rates,
)
from moeplan.studies.comparison.result import Comparison
from moeplan.units import format_count, parse_bytes, parse_count, parse_flops
from tests.exported import SHAPES

BUDGET = ("1e22", "80GB")
LUDZIEJEWSKI_SAVINGS = {
    1e20: {2: 0.122, 4: 0.263, 8: 0.405, 16: 0.534, 32: 0.641},
    1e22: {2: 0.170, 4: 0.340, 8: 0.489, 16: 0.608, 32: 0.699},
}
"""FLOP savings against the compute-optimal dense model by the joint coefficients of ludziejewski2025."""


def run(*args: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, ["compare", *args], prog_name="moeplan", env={"COLUMNS": "80"})


def text_of(found: Comparison, width: int = 100) -> str:
    """The report without line breaks."""
    return " ".join(terminal_text(comparison_sections(found), width).split())


@pytest.fixture(scope="module")
def plan() -> Plan:
    """What is recommended at the budget."""
    return recommend(Budget(*BUDGET), alternatives=0)


@pytest.fixture(scope="module")
def overview() -> Comparison:
    """The recommended MoE beside four dense models."""
    return compare(Budget(*BUDGET), command="moeplan compare --flops 1e22 --memory 80GB")


@pytest.fixture(scope="module")
def strict() -> Comparison:
    """About the 2B study of li2025: its compute, and a MoE of 2B with a fifth of its params active."""
    return compare(Budget("9.3e20", "5GB", fix={"active_param_ratio": 0.2}), equal="resources")


@pytest.fixture(scope="module")
def pair() -> Comparison:
    """The pair of tian2025's own validation: same tokens, final losses within .01 of each other."""
    return compare("ling-mini-beta@1T", "ling-dense-6.1b", tokens="1T")


def pointed_at(data: Any, path: str) -> Any:
    """What a JSON pointer leads to."""
    for part in path.split("/")[1:]:
        data = data[int(part)] if isinstance(data, list) else data[part]
    return data


def resources(found: Comparison) -> EqualResources:
    """The strict comparison of an answer that has one."""
    assert found.resources is not None
    return found.resources


# Each law's own optimum


@pytest.mark.parametrize("train_flops", LUDZIEJEWSKI_SAVINGS)
def test_savings_are_those_of_the_paper(train_flops: float) -> None:
    """ludziejewski2025's savings against its best dense model are the paper's, within one percentage point."""
    found = {s.settings["expansion_ratio"]: s.saving for s in savings(load_law("ludziejewski2025"), train_flops)}
    assert set(found) == set(LUDZIEJEWSKI_SAVINGS[train_flops])
    for expansion, expected in LUDZIEJEWSKI_SAVINGS[train_flops].items():
        assert found[expansion] == pytest.approx(expected, abs=0.01), expansion


def test_laws_that_disagree_stand_beside_each_other() -> None:
    """At 1e20 krajewski2024's best MoE is worth 21.3 times its compute where ludziejewski2025 saves 2.8 times."""
    found = compare(Budget("1e20", "24GB"), equal="compute")
    largest = {s.law: s for s in sorted(found.savings, key=lambda s: s.times)}
    assert largest["krajewski2024/moe-e64"].leverage == pytest.approx(21.3, rel=0.01)
    assert largest["ludziejewski2025"].times == pytest.approx(2.8, rel=0.01)
    ends = found.savings_spread
    assert ends is not None
    assert (ends.low_law, ends.high_law) == ("ludziejewski2025", "krajewski2024")
    assert (ends.low, ends.high) == (largest["ludziejewski2025"].times, largest["krajewski2024/moe-e64"].times)
    text = text_of(found)
    assert "C_dense/C 2.90x to 21.3x. They are not averaged." in text
    assert "2.79x by ludziejewski2025" in text


def test_a_law_without_dense_models_refuses(overview: Comparison) -> None:
    """zhao2025 says nothing about dense models, and the report says that it does not."""
    with pytest.raises(LawError, match="no dense counterpart"):
        savings(load_law("zhao2025"), 1e22)
    silent = {law.law: law.reason for law in overview.silent}
    assert silent["zhao2025"] == "law zhao2025 has no dense counterpart, so it says nothing about dense models"
    assert {column.law for column in overview.laws}.isdisjoint(silent)
    assert re.search(r"Laws .*zhao2025.* have no dense counterpart", text_of(overview))
    with pytest.raises(UsageError, match="zhao2025"):
        overview.law("zhao2025")


def test_the_spread_needs_two_laws() -> None:
    """One law alone has no spread."""
    assert spread(savings(load_law("ludziejewski2025"), 1e20)) is None


# The dense models


def test_dense_models_are_equal_in_what_they_should_be(overview: Comparison, plan: Plan) -> None:
    """Compute is equal to the last token, params to half a percent."""
    models = {model.role: model for model in overview.models}
    for role in ("compute_optimal", "equal_total_params", "equal_active_params"):
        assert models[role].train_flops == pytest.approx(plan.counts.train_flops, rel=1e-9)
    for role, params in (
        ("equal_total_params", plan.design.total_params),
        ("equal_active_params", plan.design.active_params),
    ):
        assert models[role].total_params == pytest.approx(params, rel=0.005)
    assert models["equal_loss"].architecture == plan.leverage.dense.architecture
    assert all(model.is_dense == (model.role != "recommended") for model in overview.models)
    assert all(model.active_params == model.total_params for model in overview.models if model.is_dense)


@pytest.mark.parametrize("train_flops", [1e19, 1e21, 1e23, 1e25])
def test_the_best_dense_model_is_split_as_tian2025_says(train_flops: float) -> None:
    """Its FLOPs per token are the dense allocation's, within the step of the shapes."""
    law, like = load_law("tian2025"), find_model("olmoe-1b-7b").architecture
    shape = optimal_dense(law, train_flops, like, 4096)
    own = float(Variables(shape, 4096).get("flops_per_token", "non_embedding_full_attention"))
    tokens = train_flops / shape.flops_per_token(4096)
    # Steps of whole layers are coarse for the smallest models.
    assert own == pytest.approx(0.0655 * (own * tokens) ** 0.5422, rel=0.03 if train_flops > 1e20 else 0.12)
    assert shape.vocab_size == like.vocab_size


@pytest.mark.parametrize("params", [3e8, 1e9, 7e9, 70e9, 1e12])
def test_dense_shapes_meet_their_size(params: float) -> None:
    """Any size is met within half a percent from a billion params on."""
    shape = dense_of_size(params, find_model("olmoe-1b-7b").architecture)
    assert shape.total_params() == pytest.approx(params, rel=0.005 if params >= 1e9 else 0.02)
    assert 2 * shape.d_model - 64 <= shape.d_ff <= 4 * shape.d_model + 64


@pytest.mark.parametrize("attention", ["gqa", "mla"])
@pytest.mark.parametrize("size", ["params", "flops"])
def test_the_nearest_dense_width_is_the_nearest_of_all(attention: str, size: str) -> None:
    """The dense shape found by halving has the width that is nearest of all, also where the width of heads changes."""
    like = SHAPES["dense-2048" if attention == "gqa" else "dense-mla-2048"]

    def of(shape: Architecture) -> float:
        return float(shape.total_params("non_embedding") if size == "params" else shape.flops_per_token(4096))

    sizes = np.array([of(dense_shape(width, like)) for widths in DENSE_WIDTHS for width in widths])
    widths = [width for widths in DENSE_WIDTHS for width in widths]
    for target in np.geomspace(sizes[0], sizes[-1], 40).tolist():
        nearest = widths[int(np.argmin(np.abs(np.log(sizes / target))))]
        assert nearest_dense(lambda shape, target=target: of(shape) / target, like).d_model == nearest


# Costs


def test_the_moe_costs_what_its_plan_says(overview: Comparison, plan: Plan) -> None:
    """GPU time, memory, tokens and decode speeds of the MoE are the plan's."""
    moe = overview.models[0]
    assert moe.architecture == plan.architecture
    assert (moe.tokens, moe.serving_bytes) == (plan.design.tokens, plan.memory.total_bytes)
    assert (moe.gpu_hours, moe.mfu) == (plan.training.gpu_hours, plan.training.mfu)
    speeds = {p.batch: p.tokens_per_second_per_gpu for p in plan.serving.points if p.context == 8192}
    assert {speed.batch: speed.tokens_per_second for speed in moe.decode} == speeds


def test_costs_are_exact(overview: Comparison) -> None:
    """Serving memory is the exact shape's; megatron's model state is 18 bytes a param."""
    for model in overview.models:
        assert model.serving_bytes == total_inference_bytes(model.architecture, Budget(*BUDGET).serving)
        assert model.fits_memory == (model.serving_bytes <= 72e9)
        assert model.state_bytes == pytest.approx(18 * model.total_params, rel=1e-9)
    moe, *dense = overview.models
    assert all(moe.mfu < 0.7 * model.mfu for model in dense)  # fine experts keep a GPU less busy, as all publish


def test_state_counts_embeddings_apart() -> None:
    """adam8bit keeps 32-bit state of embeddings, router and norms: more than 8 bits of everything, less than 32."""
    shape = find_model("olmoe-1b-7b").architecture
    params, vectors = shape.total_params(), shape.embedding_params
    groups = shape.params_by_group()
    vectors += groups["router"] + groups["norms"]
    expected = 4 * params + (6 + 8 / 2048 * 2) * (params - vectors) + 12 * vectors
    assert state_bytes(shape, "adam8bit") == pytest.approx(expected, rel=1e-3)


def test_gpus_add_days_money_and_memory() -> None:
    """With GPUs every model has days, a price and the least memory of a GPU, which holds its share of the state."""
    budget = Budget(*BUDGET, gpus="64xH100", price_per_gpu_hour=2.0)  # type: ignore[arg-type]
    found = compare(budget, equal="memory")
    for model in found.models:
        assert model.days == pytest.approx(model.gpu_hours / 64 / 24)
        assert model.money == pytest.approx(2 * model.gpu_hours)
        assert model.training_bytes_per_gpu is not None
        assert model.training_bytes_per_gpu > model.state_bytes / 64
    assert "least per GPU" in text_of(found)


# What the laws say


def test_the_moe_is_worth_what_its_plan_says(overview: Comparison, plan: Plan) -> None:
    """EL by every law is the plan's; work by tian2025 is EL times phi, within the plan's interval times phi."""
    own = overview.law("tian2025").answers[0]
    phi = plan.leverage.allocation_efficiency
    assert own.leverage == pytest.approx(plan.leverage.efficiency_leverage)
    assert own.ratio == pytest.approx(plan.leverage.efficiency_leverage * phi)
    assert (own.ratio.low, own.ratio.high) == pytest.approx((plan.leverage.low * phi, plan.leverage.high * phi))
    for opinion in plan.leverage.others:
        assert overview.law(opinion.law).answers[0].leverage == pytest.approx(opinion.efficiency_leverage)


def test_the_headline_is_the_plans(overview: Comparison, plan: Plan) -> None:
    """Comparison and plan have one leverage, the pooled one, and one dense model that the MoE is worth."""
    assert overview.pooled == plan.leverage.pooled
    worth = plan.leverage.pooled.dense
    assert worth is not None
    lead = text_of(overview).partition("Side by side")[0]
    for text in (times(plan.leverage.pooled.middle, 2), format_count(worth.total_params, 2)):
        assert text in lead
        assert text in headline(plan)
    assert times(plan.leverage.efficiency_leverage) not in lead


def test_far_out_no_dense_shape_is_told() -> None:
    """Beyond two decades outside everything measured the headline is a range, without layers of a dense equal."""
    found = compare(Budget("3e24", "640GB"), equal="loss")
    assert found.pooled is not None
    assert (found.pooled.efficiency_leverage, found.pooled.dense) == (None, None)
    text = text_of(found)
    assert f"has a leverage of {times(found.pooled.low, 2)} to {times(found.pooled.high, 2)}* (" in text
    says = text.partition("equal loss: as good")[2].partition("FLOPs are")[0]
    assert "layers" not in says


def test_no_dense_model_is_worth_more_than_its_own_compute(overview: Comparison) -> None:
    """By every law a dense model does at most the work of that law's best dense model of its compute."""
    conventions = {"ludziejewski2025": "with_embeddings", "abnar2025": "with_embeddings"}
    for column in overview.laws:
        for model, answer in zip(overview.models, column.answers, strict=True):
            if not model.is_dense or answer.dense_compute is None:
                continue
            if column.law == "tian2025":
                v = Variables(model.architecture, 4096)
                own = float(v.get("train_flops", "non_embedding_full_attention", model.tokens))
            else:
                own = 6.0 * model.architecture.total_params(conventions.get(column.law, "non_embedding")) * model.tokens  # type: ignore[arg-type]
            assert answer.dense_compute <= own * (1 + 1e-6), (column.law, model.name)


def test_the_best_dense_model_keeps_all_of_its_compute(overview: Comparison) -> None:
    """By tian2025 the model split as it finds best is worth its own compute, the others less."""
    worth = {}
    for model, answer in zip(overview.models, overview.law("tian2025").answers, strict=True):
        own = float(
            Variables(model.architecture, 4096).get("train_flops", "non_embedding_full_attention", model.tokens)
        )
        worth[model.role] = (answer.dense_compute or 0.0) / own
    assert worth["compute_optimal"] == pytest.approx(1, abs=0.002)
    assert worth["equal_loss"] == pytest.approx(1, abs=0.002)
    assert worth["equal_total_params"] < worth["equal_active_params"] < 0.9


def test_equal_loss_is_equal(overview: Comparison) -> None:
    """The dense model of equal loss does the MoE's work by tian2025; other laws' own have the MoE's loss by them."""
    answers = overview.law("tian2025").answers
    assert answers[-1].ratio == pytest.approx(answers[0].ratio, rel=0.01)
    for twin in overview.equal_loss:
        if twin.law != "tian2025":
            law = load_law(twin.law)
            size, tokens, loss = best_dense(law, twin.dense_compute)
            assert (twin.total_params, twin.tokens) == pytest.approx((size, tokens))
            fit = law.objective
            assert fit is not None
            moe = overview.models[0]
            assert loss == pytest.approx(float(fit.at(Variables(moe.architecture, 4096), moe.tokens)), rel=1e-4)


def test_ratios_are_first_over_other(overview: Comparison) -> None:
    """The MoE against another model in ratios, losses nowhere."""
    moe, other, against = overview.models[0], overview.models[2], overview.versus[1]
    assert against.other == other.name
    assert against.tokens == pytest.approx(moe.tokens / other.tokens)
    assert against.serving_bytes == pytest.approx(moe.serving_bytes / other.serving_bytes)
    others = [ratio for law, ratio in against.quality.items() if law != "tian2025"]
    assert (against.quality_low, against.quality_high) == (min(others), max(others))
    assert "64" not in against.decode  # the caches of 64 sequences fit neither of the two


# Strictly equal resources


def test_li2025_is_read_as_the_paper_reads_it() -> None:
    """The best rate is 20 % at both sizes; at 2B the MoE wins at 13.6-48.4 %, at 7B at every rate measured."""
    small, large = studies(load_law("li2025"))
    assert (small.name, large.name) == ("2B", "7B")
    assert small.best_active_rate == pytest.approx(0.20, abs=0.002)
    assert large.best_active_rate == pytest.approx(0.20, abs=0.002)
    assert (small.region_low, small.region_high) == pytest.approx((0.136, 0.484), abs=0.0005)
    assert (large.region_low, large.region_high) == (None, None)
    assert all(point.beats_dense for point in large.points)
    assert [point.beats_dense for point in small.points] == [False] * 2 + [True] * 5 + [False] * 2


def test_zhao2025_stands_beside_li2025() -> None:
    """Its best rates under the same constraint, 22.7 and 16.6 %, lie between the two ways to count the attention."""
    for study, stated in zip(studies(load_law("li2025")), (0.227, 0.166), strict=True):
        assert study.zhao2025_low < stated < study.zhao2025_high
        assert study.zhao2025_high - study.zhao2025_low < 0.035


def test_zhao2025_has_its_least_loss_there() -> None:
    """No other rate has a lower loss at that size and compute."""
    fit = load_law("zhao2025").predicting("loss")
    rate, _ = zhao2025_rates(7e9, 2.86e21, 0.0)

    def loss(at: float) -> float:
        return float(fit(7e9, at * 7e9, 2.86e21 / (6 * at * 7e9), math.sqrt(7.2446 / 0.1577), 3.2363 / (2 * 5.1395)))

    assert loss(rate) < min(loss(rate * 1.02), loss(rate / 1.02))


def test_nothing_is_said_outside_the_measured_rates() -> None:
    """Between measured points a straight line, beyond them nothing."""
    small, large = studies(load_law("li2025"))
    assert verdict(small, 0.2) == "moe"
    assert verdict(small, 0.1) == "dense"
    assert verdict(small, 0.05) == verdict(large, 0.6) == "not_measured"
    assert bits_at(small, 0.1504) == pytest.approx(0.4896)
    assert bits_at(large, 0.08) is None
    assert interpolated([(1.0, 2.0), (3.0, 6.0)], 2.0) == 4.0


def test_the_strict_comparison_repeats_data(strict: Comparison) -> None:
    """A 2B MoE with a fifth active passes its dense twin's data 4.65 times, as in the paper, and wins by its table."""
    found = resources(strict)
    assert found.study.name == "2B"
    assert found.verdict == "moe"
    assert found.unique_tokens == pytest.approx(strict.models[1].tokens)
    assert found.epochs == pytest.approx(4.65, rel=0.03)
    assert found.dense_epochs == pytest.approx(1)
    assert found.reuse == {"1": 0.4543, "2": 0.4549, "4.65": 0.459}
    assert found.worth_share == pytest.approx(0.91, abs=0.01)
    assert found.dense_worth_share == pytest.approx(1)
    assert [model.epochs for model in strict.models] == pytest.approx([found.epochs, 1])
    text = text_of(strict)
    assert "N differs" in text
    assert "13.6–48.4 %" in text
    assert "the edges are not measured" in text
    assert "MMLU 32.9 to 24.6" in text


def test_repeats_cost_work(strict: Comparison) -> None:
    """Discounted for its repeats, the MoE does less work than on fresh data."""
    fresh = Budget("9.3e20", "5GB")
    assert len(strict.laws) > 3
    for column in strict.laws:
        repeated, other = (
            column.answers[0].ratio,
            law_column(load_law(column.law), strict.models, fresh).answers[0].ratio,
        )
        if repeated is not None and other is not None:
            assert repeated < other


def test_given_data_is_used(overview: Comparison) -> None:
    """Unique tokens that are given are those of both; a rate that the study lacks is not judged."""
    moe, twin = overview.models[0], overview.models[2]
    found = equal_resources(moe, twin, 4096, 300e9)
    assert (found.unique_tokens, found.unique_basis) == (300e9, "as given")
    assert found.epochs == moe.tokens / 300e9
    assert found.dense_epochs < 1
    assert found.active_rate < found.study.points[0].active_rate
    assert (found.verdict, found.bits_per_char) == ("not_measured", None)
    assert 0.4543 < (found.reuse_bits_per_char or 0) < 0.4549  # between 1 and 2 epochs


# Any two


def test_the_papers_own_pair_is_a_tie(pair: Comparison) -> None:
    """tian2025 finds Ling-mini-beta and the dense 6.1B of the same tokens and loss equal within 10 %."""
    assert pair.versus[0].quality["tian2025"] == pytest.approx(1, abs=0.10)
    assert [model.tokens for model in pair.models] == [10**12, 10**12]
    assert pair.law("zhao2025").answers[0].own_compute is not None
    assert pair.law("zhao2025").answers[1].own_compute is None
    assert "zhao2025" not in pair.versus[0].quality


def test_own_compute_is_what_the_search_maximises(tmp_path: Path, plan: Plan) -> None:
    """The geometric mean of a plan's C_l over the objective's laws is its V; more tokens are worth more by each."""
    file = tmp_path / "plan.json"
    file.write_text(plan.to_text())
    found = compare(file, f"{file}@1T")
    assert [model.tokens for model in found.models] == [plan.design.tokens, 10**12]
    computes = [found.law(name).answers[0].own_compute or 0.0 for name in plan.request.laws]
    assert math.prod(computes) ** (1 / len(computes)) == pytest.approx(plan.design.value, rel=0.005)
    assert all(ratio < 1 for ratio in found.versus[0].own_compute.values())
    assert all(ratio < 1 for ratio in found.versus[0].quality.values())
    assert found.models[0].name != found.models[1].name


def test_a_pair_reads_both_ways(pair: Comparison) -> None:
    """Exchanging the two inverts every ratio."""
    other = compare("ling-dense-6.1b@1T", "ling-mini-beta@1T")
    for law, ratio in pair.versus[0].quality.items():
        assert other.versus[0].quality[law] == pytest.approx(1 / ratio, rel=1e-6)
    for law, ratio in pair.versus[0].own_compute.items():
        assert other.versus[0].own_compute[law] == pytest.approx(1 / ratio, rel=1e-6)


def test_what_a_pair_is_worth_is_explained_and_flagged(pair: Comparison) -> None:
    """EL before phi, work after it and whose compute work is over are told apart; every extrapolation has its mark."""
    text = text_of(pair)
    assert f"Dense compute, above: it over the compute of {pair.models[0].name}" in text
    assert "less what each model's own split costs (an inferred rule)" in text
    far = compare("deepseek-v3", "qwen3-30b-a3b")
    lead, _, rest = text_of(far).partition("Side by side")
    assert all(any(a.outside for a in column.answers) for column in far.laws)
    assert len(re.findall(r"x–\d+(\.\d+)?x\* in ", lead)) == 2
    assert re.search(r"x\* the dense compute \(tian2025; other laws \S+x\*\)", rest)


def test_dense_models_that_do_not_fit_are_told() -> None:
    """Where the best dense model of equal compute exceeds the memory that the MoE must fit, the headline says so."""
    small = compare(Budget("1e23", "24GB"), equal="compute")
    assert [model.fits_memory for model in small.models[:2]] == [True, False]
    assert "tokens, which does not fit the memory) it takes" in text_of(small)
    assert "does not fit" not in text_of(compare(Budget("1e21", "80GB"), equal="compute"))


def test_models_of_a_memory_limit_fit_or_not() -> None:
    """With --memory the two are held against it; published tokens stand in where none are given."""
    found = compare("olmoe-1b-7b", "deepseek-v3", memory="24GB")
    assert [model.fits_memory for model in found.models] == [True, False]
    assert [model.tokens for model in found.models] == [5.1e12, 14.8e12]
    assert found.models[0].says == "tokens as published"
    assert found.setting.memory == "24GB"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("deepsek-v3@1T", "olmoe-1b-7b"), "did you mean deepseek-v3"),
        (("gpt-oss-20b", "olmoe-1b-7b"), r"gpt-oss-20b@15T, or give --tokens 15T"),
        (("olmoe-1b-7b@many", "deepseek-v3"), "tokens of olmoe-1b-7b 'many' is not a quantity"),
        (("olmoe-1b-7b@", "deepseek-v3"), "tokens of olmoe-1b-7b ''"),
        (("olmoe-1b-7b@10", "deepseek-v3"), "10 tokens are too few"),
        (("nowhere/config.json", "deepseek-v3"), "there is no such file"),
        (("hunyuan-large@1T", "deepseek-v3"), "cannot be compared"),
        (("olmoe-1b-7b",), "1 things to compare|1 model"),
        (("olmoe-1b-7b", "deepseek-v3", "mixtral-8x7b"), "3 things to compare|3 models"),
    ],
)
def test_models_that_cannot_be_compared(arguments: tuple[str, ...], message: str) -> None:
    """Each mistake is one sentence with what would work, in Python and on the command line."""
    with pytest.raises(UsageError, match=message):
        compare(*arguments)
    result = run(*arguments)
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        ((), 2, "needs a budget"),
        (("--memory", "80GB"), 2, "needs a budget"),
        (("--flops", "1e22"), 2, "needs a budget"),
        (("--equal", "resources"), 2, "--equal resources needs a budget"),
        (("--equal", "size", "--flops", "1e22", "--memory", "80GB"), 2, "'size' is not one of"),
        (("--flops", "1e22", "--memory", "10MB"), 1, "too small for any MoE"),
        (("--flops", "1e22", "--memory", "80GB", "--tokens", "1T"), 2, "--tokens belongs to two models"),
        (("--flops", "1e22", "--memory", "80GB", "--law", "nobody2025"), 2, "unknown law"),
        (("olmoe-1b-7b", "deepseek-v3", "--equal", "loss"), 2, "--equal has no place"),
        (("olmoe-1b-7b", "deepseek-v3", "--flops", "1e22"), 2, "--flops has no place"),
        (("olmoe-1b-7b", "deepseek-v3", "--fix", "granularity=8"), 2, "--fix has no place"),
        (("olmoe-1b-7b", "deepseek-v3", "--memory", "80"), 2, "bytes without a unit"),
        (("olmoe-1b-7b", "deepseek-v3", "--json", "--markdown"), 2, "exclude each other"),
    ],
)
def test_mistakes_are_sentences(arguments: tuple[str, ...], exit_code: int, message: str) -> None:
    """Bad input ends in one sentence on stderr and the exit code of its kind."""
    result = run(*arguments)
    assert result.exit_code == exit_code
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_python_refuses_what_does_not_go_together() -> None:
    """Regimes belong to budgets, tokens to models, and a budget stands alone."""
    budget = Budget(*BUDGET)
    for arguments, options, message in (
        ((budget,), {"equal": "everything"}, "must be one of overview, compute"),
        ((budget,), {"tokens": "1T"}, "stand in the budget"),
        ((budget, "olmoe-1b-7b"), {}, "give two models, or one budget"),
        (("olmoe-1b-7b", "deepseek-v3"), {"equal": "resources"}, "needs a budget"),
        (("olmoe-1b-7b", "deepseek-v3"), {"laws": ["tian2025"]}, "judged by all"),
    ):
        with pytest.raises(UsageError, match=message):
            compare(*arguments, **options)  # type: ignore[arg-type]
    with pytest.raises(InfeasibleError, match="too small"):
        compare(Budget("1e22", "10MB"))


# The answer


@pytest.mark.parametrize("name", ["overview", "strict", "pair"])
def test_an_answer_is_its_json(name: str, request: pytest.FixtureRequest) -> None:
    """JSON gives the same answer back and obeys the schema made from the same dataclasses."""
    found: Comparison = request.getfixturevalue(name)
    data = json.loads(json.dumps(found.to_json()))
    assert data["schema"] == "moeplan.comparison/1"
    assert Comparison.from_json(data) == found
    jsonschema.validate(data, records.json_schema(Comparison))
    with pytest.raises(UsageError, match=r"moeplan\.plan/1"):
        Comparison.from_json({"schema": "moeplan.plan/1"})


@pytest.mark.parametrize("name", ["overview", "strict", "pair"])
def test_every_number_has_a_source(name: str, request: pytest.FixtureRequest) -> None:
    """Every number of the report can be asked where it is from, and every pointer leads to its number in the JSON."""
    found: Comparison = request.getfixturevalue(name)
    data, seen = found.to_json(), 0
    assert numbers_without_source(comparison_sections(found), data) == []
    for section in comparison_sections(found):
        for block in section.blocks:
            for cell in (cell for row in block.rows for cell in row) if isinstance(block, Table) else ():
                if isinstance(cell, Text) and any(character.isdigit() for character in cell):
                    for path in cell.paths:
                        value = pointed_at(data, path)
                        assert value is not None, path
                        seen += 1
    assert seen > 20


def test_cells_show_their_numbers(overview: Comparison) -> None:
    """What a cell shows is the number that its pointer leads to, rounded."""
    table = next(s for s in comparison_sections(overview) if s.title == "Side by side").blocks[0]
    assert isinstance(table, Table)
    data, rows = overview.to_json(), {row[0].strip(): row[1:] for row in table.rows}
    for label, read in (
        ("total params", parse_count),
        ("tokens", parse_count),
        ("train FLOPs", parse_flops),
        ("served", parse_bytes),
        ("training state", parse_bytes),
        ("dense compute, tian2025", lambda text: float(text.rstrip("x*"))),
    ):
        for cell in rows[label]:
            assert isinstance(cell, Text)
            assert read(str(cell)) == pytest.approx(pointed_at(data, *cell.paths), rel=0.006), label


@pytest.mark.parametrize("name", ["overview", "strict", "pair"])
def test_reports_fit_the_terminal(name: str, request: pytest.FixtureRequest) -> None:
    """No line is wider than 80 columns, no number is cut, and Markdown says the same."""
    found: Comparison = request.getfixturevalue(name)
    text = terminal_text(comparison_sections(found), 80)
    assert max(map(len, text.splitlines())) <= 80
    for model in found.models:
        assert model.name in text
    assert "Side by side" in markdown_text(comparison_sections(found))


def test_the_report_answers_first(overview: Comparison) -> None:
    """The headline names the MoE, what it is worth with interval and spread, and what it costs."""
    text = text_of(overview)
    assert text.startswith("A 35.6B-A3.18B MoE on 535B tokens has a leverage of")
    lead = text.partition("Side by side")[0]
    for words in ("90 % interval", "5 laws", "as good as a dense", "the memory to serve", "the tokens"):
        assert words in lead
    assert "6 * (active params without input embedding) + causal attention" in text
    laws = next(s for s in comparison_sections(overview) if s.title == "Dense compute by each law").blocks[0]
    assert isinstance(laws, Table)
    assert laws.columns == ("", "tian2025", "ludziejewski2025", "abnar2025", "krajewski2024")
    assert laws.rows[-1][0] == "spread, MoE"
    assert set(laws.rows[-1][1:]) == {"lowest", "highest", ""}


def test_charts_hold_the_answers(overview: Comparison, pair: Comparison) -> None:
    """Every law is a series over the models, with tian2025's interval; costs are ratios to the first model."""
    work, costs = comparison_charts(overview)
    assert work.labels == tuple(model.name for model in overview.models)
    assert {series.name for series in work.series} == {"tian2025", "ludziejewski2025", "abnar2025", "krajewski2024"}
    own = next(series for series in work.series if series.strong)
    assert own.y == tuple(answer.ratio for answer in overview.law("tian2025").answers)
    assert own.low[0] is not None
    assert len(costs.series) == 4
    assert len(comparison_charts(pair)) == 2


def test_findings_have_sources() -> None:
    """Every finding says where it stands, and repeats and knowledge are among them."""
    assert all("arXiv" in finding.source for finding in findings())
    assert {"data", "knowledge", "memory"} <= {finding.topic for finding in findings()}


def test_a_short_budget_of_tokens_is_told() -> None:
    """Dense models that the cap on tokens stops short of the compute are named."""
    found = compare(Budget("1e22", "80GB", max_tokens=100e9), equal="compute")
    assert any("meet the cap on tokens" in note for note in found.notes)
    assert all(model.tokens <= 100e9 for model in found.models)


def test_the_command_prints_the_same_in_any_form(overview: Comparison) -> None:
    """JSON of the command is the library's answer, for one thread or two; the package exports `compare`."""
    result = run("--flops", "1e22", "--memory", "80GB", "--json", "--threads", "1")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    expected = overview.to_json()
    data["provenance"]["command"] = expected["provenance"]["command"]
    assert data == expected
    assert moeplan.compare is compare


def test_a_plan_alone_is_set_beside_dense_models(tmp_path: Path) -> None:
    """compare plan.json compares the plan's own design, whatever rule chose it, as its budget would be."""
    plan = recommend(Budget("1e19", "4GB"), alternatives=0, choose="lean")
    file = tmp_path / "plan.json"
    file.write_text(plan.to_text(), encoding="utf-8")
    done = run(str(file), "--json")
    assert done.exit_code == 0, done.stderr
    moe = json.loads(done.stdout)["models"][0]
    assert (moe["total_params"], moe["tokens"]) == (plan.design.total_params, plan.design.tokens)
    more = json.loads(run(str(file), "--memory", "8GB", "--json").stdout)
    assert more["setting"]["memory"] == "8GB"
    refused = run(str(file), "--tokens", "1T")
    assert (refused.exit_code, "a plan brings its own" in refused.stderr) == (2, True)


def test_laws_that_know_no_dense_models_are_named_in_one_sentence() -> None:
    """What several laws lack is said once, with their names."""
    found = compare(Budget("1e19", "4GB"))
    assert len(found.silent) > 1
    said = [text for text in texts_of(comparison_sections(found)) if "no dense counterpart" in text]
    assert len(said) == 1
    assert all(law.law in said[0] for law in found.silent)


def texts_of(sections: list[Section]) -> list[str]:
    """The sentences of a report's lists."""
    lists = [block for section in sections for block in section.blocks if isinstance(block, Items)]
    return [text for block in lists for text in block.texts]


def test_one_judgement_of_two_models() -> None:
    """By most laws the first is better, by most the other, or by all equally good: one count, with its sign."""
    assert better_by({"a": 2.0, "b": 3.0, "c": 0.5}) == 2
    assert better_by({"a": 0.5, "b": 0.9, "c": 1.2}) == -2
    assert better_by({"a": 1.001, "b": 0.999}) is None


def test_measured_runs_of_two_models_are_sent_to_inspect() -> None:
    """A comparison of two models takes no measured run; the refusal names the command that does."""
    done = CliRunner().invoke(cli, ["compare", "mixtral-8x7b@2T", "deepseek-v3", "--measured", "runs.yaml"])
    assert (done.exit_code, "ask moeplan inspect, which takes it, of each" in done.stderr) == (2, True)
