"""The parts of a report, without any layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from moeplan.errors import UsageError
from moeplan.report.text import EXTRAPOLATED, Number, Source
from moeplan.report.view import View


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str
    """One paragraph."""
    source: Source | None = None
    """Where its numbers come from."""
    command: bool = False
    """Whether it is a line to type, which may be broken only as the shell reads it."""


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
    """Where its numbers come from, for texts and columns that do not say."""
    sources: tuple[Source | None, ...] = ()
    """The same by column."""


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
    """Where its numbers come from that do not say."""
    numbers: tuple[tuple[Number | None, ...], ...] = ()
    """Of each point its value and the ends of its interval, as numbers of the result; empty for what is worked out."""


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
    x_quantity: str = "number"
    """How x is written: the name of a `moeplan.quantities.Kind`."""
    y_quantity: str = "number"
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
    stacked: bool = False
    """Whether the bars beside one label stand end to end, as parts of a sum."""


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

    @property
    def name(self) -> str:
        """What `--section` calls it: the title's telling words, as in efficiency-leverage."""
        return "-".join(word for word in self.words if word not in _UNTELLING) or "-".join(self.words)

    @property
    def words(self) -> list[str]:
        """The title's words up to a colon, in lower case."""
        return re.findall(r"[a-z0-9_]+", self.title.partition(":")[0].lower())


_UNTELLING = frozenset(
    re.findall("[a-z]+", "a an and are by each for in is it of on own say says that the these this to what")
)


def sections_named(sections: Sequence[Section], names: Iterable[str]) -> list[Section]:
    """The sections of these names, or else whose titles have every word of one, with those inside them, in order.

    Raises `UsageError` with all names for one that none has.
    """
    owners = [next(s for s in sections[place::-1] if s.level == 1) for place in range(len(sections))]
    chosen: set[int] = set()
    for name in names:
        words = set(re.findall(r"[a-z0-9_]+", name.lower()))
        named = [at for at, owner in enumerate(owners) if name and owner.name == name.lower()]
        found = named or [at for at, owner in enumerate(owners) if words and words <= set(owner.words)]
        if not found:
            known = ", ".join(dict.fromkeys(owner.name for owner in owners if owner.title))
            raise UsageError(f"section {name!r} is none of {known}")
        chosen.update(found)
    return [sections[at] for at in sorted(chosen)]


Column = tuple[str, str | Callable[[Any], str]]
"""A column's name, after ">" where it is aligned on the right, and its cells: a template of views, or a function."""


def table(
    items: Iterable[Any], columns: Iterable[Column], *, strong: Sequence[int] = (), source: Source | None = None
) -> Table:
    """A table with a row for each item: a `View`, where a column is a template."""
    listed = tuple(columns)
    return Table(
        tuple(tuple(item(cell) if isinstance(cell, str) else cell(item) for _, cell in listed) for item in items),
        tuple(name.removeprefix(">") for name, _ in listed),
        right=tuple(place for place, (name, _) in enumerate(listed) if name.startswith(">")),
        strong=tuple(strong),
        source=source,
    )


def series(
    name: str, points: Iterable[View[Any]], y: str, low: str = "", high: str = "", *, x: str = "", **style: Any
) -> Series:
    """Points of a chart by the names of their values in each view; without `x` they stand at 0, 1, 2, ..."""
    listed = tuple(points)
    numbers = tuple(tuple(point.number_at(end) if end else None for end in (y, low, high)) for point in listed)

    def values(which: int) -> tuple[Any, ...]:
        found = tuple(one[which].value if one[which] else None for one in numbers)  # type: ignore[union-attr]
        return found if any(value is not None for value in found) or not which else ()

    places = tuple(point.number_at(x).value for point in listed) if x else tuple(range(len(listed)))
    return Series(name, places, values(0), low=values(1), high=values(2), numbers=numbers, **style)


def legend(flagged: object) -> tuple[Block, ...]:
    """What the flag of an extrapolation means, if any is shown."""
    text = f"Marked {EXTRAPOLATED}: extrapolated, outside the range that the law was measured on."
    return (Paragraph(text),) if flagged else ()
