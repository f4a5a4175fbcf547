"""Where a condition begins to hold."""

from __future__ import annotations

from collections.abc import Callable


def first_where(holds: Callable[[float], bool], low: float, high: float, steps: int = 60) -> float:
    """The least x in [low, high] at which `holds(x)`, if it holds from there on, to (high - low) / 2**(steps + 1).

    `holds(low)` and `holds(high)` are not asked: x is near an end where it holds everywhere or nowhere.
    """
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return (low + high) / 2
