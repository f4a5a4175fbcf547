"""What a repeated plan changed, in a table of a few rows under a first screen; `--full` lists all."""

from __future__ import annotations

from collections.abc import Iterator

from moeplan.plan.differences import Change
from moeplan.report.blocks import Paragraph, Section, Table
from moeplan.report.differences import plain_text

LABELS = {
    "design.total_params": "total params",
    "design.active_params": "active params",
    "design.tokens": "tokens",
    "design.num_experts": "experts",
    "design.num_layers": "layers",
    "design.d_model": "d_model",
    "leverage.pooled.efficiency_leverage": "leverage",
    "value_ratio": "quality (V)",
    "memory.total_bytes": "served",
}
"""What is told of an answer that changed, in this order."""
ASKED = 5
"""Most conditions that are told."""


def changes_screen(changes: tuple[Change, ...], source: str) -> list[Section]:
    """What was asked otherwise, and what came of it."""
    title = f"Changed since {source}"
    if not changes:
        return [Section(title, (Paragraph("Nothing: the plan is the same."),))]
    rows = tuple(_rows(changes))
    more = len(changes) - len(rows)
    also = (Paragraph(f"And {more} more, which --full lists."),) if more else ()
    return [Section(title, (Table(rows, ("", "before", "now")), *also))]


def _rows(changes: tuple[Change, ...]) -> Iterator[tuple[str, str, str]]:
    asked = [change for change in changes if change.name.startswith("request.")]
    known = {change.name: change for change in changes}
    for change in asked[:ASKED]:
        yield change.name.removeprefix("request.").replace("_", " "), *_ends(change)
    for name, label in LABELS.items():
        if name in known:
            yield label, *_ends(known[name])


def _ends(change: Change) -> tuple[str, str]:
    return plain_text(change.name, change.before), plain_text(change.name, change.after)
