"""Quantities as text: what is read, what is refused, what is printed."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeplan import units
from moeplan.errors import UsageError
from moeplan.units import MemoryLimit

PARSERS = (units.parse_flops, units.parse_count, units.parse_bytes, units.parse_memory)
DIGITS = st.integers(1, 9)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("1e22", 1e22),
        ("10e21", 1e22),
        ("1e22FLOP", 1e22),
        ("1E22 flops", 1e22),
        ("+1.e+22", 1e22),
        ("5 ZFLOP", 5e21),
        ("  3 YFLOPs ", 3e24),
        ("2.5EFLOP", 2.5e18),
        (1e22, 1e22),
        (10**22, 1e22),
    ],
)
def test_compute(text: str | float, expected: float) -> None:
    """Compute is read with or without a prefix and the word FLOP, and as a plain number."""
    assert units.parse_flops(text) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    "text, expected",
    [("3.4B", 3.4e9), ("2T", 2e12), ("500m", 5e8), ("128 K", 128e3), ("15e12", 15e12), ("1_000", 1e3), (".5b", 5e8)],
)
def test_counts(text: str, expected: float) -> None:
    """Counts are read with K, M, B (a billion) and T, in either case."""
    assert units.parse_count(text) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("80GB", 80 * 10**9),
        ("80gib", 80 * 2**30),
        ("640GB", 640 * 10**9),
        ("1.5 TB", 15 * 10**11),
        ("1PiB", 2**50),
        ("640e9", 640 * 10**9),
        ("512", 512),
        (80e9, 80 * 10**9),
    ],
)
def test_bytes(text: str | float, expected: int) -> None:
    """GB are powers of 1000, GiB powers of 1024, and a bare number is bytes."""
    value = units.parse_bytes(text)
    assert value == expected
    assert isinstance(value, int)


@pytest.mark.parametrize(
    "text, expected, printed",
    [
        ("80GB", MemoryLimit(80 * 10**9), "80GB"),
        ("80GiB", MemoryLimit(80 * 2**30), "80GiB"),
        ("8x80GB", MemoryLimit(80 * 10**9, 8), "8x80GB"),
        ("8 × 141 GB", MemoryLimit(141 * 10**9, 8), "8x141GB"),
        ("1x640GB", MemoryLimit(640 * 10**9), "640GB"),
        (80e9, MemoryLimit(80 * 10**9), "80GB"),
        (MemoryLimit(5, 2), MemoryLimit(5, 2), "2x5B"),
    ],
)
def test_memory_limits(text: str | float | MemoryLimit, expected: MemoryLimit, printed: str) -> None:
    """A memory limit is an amount, or a number of devices times an amount, and prints as it is typed."""
    limit = units.parse_memory(text)
    assert limit == expected
    assert limit.total_bytes == expected.bytes_per_device * expected.num_devices
    assert str(limit) == printed


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "is not a quantity"),
        ("banana", "is not a quantity"),
        ("1e22e3.", "is not a quantity"),
        ("1,5GB", "is not a quantity"),
        ("1e22 FLOP/s", "is not a quantity"),
        ("--1", "is not a quantity"),
        (True, "is not a quantity"),
        ("3 parsecs", "has the unknown unit 'parsecs'"),
        ("1e", "has the unknown unit 'e'"),
        ("0", "must be positive and finite"),
        ("-5e21", "must be positive and finite"),
        (-1.0, "must be positive and finite"),
        ("nan", "must be positive and finite"),
        (math.nan, "must be positive and finite"),
        ("inf", "must be positive and finite"),
        ("-Infinity", "must be positive and finite"),
        ("1e400", "must be positive and finite"),
        ("1e-400", "must be positive and finite"),
        ("9" * 5000, "must be positive and finite"),
    ],
)
def test_refusals(parse: Callable[..., object], text: object, reason: str) -> None:
    """What is not a positive finite quantity raises one sentence: the thing, the text, the reason, an example."""
    with pytest.raises(UsageError) as error:
        parse(text, "the thing")
    sentence = str(error.value)
    assert sentence.startswith(f"the thing {text!r} {reason}")
    assert any(example in sentence for example in ("1e22 or 5ZFLOP", "3.4B, 2T or 15e12", "80GB or 80GiB"))
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "parse, text",
    [
        (units.parse_flops, "80GB"),
        (units.parse_flops, "5Z"),
        (units.parse_count, "80GB"),
        (units.parse_count, "5ZFLOP"),
        (units.parse_bytes, "3.4T"),
        (units.parse_bytes, "5 GFLOP"),
        (units.parse_bytes, "80GBs"),
    ],
)
def test_units_of_another_kind_are_refused(parse: Callable[..., object], text: str) -> None:
    """A unit of another quantity is an unknown unit here."""
    with pytest.raises(UsageError, match="unknown unit"):
        parse(text)


@pytest.mark.parametrize(
    "text", ["0x80GB", "65537x80GB", "8x", "x80GB", "8x-80GB", "8x80parsec", "8x8x80GB", "1.5x80GB"]
)
def test_impossible_device_counts_are_refused(text: str) -> None:
    """Devices are 1 to 65536 times one amount of memory."""
    with pytest.raises(UsageError):
        units.parse_memory(text)


@pytest.mark.parametrize("text", ["0.4", "0.5B", "1e-4kB", "1e19", "5000PiB"])
def test_bytes_out_of_range_are_refused(text: str) -> None:
    """Less than a byte, and more than 64-bit integers can add up, are refused."""
    with pytest.raises(UsageError, match="outside 1 byte to 4096 PiB"):
        units.parse_bytes(text)


@pytest.mark.parametrize(
    "value, expected",
    [
        (36.2e9, "36.2B"),
        (850e9, "850B"),
        (1.4e12, "1.4T"),
        (671_026_404_352, "671B"),
        (999.4e6, "999M"),
        (999.96e6, "1B"),
        (131_072, "131K"),
        (999.6, "1K"),
        (64, "64"),
        (0.5, "0.5"),
        (0, "0"),
        (2.5e16, "25000T"),
        (-3.4e9, "-3.4B"),
    ],
)
def test_printed_counts(value: float, expected: str) -> None:
    """Counts print with three digits and the suffix that keeps them at 1 or more after rounding."""
    assert units.format_count(value) == expected


@pytest.mark.parametrize(
    "value, expected", [(1e22, "1e22"), (3.616e24, "3.62e24"), (9.999e21, "1e22"), (1, "1e0"), (1.5e-3, "1.5e-3")]
)
def test_printed_compute(value: float, expected: str) -> None:
    """Compute prints in scientific notation with no more digits than it needs."""
    assert units.format_flops(value) == expected


@pytest.mark.parametrize(
    "value, expected",
    [
        (80e9, "80GB"),
        (64 * 2**30, "64GiB"),
        (3 * 2**40, "3TiB"),
        (73.4e9, "73.4GB"),
        (512, "512B"),
        (1500, "1.5kB"),
        (999.96e9, "1TB"),
        (2e15, "2PB"),
    ],
)
def test_printed_bytes(value: float, expected: str) -> None:
    """Bytes print in decimal units, and in binary ones where only these come out whole."""
    assert units.format_bytes(value) == expected


@given(st.floats(1e-3, 1e20), DIGITS)
def test_counts_round_trip(value: float, digits: int) -> None:
    """A printed count reads back to within half a unit of its last printed digit."""
    assert units.parse_count(units.format_count(value, digits)) == pytest.approx(value, rel=0.51 * 10 ** (1 - digits))


@given(st.floats(1e-3, 1e40), DIGITS)
def test_compute_round_trips(value: float, digits: int) -> None:
    """Printed compute reads back to within half a unit of its last printed digit."""
    assert units.parse_flops(units.format_flops(value, digits)) == pytest.approx(value, rel=0.51 * 10 ** (1 - digits))


@given(st.integers(1, 10**18), DIGITS)
def test_bytes_round_trip(value: int, digits: int) -> None:
    """Printed bytes read back to within half a unit of their last printed digit."""
    assert units.parse_bytes(units.format_bytes(value, digits)) == pytest.approx(value, rel=0.51 * 10 ** (1 - digits))


@given(st.sampled_from(["GB", "GiB", "TiB", "TB"]), st.integers(1, 999), st.integers(1, 65536))
def test_memory_limits_round_trip(unit: str, amount: int, num_devices: int) -> None:
    """A memory limit in whole GB, GiB, TB or TiB reads back from its own text exactly."""
    limit = units.parse_memory(f"{num_devices}x{amount}{unit}")
    assert units.parse_memory(str(limit)) == limit


def test_a_memory_of_devices_that_is_none_is_said_whole() -> None:
    """ "8xH200" names a device where bytes are wanted: the sentence has all that was typed, and what of it is wrong."""
    with pytest.raises(
        UsageError, match=r"^memory limit '8xH200': memory of one device 'H200' is not a quantity; write"
    ):
        units.parse_memory("8xH200")
