"""Weights of laws: how they are given and kept, that the search is exact by them, and what holds whatever they are."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moeplan import Budget, MoeplanError, load_law, read_plan, recommend
from moeplan.architecture.conventions import Variables
from moeplan.cost.inference_memory import InferenceSettings, total_inference_bytes
from moeplan.errors import InfeasibleError
from moeplan.laws.roles import OBJECTIVE_LAWS
from moeplan.plan.choice import choose_design, make_space
from moeplan.plan.law_selection import select_laws
from tests.small import VOCAB, small_grid
from tests.test_cli import run
from tests.test_search import budget, every_architecture

SMALL = ("recommend", "--flops", "1e20", "--memory", "8GB", "--alternatives", "0", "--json")


def weights(laws: object) -> dict[str, float]:
    """The weights that a choice of laws ends up with."""
    return {law.source: law.weight for law in select_laws(laws).objective}  # type: ignore[arg-type]


# --- how they are given ----------------------------------------------------------------------------------------------


def test_a_weight_alone_is_of_the_default_set() -> None:
    """`zhao2025=0.5`, as text or in a mapping, keeps the four default laws and weighs that one."""
    expected = {name: 0.5 if name == "zhao2025" else 1.0 for name in OBJECTIVE_LAWS}
    assert weights("zhao2025=0.5") == weights(["zhao2025=0.5"]) == weights({"zhao2025": 0.5}) == expected


def test_a_weight_beside_names_is_of_the_laws_named() -> None:
    """Names without weights are the set; a weighted law joins it, as one outside the default set joins that."""
    assert weights(["tian2025", "zhao2025=0.5"]) == {"tian2025": 1.0, "zhao2025": 0.5}
    assert weights({"tian2025": None, "zhao2025": 3}) == {"tian2025": 1.0, "zhao2025": 3.0}
    assert weights("krajewski2024=2") == {**dict.fromkeys(OBJECTIVE_LAWS, 1.0), "krajewski2024": 2.0}
    assert weights(["abnar2025"]) == {"abnar2025": 1.0}


@pytest.mark.parametrize(
    "laws, said",
    [
        ("zhao2025=0", "weight 0.0 of law zhao2025 must be a finite number above 0"),
        ("zhao2025=-1", "must be a finite number above 0"),
        ("zhao2025=nan", "must be a finite number above 0"),
        ("zhao2025=inf", "must be a finite number above 0"),
        ("zhao2025=much", "weight 'much' of law zhao2025 must be a number above 0"),
        ("zhao2025=", "weight '' of law zhao2025 must be a number above 0"),
        ({"zhao2025": True}, "weight True of law zhao2025 must be a finite number above 0"),
        ({"zhao2025": "1"}, "weight '1' of law zhao2025 must be a finite number above 0"),
        (["zhao2025", "zhao2025=2"], "named twice"),
        (["zhao2025=2", "zhao2025=2"], "named twice"),
        ({}, "no law is chosen"),
        ("zhao=2", "unknown law 'zhao'; did you mean zhao2025?"),
    ],
)
def test_what_is_no_weight_is_refused(laws: object, said: str) -> None:
    """Each ends in one sentence that holds the law, the value and what would work."""
    with pytest.raises(MoeplanError, match=re.escape(said)):
        select_laws(laws)  # type: ignore[arg-type]


def test_a_file_whose_name_holds_an_equals_sign_is_that_file(tmp_path: Path) -> None:
    """`a=b/abnar2025.yaml` is a file, with or without a weight behind it; one that is not there is told by its name."""
    folder = tmp_path / "a=b"
    folder.mkdir()
    file = folder / "abnar2025.yaml"
    file.write_bytes(Path(load_law("abnar2025").path).read_bytes())
    assert weights(["tian2025", str(file)]) == {"tian2025": 1.0, str(file): 1.0}
    assert weights(["tian2025", f"{file}=4"]) == {"tian2025": 1.0, str(file): 4.0}
    with pytest.raises(MoeplanError, match=r"a=b/none.yaml: cannot be read"):
        select_laws(str(folder / "none.yaml"))


# --- how they are kept -----------------------------------------------------------------------------------------------


def test_weights_are_kept_in_the_plan_and_repeated(tmp_path: Path) -> None:
    """The request holds every weight; --from repeats them, changes one by its name alone, or takes other laws."""
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    made = run(*SMALL, "--law", "zhao2025=0.25", "--output", str(first))
    assert made.exit_code == 0, made.stderr
    expected = {name: 0.25 if name == "zhao2025" else 1.0 for name in OBJECTIVE_LAWS}
    plan = read_plan(first)
    assert plan.request.weights == expected
    assert recommend(Budget("1e20", "8GB"), laws={"zhao2025": 0.25}, alternatives=0).design == plan.design
    assert "zhao2025 (weight 0.25)" in " ".join(run(*SMALL[:-1], "--law", "zhao2025=0.25").stdout.split())
    assert run("recommend", "--from", str(first), "--output", str(second)).exit_code == 0
    assert {**read_plan(second).to_json(), "provenance": None} == {**plan.to_json(), "provenance": None}
    changed = json.loads(run("recommend", "--from", str(first), "--law", "abnar2025=3", "--json").stdout)
    assert changed["request"]["weights"] == {**expected, "abnar2025": 3.0}
    other = json.loads(run("recommend", "--from", str(first), "--law", "abnar2025", "--json").stdout)
    assert (other["request"]["laws"], other["request"]["weights"]) == (["abnar2025"], {})
    assert run("inspect", str(first)).exit_code == 0
    assert run("export", str(first), "--to", "hf").exit_code == 0


def test_equal_weights_are_none() -> None:
    """Any weight that all laws have gives, to the bit, the plan of no weights, which records none."""
    plain = recommend(Budget("1e20", "8GB"), alternatives=0)
    equal = recommend(Budget("1e20", "8GB"), laws=dict.fromkeys(OBJECTIVE_LAWS, 0.3), alternatives=0)
    assert plain.to_json() == equal.to_json()
    assert plain.request.weights == {}


def test_a_weight_far_above_the_others_leaves_one_law() -> None:
    """At 1e9 the others have no say; at 1e-9 the law has none."""
    many = recommend(Budget("1e20", "8GB"), laws={"tian2025": None, "abnar2025": 1e9}, alternatives=0)
    assert many.architecture == recommend(Budget("1e20", "8GB"), laws=["abnar2025"], alternatives=0).architecture
    few = recommend(Budget("1e20", "8GB"), laws={"tian2025": None, "abnar2025": 1e-9}, alternatives=0)
    assert few.architecture == recommend(Budget("1e20", "8GB"), laws=["tian2025"], alternatives=0).architecture


# --- what they do ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given_weights", [(1.0, 0.5, 1.0, 1.0), (0.1, 3.0, 2.0, 7.0), (5.0, 1.0, 1e-3, 1.0)])
@pytest.mark.parametrize("flops, memory", [(1e20, "8GB"), (1e24, "640GB")])
def test_weighted_search_equals_brute_force(flops: float, memory: str, given_weights: tuple[float, ...]) -> None:
    """V of every design is exp(sum of w*ln C_l / sum of w), and the largest is found."""
    limit, grid = budget(flops, memory), small_grid()
    laws = select_laws(dict(zip(OBJECTIVE_LAWS, given_weights, strict=True))).objective
    space = make_space(limit, laws, base=grid, reference=grid)
    choice = choose_design(space, laws)
    best = -math.inf
    for architecture in every_architecture(grid):
        if total_inference_bytes(architecture, InferenceSettings()) > limit.usable_bytes:
            continue
        tokens = min(flops / architecture.flops_per_token(4096), 100e12)
        v, train = Variables(architecture, 4096), architecture.flops_per_token(4096) * tokens
        ln_compute = [float(reference.judge(v, tokens, train)) for reference in space.references]
        value = sum(w * x for w, x in zip(given_weights, ln_compute, strict=True)) / sum(given_weights)
        best = max(best, value)
        if architecture == choice.architecture:
            assert float(choice.ln_value[choice.index]) == pytest.approx(value, abs=1e-9)
    assert choice.best_ln_value == pytest.approx(best, abs=1e-9)
    assert choice.ln_value[choice.index] >= best + math.log1p(-0.005)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.floats(18, 26),
    st.floats(0, 3),
    st.floats(9, 14),
    st.floats(0, 3),
    st.tuples(*[st.floats(1e-3, 1e3)] * len(OBJECTIVE_LAWS)),
)
def test_looser_budget_never_lowers_weighted_value(
    flops: float, more: float, memory: float, room: float, given_weights: tuple[float, ...]
) -> None:
    """More compute or memory never lowers the best V, whatever the weights."""
    grid = small_grid(num_shared_experts=(1,))
    laws = select_laws(dict(zip(OBJECTIVE_LAWS, given_weights, strict=True))).objective
    best = []
    for compute, size in ((flops, memory), (min(flops + more, 26.0), min(memory + room, 14.0))):
        limit = Budget(10**compute, str(int(10**size)), vocab_size=VOCAB, tied_embeddings=True)
        try:
            space = make_space(limit, laws, base=grid, reference=grid)
        except InfeasibleError:
            best.append(-math.inf)
            continue
        best.append(float(space.score(10**compute).mean(laws).max()))
    assert best[1] >= best[0] - 1e-9
