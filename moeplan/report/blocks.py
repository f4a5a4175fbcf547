"""The parts of a report, without any layout, and how numbers are written in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from moeplan.units import format_count, format_flops

EXTRAPOLATED = "*"
"""Follows a name or a number that lies outside the range a law was measured on."""
NONE = "-"
"""Stands where there is nothing to say."""


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str
    """One paragraph."""


@dataclass(frozen=True)
class Items:
    """Sentences that stand one below the other."""

    texts: tuple[str, ...]
    """One for each bullet."""


@dataclass(frozen=True)
class Table:
    """Rows of equal length; a table without column names is a list of names with what belongs to them."""

    rows: tuple[tuple[str, ...], ...]
    """Cells as text."""
    columns: tuple[str, ...] = ()
    """Names of the columns, if they need any."""
    right: tuple[int, ...] = ()
    """Columns aligned on the right: numbers."""
    strong: tuple[int, ...] = ()
    """Rows that stand out: totals, the plan among its alternatives."""


Block = Paragraph | Items | Table


@dataclass(frozen=True)
class Section:
    """A title and what stands below it."""

    title: str
    """The title; the first section of a report may have none."""
    blocks: tuple[Block, ...]
    """What stands below."""
    level: Literal[1, 2] = 1
    """2 for a section inside the one before it."""


_COUNTS = ("total_params", "active_params", "nonzero_params", "base_params", "tokens", "base_tokens", "unique_tokens")
_SHARES = ("active_param_ratio", "activation_ratio", "shared_ratio", "attention_share")
_FLOPS = ("train_flops", "flops_per_token")


def number(value: float, digits: int = 3) -> str:
    """A plain number with `digits` significant digits: 9.19, 0.000312, 1,290."""
    if value and math.isfinite(value) and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    text = f"{value:#.{digits}g}"
    return text.rstrip("0").rstrip(".")


def scientific(value: float, digits: int = 3) -> str:
    """A small or large number: 0.000502 -> "5.02e-4"."""
    return format_flops(value, digits) if value else "0"


def percent(share: float, digits: int = 3) -> str:
    """A share as a percentage: 0.0851 -> "8.51 %"."""
    return f"{number(100 * share, digits)} %"


def times(ratio: float) -> str:
    """A multiple: 6.1 -> "6.10x"."""
    return f"{ratio:,.0f}x" if ratio >= 100 else f"{ratio:#.3g}x"


def quantity(name: str, value: float) -> str:
    """A variable's value as text, by the variable's kind: params and tokens in B and T, ratios of params in percent."""
    if name in _COUNTS:
        return format_count(value)
    if name in _SHARES:
        return percent(value)
    if name in _FLOPS:
        return format_flops(value)
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e7 else number(value)


def interval(name: str, low: float, high: float) -> str:
    """A range of a variable as text; one value where both ends read alike."""
    ends = quantity(name, low), quantity(name, high)
    if ends[0] == ends[1]:
        return ends[0]
    if ends[0].endswith(" %") and ends[1].endswith(" %"):
        ends = ends[0][:-2], ends[1]
    return f"{ends[0]}–{ends[1]}"


def mark(text: str, extrapolated: object) -> str:
    """`text`, flagged if it is extrapolated."""
    return text + EXTRAPOLATED if extrapolated else text
