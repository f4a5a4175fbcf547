"""Quantities as people type them: "80GB", "1e22", "5 ZFLOP", "3.4B", "2T", "8x80GB".

Decimal prefixes are powers of 1000 and binary ones (KiB, MiB, GiB, TiB, PiB) powers of 1024: 1 GB = 1e9 bytes, 1 GiB =
2**30 bytes. `parse_*` turns text (or a plain number) into a number and raises `UsageError` with the text, the reason
and an example that works; `format_*` turns a number back into short text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from moeplan.errors import UsageError

LARGEST_COUNT = 1e30
"""Params or tokens beyond this are of no model and no training run; what is computed of them would overflow."""

# The words for "not a finite number" are quantities too, so that the error says what is wrong with them.
_QUANTITY = re.compile(
    r"\s*([-+]?(?:(?:\d[\d_]*\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|infinity|inf))\s*([a-z]*)\s*", re.IGNORECASE
)

# Large-number words of this field: B is a billion (not bytes) wherever a count is expected. No "e": 3e is a typo.
_COUNT_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "q": 1e15}
_SI_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18, "z": 1e21, "y": 1e24, "r": 1e27}
_FLOP_UNITS = {"": 1.0} | {prefix + word: x for prefix, x in _SI_PREFIXES.items() for word in ("flop", "flops")}
_BYTE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "pb": 10**15,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
    "pib": 2**50,
}
_COUNT_SUFFIXES = (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3))
_BYTE_SUFFIXES = (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_BINARY_SUFFIXES = (("TiB", 2**40), ("GiB", 2**30))


def _parse(text: str | float, units: Mapping[str, float], what: str, example: str) -> float:
    """Read a number and one of `units`, in either case; the result is positive and finite."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise UsageError(f"{what} {text!r} is not a quantity; write it like {example}")
    number, unit = match.groups()
    if unit.lower() not in units:
        raise UsageError(f"{what} {text!r} has the unknown unit {unit!r}; write it like {example}")
    value = float(number.replace("_", "")) * units[unit.lower()]
    if not math.isfinite(value) or value <= 0:
        raise UsageError(f"{what} {text!r} must be positive and finite, for example {example}")
    return value


def parse_flops(text: str | float, what: str = "compute budget") -> float:
    """Read training compute [FLOPs]: "1e22", "10e21", "1e22FLOP", "5 ZFLOP", "3 YFLOPs".

    Raises `UsageError` for anything that is not a positive finite quantity of floating-point operations.
    """
    return _parse(text, _FLOP_UNITS, what, "1e22 or 5ZFLOP")


def parse_count(text: str | float, what: str = "count") -> float:
    """Read a count (params, tokens): "3.4B", "2T", "500M", "15e12"; B is a billion, T a trillion.

    Raises `UsageError` for anything that is not a positive count of at most `LARGEST_COUNT`.
    """
    example = "3.4B, 2T or 15e12"
    count = _parse(text, _COUNT_UNITS, what, example)
    if count > LARGEST_COUNT:
        raise UsageError(f"{what} {text!r} must be at most {LARGEST_COUNT:g}; write it like {example}")
    return count


def parse_bytes(text: str | float, what: str = "memory") -> int:
    """Read an amount of memory [bytes]: "80GB" (80e9), "80GiB" (80 * 2**30), "640e9". A bare number is bytes.

    Raises `UsageError` for anything that is not a positive finite amount.
    """
    example = "80GB or 80GiB"
    amount = _parse(text, _BYTE_UNITS, what, example)
    if not 1 <= amount <= 2**62:
        raise UsageError(f"{what} {text!r} is outside 1 byte to 4096 PiB; write it like {example}")
    return round(amount)


@dataclass(frozen=True)
class MemoryLimit:
    """Memory of one or more equal devices, "80GB" or "8x80GB"."""

    bytes_per_device: int
    """Memory of one device [bytes]."""
    num_devices: int = 1
    """Number of equal devices the model is spread over."""

    @property
    def total_bytes(self) -> int:
        """Memory of all devices together [bytes]."""
        return self.bytes_per_device * self.num_devices

    def __str__(self) -> str:
        # Exact, so that a recorded limit reads back as the same: 85520809984 bytes are 85.520809984GB, not 85.5GB.
        texts = [format_bytes(self.bytes_per_device, digits) for digits in range(3, 18)]
        each = next((text for text in texts if parse_bytes(text) == self.bytes_per_device), texts[-1])
        return each if self.num_devices == 1 else f"{self.num_devices}x{each}"


def parse_memory(text: str | float | MemoryLimit, what: str = "memory limit") -> MemoryLimit:
    """Read a memory limit: "80GB", "80GiB", or "8x80GB" for eight devices fitted one by one.

    Raises `UsageError` for anything else, with the text and an example.
    """
    if isinstance(text, MemoryLimit):
        return text
    if isinstance(text, str) and re.fullmatch(r"\s*([\dxX×*\s]*[xX×*])?\s*[1-9]\d{0,4}\s*", text):
        raise UsageError(f"{what} {text!r} is bytes without a unit; write it like {text.strip()}GB")
    match = re.fullmatch(r"\s*(\d{1,9})\s*[xX×*]\s*(.+)", str(text))
    if match is None:
        return MemoryLimit(parse_bytes(text, what))
    if not 1 <= int(match[1]) <= 65536:
        raise UsageError(f"{what} {text!r} needs between 1 and 65536 devices, for example 8x80GB")
    return MemoryLimit(parse_bytes(match[2], f"{what} {text!r}: memory of one device"), int(match[1]))


def range_ends(text: str) -> tuple[str, str] | None:
    """The two ends of a range "LOW..HIGH", as text; None for anything else, three dots among it."""
    ends = text.split("..")
    if len(ends) != 2 or ends[1].startswith(".") or not all(end.strip() for end in ends):
        return None
    return ends[0].strip(), ends[1].strip()


def format_count(value: float, digits: int = 3) -> str:
    """Write a count in short: 36.2e9 -> "36.2B", 850e9 -> "850B", 1.4e12 -> "1.4T"."""
    return _scaled(value, _COUNT_SUFFIXES, digits)


def format_flops(value: float, digits: int = 3) -> str:
    """Write compute in scientific notation, the way budgets are typed: "1e22", "3.62e24"."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{_significant(float(mantissa), digits)}e{int(exponent)}"


def format_bytes(value: float, digits: int = 3) -> str:
    """Write bytes in decimal units, or in GiB or TiB where the value is whole in these and not in MB.

    80e9 -> "80GB", 64 * 2**30 -> "64GiB", 73.4e9 -> "73.4GB".
    """
    for suffix, scale in _BINARY_SUFFIXES:
        if value >= scale and value % scale == 0 and value % 10**6:
            return f"{int(value // scale)}{suffix}"
    return format_decimal_bytes(value, digits)


def format_decimal_bytes(value: float, digits: int = 3) -> str:
    """Write bytes in decimal units, whatever they were given in: 73.4e9 -> "73.4GB", 64 * 2**30 -> "68.7GB"."""
    return _scaled(value, _BYTE_SUFFIXES, digits, base="B")


def format_duration(seconds: float) -> str:
    """A time in the way it is given: 45s, 5m, 2.5h; one that nobody would give in days and years."""
    if seconds < 90:
        return f"{seconds:.0f}s"
    if seconds < 100 * 3600:
        return f"{seconds / 60:.3g}m" if seconds < 5400 else f"{seconds / 3600:.3g}h"
    days = seconds / 86400
    return f"{days:.0f} days" if days < 1000 else f"{format_count(days / 365)} years"


def _scaled(value: float, suffixes: tuple[tuple[str, float], ...], digits: int, base: str = "") -> str:
    """Write `value` with `digits` significant digits and the largest suffix that keeps it at 1 or more."""
    for suffix, scale in suffixes:
        # judged after rounding, so that 999.96e6 is 1B and not 1000M
        if abs(float(f"{value / scale:.{digits}g}")) >= 1:
            return _significant(value / scale, digits) + suffix
    return _significant(value, digits) + base


def _significant(value: float, digits: int) -> str:
    """Write `value` with `digits` significant digits, no exponent and no trailing zeros after the point."""
    return f"{Decimal(f'{value:.{digits}g}'):f}"
