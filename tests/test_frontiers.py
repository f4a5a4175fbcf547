"""Curves of recommendations: every point is what `recommend` answers there, and no design is left out wrongly."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from moeplan import Budget, frontier, recommend
from moeplan.cli import cli
from moeplan.errors import InfeasibleError, UsageError
from moeplan.laws import load_law
from moeplan.plan.choice import Choice, choose_design, make_space
from moeplan.plan.document import Plan
from moeplan.plan.law_selection import LawSelection
from moeplan.plan.planner import between_steps_may_help
from moeplan.plan.search.space import Space
from moeplan.plan.sweep import Sweep
from moeplan.quantities import percent
from moeplan.report.blocks import Chart, Table
from moeplan.report.charts import looks
from moeplan.report.frontier import frontier_sections, headline
from moeplan.report.page import numbers_without_source
from moeplan.report.terminal import terminal_text
from moeplan.studies.frontier.curves import Frontier, Point
from moeplan.studies.frontier.points import bar
from moeplan.studies.frontier.ranges import read_values
from moeplan.units import MemoryLimit, format_flops, parse_memory
from tests.drawn_laws import write_drawn
from tests.small import VOCAB, laws, small_grid


@pytest.fixture(scope="module")
def memory_curve() -> Frontier:
    """Along memory, from where nothing fits."""
    return frontier("1e21", "200MB..200GB", points=13)


@pytest.fixture(scope="module")
def compute_curve() -> Frontier:
    """Along compute, over both places where the default vocabulary changes."""
    return frontier("3e19..3e22", "24GB", points=13)


@pytest.fixture(scope="module")
def expert_curve() -> Frontier:
    """Over a variable that is an axis of the grid."""
    return frontier("1e21", "24GB", over="num_experts", points=80)


def check_same(point: Point, plan: Plan) -> None:
    """A point says what a plan says."""
    for name in ("d_model", "num_layers", "num_heads", "num_experts", "num_active_experts", "d_expert", "tokens"):
        assert getattr(point.design, name) == getattr(plan.design, name), name
    assert point.value_ratio == pytest.approx(plan.value_ratio, rel=1e-8)
    leverage = plan.leverage
    for name in ("efficiency_leverage", "low", "high"):
        assert getattr(point, name) == pytest.approx(getattr(leverage, name), rel=1e-8)
    pooled = (leverage.pooled.efficiency_leverage, leverage.pooled.low, leverage.pooled.high)
    assert (point.pooled_leverage, point.pooled_low, point.pooled_high) == pytest.approx(pooled, rel=1e-8)
    assert point.pooled_decades_outside == pytest.approx(leverage.pooled.decades_outside, abs=1e-8)
    assert point.allocation_efficiency == pytest.approx(leverage.allocation_efficiency, rel=1e-8)
    assert point.leverage_by_law == pytest.approx({o.law: o.efficiency_leverage for o in leverage.others}, rel=1e-8)
    assert set(point.outside) == {law.law for law in plan.laws if law.outside}
    price = next(price for price in plan.prices if price.resource == "memory")
    assert point.memory_price == pytest.approx(price.value_ratio, rel=1e-8)
    assert ("memory" in point.binding) == ("memory" in plan.binding)


@pytest.mark.parametrize("place", [0, 5])
def test_points_along_memory_are_recommendations(memory_curve: Frontier, place: int) -> None:
    """At several memory limits the curve has the design, V, EL and price that recommend gives there."""
    point = memory_curve.points[place]
    check_same(point, recommend(Budget("1e21", point.memory), alternatives=0))  # type: ignore[arg-type]


@pytest.mark.parametrize("place", [1, 4, -1])
def test_points_along_compute_are_recommendations(compute_curve: Frontier, place: int) -> None:
    """At several budgets, whatever their default vocabulary, the curve has what recommend gives, prices included."""
    point = compute_curve.points[place]
    plan = recommend(Budget(point.flops, "24GB"), alternatives=0)  # type: ignore[arg-type]
    check_same(point, plan)
    price = next(price for price in plan.prices if price.resource == "compute")
    assert point.compute_price == pytest.approx(price.value_ratio, rel=1e-8)


def test_compute_curve_crosses_vocabularies(compute_curve: Frontier) -> None:
    """The three default vocabularies have a grid each."""
    assert len(compute_curve.provenance.grid_digests) == 3
    assert len(compute_curve.points) == 13


def test_what_does_not_fit_is_left_out(memory_curve: Frontier) -> None:
    """Limits below the smallest design give no point but one sentence, which names the smallest that would do."""
    assert len(memory_curve.points) < 13
    (sentence,) = memory_curve.left_out
    needed = parse_memory(sentence.split("smallest needs ")[1].split(",")[0]).bytes_per_device
    assert needed <= memory_curve.points[0].x * 1.001
    with pytest.raises(InfeasibleError, match="smallest needs"):
        frontier("1e21", "1MB..2MB", points=2)


def test_value_never_falls(memory_curve: Frontier, compute_curve: Frontier) -> None:
    """Along memory and, at one vocabulary, along compute V rises, up to ties, and more is never worth less."""
    for curve in (memory_curve, compute_curve):
        for one, other in itertools.pairwise(curve.points):
            if other.flops >= 1e21 <= one.flops:
                assert other.design.value >= one.design.value * (1 - 0.005)
        assert all(point.memory_price >= 1 - 1e-9 for point in curve.points)  # type: ignore[operator]
    assert all(1 <= point.compute_price <= 1.1 * 1.001 for point in compute_curve.points)  # type: ignore[operator]


# --- a ladder leaves nothing out -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"ranges": {"tokens": (2e10, 5e11)}},
        {"ranges": {"tokens_per_param": (20.0, 300.0)}},
        {"inference_tokens": 1e11},
        {"tokens_available": 1e10},
        {"fix": {"num_experts": 64}},
        {"fix": {"activation_ratio": 0.1}},  # between the grid's steps
        {"fix": {"total_params": 3e9}},
    ],
    ids=lambda conditions: "+".join(conditions) or "free",
)
@pytest.mark.parametrize("axis", ["flops", "memory"])
def test_sweep_equals_one_search_after_the_other(axis: str, conditions: dict) -> None:
    """What a sweep chooses between its ends is what a search of every design at each step alone chooses."""
    grid = small_grid()
    selected = LawSelection(tuple(laws()), ())
    common = {"vocab_size": VOCAB, "tied_embeddings": True, **conditions}
    if axis == "flops":
        budgets = [Budget(flops, MemoryLimit(30 * 10**9), **common) for flops in np.geomspace(1e18, 1e25, 17)]
    else:
        budgets = [Budget(1e21, MemoryLimit(int(size)), **common) for size in np.geomspace(1e8, 1e13, 17)]
    found: dict[int, Choice] = {}
    sweep = Sweep(budgets, selected, grid=grid)
    sweep.choices(found.__setitem__)
    for step, budget in enumerate(budgets):
        alone = None
        for base in (grid, grid.halved()):
            with contextlib.suppress(InfeasibleError):
                space = make_space(budget, selected.searching, base=base, reference=grid)
                alone = alone or choose_design(space, selected.objective)
            if not between_steps_may_help(budget):
                break
        if alone is None:
            assert step in sweep.infeasible
            continue
        assert found[step].architecture == alone.architecture
        assert found[step].best_ln_value == pytest.approx(alone.best_ln_value, abs=1e-9)
    assert len(found) + len(sweep.infeasible) == len(budgets)
    assert len(found) > 5


def test_a_law_that_falls_with_compute_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a law of one's own values some designs less with more compute, all designs stay in question."""
    grid = small_grid()
    budgets = [Budget(flops, "30GB", vocab_size=VOCAB, tied_embeddings=True) for flops in (1e20, 1e21, 1e22)]
    sweep = Sweep(budgets, LawSelection((load_law("zhao2025"),), ()), grid=grid)
    space = Space(budgets[-1], sweep.laws.searching, base=grid, reference=grid)
    low, high = space.score(1e20), space.score(1e22)
    assert not sweep.eligible(space, 2, low, high).all()
    low.ln_compute[:, 0] += 100
    assert sweep.eligible(space, 2, low, high).all()


# --- over a variable -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_everything_else_is_optimised_again(expert_curve: Frontier, share: float) -> None:
    """At each number of experts the curve has the design that recommend finds with that number fixed."""
    point = expert_curve.points[int(share * len(expert_curve.points))]
    fixed = recommend(Budget("1e21", "24GB", fix={"num_experts": point.x}), alternatives=0)  # type: ignore[arg-type]
    assert fixed.design.num_experts == point.x
    assert point.value_ratio == pytest.approx(fixed.value_ratio, rel=1e-8)
    assert point.design.tokens == fixed.design.tokens


def test_each_laws_line_peaks_at_its_own_optimum(expert_curve: Frontier) -> None:
    """A law's line is 1 at its best, which is the law's own optimum under the same limits, and V's is the plan."""
    plan = recommend(Budget("1e21", "24GB"), alternatives=0)  # type: ignore[arg-type]
    optima = {opinion.law: opinion.optimum for opinion in plan.laws if opinion.optimum}
    assert {line.law for line in expert_curve.lines} == set(optima)
    for line in expert_curve.lines:
        assert max(line.relative) == 1
        own = next(ratio for ratio, relative in zip(line.compute_ratio, line.relative, strict=True) if relative == 1)
        best = optima[line.law].value / 1e21  # within a tie  # type: ignore[union-attr]
        assert best <= own * (1 + 1e-8)
        assert best >= own * (1 - 0.005)
    assert expert_curve.recommended is not None
    check_same(expert_curve.recommended, plan)
    best_value = max(point.value_ratio for point in expert_curve.points)
    assert expert_curve.recommended.value_ratio >= best_value * (1 - 0.005)


def test_active_ratio_is_varied_at_one_size() -> None:
    """Over the active ratio total params stay within 2 % of the recommendation's, or of what is fixed."""
    free = frontier("1e21", "24GB", over="active_param_ratio", points=12)
    assert free.recommended is not None
    size = free.recommended.design.total_params
    assert free.held == {"total_params": size}
    assert all(abs(point.design.total_params / size - 1) <= 0.02 for point in free.points)
    fixed = frontier("1e21", "24GB", over="active_param_ratio", points=12, fix={"total_params": 6e9})
    assert fixed.held == {}
    assert all(abs(point.design.total_params / 6e9 - 1) <= 0.02 for point in fixed.points)
    xs = [point.x for point in free.points]
    assert xs == sorted(xs)
    assert len(xs) > 8


def test_tokens_are_varied_at_equal_compute() -> None:
    """Over tokens every design spends the budget, so more tokens go with fewer active params."""
    curve = frontier("1e21", "24GB", over="tokens", points=10)
    sizes = [point.design.active_params for point in curve.points]
    assert sizes == sorted(sizes, reverse=True)
    for point in curve.points:  # FLOPs per token are 6*(N_a without the input embedding), and some attention
        params = point.design.active_params - 131072 * point.design.d_model
        assert 0.7e21 < 6 * params * point.design.tokens < 1e21


@pytest.mark.parametrize(
    "options",
    [
        {"flops": "1e21", "memory": "8GB..80GB"},
        pytest.param({"flops": "1e20..1e22", "memory": "24GB"}, marks=pytest.mark.slow),
    ],
)
def test_a_fitted_law_has_an_interval_at_every_point(options: dict, tmp_path: Path) -> None:
    """Along memory and compute, EL and C_l/C by a law with draws stand in intervals, in tables and as bands.

    Laws without draws have none.
    """
    path = write_drawn(tmp_path / "own.yaml", "ludziejewski2025")
    curve = frontier(**options, points=2, laws=[path, "abnar2025"], fix={"num_active_experts": 8, "num_experts": 64})
    for point in curve.points:
        low, high = point.compute_ends_by_law["own"]
        assert low < point.compute_ratio_by_law["own"] < high
        assert set(point.compute_ends_by_law) == set(point.leverage_ends_by_law) == {"own"}
    sections = frontier_sections(curve)
    charts = [block for section in sections for block in section.blocks if isinstance(block, Chart)]
    banded = [(chart.title, series.name) for chart in charts for series in chart.series if series.low]
    assert [title for title, name in banded if name == "own"] == [chart.title for chart in charts]
    assert {name for _, name in banded} == {"own", "pooled"}
    columns = [block.columns for section in sections for block in section.blocks if isinstance(block, Table)]
    assert {"EL own", "C_l/C own"} <= {name for row in columns for name in row}
    assert numbers_without_source(sections, curve.to_json()) == []


# --- ranges ----------------------------------------------------------------------------------------------------------


def test_ranges_hold_their_ends_and_readable_steps() -> None:
    """Points are evenly spaced in the logarithm, ends included exactly, and can be typed."""
    sizes = read_values("memory", "24GB..640GB", 40)
    assert (str(sizes[0]), str(sizes[-1]), len(sizes)) == ("24GB", "640GB", 40)
    steps = np.diff(np.log([size.bytes_per_device for size in sizes]))  # type: ignore[union-attr]
    assert steps == pytest.approx(math.log(640 / 24) / 39, rel=0.12)
    assert all(len(str(size)) <= 7 for size in sizes)
    assert read_values("flops", "1e20 .. 1e22", 3) == [1e20, 1e21, 1e22]
    assert [str(size) for size in read_values("memory", "8x24GiB..8x80GB", 2)] == ["8x24GiB", "8x80GB"]
    assert len(read_values("memory", "80GB..80.1GB", 40)) == 40


@pytest.mark.parametrize(
    "options, words",
    [
        ({"flops": "1e22", "memory": "80GB"}, "nothing to draw"),
        ({"gpus": "8xH100", "days": 14, "memory": "80GB"}, "--days 7..90"),
        ({"flops": "1e20..1e25", "memory": "24GB..80GB"}, "both ranges"),
        ({"flops": "1e22", "memory": "640GB..24GB"}, "write 24GB..640GB"),
        ({"flops": "1e22", "memory": "80GB..80GB"}, "moeplan recommend --memory 80GB"),
        ({"flops": "1e22", "memory": "80e9B..80GB"}, "one point"),
        ({"flops": "1e22", "memory": "..80GB"}, "two ends"),
        ({"flops": "1e22", "memory": "24GB.."}, "two ends"),
        ({"flops": "1e22", "memory": ".."}, "two ends"),
        ({"flops": "1e22", "memory": "1GB..2GB..3GB"}, "two ends"),
        ({"flops": "1e20...1e22", "memory": "80GB"}, "two dots"),
        ({"flops": "1e22", "memory": "24GB.640GB"}, "'24GB.640GB' is not a quantity"),
        ({"flops": "1e22", "memory": "24GB…640GB"}, "or a range like 24GB..640GB"),
        ({"flops": "1e22", "memory": "24..640GB"}, "write it like 24GB"),
        ({"flops": "1e20.1e22", "memory": "80GB"}, "'1e20.1e22' is not a quantity"),
        ({"flops": "1e20-1e22", "memory": "80GB"}, "or a range like 1e20..1e25"),
        ({"flops": "1e22x", "memory": "24GB..640GB"}, "'1e22x'"),
        ({"flops": "1e20..1e25", "memory": ""}, "memory limit ''"),
        ({"flops": "1e20..80GB", "memory": "80GB"}, "unit 'GB'"),
        ({"flops": "1e22", "memory": "1e20..80GB"}, "1 byte"),
        ({"flops": "1e22", "memory": "8x24GB..4x80GB"}, "same number"),
        ({"flops": "1e2..1e50", "memory": "80GB"}, "too small"),
        ({"flops": "1e20..1e35", "memory": "80GB"}, "beyond"),
        ({"flops": "1e22", "memory": "24GB..80GB", "points": 1}, "from 2 to"),
        ({"flops": "1e22", "memory": "24GB..80GB", "points": 10**6}, "from 2 to"),
        ({"memory": "24GB..80GB"}, "compute budget is missing"),
        ({"flops": "1e20..1e21"}, "memory limit is missing"),
        ({"flops": "1e22", "memory": "80GB", "over": "granularty"}, "did you mean granularity"),
        ({"flops": "1e22", "memory": "80GB", "over": "memory"}, "by a range"),
        ({"flops": "1e22", "memory": "24GB..80GB", "over": "tokens"}, "one budget"),
        ({"flops": "1e20", "memory": "8GB", "over": "G", "fix": {"G": 9}}, "one value"),
    ],
)
def test_curves_that_cannot_be_are_refused(options: dict, words: str) -> None:
    """Every range that cannot be ends in one sentence that says what would work."""
    with pytest.raises(UsageError) as caught:
        frontier(**options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the report ------------------------------------------------------------------------------------------------------


def test_reports_show_the_curve(memory_curve: Frontier, compute_curve: Frontier, expert_curve: Frontier) -> None:
    """Each report opens with what the curve says and has a table of the ends and charts of every point and law."""
    for curve in (memory_curve, compute_curve, expert_curve):
        sections = frontier_sections(curve)
        blocks = [block for section in sections for block in section.blocks]
        charts = [block for block in blocks if isinstance(block, Chart)]
        assert len(charts) == (1 if curve is expert_curve else 2)
        for chart in charts:
            assert any(series.strong for series in chart.series)
            assert all(len(series.x) == len(series.y) for series in chart.series)
            assert max(len(series.x) for series in chart.series) == len(curve.points)
        (table,) = (block for block in blocks if isinstance(block, Table))
        assert 10 <= len(table.rows) <= 14
        assert headline(curve).endswith(".")
        text = terminal_text(sections, 80)
        assert all(len(line) <= 80 for line in text.splitlines())
    assert "left out, up to" in terminal_text(frontier_sections(memory_curve))


def test_headlines_are_true_from_there_on(memory_curve: Frontier, compute_curve: Frontier) -> None:
    """ "From X on" is said only of what holds at every later point; a stretch between is told as one."""
    points = tuple(dataclasses.replace(point, memory_price=1.005) for point in memory_curve.points)
    where = points[0].memory
    assert f"From {where} on" in headline(dataclasses.replace(memory_curve, points=points))
    dip = (*points[:3], *(dataclasses.replace(point, memory_price=1.05) for point in points[3:]))
    text = headline(dataclasses.replace(memory_curve, points=dip))
    assert "hardly pays" not in text
    assert "pays all the way" not in text
    assert "less than 1 %" in text
    last = (*dip[3:], dataclasses.replace(points[-1], memory_price=1.005))
    assert f"At {last[-1].memory}, 10 %" in headline(dataclasses.replace(memory_curve, points=last))
    priced = [dataclasses.replace(p, memory_price=1.2, compute_price=1.1) for p in compute_curve.points]
    priced[1] = dataclasses.replace(priced[1], memory_price=1.0)
    text = headline(dataclasses.replace(compute_curve, points=tuple(priced)))
    assert f"From {format_flops(priced[2].x)} FLOPs on" in text


def test_phi_is_told_beside_the_leverage_it_shrinks(compute_curve: Frontier) -> None:
    """EL by tian2025 is at the best split of compute; what the splits of the curve keep of it stands in the notes."""
    text = " ".join(terminal_text(frontier_sections(compute_curve), 100).split())
    kept = [point.allocation_efficiency for point in compute_curve.points]
    assert min(kept) < 0.9
    assert f"the splits here keep from {percent(min(kept))} of it" in text


def test_each_laws_choice_says_where_it_is_not_its_own(expert_curve: Frontier) -> None:
    """A law whose best is at an end of the curve may choose beyond it, and one outside its range is extrapolated."""
    line = expert_curve.lines[0]
    count = len(line.x)
    falling = tuple(1 - place / count for place in range(count))
    outside = dataclasses.replace(line, relative=falling, inside=(False,) * count)
    text = headline(dataclasses.replace(expert_curve, lines=(outside,)))
    assert text.endswith(f"choose: {line.law} {line.x[0]:.0f}* (where the curve ends).")
    middle = (0.5, 1.0, *falling[2:])
    inner = dataclasses.replace(line, relative=middle, inside=(True,) * count)
    text = headline(dataclasses.replace(expert_curve, lines=(inner,)))
    assert text.endswith(f"choose: {line.law} {line.x[1]:.0f}.")


def test_a_law_looks_alike_on_both_charts(memory_curve: Frontier) -> None:
    """One colour and one shape stand for one law on every chart of a curve, and for no other."""
    blocks = [block for section in frontier_sections(memory_curve) for block in section.blocks]
    found = [(series.name, look) for b in blocks if isinstance(b, Chart) for look, series in looks(b)]
    assert len({name for name, _ in found}) < len(found)
    assert len({name for name, _ in found}) == len({look for _, look in found}) == len(set(found))


def test_every_number_has_a_source(memory_curve: Frontier, compute_curve: Frontier, expert_curve: Frontier) -> None:
    """No number of a curve's page is without a source, and those of the table are the JSON's."""
    for curve in (memory_curve, compute_curve, expert_curve):
        assert numbers_without_source(frontier_sections(curve), curve.to_json()) == []


def test_losses_of_laws_never_meet(memory_curve: Frontier, expert_curve: Frontier) -> None:
    """Every chart is in leverage or in shares of compute, never in loss."""
    for curve in (memory_curve, expert_curve):
        for section in frontier_sections(curve):
            for block in section.blocks:
                if isinstance(block, Chart):
                    assert block.y_quantity in ("times", "share")
    assert all(line.relative and max(line.relative) == 1 for line in expert_curve.lines)


def test_command_prints_what_python_returns() -> None:
    """--json of the command is the library's answer, whose command is recorded."""
    args = ["frontier", "--flops", "1e20", "--memory", "4GB..16GB", "--points", "3", "--law", "zhao2025", "--json"]
    result = CliRunner().invoke(cli, args, prog_name="moeplan")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    direct = frontier("1e20", "4GB..16GB", points=3, laws="zhao2025", command=f"moeplan {' '.join(args)}").to_json()
    assert found == direct
    assert found["schema"] == "moeplan.frontier/1"
    assert [point["memory"] for point in found["points"]] == ["4GB", "8GB", "16GB"]


def test_progress_is_a_bar_of_one_width() -> None:
    """Progress says how many points are done, in plain characters."""
    assert bar(0, 40) == "[........................] 0 of 40 points"
    assert bar(20, 40) == "[############............] 20 of 40 points"
    assert bar(40, 40) == "[########################] 40 of 40 points"


def test_a_range_over_numbers_of_devices() -> None:
    """Along 1x8GB..4x8GB every point is what recommend answers on so many devices, and stands at their memory."""
    found = frontier("1e20", "1x8GB..4x8GB", points=3, laws="zhao2025")
    assert [point.memory for point in found.points] == ["8GB", "2x8GB", "4x8GB"]
    assert [point.x for point in found.points] == [8e9, 16e9, 32e9]
    for point in found.points:
        assert point.memory is not None
        alone = recommend(Budget("1e20", point.memory), laws="zhao2025", alternatives=0).design
        assert (point.design.total_params, point.design.tokens) == (alone.total_params, alone.tokens)
    for text, words in (("2x8GB..4x16GB", "different sizes"), ("4x8GB..2x8GB", "runs backwards")):
        with pytest.raises(UsageError, match=words):
            frontier("1e20", text)


@pytest.fixture(scope="module")
def by_days() -> Frontier:
    """A curve over days on GPUs, of designs that are fixed but for their experts."""
    return frontier(memory="8x80GB", gpus="64xH100", days="7..90", points=4, fix=SOME_WIDTH)


SOME_WIDTH = {"d_model": 3072.0, "num_active_experts": 8.0}


def test_points_over_days_are_recommendations(by_days: Frontier) -> None:
    """Every point over days is what `recommend` answers there, though neighbours share their searches."""
    assert by_days.over == "days"
    assert [point.x for point in by_days.points] == [7.0, 16.4, 38.4, 90.0]
    for point in (by_days.points[0], by_days.points[1], by_days.points[-1]):
        budget = Budget(memory="8x80GB", gpus="64xH100", days=point.x, fix=SOME_WIDTH)
        plan = recommend(budget, alternatives=0)
        assert (plan.design.total_params, plan.design.tokens) == (point.design.total_params, point.design.tokens)
        assert plan.design.value == pytest.approx(point.design.value, rel=1e-9)
        assert plan.training.mfu == pytest.approx(point.mfu, rel=1e-9)
        assert plan.training.days == pytest.approx(point.days, rel=1e-9)
        assert point.days == pytest.approx(point.x, rel=1e-6)
    values = [point.design.value for point in by_days.points]
    assert values == sorted(values)


def test_a_curve_over_gpus_and_sequences() -> None:
    """More GPUs for the same days never lower V, in whole nodes; more sequences at a time leave less for the model."""
    found = frontier(memory="8x80GB", gpus="32..100xH100", days=30, points=4, fix=SOME_WIDTH)
    assert [point.x for point in found.points] == [32, 48, 72, 100]
    values = [point.design.value for point in found.points]
    assert values == sorted(values)
    users = frontier("1e21", "80GB", concurrency="1..64", over="concurrency", points=3, fix={"d_model": 2048.0})
    assert [point.x for point in users.points] == [1, 8, 64]
    values = [point.design.value for point in users.points]
    assert values == sorted(values, reverse=True)
    speeds = [point.tokens_per_second_per_user for point in users.points]
    assert speeds == sorted(speeds, reverse=True)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"flops": "1e22", "memory": "80GB", "over": "days"}, "--days 7..90"),
        ({"memory": "8x80GB", "gpus": "64xH100..128xH200", "days": 30}, "give both ends the same device"),
        ({"memory": "8x80GB", "gpus": "64xH100", "days": "90..7"}, "runs backwards; write 7..90"),
        ({"memory": "8x80GB", "gpus": "64xH100", "days": "0..7"}, "days '0' must be a number above 0"),
        ({"memory": "80GB", "flops": "1e22", "concurrency": "0..8"}, "whole number of sequences"),
        ({"memory": "80GB", "days": "7..90"}, "days need gpus"),
    ],
)
def test_ranges_that_cannot_be(given: dict[str, Any], words: str) -> None:
    """A range of an axis that cannot be is refused in one sentence with what would work."""
    with pytest.raises(UsageError, match=re.escape(words)):
        frontier(**given)
