"""Tables as JSON: an object a line, one list of objects, or one object of columns, as pandas writes a data frame."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from moeplan.errors import UsageError

NESTED = ("architecture", "config", "summary", "metrics", "params", "data")
"""Objects inside a run's JSON whose members are columns of the run; those of others have their name before them."""
_DEEPEST = 8
"""Objects inside objects beyond which nothing is read."""


def json_cells(
    text: Callable[[], str], lines_of: Callable[[], Iterator[str]], path: str | Path
) -> tuple[dict[str, list[str]], list[int]]:
    """Columns of cells by name, and the line of each row; raises `UsageError` for what is no JSON, for a run that is no
    object and for a column that is there twice."""
    columns: dict[str, list[str]] = {}
    lines: list[int] = []
    for line, item in _objects(text, lines_of, path):
        if not isinstance(item, dict):
            raise UsageError(f"{path}, line {line}: holds {_short(item)}, must be an object of a run's columns")
        for name, cell in _flat(item, path, line).items():
            column = columns.setdefault(name, [])
            column += [""] * (len(lines) - len(column))
            column.append(cell)
        lines.append(line)
    for column in columns.values():
        column += [""] * (len(lines) - len(column))
    return columns, lines


def cell_of(value: Any) -> str:
    """A value as a cell's text; empty for none, for NaN, and for what is no single value."""
    return "" if value is None or isinstance(value, (dict, list)) or value != value else str(value)


def _objects(
    text: Callable[[], str], lines_of: Callable[[], Iterator[str]], path: str | Path
) -> Iterable[tuple[int, Any]]:
    filled = [line for _, line in zip(range(2), (line for line in lines_of() if line.strip()), strict=False)]
    if filled[0].lstrip().startswith("["):
        return [(1, item) for item in _parse(text(), path, 1, list)]
    if len(filled) == 1 or filled[0].strip() == "{":
        whole = _parse(text(), path, 1, dict)
        return [(1, item) for item in _runs_of(whole) or [whole]]
    return (
        (number, _parse(line, path, number, dict)) for number, line in enumerate(lines_of(), start=1) if line.strip()
    )


def _runs_of(whole: dict[str, Any]) -> list[Any]:
    """The runs of one object that holds them as columns (lists, or objects by the same keys), or as its only list; none
    if it is a run itself."""
    values = list(whole.values())
    lists = [value for value in values if isinstance(value, list)]
    if len(lists) == 1 and lists[0] and all(isinstance(item, dict) for item in lists[0]):
        return lists[0]
    if len(values) < 2 or not values[0]:
        return []
    if len(lists) == len(values) and len({len(value) for value in values}) == 1:
        return [dict(zip(whole, row, strict=True)) for row in zip(*values, strict=True)]
    first = values[0]
    if isinstance(whole.get("columns"), list) and isinstance(whole.get("data"), list):  # orient="split" of pandas
        names, rows = whole["columns"], whole["data"]
        if all(isinstance(name, str) for name in names) and all(
            isinstance(row, list) and len(row) == len(names) for row in rows
        ):
            return [dict(zip(names, row, strict=True)) for row in rows]
    alike = isinstance(first, dict) and all(
        isinstance(value, dict) and value.keys() == first.keys() for value in values
    )
    if alike and all(key.isdecimal() for key in first):
        return [{name: column[key] for name, column in whole.items()} for key in first]
    if alike and not set(NESTED) & whole.keys() and len(first) > 1:  # a run by its name or number
        return values
    return []


def _parse(text: str, path: str | Path, line: int, kind: type) -> Any:
    try:
        found = json.loads(text, object_pairs_hook=functools.partial(_unique, path=path, line=line))
    except (ValueError, RecursionError):  # not JSON, or numbers and nesting that Python refuses
        raise UsageError(f"{path}, line {line}: is not JSON; JSON lines hold one object a line") from None
    if not isinstance(found, kind):
        raise UsageError(f"{path}, line {line}: holds {_short(found)}, must be an object of a run's columns")
    return found


def _unique(pairs: list[tuple[str, Any]], path: str | Path, line: int) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for name, value in pairs:
        if name in data:
            raise UsageError(f"{path}, line {line}: has the column {name!r} twice; rename one")
        data[name] = value
    return data


def _flat(item: dict[str, Any], path: str | Path, line: int, depth: int = 0) -> dict[str, str]:
    """A run's object as cells; what stands under one of `NESTED` counts as columns of the run."""
    cells: dict[str, str] = {}
    for name, value in item.items():
        if isinstance(value, dict) and "value" in value and name not in NESTED:  # as a tracker's configuration has it
            inner = {name: cell_of(value["value"])}
        elif isinstance(value, dict):
            inner = _flat(value, path, line, depth + 1) if depth < _DEEPEST else {}
            inner = inner if name in NESTED else {f"{name}.{key}": cell for key, cell in inner.items()}
        elif isinstance(value, list):
            continue  # nothing that a form sees is a list
        else:
            inner = {name: cell_of(value)}
        for key, cell in inner.items():
            if cells.get(key, cell) != cell:
                raise UsageError(f"{path}, line {line}: has the column {key!r} twice; rename one")
            cells[key] = cell
    return cells


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
