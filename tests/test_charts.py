"""Charts: the same points in characters, in a picture and as a table; ticks that people would choose."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from moeplan.cli import cli
from moeplan.errors import UsageError
from moeplan.report import pictures
from moeplan.report.blocks import Chart, Level, Paragraph, Section, Series, Shade
from moeplan.report.charts import chart_table, charts_of, runs, spread, ticks
from moeplan.report.charts.svg import file_picture, picture, text_width
from moeplan.report.charts.text import HEIGHT
from moeplan.report.html import html_fragment
from moeplan.report.markdown import markdown_text
from moeplan.report.plan_page import page_sections, plan_charts
from moeplan.report.terminal import terminal_text
from tests.sample import sample_plan

MEMORY = tuple(24e9 * (640 / 24) ** (step / 39) for step in range(40))
"""Forty limits from 24GB to 640GB, evenly in logarithm."""


def frontier(**changes: Any) -> Chart:
    """A frontier of two laws: one measured between 60GB and 300GB, one everywhere, and a recommended point."""
    first = tuple(6 * (x / 80e9) ** 0.25 for x in MEMORY)
    chart = Chart(
        title="Leverage against memory",
        x_title="memory of the served model",
        y_title="dense compute / MoE compute",
        series=(
            Series("alpha2025", MEMORY, first, inside=tuple(60e9 < x < 300e9 for x in MEMORY),
                   low=tuple(0.8 * y for y in first), high=tuple(1.25 * y for y in first)),
            Series("beta2025", MEMORY, tuple(2 * (x / 80e9) ** 0.1 for x in MEMORY)),
            Series("recommended", (80e9,), (6.0,), "points", low=(5.0,), high=(7.0,), strong=True),
        ),
        x_quantity="bytes", y_quantity="times", x_log=True, y_log=True,
        shades=(Shade("measured by alpha2025", 60e9, 300e9),), levels=(Level("dense", 1.0),),
        note="Lines of different laws are not averaged.",
    )  # fmt: skip
    return dataclasses.replace(chart, **changes)


def groups() -> Chart:
    """Bars beside names."""
    return Chart(
        "Memory by group",
        "",
        "bytes",
        (Series("", (0, 1, 2), (6e9, 3e9, 1e9), "bars"),),
        y_quantity="bytes",
        labels=("experts", "attention", "cache"),
        levels=(Level("usable", 7e9),),
    )


def drawn(chart: Chart, width: int = 100, color: bool = False) -> list[str]:
    """The lines of a chart in a report."""
    return terminal_text([Section("", (chart,))], width, color).splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("chart", [frontier(), groups(), *plan_charts(sample_plan())], ids=lambda chart: chart.title)
def test_terminal_charts_are_plain_and_small(chart: Chart, width: int) -> None:
    """In characters a chart keeps to the width, to ASCII but for dashes of intervals, and to about twenty lines."""
    lines = drawn(chart, width)
    assert max(map(len, lines)) <= width
    assert "".join(lines).replace("–", "-").isascii()
    assert len(lines) <= 26 if chart.labels else len(lines) <= 22
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(drawn(chart, width, color=True)))
    assert [line.rstrip() for line in plain.splitlines()] == lines


def test_terminal_chart_draws_the_points() -> None:
    """The marks of a line rise from left to right where the values do, at the height that the ticks give."""
    lines = drawn(frontier())
    top = next(i for i, line in enumerate(lines) if "dense compute" in line) + 1
    picture = lines[top : top + HEIGHT]
    assert picture[-1].lstrip().startswith("1x +")
    heights = {}
    for row, line in enumerate(picture):
        for column, mark in enumerate(line[6:]):
            if mark == "o":
                heights.setdefault(column, HEIGHT - 1 - row)
    columns = sorted(heights)
    assert all(heights[a] <= heights[b] for a, b in itertools.pairwise(columns))
    assert heights[columns[-1]] - heights[columns[0]] >= 3
    star = next(line for line in picture if "@" in line)
    assert abs(picture.index(star) - next(i for i, line in enumerate(picture) if line.startswith(" 5x +"))) <= 1


def test_terminal_chart_is_sparse_outside_the_measured_range() -> None:
    """Inside the measured range a line has a mark in every column, outside in every third, and the legend says so."""
    lines = drawn(frontier())
    marks = sorted({m.start() for line in lines for m in re.finditer("o", line) if "+" in line[:8] or "|" in line[:8]})
    gaps = [b - a for a, b in itertools.pairwise(marks)]
    assert set(gaps) <= {1, 2, 3}
    assert gaps[:5] == [3] * 5
    assert gaps.count(1) > 20
    assert "sparse: outside the measured range" in "\n".join(lines)


def test_axis_of_memory_has_sizes_of_gpus() -> None:
    """Memory's ticks are doublings of 80GB, those of compute powers of ten."""
    axis = next(line for line in drawn(frontier()) if "80GB" in line and "+" not in line)
    assert axis.split() == ["40GB", "80GB", "160GB", "320GB", "640GB"]
    assert ticks(1e20, 1e25, "flops", True) == [1e20, 1e21, 1e22, 1e23, 1e24, 1e25]
    assert ticks(0.9, 12, "times", True) == [1, 2, 5, 10]
    assert ticks(0, 1, "share", False) == [0, 0.2, 0.4, 0.6, 0.8, 1]


@given(
    low=st.floats(1e-6, 1e24), factor=st.floats(1.0001, 1e9), log=st.booleans(),
    quantity=st.sampled_from(["flops", "bytes", "count", "share", "times", "loss", "number"]),
)  # fmt: skip
def test_ticks_are_few_and_inside(low: float, factor: float, log: bool, quantity: Any) -> None:
    """Whatever the range, there are one to seven ticks, in order, and none lies outside."""
    high = low * factor
    found = ticks(low, high, quantity, log)
    assert 1 <= len(found) <= 7
    assert found == sorted(set(found))
    assert all(low * (1 - 1e-6) <= value <= high * (1 + 1e-6) for value in found)


def test_a_gap_ends_a_line() -> None:
    """A missing value leaves a gap; a change of range starts a new stretch at the same point."""
    x = (1.0, 2.0, 3.0, 4.0, 5.0)
    series = Series("", x, (1.0, 2.0, None, 3.0, 4.0), inside=(True, True, True, True, False))
    assert runs(series) == [(True, [0, 1]), (False, [3, 4])]
    series = Series("", x, (1.0, 2.0, 3.0, 4.0, 5.0), inside=(False, True, True, True, False))
    assert runs(series) == [(False, [0, 1]), (True, [1, 2, 3]), (False, [3, 4])]


@pytest.mark.parametrize("y", [(None, None), (math.inf, 2.0), (3.0, 3.0), (0.0, 0.0)])
@pytest.mark.parametrize("log", [False, True])
def test_poor_values_are_drawn_or_left_out(y: tuple[float | None, ...], log: bool) -> None:
    """Nothing, infinity, zeros on a logarithmic scale and equal values break no drawing."""
    finite = tuple(value if value is None or math.isfinite(value) else None for value in y)
    chart = Chart("t", "x", "y", (Series("s", (1.0, 2.0), finite),), y_log=log)
    low, high = spread(chart, "y")
    assert low < high
    assert drawn(chart)
    assert chart_table(chart).rows
    for width in (760, 340):
        assert "nan" not in picture(chart, width)
    assert tree(file_picture([chart])) is not None


def test_charts_are_tables_elsewhere() -> None:
    """Markdown and the notebook show a chart's numbers: nine places of forty and the recommended one, flags, note."""
    table = chart_table(frontier())
    assert len(table.rows) == 10
    assert table.columns == ("memory of the served model", "alpha2025", "beta2025", "recommended")
    assert table.rows[0] == ("24GB", "4.44x* (3.55x–5.55x)", "1.77x", "-")
    assert next(row for row in table.rows if row[0] == "80GB")[3] == "6.00x (5.00x–7.00x)"
    assert len(chart_table(frontier(), whole=True).rows) == 41
    apart = tuple(Series(name, tuple(float(5 * at + x) for x in range(5)), (1.0,) * 5) for at, name in enumerate("abc"))
    pairs = chart_table(Chart("t", "x", "y", apart), whole=True)
    assert (pairs.columns, len(pairs.rows)) == (
        ("x", "a", "x", "b", "x", "c"),
        5,
    )  # in place of 15 rows, two thirds of them empty
    section = Section("Frontier", (frontier(),))
    markdown = markdown_text([section])
    assert r"| 24GB | 4.44x\* (3.55x–5.55x) | 1.77x | - |" in markdown
    assert markdown.endswith("Lines of different laws are not averaged.\n")
    fragment = html_fragment([section])
    assert "<script" not in fragment
    assert "6.00x (5.00x–7.00x)" in fragment


def test_a_series_of_the_plan_is_the_plans() -> None:
    """The plan's charts hold the plan's numbers: EL by law, bytes by group, ranges over values, efficiencies."""
    plan = sample_plan()
    leverage, bands, efficiency, memory, training = plan_charts(plan)
    assert leverage.labels == ("pooled", "tian2025", "abnar2025", "clark2022")
    assert [series.y for series in leverage.series[1:]] == [(5.432 * 0.9191,), (3.456, 2.345)]
    assert leverage.series[0].y == pytest.approx((3.21,), abs=0.005)
    assert (leverage.series[0].low, leverage.series[0].high) == ((1.23,), (8.38,))
    assert [series.inside for series in leverage.series] == [(False,), (False,), (False, True)]
    used = plan.memory.by_group
    assert memory.labels[0] == "the plan"
    assert [series.y[0] for series in memory.series] == [used["routed_experts"], used["attention"], used["kv_cache"]]
    assert (memory.stacked, memory.levels) == (True, (Level("usable", plan.memory.usable_bytes),))
    assert efficiency.series[0].y == (0.9753,)
    tokens = next(band for band in plan.bands if band.variable == "tokens")
    place = bands.labels.index("tokens")
    assert bands.series[0].high[place] == tokens.high_5 / tokens.value
    layout = plan.training.layouts[0]
    assert {series.name: series.y[0] for series in training.series} == {
        name.replace("_", " "): used for name, used in layout.bytes_by_group.items() if used
    }
    assert charts_of(page_sections(plan)) == [bands, leverage, memory, training, efficiency]


# ---------------------------------------------------------------------------------------------------- pictures

SVG = "{http://www.w3.org/2000/svg}"


def tree(text: str) -> ElementTree.Element:
    """An SVG picture, read as XML."""
    return ElementTree.fromstring(text.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
                                  if "xmlns" not in text else text)  # fmt: skip


def of_class(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """The elements of a class."""
    return [element for element in root.iter() if name in element.get("class", "").split()]


def words(elements: list[ElementTree.Element]) -> list[str]:
    """What texts say."""
    return ["".join(element.itertext()) for element in elements]


def test_svg_is_repeatable_and_says_what_it_shows() -> None:
    """The same chart makes the same bytes, without a date; titles, ticks, legend and note are text."""
    text = file_picture([frontier()])
    assert text == file_picture([frontier()])
    said = set(words(list(tree(text).iter(f"{SVG}text"))))
    for each in ("Leverage against memory", "memory of the served model", "80GB", "5x", "beta2025", "recommended",
                 "measured by alpha2025", "dense"):  # fmt: skip
        assert each in said
    assert any("not averaged" in each for each in said)


def test_picture_has_the_points_and_scales() -> None:
    """Each law's line goes through its points, dashed outside its range; the axes are logarithmic and span all."""
    root = tree(picture(frontier()))
    first, second, point = of_class(root, "series")
    lines = of_class(first, "line")
    assert ["stroke-dasharray" in line.attrib for line in lines] == [True, False, True]
    assert ["stroke-dasharray" in line.attrib for line in of_class(second, "line")] == [False]
    corners = [[tuple(map(float, pair.split())) for pair in line.get("d", "")[1:].split("L")] for line in lines]
    path = [*corners[0], *corners[1][1:], *corners[2][1:]]
    assert len(path) == len(of_class(first, "dot")) == len(of_class(second, "dot")) == 40
    across, up = [x for x, _ in path], [y for _, y in path]
    steps = [math.log(MEMORY[at + 1] / MEMORY[at]) / (across[at + 1] - across[at]) for at in range(39)]
    assert max(steps) / min(steps) < 1.01  # even in logarithm, as the points are
    assert up == sorted(up, reverse=True)
    assert 0 < across[0] < across[-1] < 760
    assert words(of_class(root, "xtick")) == ["40GB", "80GB", "160GB", "320GB", "640GB"]
    assert len(of_class(first, "band")) == len(of_class(root, "shade")) == 1
    (star,) = of_class(point, "dot")
    assert star.tag == f"{SVG}polygon"
    hollow = [dot for dot in of_class(first, "dot") if "hollow" in dot.get("class", "")]
    assert len(hollow) == sum(not 60e9 < x < 300e9 for x in MEMORY)
    said = [element[0].text for element in of_class(first, "p")]
    assert said[0] == "alpha2025, 24GB: 4.44x* (3.55x–5.55x)"
    told = dataclasses.replace(frontier().series[1], texts=("8B-A1B",) * 40)
    assert "beta2025, 24GB: 1.77x; 8B-A1B" in picture(frontier(series=(told,)))


def test_values_beside_a_label_are_named_and_apart() -> None:
    """Where several series have a value beside one label, each stands on its own line with its value and its name."""
    first = Series("best dense", (0, 1), (1.0, 2.0), "points")
    second = Series("equal loss", (0, 1), (1.0, None), "points")
    chart = Chart("costs", "", "cost", (first, second), y_quantity="times", labels=("params", "tokens"))
    root = tree(picture(chart))
    texts = {"".join(x.itertext()): float(x.get("y", "")) for x in of_class(root, "value")}
    assert set(texts) == {"1.00x  best dense", "1.00x  equal loss", "2.00x  best dense"}
    labels = {"".join(x.itertext()): float(x.get("y", "")) for x in of_class(root, "label")}
    assert texts["1.00x  best dense"] < labels["params"] < texts["1.00x  equal loss"] < labels["tokens"]
    assert len(of_class(root, "dot")) == 3 + 2  # the legend's as well
    alone = tree(picture(dataclasses.replace(chart, series=(first,))))
    assert words(of_class(alone, "value")) == ["1.00x", "2.00x"]


def test_parts_of_a_sum_stand_end_to_end() -> None:
    """Stacked bars begin where the last one ends, are as long as their values, and say their sum."""
    parts = tuple(Series(name, (0, 1), values, "bars") for name, values in (("a", (3e9, 1e9)), ("b", (2e9, 0.0))))
    chart = Chart("m", "", "bytes", parts, y_quantity="bytes", labels=("one", "two"), stacked=True,
                  levels=(Level("usable", 6e9),))  # fmt: skip
    for width in (760, 340):
        root = tree(picture(chart, width))
        bars = [tuple(float(x.get(key, "")) for key in ("x", "y", "width")) for x in of_class(root, "bar")]
        (x, y, wide), (other, below, less), (start, top, more) = bars
        assert (other, top) == (x, y)
        assert start == pytest.approx(x + wide, abs=0.02)
        assert wide == pytest.approx(3 * less, abs=0.1)
        assert more == pytest.approx(2 * less, abs=0.1)
        assert below > y
        assert words(of_class(root, "value")) == ["5GB", "1GB"]


@pytest.mark.parametrize("width", [340, 760])
@pytest.mark.parametrize("chart", [frontier(), groups(), *plan_charts(sample_plan())], ids=lambda chart: chart.title)
def test_a_picture_holds_all_that_it_draws(chart: Chart, width: int) -> None:
    """For a desk and for a phone: nothing is drawn or written outside of the picture, by the widths of Helvetica."""
    root = tree(picture(chart, width))
    for element in root.iter():
        for key in ("x", "x1", "x2", "cx"):
            assert -0.5 <= float(element.get(key, 0)) <= width
        if element.tag == f"{SVG}text":
            wide = text_width("".join(element.itertext()), float(element.get("font-size", 13)))
            start = float(element.get("x", 0)) - {"end": wide, "middle": wide / 2}.get(
                element.get("text-anchor", ""), 0
            )
            assert start >= -0.5, words([element])
            assert start + wide <= width + 12, words([element])


def test_png_is_a_picture_and_several_charts_share_it() -> None:
    """A PNG is one, of two dots a pixel; four charts stand in two columns of one file."""
    data = pictures.png(file_picture([frontier()]))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(data[16:20], "big") == 1360
    root = tree(file_picture(plan_charts(sample_plan())[:4]))
    places = [x.get("transform", "") for x in root[1]]
    columns = {place.split("(")[1].split()[0] for place in places}
    rows = {place.split()[1] for place in places}
    assert (len(places), len(columns), len(rows)) == (4, 2, 2)


# ---------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("option, name, module, extra", [("--plot", "out.png", "vl_convert", "plot")])
def test_a_missing_extra_is_said_before_any_search(
    option: str, name: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the extra the command ends with exit code 2 and the line that installs it; nothing is searched."""
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    monkeypatch.setattr("moeplan.plan.planner.recommend", lambda *_, **__: pytest.fail("searched"))
    path = tmp_path / name
    done = CliRunner().invoke(cli, ["recommend", "--flops", "1e22", "--memory", "80GB", option, str(path)])
    assert done.exit_code == 2
    needs = f"{option} needs {module} for a .png, which is not installed; run: pip install 'moeplan[{extra}]'"
    assert needs in done.stderr
    assert not path.exists()


@pytest.mark.parametrize(
    "option, name, sentence",
    [
        ("--plot", "out.pdf", "must end in .png or .svg"),
        ("--plot", "", "must end in .png or .svg"),
        ("--html", "out.png", "must end in .html or .htm"),
        ("--html", "no/folder/out.html", "there is no folder"),
    ],
)
def test_files_that_cannot_be_are_refused_before_any_search(
    option: str, name: str, sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wrong suffix or a missing folder ends with exit code 2 and one sentence."""
    monkeypatch.setattr("moeplan.plan.planner.recommend", lambda *_, **__: pytest.fail("searched"))
    path = str(tmp_path / name) if name else ""
    done = CliRunner().invoke(cli, ["recommend", "--flops", "1e22", "--memory", "80GB", option, path])
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_drawn_from_the_sections(tmp_path: Path) -> None:
    """Without charts of its own, a picture shows those that stand in the sections; none at all is an error."""
    path = tmp_path / "out.svg"
    sections = [Section("A", (Paragraph("words"), frontier()))]
    pictures.write_pictures(plot=str(path), html=None, title="t", sections=sections, data={})
    assert b"alpha2025" in path.read_bytes()
    path.unlink()
    with pytest.raises(UsageError, match="has no chart"):
        pictures.write_pictures(plot=str(path), html=None, title="t", sections=sections[:0], data={})
    assert not path.exists()


def test_lines_of_many_laws_do_not_cover_each_other() -> None:
    """Six extrapolated lines that lie on each other all show: no two of them mark the same column."""
    names = [f"law{place}" for place in range(6)]
    lines = tuple(Series(name, (1.0, 10.0), (2.0, 2.0), inside=(False, False)) for name in names)
    rows = drawn(Chart("Many", "x", "y", lines), 100)
    marks = {mark for row in rows for mark in row if mark in "oxv^#%"}
    assert marks >= set("oxv^#%")
    shown = next(row for row in rows if row.count("o") > 3)
    assert {shown.count(mark) for mark in "oxv^#%"} <= set(range(shown.count("o") - 2, shown.count("o") + 3))
