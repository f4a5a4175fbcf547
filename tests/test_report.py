"""Reports: the same words and numbers in every layout, all from the plan, flagged where extrapolated."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from moeplan import quantities
from moeplan.architecture.conventions import CONVENTIONS
from moeplan.architecture.shape import Architecture
from moeplan.laws import law_names, load_law
from moeplan.laws.checks import CheckResult, run_checks
from moeplan.laws.signatures import FORMS
from moeplan.plan.differences import Change, plan_changes
from moeplan.plan.document import Plan
from moeplan.report import law_records, laws
from moeplan.report.blocks import Items, Paragraph, Section, Table
from moeplan.report.differences import change_section
from moeplan.report.html import html_fragment, plan_fragment
from moeplan.report.markdown import markdown_text
from moeplan.report.plan_page import leverage_chart, plan_card
from moeplan.report.sections import headline, plan_sections
from moeplan.report.terminal import terminal_text
from tests.sample import sample_plan

TITLES = [
    "The model",
    "Compute",
    "Efficiency Leverage",
    "Memory",
    "Training",
    "Serving",
    "The model's life",
    "What limits it",
    "What the laws say",
    "How sure the fitted law is",
    "Learning rate and batch",
    "Near-equal choices",
    "Alternatives",
    "Notes",
]
NOT_SHOWN = {
    "schema",
    "request.alternatives",  # their number shows
    "request.vocab_size",  # shown twice, as asked and as built
    "best_value",
    "architecture",
    "leverage.dense.architecture",
    "counts.params_by_group",  # the memory split shows their bytes
    "laws.has_domain",  # shown where nothing is outside
    "request.optimizer",  # shown as the training's
    "request.hyperparameters",  # shown as the law that exports take
    "request.mfu",  # shown as the training's
    "request.memory_for",  # training is said, inference is the rule
    "training.layouts.bytes_by_group",  # their sum shows
    "leverage.pooled.by_law",  # the laws' own rows show them
    "training.layout_note",  # shown where there is no layout
    "request.batch",  # shown as the training's
    "request.measured",  # the site's note says what they did
    "request.goodput",
    "request.optimise",  # shown where time was the budget
    "request.software",
    "request.train_precision",
    "training.gpu_hours_low",  # shown as those of the days
    "training.gpu_hours_high",
    "training.money_low",
    "training.money_high",
    "training.layouts.days_low",  # the same shares of each
    "training.layouts.days_high",
    "training.layouts.tokens_per_second_per_gpu_low",
    "training.layouts.tokens_per_second_per_gpu_high",
    "training.layouts.batch_sequences",  # shown as the training's
    "training.layouts.num_gpus",  # its degrees show
    "training.layouts.step_time",  # shown in plans of versions that had no days
    "training.layouts.step_seconds",  # the speed shows
    "training.layouts.fits",  # those of a plan do
    "training.layouts.site_ln_sd",  # shown as the training's
    "training.layouts.design_ln_sd",
    "serving.points.kv_bytes",  # their sum with the weights makes the speed
    "serving.points.seconds",  # the speed shows
    "serving.points.flops",  # of the first context only
    "serving.points.weight_bytes",
    "serving.points.experts_hit",
    "provenance.law_digests",
}
"""Fields of a plan that only its JSON holds."""
BRIEFLY = {"laws.optimum", "laws.without", "alternatives", "near_equal.design"}
"""Designs that are shown by their most important numbers."""


def texts(sections: list[Section]) -> Iterator[str]:
    """Every piece of text of a report."""
    for section in sections:
        yield section.title
        for block in section.blocks:
            if isinstance(block, Paragraph):
                yield block.text
            elif isinstance(block, Items):
                yield from block.texts
            else:
                yield from block.columns
                for row in block.rows:
                    yield from row


def words(text: str) -> list[str]:
    """The words and numbers of a text."""
    return re.findall(r"[\w.%/+–-]+", text)


def test_headline() -> None:
    """The first sentence holds size, tokens, the pooled leverage and dense equivalent with intervals, and the flag."""
    assert headline(sample_plan()) == (
        "Train a 11.2B-A1.35B MoE on 457B tokens: leverage 3.2x* (1.2x to 8.4x), as good as "
        "a dense 25B model (8.6B to 47B) on 250B tokens."
    )


def test_leverage_has_one_headline() -> None:
    """One line says the pooled leverage, what it rests on and how far out it is; a law's own stands in its own row."""
    section = next(s for s in plan_sections(sample_plan()) if s.title == "Efficiency Leverage")
    line, table, *_ = section.blocks
    assert isinstance(line, Paragraph)
    assert line.text == (
        "Against the best dense model, compute for equal loss: 3.2x (1.2x to 8.4x at 92.5 %; 2 laws, 13 studies; "
        "extrapolated 0.75 decades)."
    )
    assert isinstance(table, Table)
    assert [row[:3] for row in table.rows] == [
        ("tian2025", "4.99x*", "41 %"), ("abnar2025", "3.46x*", "59 %"), ("clark2022", "2.35x", "beside"),
    ]  # fmt: skip
    said = " ".join(texts(plan_sections(sample_plan())))
    assert said.count("extrapolated 0.75 decades") == 1


def test_beyond_two_decades_leverage_is_a_range() -> None:
    """Without a point the headline, the section and the page's card have the range, and no dense shape is told."""
    plan = sample_plan()
    pooled = dataclasses.replace(plan.leverage.pooled, efficiency_leverage=None, dense=None, decades_outside=2.7)
    plan = dataclasses.replace(plan, leverage=dataclasses.replace(plan.leverage, pooled=pooled))
    assert headline(plan).endswith("leverage 1.2x to 8.4x*, as good as a dense model of 8.6B to 47B params.")
    section = next(s for s in plan_sections(plan) if s.title == "Efficiency Leverage")
    said = list(texts([section]))
    assert (
        "Against the best dense model, compute for equal loss: 1.2x to 8.4x (a range at 92.5 %, no point; 2 laws, 13 "
        "studies; extrapolated 2.7 decades)."
    ) in said
    assert not any("layers" in text or "3.2x" in text for text in said)
    card = plan_card(plan)
    assert card.rows[0][1] == "1.2x to 8.4x*"
    assert card.rows[4][:2] == ("Dense equivalent", "8.6B to 47B")
    chart = leverage_chart(plan)
    assert chart.series[0].kind == "line", "a stretch, as of near-optimal values"
    assert chart.series[0].texts == ("1.2x–8.4x",)


def test_sections_stand_in_order() -> None:
    """The report opens with the answer and what was asked, and its sections stand in one order."""
    sections = plan_sections(sample_plan())
    assert [section.title for section in sections] == ["", *TITLES]
    assert [s.title for s in plan_sections(sample_plan(alternatives=()))] == ["", *TITLES[:-2], "Notes"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_terminal_keeps_to_its_width(width: int) -> None:
    """No line is wider than the terminal, none ends in blanks, and plain text holds no control characters."""
    text = terminal_text(plan_sections(sample_plan()), width)
    assert all(len(line) <= width and line == line.rstrip() for line in text.splitlines())
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_wide_tables_become_several(width: int) -> None:
    """A table too wide for the terminal becomes several, each with the first column, and no word or number is cut."""
    names = [f"column{place}" for place in range(9)]
    rows = tuple(tuple(f"{row}.{place}B-A{row}.{place}M" for place in range(9)) for row in range(3))
    text = terminal_text([Section("Wide", (Table(rows, tuple(names), right=tuple(range(2, 9))),))], width)
    words = text.split()
    assert {cell for row in rows for cell in row} | set(names) <= set(words)
    times = words.count("column0")
    assert times == (1 if width == 120 else times > 1 and times)
    assert [words.count(row[0]) for row in rows] == [times] * 3
    assert max(map(len, text.splitlines())) <= width


def test_colour_changes_no_text() -> None:
    """With colour codes taken away, the coloured report is the plain one."""
    sections = plan_sections(sample_plan())
    coloured = terminal_text(sections, 80, color=True)
    assert "\x1b[" in coloured
    plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [line.rstrip() for line in plain.splitlines()] == terminal_text(sections, 80).splitlines()


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.open, self.tags = "", [], set()  # type: ignore[var-annotated]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data} "


def test_every_layout_says_the_same() -> None:
    """Terminal, Markdown and HTML hold the same words in the same order as the sections, none more and none less."""
    sections = plan_sections(sample_plan())
    wanted = [word for text in texts(sections) for word in words(text)]
    markdown = re.sub(r"\\(.)", r"\1", re.sub(r"(?m)^\|[ :|-]*\|$|^- |\*\*", "", markdown_text(sections)))
    html = _Text()
    html.feed(html_fragment(sections))
    assert [w for w in words(html.text) if w not in "|-"] == [w for w in wanted if w not in "|-"]
    assert [w for w in words(markdown) if w not in "|-"] == [w for w in wanted if w not in "|-"]
    terminal = terminal_text(sections, 120)
    assert sorted(words(terminal)) == sorted(wanted)  # columns wrap, which changes the order


def test_html_is_one_closed_escaped_fragment() -> None:
    """The notebook's fragment closes every tag, escapes what a plan holds, and brings no script, style or colour."""
    plan = sample_plan()
    fragment = plan_fragment(plan)
    parser = _Text()
    parser.feed(fragment)
    assert parser.open == []
    assert parser.tags <= {"div", "h4", "p", "strong", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}
    assert plan.notes[0] in parser.text
    assert "<b>" not in fragment
    assert not re.search(r"(?<!-)color:|background:(?!none)", fragment)
    assert plan._repr_html_() == fragment


def test_markdown_escapes() -> None:
    """Pipes, stars and markup in a plan's words cannot break a table or start markup."""
    table = Table((("a|b", "*c*", "d_e _f_ <g>"),), ("x", "y", "z"))
    text = markdown_text([Section("T", (table,))])
    assert text.splitlines()[-1] == r"| a\|b | \*c\* | d_e \_f\_ \<g> |"


def leaves(data: Any, path: str = "") -> Iterator[tuple[str, list[Any], Any]]:
    """(path without indices, keys, value) of every leaf of JSON."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else None
    if items is None:
        yield path, [], data
        return
    for key, item in items:
        inside = path if isinstance(data, list) else f"{path}.{key}".lstrip(".")
        for name, keys, value in leaves(item, inside):
            yield name, [key, *keys], value


def test_every_number_of_a_plan_is_shown() -> None:
    """Change any field of a plan but those kept for JSON, and the report changes."""
    data, written = sample_plan().to_json(), sample_plan().to_text()
    report = list(texts(plan_sections(sample_plan())))
    unseen = set()
    for name, keys, value in leaves(data):
        if any(name == hidden or name.startswith(f"{hidden}.") for hidden in NOT_SHOWN | BRIEFLY):
            continue
        changed = json.loads(written)
        place = changed
        for key in keys[:-1]:
            place = place[key]
        if value is None or (name.startswith("design.") and name != "design.value"):
            continue  # nothing to change; or a value that its band holds too
        if isinstance(value, bool):
            place[keys[-1]] = not value
        elif isinstance(value, int):
            place[keys[-1]] = value * 3 + 1
        elif isinstance(value, float):
            place[keys[-1]] = value * 1.37 if value else 1.37
        elif isinstance(value, str):
            place[keys[-1]] = "objective" if name == "laws.role" and value != "objective" else value + "1"
        if list(texts(plan_sections(Plan.from_json(changed)))) == report:
            unseen.add(name)
    assert unseen == {"leverage.decades_outside"}  # its sign is a star; the rule's words hold the number


def test_extrapolation_is_flagged() -> None:
    """Whatever lies outside a law's domain carries a star and the star is explained; nothing else does."""
    text = terminal_text(plan_sections(sample_plan()), 120)
    assert "5.43x*" in text
    assert "3.46x*" in text
    assert "2.35x*" not in text
    assert "clark2022*" not in text
    assert text.count("tian2025*") == 3
    assert "Marked *: extrapolated" in text
    plan = sample_plan()
    inside = dataclasses.replace(
        plan,
        leverage=dataclasses.replace(
            plan.leverage,
            decades_outside=0.0,
            pooled=dataclasses.replace(plan.leverage.pooled, decades_outside=0.0),
            others=tuple(dataclasses.replace(other, extrapolated=False) for other in plan.leverage.others),
        ),
        hyperparameters=tuple(dataclasses.replace(hyper, extrapolated=False) for hyper in plan.hyperparameters),
        laws=tuple(dataclasses.replace(law, outside=()) for law in plan.laws),
        notes=(),
    )
    assert "*" not in terminal_text(plan_sections(inside), 120)


def test_worth_is_said_in_words() -> None:
    """V/C stands in a sentence that names what took the rest: conditions, else memory, else the laws' disagreement."""
    text = " ".join(terminal_text(plan_sections(sample_plan()), 120).split())
    assert "Your conditions leave 46 % of the budget" in text
    assert "10 % more memory raises quality (V) by 3.4 % (tian2025's EL 5.60x* then)." in text
    request = dataclasses.replace(sample_plan().request, fix={}, ranges={}, memory_for=("inference",))
    limited = " ".join(texts(plan_sections(sample_plan(request=request))))
    assert "Your memory limit leaves 46 % of the budget" in limited
    free = " ".join(texts(plan_sections(sample_plan(request=request, binding=("compute",)))))
    assert "No design is best by every law; this one keeps 46 % of the budget" in free


def test_the_shape_in_words() -> None:
    """The shape's line says which layers are dense, and how attention is built, GQA or MLA."""
    text = " ".join(texts(plan_sections(sample_plan())))
    assert "24 layers, the first dense (d_ff 5,184); 16 heads of 128, 4 KV heads;" in text
    latent = Architecture(
        d_model=1024, num_layers=9, vocab_size=512, num_heads=8, num_experts=8, num_active_experts=2, d_expert=64,
        attention="mla", kv_lora_rank=512, qk_nope_head_dim=96, qk_rope_head_dim=48, v_head_dim=96,
    )  # fmt: skip
    text = " ".join(texts(plan_sections(sample_plan(architecture=latent))))
    assert "9 layers; 8 heads of 96+48 by MLA (latent of 512);" in text


def test_worthless_memory_is_said_to_be() -> None:
    """A price of nothing is "nothing", not a rounded zero."""
    price = dataclasses.replace(sample_plan().prices[0], value_ratio=1.0)
    assert any(
        "10 % more memory does not raise quality (V)" in t for t in texts(plan_sections(sample_plan(prices=(price,))))
    )


@pytest.mark.parametrize(
    "value, expected",
    [
        (0.0, "0"),
        (9.1872, "9.19"),
        (0.000312, "0.000312"),
        (1290.4, "1,290"),
        (12.0, "12"),
        (1e-9, "1.00e-9"),
        (0.5, "0.5"),
    ],
)
def test_numbers(value: float, expected: str) -> None:
    """Plain numbers have three digits, and thousands are grouped."""
    assert quantities.number(value) == expected


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("total_params", 35.6e9, "35.6B"),
        ("active_param_ratio", 0.0893, "8.93 %"),
        ("train_flops", 9.8e21, "9.8e21"),
        ("num_experts", 184, "184"),
        ("d_model", 3072, "3,072"),
        ("granularity", 4.5714, "4.57"),
    ],
)
def test_quantities(name: str, value: float, expected: str) -> None:
    """A variable is written the way its kind is written."""
    assert quantities.quantity(name, value) == expected


def test_intervals() -> None:
    """A range names its unit once, and one value is no range."""
    assert quantities.interval("shared_ratio", 0.09, 0.2) == "9–20 %"
    assert quantities.interval("tokens", 5e11, 9e11) == "500B–900B"
    assert quantities.interval("G", 9, 9) == "9"


def test_the_same_plan_has_no_changes() -> None:
    """A plan differs from itself, and from its own file, in nothing."""
    plan = sample_plan()
    again = Plan.from_json(plan.to_json())
    assert plan_changes(plan, again) == ()
    long = dataclasses.replace(plan, design=dataclasses.replace(plan.design, activation_ratio=4 / 464))
    assert plan_changes(long, Plan.from_json(long.to_json())) == ()
    assert "Nothing" in terminal_text([change_section((), "plan.json")])


def test_changes_are_listed() -> None:
    """Request, design, leverage, worth, law digests, grid and version are compared, with both values."""
    plan = sample_plan()
    other = dataclasses.replace(
        plan,
        request=dataclasses.replace(plan.request, fix={"G": 9.0}, memory="80GB"),
        design=dataclasses.replace(plan.design, tokens=500_000_000_000),
        leverage=dataclasses.replace(plan.leverage, efficiency_leverage=6.0),
        value_ratio=0.5,
        provenance=dataclasses.replace(
            plan.provenance, version="0.1.0", law_digests={"tian2025": "f" * 16}, command="another"
        ),
    )
    changes = plan_changes(plan, other)
    assert {change.name: (change.before, change.after) for change in changes} == {
        "request.memory": ("2x24GB", "80GB"),
        "request.fix.G": (None, 9.0),
        "request.fix.num_shared_experts": (2.0, None),
        "design.tokens": (456_789_012_000, 500_000_000_000),
        "leverage.efficiency_leverage": (5.432, 6.0),
        "value_ratio": (0.4612, 0.5),
        "laws.tian2025": ("0123456789abcdef", "f" * 16),
        "version": ("0.0.9", "0.1.0"),
    }
    text = terminal_text([change_section(changes, "old.json")], 80)
    assert "Changed since old.json" in text
    assert re.search(r"design.tokens +456.8B +500B", text)
    assert re.search(r"request.fix.G +- +9", text)


@pytest.mark.parametrize(
    "change, shown",
    [
        (Change("request.tied_embeddings", True, False), "yes no"),
        (Change("request.laws", ("a",), ("a", "b")), "a a, b"),
        (Change("request.flops", 1e22, 2e22), "1e22 FLOPs 2e22 FLOPs"),
        (Change("request.tokens_available", None, 2e12), "- 2T"),
        (Change("request.ranges.tokens", (1e12, 2e12), None), "1T, 2T -"),
        (Change("memory.total_bytes", 71_810_000_000, 1), "71.81GB 1B"),
        (Change("request.headroom", 0.1, 0.2), "0.1 0.2"),
    ],
)
def test_changed_values_of_every_kind(change: Change, shown: str) -> None:
    """Every kind of value is written readably in the list of changes."""
    assert f"{change.name} {shown}" in " ".join(terminal_text([change_section((change,), "p")], 120).split())


@pytest.fixture(scope="module")
def every_law() -> list[Any]:
    """All bundled laws."""
    return [load_law(name) for name in law_names()]


def test_list_of_laws(every_law: list[Any]) -> None:
    """The list names every law with title, grade and arXiv id, and the forms that nobody published digits for."""
    text = " ".join(texts(laws.list_sections(every_law)))
    for law in every_law:
        for part in (law.name, law.title, law.grade, law.citation.arxiv):
            assert part in text
    assert set(law_records.unused_forms(every_law)) == {"expansion_interaction", "expert_count_power_law"}
    assert "Yun et al. 2024" in text
    assert "Wang et al. 2024" in text


@pytest.mark.parametrize("name", law_names())
def test_one_law_whole(name: str) -> None:
    """A law's page holds its citation, every digit, equation, convention in words, domain, note and check."""
    law = load_law(name)
    checks = run_checks(law)
    sections = laws.law_sections(law, checks)
    text = "\n".join(texts(sections))
    assert str(law.citation) in text
    assert law.digest in text
    for fit in law.fits.values():
        assert fit.equation.rstrip(".") in text
        for letter, value in fit.coefficients.items():
            assert f"{letter} = {value:.10g}" in text
        for variable, convention in fit.conventions.items():
            assert CONVENTIONS[variable][convention] in text
        for variable, bounds in fit.domain.items():
            assert variable in text
            assert quantities.interval(variable, *bounds) in text
        if fit.unstated:
            assert "not stated in the paper" in text
        assert fit.note in text
    for note in law.notes:
        assert note in text
    for check in law.checks:
        assert check.text("says") in text
    for width in (80, 120):
        assert max(map(len, terminal_text(sections, width).splitlines())) <= width


def test_one_fit_of_a_law() -> None:
    """Asked for one fit, the page shows this fit alone."""
    law = load_law("krajewski2024/moe-e16")
    titles = [section.title for section in laws.law_sections(law, [])]
    assert [title for title in titles if title.startswith("Fit ")] == ["Fit moe-e16: loss [nats/token]"]


def test_failed_checks_are_listed() -> None:
    """A number that is not reproduced stands in a table of failures with both numbers."""
    good = CheckResult("a2025", "Table 1", "loss", 2.0, 2.001, "0.01", True)
    bad = CheckResult("b2025", "Table 2", "loss", 3.0, 3.25, "0.01", False)
    sections = laws.check_sections({"a2025": [good], "b2025": [bad]})
    text = " ".join(texts(sections))
    assert sections[0].title == "Checks: 1 of 2 numbers of the papers are reproduced"
    assert "Table 2 (loss) 3 3.25 0.01" in text
    assert "Table 1" not in text
    assert law_records.check_record({"a2025": [good], "b2025": [bad]}).passed is False


def test_forms_are_documented(every_law: list[Any]) -> None:
    """Every form that a law or the list shows has an equation in its docstring."""
    for fit in (fit for law in every_law for fit in law.fits.values()):
        assert "=" in fit.equation, fit.form
    for form in law_records.list_record(every_law).forms_without_coefficients:
        assert form.form in FORMS
        assert form.coefficients
