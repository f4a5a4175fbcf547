"""Files of runs as columns of cells: CSV, JSON lines, or Parquet. Nothing is interpreted yet.

What other programs write around the numbers is taken off: the unnamed index of pandas, the columns `config.`,
`summary.`, `metrics.` and `params.` of trackers (as prefixes in CSV, as objects in JSON), byte order marks.
"""

from __future__ import annotations

import csv
import functools
import gzip
import hashlib
import io
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeplan.errors import UsageError
from moeplan.files import decoded, read_source
from moeplan.fitting.cells import is_number, read_number, uses_decimal_comma

LARGEST_TABLE = 10**9
"""Bytes of a table of runs at most, unpacked; it holds millions of them."""
NESTED = ("architecture", "config", "summary", "metrics", "params", "data")
"""Objects inside a run's JSON whose members are columns of the run."""
INSTEAD = "give runs as CSV or JSON lines"
_PARQUET, _GZIP = b"PAR1", b"\x1f\x8b"


class _Rows(Sequence[dict[str, str]]):
    """The rows of columns, each made when it is asked for."""

    def __init__(self, cells: Mapping[str, list[str]], count: int) -> None:
        self._cells, self._count = cells, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: Any) -> Any:
        return {name: column[place] for name, column in self._cells.items()}


@dataclass(frozen=True)
class RawTable:
    """The table of a file of runs, or of several one after the other."""

    file: str
    """Its name as given; several are listed."""
    digest: str
    """SHA-256 of the file, first 16 hex digits."""
    cells: Mapping[str, list[str]]
    """The cells as text, by column (as written), a row at a place; an absent one is empty."""
    lines: tuple[int, ...]
    """Line that each row stands on; lines of several files are counted through."""
    decimal_comma: bool = False
    """Whether its commas are decimal marks."""
    parts: tuple[tuple[str, int, int], ...] = ()
    """Of several files: each with its number of rows, and the lines before it."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.cells)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files as given."""
        return tuple(file for file, _, _ in self.parts) or (self.file,)

    @property
    def rows(self) -> Sequence[dict[str, str]]:
        """The cells by row."""
        return _Rows(self.cells, len(self.lines))

    def number(self, cell: str) -> float:
        """The number that a cell holds; raises `ValueError` if it holds none."""
        return read_number(cell, self.decimal_comma)

    def is_number(self, cell: str) -> bool:
        """Whether a cell holds a finite number."""
        return is_number(cell, self.decimal_comma)

    def where(self, place: int) -> str:
        """File and line of a row, for a sentence."""
        first = 0
        for file, count, before in self.parts:
            if place < first + count:
                return f"{file}, line {self.lines[place] - before}"
            first += count
        return f"{self.file}, line {self.lines[place]}"


def read_tables(paths: Sequence[str | Path]) -> RawTable:
    """Read one file or several as one table: the rows of each under the columns of all.

    Raises `UsageError` as `read_table` does, for no file, and for one that is given twice.
    """
    if not paths:
        raise UsageError("give a file of runs, for example runs.csv")
    tables = [read_table(path) for path in paths]
    if len(tables) == 1:
        return tables[0]
    digests = [table.digest for table in tables]
    for place, digest in enumerate(digests):
        if digest in digests[:place]:
            raise UsageError(f"{paths[digests.index(digest)]} and {paths[place]} hold the same runs; give each once")
    if len({table.decimal_comma for table in tables}) > 1:
        marked = next(table.file for table in tables if table.decimal_comma)
        raise UsageError(f"{marked}: has decimal commas and the other files have none; write all of them alike")
    cells = {
        name: [cell for table in tables for cell in table.cells.get(name, [""] * len(table.lines))]
        for name in dict.fromkeys(name for table in tables for name in table.cells)
    }
    before = list(itertools.accumulate((table.lines[-1] for table in tables), initial=0))
    return RawTable(
        file=", ".join(table.file for table in tables),
        digest=hashlib.sha256("".join(digests).encode()).hexdigest()[:16],
        cells=cells,
        lines=tuple(line + shift for table, shift in zip(tables, before, strict=False) for line in table.lines),
        decimal_comma=tables[0].decimal_comma,
        parts=tuple((table.file, len(table.lines), shift) for table, shift in zip(tables, before, strict=False)),
    )


def read_table(path: str | Path) -> RawTable:
    """Read a CSV file with a header, JSON lines (an object a line, or one list of objects), or a Parquet file.

    CSV and JSON may be packed by gzip. Raises `UsageError` for a file that cannot be read, is empty, has a column
    twice, or rows of another length.
    """
    raw = read_source(path, largest=LARGEST_TABLE, what="table of runs")
    digest = hashlib.sha256(raw).hexdigest()[:16]
    if raw.startswith(_PARQUET):
        cells, lines, delimiter = *_parquet_cells(raw, path), ";"
    else:
        raw = _unpacked(raw, path) if raw.startswith(_GZIP) else raw
        start = raw.removeprefix(b"\xef\xbb\xbf")[:65536].lstrip()
        if not start and not raw.strip():
            raise UsageError(f"{path}: is empty; give runs as CSV with a header, or as JSON lines")
        if b"\0" in raw:
            raise UsageError(f"{path}: is not text; {INSTEAD}")
        if start[:1] in (b"{", b"["):
            cells, lines, delimiter = *_json_cells(raw, path), ";"
        else:
            cells, lines, delimiter = _csv_cells(raw, path)
    if not lines:
        raise UsageError(f"{path}: has a header but no runs below it")
    # What is separated by commas and not quoted has no commas, so that this is quick where tables are large.
    comma = uses_decimal_comma(itertools.chain.from_iterable(cells.values()), delimiter)
    return RawTable(str(path), digest, cells, tuple(lines), comma)


def _unpacked(raw: bytes, path: str | Path) -> bytes:
    try:
        with gzip.open(io.BytesIO(raw)) as file:
            content = file.read(LARGEST_TABLE + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise UsageError(f"{path}: is no whole gzip file: {str(error).lower()}") from None
    if len(content) > LARGEST_TABLE:
        raise UsageError(f"{path}: unpacks to over {LARGEST_TABLE / 1e6:g} MB, far more than any table of runs")
    return content


def _lines_of(raw: bytes, path: str | Path) -> Iterator[str]:
    """The lines of UTF-8 text, without the mark at its start; raises for bytes that are not UTF-8."""
    try:
        yield from io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8-sig", newline="")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text; {INSTEAD}") from None


def _csv_cells(raw: bytes, path: str | Path) -> tuple[dict[str, list[str]], list[int], str]:
    header_line = next((line for line in _lines_of(raw, path) if line.strip()), "")
    delimiter = max(",;\t", key=header_line.count)
    reader = csv.reader(_lines_of(raw, path), delimiter=delimiter)
    names: list[str] = []
    columns: list[list[str]] = []
    lines: list[int] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                names = [cell.strip() for cell in cells]
                columns = [[] for _ in names]
                continue
            if len(cells) != len(columns):
                raise UsageError(
                    f"{path}, line {reader.line_num}: has {len(cells)} cells where the header has {len(columns)}"
                )
            for column, cell in zip(columns, cells, strict=True):
                column.append(cell.strip())
            lines.append(reader.line_num)
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: is not CSV: {error}") from None
    return _named(names, columns, path), lines, delimiter


def _named(names: list[str], columns: list[list[str]], path: str | Path) -> dict[str, list[str]]:
    """Columns by name, without an index that pandas wrote and without what a delimiter at the end of lines makes."""
    found: dict[str, list[str]] = {}
    for place, (name, cells) in enumerate(zip(names, columns, strict=True)):
        if not name and (not any(cells) if place else all(map(str.isdecimal, cells))):
            continue
        if not name:
            raise UsageError(f"{path}: column {place + 1} has no name in the header")
        if name in found:
            raise UsageError(f"{path}: has the column {name!r} twice; rename one")
        found[name] = cells
    return found


def _parquet_cells(raw: bytes, path: str | Path) -> tuple[dict[str, list[str]], list[int]]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise UsageError(
            f"{path}: reading parquet needs pyarrow; install it by pip install 'moeplan[parquet]'"
        ) from None
    try:
        with parquet.ParquetFile(io.BytesIO(raw)) as file:
            groups = (file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
            if sum(groups) > LARGEST_TABLE:
                raise UsageError(f"{path}: unpacks to over {LARGEST_TABLE / 1e6:g} MB, far more than any table of runs")
            data = file.read().to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise UsageError(f"{path}: is not a whole parquet file: {str(error).splitlines()[0]}") from None
    cells = {
        name: [_cell(value) for value in values]
        for name, values in data.items()
        if not name.startswith("__index_level")
    }
    return cells, list(range(1, len(next(iter(cells.values()), [])) + 1))


def _cell(value: Any) -> str:
    return "" if value is None or isinstance(value, (dict, list)) or value != value else str(value)


def _json_cells(raw: bytes, path: str | Path) -> tuple[dict[str, list[str]], list[int]]:
    columns: dict[str, list[str]] = {}
    lines: list[int] = []
    for line, item in _json_objects(raw, path):
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


def _json_objects(raw: bytes, path: str | Path) -> Iterable[tuple[int, Any]]:
    start = raw.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"["):
        return [(1, item) for item in _parse(decoded(raw, path, instead=INSTEAD), path, 1, list)]
    return (
        (number, _parse(line, path, number, dict))
        for number, line in enumerate(_lines_of(raw, path), start=1)
        if line.strip()
    )


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


def _flat(item: dict[str, Any], path: str | Path, line: int) -> dict[str, str]:
    """A run's object as cells; what stands under one of `NESTED` counts as columns of the run."""
    cells: dict[str, str] = {}
    for name, value in item.items():
        if name in NESTED and isinstance(value, dict):
            inner = _flat(value, path, line)
        elif isinstance(value, dict) and "value" in value:  # as a tracker's configuration has it
            inner = {name: _cell(value["value"])}
        elif isinstance(value, (dict, list)):
            continue  # nothing that a form sees is a list
        else:
            inner = {name: _cell(value)}
        for key, cell in inner.items():
            if cells.get(key, cell) != cell:
                raise UsageError(f"{path}, line {line}: has the column {key!r} twice; rename one")
            cells[key] = cell
    return cells


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
