"""Which runs count: rules and flags that leave runs out, each with its reason."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moeplan.errors import UsageError
from moeplan.fitting.cells import read_number
from moeplan.fitting.names import Naming, listed
from moeplan.fitting.table import RawTable

_RULE = re.compile(r"\s*(.+?)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*")


@dataclass(frozen=True)
class Excluded:
    """A run that was left out."""

    line: int
    """Line of the file."""
    reason: str
    """Why."""


@dataclass(frozen=True)
class Rule:
    """A comparison of a column with a value."""

    text: str
    """As given."""
    column: str
    """The column."""
    sign: str
    """One of < <= > >= = !=."""
    value: str
    """The value compared with; for = and != also several, separated by commas."""

    def holds(self, cell: str, decimal_comma: bool = False) -> bool:
        """Whether a cell meets the comparison: as numbers if both are, else as text (then = and != alone)."""
        left = _number(cell, decimal_comma)
        if self.sign in ("=", "!="):
            values = [self.value, *self.value.split(",")]
            equal = any(cell == value.strip() or _equal(left, _number(value.strip())) for value in values)
            return equal == (self.sign == "=")
        right = _number(self.value)
        if left is None or right is None:
            return False
        return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[self.sign]


def parse_rule(text: str, naming: Naming, table: RawTable) -> Rule:
    """Read "loss>3.2" or "router_type=S-Base,Dense"; raises `UsageError` if it is none, or names no column."""
    match = _RULE.fullmatch(text)
    if match is None:
        raise UsageError(f"rule {text!r} is no comparison; write it like 'loss>3.2' or 'router_type=Dense'")
    name, sign, value = match.groups()
    column = naming.columns.get(name, name)
    if not value and sign not in ("=", "==", "!="):
        raise UsageError(f"rule {text!r} compares with nothing; write it like 'loss>3.2'")
    if column not in table.columns:
        raise UsageError(f"rule {text!r}: {table.file} has no column {name!r}; it has {listed(table.columns)}")
    sign = "=" if sign == "==" else sign
    if sign not in ("=", "!=") and _number(value) is None:
        raise UsageError(f"rule {text!r} compares with {value!r}, which is no number; = and != take text")
    return Rule(text.strip(), column, sign, value)


def select(
    table: RawTable, naming: Naming, where: Iterable[str], exclude: Iterable[str]
) -> tuple[list[int], list[Excluded]]:
    """Rows that stay, and those left out: all `where` must hold, and no `exclude`."""
    wanted = [parse_rule(text, naming, table) for text in where]
    unwanted = [parse_rule(text, naming, table) for text in exclude]
    kept, excluded = [], []
    if not wanted and not unwanted:
        return list(range(len(table.lines))), []
    comma = table.decimal_comma
    for place, line in enumerate(table.lines):
        failed = next((rule for rule in wanted if not rule.holds(table.cells[rule.column][place], comma)), None)
        hit = next((rule for rule in unwanted if rule.holds(table.cells[rule.column][place], comma)), None)
        if failed is not None:
            cell = table.cells[failed.column][place] or "empty"
            excluded.append(Excluded(line, f"--where {failed.text} (it is {cell})"))
        elif hit is not None:
            cell = table.cells[hit.column][place] or "empty"
            excluded.append(Excluded(line, f"--exclude {hit.text} (it is {cell})"))
        else:
            kept.append(place)
    return kept, excluded


def drop_highest(
    rows: list[int], values: Mapping[int, float], count: int, table: RawTable
) -> tuple[list[int], list[Excluded]]:
    """Rows without the `count` of the highest `values` (the later of equal ones first)."""
    if count < 0 or count >= len(rows):
        raise UsageError(f"--drop-highest-loss {count} must be from 0 to {len(rows) - 1}, fewer than the runs")
    order = sorted(rows, key=lambda place: (values[place], place))
    dropped = set(order[len(order) - count :]) if count else set()
    excluded = [
        Excluded(table.lines[place], f"--drop-highest-loss {count} (its loss is {values[place]:.6g})")
        for place in rows
        if place in dropped
    ]
    return [place for place in rows if place not in dropped], excluded


def _number(cell: str, decimal_comma: bool = False) -> float | None:
    try:
        value = read_number(cell, decimal_comma)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _equal(left: float | None, right: float | None) -> bool:
    return left is not None and left == right
