"""The pooled leverage on a first screen: its interval and the laws behind it to scale, in plain characters.

..o-----o------+------oo-----.o
  2.0x        3.4x         5.7x
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from moeplan.laws.pooling import PooledLeverage
from moeplan.report.blocks import Section, Table
from moeplan.report.text import Number, Text, joined
from moeplan.report.view import View

LEVERAGE = "Leverage: compute of the best dense model of equal loss / its compute"
"""What the scale shows."""
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


def leverage_section(pooled: View[PooledLeverage]) -> Section:
    """The pooled leverage with its interval to scale, what it rests on, and the range of the laws."""
    point = None if pooled.efficiency_leverage is None else pooled.number_at("efficiency_leverage", "2")
    drawn = scale(pooled.number_at("low", "2"), pooled.number_at("high", "2"), point, pooled.by_law.values())
    far = "; extrapolated {decades_outside:2} decade(s)" if pooled.decades_outside else "; within measured compute"
    line = "--- " if point is None else "-+- middle, "
    rows = [
        *drawn,
        pooled(
            f"{line}{{level}} interval of {{laws}} law(s) and {{studies:d}} studies{far}",
            laws=pooled.count_at("weights"),
        ),
    ]
    if len(pooled.by_law) > 1:
        low, high = (pick(pooled.by_law, key=pooled.by_law.__getitem__) for pick in (min, max))
        rows.append(pooled(f"o   a law: {{by_law[{low}]:2}} by {low} to {{by_law[{high}]:2}} by {high}"))
    return Section(LEVERAGE, (Table(tuple((row,) for row in rows)),))
