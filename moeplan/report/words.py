"""The glossary of `moeplan help words`, from `moeplan/data/words.yaml`."""

from __future__ import annotations

from moeplan.cost.devices import bundled
from moeplan.report.blocks import Section, Table


def words() -> dict[str, str]:
    """Every word with its meaning."""
    section = bundled("words.yaml").section("words")
    return {word: section.text(word) for word in section}


def word_sections() -> list[Section]:
    """The glossary as a report."""
    return [Section("Words", (Table(tuple(words().items())),))]
