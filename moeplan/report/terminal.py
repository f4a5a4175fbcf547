"""Sections for a terminal, laid out by rich."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from moeplan.report.blocks import Block, Chart, Items, Paragraph, Section, Table
from moeplan.report.charts.text import chart_lines
from moeplan.report.text import visible

NARROWEST, WIDEST = 60, 120
"""Columns that a report is laid out for, whatever the terminal has."""
_GAP = 2
"""Spaces between the columns of a table."""
_ON = " \\"
"""Ends a line that the shell goes on with."""
_FLAG = r"(?<=\w)\*(?!\w)"
_WHOLE = re.compile(r"\d %|\bx \d|\d [A-Z]+\d|--[a-z][a-z-]* [\w.]")
"""What no line ends within: a share, a factor, a number of devices, an option with its value."""
_GLUE = "\ue000"
"""Stands for a space that no line ends at, which rich has no character for."""


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
    for place, section in enumerate(map(visible, sections)):
        if place:
            console.print()
        if section.title:
            console.print(Text(_glued(section.title), style="bold cyan" if section.level == 1 else "bold"))
        first = not section.title
        for block in section.blocks:
            indent = 2 if section.title else 0
            console.print(Padding(_render(block, first, console.width - indent), (0, 0, 0, indent)))
            first = False
    return "\n".join(line.rstrip() for line in file.getvalue().replace(_GLUE, " ").splitlines()) + "\n"


def _render(block: Block, lead: bool, width: int) -> RenderableType:
    if isinstance(block, Paragraph) and block.command:
        return Group(*map(Text, command_lines(block.text, width)))
    if isinstance(block, Paragraph):
        return _text(block.text, "bold" if lead else "")
    if isinstance(block, Items):
        grid = RichTable.grid(padding=(0, 1, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column()
        for text in block.texts:
            grid.add_row("•", _text(text))
        return grid
    if isinstance(block, Chart):
        return Group(*chart_lines(block, width), *([_text(block.note)] if block.note else []))
    return Group(*(_table(block, places) for places in _parts(block, width)))


def command_lines(command: str, width: int) -> list[str]:
    """A command line in lines of at most `width` columns, broken between words so that a shell reads it as one."""
    lines, line = [], ""
    for word in re.findall(r"(?:'(?:[^'])*'|\\.|[^\s'])+", command):
        if line and len(line) + len(word) + len(_ON) + 1 > width:
            lines.append(line + _ON)
            line = f"    {word}"
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def _parts(block: Table, width: int) -> list[list[int]]:
    """Places of the columns, in as few tables as hold every word and number whole; each begins with the first."""
    count = len(block.rows[0]) if block.rows else len(block.columns)
    needs = []
    for place in range(count):
        texts = [*([block.columns[place]] if block.columns else []), *(row[place] for row in block.rows)]
        # Numbers stand on one line; words may be broken between them.
        words = ([text] if place in block.right else _glued(text).split(" ") for text in texts)
        needs.append(max(len(one) for text in words for one in text))
    found = _packed(needs, width)
    for narrower in range(width - 1, 0, -1):  # as many tables, but of like widths
        if len(parts := _packed(needs, narrower)) > len(found):
            break
        found = parts
    return found if len(found) > 1 else [list(range(count))]


def _packed(needs: Sequence[int], width: int) -> list[list[int]]:
    parts: list[list[int]] = [[0]]
    for place in range(1, len(needs)):
        taken = sum(needs[at] + _GAP for at in parts[-1])
        if taken + needs[place] > width and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(place)
    return parts


def _table(block: Table, places: Sequence[int]) -> RichTable:
    table = RichTable(
        box=None, show_header=bool(block.columns), pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim"
    )
    for place in places:
        number = place in block.right
        header = block.columns[place] if block.columns else ""
        table.add_column(header, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for place, row in enumerate(block.rows):
        table.add_row(*(_text(row[at]) for at in places), style="bold" if place in block.strong else "")
    return table


def _text(text: str, style: str = "") -> Text:
    result = Text(_glued(text), style=style)
    result.highlight_regex(_FLAG, "yellow")
    return result


def _glued(text: str) -> str:
    """The text with `_GLUE` for the spaces of what stays whole."""
    return _WHOLE.sub(lambda found: found[0].replace(" ", _GLUE), text)
