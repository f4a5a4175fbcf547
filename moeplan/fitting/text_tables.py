"""Tables as text: CSV with commas, semicolons or tabs, columns set apart by spaces, and Markdown.

What people and programs add is taken off: comments above the header (the last of them is the header where numpy wrote
it so), the unnamed index of pandas, its second row of names, and a row of units below the header.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from moeplan.errors import UsageError
from moeplan.fitting.cells import UNITS, is_number

Lines = Callable[[], Iterator[str]]
"""The lines of a file, from the first one on, as often as they are asked for."""
_RULE = re.compile(r":?-+:?")
_ABSENT = ("nan", "inf", "-inf", "none", "null", "na", "n/a", "-")
"""What stands in place of a number, in small letters: a row of it is a run, no second header."""


def text_cells(lines_of: Lines, path: str | Path) -> tuple[dict[str, list[str]], list[int], str]:
    """Columns of cells by name, the line of each row, and the delimiter; raises `UsageError` for rows of another length
    than the header, for columns without a name and those that are there twice."""
    skipped, names, delimiter = _header(lines_of, path)
    columns: list[list[str]] = [[] for _ in names]
    lines: list[int] = []
    for number, cells in _rows(lines_of, skipped, delimiter, path):
        if not lines and len(cells) == len(names) + 1 and _is_indexed(cells, delimiter):
            names, columns = ["", *names], [[], *columns]
        if len(cells) != len(names):
            raise UsageError(f"{path}, line {number}: has {len(cells)} cells where the header has {len(names)}")
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
        lines.append(number)
    names = _with_index_row(names, columns, lines)
    names = _with_second_row(names, columns, lines)
    return _named(names, columns, path), lines, delimiter


def _header(lines_of: Lines, path: str | Path) -> tuple[int, list[str], str]:
    """How many lines come before the runs, the columns' names, and the delimiter."""
    comment = ""
    filled = ((number, line) for number, line in enumerate(lines_of(), start=1) if line.strip())
    number, line, following = 0, "", next(filled, None)
    while following:
        number, line = following
        following = next(filled, None)
        while following and line.count('"') % 2:  # a name over several lines, as spreadsheets break it
            number, line = following[0], f"{line.rstrip()} {following[1]}"
            following = next(filled, None)
        if re.match(r"\s*#(?!\s*[,;\t|])", line):
            comment = line.strip().lstrip("#").strip()
        elif not (following and _is_title(line, following[1])):
            break
    else:
        return 0, [], ","
    delimiter = _delimiter(line, following[1] if following else "")
    cells = _split(line, delimiter, path)
    above = _split(comment, delimiter, path) if comment else []
    if len(above) == len(cells) > 1 and all(map(is_number, cells)) and not any(map(is_number, above)):
        return number - 1, above, delimiter
    return number, cells, delimiter


def _is_title(line: str, following: str) -> bool:
    """Whether a line stands above the header: sep=; of a spreadsheet, or text in its first cell alone."""
    if re.fullmatch(r'"?sep=.?"?[,;\t]*', line.strip(), re.IGNORECASE):
        return True
    first, *rest = (cell.strip(' "\r\n') for cell in re.split(r"[,;\t]", line))
    below = [cell for cell in re.split(r"[,;\t]", following) if cell.strip(' "\r\n')]
    if not first or any(rest) or "|" in line:
        return False
    if rest or following.lstrip().startswith("|"):
        return len(below) > 1 or not below or following.lstrip().startswith("|")
    return len(below) > 2 and not _is_spaced(line, following)


def _delimiter(header: str, following: str) -> str:
    delimiter = max(",;\t", key=header.count)
    if header.lstrip().startswith("|") or ("|" in header and delimiter not in header):
        return "|"
    return " " if delimiter not in header and _is_spaced(header, following) else delimiter


def _is_spaced(header: str, following: str) -> bool:
    """Whether spaces set the cells of two lines apart."""
    words = len(_words(header))
    return words > 1 and len(_words(following)) in (words, words + 1)


def _words(line: str) -> list[str]:
    """Cells that spaces set apart, those in quotes whole, as R writes them."""
    return next(csv.reader([" ".join(line.split())], delimiter=" "), []) if '"' in line else line.split()


def _split(line: str, delimiter: str, path: str | Path) -> list[str]:
    try:
        if delimiter == " ":
            return _words(line)
        if delimiter == "|":
            return [cell.strip(" \t\r\n*`") for cell in line.strip().strip("|").split("|")]
        reader = csv.reader([line], delimiter=delimiter, skipinitialspace=True)
        return [" ".join(cell.split()) for cell in next(reader)]
    except csv.Error as error:
        raise UsageError(f"{path}: its header is not CSV: {error}") from None


def _is_indexed(cells: list[str], delimiter: str) -> bool:
    """Whether the first row, one cell longer than the header, begins with an index, as pandas prints and R writes."""
    return delimiter == " " or cells[0] in ("0", "1") or (not _is_number(cells[0]) and bool(cells[-1]))


def _rows(lines_of: Lines, skipped: int, delimiter: str, path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header that hold anything, each with the number of its line."""
    rest = itertools.islice(lines_of(), skipped, None)
    if delimiter in ",;\t":
        reader = csv.reader(rest, delimiter=delimiter, skipinitialspace=True)
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield skipped + reader.line_num, [cell.strip() for cell in cells]
        except csv.Error as error:
            raise UsageError(f"{path}, line {skipped + reader.line_num}: is not CSV: {error}") from None
        return
    for number, line in enumerate(rest, start=skipped + 1):
        cells = _split(line, delimiter, path) if line.strip() else []
        if any(cells) and not all(map(_RULE.fullmatch, cells)):
            yield number, cells


def _with_index_row(names: list[str], columns: list[list[str]], lines: list[int]) -> list[str]:
    """Names with those of the index, which pandas writes in a row of their own below columns of one level or two; it is
    taken off then, and so is the second level."""
    for row in range(min(2, len(lines) - 1)):
        cells = [column[row] for column in columns]
        levels = [".".join(filter(None, (name, *column[:row]))) for name, column in zip(names, columns, strict=True)]
        if any(map(_is_number, cells)) or not any(cells):
            continue
        if all(bool(cell) != bool(level) for cell, level in zip(cells, levels, strict=True)):
            for column in columns:
                del column[: row + 1]
            del lines[: row + 1]
            return [level or cell for cell, level in zip(cells, levels, strict=True)]
    return names


def _with_second_row(names: list[str], columns: list[list[str]], lines: list[int]) -> list[str]:
    """Names that the first row goes on with, which is taken off then: units ("M", "B") or further names, as pandas
    writes columns of two levels. It is one where all it says stands above numbers, and is none."""
    if len(lines) < 2:
        return names
    row = [column[0] for column in columns]
    if any(_is_number(cell) or cell.lower() in _ABSENT for cell in row):
        return names
    above = [bool(cell) and _is_number(column[1]) for cell, column in zip(row, columns, strict=True)]
    units = [above[i] and cell.lower() in UNITS for i, cell in enumerate(row)]
    if sum(above) < 2:
        return names
    for column in columns:
        del column[0]
    del lines[0]
    if any(units):
        return [f"{name} ({cell})" if is_unit else name for name, cell, is_unit in zip(names, row, units, strict=True)]
    return [".".join(filter(None, pair)) for pair in zip(names, row, strict=True)]


def _is_number(cell: str) -> bool:
    return is_number(cell) or is_number(cell, decimal_comma=True)


def _named(names: list[str], columns: list[list[str]], path: str | Path) -> dict[str, list[str]]:
    """Columns by name, without an index that pandas wrote and without what a delimiter at the end of lines makes."""
    found: dict[str, list[str]] = {}
    for place, (name, cells) in enumerate(zip(names, columns, strict=True)):
        if not name and (not any(cells) if place else all(cell.isdecimal() or not _is_number(cell) for cell in cells)):
            continue
        if not name:
            hint = "" if place else "; each run is a row, below a header of names"
            raise UsageError(f"{path}: column {place + 1} has no name in the header{hint}")
        if name in found:
            raise UsageError(f"{path}: has the column {name!r} twice; rename one")
        found[name] = cells
    return found
