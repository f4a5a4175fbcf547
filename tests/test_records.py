"""Dataclasses to JSON and back, plan files, and what is said of broken ones."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeplan import records
from moeplan.architecture.shape import Architecture
from moeplan.errors import UsageError
from moeplan.estimates import Estimate
from moeplan.plan.document import SCHEMA, Plan, plan_schema, read_plan
from tests.sample import DENSE, MOE, sample_plan


@dataclass(frozen=True)
class Inner:
    """Something inside."""

    name: str
    """What it is called."""
    size: float
    """How large it is."""


@dataclass(frozen=True)
class Outer:
    """Something with every kind of field."""

    count: int
    """A whole number."""
    flag: bool
    """Yes or no."""
    kind: Literal["a", "b"]
    """One of two."""
    inner: Inner
    """A part."""
    maybe: Inner | None
    """A part, or nothing."""
    limit: float | None
    """A number, or nothing."""
    many: tuple[Inner, ...]
    """Parts."""
    by_name: dict[str, float]
    """Numbers by name."""
    sure: Estimate
    """A number with its interval."""
    unsure: Estimate | None
    """The same, or nothing."""


numbers = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300).map(
    lambda x: float(f"{x:.10g}")  # what a file keeps
)
estimates = st.builds(Estimate, numbers, st.none() | numbers, st.none() | numbers)
inners = st.builds(Inner, st.text(), numbers)
outers = st.builds(
    Outer,
    count=st.integers(),
    flag=st.booleans(),
    kind=st.sampled_from(["a", "b"]),
    inner=inners,
    maybe=st.none() | inners,
    limit=st.none() | numbers,
    many=st.lists(inners, max_size=3).map(tuple),
    by_name=st.dictionaries(st.text(), numbers, max_size=3),
    sure=estimates,
    unsure=st.none() | estimates,
)


@given(outers)
def test_round_trip(value: Outer) -> None:
    """What is written is read back as it was, through text, and passes the schema."""
    text = json.dumps(records.to_json(value), allow_nan=False)
    assert records.from_json(Outer, json.loads(text)) == value
    jsonschema.validate(json.loads(text), records.json_schema(Outer))


@given(st.floats(-1e300, 1e300))
def test_floats_keep_ten_digits(value: float) -> None:
    """A float is written with 10 significant digits, and writing it again changes nothing."""
    once = records.to_json(value)
    assert once == pytest.approx(value, rel=1e-9, abs=1e-300)
    assert records.to_json(once) == once


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_json_lacks_is_refused(value: float) -> None:
    """Infinity and NaN, which JSON has not, are refused when written and when read."""
    with pytest.raises(UsageError, match="cannot be written"):
        records.to_json(Inner("a", value))
    with pytest.raises(UsageError, match=r"size is .*, must be a finite number"):
        records.from_json(Inner, {"name": "a", "size": value})


GOOD = records.to_json(
    Outer(1, True, "a", Inner("x", 2.5), None, None, (Inner("y", 3.5),), {"z": 4.5}, Estimate(5, 4, 6), None)
)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"count": 1.5}, "count is 1.5, must be int"),
        ({"count": True}, "count is True, must be int"),
        ({"count": "1"}, "count is '1', must be int"),
        ({"flag": 1}, "flag is 1, must be bool"),
        ({"flag": None}, "flag is None, must be bool"),
        ({"kind": "c"}, "kind is 'c', must be one of a, b"),
        ({"inner": []}, "inner must be an object, not []"),
        ({"inner": {"name": "x"}}, "inner lacks the key 'size'"),
        ({"inner": {"name": "x", "size": "large"}}, "inner.size is 'large', must be float"),
        ({"inner": {"name": "x", "size": 1, "colour": 2}}, "inner has the unknown key 'colour'"),
        ({"maybe": 5}, "maybe must be an object, not 5"),
        ({"limit": 10**400}, "limit is 1000"),
        ({"many": {}}, "many must be a list, not {}"),
        ({"many": [{"name": "y", "size": 1}, 7]}, "many[1] must be an object, not 7"),
        ({"by_name": [1]}, "by_name must be an object, not [1]"),
        ({"by_name": {"z": None}}, "by_name.z is None, must be float"),
        ({"sure": "large"}, "sure is 'large', must be float"),
        ({"sure_low": "large"}, "sure_low is 'large', must be float"),
        ({"unsure_high": 1.0}, "unsure_low and unsure_high must be null"),
        ({"extra": 1}, "the file has the unknown key 'extra'"),
    ],
)
def test_malformed_records_are_told_with_their_place(change: dict[str, Any], sentence: str) -> None:
    """Anything missing, unknown or of a wrong type raises one sentence that names its place and value."""
    with pytest.raises(UsageError) as error:
        records.from_json(Outer, {**GOOD, **change})
    assert str(error.value).startswith(sentence)
    assert len(str(error.value)) < 120


def test_an_estimate_is_a_number_with_an_interval_beside_it() -> None:
    """A number with an interval has three keys in JSON, counts as a plain number, and differs where its ends do."""
    five = Estimate(5, 4, 6)
    assert [GOOD[key] for key in ("sure", "sure_low", "sure_high", "unsure", "unsure_low")] == [5, 4, 6, None, None]
    assert (five + 1, f"{five:.1f}", five == 5, five > 4.5) == (6, "5.0", True, True)
    assert five != Estimate(5, 3, 6)
    for copied in (pickle.loads(pickle.dumps(five)), copy.deepcopy(five)):
        assert (copied, copied.low, copied.high) == (5, 4, 6)


def test_a_missing_key_is_named() -> None:
    """A key that is not there is named."""
    with pytest.raises(UsageError, match="the file lacks the key 'count'"):
        records.from_json(Outer, {key: value for key, value in GOOD.items() if key != "count"})


@pytest.mark.parametrize("architecture", [MOE, DENSE], ids=["moe", "dense"])
def test_architectures_round_trip(architecture: Architecture) -> None:
    """Shapes with derived fields are read back as they were, dense ones too."""
    assert records.from_json(Architecture, records.to_json(architecture)) == architecture


def test_an_impossible_architecture_in_a_file_is_told_with_its_place() -> None:
    """A class that checks itself has its sentence prefixed with where it stands."""
    data = sample_plan().to_json()
    data["architecture"]["num_kv_heads"] = 3
    with pytest.raises(UsageError, match=r"^architecture: num_kv_heads 3 must divide num_heads 16$"):
        Plan.from_json(data)


def test_every_field_of_a_plan_has_its_sentence() -> None:
    """The schema explains every field of every part of a plan, and requires it."""
    for name, definition in plan_schema()["$defs"].items():
        assert definition["description"], name
        assert set(definition["required"]) == set(definition["properties"])
        for field, about in definition["properties"].items():
            assert about["description"].endswith((".", ")")), f"{name}.{field}"


def test_plans_round_trip() -> None:
    """A plan is read back as it was, and its file passes its own schema."""
    plan = sample_plan()
    text = plan.to_text()
    assert Plan.from_json(json.loads(text)) == plan
    assert Plan.from_json(json.loads(text)).to_text() == text
    jsonschema.Draft202012Validator.check_schema(plan_schema())
    jsonschema.validate(json.loads(text), plan_schema())


def test_the_schema_refuses_what_the_reader_refuses() -> None:
    """An unknown key, a missing key and a wrong type fail the schema as they fail the reader."""
    for spoil in (
        lambda data: data.update(more=1),
        lambda data: data.pop("design"),
        lambda data: data["design"].update(tokens="many"),
    ):
        data = sample_plan().to_json()
        spoil(data)
        with pytest.raises(UsageError):
            Plan.from_json(data)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(data, plan_schema())


@pytest.mark.parametrize(
    "command, advice",
    [
        ("moeplan recommend --flops 1e20 --memory 24GB --output a.json --html=b.html", "--flops 1e20 --memory 24GB"),
        ("moeplan recommend --flops 1e20; rm x", "--flops FLOPS --memory SIZE"),
        ("moeplan recommend --flops 1e20\x1b[2J", "--flops FLOPS --memory SIZE"),
        ("sudo moeplan recommend --flops 1e20", "--flops FLOPS --memory SIZE"),
        (7, "--flops FLOPS --memory SIZE"),
    ],
)
def test_a_plan_of_the_first_schema_is_refused_with_the_command_that_makes_it_anew(command: Any, advice: str) -> None:
    """The advice is the file's own command if that is plain words, without the files that it would write."""
    data = {"schema": "moeplan.plan/1", "provenance": {"command": command}}
    with pytest.raises(UsageError) as caught:
        Plan.from_json(data)
    assert str(caught.value).endswith(f"; make a new one with moeplan recommend {advice} --output PLAN.json")


def _without_schema(data: dict[str, Any]) -> Any:
    del data["schema"]
    return data


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda data: {**data, "schema": "moeplan.plan/0"}, f"the plan has schema 'moeplan.plan/0', .* reads {SCHEMA}"),
        (lambda data: {**data, "schema": 7}, "the plan has schema 7"),
        (_without_schema, "this is no plan: it lacks the key 'schema'"),
        (lambda data: [data], "this is no plan"),
        (lambda data: None, "this is no plan"),
        (lambda data: {**data, "notes": "none"}, "notes must be a list, not 'none'"),
        (lambda data: {**data, "value_ratio": math.nan}, "value_ratio is nan, must be a finite number"),
    ],
)
def test_files_that_are_no_plans(tmp_path: Path, spoil: Callable[[Any], Any], reason: str) -> None:
    """A file that is no plan of this version is refused in one sentence that names the file."""
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(spoil(sample_plan().to_json())), encoding="utf-8")
    with pytest.raises(UsageError, match=reason) as error:
        read_plan(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"schema: moeplan.plan/2", b"\xff\xfe\x00", b"[" * 100_000, b"1" * 5000],
    ids=["empty", "half", "yaml", "binary", "deep", "long"],
)
def test_files_that_are_not_json(tmp_path: Path, content: bytes) -> None:
    """Whatever bytes a file holds, reading it as a plan ends in one sentence."""
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is not JSON, so no plan file"):
        read_plan(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file and a folder are told apart from a malformed file."""
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read_plan(path)


def test_a_plan_is_frozen() -> None:
    """A plan cannot be changed."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample_plan().schema = "other"  # type: ignore[misc]


@dataclass(frozen=True)
class _Pairs:
    """Names with counts."""

    pairs: tuple[tuple[str, int], ...]
    """Each a name and its count."""


def test_tuples_of_different_types() -> None:
    """A pair of a name and a number comes back as it was and passes its schema; anything else is refused by both."""
    made = _Pairs((("a", 1), ("b", 2)))
    data = records.to_json(made)
    assert data == {"pairs": [["a", 1], ["b", 2]]}
    assert records.from_json(_Pairs, data) == made
    schema = records.json_schema(_Pairs, "x/1")
    jsonschema.validate(data, schema)
    for wrong in ([["a", "b"]], [["a"]], [["a", 1, 2]], [[1, 1]]):
        with pytest.raises(UsageError):
            records.from_json(_Pairs, {"pairs": wrong})
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"pairs": wrong}, schema)
