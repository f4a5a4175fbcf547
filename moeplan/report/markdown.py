"""Sections as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable

from moeplan.report.blocks import Block, Chart, Items, Paragraph, Section, Table
from moeplan.report.charts import chart_table
from moeplan.report.text import visible


def markdown_text(sections: Iterable[Section]) -> str:
    """Sections as Markdown: headings, pipe tables, bullets."""
    parts = []
    for section in map(visible, sections):
        if section.title:
            parts.append(f"{'#' * (section.level + 1)} {_escape(section.title)}")
        for number, block in enumerate(section.blocks):
            lead = number == 0 and not section.title and isinstance(block, Paragraph)
            parts.append(f"**{_render(block)}**" if lead else _render(block))
    return "\n\n".join(part for part in parts if part) + "\n"


def _render(block: Block) -> str:
    if isinstance(block, Paragraph) and block.command:
        return f"```sh\n{block.text}\n```"
    if isinstance(block, Paragraph):
        return _escape(block.text)
    if isinstance(block, Items):
        return "\n".join(f"- {_escape(text)}" for text in block.texts)
    if isinstance(block, Chart):
        parts = (
            f"**{_escape(block.title)}** ({_escape(block.y_title)})",
            _table(chart_table(block)),
            _escape(block.note),
        )
        return "\n\n".join(part for part in parts if part)
    return _table(block)


def _table(block: Table) -> str:
    width = len(block.columns) or len(block.rows[0] if block.rows else ())
    header = _row([_escape(name) for name in block.columns] or [""] * width)
    rule = _row(["---:" if place in block.right else "---" for place in range(width)])
    rows = []
    for place, row in enumerate(block.rows):
        cells = [_escape(cell) for cell in row]
        rows.append(_row([f"**{cell}**" if cell else "" for cell in cells] if place in block.strong else cells))
    return "\n".join((header, rule, *rows))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    # An underscore inside a word is only an underscore.
    return re.sub(r"[\\`*<|\[]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text.replace("\n", " "))
