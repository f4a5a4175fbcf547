"""Proxy ladders: what shrinking keeps, how runs are sized, which ladder is taken. Nothing here trains."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re

import pytest

from moeplan.architecture.shape import Architecture
from moeplan.errors import InfeasibleError, UsageError
from moeplan.units import format_duration as duration
from moeplan.verification import shrink
from moeplan.verification.choice import choose_ladder
from moeplan.verification.ladder import (
    MAX_EPOCHS,
    MIN_TOKENS_PER_EXPERT,
    NARROW,
    ROUTER_SHARE,
    WIDE,
    WIDE_FROM,
    Ladder,
    Settings,
    ladder_flops,
    ladder_seconds,
    make_ladder,
    makespan,
    most_epochs,
)
from moeplan.verification.options import StudyOptions, Where, parse_duration
from moeplan.verification.shrink import flops_per_token
from moeplan.verification.spec import RunSpec
from moeplan.verification.tuning import MOST_RATES, TUNING_FACTORS, bracketing, tuned_rates
from tests.verify_cases import DATA, PLANNED, SETTINGS, small_ladder


def planned(granularity: float, experts: int, active: int, shared: int = 1) -> Architecture:
    """The planned model with other experts."""
    return dataclasses.replace(
        PLANNED, num_experts=experts, num_active_experts=active, num_shared_experts=shared,
        d_expert=round(2 * PLANNED.d_model / granularity), d_shared_expert=0,
    )  # fmt: skip


def seconds(spec: RunSpec) -> float:
    """A machine of 5e9 FLOP/s with half a second for each start."""
    return 0.5 + spec.tokens * flops_per_token(spec.architecture, spec.seq_len) / 5e9


@pytest.mark.parametrize("granularity", [2, 4, 8, 16])
@pytest.mark.parametrize("experts, active, shared", [(184, 8, 1), (64, 4, 0), (512, 12, 2), (16, 1, 1)])
@pytest.mark.parametrize("train_flops", [1e10, 1e12, 1e15, 1e18])
def test_proxies_keep_what_the_law_sees(
    granularity: float, experts: int, active: int, shared: int, train_flops: float
) -> None:
    """Activation ratio, active experts, shared ratio and granularity of every proxy are exactly the plan's."""
    model = planned(granularity, experts, active, shared)
    for proxy in shrink.sizes(model, dense=False, train_flops=train_flops, count=3, seq_len=128, vocab_size=256):
        for name in ("num_experts", "num_active_experts", "activation_ratio", "shared_ratio", "granularity"):
            assert getattr(proxy, name) == getattr(model, name), name
        assert proxy.d_expert % shrink.ALIGNMENT == 0
        assert proxy.num_moe_layers == proxy.num_layers


def test_what_is_not_kept_is_said() -> None:
    """At a granularity of 5.71 no small width has whole experts: the proxies come near, and the reason is given."""
    model = planned(2560 * 2 / 896, 216, 5)
    proxies = shrink.sizes(model, dense=False, train_flops=1e11, count=2, seq_len=128, vocab_size=256)
    kept = {each.variable: each for each in shrink.kept(model, proxies)}
    assert kept["activation_ratio"].reason == ""
    granularity = kept["granularity"]
    assert "multiples of 8" in granularity.reason
    assert abs(granularity.low / granularity.planned - 1) <= shrink.GRANULARITY_TOLERANCE
    assert abs(granularity.high / granularity.planned - 1) <= shrink.GRANULARITY_TOLERANCE
    assert "1 of 27 layers" in kept["num_dense_layers"].reason
    latent = dataclasses.replace(model, attention="mla", kv_lora_rank=512, qk_nope_head_dim=128, v_head_dim=128)
    assert any(each.variable == "attention" and "mla" in each.reason for each in shrink.kept(latent, proxies))


def test_a_dense_plan_has_nothing_to_verify() -> None:
    """Proxies of a dense model are refused in a sentence."""
    dense = shrink.dense_proxy(PLANNED, 512, 8, 32768)
    with pytest.raises(InfeasibleError, match="dense"):
        shrink.moe_proxy(dense, 64, 2, 256)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("train_flops", [1e13, 1e14, 1e15, 1e16, 1e17])
def test_sizes_stand_around_the_optimum(dense: bool, train_flops: float) -> None:
    """Three sizes a budget, each at least half as large again as the one before, with the optimum among them."""
    shapes = shrink.sizes(PLANNED, dense=dense, train_flops=train_flops, count=3, seq_len=256, vocab_size=256)
    costs = [flops_per_token(shape, 256) for shape in shapes]
    assert len(costs) == 3
    assert all(b >= 1.5 * a for a, b in itertools.pairwise(costs))
    assert costs[0] <= shrink.optimal_flops_per_token(train_flops) <= costs[2]


def test_one_expert_is_the_dense_model() -> None:
    """The control has the dense model's FLOPs and params, but for one row of router a layer."""
    dense = shrink.dense_proxy(PLANNED, 64, 2, 256)
    single = shrink.one_expert(dense)
    assert single.total_params() - dense.total_params() == 2 * 64
    assert single.activation_ratio == 1
    assert flops_per_token(single, 128) == pytest.approx(flops_per_token(dense, 128), rel=0.002)


@pytest.mark.parametrize("base", [1e10, 1e11, WIDE_FROM, 1e14])
def test_a_ladder_has_two_budgets_and_two_sizes_and_brackets(base: float) -> None:
    """Every budget has two or more sizes; dense budgets reach below the least and above the largest MoE budget."""
    ladder = small_ladder(base)
    multiples = WIDE if base >= WIDE_FROM else NARROW
    assert ladder.moe_budgets == tuple(base * m for m in multiples[0])
    assert ladder.dense_budgets[0] < ladder.moe_budgets[0] < ladder.moe_budgets[-1] < ladder.dense_budgets[-1]
    for arm, budgets in (("moe", ladder.moe_budgets), ("dense", ladder.dense_budgets)):
        assert len(budgets) >= 2
        for budget in budgets:
            own = [r for r in ladder.rungs if r.arm == arm and r.train_flops == budget]
            assert len({r.architecture for r in own}) == len(own) >= 2
            for rung in own:
                flops = (
                    rung.steps
                    * rung.batch_sequences
                    * ladder.seq_len
                    * flops_per_token(rung.architecture, ladder.seq_len)
                )
                assert flops == pytest.approx(budget, rel=0.5 / rung.steps + 1e-9)


def test_batches_follow_the_step_law_and_feed_every_expert() -> None:
    """Dense batches are steplaw2025's .58*D^.571 tokens in whole sequences; an expert sees 32 tokens a step or more."""
    for rung in small_ladder(1e12).rungs:
        tokens, batch = rung.steps * rung.batch_sequences * 256, rung.batch_sequences * 256
        if rung.arm == "dense":
            assert batch == pytest.approx(0.58 * tokens**0.571, abs=140)
        else:
            assert batch * 8 / 184 >= MIN_TOKENS_PER_EXPERT


def test_both_arms_are_tuned_alike() -> None:
    """Three rates on each arm's smallest size at one budget, the same three at one width, with seeds of their own."""
    ladder = small_ladder()
    specs = ladder.tuning(DATA)
    rates = {arm: [s.learning_rate * s.architecture.d_model for s in specs if s.arm == arm] for arm in ("moe", "dense")}
    assert rates["moe"] == rates["dense"]
    assert len(rates["moe"]) == len(TUNING_FACTORS) == 3
    flops = [s.tokens * flops_per_token(s.architecture, s.seq_len) for s in specs]
    assert max(flops) == pytest.approx(min(flops), rel=0.01)
    measured = ladder.measured(DATA, {"moe": 0.02, "dense": 0.01}, lambda rate, old, new: rate * old / new)
    assert {s.seed for s in specs}.isdisjoint({s.seed for s in measured})
    for spec in measured:
        assert spec.learning_rate * spec.architecture.d_model == pytest.approx(
            32 * (0.02 if spec.arm == "moe" else 0.01), rel=1e-3
        )
    assert {s.seed for s in measured if s.arm == "moe"} == {s.seed for s in measured if s.arm == "dense"}


def test_controls_add_their_runs_and_change_no_other() -> None:
    """With controls every measured run keeps its digest; the dense twin has seeds that no other run has."""
    plain, more = small_ladder(), small_ladder(controls=True)
    rates = {"moe": 0.02, "dense": 0.01}

    def specs(ladder: Ladder) -> tuple[RunSpec, ...]:
        return ladder.measured(DATA, rates, lambda rate, old, new: rate)

    digests = {spec.digest for spec in specs(plain)}
    extra = [spec for spec in specs(more) if spec.digest not in digests]
    assert digests < {spec.digest for spec in specs(more)}
    assert {spec.control for spec in extra} == {"one_expert", "frozen_router", "second_seed"}
    assert all(spec.frozen_router == (spec.control == "frozen_router") for spec in extra)
    assert all(spec.learning_rate == 0.01 for spec in extra if spec.control == "one_expert")
    assert {s.seed for s in extra if s.control == "second_seed"}.isdisjoint({s.seed for s in specs(plain)})


def test_more_seeds_keep_the_runs_of_fewer() -> None:
    """A ladder with five seeds has every run of the one with two, so that these need not train again."""
    few, many = (small_ladder(seeds=n).specs(DATA) for n in (2, 5))
    assert {s.digest for s in few} < {s.digest for s in many}


@pytest.mark.parametrize("time", [60, 120, 600, 36000])
def test_the_largest_ladder_that_fits_is_taken(time: float) -> None:
    """The forecast of the ladder taken is within the time, that of the next larger is not."""
    choice = choose_ladder(PLANNED, SETTINGS, DATA, time=time, seconds=seconds, workers=2)
    taken = ladder_seconds(choice.ladder, DATA, seconds, 2)
    assert taken <= time
    larger = make_ladder(PLANNED, choice.ladder.base * 2**0.25, SETTINGS, 256)
    assert ladder_seconds(larger, DATA, seconds, 2) > time
    assert "more than" in choice.limit


def test_a_budget_counts_every_run() -> None:
    """With a compute budget the sum over all runs, tuning included, is within it and above two thirds of it."""
    choice = choose_ladder(PLANNED, SETTINGS, DATA, budget=5e12)
    total = ladder_flops(choice.ladder, DATA)
    assert total == sum(s.tokens * flops_per_token(s.architecture, s.seq_len) for s in choice.ladder.specs(DATA))
    assert 5e12 / 1.5 < total <= 5e12


def test_text_is_repeated_at_most_four_times() -> None:
    """With little text the ladder stays at four epochs, and says that more text is what it lacks."""
    few = dataclasses.replace(DATA, train_tokens=300_000)
    choice = choose_ladder(PLANNED, SETTINGS, few, time=1e9, seconds=seconds)
    assert most_epochs(choice.ladder, few) <= MAX_EPOCHS
    assert "epochs" in choice.limit
    assert "--data" in choice.limit


def test_what_cannot_be_is_refused_with_what_it_needs() -> None:
    """Too little time, compute or text: one sentence with the amount needed, unless nobody asked for that time."""
    with pytest.raises(InfeasibleError, match=r"smallest ladder of proxy runs needs about .*, more than 1s"):
        choose_ladder(PLANNED, SETTINGS, DATA, time=1, seconds=seconds)
    with pytest.raises(InfeasibleError, match="FLOPs, more than 1e9"):
        choose_ladder(PLANNED, SETTINGS, DATA, budget=1e9)
    with pytest.raises(InfeasibleError, match="epochs"):
        choose_ladder(PLANNED, SETTINGS, dataclasses.replace(DATA, train_tokens=5000), budget=1e12)
    with pytest.raises(InfeasibleError, match=r"give --time \d+s, or --seeds 1 with --time \d+s, which"):
        choose_ladder(PLANNED, SETTINGS, DATA, time=1, seconds=seconds)
    with pytest.raises(InfeasibleError, match=r"give --budget .*, or --seeds 1 with --budget") as refused:
        choose_ladder(PLANNED, SETTINGS, DATA, budget=1e9)
    both, one = re.findall(r"--budget ([\d.e]+)", str(refused.value))
    choose_ladder(PLANNED, SETTINGS, DATA, budget=float(both))
    choose_ladder(PLANNED, dataclasses.replace(SETTINGS, seeds=1), DATA, budget=float(one))
    smallest = choose_ladder(PLANNED, SETTINGS, DATA, time=1, seconds=seconds, at_least=True)
    assert smallest.ladder.base < 1e10


def test_makespan_of_known_jobs() -> None:
    """Two workers finish jobs of 3, 3, 2, 2 and 2 in 7 by taking the longest first; one needs the sum."""
    assert makespan([3, 3, 2, 2, 2], 2) == 7
    assert makespan([3, 3, 2, 2, 2], 1) == 12


def test_the_best_finite_rate_is_taken() -> None:
    """Of the rates tried the one of least loss counts; an arm that only diverged cannot be measured."""
    specs = small_ladder().tuning(DATA)
    losses = [(s, 2.0 + abs(math.log(s.learning_rate / 0.03))) for s in specs]
    rates = tuned_rates(losses)
    assert rates == {arm: min((x, s.learning_rate) for s, x in losses if s.arm == arm)[1] for arm in ("moe", "dense")}
    with pytest.raises(InfeasibleError, match="dense arm diverged"):
        tuned_rates([(s, math.inf if s.arm == "dense" else 2.0) for s in specs])


@pytest.mark.parametrize("best", [0.004, 0.011, 0.03, 0.07, 0.4])
def test_rates_are_tried_until_the_best_is_inside(best: float) -> None:
    """Wherever an arm's best rate lies, within a factor of 16 of the first three, further ones by factors of two follow
    until it is neither the smallest nor the largest tried, each the next one in its direction; then no more."""
    tried = [(s, abs(math.log(s.learning_rate / best))) for s in small_ladder().tuning(DATA)]
    for _ in range(MOST_RATES):
        more = bracketing(tried)
        if not more:
            break
        tried += [(s, abs(math.log(s.learning_rate / best))) for s in more]
    for arm in ("moe", "dense"):
        rates = sorted(s.learning_rate for s, _ in tried if s.arm == arm)
        assert all(b == pytest.approx(2 * a, rel=2e-3) for a, b in itertools.pairwise(rates))
        assert rates[0] < tuned_rates(tried)[arm] < rates[-1]
        assert len(rates) <= MOST_RATES


def test_the_smallest_of_rates_that_one_run_cannot_tell_apart_is_taken() -> None:
    """Within 2 % of the least loss the smallest rate counts, the same in both arms, and the next smaller one is tried
    before that is known; where losses differ by more the least counts."""
    specs = small_ladder().tuning(DATA)
    flat = [(s, 2.0 + 0.01 * (place % 3)) for place, s in enumerate(specs)]
    falling = [(s, 2.0 + 0.01 * (2 - place % 3)) for place, s in enumerate(specs)]
    apart = [(s, (2.05, 2.0, 2.1)[place % 3]) for place, s in enumerate(specs)]
    for arm, start in (("moe", 0), ("dense", 3)):
        rates = [s.learning_rate for s in specs[start : start + 3]]
        assert tuned_rates(flat)[arm] == tuned_rates(falling)[arm] == rates[0]
        assert tuned_rates(apart)[arm] == rates[1]
        for tried in (flat, falling):
            (more,) = (s for s in bracketing(tried) if s.arm == arm)
            assert more.learning_rate == pytest.approx(rates[0] / 2, rel=1e-3)
    assert bracketing(apart) == ()


def test_an_arm_that_diverges_is_tried_at_lower_rates_and_given_up() -> None:
    """Where every rate diverges the next is half of the smallest, and none follows after the seventh."""
    tried = [(s, math.inf) for s in small_ladder().tuning(DATA)]
    while more := bracketing(tried):
        assert {s.learning_rate for s in more} == {
            float(f"{min(s.learning_rate for s, _ in tried if s.arm == arm) / 2:.4g}") for arm in ("moe", "dense")
        }
        tried += [(s, math.inf) for s in more]
    assert len(tried) == 2 * MOST_RATES


@pytest.mark.parametrize("experts, active", [(184, 8), (472, 4), (480, 6), (504, 5), (496, 6), (8, 2), (16, 1)])
@pytest.mark.parametrize("base", [1e10, 1e11, 1e12, 1e16])
def test_a_small_ladder_has_as_many_experts_as_it_can_train(experts: int, active: int, base: float) -> None:
    """A router takes at most a quarter of its proxies' FLOPs, or there are but twice as many experts as active ones;
    active and shared experts and granularity are the plan's at any budget, and from 1e16 FLOPs on so is the number."""
    model = planned(4, experts, active)
    ladder = make_ladder(model, base, SETTINGS, 256)
    shapes = [r.architecture for r in ladder.rungs if r.arm == "moe"]
    smallest = min(shapes, key=lambda shape: flops_per_token(shape, ladder.seq_len))
    share = 6 * smallest.num_experts * smallest.d_model * smallest.num_layers
    share /= flops_per_token(smallest, ladder.seq_len)
    assert share <= ROUTER_SHARE or smallest.num_experts <= 2 * active
    assert len({shape.num_experts for shape in shapes}) == 1
    assert all((shape.num_active_experts, shape.num_shared_experts) == (active, 1) for shape in shapes)
    assert all(shape.granularity == 4 for shape in shapes)
    if base >= 1e16:
        assert smallest.num_experts == experts


def test_fewer_experts_than_planned_are_said() -> None:
    """The outline says how many of the plan's experts its proxies have, and why."""
    ladder = make_ladder(planned(4, 496, 6), 1e11, SETTINGS, 256)
    found = {
        each.variable: each
        for each in shrink.kept(planned(4, 496, 6), tuple(r.architecture for r in ladder.rungs if r.arm == "moe"))
    }
    assert "of 496 experts" in found["activation_ratio"].reason
    assert found["activation_ratio"].low > found["activation_ratio"].planned


@pytest.mark.parametrize(
    "text, value", [("90s", 90), ("5m", 300), ("2h", 7200), ("1.5min", 90), (42, 42), (" 3 m", 180)]
)
def test_durations_as_people_write_them(text: str, value: float) -> None:
    """Seconds, minutes and hours."""
    assert parse_duration(text) == value


@pytest.mark.parametrize("text", ["", "m", "5d", "-5m", "0s", "nan", "infs", "5 5m"])
def test_other_durations_are_refused(text: str) -> None:
    """One sentence with the text and an example."""
    with pytest.raises(UsageError, match="5m"):
        parse_duration(text)


def test_durations_are_written_as_they_are_read() -> None:
    """What is printed can be typed."""
    for value in (5.0, 89.0, 120.0, 330.0, 5400.0, 36000.0):
        assert parse_duration(duration(value)) == pytest.approx(value, rel=0.01)


@pytest.mark.parametrize(
    "make",
    [
        lambda: StudyOptions(time=1, budget=1e12), lambda: StudyOptions(seeds=0), lambda: StudyOptions(seeds=101),
        lambda: StudyOptions(precision="fp16"), lambda: Where(engine="cloud"), lambda: Where(workers=-1),
        lambda: Where(address="auto"), lambda: Where(slurm={"partition": "gpu"}),
    ],
)  # fmt: skip
def test_requests_that_cannot_be(make: object) -> None:
    """Contradictions are refused before anything is read."""
    with pytest.raises(UsageError):
        make()  # type: ignore[operator]


def test_specs_know_their_settings() -> None:
    """Precision, decay, warm-up and balancing of every run: one rule for both arms, balancing for many experts only."""
    ladder = make_ladder(PLANNED, 1e11, Settings("bf16", 2, True), 256)
    for spec in ladder.specs(DATA):
        assert spec.precision == "bf16"
        assert spec.weight_decay == 0.1
        assert 1 <= spec.warmup_steps <= max(1, spec.steps // 10)
        assert (spec.balance_rate > 0) == (spec.architecture.num_experts > 1)
