"""Charts: the same points in characters, in a picture and as a table; ticks that people would choose."""

from __future__ import annotations

import dataclasses
import io
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
    from moeplan.report.charts.picture import picture

    assert picture([chart], "svg")


def test_charts_are_tables_elsewhere() -> None:
    """Markdown and the notebook show a chart's numbers: nine places of forty and the recommended one, flags, note."""
    table = chart_table(frontier())
    assert len(table.rows) == 10
    assert table.columns == ("memory of the served model", "alpha2025", "beta2025", "recommended")
    assert table.rows[0] == ("24GB", "4.44x* (3.55x–5.55x)", "1.77x", "-")
    assert next(row for row in table.rows if row[0] == "80GB")[3] == "6.00x (5.00x–7.00x)"
    assert len(chart_table(frontier(), whole=True).rows) == 41
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
    leverage, bands, efficiency, memory = plan_charts(plan)
    assert leverage.labels == ("pooled", "tian2025", "abnar2025", "clark2022")
    assert [series.y for series in leverage.series[1:]] == [(5.432 * 0.9191,), (3.456, 2.345)]
    assert leverage.series[0].y == pytest.approx((3.21,), abs=0.005)
    assert (leverage.series[0].low, leverage.series[0].high) == ((1.23,), (8.38,))
    assert [series.inside for series in leverage.series] == [(False,), (False,), (False, True)]
    assert dict(zip(memory.labels, memory.series[0].y, strict=True)) == plan.memory.by_group
    assert efficiency.series[0].y == (0.9753,)
    tokens = next(band for band in plan.bands if band.variable == "tokens")
    place = bands.labels.index("tokens")
    assert bands.series[0].high[place] == tokens.high_5 / tokens.value
    assert charts_of(page_sections(plan)) == [bands, leverage, memory, efficiency]


# ---------------------------------------------------------------------------------------------------- pictures

SVG = "{http://www.w3.org/2000/svg}"


def picture_of(*charts: Chart) -> tuple[bytes, ElementTree.Element]:
    """An SVG's bytes and its tree."""
    from moeplan.report.charts.picture import picture

    data = picture(charts, "svg")
    return data, ElementTree.parse(io.BytesIO(data)).getroot()


def test_svg_is_repeatable_and_says_what_it_shows() -> None:
    """The same chart makes the same bytes, without a date; titles, ticks, legend and note are text."""
    data, root = picture_of(frontier())
    assert data == picture_of(frontier())[0]
    assert b"dc:date" not in data
    said = {"".join(element.itertext()) for element in root.iter(f"{SVG}text")}
    for text in ("Leverage against memory", "memory of the served model", "80GB", "5x", "beta2025", "recommended",
                 "measured by alpha2025", "dense"):  # fmt: skip
        assert text in said
    assert any("not averaged" in text for text in said)


def test_picture_has_the_points_and_scales() -> None:
    """Each law's line goes through its points, dashed outside its range; the axes span all of them."""
    from moeplan.report.charts.picture import draw

    axes = draw([frontier()]).axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) > 2]
    first, second, third, whole = lines[:4]
    assert [line.get_linestyle() for line in lines[:4]] == ["--", "-", "--", "-"]
    assert [*first.get_xdata(), *second.get_xdata()[1:], *third.get_xdata()[1:]] == list(MEMORY)
    assert tuple(whole.get_xdata()) == MEMORY
    assert tuple(whole.get_ydata()) == frontier().series[1].y
    assert axes.get_xscale() == axes.get_yscale() == "log"
    low, high = axes.get_xlim()
    assert low < MEMORY[0] < MEMORY[-1] < high
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["40GB", "80GB", "160GB", "320GB", "640GB"]


def test_values_beside_a_label_are_named_and_apart() -> None:
    """Where several series have a value beside one label, each stands on its own line with its value and its name."""
    from moeplan.report.charts.picture import draw

    first = Series("best dense", (0, 1), (1.0, 2.0), "points")
    second = Series("equal loss", (0, 1), (1.0, None), "points")
    chart = Chart("costs", "", "cost", (first, second), y_quantity="times", labels=("params", "tokens"))
    (axes,) = draw([chart]).axes
    texts = {text.get_text(): text.xy[1] for text in axes.texts if "x" in text.get_text()}
    assert set(texts) == {"1.00x  best dense", "1.00x  equal loss", "2.00x  best dense"}
    assert -0.5 < texts["1.00x  best dense"] < texts["1.00x  equal loss"] < 0.5
    drawn = sorted((bars.lines[0].get_ydata()[0], bars.lines[0].get_xdata()[0]) for bars in axes.containers)
    assert [height for height, _ in drawn] == pytest.approx(sorted(texts.values()))
    (alone,) = draw([dataclasses.replace(chart, series=(first,))]).axes
    assert {"1.00x", "2.00x"} <= {text.get_text() for text in alone.texts}


def test_png_is_a_picture_and_several_charts_share_it() -> None:
    """A PNG is one; four charts stand in two columns of one file."""
    from moeplan.report.charts.picture import draw, picture

    data = picture([frontier()], "png")
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(data[16:20], "big") == 1360
    figure = draw(plan_charts(sample_plan()))
    places = {axes.get_subplotspec().get_geometry() for axes in figure.axes}
    assert {place[:2] for place in places} == {(2, 2)}
    assert len(places) == 4


def test_a_readers_settings_change_no_picture() -> None:
    """What a user's matplotlibrc says about style does not reach the file, and is left as it was."""
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "text.usetex": True}):
        data, _ = picture_of(frontier())
        assert matplotlib.rcParams["font.size"] == 30
    assert data == picture_of(frontier())[0]


# ---------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    "option, name, module, extra",
    [("--plot", "out.png", "matplotlib", "plot"), ("--html", "out.html", "plotly", "html")],
)
def test_a_missing_extra_is_said_before_any_search(
    option: str, name: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the extra the command ends with exit code 2 and the line that installs it; nothing is searched."""
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    monkeypatch.setattr("moeplan.plan.planner.recommend", lambda *_, **__: pytest.fail("searched"))
    path = tmp_path / name
    done = CliRunner().invoke(cli, ["recommend", "--flops", "1e22", "--memory", "80GB", option, str(path)])
    assert done.exit_code == 2
    assert f"{option} needs {module}, which is not installed; run: pip install 'moeplan[{extra}]'" in done.stderr
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
