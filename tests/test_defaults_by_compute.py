"""What a repeated plan does with a vocabulary and tied embeddings that its compute chose."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from moeplan.plan.budget import Budget, defaults_by_compute
from moeplan.plan.document import Plan
from moeplan.plan.repeat import kept_notes, left_to_compute
from tests.sample import sample_plan

FIRST = "moeplan recommend --flops 1e22 --memory 80GB"


def made(command: str, **request: Any) -> Plan:
    """A plan at 1e22 FLOPs with the defaults of that compute, but for what is given."""
    plan = sample_plan()
    values = {"flops": 1e22, **defaults_by_compute(1e22)} | request
    return dataclasses.replace(
        plan,
        request=dataclasses.replace(plan.request, **values),
        provenance=dataclasses.replace(plan.provenance, command=command),
    )


@pytest.mark.parametrize("flops", [1e18, 9.9e19, 1e20, 9.9e20, 1e21, 1e25])
def test_a_budget_takes_the_defaults_of_its_compute(flops: float) -> None:
    """A budget that gives neither has the vocabulary and the tying of its compute."""
    budget = Budget(flops, "80GB")  # type: ignore[arg-type]
    chosen = defaults_by_compute(flops)
    assert {name: getattr(budget, name) for name in chosen} == chosen


@pytest.mark.parametrize(
    "command, request_, free",
    [
        (FIRST, {}, ["vocab_size", "tied_embeddings"]),
        (f"{FIRST} --vocab-size 131072", {}, ["tied_embeddings"]),
        (f"{FIRST} --vocab-size=131072 --untied", {}, []),
        (FIRST, {"vocab_size": 50304}, ["tied_embeddings"]),
        ("moeplan recommend --from plan.json --flops 1e22", {}, []),
        ('recommend(Budget("1e22", "80GB"))', {}, []),
        ("", {}, []),
        ("moeplan recommend --output 'a", {}, ["vocab_size", "tied_embeddings"]),
    ],
)
def test_what_compute_chose_is_left_to_it(command: str, request_: dict[str, Any], free: list[str]) -> None:
    """Values that the plan's own command did not give are chosen again; all others are kept."""
    assert left_to_compute(made(command, **request_)) == free


def test_what_cannot_be_known_is_said() -> None:
    """A plan that repeats another keeps its values; where compute would choose otherwise, the flags are named."""
    before = made("moeplan recommend --from plan.json")
    after = made("moeplan recommend --from b.json --flops 1e20", flops=1e20)
    vocabulary, tying = kept_notes(before, after, ())
    assert "131072" in vocabulary
    assert "--vocab-size 49152" in vocabulary
    assert "--tied is the default" in tying
    assert kept_notes(before, after, ("vocab_size", "tied_embeddings")) == []
    assert kept_notes(before, before, ()) == []
    assert kept_notes(made(FIRST), after, ()) == []
