"""The choices beside the best design: lean, robust, and without a law whose term has turned, against a plain loop."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from moeplan import Budget, InferenceSettings, UsageError, read_plan, recommend
from moeplan.architecture.conventions import Variables
from moeplan.architecture.shape import Architecture
from moeplan.cli import cli
from moeplan.cost.inference_memory import total_inference_bytes
from moeplan.plan.choice import Choice, choose_design, make_space
from moeplan.plan.law_selection import select_laws
from moeplan.plan.near_equal import RULES, near_equal
from moeplan.plan.search.space import TIE
from tests.small import laws, small_grid
from tests.test_cli import run
from tests.test_search import budget, every_architecture

BUDGETS = ((1e20, "8GB"), (1e22, "80GB"), (1e24, "640GB"))


def tie_order(shape: Architecture) -> tuple[object, ...]:
    """The order that ties go by, from the definition of attention's share of a block's FLOPs at 4,096 tokens."""
    attention = (
        12 * shape.head_dim * (shape.d_model * (shape.num_heads + shape.num_kv_heads) + 1)
        + 12 * shape.num_heads * shape.head_dim * 4096
    )
    share = attention / (attention + 18 * shape.d_model * shape.G * shape.d_expert)
    integers = (shape.d_model, shape.num_layers, shape.num_heads, shape.num_experts, shape.num_active_experts,
                shape.num_shared_experts, shape.d_expert)  # fmt: skip
    aspect = abs(shape.d_model / shape.num_layers - 88)
    return round(abs(share - 0.35) * 100), round(aspect), shape.total_params(), integers


def judged(choice: Choice, memory: Budget, flops: float) -> list[tuple[Architecture, list[float]]]:
    """Every architecture that fits, one by one, with ln C_l by each law."""
    found = []
    for shape in every_architecture(choice.space.grid):
        if total_inference_bytes(shape, InferenceSettings()) <= memory.usable_bytes:
            tokens = min(flops / shape.flops_per_token(4096), 100e12)
            v, train = Variables(shape, 4096), shape.flops_per_token(4096) * tokens
            found.append((shape, [float(ref.judge(v, tokens, train)) for ref in choice.space.references]))
    return found


def first(candidates: list[tuple[float, Architecture]]) -> Architecture:
    """The largest, ties within .5 % broken."""
    best = max(value for value, _ in candidates)
    return min((shape for value, shape in candidates if value >= best + math.log1p(-TIE)), key=tie_order)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (0.5, 2.0, 1.0, 3.0)])
@pytest.mark.parametrize("flops, memory", BUDGETS)
def test_lean_and_robust_equal_brute_force(flops: float, memory: str, weights: tuple[float, ...]) -> None:
    """Lean has the fewest active params within 5 % of the best V, rich the most, robust the best worst case: a loop."""
    limit, grid = budget(flops, memory), small_grid()
    chosen = select_laws({law.name: weight for law, weight in zip(laws(), weights, strict=True)}).objective
    choice = choose_design(make_space(limit, chosen, base=grid, reference=grid), chosen)
    found = near_equal(choice)
    every = judged(choice, limit, flops)
    value = [sum(w * x for w, x in zip(weights, ln, strict=True)) / sum(weights) for _, ln in every]
    near = max(value) + math.log(0.95)
    lean = [(-math.log(shape.active_params()), shape) for v, (shape, _) in zip(value, every, strict=True) if v >= near]
    assert found["lean"].architecture == first(lean)
    rich = [(math.log(shape.active_params()), shape) for v, (shape, _) in zip(value, every, strict=True) if v >= near]
    assert found["rich"].architecture == first(rich)
    most = [max(ln[i] for _, ln in every) for i in range(len(weights))]
    robust = [(min(x - top for x, top in zip(ln, most, strict=True)), shape) for shape, ln in every]
    assert found["robust"].architecture == first(robust)


@pytest.mark.parametrize("flops, memory", BUDGETS)
def test_each_choice_is_what_it_says(flops: float, memory: str) -> None:
    """On the declared grid lean and rich cost at most 5 % of V, each to its side; robust's worst case is no worse."""
    plan = recommend(Budget(flops, memory), alternatives=0)
    rows = {row.rule: row for row in plan.near_equal}
    best, lean, rich, robust = (rows[name] for name in RULES)
    assert best.design == plan.design
    assert best.value_share >= 1 - TIE
    assert 0.95 <= lean.value_share <= 1
    assert lean.design.active_params <= best.design.active_params * (1 + TIE)
    assert 0.95 <= rich.value_share <= 1
    assert rich.design.active_params >= best.design.active_params * (1 - TIE)
    assert robust.worst_efficiency >= max(best.worst_efficiency, lean.worst_efficiency, rich.worst_efficiency) * (
        1 - TIE
    )
    for row in plan.near_equal:
        assert row.value_share == pytest.approx(row.design.value / plan.best_value, rel=1e-6)
    named = {opinion.law: opinion.efficiency for opinion in plan.laws if opinion.role == "objective"}
    assert best.worst_efficiency == pytest.approx(min(named.values()), rel=1e-9)
    assert named[best.worst_law] == min(named.values())


def test_with_one_law_robust_is_best() -> None:
    """Where one law chooses, its own optimum has the best worst case."""
    plan = recommend(Budget("1e21", "24GB"), laws=["zhao2025"], alternatives=0)
    rows = {row.rule: row.design for row in plan.near_equal}
    assert rows["robust"] == rows["best"]


def test_choose_makes_the_plan_of_that_row(tmp_path: Path) -> None:
    """--choose lean is the row lean of the default plan, recorded, repeated by --from and changed by --choose."""
    usual = recommend(Budget("1e20", "8GB"), alternatives=0)
    rows = {row.rule: row.design for row in usual.near_equal}
    file = tmp_path / "lean.json"
    args = (
        "--flops",
        "1e20",
        "--memory",
        "8GB",
        "--alternatives",
        "0",
        "--choose",
        "lean",
        "--output",
        str(file),
        "--full",
    )
    shown = " ".join(run("recommend", *args).stdout.split())
    assert "the lean choice: the fewest active params within 5 % of the best V" in shown
    plan = read_plan(file)
    assert plan.request.choose == "lean"
    assert plan.design == rows["lean"] != rows["best"]
    assert plan.best_value == usual.best_value
    assert plan.near_equal == usual.near_equal
    assert recommend(Budget("1e20", "8GB"), alternatives=0, choose="lean").design == plan.design
    again = tmp_path / "again.json"
    assert run("recommend", "--from", str(file), "--output", str(again)).exit_code == 0
    assert read_plan(again).design == plan.design
    back = run("recommend", "--from", str(file), "--choose", "best", "--output", str(again), "--full")
    assert "request.choose" in back.stdout
    assert read_plan(again).design == usual.design
    assert run("export", str(file), "--to", "hf").exit_code == 0


def test_only_the_rules_that_there_are_can_be_asked_for() -> None:
    """The flag's choices are the library's; another is refused, and so is one for a target."""
    flag = next(option for option in cli.commands["recommend"].params if option.name == "choose")
    assert list(flag.type.choices) == list(RULES)
    with pytest.raises(UsageError, match="choose 'cheap' must be one of best, lean, rich, robust"):
        recommend(Budget("1e20", "8GB"), choose="cheap")
    refused = run("recommend", "--target-el", "4", "--memory", "8GB", "--choose", "lean")
    assert refused.exit_code == 2
    assert "--choose lean is of a given budget" in refused.stderr


def test_where_training_must_fit_every_choice_can_be_trained() -> None:
    """With few GPUs each of the three has a layout that fits them."""
    limit = Budget("1e22", "80GB", gpus="16xH100", memory_for=("inference", "training"))
    for rule in RULES:
        plan = recommend(limit, alternatives=0, choose=rule)
        assert plan.training.layouts, rule
        assert plan.design == next(row.design for row in plan.near_equal if row.rule == rule)


# --- a law whose term has turned -------------------------------------------------------------------------------------

KIMI_K2 = Budget(
    3.13725206016e24, "1029748825952", headroom=0.0, attention="mla", vocab_size=163840, tied_embeddings=False,
    serving=InferenceSettings(weight_dtype="fp8"),
)  # fmt: skip
"""The compute and memory of a frontier model: ludziejewski2025's size term has turned there (N_a above 1.34e10)."""


def test_the_choice_without_a_law_whose_term_has_turned_is_told() -> None:
    """At Kimi K2's budget ludziejewski2025 pulls towards dense by over 20 % of N_a: a row, and a note, say so."""
    plan = recommend(KIMI_K2, alternatives=0)
    row = next(row for row in plan.near_equal if row.rule == "without ludziejewski2025")
    assert plan.design.active_params > 1.34e10
    assert row.design.active_params < 0.8 * plan.design.active_params
    without = next(law.without for law in plan.laws if law.law == "ludziejewski2025")
    assert without is not None
    assert row.design == dataclasses.replace(without, value=row.design.value), "only its V is by all four laws"
    (note,) = (note for note in plan.notes if "extrapolated interaction" in note)
    assert "pull towards dense designs: without it" in note
    assert "fewer active params" in note


def test_below_the_turn_nothing_is_told() -> None:
    """At 1e22 FLOPs and 80 GB no law's term has turned."""
    plan = recommend(Budget("1e22", "80GB"), alternatives=0)
    assert [row.rule for row in plan.near_equal] == list(RULES)
    assert not any("extrapolated interaction" in note for note in plan.notes)
