"""From a target to the smallest budget: against a plain scan, and against what a target must mean."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from moeplan import Budget, recommend
from moeplan.architecture.conventions import Variables
from moeplan.architecture.published import find_model
from moeplan.architecture.shape import Architecture
from moeplan.cli import cli
from moeplan.cost.devices import parse_gpus
from moeplan.cost.inference_memory import InferenceSettings, inference_bytes
from moeplan.errors import InfeasibleError, UsageError
from moeplan.laws import load_law
from moeplan.plan import inverse
from moeplan.plan.budget_fields import make_budget
from moeplan.plan.choice import choose_design, make_space
from moeplan.plan.document import Plan
from moeplan.plan.goal import DenseGoal, Goal, GoalPoint
from moeplan.plan.inverse import recommend_for
from moeplan.plan.law_selection import select_laws
from moeplan.plan.repeat import repeated_target
from moeplan.plan.search.space import Space
from moeplan.plan.sweep import Sweep
from moeplan.report.page import numbers_without_source
from moeplan.report.sections import plan_sections
from moeplan.report.terminal import terminal_text
from moeplan.units import MemoryLimit, parse_bytes, parse_memory
from tests.sample import sample_plan
from tests.small import VOCAB, small_grid

GRID = small_grid(num_shared_experts=(1,))
SMALL = {"vocab_size": VOCAB, "tied_embeddings": True, "grid": GRID, "alternatives": 0, "threads": 1}
LAW = load_law("tian2025")


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches two decades of compute and of memory, so that a plain scan is quick."""
    monkeypatch.setattr(inverse, "FLOPS_SEARCHED", (1e20, 1e22))
    monkeypatch.setattr(inverse, "BYTES_SEARCHED", (1e10, 1e12))


def work_of(shape: Architecture, tokens: float) -> tuple[float, float]:
    """EL, and C*EL*phi [FLOPs], of a MoE by tian2025's own equations."""
    a, g = shape.activation_ratio, shape.granularity
    matmul = 6 * shape.active_params("non_embedding")
    per_token = matmul + 12 * shape.num_layers * shape.num_heads * shape.head_dim * 4096
    flops = per_token * tokens
    bits = math.log2(g)
    exponent = 1.23 - 7.61e-2 * math.log10(flops) + 1.67e-2 * bits**2 - 1.17e-1 * bits
    leverage = (a + 1.63e-2) ** exponent
    phi = math.exp(-0.31 * math.log(per_token / (0.1915 * flops**0.5095)) ** 2)
    return leverage, flops * leverage * phi


def scan(budgets: list[Budget]) -> list[tuple[float, float]]:
    """EL and work of the best design at each budget, every design scored at every budget."""
    selected = select_laws(None)
    space = Space(
        budgets[-1], selected.searching, base=GRID, reference=GRID, span=(budgets[0].flops, budgets[-1].flops)
    )
    found = []
    for budget in budgets:
        here = space.at(budget)
        scores = here.score(budget.flops)
        if not scores.feasible.any():
            found.append((0.0, 0.0))
            continue
        index = here.choose(scores.mean(selected.objective), scores)
        found.append(work_of(here.architecture(index), math.floor(scores.tokens[index])))
    return found


@pytest.fixture(scope="module")
def along_compute() -> tuple[list[Budget], list[tuple[float, float]]]:
    """A plain scan of 1e20 to 1e22 FLOPs within 30 GB."""
    flops = dict.fromkeys(float(f"{10 ** (i / 231):.2e}") for i in range(20 * 231, 22 * 231 + 1))
    budgets = [Budget(c, "30GB", vocab_size=VOCAB, tied_embeddings=True) for c in flops]  # type: ignore[arg-type]
    return budgets, scan(budgets)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_no_smaller_compute_reaches_the_leverage(along_compute, share: float) -> None:
    """The compute found is the first of a plain scan in steps of 1 % whose recommendation has the leverage."""
    budgets, found = along_compute
    values = np.array([leverage for leverage, _ in found])
    target = values.min() + share * (values.max() - values.min())
    plan = recommend_for(target_el=float(target), memory="30GB", **SMALL)
    first = int(np.argmax(values >= target))
    assert plan.goal is not None
    assert plan.goal.found == plan.request.flops == budgets[first].flops
    assert plan.leverage.efficiency_leverage >= target
    assert plan.leverage.efficiency_leverage == pytest.approx(values[first], rel=1e-6)
    below = [value for budget, value in zip(budgets, values, strict=True) if budget.flops < 0.985 * plan.goal.found]
    assert max(below, default=0) < target
    above = [v >= target for b, v in zip(budgets, values, strict=True) if 1 < b.flops / plan.goal.found <= 1.25]
    assert plan.goal.also_above == pytest.approx(np.mean(above))


@pytest.mark.parametrize("conditions", [{}, {"max_tokens": 1e11}, {"inference_tokens": 1e11}])
def test_what_is_left_out_unjudged_gains_no_more(conditions: dict) -> None:
    """No feasible design gains more at a step, or before it, than is said without any law: leverage and work."""
    budgets = [Budget(c, "30GB", vocab_size=VOCAB, tied_embeddings=True, **conditions) for c in (1e20, 1e21, 1e22)]
    sweep = Sweep(budgets, select_laws(None), grid=GRID)
    for target in (
        {"target_el": 2.0, "dense": None},
        {"target_el": None, "dense": SimpleNamespace(train_flops=1, phi=1)},
    ):
        gain = inverse._Search(sweep, "flops", LAW, say=print, given=(), **target).gain
        space = sweep.space(budgets[0], finer=False)
        seen = [sweep.see(space, step) for step in range(3)]
        most = [float(gain(here, scores)[scores.feasible].max()) for here, scores in seen]
        bounds = [sweep.most_gained(step, gain) for step in range(3)]
        assert all(max(most[: step + 1]) <= bounds[step] * (1 + 1e-12) for step in range(3))
        assert bounds[0] < bounds[2] < math.inf


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("tokens", ["100B", "300B"])
def test_no_smaller_compute_does_the_dense_models_work(along_compute, tokens: str) -> None:
    """The compute found is the first of the scan whose C*EL*phi is the dense model's C*phi, in tian2025's FLOPs."""
    budgets, found = along_compute
    plan = recommend_for(match_dense="3B", dense_tokens=tokens, memory="30GB", **SMALL)
    assert plan.goal is not None
    dense = plan.goal.dense
    assert dense is not None
    assert dense.total_params == pytest.approx(3e9, rel=0.01)
    assert dense.tokens == float(tokens[:-1]) * 1e9
    per_token = dense.train_flops / dense.tokens
    assert per_token > 6 * (dense.total_params - VOCAB * 4096)
    phi = math.exp(-0.31 * math.log(per_token / (0.0655 * dense.train_flops**0.5422)) ** 2)
    assert dense.allocation_efficiency == pytest.approx(phi, rel=1e-6)
    works = np.array([work for _, work in found])
    first = int(np.argmax(works >= dense.train_flops * phi))
    assert plan.goal.found == budgets[first].flops
    leverage = plan.leverage
    assert leverage.dense.train_flops >= dense.train_flops * phi * (1 - 1e-9)
    assert set(dense.work_by_law) == {"ludziejewski2025", "abnar2025", "krajewski2024"}


@pytest.mark.usefixtures("narrow")
def test_no_smaller_memory_reaches_the_leverage() -> None:
    """The memory found is the first of a plain scan in steps of 1 % whose recommendation has the leverage."""
    sizes = dict.fromkeys(float(f"{10 ** (i / 231):.2e}") for i in range(10 * 231, 12 * 231 + 1))
    budgets = [Budget(1e21, MemoryLimit(round(x)), vocab_size=VOCAB, tied_embeddings=True) for x in sizes]
    values = np.array([leverage for leverage, _ in scan(budgets)])
    target = float(values.min() + 0.6 * (values.max() - values.min()))
    plan = recommend_for(target_el=target, flops=1e21, **SMALL)
    first = budgets[int(np.argmax(values >= target))]
    assert plan.goal is not None
    assert plan.goal.finds == "memory"
    assert plan.request.memory == str(first.memory)
    assert plan.goal.found == first.memory.bytes_per_device  # type: ignore[union-attr]
    assert plan.leverage.efficiency_leverage >= target


@pytest.fixture
def few_days(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches a factor of four of days, so that a plain scan is quick."""
    monkeypatch.setattr(inverse, "FLOPS_SEARCHED", (2e21, 8e21))
    monkeypatch.setattr(inverse, "_PER_DECADE", 60)  # steps of 4 %


def scan_days(gpus: str, memory: str, **conditions: object) -> tuple[list[float], list[tuple[float, float]]]:
    """Days, and EL and work of what is chosen in them, each time by a search of its own among all designs."""
    day = parse_gpus(gpus).count * parse_gpus(gpus).device.bf16_flops * 0.25 * 0.9 * 86400
    first, last = (round(60 * math.log10(flops / day)) for flops in (2e21, 8e21))
    laws, days, found = select_laws(None), [], []
    for value in dict.fromkeys(float(f"{10 ** (i / 60):.2e}") for i in range(first, last + 1)):
        budget = Budget(gpus=gpus, days=value, memory=memory, vocab_size=VOCAB, tied_embeddings=True, **conditions)  # type: ignore[arg-type]
        choice = choose_design(make_space(budget, laws.searching, base=GRID, reference=GRID), laws.objective)
        days.append(value)
        found.append(work_of(choice.architecture, choice.tokens))
    return days, found


LIFE = {"served": "300B", "serve_gpus": "2xH100", "price_per_gpu_hour": 2.0}


@pytest.mark.usefixtures("few_days")
@pytest.mark.parametrize(
    "conditions, share",
    [
        pytest.param(LIFE, 0.9, id="life"),
        pytest.param({}, 0.9, id="training", marks=pytest.mark.slow),
        pytest.param({}, 0.4, id="training, less", marks=pytest.mark.slow),
        pytest.param(LIFE, 0.4, id="life, less", marks=pytest.mark.slow),
    ],
)
def test_no_less_time_reaches_the_target(conditions: dict, share: float) -> None:
    """On GPUs the days found are the first of a plain scan whose own recommendation by the clock does the work, of
    training and of what is served together; less time does not, and hours and money are what these days cost."""
    days, found = scan_days("64xH100", "160GB", **conditions)
    works = np.array([work for _, work in found])
    target = works.min() + share * (works.max() - works.min())
    first = int(np.argmax(works >= target))
    assert 0 < first < len(days) - 1
    leverages = np.array([leverage for leverage, _ in found])
    wanted = float(leverages.min() + share * (leverages.max() - leverages.min()))
    plan = recommend_for(target_el=wanted, memory="160GB", gpus="64xH100", optimise="time", **conditions, **SMALL)
    goal = plan.goal
    assert goal is not None
    assert goal.finds == "days"
    assert goal.found == plan.request.days == days[int(np.argmax(leverages >= wanted))]
    assert plan.leverage.efficiency_leverage >= wanted
    assert goal.gpu_hours == pytest.approx(64 * 24 * goal.found, rel=1e-5)
    money = 2.0 * goal.gpu_hours if conditions else None
    assert goal.money == (None if money is None else pytest.approx(money, rel=1e-5))
    dense = inverse._read_dense("5B", "1T", {}, LAW)
    as_much = dataclasses.replace(dense, train_flops=target, phi=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inverse, "_read_dense", lambda *_: as_much)
        matched = recommend_for(match_dense="5B", memory="160GB", gpus="64xH100", **conditions, **SMALL)
    assert matched.goal is not None
    assert matched.goal.found == matched.request.days == days[first]


def test_no_smaller_memory_reaches_the_leverage_in_the_days(monkeypatch: pytest.MonkeyPatch) -> None:
    """On GPUs for given days the memory found is the first of a plain scan whose own recommendation by the clock has
    the leverage; less memory does not."""
    monkeypatch.setattr(inverse, "BYTES_SEARCHED", (2e10, 8e10))
    monkeypatch.setattr(inverse, "_PER_DECADE", 20)  # steps of 12 %
    selected, found = select_laws(None), {}
    for value in dict.fromkeys(float(f"{10 ** (i / 20):.2e}") for i in range(20 * 10 + 6, 20 * 10 + 19)):
        budget = Budget(
            memory=MemoryLimit(round(value)), gpus="64xH100", days=3, vocab_size=VOCAB, tied_embeddings=True
        )
        choice = choose_design(make_space(budget, selected.searching, base=GRID, reference=GRID), selected.objective)
        found[value] = work_of(choice.architecture, choice.tokens)[0]
    leverages = np.array(list(found.values()))
    wanted = float(leverages.min() + 0.6 * (leverages.max() - leverages.min()))
    plan = recommend_for(target_el=wanted, gpus="64xH100", days=3, **SMALL)
    assert plan.goal is not None
    assert plan.goal.finds == "memory"
    first = int(np.argmax(leverages >= wanted))
    assert first > 0
    assert plan.goal.found == pytest.approx(list(found)[first], rel=1e-6)
    assert plan.leverage.efficiency_leverage >= wanted


@pytest.mark.usefixtures("narrow")
def test_more_leverage_takes_no_less_compute() -> None:
    """The compute found rises with the target, and the interval's ends enclose it."""
    found = []
    for target in (2.5, 3.0, 3.5, 4.0):
        goal = recommend_for(target_el=target, memory="30GB", **SMALL).goal
        assert goal is not None
        assert goal.low <= goal.found
        assert goal.high is None or goal.high >= goal.found
        assert goal.interval_factor > 1.09
        at = next(point for point in goal.neighbours if point.budget == goal.found)
        assert at.reached == pytest.approx(at.efficiency_leverage / target, rel=1e-8)
        found.append(goal.found)
    assert found == sorted(found)


@pytest.mark.usefixtures("narrow")
def test_what_cannot_be_had_names_the_best(along_compute) -> None:
    """A leverage that no budget reaches is refused with the largest that one does, which can be asked for."""
    with pytest.raises(InfeasibleError, match="largest found is") as caught:
        recommend_for(target_el=50, memory="30GB", **SMALL)
    best = float(str(caught.value).split("largest found is ")[1].split(" at ")[0])
    assert "\n" not in str(caught.value)
    _, found = along_compute
    most = max(leverage for leverage, _ in found)
    assert most - 0.01 <= best <= most  # told to two places, rounded down
    plan = recommend_for(target_el=best, memory="30GB", **SMALL)
    assert plan.leverage.efficiency_leverage >= best
    with pytest.raises(InfeasibleError, match="% of its work"):
        recommend_for(match_dense="400B", dense_tokens="20T", memory="30GB", **SMALL)
    with pytest.raises(InfeasibleError, match="smallest needs"):
        recommend_for(target_el=3, memory="1MB", **SMALL)


def test_the_plan_is_the_recommendation_at_the_budget_found() -> None:
    """On the declared grid, but for the goal and the command the plan is what recommend answers at that budget."""
    plan = recommend_for(target_el=3, memory="24GB", alternatives=2)
    assert plan.goal is not None
    direct = recommend(Budget(plan.goal.found, "24GB"), alternatives=2)  # type: ignore[arg-type]
    assert dataclasses.replace(plan, goal=None).to_json() == direct.to_json()
    assert Plan.from_json(plan.to_json()) == plan
    assert plan.leverage.efficiency_leverage >= 3


@pytest.mark.usefixtures("narrow")
def test_without_memory_the_dense_models_own_is_the_limit() -> None:
    """A dense model to match gives, if nothing else does, the memory it needs to be served, headroom included."""
    options = {name: value for name, value in SMALL.items() if name != "tied_embeddings"}
    plan = recommend_for(match_dense="2B", dense_tokens="100B", tied_embeddings=True, **options)
    assert plan.goal is not None
    assert plan.goal.dense is not None
    limit = parse_memory(plan.request.memory or "").bytes_per_device
    assert plan.goal.dense.memory == plan.request.memory
    assert 2 * plan.goal.dense.total_params / 0.9 < limit < 1.4 * 2 * plan.goal.dense.total_params / 0.9


def test_a_limit_that_nobody_gave_says_where_it_comes_from() -> None:
    """Where no MoE fits the memory of a tiny dense model, the refusal says whose memory that is and what would work."""
    tiny = {"match_dense": "1M", "dense_tokens": "1B", **SMALL}
    with pytest.raises(InfeasibleError, match=r"what the dense 1M model itself needs.* add --memory 80GB") as caught:
        recommend_for(**tiny)
    limit = str(caught.value).split()[2]
    with pytest.raises(InfeasibleError, match="smallest needs") as given:
        recommend_for(**tiny, memory=limit)
    assert "itself needs" not in str(given.value)


@pytest.mark.usefixtures("narrow")
def test_published_dense_models_bring_shape_and_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundled dense model is matched in its own shape, at the tokens that were published unless others are given."""
    monkeypatch.setattr(inverse, "FLOPS_SEARCHED", (1e21, 1e24))
    model = find_model("llama-2-7b")
    plan = recommend_for(match_dense="llama-2-7b", memory="80GB", **SMALL)
    assert plan.goal is not None
    dense = plan.goal.dense
    assert dense is not None
    assert (dense.total_params, dense.tokens) == (model.architecture.total_params(), model.training_tokens)
    own = Variables(model.architecture, 4096).get("train_flops", "non_embedding_full_attention", dense.tokens)
    assert dense.train_flops == pytest.approx(own, rel=1e-9)
    needed = sum(inference_bytes(model.architecture, InferenceSettings()).values()) / 0.9
    assert parse_bytes(dense.memory) == pytest.approx(needed, abs=1e6)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"target_el": 7, "memory": "80GB", "optimise": "time"}, "add --gpus 64xH100"),
        ({"target_el": 7, "memory": "80GB", "optimise": "speed"}, "flops, time or money"),
        ({"target_el": 7, "gpus": "8xH100", "optimise": "money"}, "add --price-per-gpu-hour 2.5"),
        ({"target_el": 7, "gpus": "8xH100", "days": 3, "optimise": "money"}, "leave out --flops and --days"),
        ({"target_el": 7}, "--memory 80GB to find the compute"),
        ({"target_el": 7, "memory": "80GB", "flops": "1e22"}, "leave one of them out"),
        ({"target_el": 7, "memory": "80GB", "days": 3, "gpus": "8xH100"}, "leave one of them out"),
        ({"memory": "80GB"}, "one target"),
        ({"target_el": 7, "match_dense": "70B", "dense_tokens": "2T", "memory": "80GB"}, "one target"),
        ({"target_el": 1, "memory": "80GB"}, "above 1"),
        ({"target_el": -7, "memory": "80GB"}, "above 1"),
        ({"target_el": math.nan, "memory": "80GB"}, "must be a number"),
        ({"target_el": "7", "memory": "80GB"}, "must be a number"),
        ({"target_el": 7, "dense_tokens": "2T", "memory": "80GB"}, "belongs to --match-dense"),
        ({"match_dense": "70B", "memory": "80GB"}, "add --dense-tokens"),
        ({"match_dense": "-70B", "dense_tokens": "2T"}, "positive"),
        ({"match_dense": "7", "dense_tokens": "2T"}, "from 1M to"),
        ({"dense_tokens": "2T", "memory": "80GB"}, "belongs to --match-dense"),
        ({"match_dense": "70B", "dense_tokens": "0"}, "positive"),
        ({"match_dense": "mixtral-8x7b"}, "takes a dense one"),
        ({"match_dense": "nosuch"}, "no bundled model"),
        ({"target_el": 7, "gpus": "8xH100", "memory_for": ("training",)}, "leave out memory_for"),
        ({"target_el": 7, "memory": "24GB..80GB"}, "not a quantity"),
        ({"target_el": 7, "memory": "80GB", "alternatives": -1}, "whole number"),
    ],
)
def test_targets_that_cannot_be_are_refused(options: dict, words: str) -> None:
    """Targets and limits that cannot be end in one sentence that says what would work."""
    with pytest.raises(UsageError) as caught:
        recommend_for(**options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# --- repeating -------------------------------------------------------------------------------------------------------


def goal(**changes: object) -> Goal:
    """A goal made by hand."""
    values: dict = {
        "finds": "flops",
        "target_efficiency_leverage": 5.25,
        "dense": None,
        "found": 6.789e21,
        "interval_factor": 1.357,
        "low": 2.345e21,
        "high": None,
        "given": (),
        "least": 1e17,
        "most": 1e27,
        "also_above": 0.875,
        "neighbours": (
            GoalPoint(3.39e21, 11_100_000_000, 1_210_000_000, 345_600_000_000, 4.99, 0.951),
            GoalPoint(6.789e21, 11_234_567_890, 1_345_678_901, 456_789_012_000, 5.432, 1.0421),
        ),
    }
    return Goal(**{**values, **changes})


DENSE = DenseGoal("70B", 70_123_456_789, 2.22e12, 9.87e23, 0.9531, "155GB", {"abnar2025": 1.234})


def test_a_target_is_repeated_from_a_plan_file() -> None:
    """--from asks a plan's target again without the limit that was found, unless that limit or a target is given."""
    plan = sample_plan(goal=goal())
    target, conditions = repeated_target(plan, {}, {})
    assert target == {"target_el": 5.25}
    assert "flops" not in conditions
    assert conditions["memory"] == "2x24GB"
    assert "vocab_size" not in conditions
    assert "vocab_size" in repeated_target(sample_plan(goal=goal(given=("vocab_size",))), {}, {})[1]
    assert repeated_target(plan, {}, {"flops": "1e22"}) == ({}, repeated_target(plan, {}, {"flops": "1e22"})[1])
    target, conditions = repeated_target(plan, {}, {"memory": "80GB"})
    assert (target, conditions["memory"], "flops" in conditions) == ({"target_el": 5.25}, "80GB", False)
    target, conditions = repeated_target(plan, {"target_el": 6.0}, {"flops": 1e22})
    assert (target, conditions["flops"], "memory" in conditions) == ({"target_el": 6.0}, 1e22, False)
    ordinary = sample_plan()
    assert repeated_target(ordinary, {}, {})[0] == {}
    assert make_budget(repeated_target(ordinary, {}, {})[1]).flops == ordinary.request.flops
    target, conditions = repeated_target(ordinary, {"target_el": 6.0}, {})
    assert "flops" not in conditions
    matched = sample_plan(goal=goal(dense=DENSE, target_efficiency_leverage=None, finds="memory"))
    target, conditions = repeated_target(matched, {}, {})
    assert target == {"match_dense": "70B", "dense_tokens": 2.22e12}
    assert "memory" not in conditions
    assert conditions["flops"] == 6.789e21


@pytest.mark.usefixtures("few_days")
def test_found_days_are_found_again_from_the_plan_file() -> None:
    """--from a plan whose days were found by the clock asks for its target again, and finds the same plan; given the
    days, it is the plan of these days."""
    plan = recommend_for(target_el=3.5, memory="160GB", gpus="64xH100", optimise="time", **SMALL)
    assert plan.goal is not None
    before = Plan.from_json(plan.to_json())
    target, fields = repeated_target(before, {}, {})
    assert target == {"target_el": 3.5}
    assert not {"days", "flops"} & set(fields)
    again = recommend_for(**target, **(fields | SMALL))
    assert again.goal is not None
    assert again.goal.found == plan.request.days
    assert (again.design, again.training.layouts) == (plan.design, plan.training.layouts)
    target, fields = repeated_target(before, {}, {"days": 5.0})
    assert target == {}
    assert make_budget(fields).days == 5.0


def test_report_says_what_was_found_and_how_sure() -> None:
    """The report has the target, the limit found, both ends of its interval, and what is near it."""
    text = " ".join(terminal_text(plan_sections(sample_plan(goal=goal())), 120).split())
    assert "In steps of 1 %, the smallest compute whose recommendation reaches it is 6.79e21 FLOPs" in text
    assert "a limit between two steps may do" in text
    for words in ("The target", "Efficiency Leverage of 5.25 within 2x24GB", "6.79e21 FLOPs", "5.43x*", "1.36 times",
                  "2.34e21 FLOPs would do", "no budget of those searched", "87.5 % reach it too", "104 %"):  # fmt: skip
        assert words in text, words
    text = " ".join(terminal_text(plan_sections(sample_plan(goal=goal(dense=DENSE, high=9.1e21))), 120).split())
    for words in ("a dense 70B model (70.1B params) on 2.22T tokens", "9.87e23 FLOPs", "95.3 % count,",
                  "it takes 9.1e21 FLOPs", "1.23 (abnar2025)"):  # fmt: skip
        assert words in text, words
    by_days = goal(finds="days", found=30.0, low=20.1, least=0.001, most=1e6, gpu_hours=46080.0, money=None)
    text = " ".join(terminal_text(plan_sections(sample_plan(goal=by_days)), 120).split())
    for words in ("smallest time whose recommendation reaches it is 30 days, 46.1K", "20.1 days would do"):
        assert words in text, words
    assert "The target" not in terminal_text(plan_sections(sample_plan()))
    found = sample_plan(goal=goal(dense=DENSE))
    assert numbers_without_source(plan_sections(found), found.to_json()) == []


@pytest.mark.usefixtures("narrow")
def test_command_finds_a_budget(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """The command passes target and conditions on, and what cannot be had exits with 1."""
    calls = []

    def fake(**options: object) -> Plan:
        calls.append(options)
        if options["target_el"] == 50:
            raise InfeasibleError("no recommendation")
        return sample_plan(goal=goal())

    monkeypatch.setattr(inverse, "recommend_for", fake)
    file = tmp_path / "plan.json"
    args = ["recommend", "--target-el", "7", "--memory", "80GB", "--headroom", "0", "--output", str(file), "--full"]
    result = CliRunner().invoke(cli, args, prog_name="moeplan")
    assert result.exit_code == 0, result.stderr
    assert calls[0]["target_el"] == 7
    assert calls[0]["memory"] == "80GB"
    assert calls[0]["headroom"] == 0
    assert "The target" in result.stdout
    again = CliRunner().invoke(cli, ["recommend", "--from", str(file)], prog_name="moeplan")
    assert again.exit_code == 0, again.stderr
    assert calls[1]["target_el"] == 5.25
    failed = CliRunner().invoke(cli, ["recommend", "--target-el", "50", "--memory", "80GB"], prog_name="moeplan")
    assert failed.exit_code == 1
