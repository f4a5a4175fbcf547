"""Charts in plain characters, for a terminal or a pipe: ASCII, at most `HEIGHT` lines of picture."""

from __future__ import annotations

import math

from rich.text import Text

from moeplan.report.blocks import Chart, Series
from moeplan.report.charts import interval_of, is_inside, looks, point_text, spread, tick_text, ticks, value_text

HEIGHT = 12
"""Lines of the picture itself; title, axis and legend come to it."""
_MARKS = "oxv^#%&="
_STRONG = "@"
_COLORS = ("cyan", "yellow", "green", "magenta", "blue", "red", "white", "bright_cyan")


class _Canvas:
    """A rectangle of characters, each with a style."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.cells = [[(" ", "")] * width for _ in range(height)]

    def put(self, column: int, row: int, character: str, style: str = "") -> None:
        if 0 <= column < self.width and 0 <= row < self.height:
            self.cells[row][column] = (character, style)

    def line(self, row: int) -> Text:
        text = Text()
        for character, style in self.cells[row]:
            text.append(character, style)
        text.rstrip()
        return text


class _Scale:
    """Maps values to places 0 .. size-1."""

    def __init__(self, chart: Chart, axis: str, size: int) -> None:
        self.low, self.high = spread(chart, axis)
        self.log = chart.x_log if axis == "x" else chart.y_log
        self.quantity = chart.x_quantity if axis == "x" else chart.y_quantity
        self.size = size

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(max(value, 1e-300)), math.log(low), math.log(high)
        return (value - low) / (high - low) * (self.size - 1)

    def ticks(self, most: int) -> list[tuple[int, str]]:
        found = ticks(self.low, self.high, self.quantity, self.log, most)
        return [(round(self(value)), tick_text(self.quantity, value)) for value in found]


def chart_lines(chart: Chart, width: int) -> list[Text]:
    """A chart as lines of at most `width` columns: title, picture, axis, legend; its note is left to the caller."""
    lines = [Text(chart.title, style="bold")]
    lines += _sideways(chart, width) if chart.labels else _upright(chart, width)
    return lines


def _upright(chart: Chart, width: int) -> list[Text]:
    vertical = _Scale(chart, "y", HEIGHT)
    names = dict(vertical.ticks(5))
    gutter = max((len(name) for name in names.values()), default=0)
    canvas = _Canvas(max(20, width - gutter - 2), HEIGHT)
    across = _Scale(chart, "x", canvas.width)
    for level in chart.levels:
        for column in range(0, canvas.width, 2):
            canvas.put(column, HEIGHT - 1 - round(vertical(level.y)), ".", "dim")
    for place, series in sorted(looks(chart), key=lambda item: item[1].strong):
        if series.kind == "line":
            _draw_line(canvas, across, vertical, series, place, max(3, len(chart.series)))
        else:
            _draw_points(canvas, across, vertical, series, place)
    lines = [Text(f"{'':{gutter}}  {chart.y_title}", style="dim")]
    for row in range(HEIGHT):
        name = names.get(HEIGHT - 1 - row, "")
        lines.append(Text(f"{name:>{gutter}} {'+' if name else '|'}", style="dim") + canvas.line(row))
    return [*lines, *_x_axis(across, gutter, chart.x_title, width), *_legend(chart, width, gutter + 2)]


def _x_axis(across: _Scale, gutter: int, title: str, width: int) -> list[Text]:
    """The axis, its ticks and its title; a tick whose name would run into the last one is left out."""
    axis, below, end = ["-"] * across.size, [" "] * (across.size + gutter + 2), -1
    for column, name in across.ticks(max(2, across.size // 10)):
        first = max(0, min(column + gutter + 2 - len(name) // 2, len(below) - len(name)))
        if first > end:
            axis[column] = "+"
            below[first : first + len(name)] = name
            end = first + len(name)
    lines = [Text(f"{'':{gutter}} +{''.join(axis)}", style="dim"), Text("".join(below).rstrip(), style="dim")]
    return [*lines, Text(title.rjust(min(width, gutter + 2 + across.size)), style="dim")]


def _draw_line(canvas: _Canvas, across: _Scale, vertical: _Scale, series: Series, place: int, period: int) -> None:
    """Column by column between neighbours; outside the law's range one column of each `period`, no other line's."""
    mark, style = _mark(series, place), _style(series, place)
    for at in range(len(series.x)):
        here = series.y[at]
        if here is None:
            continue
        after = series.y[at + 1] if at + 1 < len(series.x) else None
        first, row = across(series.x[at]), vertical(here)
        last, end = (across(series.x[at + 1]), vertical(after)) if after is not None else (first, row)
        inside = is_inside(series, at) and (after is None or is_inside(series, at + 1))
        for column in range(round(first), max(round(last), round(first) + 1)):
            if inside or (column + place) % period == 0:
                share = (column - first) / (last - first) if last > first else 0.0
                height = row + min(max(share, 0.0), 1.0) * (end - row)
                canvas.put(column, canvas.height - 1 - round(height), mark, style)


def _draw_points(canvas: _Canvas, across: _Scale, vertical: _Scale, series: Series, place: int) -> None:
    mark, style = _mark(series, place), _style(series, place)
    for at, x in enumerate(series.x):
        y, column, bottom = series.y[at], round(across(x)), canvas.height - 1
        ends = interval_of(series, at)
        if series.kind == "bars" and y is not None:
            ends = (vertical.low, y)
        if ends:
            low, high = map(vertical, ends)
            for row in range(bottom - round(high), bottom - max(round(low), 0) + 1):
                canvas.put(column, row, "|", style)
        if y is not None:
            canvas.put(column, bottom - round(vertical(y)), mark, style)


def _sideways(chart: Chart, width: int) -> list[Text]:
    """One line for each label and series, its value in words at the end."""
    entries = [
        (label, place, series, series.x.index(row))
        for row, label in enumerate(chart.labels)
        for place, series in looks(chart)
        if row in series.x and series.y[series.x.index(row)] is not None
    ]
    values = [point_text(chart, series, at) for _, _, series, at in entries]
    gutter = max(map(len, chart.labels), default=0)
    canvas = _Canvas(max(10, width - gutter - 4 - max(map(len, values), default=0)), len(entries))
    along = _Scale(chart, "y", canvas.width)
    for row, (_, place, series, at) in enumerate(entries):
        for level in chart.levels:
            canvas.put(round(along(level.y)), row, ":", "dim")
        mark, style, y = _mark(series, place), _style(series, place), series.y[at]
        ends = interval_of(series, at)
        if ends:
            first, last = (round(along(end)) for end in ends)
            for column in range(first, last + 1):
                canvas.put(column, row, "|" if column in (first, last) else "-", style)
        if y is not None and series.kind == "bars":
            for column in range(round(along(y)) + 1):
                canvas.put(column, row, "#", style)
        elif y is not None:
            canvas.put(round(along(y)), row, mark, style)
    lines, before = [], ""
    for row, (label, _, _, _) in enumerate(entries):
        line = Text(f"{label if label != before else '':{gutter}} |", style="dim") + canvas.line(row)
        lines.append(line + Text(" " * (gutter + 3 + canvas.width - len(line)) + values[row]))
        before = label
    many = len(chart.series) > 1 or bool(chart.levels)
    return [*lines, *_x_axis(along, gutter, chart.y_title, gutter + 2 + canvas.width)] + (
        _legend(chart, width, gutter + 2) if many else []
    )


def _mark(series: Series, place: int) -> str:
    if series.strong and series.kind == "points":
        return _STRONG
    return "#" if series.kind == "bars" else _MARKS[place % len(_MARKS)]


def _style(series: Series, place: int) -> str:
    return f"{'bold ' if series.strong else ''}{_COLORS[place % len(_COLORS)]}"


def _legend(chart: Chart, width: int, indent: int) -> list[Text]:
    """What each character means, in as few lines as hold it."""
    entries = [Text.assemble((_mark(s, i), _style(s, i)), f" {s.name}") for i, s in looks(chart) if s.name]
    dots = ":" if chart.labels else "."
    entries += [Text(f"{dots} {level.name} ({value_text(chart.y_quantity, level.y)})") for level in chart.levels]
    entries += [
        Text(f"{shade.name}: {value_text(chart.x_quantity, shade.low)} to {value_text(chart.x_quantity, shade.high)}")
        for shade in chart.shades
    ]
    if any(not all(series.inside) for series in chart.series if series.kind == "line"):
        entries.append(Text("sparse: outside the measured range"))
    lines: list[Text] = []
    for entry in entries:
        if lines and len(lines[-1]) + 3 + len(entry) <= width:
            lines[-1] += Text("   ") + entry
        else:
            lines.append(Text(" " * indent) + entry)
    return lines
