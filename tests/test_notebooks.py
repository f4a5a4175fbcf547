"""One way in from Python: the command line's words at the top of the package, data frames, candidates, requests."""

from __future__ import annotations

import csv
import json
import math
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import moeplan
from moeplan import Budget, MoeplanError, Plan, UsageError, compare, export, frontier, inspect, read_plan, recommend
from moeplan.cli import cli
from moeplan.laws import load_law
from moeplan.plan.candidate import alternative, architecture_of
from moeplan.plan.choice import choose_design, make_space
from moeplan.plan.search.variables import DESIGN_VARIABLES
from moeplan.report.plan_page import plan_charts

BUDGET = Budget("1e20", "4GB", context=16384, concurrency=2)


@pytest.fixture(scope="module")
def plan() -> Plan:
    """A small plan."""
    return recommend(BUDGET)


def run(*words: str) -> Any:
    """A command, in this process."""
    return CliRunner().invoke(cli, words)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two answers differ in the recorded command at most."""
    return all(one[key] == other[key] for key in one if key != "provenance") and one.keys() == other.keys()


# ---------------------------------------------------------------------------------------------------- the way in


def test_every_command_that_answers_has_a_twin_at_the_top() -> None:
    """recommend, compare, frontier, inspect, fit, verify and export are functions of the package itself."""
    for name in ("recommend", "compare", "frontier", "inspect", "fit", "verify", "export"):
        assert name in cli.commands
        assert callable(getattr(moeplan, name))


def test_a_budget_takes_the_words_of_serving() -> None:
    """What serving and demand hold can be said flat, as flags are, and is the same budget."""
    from moeplan import Demand, InferenceSettings

    nested = Budget("1e20", "4GB", serving=InferenceSettings(context=16384), demand=Demand(served="1T"))
    assert Budget("1e20", "4GB", context=16384, served="1T") == nested
    assert Budget(**BUDGET.words) == BUDGET
    with pytest.raises(UsageError, match="context"):
        Budget("1e20", "4GB", context=-1)
    with pytest.raises(TypeError, match="contxt"):
        Budget("1e20", "4GB", contxt=1)  # type: ignore[call-arg]


def test_memory_may_be_for_both() -> None:
    """`memory_for` takes the command line's word for training and inference."""
    one, other = (
        Budget("1e22", "80GB", gpus="8xH100", memory_for=kinds) for kinds in ("both", ("training", "inference"))
    )
    assert one == other


@pytest.mark.parametrize(
    "words, said",
    [({"gpus": "8xH100"}, "8xH100 SXM alone are no budget; add days"), ({}, "budget is missing; give flops"),
     ({"flops": 0}, "budget is missing"), ({"flops": -1}, "must be positive")],
)  # fmt: skip
def test_a_budget_without_compute_or_time_says_what_to_add(words: dict, said: str) -> None:
    """Neither FLOPs nor days is a sentence about what is missing, in Python as on the command line."""
    with pytest.raises(UsageError, match=said):
        Budget(memory="80GB", **words)


def test_python_and_the_command_line_give_one_answer(plan: Plan) -> None:
    """The same words give the same plan, comparison, frontier and inspection either way."""
    words = ("--flops", "1e20", "--memory", "4GB", "--context", "16384", "--concurrency", "2", "--json")
    assert same(plan.to_json(), json.loads(run("recommend", *words).stdout))
    assert same(compare(BUDGET).to_json(), json.loads(run("compare", *words).stdout))
    along = run("frontier", *words, "--memory", "2GB..8GB", "--points", "3")
    assert same(frontier(BUDGET, memory="2GB..8GB", points=3).to_json(), json.loads(along.stdout))
    two = ("olmoe-1b-7b", "qwen3-30b-a3b")
    by_words = run("compare", *two, "--context", "4096", "--memory", "80GB", "--json")
    assert same(compare(*two, context=4096, memory="80GB").to_json(), json.loads(by_words.stdout))
    asked = ("--gpus", "64xH100", "--layout", "tp=1,pp=2,ep=8", "--weights", "fp8", "--json")
    found = inspect("qwen3-30b-a3b", gpus="64xH100", layout="tp=1,pp=2,ep=8", weight_dtype="fp8")
    assert same(found.to_json(), json.loads(run("inspect", "qwen3-30b-a3b", *asked).stdout))


def test_export_reads_what_its_command_reads(plan: Plan, tmp_path: Path) -> None:
    """A plan, its file, an alternative and a published model are exported as the command does."""
    path = tmp_path / "plan.json"
    path.write_text(plan.to_text(), encoding="utf-8")
    assert export(plan, "hf") == export(path, "hf") == run("export", str(path), "--to", "hf").stdout
    other = run("export", str(path), "--to", "hf", "--alternative", "1").stdout
    assert export(plan, "hf", alternative=1) == other != export(plan, "hf")
    assert export("qwen3-30b-a3b", "megatron", tokens="1T", layout="tp=2,dp=4") == (
        run("export", "qwen3-30b-a3b", "--to", "megatron", "--tokens", "1T", "--layout", "tp=2,dp=4").stdout
    )


def test_a_frontier_of_a_budget_whose_compute_changes_chooses_its_defaults_anew() -> None:
    """Vocabulary and tying follow the compute of each point, as they do where no budget is given."""
    curve = frontier(Budget("1e22", "24GB"), flops="5e19..5e21", points=2)
    assert curve.to_json()["points"] == frontier("5e19..5e21", "24GB", points=2).to_json()["points"]


def test_verify_needs_a_folder_for_a_plan_that_is_no_file(plan: Plan) -> None:
    """Runs are kept beside the plan's file; without one the folder must be named."""
    with pytest.raises(UsageError, match=r"folder='plan\.verify'"):
        moeplan.verify(plan)


# ---------------------------------------------------------------------------------------------------- data frames


def test_lists_become_frames(plan: Plan) -> None:
    """Every list of an answer is a frame of as many rows, with its numbers under their names."""
    frame = plan.to_frame()
    assert list(frame.total_params) == [other.total_params for other in plan.alternatives]
    bands = plan.to_frame("bands").set_index("variable")
    assert bands.loc["d_model", "value"] == plan.design.d_model
    assert list(plan.to_frame("laws").law) == [opinion.law for opinion in plan.laws]
    assert len(plan.to_frame("layouts")) == 0  # without GPUs
    curve = frontier(BUDGET, memory="2GB..8GB", points=2)
    assert list(curve.to_frame().tokens) == [point.design.tokens for point in curve.points]
    with pytest.raises(UsageError, match=r"there is no list 'tokens'.*alternatives.*layouts"):
        plan.to_frame("tokens")


def test_without_pandas_one_sentence_says_how_to_get_it(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame without pandas is refused with the command that installs it."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MoeplanError, match="pip install pandas"):
        plan.to_frame()


# ---------------------------------------------------------------------------------------------------- charts


def test_answers_draw_themselves(plan: Plan, tmp_path: Path) -> None:
    """A plan, a frontier and a comparison have charts, all or by a word of the title, as SVG and PNG."""
    whole = plan.plot()
    assert [chart.title for chart in whole.charts] == [chart.title for chart in plan_charts(plan)]
    (memory,) = plan.plot("memory").charts
    assert memory.labels[0] == "the plan"
    assert len(memory.labels) > 2
    assert memory.series[0].y[0] == plan.memory.by_group["routed_experts"]
    assert sum(series.y[0] or 0 for series in memory.series) == plan.memory.total_bytes
    assert "<svg" in plan.plot("leverage")._repr_svg_()
    assert f"{plan.design.num_layers} layers" in plan._repr_html_()
    curve = frontier(BUDGET, memory="2GB..8GB", points=2)
    assert len(curve.plot().charts) >= 2
    assert len(compare(BUDGET).plot().charts) == 2
    for name, start in (("a.svg", b"<svg"), ("a.png", b"\x89PNG")):
        curve.plot("leverage").save(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(UsageError, match="there is no chart of 'loss'; there are: Efficiency"):
        plan.plot("loss")


def test_near_equal_designs_have_the_memory_that_they_are_drawn_with(plan: Plan) -> None:
    """A design's exact shape is found again from its numbers, and its bytes are those of a plan of it."""
    wanted = plan.alternatives[0]
    shape = architecture_of(plan, wanted)
    assert shape is not None
    assert (shape.total_params(), shape.active_params()) == (wanted.total_params, wanted.active_params)
    other = alternative(plan, 1)
    assert other.architecture == shape
    (memory,) = plan.plot("memory").charts
    place = next(at for at, label in enumerate(memory.labels) if label.startswith("alternative 1"))
    assert sum(series.y[place] or 0 for series in memory.series) == other.memory.total_bytes


# ---------------------------------------------------------------------------------------------------- candidates


@pytest.mark.parametrize("within", [0.0, 0.05, 0.4])
def test_candidates_are_all_designs_within_the_share(plan: Plan, within: float) -> None:
    """On a small grid they are exactly the designs whose V, each worked out from its own losses, lacks no more."""
    budget = Budget(
        "1e20", "4GB", context=16384, concurrency=2, ranges={"d_model": (768, 1024), "num_experts": (16, 64)}
    )
    found = recommend(budget).candidates(within)
    laws = [load_law(name) for name in plan.request.laws]
    space = make_space(budget, laws)
    scores = choose_design(space, laws).scores
    value = np.mean([scores.of(law) for law in laws], axis=0)
    feasible = [i for i in range(len(space)) if scores.allowed[i] and space.memory[i] <= budget.usable_bytes]
    best = max(value[i] for i in feasible)
    expected = sorted(
        (space.architecture(i).total_params(), space.architecture(i).active_params(), int(scores.tokens[i]))
        for i in feasible
        if math.exp(value[i] - best) >= 1 - within
    )
    columns = found.columns
    rows = zip(columns["total_params"], columns["active_params"], columns["tokens"], strict=True)
    assert sorted(tuple(map(int, row)) for row in rows) == expected
    assert set(DESIGN_VARIABLES) < set(columns)
    assert len(found) == len(expected) > 0


def test_candidates_hold_the_plan_with_its_memory_and_hours(plan: Plan) -> None:
    """As many as the plan counts within 5 %, the plan among them, with the plan's own bytes and GPU-hours."""
    frame = plan.candidates().to_frame()
    assert len(frame) == plan.designs_within_5
    design = plan.design
    own = frame[(frame.total_params == design.total_params) & (frame.active_params == design.active_params)]
    assert plan.memory.total_bytes in list(own.memory_bytes)
    assert float(own.gpu_hours.iloc[0]) == pytest.approx(float(plan.training.gpu_hours or 0), rel=1e-9)
    assert frame.value_share.is_monotonic_decreasing
    with pytest.raises(UsageError, match=r"within 5 must be a share of V"):
        plan.candidates(5)


def test_candidates_on_gpus_have_the_plans_days() -> None:
    """Of a plan for GPUs and days each can be trained; the plan's own row has its days and speed."""
    plan = recommend(Budget(gpus="8xH100", days=1, fix={"d_model": 1024}))
    columns = plan.candidates().columns
    assert len(columns["days"]) == plan.designs_within_5
    own = int(np.flatnonzero(columns["total_params"] == plan.design.total_params)[0])
    assert columns["days"][own] == pytest.approx(float(plan.training.days or 0), rel=1e-6)
    assert columns["tokens_per_second"][own] / 8 == pytest.approx(
        float(plan.training.tokens_per_second_per_gpu or 0), rel=1e-6
    )
    assert (columns["tokens_per_second"] > 0).all()


def test_candidates_are_written_as_csv(plan: Plan, tmp_path: Path) -> None:
    """--candidates writes what Python gives; a suffix of neither kind of file is refused before the search."""
    words = ("recommend", "--flops", "1e20", "--memory", "4GB", "--context", "16384", "--concurrency", "2")
    path = tmp_path / "all.csv"
    assert run(*words, "--candidates", str(path), "--within", "0.02").exit_code == 0
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    found = plan.candidates(0.02)
    assert [int(row["total_params"]) for row in rows] == list(found.columns["total_params"])
    assert [float(row["value_share"]) for row in rows] == pytest.approx(list(found.columns["value_share"]), rel=1e-9)
    refused = run(*words, "--candidates", str(tmp_path / "all.xls"))
    assert refused.exit_code == 2
    assert "must end in .csv or .parquet" in refused.stderr
    assert run(*words, "--within", "0.1").exit_code == 2
    assert "must be a share of V" in run(*words, "--candidates", str(path), "--within", "5").stderr


@pytest.mark.verify  # which brings pyarrow
def test_candidates_are_written_as_parquet(plan: Plan, tmp_path: Path) -> None:
    """As a Parquet file they hold what Python gives."""
    parquet = pytest.importorskip("pyarrow.parquet")
    found = plan.candidates(0.02)
    table = tmp_path / "all.parquet"
    found.write(table)
    assert parquet.read_table(table).to_pydict()["tokens"] == list(found.columns["tokens"])


# ---------------------------------------------------------------------------------------------------- requests

REQUEST = """\
flops: 1e20
memory: 4GB
fix: {granularity: 4}
range:
  tokens: 5B..200B
law: [tian2025, zhao2025=0.5]
choose: lean
weights: fp8
context: 16384
alternatives: 2
"""
FLAGS = shlex.split(
    "--flops 1e20 --memory 4GB --fix granularity=4 --range tokens=5B..200B --law tian2025 --law zhao2025=0.5 "
    "--choose lean --weights fp8 --context 16384 --alternatives 2"
)


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    """A request as a team keeps it."""
    path = tmp_path / "request.yaml"
    path.write_text(REQUEST, encoding="utf-8")
    return path


def test_a_request_file_is_its_flags(request_file: Path) -> None:
    """A file gives the plan that the flags of the same words give."""
    by_file = run("recommend", "--request", str(request_file), "--json")
    assert by_file.exit_code == 0, by_file.output
    assert same(json.loads(by_file.stdout), json.loads(run("recommend", *FLAGS, "--json").stdout))


def test_flags_take_the_place_of_a_files_words_and_it_is_said(request_file: Path) -> None:
    """A flag wins over the file, fixed variables one by one, and stderr says what it replaced."""
    words = ("--memory", "8GB", "--fix", "num_experts=32", "--fix", "granularity=8", "--choose", "best")
    found = run("recommend", "--request", str(request_file), *words, "--json")
    request = json.loads(found.stdout)["request"]
    assert (request["memory"], request["choose"], request["context"]) == ("8GB", "best", 16384)
    assert request["fix"] == {"granularity": 8.0, "num_experts": 32.0}
    assert f"--memory 8GB takes the place of --memory 4GB in {request_file}" in found.stderr
    assert "--fix granularity=8 takes the place of --fix granularity=4" in found.stderr
    assert "num_experts" not in found.stderr
    in_time = run("recommend", "--request", str(request_file), "--gpus", "8xH100", "--days", "0.1", "--json")
    assert json.loads(in_time.stdout)["request"]["days"] == 0.1


def test_output_makes_a_request_that_asks_the_same(request_file: Path, tmp_path: Path) -> None:
    """--output request.yaml holds flags and file together; read back it gives the same plan, and so does --from."""
    first, again, plan = (tmp_path / name for name in ("first.yaml", "again.yaml", "plan.json"))
    one = run("recommend", "--request", str(request_file), "--memory", "8GB", "--output", str(first), "--json")
    other = run("recommend", "--request", str(first), "--output", str(plan), "--json")
    assert same(json.loads(one.stdout), json.loads(other.stdout))
    assert read_plan(plan).request.memory == "8GB"
    assert run("recommend", "--from", str(plan), "--output", str(again)).exit_code == 0
    third = run("recommend", "--request", str(again), "--json")
    assert same(json.loads(one.stdout), json.loads(third.stdout))


@pytest.mark.parametrize(
    "text, said",
    [
        ("memmory: 24GB", "line 1: unknown key 'memmory'; did you mean memory?"),
        ("flops: 1e20\njson: true", "line 2: unknown key 'json'"),
        ("flops: [1e20, 1e21]", "flops holds"),
        ("context: many", "context"),
        ("tied: 3", "must be true or false"),
        ("weights: fp3", "fp3"),
        ("fix: granularity", "granularity"),
        ("flops: 1e20\nflops: 1e21", "stands twice"),
        ("- flops", "must be a mapping"),
        ("flops: {", "not valid YAML"),
    ],
)
def test_what_a_request_cannot_say_is_refused_in_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    """Unknown keys are named with the nearest, other mistakes as flags' are; exit code 2, no traceback."""
    path = tmp_path / "request.yaml"
    path.write_text(text, encoding="utf-8")
    done = run("recommend", "--request", str(path), "--memory", "4GB")
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
