"""Charts as a PNG or SVG file, by matplotlib (extra `plot`); the same charts make the same SVG, byte for byte."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from typing import Any

from moeplan.report.blocks import Chart, Series
from moeplan.report.charts import (
    PALETTE,
    interval_of,
    is_inside,
    looks,
    outside_note,
    point_text,
    runs,
    spread,
    tick_text,
    ticks,
)

_STYLE = {
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "svg.fonttype": "none",  # text stays text: found by a search, set in the reader's font
    "svg.hashsalt": "moeplan",
}
_SHAPES = "os^Dv<>P"
_DOTS = 160
"""Dots per inch of a PNG: a chart 1,360 dots wide."""


def picture(charts: Sequence[Chart], kind: str) -> bytes:
    """Charts as the bytes of a "png" or "svg" file; several stand in a grid of two columns."""
    import matplotlib

    default = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
    settings: Any = {**default, **_STYLE}  # whatever the reader's own matplotlibrc says
    with matplotlib.rc_context(settings):
        figure = draw(charts)
        file = io.BytesIO()
        figure.savefig(file, format=kind, dpi=_DOTS, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()


def draw(charts: Sequence[Chart]) -> Any:
    """Charts as a matplotlib figure."""
    from matplotlib.figure import Figure

    columns = 1 if len(charts) == 1 else 2
    rows = math.ceil(len(charts) / columns)
    heights = [max(_height(chart) for chart in charts[row * columns : (row + 1) * columns]) for row in range(rows)]
    figure = Figure(figsize=(8.5 if columns == 1 else 14, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(rows, columns, height_ratios=heights)
    for place, chart in enumerate(charts):
        axes = figure.add_subplot(grid[place // columns, place % columns])
        (_draw_sideways if chart.labels else _draw_upright)(axes, chart)
        axes.set_title(chart.title, pad=27)
        above: Any = {"xytext": (0, 9), "textcoords": "offset points", "va": "bottom", "color": "#444444"}
        axes.annotate(chart.y_title, (0, 1), xycoords="axes fraction", fontsize=9.5, **above)
        handles, names = axes.get_legend_handles_labels()
        if len(names) > 1 or chart.levels or not chart.labels:
            axes.legend(handles, names, loc="upper left", bbox_to_anchor=(-0.02, -0.13 * 5 / _height(chart)), ncols=3)
    named = len(charts) > 1
    below = [f"{chart.title}: {chart.note}" if named else chart.note for chart in charts if chart.note]
    below += [outside_note(charts)] if outside_note(charts) else []
    if below:
        text = "\n".join(textwrap.fill(note, 105 if columns == 1 else 180) for note in below)
        figure.supxlabel(text, x=0.01, ha="left", fontsize=9, color="#444444")
    return figure


def _height(chart: Chart) -> float:
    """Inches of a chart."""
    if not chart.labels:
        return 5.0
    return 1.8 + len(chart.labels) * max(0.34, 0.21 * max(len(row) for row in _rows(chart)))


def _rows(chart: Chart) -> list[list[tuple[int, Series, int]]]:
    """What stands beside each label: the series that have a value there, with their looks and its place in them."""
    return [
        [
            (look, series, series.x.index(row))
            for look, series in looks(chart)
            if row in series.x and series.y[series.x.index(row)] is not None
        ]
        for row in range(len(chart.labels))
    ]


def _draw_upright(axes: Any, chart: Chart) -> None:
    for axis, log in (("x", chart.x_log), ("y", chart.y_log)):
        low, high = spread(chart, axis)
        _scale(axes, axis, chart.x_quantity if axis == "x" else chart.y_quantity, low, high, log)
    for shade in chart.shades:
        axes.axvspan(shade.low, shade.high, color="#888888", alpha=0.13, linewidth=0, label=shade.name)
    for level in chart.levels:
        axes.axhline(level.y, color="#555555", linewidth=1, linestyle=":", label=level.name)
    for place, series in looks(chart):
        color = PALETTE[place % len(PALETTE)]
        if series.kind == "line":
            _draw_line(axes, series, place, color)
        elif series.kind == "bars":
            axes.bar(series.x, [y or 0.0 for y in series.y], color=color, label=series.name)
        else:
            _draw_points(axes, series, place, color)
    axes.set_xlabel(chart.x_title)


def _scale(axes: Any, axis: str, kind: str, low: float, high: float, log: bool) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    if log:
        (axes.set_xscale if axis == "x" else axes.set_yscale)("log")
    (axes.set_xlim if axis == "x" else axes.set_ylim)(low, high)
    side = axes.xaxis if axis == "x" else axes.yaxis
    side.set_major_locator(FixedLocator(ticks(low, high, kind, log)))
    side.set_major_formatter(FuncFormatter(lambda value, _: tick_text(kind, value)))
    side.set_minor_locator(NullLocator())


def _draw_line(axes: Any, series: Series, place: int, color: str) -> None:
    """Solid inside the law's range, dashed outside; its interval as a band."""
    width = 2.6 if series.strong else 1.7
    stretches = runs(series)
    named = next((stretch for stretch in stretches if stretch[0]), stretches[0] if stretches else None)
    for stretch in stretches:
        inside, places = stretch
        axes.plot(
            [series.x[at] for at in places],
            [series.y[at] for at in places],
            color=color,
            linewidth=width,
            linestyle="-" if inside else (0, (4, 2.5)),
            marker=_SHAPES[place % len(_SHAPES)],
            markersize=5,
            markevery=max(1, len(series.x) // 8),
            markerfacecolor=color if inside else "white",
            label=series.name if stretch is named else "",
            zorder=4 if series.strong else 3,
        )
    ends = [interval_of(series, at) or (math.nan, math.nan) for at in range(len(series.x))]
    if series.low:
        lows, highs = zip(*ends, strict=True)
        axes.fill_between(series.x, lows, highs, color=color, alpha=0.15, linewidth=0)


def _draw_points(axes: Any, series: Series, place: int, color: str) -> None:
    for at, x in enumerate(series.x):
        y, ends = series.y[at], interval_of(series, at)
        if y is not None:
            bars = [[y - ends[0]], [ends[1] - y]] if ends else None
            axes.errorbar([x], [y], yerr=bars, **_point_style(series, place, color, at))


def _point_style(series: Series, place: int, color: str, at: int) -> dict[str, Any]:
    """How one point is drawn; the first of its series stands in the legend."""
    first = next(i for i, y in enumerate(series.y) if y is not None)
    return {
        "color": color,
        "marker": "*" if series.strong else _SHAPES[place % len(_SHAPES)],
        "markersize": 14 if series.strong else 7,
        "markerfacecolor": color if is_inside(series, at) else "white",
        "linestyle": "none",
        "capsize": 4,
        "linewidth": 1.6,
        "zorder": 6,
        "label": series.name if at == first else "",
    }


def _draw_sideways(axes: Any, chart: Chart) -> None:
    """Labels from top to bottom, values from left to right, each on its own line with its value and name at the end."""
    low, high = spread(chart, "y")
    _scale(axes, "x", chart.y_quantity, low, high, chart.y_log)
    axes.set_ylim(len(chart.labels) - 0.4, -0.6)
    axes.set_yticks(range(len(chart.labels)), chart.labels)
    axes.grid(False, axis="y")
    for level in chart.levels:
        axes.axvline(level.y, color="#555555", linewidth=1, linestyle=":", label=level.name)
    rows = _rows(chart)
    many = any(len(row) > 1 for row in rows)
    for label, row in enumerate(rows):
        for line, (place, series, at) in enumerate(row):
            down = label + (line - (len(row) - 1) / 2) * 0.8 / len(row)
            color = PALETTE[place % len(PALETTE)]
            _draw_value(axes, series, place, color, at, down)
            text = point_text(chart, series, at) + (f"  {series.name}" if many else "")
            side: Any = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 9 if many else 9.5}
            axes.annotate(text, (1.01, down), color=color if many else "black", **side)


def _draw_value(axes: Any, series: Series, place: int, color: str, at: int, down: float) -> None:
    """One value at the height `down`: a bar, a stretch from end to end, or a point with its interval."""
    y, ends = series.y[at] or 0.0, interval_of(series, at)
    style = _point_style(series, place, color, at)
    if series.kind == "bars":
        axes.barh([down], [y], color=color, height=0.6, label=style["label"])
    elif series.kind == "points":
        axes.errorbar([y], [down], xerr=[[y - ends[0]], [ends[1] - y]] if ends else None, **style)
    elif ends:
        width = 9 if series.strong else 4
        axes.plot(ends, (down, down), color=color, linewidth=width, solid_capstyle="butt", label=style["label"])
