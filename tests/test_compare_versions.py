"""The comparison of two versions' plans: what it finds, and what the map of renames explains."""

from __future__ import annotations

from typing import Any

from tests.compare_versions import Renames, differences

OLD: dict[str, Any] = {"spread": {"laws": [{"loss": 1.5}, {"loss": 2.5}]}, "notes": ["the spread is wide"], "empty": []}


def renames(**entries: Any) -> Renames:
    """A map with some entries."""
    return Renames({"keys": {}, "messages": {}, "added": [], "not_compared": {}, **entries})


def test_equal_plans_do_not_differ_and_a_last_bit_does() -> None:
    """A plan equals itself; the next float, an integer in place of a float, and a missing key are each told."""
    assert differences(OLD, OLD, renames()) == []
    assert differences({"x": 1.0}, {"x": 1.0 + 2**-52}, renames()) == [f"x: was 1.0, is {1.0 + 2**-52}"]
    assert differences({"x": 1.0}, {"x": 1}, renames()) == ["x: was 1.0, is 1"]
    assert differences({"x": 1, "y": 2}, {"x": 1}, renames()) == ["y: only in the old plan, 2"]
    assert differences({"x": []}, {"x": [1]}, renames()) == [
        "x: only in the old plan, []",
        "x[0]: only in the new plan, 1",
    ]


def test_the_map_explains_renamed_keys_reworded_texts_and_new_places() -> None:
    """With an entry for each, a renamed plan is the same; without, every change is told."""
    new = {
        "uncertainty": {"laws": [{"predicted": 1.5, "unit": "nats"}, {"predicted": 2.5, "unit": "nats"}]},
        "notes": ["the uncertainty is wide"],
        "empty": [],
    }
    known = renames(
        keys={"spread.laws[].loss": "uncertainty.laws[].predicted", "spread": "uncertainty"},
        messages={"the spread": "the uncertainty"},
        added=["uncertainty.laws[].unit"],
    )
    assert differences(OLD, new, known) == []
    assert known.unused() == ["keys: spread"]
    assert len(differences(OLD, new, renames())) == 2 + 4 + 1


def test_what_a_law_says_is_found_by_its_name() -> None:
    """An entry of one law covers that law alone, wherever it stands in the list."""
    old = {"laws": [{"law": "a", "says": "x"}, {"law": "b", "says": "x"}]}
    new = {"laws": [{"law": "a", "says": "y"}, {"law": "b", "says": "y"}]}
    assert differences(old, new, renames(not_compared={"laws[a]": "a reason"})) == ["laws[b].says: was 'x', is 'y'"]
    assert differences(old, new, renames(not_compared={"laws[].says": "a reason"})) == []


def test_what_is_not_compared_may_differ_and_what_only_begins_alike_may_not() -> None:
    """`spread` covers spread.laws, not spreads."""
    known = renames(not_compared={"spread": "a reason"})
    assert differences(OLD, {**OLD, "spread": None}, known) == []
    assert differences({"spreads": 1}, {"spreads": 2}, known) == ["spreads: was 1, is 2"]
