"""Files of runs as columns of cells: CSV and other text (`text_tables`), JSON (`json_tables`), or Parquet. Nothing is
interpreted yet."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeplan.errors import UsageError
from moeplan.files import decoded, read_source
from moeplan.fitting.cells import is_number, read_number, uses_decimal_comma
from moeplan.fitting.json_tables import cell_of, json_cells
from moeplan.fitting.text_tables import text_cells

LARGEST_TABLE = 10**9
"""Bytes of a table of runs at most, unpacked; it holds millions of them."""
INSTEAD = "give runs as CSV or JSON lines"
_PARQUET, _GZIP, _UTF16 = b"PAR1", b"\x1f\x8b", (b"\xff\xfe", b"\xfe\xff")


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
    """Read a table of text with a header, JSON (an object a line, one list of objects, or columns), or a Parquet file.

    Text and JSON may be packed by gzip. Raises `UsageError` for a file that cannot be read, is empty, has a column
    twice, or rows of another length.
    """
    raw = read_source(path, largest=LARGEST_TABLE, what="table of runs")
    digest = hashlib.sha256(raw).hexdigest()[:16]
    if Path(path).suffix in (".yaml", ".yml"):
        raise UsageError(f"{path}: is YAML by its name; {INSTEAD}")
    if raw.startswith(_PARQUET):
        cells, lines, delimiter = *_parquet_cells(raw, path), ";"
    else:
        raw = _unpacked(raw, path) if raw.startswith(_GZIP) else raw
        raw = _utf8(raw, path) if raw.startswith(_UTF16) else raw
        start = raw.removeprefix(b"\xef\xbb\xbf")[:65536].lstrip()
        if not start and not raw.strip():
            raise UsageError(f"{path}: is empty; give runs as CSV with a header, or as JSON lines")
        if b"\0" in raw:
            raise UsageError(f"{path}: is not text; {INSTEAD}")
        if start[:1] in (b"{", b"["):
            text = functools.partial(decoded, raw, path, instead=INSTEAD)
            cells, lines, delimiter = *json_cells(text, lambda: _lines_of(raw, path), path), ";"
        else:
            cells, lines, delimiter = text_cells(lambda: _lines_of(raw, path), path)
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


def _utf8(raw: bytes, path: str | Path) -> bytes:
    """UTF-16 text, as spreadsheets export it, as UTF-8."""
    try:
        return raw.decode("utf-16").encode()
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not text; {INSTEAD}") from None


def _lines_of(raw: bytes, path: str | Path) -> Iterator[str]:
    """The lines of UTF-8 text, without the mark at its start; raises for bytes that are not UTF-8."""
    try:
        yield from io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8-sig", newline="")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text; {INSTEAD}") from None


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
        name: [cell_of(value) for value in values]
        for name, values in data.items()
        if not name.startswith("__index_level")
    }
    return cells, list(range(1, len(next(iter(cells.values()), [])) + 1))
