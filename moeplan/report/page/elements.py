"""The blocks of a report as elements of a page, on which every number is a button that leads to its source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any

from moeplan.report.blocks import Block, Chart, Items, Paragraph, Section, Series, Table
from moeplan.report.charts import chart_table, outside_note
from moeplan.report.charts.figures import figure
from moeplan.report.page.numbers import pieces
from moeplan.report.text import EXTRAPOLATED, Source, Text

_SHORT, _LONG = 16, 30
"""Characters of a cell up to which it is not broken into lines, and from which on it wants a wide column."""


@dataclass
class Numbers:
    """What is collected while a page is written."""

    data: Any
    """The report's JSON."""
    sources: dict[Source, int] = field(default_factory=dict)
    """Number of each source."""
    laws: dict[str, None] = field(default_factory=dict)
    """Laws that sources rest on, in order."""
    figures: list[Any] = field(default_factory=list)
    """Charts for plotly."""
    without: list[str] = field(default_factory=list)
    """Numbers that have no source."""

    def number(self, source: Source | None) -> int:
        """The number of a source in the list of sources; 0 for none."""
        if source is None or not source.says:
            return 0
        for name in law_names_of(source):
            self.laws.setdefault(name)
        return self.sources.setdefault(source, len(self.sources) + 1)


def section_html(section: Section, name: str, state: Numbers) -> str:
    """A section: its title and what stands below."""
    tag = f"h{section.level + 1}"
    parts = [f'<section id="{name}" class="level-{section.level}">']
    if section.title:
        parts.append(f"<{tag}>{escape(section.title)}</{tag}>")
    parts += [block_html(block, section.source, state) for block in section.blocks]
    return "\n".join((*parts, "</section>"))


def block_html(block: Block, default: Source | None, state: Numbers, lead: bool = False, small: bool = False) -> str:
    """Any block; `default` is the source of numbers that do not say, `lead` and `small` are styles of a paragraph."""
    if isinstance(block, Paragraph):
        style = ' class="lead"' if lead else ' class="small"' if small else ""
        return f"<p{style}>{text_html(block.text, block.source or default, state)}</p>"
    if isinstance(block, Items):
        items = (text_html(text, block.source or default, state) for text in block.texts)
        return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"
    if isinstance(block, Chart):
        return _chart(block, default, state)
    return _table(block, default, state)


def source_of(text: str, outer: Source | None) -> Source | None:
    """The source of digits in a text that are no `Number` (6 x active params): its own, its first number's, `outer`."""
    if not isinstance(text, Text):
        return outer
    return text.source or next((number.source for _, number in text.numbers if number.source), outer)


def text_html(text: str, outer: Source | None, state: Numbers) -> str:
    """Text with its numbers as buttons; `outer` is the source of those that do not say."""
    source, end = source_of(text, outer), 0
    parts: list[str] = []
    for start, number in text.numbers if isinstance(text, Text) else ():
        parts += _prose(text, end, start, source, state)
        end = start + len(number.text)
        end += text.startswith(EXTRAPOLATED, end)
        parts.append(_button(text[start:end], number.source or source, number.path, text, state))
    return "".join((*parts, *_prose(text, end, len(text), source, state)))


def _prose(text: str, start: int, end: int, source: Source | None, state: Numbers) -> Iterator[str]:
    for is_number, piece in pieces(text[start:end]):
        yield _button(piece, source, "", text, state) if is_number else escape(piece, quote=False)


def _button(shown: str, source: Source | None, path: str, text: str, state: Numbers) -> str:
    known = state.number(source)
    if not known:
        state.without.append(f"{shown} in {str(text)!r}")
        return escape(shown, quote=False)
    where = ""
    if path:
        value = json.dumps(pointed_at(state.data, path), ensure_ascii=False)
        where = f' data-path="{escape(path)}" data-value="{escape(value)}"'
    # No <button>: lines break on both sides of one, which leaves brackets and commas alone.
    return f'<span class="n" role="button" tabindex="0" data-source="{known}"{where}>{escape(shown)}</span>'


def pointed_at(data: Any, path: str) -> Any:
    """What a JSON pointer (RFC 6901) points at; raises `LookupError` for nothing."""
    for part in path.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        data = data[int(key)] if isinstance(data, list) else data[key]
    return data


def card_html(card: Table, state: Numbers) -> str:
    """Rows of (name, value, what else is to say) as the fields of a card."""
    parts = [f'<dl class="card{" in-one-row" if len(card.rows) < 6 else ""}">']
    for place, (name, value, *more) in enumerate(card.rows):
        source = source_of(value, card.source)
        strong = ' class="strong"' if place in card.strong else ""
        note = "".join(f'<dd class="note">{text_html(x, source, state)}</dd>' for x in more)
        parts.append(f"<div{strong}><dt>{escape(name)}</dt><dd>{text_html(value, source, state)}</dd>{note}</div>")
    return "\n".join((*parts, "</dl>"))


def _table(table: Table, default: Source | None, state: Numbers) -> str:
    outer = table.source or default
    style = "" if table.columns else ' class="list"'
    parts = [f'<div class="scroll"><table{style}>']
    if table.columns:
        names = "".join(
            f'<th scope="col"{_style(place, "", table)}>{escape(name, quote=False)}</th>'
            for place, name in enumerate(table.columns)
        )
        parts.append(f"<thead><tr>{names}</tr></thead>")
    parts.append("<tbody>")
    for number, row in enumerate(table.rows):
        strong = ' class="strong"' if number in table.strong else ""
        cells = []
        for place, cell in enumerate(row):
            column = table.sources[place] if place < len(table.sources) else None
            text = text_html(cell, column or outer, state)
            tag = 'th scope="row"' if place == 0 and 0 not in table.right else "td"
            cells.append(f"<{tag}{_style(place, cell, table)}>{text}</{tag[:2]}>")
        parts.append(f"<tr{strong}>{''.join(cells)}</tr>")
    return "\n".join((*parts, "</tbody></table></div>"))


def _style(place: int, cell: str, table: Table) -> str:
    """Numbers stand on the right, what is short on one line, sentences in a wide column."""
    if place in table.right:
        return ' class="right"'
    if not cell or not table.columns or _SHORT < len(cell) < _LONG:
        return ""
    return ' class="short"' if len(cell) <= _SHORT else ' class="long"'


def _chart(chart: Chart, default: Source | None, state: Numbers) -> str:
    """A place for the picture, and its numbers as a table for those who do not see it, or want to ask them."""
    place = len(state.figures)
    state.figures.append(figure(chart, [_point_sources(series, default, state) for series in chart.series]))
    words = " ".join(part for part in (chart.note, outside_note([chart])) if part)
    note = f'<p class="note">{text_html(words, default, state)}</p>' if words else ""
    table = _table(chart_table(chart, whole=True), default, state)
    title = escape(chart.title, quote=False)
    return (
        f'<figure><figcaption>{title} <span class="axis">{escape(chart.y_title)}</span></figcaption>'
        f'<div class="chart" id="chart-{place}" role="img" '
        f'aria-label="{escape(chart.title)}; its numbers are in the table below"></div>{note}'
        f"<details><summary>The numbers of this chart</summary>{table}</details></figure>"
    )


def _point_sources(series: Series, default: Source | None, state: Numbers) -> list[int]:
    firsts = [numbers[0] for numbers in series.numbers] or [None] * len(series.x)
    return [state.number((first and first.source) or series.source or default) for first in firsts]


def law_names_of(source: Source) -> list[str]:
    """The laws that a source names."""
    return [name.strip() for name in source.law.split(",") if name.strip()]
