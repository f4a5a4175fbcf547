"""Charts as plotly's figures, data and layout in JSON's types; the page brings colours of text and lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from moeplan.report.blocks import Chart, Series
from moeplan.report.charts import (
    PALETTE,
    interval_of,
    is_inside,
    looks,
    point_text,
    runs,
    spread,
    tick_text,
    ticks,
    x_text,
)
from moeplan.report.text import with_texts

_SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
_CLEAR = "rgba(0,0,0,0)"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"


def figure(chart: Chart, sources: Sequence[Sequence[int]]) -> dict[str, Any]:
    """A chart as {"data": [...], "layout": {...}, "height": px}; `sources` numbers each point's source, 0 for none."""
    chart = with_texts(chart, _plain)  # plotly reads its texts as HTML
    draw = _sideways if chart.labels else _upright
    data = []
    for (place, series), numbers in zip(looks(chart), sources, strict=True):
        for trace in draw(chart, series, place):
            points = [numbers[at] for at in trace.pop("customdata", ())]
            data.append(trace | {"customdata": points, "meta": series.name or chart.title})
    return {"data": data, "layout": _layout(chart), "height": height(chart)}


def height(chart: Chart) -> int:
    """The picture's height [px]."""
    legend = 24 * math.ceil(len(_legend(chart)) / 2)
    return 90 + legend + (40 * len(chart.labels) if chart.labels else 310)


def _legend(chart: Chart) -> list[str]:
    named = [series.name for series in chart.series if series.name]
    named += [shade.name for shade in chart.shades] + [level.name for level in chart.levels]
    return named if len(named) > 1 or chart.levels or not chart.labels else []


def _layout(chart: Chart) -> dict[str, Any]:
    low, high = spread(chart, "y")
    values = _axis(low, high, chart.y_quantity, chart.y_log, "")  # y_title stands above the picture
    if chart.labels:
        names = {
            "tickvals": list(range(len(chart.labels))),
            "ticktext": list(chart.labels),
            "range": [len(chart.labels) - 0.4, -0.6],
            "showgrid": False,
            "zeroline": False,
            "automargin": True,
        }
        across, upward = values, names
    else:
        across, upward = _axis(*spread(chart, "x"), chart.x_quantity, chart.x_log, chart.x_title), values
    return {
        "xaxis": across,
        "yaxis": upward,
        "shapes": [*_shades(chart), *_levels(chart)],
        "margin": {"l": 8, "r": 48 if chart.labels else 16, "t": 12, "b": 8, "pad": 4},
        "paper_bgcolor": _CLEAR,
        "plot_bgcolor": _CLEAR,
        "font": {"family": _FONT, "size": 13},
        "showlegend": bool(_legend(chart)),
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yanchor": "bottom", "yref": "container",
                   "bgcolor": _CLEAR},
        "hovermode": "closest",
        "hoverlabel": {"font": {"family": _FONT, "size": 13}},
        "dragmode": False,
        "barmode": "group",
        "bargap": 0.4,
    }  # fmt: skip


def _axis(low: float, high: float, kind: str, log: bool, title: str) -> dict[str, Any]:
    found = ticks(low, high, kind, log, 6)
    return {
        "type": "log" if log else "linear",
        "range": [math.log10(low), math.log10(high)] if log else [low, high],
        "tickvals": found,
        "ticktext": [tick_text(kind, value) for value in found],
        "title": {"text": "<br>".join(wrap(title, 44)), "standoff": 10, "font": {"size": 13}},
        "automargin": True,
        "zeroline": False,
        "showline": True,
        "minor": {"ticks": "", "showgrid": False},
    }


def _shades(chart: Chart) -> list[dict[str, Any]]:
    return [
        {"type": "rect", "xref": "x", "yref": "paper", "x0": shade.low, "x1": shade.high, "y0": 0, "y1": 1,
         "fillcolor": "rgba(128,128,128,0.16)", "line": {"width": 0}, "layer": "below", "name": shade.name,
         "showlegend": True}
        for shade in chart.shades
    ]  # fmt: skip


def _levels(chart: Chart) -> list[dict[str, Any]]:
    side = {"y0": 0, "y1": 1, "xref": "x", "yref": "paper"}
    flat = {"x0": 0, "x1": 1, "xref": "paper", "yref": "y"}
    return [
        {"type": "line", **(side | {"x0": level.y, "x1": level.y} if chart.labels else
                            flat | {"y0": level.y, "y1": level.y}),
         "line": {"color": "#808080", "width": 1.5, "dash": "dot"}, "name": level.name, "showlegend": True}
        for level in chart.levels
    ]  # fmt: skip


def _said(chart: Chart, series: Series, place: int) -> str:
    """What the pointer is told of a point."""
    if series.texts:
        return series.texts[place]
    return f"{x_text(chart, series.x[place])}: {point_text(chart, series, place)}"


def _trace(chart: Chart, series: Series, place: int, places: list[int]) -> dict[str, Any]:
    """What every trace has: its points, name, colour and words."""
    color = PALETTE[place % len(PALETTE)]
    values, at = [series.y[i] for i in places], [series.x[i] for i in places]
    return {
        "type": "scatter",
        "x": values if chart.labels else at,
        "y": at if chart.labels else values,
        "name": series.name,
        "legendgroup": f"series{place}",
        "showlegend": bool(series.name),
        "customdata": places,  # places of the points; `figure` puts the numbers of their sources there
        "hovertext": [_said(chart, series, i) for i in places],
        "hovertemplate": f"%{{hovertext}}<extra>{series.name}</extra>",
        "line": {"color": color},
        "marker": {
            "color": color,
            "size": 15 if series.strong else 9,
            "symbol": [_symbol(series, place, i) for i in places],
        },
    }


def _plain(text: str) -> str:
    """A text that plotly shows as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _bars(trace: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in trace.items() if name != "line"}
    return kept | {"type": "bar", "marker": {"color": trace["marker"]["color"]}}


def _symbol(series: Series, place: int, at: int) -> str:
    shape = "star" if series.strong and series.kind == "points" else _SHAPES[place % len(_SHAPES)]
    return shape if is_inside(series, at) else f"{shape}-open"


def _drawn(series: Series) -> list[int]:
    return [at for at, y in enumerate(series.y) if y is not None]


def _errors(series: Series, places: list[int]) -> dict[str, Any]:
    ends = [interval_of(series, at) for at in places]
    values = [series.y[at] or 0.0 for at in places]
    return {
        "type": "data",
        "array": [high[1] - y if high else None for high, y in zip(ends, values, strict=True)],
        "arrayminus": [y - low[0] if low else None for low, y in zip(ends, values, strict=True)],
        "thickness": 2,
    }


def _upright(chart: Chart, series: Series, place: int) -> list[dict[str, Any]]:
    """A line with its stretches and its band, points with their intervals, or bars."""
    if series.kind == "bars":
        return [_bars(_trace(chart, series, place, _drawn(series)))]
    if series.kind == "points":
        places = _drawn(series)
        found = _trace(chart, series, place, places) | {"mode": "markers"}
        return [found | ({"error_y": _errors(series, places)} if series.low else {})]
    traces = _band(chart, series, place)
    stretches = runs(series)
    named = next((stretch for stretch in stretches if stretch[0]), stretches[0] if stretches else None)
    for stretch in stretches:
        inside, places = stretch
        found = _trace(chart, series, place, places) | {"mode": "lines+markers"}
        found["line"] |= {"width": 3.5 if series.strong else 2, "dash": "solid" if inside else "dash"}
        found["marker"] |= {"size": 7 if len(series.x) <= 15 else 4}
        found["showlegend"] = stretch is named and bool(series.name)
        traces.append(found)
    return traces


def _band(chart: Chart, series: Series, place: int) -> list[dict[str, Any]]:
    ends = [(x, interval_of(series, at)) for at, x in enumerate(series.x)]
    known = [(x, pair) for x, pair in ends if pair]
    if not known:
        return []
    color = PALETTE[place % len(PALETTE)]
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [x for x, _ in known] + [x for x, _ in reversed(known)],
            "y": [pair[0] for _, pair in known] + [pair[1] for _, pair in reversed(known)],
            "fill": "toself",
            "fillcolor": f"rgba({red},{green},{blue},0.16)",
            "line": {"width": 0},
            "hoverinfo": "skip",
            "name": series.name,
            "legendgroup": f"series{place}",
            "showlegend": False,
        }
    ]


def _same_labels(chart: Chart) -> bool:
    """Whether two series of points stand beside one label."""
    places = [x for series in chart.series if series.kind == "points" for x in series.x]
    return len(places) > len(set(places))


def _sideways(chart: Chart, series: Series, place: int) -> list[dict[str, Any]]:
    """Bars, points or stretches beside their labels; bars and points say their values."""
    places = _drawn(series)
    found = _trace(chart, series, place, places)
    words = {"text": [point_text(chart, series, at) for at in places], "cliponaxis": False}
    if series.kind == "bars":
        return [_bars(found) | words | {"orientation": "h", "textposition": "outside"}]
    if series.kind == "points":
        if not _same_labels(chart):  # values of several series beside one label would overlap
            found |= words | {"mode": "markers+text", "textposition": "top center"}
        else:
            found["mode"] = "markers"
        return [found | ({"error_x": _errors(series, places)} if series.low else {})]
    traces = []
    for count, at in enumerate(places):
        ends = interval_of(series, at)
        if ends:
            stretch = _trace(chart, series, place, [at, at]) | {"mode": "lines", "x": list(ends)}
            stretch["line"] |= {"width": 12 if series.strong else 5}
            stretch["showlegend"] = count == 0 and bool(series.name)
            traces.append(stretch)
    return traces
