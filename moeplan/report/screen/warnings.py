"""The warnings of a first screen: at most three of those that apply, the most harmful first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from moeplan.cost.devices import bundled
from moeplan.report.blocks import Section, Table
from moeplan.report.text import Number
from moeplan.report.view import View

MOST = 3
"""Warnings that are shown."""
SIGN = "!"
"""Stands before each."""


def warning_sections(
    kind: str, seen: View[Any], applies: Mapping[str, Callable[[], object]], **more: str | Number
) -> list[Section]:
    """The warnings of a result as a section, if any applies.

    `kind` is their list in `data/warnings.yaml`, whose order is their rank; `applies` says of each whether it is true
    here; `more` are parts of their texts beside the result's own numbers.
    """
    ranked = bundled("warnings.yaml").section(kind)
    assert set(ranked) == set(applies), kind
    texts = [seen(ranked.text(name), **more) for name in [name for name in ranked if applies[name]()][:MOST]]
    return [Section("", (Table(tuple((SIGN, text) for text in texts)),))] if texts else []


def open_laws(notes: Iterable[str]) -> str:
    """The fitted laws of which a result notes that their runs leave coefficients open, separated by commas."""
    return ", ".join(dict.fromkeys(note.partition(": ")[0] for note in notes if "not identified" in note))
