"""Quantities described once: how a value is written, and numbers of a report that know their place and source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest

from moeplan.plan.document import plan_schema
from moeplan.plan.search.variables import DESIGN_VARIABLES
from moeplan.quantities import BYTES, FLOPS, QUANTITIES, SHARE, TIMES, field_kinds
from moeplan.records import to_json
from moeplan.report.page.elements import pointed_at
from moeplan.report.sections import plan_sections, seen
from moeplan.report.text import Number, Source, Text, joined, listed, mark
from moeplan.report.view import View
from moeplan.texts import counted, sentence
from tests.sample import sample_plan


@dataclass(frozen=True)
class Part:
    """A part of a result."""

    tokens: float | None
    low: Annotated[float, SHARE]
    high: Annotated[float, SHARE]
    by_law: Annotated[dict[str, float], TIMES]


@dataclass(frozen=True)
class Whole:
    """A result."""

    parts: tuple[Part, ...]
    total_bytes: int
    steps: int


FOUND = Whole((Part(2e12, 0.1, 0.25, {"a/b~c": 3.0}), Part(None, 0.5, 0.5, {})), 80 * 10**9, 12_000)


def test_every_design_variable_is_in_the_glossary() -> None:
    """What people fix and bound has one entry that says what it is and how it is written."""
    assert set(DESIGN_VARIABLES) <= set(QUANTITIES)
    assert all(variable.meaning for variable in DESIGN_VARIABLES.values())


def test_kinds_come_from_annotation_name_and_type() -> None:
    """A field's own kind counts before that of its name, and a whole number is written whole."""
    assert [field_kinds(Whole)[name] for name in ("total_bytes", "steps")] == [BYTES, field_kinds(Whole)["steps"]]
    assert field_kinds(Whole)["steps"].text(12_000) == "12,000"
    assert field_kinds(Part)["by_law"] is TIMES
    assert field_kinds(Part)["tokens"] is QUANTITIES["tokens"].kind


@pytest.mark.parametrize(
    "template, text, paths",
    [
        ("{total_bytes} in {steps} steps", "80GB in 12,000 steps", ["/total_bytes", "/steps"]),
        ("{parts[0].low..high}", "10–25 %", ["/parts/0/low", "/parts/0/high"]),
        ("{parts[1].low..high}", "50 %", ["/parts/1/low"]),
        ("{parts[0].by_law[a/b~c]}", "3.00x", ["/parts/0/by_law/a~1b~0c"]),
        ("{parts[0].tokens:flops2}, {steps:.1e}", "2e12, 1.2e+04", ["/parts/0/tokens", "/steps"]),
        ("on {parts[1].tokens} tokens", "-", []),
    ],
)
def test_templates_make_texts_that_know_their_numbers(template: str, text: str, paths: list[str]) -> None:
    """A number is written by its kind and points at its value in the JSON; a text without its number says nothing."""
    made = View(FOUND)(template)
    assert made == text
    assert list(made.paths) == paths
    for start, number in made.numbers:
        assert made[start : start + len(number.text)] == number.text
        assert pointed_at(to_json(FOUND), number.path) == number.value


def test_texts_keep_their_numbers_when_joined() -> None:
    """Joining, listing and flagging move numbers along; a text's own source is for those that have none."""
    source = Source("own")
    text = joined(("a ", mark(View(FOUND)("{steps}"), True), ", ", Text("7", source, [(0, Number(7, "7"))])))
    assert text == "a 12,000*, 7"
    assert [(start, number.text) for start, number in text.numbers] == [(2, "12,000"), (11, "7")]
    assert text.numbers[1][1].source == source
    assert listed([text, text]).numbers[2][0] == len(text) + 4


def test_numbers_of_a_plan_stand_where_they_say() -> None:
    """Every number of a plan's report is its JSON's value, and has one source wherever it stands."""
    data, sources = sample_plan().to_json(), {}
    for section in plan_sections(sample_plan()):
        for block in section.blocks:
            texts = [cell for row in getattr(block, "rows", ()) for cell in row]
            texts += [getattr(block, "text", ""), *getattr(block, "texts", ())]
            for text in texts:
                for _, number in text.numbers if isinstance(text, Text) else ():
                    assert pointed_at(data, number.path) == pytest.approx(number.value, rel=1e-9)
                    assert sources.setdefault(number.path, number.source) == number.source
    assert len(sources) > 200


def test_words_agree_with_their_number() -> None:
    """One of anything is singular, also where rounding made it one; a number keeps its place."""
    assert [counted(n, "largest run(s)") for n in (1, 2, 1024)] == [
        "1 largest run", "2 largest runs", "1,024 largest runs"]  # fmt: skip
    assert (counted(1.0, "day(s)"), counted(0.5, "day(s)"), counted(0, "GPU(s)")) == ("1 day", "0.5 days", "0 GPUs")

    @dataclass(frozen=True)
    class Far:
        decades: float
        laws: int

    said = View(Far(1.004, 1))("{decades:2} decade(s), {laws:d} law(s) of {laws:d}")
    assert said == "1 decade, 1 law of 1"
    assert [said[at : at + len(n.text)] for at, n in said.numbers] == ["1", "1", "1"]
    assert View(Far(1.6, 2))("{decades:2} decade(s) by {laws:d} law(s)") == "1.6 decades by 2 laws"


def test_a_sentence_has_a_capital_and_an_end() -> None:
    """A text of any kind becomes a sentence; coefficients, whose case tells them apart, and fields keep theirs."""
    assert sentence("the runs lie at 2 budgets") == "The runs lie at 2 budgets."
    assert sentence("a is not identified", ["a", "A"]) == "a is not identified."
    assert sentence("num_experts spans little.") == "num_experts spans little."


def test_a_name_that_is_no_field_is_refused() -> None:
    """A template with a wrong name is a mistake of ours, and fails."""
    with pytest.raises(AttributeError):
        seen(sample_plan())("{design.nothing}")


def test_the_schema_says_units() -> None:
    """The JSON Schema has the unit of a number from its kind, and the glossary's words for a design's variables."""
    fields = plan_schema()["$defs"]
    assert fields["Request"]["properties"]["flops"]["unit"] == FLOPS.unit == "FLOPs"
    assert fields["MemoryUse"]["properties"]["total_bytes"]["unit"] == "bytes"
    assert fields["Design"]["properties"]["granularity"]["description"] == f"{QUANTITIES['granularity'].meaning}."
