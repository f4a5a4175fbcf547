"""Sections as an HTML fragment for notebooks: no scripts, no style sheet, readable on light and dark."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from moeplan.plan.document import Plan
from moeplan.report.blocks import Block, Chart, Items, Paragraph, Section, Table
from moeplan.report.charts import chart_table
from moeplan.report.sections import plan_sections

# Colours come from the page; grey lines are visible on white and on black.
_LINE = "1px solid rgba(128,128,128,.5)"
_CELL = "padding:1px 12px 1px 0;border:0;background:none;vertical-align:top"


def plan_fragment(plan: Plan) -> str:
    """A plan as an HTML fragment; Jupyter shows it for a `Plan`."""
    return html_fragment(plan_sections(plan))


def html_fragment(sections: Iterable[Section]) -> str:
    """Sections as one `<div>`; everything in it is escaped."""
    parts = ['<div style="max-width:60em;line-height:1.4">']
    for section in sections:
        if section.title:
            tag = f"h{section.level + 3}"
            parts.append(f'<{tag} style="margin:1em 0 .3em;border-bottom:{_LINE}">{escape(section.title)}</{tag}>')
        for number, block in enumerate(section.blocks):
            parts.append(_render(block, lead=not section.title and number == 0))
    parts.append("</div>")
    return "\n".join(parts) + "\n"


def _render(block: Block, lead: bool) -> str:
    if isinstance(block, Paragraph):
        text = f"<strong>{escape(block.text)}</strong>" if lead else escape(block.text)
        return f'<p style="margin:.3em 0">{text}</p>'
    if isinstance(block, Items):
        items = "".join(f"<li>{escape(text)}</li>" for text in block.texts)
        return f'<ul style="margin:.3em 0">{items}</ul>'
    if isinstance(block, Chart):
        title = f'<p style="margin:.6em 0 .3em"><strong>{escape(block.title)}</strong> ({escape(block.y_title)})</p>'
        note = f'<p style="margin:.3em 0">{escape(block.note)}</p>' if block.note else ""
        return "\n".join(part for part in (title, _table(chart_table(block)), note) if part)
    return _table(block)


def _table(block: Table) -> str:
    lines = ['<table style="border-collapse:collapse;margin:.3em 0;font-variant-numeric:tabular-nums">']
    if block.columns:
        names = "".join(
            _cell("th", name, place, block, f"border-bottom:{_LINE};") for place, name in enumerate(block.columns)
        )
        lines.append(f"<thead><tr>{names}</tr></thead>")
    lines.append("<tbody>")
    for number, row in enumerate(block.rows):
        weight = "font-weight:bold;" if number in block.strong else ""
        cells = "".join(_cell("td", text, place, block, weight) for place, text in enumerate(row))
        lines.append(f'<tr style="background:none">{cells}</tr>')
    lines.append("</tbody></table>")
    return "\n".join(lines)


def _cell(tag: str, text: str, place: int, block: Table, style: str) -> str:
    align = "right" if place in block.right else "left"
    return f'<{tag} style="{_CELL};{style}text-align:{align}">{escape(text)}</{tag}>'
