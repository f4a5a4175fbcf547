"""What weight files hold as sections of text and tables. Every number is the record's."""

from __future__ import annotations

from moeplan.report.blocks import Block, Column, Items, Paragraph, Section, table
from moeplan.report.text import Text
from moeplan.report.view import View
from moeplan.studies.stored_weights import StoredWeights


def weights_sections(found: StoredWeights) -> list[Section]:
    """The whole report of weight files that stand alone."""
    seen = View(found)
    return [Section("", (Paragraph(_what(seen, "{name}: ")),)), Section("Params", _parts(seen))]


def weights_blocks(seen: View[StoredWeights]) -> tuple[Block, ...]:
    """The same as a part of an inspection."""
    return (Paragraph(_what(seen)), *_parts(seen))


def _parts(seen: View[StoredWeights]) -> tuple[Block, ...]:
    found = seen.it
    parts: list[Block] = []
    compared = [group for group in found.groups if group.counted is not None]
    if found.groups:
        columns: list[Column] = [("group", "{group}"), (">params in files", "{stored:,}")]
        if compared:
            columns.append((">by config.json", "{counted:,}"))
        parts.append(table(seen.groups, columns))
    if found.differing:
        parts.append(Paragraph(f"config.json counts otherwise: {', '.join(group.group for group in found.differing)}."))
    elif compared:
        parts.append(Paragraph("config.json counts the same in every group of an architecture."))
    if found.remarks:
        parts.append(Items(found.remarks))
    return tuple(parts)


def _what(seen: View[StoredWeights], before: str = "") -> Text:
    found = seen.it
    params = "{total_params:,} params in " if found.total_params is not None else ""
    size = ", {stored_bytes:bytes4}" if found.stored_bytes is not None else ""
    by = "their headers" if found.source == "headers" else "the index"
    return seen(f"{before}{params}{{tensors:,}} tensors of {{files:,}} weight files{size}, by {by}.")
