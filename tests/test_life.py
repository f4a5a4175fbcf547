"""Training and serving out of one budget: brute force, what may never fall, what agrees, what is refused."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from moeplan.architecture.conventions import Variables
from moeplan.cli import cli
from moeplan.cost.inference_memory import InferenceSettings
from moeplan.cost.serving.demand import Demand
from moeplan.cost.serving.throughput import serving_throughput
from moeplan.errors import InfeasibleError, UsageError
from moeplan.plan.budget import Budget
from moeplan.plan.choice import choose_design, make_space
from moeplan.plan.design_time import design_times
from moeplan.plan.document import Plan
from moeplan.plan.inverse import recommend_for
from moeplan.plan.planner import recommend
from moeplan.plan.search.space import Space
from tests.small import VOCAB, laws, small_grid

FP8 = InferenceSettings(weight_dtype="fp8")
HOURS = {"gpus": "64xH100", "days": 60.0, "mfu": 0.25, "serving": FP8, "vocab_size": VOCAB, "tied_embeddings": True}


@functools.cache
def small_space() -> Space:
    """A small grid at 64 H100 for 60 days, to be served on two H100."""
    grid = small_grid(num_shared_experts=(1,))
    asked = Budget(**HOURS, demand=Demand(served="1T", serve_gpus="2xH100"))  # type: ignore[arg-type]
    return make_space(asked, laws(), base=grid, reference=grid)


def best_ln_value(**demand: Any) -> float:
    """ln V of the best design of the small grid under another demand; -inf if nothing is feasible."""
    asked = Budget(**HOURS, demand=Demand(serve_gpus="2xH100", **demand))  # type: ignore[arg-type]
    grid = small_grid(num_shared_experts=(1,))
    space = make_space(asked, laws(), base=grid, reference=grid)
    return float(space.score(asked.flops).mean(laws()).max())


def test_the_choice_is_that_of_a_plain_loop() -> None:
    """Every design served and trained by itself: the best V of what the hours leave is the search's."""
    space = small_space()
    budget, scores = space.budget, space.score(space.budget.flops)
    total = 64 * 60 * 24.0
    values, served = [], 0
    for index in range(len(space)):
        shape = space.architecture(index)
        found = serving_throughput(shape, budget.demand.serve_gpus, budget.demand.load, FP8)  # type: ignore[arg-type]
        if not found.batch or space.memory[index] > budget.usable_bytes:
            continue
        per_gpu = float(found.tokens_per_second_per_gpu) * 2  # as many prompt tokens as answer tokens
        left = total - 1e12 / per_gpu / 3600
        if left <= 0:
            continue
        served += 1
        tokens = min(left * 3600 * 989.4e12 * 0.25 / shape.flops_per_token(4096), 100e12)
        v = Variables(shape, 4096)
        judged = [r.judge(v, tokens, v.get("flops_per_token") * tokens) for r in space.references]
        values.append((sum(float(x) for x in judged) / len(judged), index))
    best = max(values)
    assert 0 < served == int(scores.feasible.sum()) < len(space)
    assert float(scores.mean(laws()).max()) == pytest.approx(best[0], rel=1e-9)
    assert int(scores.mean(laws()).argmax()) == best[1]


@settings(max_examples=12)
@given(st.floats(1e10, 3e13), st.floats(1, 10), st.sampled_from([0.0, 20.0, 60.0]))
def test_more_to_serve_is_never_worth_more(served: float, more: float, speed: float) -> None:
    """V never rises with the tokens served."""
    lean, full = (best_ln_value(served=x, tokens_per_second_per_user=speed) for x in (served, served * more))
    assert full <= lean + 1e-9


@settings(max_examples=12)
@given(st.floats(1e11, 1e13), st.floats(0, 300), st.floats(0, 300))
def test_a_looser_speed_never_costs(served: float, one: float, other: float) -> None:
    """V never falls with a lower speed asked."""
    slow, fast = sorted((one, other))
    assert best_ln_value(served=served, tokens_per_second_per_user=slow) >= (
        best_ln_value(served=served, tokens_per_second_per_user=fast) - 1e-9
    )


@pytest.fixture(scope="module")
def plan() -> Plan:
    """A plan for 16 H100 and 60 days that also serve 200B tokens at 40 tokens a second per user."""
    demand = Demand(served="200B", serve_gpus="2xH100", tokens_per_second_per_user=40)
    asked = Budget(gpus="16xH100", days=60, price_per_gpu_hour=2.0, serving=FP8, demand=demand)
    return recommend(asked, alternatives=0)


def test_hours_add_up(plan: Plan) -> None:
    """Training and serving together are all GPU-hours of the budget, at one price; the speed asked is reached."""
    life, load = plan.life, plan.serving.load
    assert life is not None
    assert load is not None
    assert life.train_gpu_hours is not None
    assert life.serve_gpu_hours is not None
    total = 16 * 60 * 24
    assert life.train_gpu_hours == plan.training.gpu_hours
    assert life.train_gpu_hours + life.serve_gpu_hours == pytest.approx(total, rel=1e-6)
    assert life.serve_share == pytest.approx(life.serve_gpu_hours / total)
    assert life.serve_gpu_hours == pytest.approx(2e11 / load.served_tokens_per_second_per_gpu / 3600)
    assert life.train_money is not None
    assert life.serve_money is not None
    assert life.train_money + life.serve_money == pytest.approx(2 * total, rel=1e-6)
    assert load.tokens_per_second_per_user >= 40 * (1 - 1e-6)
    assert load.tokens_per_second_per_gpu * 2 == pytest.approx(load.sequences * load.tokens_per_second_per_user)
    assert (plan.serving.device, plan.serving.num_devices, plan.request.memory) == ("H100 SXM", 2, "2x80GB")


def test_serving_that_costs_twice_takes_twice_the_share() -> None:
    """Hours of serving at twice the price of training's are as dear as twice the tokens."""
    both = {"gpus": "16xH100", "days": 60.0, "serving": FP8, "price_per_gpu_hour": 2.0}
    dear = Demand(served="100B", serve_gpus="2xH100", serve_price_per_gpu_hour=4.0)
    many = Demand(served="200B", serve_gpus="2xH100")
    one, other = (Budget(**both, demand=demand) for demand in (dear, many))  # type: ignore[arg-type]
    assert one.serving_share(1e-3) == pytest.approx(other.serving_share(1e-3))


def test_without_devices_it_is_paid_in_flops() -> None:
    """--served alone is --inference-tokens: 2*N_a FLOPs a token out of the same compute."""
    by_flops = Budget("1e20", "20GB", inference_tokens="100B")
    by_served = Budget("1e20", "20GB", demand=Demand(served="100B"))
    found = [recommend(asked, alternatives=0) for asked in (by_flops, by_served)]
    assert found[0].design == found[1].design
    for each in found:
        assert each.life is not None
        assert each.life.paid_in == "flops"
        assert each.life.serve_flops == 2 * each.design.active_params * 1e11
        assert each.life.train_flops + each.life.serve_flops == pytest.approx(1e20)


def test_what_serving_would_change() -> None:
    """A plan says what it would be with three times its tokens to serve, which is what asking for them gives."""
    alone = recommend(Budget("1e20", "20GB"), alternatives=0)
    found = alone.if_served
    assert found is not None
    assert found.served == pytest.approx(3 * alone.design.tokens, rel=0.05)
    asked = recommend(Budget("1e20", "20GB", inference_tokens=found.served), alternatives=0)
    assert (asked.design.total_params, asked.design.active_params) == (found.total_params, found.active_params)
    assert (asked.design.tokens, asked.if_served) == (found.tokens, None)
    assert asked.best_value / alone.best_value == pytest.approx(found.value_ratio)
    assert found.value_ratio < 1
    assert found.active_params < alone.design.active_params


def test_a_speed_alone_narrows_the_choice() -> None:
    """Without tokens to serve, only designs that answer at the speed asked on the devices given are chosen."""
    free = recommend(Budget("1e21", "80GB", demand=Demand(serve_gpus="1xH100")), alternatives=0)
    assert free.serving.load is not None
    speed = 1.2 * free.serving.load.fastest
    demand = Demand(serve_gpus="1xH100", tokens_per_second_per_user=speed)
    found = recommend(Budget("1e21", "80GB", demand=demand), alternatives=0)
    assert found.life is None
    assert found.serving.load is not None
    assert found.serving.load.tokens_per_second_per_user >= speed * (1 - 1e-6)
    assert free.best_value > found.best_value


@pytest.mark.slow
def test_a_plan_with_a_demand_is_repeated(tmp_path: Any) -> None:
    """--from asks for the same life again, and the report says what it takes."""
    path = str(tmp_path / "plan.json")
    words = "recommend --gpus 8xH100 --days 20 --served 50B --serve-gpus 1xH100 --weights fp8 --alternatives 0"
    done = CliRunner().invoke(cli, [*words.split(), "--output", path, "--full"])
    assert done.exit_code == 0, done.stderr
    assert "The model's life" in done.stdout
    assert "50B tokens served out of the budget" in " ".join(done.stdout.split())
    again = CliRunner().invoke(cli, ["recommend", "--from", path])
    assert "Nothing: the plan is the same." in again.stdout


@pytest.mark.parametrize(
    "words, code, says",
    [
        ("--served 0 --serve-gpus 8xH100", 2, "--served 0 must be above 0"),
        ("--served 1T --inference-tokens 1T", 2, "give one"),
        ("--tokens-per-second-per-user 30", 2, "needs serve_gpus, for example 8xH100"),
        ("--serve-gpus 8xH1000", 2, "unknown device 'H1000'; did you mean H100"),
        ("--serve-gpus 0xH100", 2, "need between 1 and"),
        ("--serve-gpus 1xH100 --prompt-tokens 0", 2, "prompt_tokens 0 must be a whole number"),
        ("--serve-gpus 1xH100 --answer-tokens -5", 2, "answer_tokens -5 must be a whole number"),
        ("--serve-gpus 1xH100 --tokens-per-second-per-user -1", 2, "must be at least 0"),
        ("--serve-gpus 1xH100 --tokens-per-second-per-user 0", 2, "must be above 0"),
        ("--concurrency 0", 2, "concurrency 0 must be a whole number of at least 1"),
        ("--weights fp7", 2, "'fp7' is not one of"),
        ("--gpus 8xH100 --served 1T --serve-gpus 1xH200", 2, "only by their prices"),
        ("--serve-gpus 1xH100 --tokens-per-second-per-user 5000", 1, "the fastest reaches"),
        ("--serve-gpus 1xH100 --prompt-tokens 16000000 --range total_params=8B..9B", 1, "serve on more devices"),
        ("--gpus 8xH100 --served 900T --serve-gpus 1xH100", 1, "serve at most"),
        ("--served 900T", 1, "serving 900T tokens alone costs more"),
        ("--served 900T", 1, "; serve at most "),
    ],
)
def test_impossible_lives_are_refused(words: str, code: int, says: str) -> None:
    """What cannot be is one sentence with what would work: 2 for arguments, 1 for what nothing meets."""
    done = CliRunner().invoke(cli, ["recommend", "--flops", "1e20", "--memory", "20GB", *words.split()])
    assert done.exit_code == code
    assert says in " ".join(done.stderr.split())
    assert done.stderr.count("Error:") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    "words",
    [
        "--memory 80GB --concurrency 100000",
        "--memory 80GB --served 1000T",
        "--memory 1MB",
        "--memory 8x1GB --context 1000000",
    ],
)
def test_what_a_refusal_names_can_be_asked(words: str) -> None:
    """The memory or the served tokens that a refusal names do, as they are printed."""
    flags = ["recommend", "--flops", "1e22", "--alternatives", "0"]
    done = CliRunner().invoke(cli, [*flags, *words.split()])
    assert done.exit_code == 1
    memory = re.search(r"needs ([\dx.]+[kMGT]B)", done.stderr)
    served = re.search(r"at most (\S+) tokens", done.stderr)
    assert memory or served
    more = ["--memory", memory[1]] if memory else ["--served", served[1]] if served else []
    assert CliRunner().invoke(cli, [*flags, *words.split(), *more]).exit_code == 0


def test_the_fastest_that_is_named_can_be_asked() -> None:
    """The speed that a refusal names is reached."""
    demand = Demand(serve_gpus="1xH100", tokens_per_second_per_user=5000)
    with pytest.raises(InfeasibleError) as refused:
        recommend(Budget("1e20", "20GB", demand=demand), alternatives=0)
    fastest = float(str(refused.value).rpartition("reaches ")[2])
    found = recommend(
        Budget("1e20", "20GB", demand=dataclasses.replace(demand, tokens_per_second_per_user=fastest)), alternatives=0
    )
    assert found.serving.load is not None
    assert found.serving.load.tokens_per_second_per_user >= fastest * (1 - 1e-6)


def test_a_life_in_python() -> None:
    """A demand that is none, and prices below 0, are refused in Python too."""
    with pytest.raises(UsageError, match="demand None must be a Demand"):
        Budget("1e20", "20GB", demand=None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="must be at least 0"):
        Demand(serve_gpus="1xH100", serve_price_per_gpu_hour=-1)
    assert Demand(served="40T").served == 40e12
    assert math.isclose(Demand(prompt_tokens=300, answer_tokens=100).load.tokens_per_answer_token, 4)


def test_choosing_is_stable() -> None:
    """The choice among served designs is the same whichever way the space was made."""
    space = small_space()
    assert choose_design(space, laws()).index == choose_design(space.at(space.budget), laws()).index


def test_the_cheapest_life_that_does_a_dense_models_work() -> None:
    """The smallest price of training and serving whose recommendation does it: a step of 1 % less does not, and what
    training and serving take is that price."""
    asked: dict[str, Any] = {
        "match_dense": "1B",
        "dense_tokens": "50B",
        "served": "200B",
        "serve_gpus": "1xH100",
        "mfu": 0.3,
        "price_per_gpu_hour": 2.0,
        "optimise": "money",
        "weight_dtype": "fp8",
        "alternatives": 0,
        "grid": small_grid(num_shared_experts=(1,)),
        "vocab_size": VOCAB,
        "tied_embeddings": True,
    }
    found = recommend_for(**asked)
    goal, life = found.goal, found.life
    assert goal is not None
    assert goal.gpu_hours is not None
    assert life is not None
    assert life.train_money is not None
    assert life.serve_money is not None
    assert goal.money == pytest.approx(2 * goal.gpu_hours)
    assert life.train_money + life.serve_money == pytest.approx(goal.money, rel=1e-3)
    reached = {point.budget: point.reached for point in goal.neighbours}
    assert reached[goal.found] >= 1
    dear = recommend_for(**{**asked, "served": "800B"})
    assert dear.goal is not None
    assert dear.goal.money is not None
    assert dear.goal.money > goal.money


def test_the_cheapest_life_needs_prices() -> None:
    """Without prices, users or devices there is no cheapest life, and the sentence names what is missing."""
    with pytest.raises(UsageError, match=r"add --price-per-gpu-hour 2\.5 --served 1T --serve-gpus 8xH100 --gpus"):
        recommend_for(match_dense="1B", dense_tokens="50B", memory="80GB", optimise="money")


@pytest.mark.slow
def test_by_the_clock_more_to_serve_leaves_less(plan: Plan) -> None:
    """With time as the budget, each design at its own speed, twice the tokens served leave less V and fewer trained."""
    assert plan.request.optimise == "time"
    demand = Demand(served="400B", serve_gpus="2xH100", tokens_per_second_per_user=40)
    more = recommend(
        Budget(gpus="16xH100", days=60, price_per_gpu_hour=2.0, serving=FP8, demand=demand), alternatives=0
    )
    assert more.life is not None
    assert plan.life is not None
    assert more.best_value < plan.best_value
    assert more.life.train_flops < plan.life.train_flops
    assert more.life.money == pytest.approx(plan.life.money, rel=1e-6)


@pytest.mark.parametrize("served", [{"demand": Demand(served="1T", serve_gpus="2xH100")}, {"inference_tokens": "50B"}])
def test_designs_at_equal_flops_pay_for_serving_once(served: dict[str, Any]) -> None:
    """By the clock "the plan's FLOPs" are what serving left: a design's V at them has nothing to serve."""
    grid = small_grid(num_shared_experts=(1,))
    clock = {name: value for name, value in HOURS.items() if name != "mfu"}
    asked = Budget(**clock, **served)  # type: ignore[arg-type]
    choice = choose_design(make_space(asked, laws(), base=grid, reference=grid), laws())
    assert choice.timed
    index = int(np.argsort(choice.ln_value)[-50])
    own, other = design_times(choice, [choice.index, index])
    assert own.value_at_equal_flops == pytest.approx(1)
    alone = choice.space.at(Budget(**clock))  # type: ignore[arg-type]
    ln_v = alone.score(choice.flops).unlimited_mean(laws())
    assert math.log(other.value_at_equal_flops) == pytest.approx(ln_v[index] - ln_v[choice.index])


@pytest.mark.parametrize("more", [{}, {"fix": {"num_layers": 24, "num_experts": 64}}, {"fix": {"tokens": 1e12}}])
def test_what_serving_leaves_nothing_for_is_named(more: dict) -> None:
    """Where tokens to serve alone cost more than the budget, the sentence says how many it could serve, whatever else
    is fixed; so many are planned."""
    with pytest.raises(InfeasibleError, match=r"serve at most ([\d.]+)([MBT]) tokens") as caught:
        recommend(Budget("1e21", "80GB", inference_tokens=1e15, **more), alternatives=0)
    most, unit = re.findall(r"at most ([\d.]+)([MBT])", str(caught.value))[0]
    more.get("fix", {}).pop("tokens", None)
    plan = recommend(Budget("1e21", "80GB", inference_tokens=f"{most}{unit}", **more), alternatives=0)
    assert plan.design.tokens > 0


def test_serving_devices_of_another_kind_need_no_prices_where_compute_is_the_budget() -> None:
    """Compute and tokens to serve on an H200 are planned, the time of training told on the device that plans name."""
    budget = Budget("1e21", "141GB", served="1T", serve_gpus="1xH200", fix={"num_layers": 16, "num_experts": 64})
    plan = recommend(budget, alternatives=0)
    assert plan.serving.load is not None
    assert plan.training.device == "H100 SXM"
