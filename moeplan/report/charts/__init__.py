"""Charts without any drawing: how values and ticks are written, the range of an axis, a chart as a table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from moeplan.quantities import KINDS
from moeplan.report.blocks import Chart, Section, Series, Table
from moeplan.report.text import NONE, Number, Source, joined, mark

MOST_PAIRS = 4
"""Most series that stand beside each other in a table, each with places of its own."""
TABLE_ROWS = 9
"""Most rows of a chart written as a short table, besides those of points that stand out."""
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b5579d", "#a87800", "#3a98d0", "#7a7a7a", "#8c564b")
"""Colours of series, told apart by every kind of colour vision, on white and on black; after Okabe and Ito (2008)."""
_OUTSIDE = "Dashed lines and hollow marks: outside the range that the law was measured on."
_GPU_MEMORY = 80e9
"""Ticks of memory are doublings and halvings of it [bytes]: 20GB, 40GB, 80GB, 160GB, 320GB, 640GB."""


def value_text(kind: str, value: float) -> str:
    """A value as text, by the kind of what its axis counts."""
    return KINDS[kind].text(value)


def tick_text(kind: str, value: float) -> str:
    """The same in short, for a tick: 6x where a value reads 6.00x."""
    if kind == "times":
        return f"{value:g}x" if value < 1e4 else f"{value:.0e}x".replace("e+0", "e").replace("e+", "e")
    if kind == "share":
        return f"{100 * value:.6g} %"
    return value_text(kind, value) if value else "0"


def spread(chart: Chart, axis: str) -> tuple[float, float]:
    """The range of one axis, "x" or "y": every point and interval end, a margin around; zero where bars start."""
    log = chart.x_log if axis == "x" else chart.y_log
    values = [
        value
        for series in chart.series
        for value in (series.x if axis == "x" else (*series.y, *series.low, *series.high))
        if value is not None and math.isfinite(value) and (value > 0 or not log)
    ]
    if axis == "y" and chart.stacked:
        values += totals(chart).values()
    if axis == "y":
        values += [level.y for level in chart.levels]
        values += [0.0 for series in chart.series if series.kind == "bars" and not log]
    if not values:
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = min(values), max(values)
    if log:
        margin = max((high / low) ** 0.04, 1.05)
        return low / margin, high * margin
    margin = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    return (min(low, 0.0) if low == 0 or low > 0 > low - margin else low - margin), high + margin


def totals(chart: Chart) -> dict[float, float]:
    """The sum of all values at each place."""
    sums: dict[float, float] = {}
    for series in chart.series:
        for x, y in zip(series.x, series.y, strict=True):
            sums[x] = sums.get(x, 0.0) + (y or 0.0)
    return sums


def ticks(low: float, high: float, kind: str, log: bool, most: int = 7) -> list[float]:
    """Round values between `low` and `high`, `most` at most: powers of ten, 1-2-5, or doublings of memory."""
    if log and high / low > 2.5:
        for candidates in _log_candidates(low, high, kind):
            found = [value for value in candidates if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
            if 2 <= len(found) <= most:
                return found
    return _linear(low, high, most)


def _log_candidates(low: float, high: float, kind: str) -> Iterable[list[float]]:
    if kind == "bytes":
        first, last = math.floor(math.log2(low / _GPU_MEMORY)), math.ceil(math.log2(high / _GPU_MEMORY))
        yield [_GPU_MEMORY * 2.0**power for power in range(first, last + 1)]
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for digits in ((1, 2, 5), (1, 3), (1,)):
        yield [float(f"{digit}e{power}") for power in range(first, last + 1) for digit in digits]
    for step in range(2, 20):
        yield [float(f"1e{power}") for power in range(first - first % step, last + 1, step)]


def _linear(low: float, high: float, most: int) -> list[float]:
    if not high > low:
        return [low]
    power = math.floor(math.log10((high - low) / most))
    for step in (float(f"{digits}e{power + more}") for more in (0, 1) for digits in (1, 2, 2.5, 5)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [float(f"{place * step:.12g}") for place in range(first, last + 1)]
    return [low, high]


def looks(chart: Chart) -> list[tuple[int, Series]]:
    """Every series with its place among colours and shapes."""
    return [(place if series.look is None else series.look, series) for place, series in enumerate(chart.series)]


def x_text(chart: Chart, x: float) -> str:
    """A place on the x axis as text."""
    return chart.labels[int(x)] if chart.labels else value_text(chart.x_quantity, x)


def chart_table(chart: Chart, whole: bool = False) -> Table:
    """The chart as a short table: one row a place on the x axis, one column a series, intervals in brackets.

    `whole` keeps every place where there are more than `TABLE_ROWS`; series that share few places then stand beside
    each other, each with places of its own.
    """
    places = sorted({x for series in chart.series for x in series.x})
    if whole and not chart.labels and _apart(chart, len(places)):
        return _side_by_side(chart)
    if len(places) > TABLE_ROWS and not chart.labels and not whole:
        strong = {x for series in chart.series if series.strong and series.kind == "points" for x in series.x}
        others = [x for x in places if x not in strong] or places
        step = (len(others) - 1) / (TABLE_ROWS - 1)
        places = sorted(strong | {others[round(step * place)] for place in range(TABLE_ROWS)})
    columns = (chart.x_title, *(series.name for series in chart.series))
    rows = tuple((x_text(chart, x), *(_cell(chart, series, x) for series in chart.series)) for x in places)
    numbers = range(1 if chart.labels else 0, len(columns))
    across = None if chart.labels else _across(chart)
    return Table(rows, columns, right=tuple(numbers), sources=(across, *(series.source for series in chart.series)))


def _across(chart: Chart) -> Source:
    return Source(f"A place on the chart's x axis: {chart.x_title}.")


def _apart(chart: Chart, places: int) -> bool:
    """Whether a table over all places would be mostly empty, and one of columns in pairs not too wide."""
    points = sum(len(series.x) for series in chart.series)
    return 1 < len(chart.series) <= MOST_PAIRS and 2 * points < places * len(chart.series)


def _side_by_side(chart: Chart) -> Table:
    """Two columns a series, its places and its values; a shorter one ends earlier."""

    def pair(series: Series, at: int) -> tuple[str, str]:
        if at >= len(series.x):
            return NONE, NONE
        return x_text(chart, series.x[at]), point_text(chart, series, at)

    longest = max(len(series.x) for series in chart.series)
    rows = tuple(tuple(cell for series in chart.series for cell in pair(series, at)) for at in range(longest))
    columns = tuple(name for series in chart.series for name in (chart.x_title, series.name))
    sources = tuple(source for series in chart.series for source in (_across(chart), series.source))
    return Table(rows, columns, right=tuple(range(len(columns))), sources=sources)


def _cell(chart: Chart, series: Series, x: float) -> str:
    return point_text(chart, series, series.x.index(x)) if x in series.x else NONE


def point_text(chart: Chart, series: Series, place: int) -> str:
    """The value of one point, flagged if it lies outside the law's range, with its interval; or its own words."""
    y = series.y[place]
    if y is None:
        return NONE
    if chart.labels and series.texts:
        return series.texts[place]

    def shown(value: float, which: int) -> str | Number:
        text = value_text(chart.y_quantity, value)
        known = series.numbers[place][which] if series.numbers else None
        return dataclasses.replace(known, text=text) if known else text

    ends = interval_of(series, place)
    between = (shown(ends[0], 1), "–", shown(ends[1], 2)) if ends else ()
    if chart.labels and series.kind == "line":
        return joined(between)
    text = mark(joined([shown(y, 0)]), not is_inside(series, place))
    return joined((text, " (", *between, ")")) if between else text


def interval_of(series: Series, place: int) -> tuple[float, float] | None:
    """Both ends of one point's interval, or nothing."""
    low = series.low[place] if series.low else None
    high = series.high[place] if series.high else None
    return (low, high) if low is not None and high is not None else None


def is_inside(series: Series, place: int) -> bool:
    """Whether a point lies in the range that its law was measured on, or there is no such range."""
    return not series.inside or series.inside[place]


def runs(series: Series) -> list[tuple[bool, list[int]]]:
    """A line as stretches of neighbouring points, each wholly inside the measured range or not; gaps end a stretch."""
    found: list[tuple[bool, list[int]]] = []
    for place in range(len(series.x)):
        if series.y[place] is None:
            continue
        before = place - 1
        if before < 0 or series.y[before] is None:
            found.append((is_inside(series, place), [place]))
            continue
        inside = is_inside(series, before) and is_inside(series, place)
        flag, places = found[-1]
        if flag == inside or len(places) == 1:
            found[-1] = (inside, [*places, place])
        else:
            found.append((inside, [before, place]))
    return found


def outside_note(charts: Iterable[Chart]) -> str:
    """What dashes and hollow marks mean, if any chart has them."""
    drawn = (series for chart in charts for series in chart.series if series.kind != "bars")
    return _OUTSIDE if any(not all(series.inside) for series in drawn) else ""


def charts_of(sections: Iterable[Section]) -> list[Chart]:
    """Every chart of a report, in order."""
    return [block for section in sections for block in section.blocks if isinstance(block, Chart)]
