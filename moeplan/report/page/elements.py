"""The blocks of a report as elements of a page, on which every number is a button that leads to its source."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from moeplan.report.blocks import Block, Chart, Items, Paragraph, Section, Series, Table
from moeplan.report.charts import chart_table, outside_note
from moeplan.report.charts.svg import NARROW, WIDE, picture
from moeplan.report.page.numbers import pieces
from moeplan.report.text import EXTRAPOLATED, Source, Text
from moeplan.texts import sentence

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
    cited: list[int] = field(default_factory=list)
    """Numbers of sources in the order in which what is shown rests on them."""
    charts: int = 0
    """How many charts there are."""
    without: list[str] = field(default_factory=list)
    """Numbers that have no source."""

    def number(self, source: Source | None) -> int:
        """The number of a source in the list of sources; 0 for none."""
        if source is None or not source.says:
            return 0
        for name in law_names_of(source):
            self.laws.setdefault(name)
        found = self.sources.setdefault(source, len(self.sources) + 1)
        self.cited.append(found)
        return found

    def cites(self, since: int) -> str:
        """The sources of what was written since so many were cited, as a note on paper; "" for none."""
        numbers = sorted(set(self.cited[since:]))
        return f'<span class="cites"> [{", ".join(map(str, numbers))}]</span>' if numbers else ""


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
        return f"<p{style}>{cited_html(block.text, block.source or default, state)}</p>"
    if isinstance(block, Items):
        items = (cited_html(text, block.source or default, state) for text in block.texts)
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


def cited_html(text: str, outer: Source | None, state: Numbers) -> str:
    """`text_html` with its sources behind it, which paper shows."""
    since = len(state.cited)
    return text_html(text, outer, state) + state.cites(since)


def summary_html(title: str, sections: Sequence[Section], state: Numbers) -> str:
    """What a print begins with: sections on paper alone, their sources cited and told at the end."""
    start = len(state.cited)
    parts = ['<section class="summary">', f"<h1>{escape(title, quote=False)}</h1>"]
    for section in sections:
        if section.title:
            parts.append(f"<h2>{escape(section.title, quote=False)}</h2>")
        parts += [_on_paper(block, section.source, state) for block in section.blocks]
    used = set(state.cited[start:])
    notes: dict[str, list[int]] = {}
    for source, number in state.sources.items():
        if number in used:
            law = f" ({source.law})" if source.law and source.law not in source.says else ""
            notes.setdefault(f"{sentence(source.says)}{law}", []).append(number)
    told = "".join(
        f"<p>[{', '.join(map(str, numbers))}] {escape(says, quote=False)}</p>" for says, numbers in notes.items()
    )
    return "\n".join((*parts, f'<div class="notes"><h2>Notes</h2>{told}</div>', "</section>"))


def _on_paper(block: Block, default: Source | None, state: Numbers) -> str:
    """A block without numbers to be pressed; each row or paragraph names its sources at its end."""
    if isinstance(block, Chart):
        _point_sources(block.series[0], default, state)
        words = escape(" ".join(part for part in (block.note, outside_note([block])) if part), quote=False)
        return f'<figure>{_caption(block)}{picture(block, WIDE)}<p class="note">{words}</p></figure>'
    outer = block.source or default

    def cites(texts: Sequence[str]) -> str:
        since = len(state.cited)
        for text in texts:
            text_html(text, outer, state)
        return state.cites(since)

    if isinstance(block, Table):
        head = "".join(
            f"<th{_style(at, '', block)}>{escape(x, quote=False)}</th>" for at, x in enumerate(block.columns)
        )
        rows = []
        for row in block.rows:
            cells = [f"<td{_style(at, x, block)}>{escape(x, quote=False)}" for at, x in enumerate(row)]
            rows.append(f"<tr>{'</td>'.join(cells)}{cites(row)}</td></tr>")
        top = f"<thead><tr>{head}</tr></thead>" if head else ""
        return f"<table>{top}<tbody>{''.join(rows)}</tbody></table>"
    texts = (block.text,) if isinstance(block, Paragraph) else block.texts
    return "".join(f"<p>{escape(text, quote=False)}{cites([text])}</p>" for text in texts)


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
    since = len(state.cited)
    parts = [f'<dl class="card{" in-one-row" if len(card.rows) < 6 else ""}">']
    for place, (name, value, *more) in enumerate(card.rows):
        source = source_of(value, card.source)
        strong = ' class="strong"' if place in card.strong else ""
        note = "".join(f'<dd class="note">{text_html(x, source, state)}</dd>' for x in more)
        parts.append(f"<div{strong}><dt>{escape(name)}</dt><dd>{text_html(value, source, state)}</dd>{note}</div>")
    return "\n".join((*parts, f"</dl>{_below(state, since)}"))


def _below(state: Numbers, since: int) -> str:
    """The sources of a table or a card, below it on paper."""
    cites = state.cites(since)
    return f'<p class="cites">Sources:{cites}</p>' if cites else ""


def _table(table: Table, default: Source | None, state: Numbers) -> str:
    outer, since = table.source or default, len(state.cited)
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
    return "\n".join((*parts, f"</tbody></table></div>{_below(state, since)}"))


def _style(place: int, cell: str, table: Table) -> str:
    """Numbers stand on the right, what is short on one line, sentences in a wide column."""
    if place in table.right:
        return ' class="right"'
    if not cell or not table.columns or _SHORT < len(cell) < _LONG:
        return ""
    return ' class="short"' if len(cell) <= _SHORT else ' class="long"'


def _chart(chart: Chart, default: Source | None, state: Numbers) -> str:
    """The picture, for a desk and for a phone, and its numbers as a table for those who do not see it."""
    place, state.charts = state.charts, state.charts + 1
    sources = [_point_sources(series, default, state) for series in chart.series]
    drawn = "".join(picture(chart, width, sources, kind) for width, kind in ((WIDE, "wide"), (NARROW, "narrow")))
    words = " ".join(part for part in (chart.note, outside_note([chart])) if part)
    note = f'<p class="note">{cited_html(words, default, state)}</p>' if words else ""
    table = _table(chart_table(chart, whole=True), default, state)
    return (
        f'<figure>{_caption(chart)}<div class="chart" id="chart-{place}">{drawn}</div>{note}'
        f"<details><summary>The numbers of this chart</summary>{table}</details></figure>"
    )


def _caption(chart: Chart) -> str:
    title, axis = escape(chart.title, quote=False), escape(chart.y_title, quote=False)
    return f'<figcaption>{title} <span class="axis">{axis}</span></figcaption>'


def _point_sources(series: Series, default: Source | None, state: Numbers) -> list[int]:
    firsts = [numbers[0] for numbers in series.numbers] or [None] * len(series.x)
    return [state.number((first and first.source) or series.source or default) for first in firsts]


def law_names_of(source: Source) -> list[str]:
    """The laws that a source names."""
    return [name.strip() for name in source.law.split(",") if name.strip()]
