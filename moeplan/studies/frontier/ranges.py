"""Axes of a curve: ranges of what a budget is asked for, "1e20..1e25", "24GB..640GB", as the values of its points."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from moeplan.cost.devices import MOST_GPUS, Gpus, parse_gpus
from moeplan.errors import UsageError
from moeplan.units import MemoryLimit, parse_flops, parse_memory, range_ends

RANGES = {
    "flops": "1e20..1e25",
    "memory": "24GB..640GB",
    "gpus": "64xH100..1024xH100",
    "days": "7..90",
    "concurrency": "1..64",
}
"""Axes that are given as a range, with an example of each."""
_NODE = 8
"""GPUs of a node: of this many or more, those between the ends are whole nodes."""

Value = float | MemoryLimit | Gpus | int


def read_values(name: str, given: Any, points: int) -> list[Value]:
    """The one value that is given of an axis, or all of a range, "24GB..640GB" or "1e20..1e25".

    Of a range `points` values, evenly spaced in the logarithm, ends included; those between are rounded to as few
    digits as keep them apart, so that they can be typed, and where they are counts to whole ones, GPUs to whole nodes,
    so that there may be fewer. Raises `UsageError` for what is neither, and for ends that are missing, alike, backwards
    or of different kinds.
    """
    parse = _PARSERS[name]
    if ".." not in str(given):
        try:
            return [parse(given)]
        except UsageError as error:
            raise UsageError(f"{error}, or a range like {RANGES[name]}") from None
    text = str(given)
    texts = range_ends(text)
    if texts is None:
        raise UsageError(f"range {text!r} of {name} must be two ends with two dots between, for example {RANGES[name]}")
    if name == "gpus" and texts[0].isdigit():  # 64..1024xH100
        texts = f"{texts[0]}x{str(parse_gpus(texts[1])).partition('x')[2]}", texts[1]
    low, high = (parse(end) for end in texts)
    if isinstance(low, MemoryLimit) and isinstance(high, MemoryLimit) and low.num_devices != high.num_devices:
        return _counts(text, low, high, points)
    if isinstance(low, Gpus) and isinstance(high, Gpus) and (low.device, low.file) != (high.device, high.file):
        raise UsageError(
            f"range {text!r} of gpus is of {low.device.name} and {high.device.name}; give both ends the same device"
        )
    ends = [amount(end) for end in (low, high)]
    if ends[0] == ends[1]:
        raise UsageError(f"range {text!r} of {name} is one point; give moeplan recommend --{name} {texts[0]} instead")
    if ends[0] > ends[1]:
        raise UsageError(f"range {text!r} of {name} runs backwards; write {texts[1]}..{texts[0]}")
    step = math.log(ends[1] / ends[0]) / (points - 1)
    digits = min(max(3, math.ceil(-math.log10(step)) + 1), 15)
    between = {float(f"{ends[0] * math.exp(step * i):.{digits - 1}e}") for i in range(1, points - 1)}
    if name in ("gpus", "concurrency"):
        whole = _NODE if name == "gpus" and ends[0] >= _NODE else 1
        between = {float(round(x / whole) * whole) for x in between}
    values = sorted({x for x in between if ends[0] < x < ends[1]} | set(ends))
    if isinstance(low, MemoryLimit):
        return [MemoryLimit(round(x), low.num_devices) for x in values]
    if isinstance(low, Gpus):
        return [Gpus(round(x), low.device, low.file) for x in values]
    return [round(x) for x in values] if name == "concurrency" else list(values)


def _counts(text: str, low: MemoryLimit, high: MemoryLimit, points: int) -> list[Value]:
    """Limits of one size on ever more devices, 4x80GB..16x80GB: at most `points`, evenly spaced in the logarithm."""
    if low.bytes_per_device != high.bytes_per_device:
        raise UsageError(
            f"range {text!r} of memory is over {low.num_devices} and {high.num_devices} devices of different sizes; "
            "give both ends the same number or the same size, for example 8x24GB..8x80GB or 4x80GB..16x80GB"
        )
    if low.num_devices > high.num_devices:
        first, last = text.split("..")
        raise UsageError(f"range {text!r} of memory runs backwards; write {last.strip()}..{first.strip()}")
    step = math.log(high.num_devices / low.num_devices) / (points - 1)
    counts = {round(low.num_devices * math.exp(step * place)) for place in range(points)}
    return [MemoryLimit(low.bytes_per_device, count) for count in sorted(counts)]


def amount(value: Value) -> float:
    """Where a value stands on its axis: bytes of one device, GPUs, or the number itself."""
    if isinstance(value, MemoryLimit):
        return float(value.bytes_per_device)
    return float(value.count if isinstance(value, Gpus) else value)


def _days(given: Any) -> float:
    try:
        days = float(given)
    except (TypeError, ValueError):
        days = 0.0
    if not 0 < days < 1e6:
        raise UsageError(f"days {given!r} must be a number above 0, for example 30")
    return days


def _sequences(given: Any) -> int:
    text = str(given).strip()
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_GPUS):
        raise UsageError(f"concurrency {given!r} must be a whole number of sequences, for example 8")
    return int(text)


_PARSERS: dict[str, Callable[[Any], Value]] = {
    "flops": parse_flops,
    "memory": parse_memory,
    "gpus": parse_gpus,
    "days": _days,
    "concurrency": _sequences,
}
