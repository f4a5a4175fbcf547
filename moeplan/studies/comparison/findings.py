"""What papers found when they compared MoE and dense models, from a data file: each with its source."""

from __future__ import annotations

import functools

from moeplan.cost.devices import bundled
from moeplan.studies.comparison.result import Finding


@functools.cache
def findings() -> tuple[Finding, ...]:
    """Every finding, in the order of the data file."""
    rows = bundled("findings.yaml").sections("findings")
    for row in rows:
        row.only(("topic", "text", "source"), ("topic", "text", "source"))
    return tuple(Finding(row.text("topic"), row.text("text"), row.text("source")) for row in rows)
