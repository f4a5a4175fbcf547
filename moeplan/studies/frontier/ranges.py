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
        raise UsageError(
            f"range {text!r} of memory is over {devices[0]} and {devices[1]} devices; give both ends "
            "the same number, for example 8x24GB..8x80GB"
        )
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
