"""What publications measured of upcycling, and of MoEfication: `data/upcycling.yaml`."""

from __future__ import annotations

import functools

from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import bundled
from moeplan.studies.upcycling.result import Finding, Moefication


@functools.cache
def findings() -> tuple[Finding, ...]:
    """What publications measured of upcycling."""
    rows = bundled("upcycling.yaml").sections("findings")
    for row in rows:
        row.only(("text", "source", "grade", "enough", "too_much"), ("text", "source", "grade"))
    return tuple(
        Finding(row.text("text"), row.text("source"), row.text("grade"), row.get("enough"), row.get("too_much"))
        for row in rows
    )


def moefication_of(base: Architecture) -> Moefication:
    """Active params with the measured shares of feed-forward blocks; every shape here is gated (SwiGLU), no ReLU."""
    row = bundled("upcycling.yaml").section("moefication")
    row.only(("low", "high", "text", "source", "grade"), ("low", "high", "text", "source"))
    blocks = base.params_by_group()["dense_ffn"]
    rest = base.active_params() - blocks
    low, high = (rest + row.number(end) * blocks for end in ("low", "high"))
    return Moefication(low, high, row.text("text"), row.text("source"), holds=False)
