"""Sections for a terminal, laid out by rich."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from moeplan.report.blocks import Block, Items, Paragraph, Section, Table

NARROWEST, WIDEST = 60, 120
"""Columns that a report is laid out for, whatever the terminal has."""
_FLAG = r"(?<=\w)\*(?!\w)"


def terminal_text(sections: Iterable[Section], width: int = 80, color: bool = False) -> str:
    """Sections as text of at most `width` columns, with colour codes where asked for."""
    file = io.StringIO()
    console = Console(
        file=file,
        width=min(max(width, NARROWEST), WIDEST),
        force_terminal=color,
        color_system="standard" if color else None,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
    for place, section in enumerate(sections):
        if place:
            console.print()
        if section.title:
            console.print(Text(section.title, style="bold cyan" if section.level == 1 else "bold"))
        first = not section.title
        for block in section.blocks:
            console.print(Padding(_render(block, lead=first), (0, 0, 0, 0 if not section.title else 2)))
            first = False
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _render(block: Block, lead: bool) -> RenderableType:
    if isinstance(block, Paragraph):
        return _text(block.text, "bold" if lead else "")
    if isinstance(block, Items):
        grid = RichTable.grid(padding=(0, 1, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column()
        for text in block.texts:
            grid.add_row("•", _text(text))
        return grid
    return Group(_table(block))


def _table(block: Table) -> RichTable:
    table = RichTable(
        box=None, show_header=bool(block.columns), pad_edge=False, padding=(0, 2, 0, 0), header_style="dim"
    )
    for place in range(len(block.rows[0]) if block.rows else len(block.columns)):
        number = place in block.right
        header = block.columns[place] if block.columns else ""
        table.add_column(header, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for place, row in enumerate(block.rows):
        table.add_row(*(_text(cell) for cell in row), style="bold" if place in block.strong else "")
    return table


def _text(text: str, style: str = "") -> Text:
    result = Text(text, style=style)
    result.highlight_regex(_FLAG, "yellow")
    return result
