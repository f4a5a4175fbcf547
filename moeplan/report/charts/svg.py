"""Charts as SVG, the one picture of a chart: on a page, in a file, in a notebook.

Text and lines take the colour of what stands around them (`currentColor`), so that a picture is legible on light and on
dark; series keep theirs. Points are groups of class `p` with what is to be said of them in a `title`. No style, no
script: a page's own give the pointer its answers. The same chart makes the same bytes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

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
    totals,
    value_text,
    x_text,
)

WIDE, NARROW = 760, 340
"""Widths that a chart is drawn at [px]: for a desk or paper, and for a phone."""
_PHONE = 500
_FONT, _SMALL, _LINE = 13, 12, 17
_FAMILY = "Arial, 'Liberation Sans', Helvetica, sans-serif"
"""One family of known widths, or what stands in for it."""
_WIDTHS = {**dict.fromkeys("ijl.,:;'|!()[]", 0.28), **dict.fromkeys("frt- ", 0.33), **dict.fromkeys("mwMW%", 0.86)}
"""Widths of characters in units of the font's size, about those of Helvetica; capitals .68, all others .56."""

Names = Sequence[Sequence[int]]
"""The number of each point's source, by series; 0 for none."""


def text_width(text: str, size: float = _FONT) -> float:
    """About how wide a text is [px]."""
    return 1.05 * size * sum(_WIDTHS.get(character, 0.68 if character.isupper() else 0.56) for character in text)


def wrapped(text: str, width: float, size: float = _FONT) -> list[str]:
    """A text in lines of at most `width` [px]."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def tag(name: str, *inside: str, **attributes: str | float | None) -> str:
    """An element; numbers are rounded to a tenth, `stroke_width` is stroke-width, None is left out."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value) if isinstance(value, str) else _px(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{said}>{''.join(inside)}</{name}>" if inside else f"<{name}{said}/>"


def _px(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"


def text(words: str, x: float, y: float, anchor: str = "start", size: float = _FONT, **more: str | float | None) -> str:
    """A line of text whose baseline is at `y`."""
    return tag("text", escape(words, quote=False), x=x, y=y, font_size=size,
               text_anchor=None if anchor == "start" else anchor, **more)  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """One axis of a chart: places of its values [px], and its ticks."""

    low: float
    high: float
    log: bool
    start: float
    """Where `low` stands."""
    end: float
    """Where `high` stands."""
    kind: str

    def __call__(self, value: float) -> float:  # noqa: D102  # the class says it
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(max(value, 1e-300)), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Places and words of at most so many round values that do not run into each other."""
        for count in range(most, 1, -1):
            found = [(self(x), tick_text(self.kind, x)) for x in ticks(self.low, self.high, self.kind, self.log, count)]
            apart = all(
                abs(b - a) > (text_width(one) + text_width(other)) / 2 + 8
                for (a, one), (b, other) in itertools.pairwise(found)
            )
            if apart or abs(self.end - self.start) == 0:
                break
        return found


def picture(chart: Chart, width: float = WIDE, sources: Names = (), kind: str = "wide") -> str:
    """A chart without its title and note as an `svg` element of a `width` [px]; `kind` is its class besides `plot`."""
    inside, height = _drawing(chart, width, sources)
    return tag(
        "svg", inside, class_=f"plot {kind}", viewBox=f"0 0 {_px(width)} {_px(height)}", width=width, height=height,
        role="group", aria_label=chart.title, fill="currentColor", font_family=_FAMILY,
    )  # fmt: skip


def _drawing(chart: Chart, width: float, sources: Names = ()) -> tuple[str, float]:
    """The inside of a picture, and its height."""
    marks = _Marks(chart, sources)
    body, height = (_sideways if chart.labels else _upright)(chart, width, marks)
    legend, more = _legend(chart, width, height + 10)
    return body + legend, height + more


class _Marks:
    """Points, bars and stretches with what is to be said of them."""

    def __init__(self, chart: Chart, sources: Names) -> None:
        self.chart, self.sources = chart, sources

    def __call__(self, place: int, series: Series, at: int, *shapes: str) -> str:
        number = place_of(self.chart, series)
        source = self.sources[number][at] if self.sources else 0
        said = point_text(self.chart, series, at)
        if not (self.chart.labels and series.texts):
            more = f"; {series.texts[at]}" if series.texts else ""
            said = f"{x_text(self.chart, series.x[at])}: {said}{more}"
        name = series.name or self.chart.title
        title = tag("title", escape(said if said.startswith(name) else f"{name}, {said}", quote=False))
        return tag("g", title, *shapes, class_="p", data_source=source or None, data_name=name)


def place_of(chart: Chart, series: Series) -> int:
    """The number of a series among those of its chart."""
    return next(number for number, other in enumerate(chart.series) if other is series)


def _group(place: int, *inside: str) -> str:
    return tag("g", *inside, class_="series", data_look=place)


def _color(place: int) -> str:
    return PALETTE[place % len(PALETTE)]


def _grid(axis: Axis, across: Callable[[float], dict[str, float]], most: int) -> tuple[str, list[tuple[float, str]]]:
    """Faint lines at the ticks of an axis, and the ticks."""
    found = axis.ticks(most)
    return "".join(tag("line", **across(at), stroke="currentColor", stroke_opacity=0.13) for at, _ in found), found


# ------------------------------------------------------------------------------------------------ upright


def _upright(chart: Chart, width: float, marks: _Marks) -> tuple[str, float]:
    tall = 300.0 if width > _PHONE else 230.0
    low, high = spread(chart, "y")
    up = Axis(low, high, chart.y_log, tall + 8, 8, chart.y_quantity)
    names = [word for _, word in up.ticks(7)]
    left = 10 + max(map(text_width, names), default=0.0)
    along = Axis(*spread(chart, "x"), chart.x_log, left, width - 14, chart.x_quantity)
    foot = up.start
    parts = [
        tag("rect", tag("title", escape(shade.name)), x=along(shade.low), y=up.end,
            width=max(along(shade.high) - along(shade.low), 0.0), height=foot - up.end, fill_opacity=0.07,
            class_="shade")
        for shade in chart.shades
    ]  # fmt: skip
    rows, up_ticks = _grid(up, lambda at: {"x1": left, "x2": along.end, "y1": at, "y2": at}, 7)
    columns, along_ticks = _grid(along, lambda at: {"x1": at, "x2": at, "y1": foot, "y2": up.end}, 8)
    parts += [rows, columns, tag("line", x1=left, x2=along.end, y1=foot, y2=foot, stroke="currentColor")]
    parts += [text(word, left - 8, at + 4, "end", class_="ytick") for at, word in up_ticks]
    parts += [text(word, at, foot + _LINE, "middle", class_="xtick") for at, word in along_ticks]
    parts += [_level(left, along.end, up(level.y), up(level.y)) for level in chart.levels]
    for place, series in sorted(looks(chart), key=lambda item: item[1].strong):
        draw = {"line": _line, "points": _points, "bars": _bars}[series.kind]
        parts.append(_group(place, *draw(series, place, along, up, marks)))
    lines = wrapped(chart.x_title, width - left, _SMALL)
    end = foot + _LINE + 4
    parts += [
        text(line, (left + along.end) / 2, end + (row + 1) * _LINE, "middle", _SMALL, fill_opacity=0.75)
        for row, line in enumerate(lines)
    ]
    return "".join(parts), end + len(lines) * _LINE + 4


def _level(x1: float, x2: float, y1: float, y2: float) -> str:
    return tag("line", x1=x1, x2=x2, y1=y1, y2=y2, stroke="currentColor", stroke_opacity=0.6, stroke_width=1.5,
               stroke_dasharray="2 3", class_="level")  # fmt: skip


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_px(x)} {_px(y)}" for x, y in points)


def _line(series: Series, place: int, along: Axis, up: Axis, marks: _Marks) -> Iterator[str]:
    """Its interval as a band; solid inside the law's range, dashed outside; a mark at each point."""
    known = [(along(x), ends) for at, x in enumerate(series.x) if (ends := interval_of(series, at))]
    if known:
        around = [(x, up(low)) for x, (low, _) in known] + [(x, up(high)) for x, (_, high) in reversed(known)]
        yield tag("path", d=f"{_path(around)}Z", fill=_color(place), fill_opacity=0.16, class_="band")
    for inside, places in runs(series):
        points = [(along(series.x[at]), up(series.y[at] or 0.0)) for at in places]
        yield tag(
            "path", d=_path(points), fill="none", stroke=_color(place), stroke_width=3.2 if series.strong else 2.0,
            stroke_dasharray=None if inside else "6 4", stroke_linejoin="round", class_="line",
        )  # fmt: skip
    size = 3.6 if len(series.x) <= 15 else 2.2
    for at, y in enumerate(series.y):
        if y is not None:
            x, down = along(series.x[at]), up(y)
            reach = tag("circle", cx=x, cy=down, r=8, fill_opacity=0)
            yield marks(place, series, at, reach, _shape(series, place, at, x, down, size))


def _points(series: Series, place: int, along: Axis, up: Axis, marks: _Marks) -> Iterator[str]:
    for at, y in enumerate(series.y):
        if y is not None:
            x, ends = along(series.x[at]), interval_of(series, at)
            bars = _whiskers(x, x, up(ends[0]), up(ends[1]), _color(place)) if ends else ""
            yield marks(place, series, at, bars, _shape(series, place, at, x, up(y)))


def _bars(series: Series, place: int, along: Axis, up: Axis, marks: _Marks) -> Iterator[str]:
    wide = 0.7 * abs(along.end - along.start) / max(len(series.x), 1)
    for at, y in enumerate(series.y):
        if y is not None:
            x, top = along(series.x[at]) - wide / 2, up(y)
            shape = tag("rect", x=x, y=top, width=wide, height=up.start - top, fill=_color(place), class_="bar")
            yield marks(place, series, at, shape)


_POLYGONS = {
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "up": ((0, -1.15), (1.1, 0.85), (-1.1, 0.85)),
    "diamond": ((0, -1.3), (1.1, 0), (0, 1.3), (-1.1, 0)),
    "down": ((0, 1.15), (1.1, -0.85), (-1.1, -0.85)),
    "star": tuple(
        (r * math.sin(math.pi * k / 5), -r * math.cos(math.pi * k / 5)) for k, r in enumerate((1.5, 0.65) * 5)
    ),
}
_SHAPES = ("circle", "square", "up", "diamond", "down")


def _shape(series: Series, place: int, at: int, x: float, y: float, size: float = 5.0) -> str:
    """A point: filled inside the law's range, hollow outside; a star where it stands out."""
    star = series.strong and series.kind == "points"
    name, size = ("star", 7.0) if star else (_SHAPES[place % len(_SHAPES)], size)
    inside, color = is_inside(series, at), _color(place)
    look: dict[str, str | float] = {"fill": color, "stroke": color, "stroke_width": 1.5, "class_": "dot"}
    if not inside:
        look |= {"fill_opacity": 0, "class_": "dot hollow"}
    if name == "circle":
        return tag("circle", cx=x, cy=y, r=size, **look)
    corners = " ".join(f"{_px(x + size * a)},{_px(y + size * b)}" for a, b in _POLYGONS[name])
    return tag("polygon", points=corners, **look)


def _whiskers(x1: float, x2: float, y1: float, y2: float, color: str) -> str:
    """An interval: a line with a bar at each end."""
    flat = y1 == y2
    ends = [(x1, x1, y1 - 4, y1 + 4), (x2, x2, y1 - 4, y1 + 4)] if flat else [(x1 - 4, x1 + 4, y, y) for y in (y1, y2)]
    lines = [(x1, x2, y1, y2), *ends]
    return "".join(tag("line", x1=a, x2=b, y1=c, y2=d, stroke=color, stroke_width=1.8) for a, b, c, d in lines)


# ------------------------------------------------------------------------------------------------ on its side


def _sideways(chart: Chart, width: float, marks: _Marks) -> tuple[str, float]:
    """Labels from top to bottom, values from left to right, each on its own line with its value in words.

    On a phone the words stand above what they say, and the lines of levels leave them free.
    """
    rows = [
        [(place, series, series.x.index(row)) for place, series in looks(chart)
         if row in series.x and series.y[series.x.index(row)] is not None]
        for row in range(len(chart.labels))
    ]  # fmt: skip
    phone = width <= _PHONE
    if chart.stacked:
        return _stacked(chart, width, marks)
    many = any(len(row) > 1 for row in rows)
    named = [[_words(chart, series, at, many) for _, series, at in row] for row in rows]
    left = 12.0 if phone else 12 + max(map(text_width, chart.labels), default=0.0)
    right = 14.0 if phone else 16 + max((text_width(words) for row in named for words in row), default=0.0)
    low, high = spread(chart, "y")
    along = Axis(low, high, chart.y_log, left, max(width - right, left + 80), chart.y_quantity)
    parts: dict[int, list[str]] = {place: [] for place, _ in looks(chart)}
    words: list[str] = []
    beside: list[tuple[float, float]] = []
    y = 6.0
    for label, row, texts in zip(chart.labels, rows, named, strict=True):
        middle = y + max(len(row), 1) * 24 / 2
        if phone:
            y += _LINE
            words.append(text(label, 4, y, class_="label"))
            y += 4
        else:
            words.append(text(label, left - 12, middle + 4, "end", class_="label"))
        for (place, series, at), said in zip(row, texts, strict=True):
            if phone and many:
                y += _LINE
                words.append(text(said, left, y, size=_SMALL, fill_opacity=0.75, class_="value"))
                y += 2
            elif phone:
                words.append(text(said, width - 6, y - 4, "end", class_="value"))
            else:
                words.append(text(said, along.end + 10, y + 12 + 4, class_="value"))
            parts[place].append(marks(place, series, at, _value(series, place, at, along, y + 12)))
            beside.append((y + 1, y + 23))
            y += 20 if phone else 24
        y += 8
    foot = y + 2
    grid, found = _grid(along, lambda at: {"x1": at, "x2": at, "y1": 4, "y2": foot}, 7 if not phone else 5)
    drawn = [grid, tag("line", x1=along.start, x2=along.end, y1=foot, y2=foot, stroke="currentColor")]
    spans = beside if phone else [(4.0, foot)]
    drawn += [_level(along(level.y), along(level.y), *span) for level in chart.levels for span in spans]
    drawn += [_group(place, *inside) for place, inside in parts.items()]
    drawn += [text(word, at, foot + _LINE, "middle", class_="xtick") for at, word in found]
    return "".join((*drawn, *words)), foot + _LINE + 6


def _stacked(chart: Chart, width: float, marks: _Marks) -> tuple[str, float]:
    """Labels from top to bottom, the parts beside each end to end, with their sum in words."""
    phone, sums = width <= _PHONE, totals(chart)
    said = {x: value_text(chart.y_quantity, total) for x, total in sums.items()}
    left = 12.0 if phone else 12 + max(map(text_width, chart.labels), default=0.0)
    right = 14.0 if phone else 18 + max(map(text_width, said.values()), default=0.0)
    along = Axis(*spread(chart, "y"), chart.y_log, left, width - right, chart.y_quantity)
    high, step = (18.0, 46.0) if phone else (20.0, 32.0)
    tops = [6.0 + row * step + (_LINE + 4 if phone else 0) for row in range(len(chart.labels))]
    foot = 6.0 + len(chart.labels) * step
    grid, found = _grid(along, lambda at: {"x1": at, "x2": at, "y1": 4, "y2": foot}, 5 if phone else 7)
    parts = [grid]
    reached = dict.fromkeys(sums, 0.0)
    for place, series in looks(chart):
        bars = []
        for at, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
            if y:
                first, last = along(reached[x]), along(reached[x] + y)
                shape = tag("rect", x=first, y=tops[int(x)], width=max(last - first, 0.5), height=high,
                            fill=_color(place), class_="bar")  # fmt: skip
                bars.append(marks(place, series, at, shape))
                reached[x] += y
        parts.append(_group(place, *bars))
    parts.append(tag("line", x1=along.start, x2=along.end, y1=foot, y2=foot, stroke="currentColor"))
    spans = [(top - 2, top + high + 2) for top in tops] if phone else [(4.0, foot)]
    parts += [_level(along(level.y), along(level.y), *span) for level in chart.levels for span in spans]
    for row, label in enumerate(chart.labels):
        base, value = tops[row] - 6 if phone else tops[row] + high / 2 + 4, said.get(row, "")
        if phone:
            parts.append(text(label, 4, base, class_="label") + text(value, width - 6, base, "end", class_="value"))
        else:
            parts.append(text(label, left - 12, base, "end", class_="label"))
            parts.append(text(value, along.end + 12, base, class_="value"))
    parts += [text(word, at, foot + _LINE, "middle", class_="xtick") for at, word in found]
    return "".join(parts), foot + _LINE + 6


def _words(chart: Chart, series: Series, at: int, many: bool) -> str:
    return point_text(chart, series, at) + (f"  {series.name}" if many and series.name else "")


def _value(series: Series, place: int, at: int, along: Axis, y: float) -> str:
    """One value at the height `y`: a bar, a stretch from end to end, or a point with its interval."""
    value, ends, color = series.y[at] or 0.0, interval_of(series, at), _color(place)
    if series.kind == "bars":
        return tag("rect", x=along.start, y=y - 9, width=max(along(value) - along.start, 0.5), height=18, fill=color,
                   class_="bar")  # fmt: skip
    if series.kind == "points":
        whiskers = _whiskers(along(ends[0]), along(ends[1]), y, y, color) if ends else ""
        return whiskers + _shape(series, place, at, along(value), y)
    if ends is None:
        return ""
    return tag("line", x1=along(ends[0]), x2=along(ends[1]), y1=y, y2=y, stroke=color,
               stroke_width=12 if series.strong else 5, class_="stretch")  # fmt: skip


# ------------------------------------------------------------------------------------------------ legend, files


def _legend(chart: Chart, width: float, top: float) -> tuple[str, float]:
    """What colours and lines mean, in as few lines as hold it, and their height."""
    keys: list[tuple[str, int | str, Series | None]] = [
        *((series.name, place, series) for place, series in looks(chart) if series.name),
        *((shade.name, "shade", None) for shade in chart.shades),
        *((level.name, "level", None) for level in chart.levels),
    ]
    if len(keys) < 2 and not chart.levels and chart.labels:
        return "", 0.0
    parts: list[str] = []
    x, y = 4.0, top + 12
    for name, look, series in keys:
        wide = 30 + text_width(name) + 18
        if x > 4 and x + wide - 18 > width:
            x, y = 4.0, y + 22
        parts.append(_key(name, look, series, x, y))
        x += wide
    return "".join(parts), y + 10 - top + 10


def _key(name: str, look: int | str, series: Series | None, x: float, y: float) -> str:
    """One entry of the legend; that of a series hides and shows it where a page says so."""
    words = text(name, x + 30, y + 4)
    if series is None or isinstance(look, str):
        sign = _level(x, x + 22, y, y) if look == "level" else tag(
            "rect", x=x, y=y - 7, width=22, height=14, fill_opacity=0.1)  # fmt: skip
        return tag("g", sign, words, class_="key")
    color = _color(look)
    sign = tag("line", x1=x, x2=x + 22, y1=y, y2=y, stroke=color, stroke_width=3.2 if series.strong else 2)
    if series.kind == "bars":
        sign = tag("rect", x=x + 4, y=y - 6, width=14, height=12, fill=color)
    elif series.kind == "points":
        first = next((at for at, value in enumerate(series.y) if value is not None), 0)
        sign = _shape(series, look, first, x + 11, y)
    reach = tag("rect", x=x, y=y - 11, width=30 + text_width(name), height=22, fill_opacity=0)
    return tag("g", reach, sign, words, class_="key", data_look=look)


def file_picture(charts: Sequence[Chart]) -> str:
    """Charts with titles and notes as an SVG file on white, several in two columns."""
    columns = 1 if len(charts) == 1 else 2
    width, gap = 680.0, 28.0
    parts: list[str] = []
    y = gap
    for first in range(0, len(charts), columns):
        heights = []
        for column, chart in enumerate(charts[first : first + columns]):
            inside, height = _titled(chart, width - 2 * gap)
            parts.append(tag("g", inside, transform=f"translate({_px(gap + column * width)} {_px(y)})"))
            heights.append(height)
        y += max(heights) + gap
    whole = columns * width
    paper = tag("rect", width=whole, height=y, fill="#ffffff")
    return tag(
        "svg", paper, tag("g", *parts, color="#1a1f25", fill="currentColor"), xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_px(whole)} {_px(y)}", width=whole, height=y, font_family=_FAMILY,
    ) + "\n"  # fmt: skip


def _titled(chart: Chart, width: float) -> tuple[str, float]:
    """A chart with its title above and its note below, and the height."""
    y, parts = 0.0, []
    for words, size, weight, faint in ((chart.title, 16, "600", None), (chart.y_title, _SMALL, None, 0.75)):
        for line in wrapped(words, width, size):
            y += size + 5
            parts.append(text(line, 0, y, size=size, font_weight=weight, fill_opacity=faint))
    inside, height = _drawing(chart, width)
    parts.append(tag("g", inside, transform=f"translate(0 {_px(y + 10)})"))
    y += 10 + height
    for line in wrapped(" ".join(part for part in (chart.note, outside_note([chart])) if part), width, _SMALL):
        y += _LINE
        parts.append(text(line, 0, y, size=_SMALL, fill_opacity=0.75))
    return "".join(parts), y + 4
