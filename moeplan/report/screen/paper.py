"""A first screen on paper: what a printed page begins with, on at most two sheets, before the whole report."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from moeplan.report.blocks import Block, Chart, Paragraph, Section
from moeplan.report.screen.commands import NEXT
from moeplan.report.screen.leverage import LEVERAGE
from moeplan.report.text import Source


def paper_summary(
    report: Sequence[Section], screen: Sequence[Section], chart: Chart | None, source: Source | None
) -> list[Section]:
    """A summary's sections: the report's first paragraph, the screen's first rows, a chart, the screen's rest.

    What the screen draws in plain characters and the command to type next are left out; `source` is that of numbers
    which do not say.
    """
    lead = dataclasses.replace(report[0], blocks=report[0].blocks[:1])
    first, *others = screen
    said = {block.text for block in lead.blocks if isinstance(block, Paragraph)}
    rows = tuple(block for block in first.blocks if not isinstance(block, Paragraph) or block.text not in said)
    kept = [section for section in others if not section.title.startswith((LEVERAGE, NEXT))]
    sections = [dataclasses.replace(first, title="", blocks=rows), Section("", _drawn(chart)), *kept]
    return [
        lead,
        *(dataclasses.replace(each, source=each.source or source) for each in sections if each.blocks),
    ]


def paper_parts(report: Sequence[Section], chart: Chart | None, parts: Sequence[str]) -> list[Section]:
    """A summary of what has no first screen: the report's beginning, a chart, and its sections of these titles.

    Of a section its first table and what explains it are taken.
    """
    lead, *others = report
    kept = [
        dataclasses.replace(section, blocks=section.blocks[:_EXPLAINED]) for section in others if section.title in parts
    ]
    return [each for each in (lead, Section("", _drawn(chart), source=lead.source), *kept) if each.blocks]


_EXPLAINED = 2
"""Blocks of a section: a table and its explanation."""


def _drawn(chart: Chart | None) -> tuple[Block, ...]:
    return (chart,) if chart is not None and chart.series else ()
