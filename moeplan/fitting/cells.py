"""Cells of a table as numbers, however people and programs write them: 5e7, 50M, 50,000,000, 50 000 000, 3,24."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

UNITS = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "thousand": 1e3, "thousands": 1e3, "million": 1e6,
         "millions": 1e6, "billion": 1e9, "billions": 1e9, "trillion": 1e12, "trillions": 1e12, "mio": 1e6, "mio.": 1e6,
         "mrd": 1e9, "mrd.": 1e9, "millionen": 1e6, "milliarden": 1e9, "milliard": 1e9, "milliards": 1e9, "mflop": 1e6,
         "gflop": 1e9, "tflop": 1e12, "pflop": 1e15, "eflop": 1e18, "zflop": 1e21, "yflop": 1e24, "pf-day": 8.64e19,
         "pf-days": 8.64e19, "pflop/s-day": 8.64e19, "petaflop/s-day": 8.64e19}  # fmt: skip
"""Factor of a unit, in small letters without an s behind flop, also in German and French (but Billionen, which are no
billions); a day of 1e15 FLOPs a second is 8.64e19."""
PERCENT = {"%": 0.01, "percent": 0.01}
"""Factor of a unit of shares."""
_GROUPED = {
    ",": re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?"),
    ".": re.compile(r"[-+]?\d{1,3}(\.\d{3})+(,\d*)?"),
    " ": re.compile(r"[-+]?\d{1,3}([ '’\u00a0\u2009\u202f]\d{3})+([.,]\d*)?"),
}
"""Thousands set apart by commas, by dots (where the comma is the decimal mark), by spaces or apostrophes."""
_SCALED = re.compile(r"(.*?[\d.,])\s*([kKMBGT]|[tmb]illions?|thousand)(?:\s+(?:tokens?|param(?:eter)?s))?", re.I)
_WITH_ERROR = re.compile(r"(.*?\d)\s*(?:(?:±|\+/-|\+-)\s*[\d.,eE+-]+|\(\d+\))\s*%?")
"""A number with its error behind it: 2.959 ± 0.003, 2.959(3)."""
_POWER = re.compile(r"(?:(.*?[\d.,])\s*[x×*·⋅]\s*)?10\s*(?:\^|\*\*)\s*[({]?([-+]?\d{1,3})[)}]?")
"""Scientific notation as papers print it: 5x10^7, 5 × 10⁷, 10^{7}."""
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺\u2212", "0123456789-+-")
"""Raised digits and the minus of typesetters as plain ones."""
_RAISED_DIGITS = re.compile(r"10([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")


def read_number(cell: str, decimal_comma: bool = False) -> float:
    """The number that a cell holds; raises `ValueError` if it holds none."""
    try:
        if not decimal_comma or "," not in cell:
            return float(cell)
    except ValueError:
        pass
    with_error = _WITH_ERROR.fullmatch(cell)
    if with_error:
        return read_number(with_error[1] + ("%" if cell.endswith("%") else ""), decimal_comma)
    if "10" in cell or "\u2212" in cell:
        cell = plain_power(cell)
        power = _POWER.fullmatch(cell)
        if power:
            return (read_number(power[1], decimal_comma) if power[1] else 1.0) * float(f"1e{power[2]}")
    if cell.endswith("%"):
        return read_number(cell[:-1].rstrip(), decimal_comma) / 100
    scaled = _SCALED.fullmatch(cell)
    if scaled:
        return read_number(scaled[1], decimal_comma) * UNITS[scaled[2].lower()]
    if _GROUPED[" "].fullmatch(cell):
        cell = re.sub(r"[ '’\u00a0\u2009\u202f]", "", cell)
    if decimal_comma:
        grouped = _GROUPED["."].fullmatch(cell)
        return float((cell.replace(".", "") if grouped else cell).replace(",", "."))
    return float(cell.replace(",", "") if _GROUPED[","].fullmatch(cell) else cell)


def plain_power(text: str) -> str:
    """The text with raised digits behind a ten as 10^7, and the minus of typesetters as a plain one."""
    return _RAISED_DIGITS.sub(r"10^\1", text).translate(_RAISED)


def is_number(cell: str, decimal_comma: bool = False) -> bool:
    """Whether a cell holds a finite number."""
    try:
        return math.isfinite(read_number(cell, decimal_comma))
    except ValueError:
        return False


def uses_decimal_comma(cells: Iterable[str], delimiter: str) -> bool:
    """Whether the commas of a table's cells are decimal marks.

    They are if one of them cannot set thousands apart (3,24 or 0,555) and no number has a dot; where semicolons
    separate cells, as in files with decimal commas, it is enough that no cell has two commas or a dot.
    """
    sure = maybe = False
    for cell in cells:
        if "," in cell and cell.count(",") == 1 and _DECIMAL_COMMA.fullmatch(cell):
            if _GROUPED[","].fullmatch(cell) and not cell.lstrip("+-").startswith("0"):
                maybe = True
            else:
                sure = True
        elif ("." in cell and is_number(cell)) or (cell.count(",") > 1 and _GROUPED[","].fullmatch(cell)):
            return False
    return sure or (maybe and delimiter != ",")


_HEADER_UNIT = re.compile(
    r"(?P<name>.*?)(?:"
    r"\s*[\(\[](?:in\s+)?(?P<inside>[^\)\]]+)[\)\]]"
    r"|[ _/.-]+(?:in[ _])?(?P<word>[tmb]illions?|thousands?|millionen|milliarden|milliards?|mio\.?|mrd\.?)"
    r"|[ _](?P<letter>[mbkMBK])"
    r")\s*"
)


def unit_of_header(column: str) -> tuple[str, float]:
    """A column's name without the unit it ends in, and the unit's factor: ("params", 1e6) for "params (M)".

    In parentheses or brackets a unit is a power of ten, a letter, a word or kinds of FLOPs; behind an underscore or a
    space a letter (params_m) or a word. A name without one comes back whole, with factor 1.
    """
    found = _HEADER_UNIT.fullmatch(plain_power(column))
    if not found or not found["name"].strip():
        return column, 1.0
    words = re.split(r"[,;]\s*|\s+(?:of\s+)?", (found["inside"] or found["word"] or found["letter"]).strip())
    rest = []
    factor = 1.0
    for word in words:
        small = word.lower().removesuffix("s") if "flop" in word.lower() else word.lower()
        power = re.fullmatch(r"(?:x|\*|×)?\s*(?:1e\+?|10\^|10\*\*)(\d{1,2})", small)
        if power:
            factor *= 10.0 ** int(power[1])
        elif small in UNITS or small in PERCENT:
            factor *= UNITS.get(small) or PERCENT[small]
        else:
            rest.append(word)
    if factor == 1.0:
        return column, 1.0
    return " ".join([found["name"].strip(), *(f"({word})" for word in rest if word.lower() not in _UNIT_NOUNS)]), factor


_UNIT_NOUNS = ("param", "params", "parameters", "token", "tokens", "flop", "flops", "of", "in", "")
"""Words beside a unit that say nothing that the column's name does not."""
