"""Differences between two plans, as a section of a report."""

from __future__ import annotations

from moeplan.plan.differences import Change
from moeplan.plan.search.variables import DESIGN_VARIABLES
from moeplan.quantities import number, percent, quantity
from moeplan.report.blocks import Paragraph, Section, Table
from moeplan.report.text import NONE
from moeplan.units import format_bytes, format_count, format_flops


def change_section(changes: tuple[Change, ...], source: str) -> Section:
    """What differs between a plan and the one it was made from."""
    title = f"Changed since {source}"
    if not changes:
        return Section(title, (Paragraph("Nothing: the plan is the same."),))
    rows = tuple(
        (change.name, plain_text(change.name, change.before), plain_text(change.name, change.after))
        for change in changes
    )
    return Section(title, (Table(rows, ("what", "before", "now")),))


def plain_text(name: str, value: object) -> str:
    """A value of any kind as text."""
    last = name.rpartition(".")[2]
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain_text(name, item) for item in value)
    if isinstance(value, (int, float)):
        if name == "value_ratio":
            return percent(value)
        if last in ("flops", "value"):
            return f"{format_flops(value, 4)} FLOPs"
        if last == "total_bytes":
            return format_bytes(value, 4)
        if last in DESIGN_VARIABLES or last in ("max_tokens", "tokens_available", "inference_tokens"):
            kind = "tokens" if last not in DESIGN_VARIABLES else last
            return (
                format_count(value, 4) if kind in ("tokens", "total_params", "active_params") else quantity(kind, value)
            )
        return f"{value:,}" if isinstance(value, int) else number(value, 4)
    return str(value)
