"""Findings of papers that compared MoE and dense models, from a data file: each with its source."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from moeplan.cost.devices import bundled


@dataclass(frozen=True)
class Finding:
    """One finding of a paper that compared MoE and dense models."""

    topic: str
    """data, knowledge, memory, quality, reasoning, speed or design."""
    text: str
    """The finding."""
    source: str
    """Where it stands."""


@functools.cache
def findings() -> tuple[Finding, ...]:
    """Every finding, in the order of the data file."""
    rows = bundled("findings.yaml").sections("findings")
    for row in rows:
        row.only(("topic", "text", "source"), ("topic", "text", "source"))
    return tuple(Finding(row.text("topic"), row.text("text"), row.text("source")) for row in rows)
