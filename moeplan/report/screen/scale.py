"""A ratio with its interval and the opinions behind it, drawn to scale in two lines of plain characters.

..o-----o------+------oo-----.o
  2.0x        3.4x         5.7x
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from moeplan.report.text import Number, Text, joined

WIDTH = 60
"""Columns of the drawing; text below it may reach a little further."""


def scale(low: Number, high: Number, middle: Number | None, opinions: Iterable[float]) -> tuple[Text, Text]:
    """The drawing, on a logarithmic scale, and the numbers below their places.

    Dashes are the interval, a plus its middle where there is one, each "o" an opinion.
    """
    marks = [value for value in opinions if value > 0]
    first, last = (math.log(pick([low.value, high.value, *marks])) for pick in (min, max))

    def place(value: float) -> int:
        return round((math.log(value) - first) / (last - first) * (WIDTH - 1)) if last > first else 0

    line = ["."] * WIDTH
    for column in range(place(low.value), place(high.value) + 1):
        line[column] = "-"
    for value in marks:
        line[place(value)] = "o"
    numbers = [low, high]
    if middle is not None:
        numbers.insert(1, middle)
        line[place(middle.value)] = "+"
    parts: list[str | Number] = []
    end = 0
    for number in numbers:
        start = place(number.value) - len(number.text) // 2
        gap = max(start - end, 2 if parts else 0)
        parts += [" " * gap, number]
        end += gap + len(number.text)
    return Text("".join(line)), joined(parts)
