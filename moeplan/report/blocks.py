"""The parts of a report, without any layout, and how numbers are written in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from moeplan.units import format_count, format_flops

EXTRAPOLATED = "*"
"""Follows a name or a number that lies outside the range a law was measured on."""
NONE = "-"
"""Stands where there is nothing to say."""


@dataclass(frozen=True)
class Source:
    """Where a number comes from; the HTML page shows it when the number is asked."""

    says: str
    """How the number came about, in a sentence or two; "" takes it, and all but `path`, from what the number is in."""
    law: str = ""
    """The law, or laws, that it rests on, by full name; "" for exact counts."""
    convention: str = ""
    """What is counted, and in which unit."""
    domain: str = ""
    """Inside or outside the law's measured range, with that range."""
    path: str = ""
    """JSON pointer of the number in the command's JSON, as in /leverage/efficiency_leverage; where the text holds
    several numbers, one pointer for each in their order, separated by blanks ("-" for a number that JSON lacks)."""


class Cell(str):
    """A table's cell that knows where its number comes from; a plain string to everything but the HTML page."""

    source: Source

    def __new__(cls, text: str, source: Source) -> Cell:
        """A string that remembers `source`."""
        cell = super().__new__(cls, text)
        cell.source = source
        return cell


def at(text: str, *paths: str) -> Cell:
    """A cell whose numbers stand in the JSON at `paths`; all else is said by the table's source."""
    return Cell(text, Source("", path=" ".join(paths)))


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str
    """One paragraph."""
    source: Source | None = None
    """Where its numbers come from."""


@dataclass(frozen=True)
class Items:
    """Sentences that stand one below the other."""

    texts: tuple[str, ...]
    """One for each bullet."""
    source: Source | None = None
    """Where their numbers come from."""


@dataclass(frozen=True)
class Table:
    """Rows of equal length; a table without column names is a list of names with what belongs to them."""

    rows: tuple[tuple[str, ...], ...]
    """Cells as text."""
    columns: tuple[str, ...] = ()
    """Names of the columns, if they need any."""
    right: tuple[int, ...] = ()
    """Columns aligned on the right: numbers."""
    strong: tuple[int, ...] = ()
    """Rows that stand out: totals, the plan among its alternatives."""
    source: Source | None = None
    """Where its numbers come from, for cells that are no `Cell` and columns without a source."""
    sources: tuple[Source | None, ...] = ()
    """The same by column."""


Quantity = Literal["flops", "bytes", "count", "share", "times", "loss", "number"]
"""What an axis of a chart counts, which says how its ticks are written."""


@dataclass(frozen=True)
class Series:
    """Points of a chart that belong together: a law's line, measured points."""

    name: str
    """What it is, for the legend."""
    x: tuple[float, ...]
    """Where."""
    y: tuple[float | None, ...]
    """How much; None leaves a gap."""
    kind: Literal["line", "points", "bars"] = "line"
    """Whether the points are joined, stand alone, or are the ends of bars."""
    inside: tuple[bool, ...] = ()
    """Whether each point lies in the law's measured range: solid, else dashed; empty where there is no such range."""
    low: tuple[float | None, ...] = ()
    """Lower ends of intervals, if any."""
    high: tuple[float | None, ...] = ()
    """Upper ends of intervals, if any."""
    texts: tuple[str, ...] = ()
    """What to say of each point when it is asked."""
    strong: bool = False
    """Whether it stands out: the recommendation among the laws."""
    look: int | None = None
    """Its place among colours and shapes, where it must look as on another chart; else its place on this one."""
    source: Source | None = None
    """Where its numbers come from."""
    sources: tuple[Source, ...] = ()
    """The same by point, where that differs."""


@dataclass(frozen=True)
class Shade:
    """A stretch of a chart's x axis that stands out: a measured range."""

    name: str
    """What it is."""
    low: float
    """Where it begins."""
    high: float
    """Where it ends."""


@dataclass(frozen=True)
class Level:
    """A value of a chart's y axis that the others are held against: a limit, the dense model."""

    name: str
    """What it is."""
    y: float
    """The value."""


@dataclass(frozen=True)
class Chart:
    """A picture of numbers; drawn by `moeplan.report` for a terminal, a file or a page."""

    title: str
    """What it shows."""
    x_title: str
    """The x axis, with its unit."""
    y_title: str
    """The y axis, with its unit."""
    series: tuple[Series, ...]
    """What is drawn, in the order of the legend."""
    x_quantity: Quantity = "number"
    """How x is written."""
    y_quantity: Quantity = "number"
    """How y is written."""
    x_log: bool = False
    """Whether x is drawn on a logarithmic scale."""
    y_log: bool = False
    """Whether y is drawn on a logarithmic scale."""
    shades: tuple[Shade, ...] = ()
    """Measured ranges."""
    levels: tuple[Level, ...] = ()
    """Values to compare with."""
    labels: tuple[str, ...] = ()
    """Names of x = 0, 1, 2, ... where x counts nothing (laws, groups); such a chart lies on its side."""
    note: str = ""
    """What a reader must know, below the picture."""


Block = Paragraph | Items | Table | Chart


@dataclass(frozen=True)
class Section:
    """A title and what stands below it."""

    title: str
    """The title; the first section of a report may have none."""
    blocks: tuple[Block, ...]
    """What stands below."""
    level: Literal[1, 2] = 1
    """2 for a section inside the one before it."""
    source: Source | None = None
    """Where the numbers come from of blocks that do not say."""


_COUNTS = ("total_params", "active_params", "nonzero_params", "base_params", "tokens", "base_tokens", "unique_tokens")
_SHARES = ("active_param_ratio", "activation_ratio", "shared_ratio", "attention_share")
_FLOPS = ("train_flops", "flops_per_token")


def number(value: float, digits: int = 3) -> str:
    """A plain number with `digits` significant digits: 9.19, 0.000312, 1,290."""
    if value and math.isfinite(value) and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    text = f"{value:#.{digits}g}"
    return text.rstrip("0").rstrip(".")


def scientific(value: float, digits: int = 3) -> str:
    """A small or large number: 0.000502 -> "5.02e-4"."""
    return format_flops(value, digits) if value else "0"


def percent(share: float, digits: int = 3) -> str:
    """A share as a percentage: 0.0851 -> "8.51 %"."""
    return f"{number(100 * share, digits)} %"


def times(ratio: float) -> str:
    """A multiple: 6.1 -> "6.10x"."""
    return f"{ratio:,.0f}x" if ratio >= 100 else f"{ratio:#.3g}x"


def quantity(name: str, value: float) -> str:
    """A variable's value as text, by the variable's kind: params and tokens in B and T, ratios of params in percent."""
    if name in _COUNTS:
        return format_count(value)
    if name in _SHARES:
        return percent(value)
    if name in _FLOPS:
        return format_flops(value)
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e7 else number(value)


def interval(name: str, low: float, high: float) -> str:
    """A range of a variable as text; one value where both ends read alike."""
    ends = quantity(name, low), quantity(name, high)
    if ends[0] == ends[1]:
        return ends[0]
    if ends[0].endswith(" %") and ends[1].endswith(" %"):
        ends = ends[0][:-2], ends[1]
    return f"{ends[0]}–{ends[1]}"


def mark(text: str, extrapolated: object) -> str:
    """`text`, flagged if it is extrapolated."""
    return text + EXTRAPOLATED if extrapolated else text
