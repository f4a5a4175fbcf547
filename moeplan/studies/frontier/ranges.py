"""Axes of a curve: ranges of compute or memory, "1e20..1e25", "24GB..640GB", as the values of its points."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from moeplan.errors import UsageError
from moeplan.units import MemoryLimit, parse_flops, parse_memory, range_ends

RANGES = {"flops": "1e20..1e25", "memory": "24GB..640GB"}
"""Axes that are given as a range, with an example of each."""


def read_values(name: str, given: str | float | MemoryLimit, points: int) -> list[float | MemoryLimit]:
    """The one value that is given of "flops" or "memory", or all of a range, "24GB..640GB" or "1e20..1e25".

    Of a range `points` values, evenly spaced in the logarithm, ends included; those between are rounded to as few
    digits as keep them apart, so that they can be typed. Raises `UsageError` for what is neither, and for ends that
    are missing, alike, backwards or of different kinds.
    """
    parse: Callable[[Any], float | MemoryLimit] = parse_memory if name == "memory" else parse_flops
    if ".." not in str(given):
        try:
            return [parse(given)]
        except UsageError as error:
            raise UsageError(f"{error}, or a range like {RANGES[name]}") from None
    text = str(given)
    texts = range_ends(text)
    if texts is None:
        raise UsageError(f"range {text!r} of {name} must be two ends with two dots between, for example {RANGES[name]}")
    low, high = (parse(end) for end in texts)
    devices = [end.num_devices for end in (low, high) if isinstance(end, MemoryLimit)]
    if len(set(devices)) > 1:
        return _counts(text, low, high, points)
    ends = [float(end.bytes_per_device) if isinstance(end, MemoryLimit) else end for end in (low, high)]
    if ends[0] == ends[1]:
        raise UsageError(f"range {text!r} of {name} is one point; give moeplan recommend --{name} {texts[0]} instead")
    if ends[0] > ends[1]:
        raise UsageError(f"range {text!r} of {name} runs backwards; write {texts[1]}..{texts[0]}")
    step = math.log(ends[1] / ends[0]) / (points - 1)
    digits = min(max(3, math.ceil(-math.log10(step)) + 1), 15)
    between = {float(f"{ends[0] * math.exp(step * i):.{digits - 1}e}") for i in range(1, points - 1)}
    values = sorted({x for x in between if ends[0] < x < ends[1]} | set(ends))
    return [MemoryLimit(round(x), devices[0]) for x in values] if devices else list(values)


def _counts(text: str, low: Any, high: Any, points: int) -> list[float | MemoryLimit]:
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
