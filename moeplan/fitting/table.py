"""A file of runs as rows of cells: CSV, or JSON lines. Nothing is interpreted yet."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeplan.errors import UsageError
from moeplan.files import decoded, read_source

LARGEST_TABLE = 10**9
"""Bytes of a table of runs at most, which holds millions of them."""


@dataclass(frozen=True)
class RawTable:
    """What a file of runs holds."""

    file: str
    """Its name as given."""
    digest: str
    """SHA-256 of the file, first 16 hex digits."""
    columns: tuple[str, ...]
    """Names of the columns, as written."""
    rows: tuple[dict[str, str], ...]
    """The cells as text, by column; an absent one is empty."""
    lines: tuple[int, ...]
    """Line of the file that each row stands on."""


def read_table(path: str | Path) -> RawTable:
    """Read a CSV file with a header, or JSON lines (one object a line, or one list of objects).

    Raises `UsageError` for a file that cannot be read, is empty, has a column twice, or rows of another length.
    """
    raw = read_source(path, largest=LARGEST_TABLE)
    text = decoded(raw, path, instead="give runs as CSV or JSON lines")
    if not text.strip():
        raise UsageError(f"{path}: is empty; give runs as CSV with a header, or as JSON lines")
    rows, lines, columns = _json_rows(text, path) if text.lstrip()[0] in "{[" else _csv_rows(text, path)
    if not rows:
        raise UsageError(f"{path}: has a header but no runs below it")
    return RawTable(str(path), hashlib.sha256(raw).hexdigest()[:16], tuple(columns), tuple(rows), tuple(lines))


def _csv_rows(text: str, path: str | Path) -> tuple[list[dict[str, str]], list[int], list[str]]:
    header_line = next(line for line in text.splitlines() if line.strip())
    delimiter = max(",;\t", key=header_line.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    columns: list[str] = []
    rows, lines = [], []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = [cell.strip() for cell in cells]
                _check_columns(columns, path)
                continue
            if len(cells) != len(columns):
                raise UsageError(
                    f"{path}, line {reader.line_num}: has {len(cells)} cells where the header has {len(columns)}"
                )
            rows.append({name: cell.strip() for name, cell in zip(columns, cells, strict=True)})
            lines.append(reader.line_num)
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: is not CSV: {error}") from None
    return rows, lines, columns


def _check_columns(columns: list[str], path: str | Path) -> None:
    for place, name in enumerate(columns):
        if not name:
            raise UsageError(f"{path}: column {place + 1} has no name in the header")
        if name in columns[:place]:
            raise UsageError(f"{path}: has the column {name!r} twice; rename one")


def _json_rows(text: str, path: str | Path) -> tuple[list[dict[str, str]], list[int], list[str]]:
    objects: list[tuple[int, Any]] = []
    if text.lstrip().startswith("["):
        objects = [(1, item) for item in _parse(text, path, 1, list)]
    else:
        for line, content in enumerate(text.splitlines(), start=1):
            if content.strip():
                objects.append((line, _parse(content, path, line, dict)))
    rows, columns = [], dict[str, None]()
    for line, item in objects:
        if not isinstance(item, dict):
            raise UsageError(f"{path}, line {line}: holds {_short(item)}, must be an object of a run's columns")
        cells = _flat(item, path, line)
        columns |= dict.fromkeys(cells)
        rows.append(cells)
    return [{name: row.get(name, "") for name in columns} for row in rows], [line for line, _ in objects], list(columns)


def _parse(text: str, path: str | Path, line: int, kind: type) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"{path}, line {line}: has the column {name!r} twice; rename one")
        return dict(pairs)

    try:
        found = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):  # not JSON, or numbers and nesting that Python refuses
        raise UsageError(f"{path}, line {line}: is not JSON; JSON lines hold one object a line") from None
    if not isinstance(found, kind):
        raise UsageError(f"{path}, line {line}: holds {_short(found)}, must be an object of a run's columns")
    return found


def _flat(item: dict[str, Any], path: str | Path, line: int) -> dict[str, str]:
    """A run's object as cells; what stands under `architecture` counts as columns of the run."""
    cells: dict[str, str] = {}
    for name, value in item.items():
        if name == "architecture" and isinstance(value, dict):
            inner = _flat(value, path, line)
        elif isinstance(value, (dict, list)):
            continue  # nothing that a form sees is a list
        else:
            inner = {name: "" if value is None else str(value)}
        for key, cell in inner.items():
            if key in cells:
                raise UsageError(f"{path}, line {line}: has the column {key!r} twice; rename one")
            cells[key] = cell
    return cells


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
