"""A number with its interval: `Estimate`."""

from __future__ import annotations

from typing import Self


class Estimate(float):
    """A number that knows its interval; a plain float to everything but who asks for `low` and `high`.

    Which share of draws the interval holds stands once in a result, not with each number. A field NAME of this type has
    three keys in JSON: NAME, NAME_low and NAME_high (`moeplan.records`).
    """

    low: float | None
    """Lower end; None where no interval is known."""
    high: float | None
    """Upper end."""

    def __new__(cls, value: float, low: float | None = None, high: float | None = None) -> Self:
        """A number between its ends."""
        made = super().__new__(cls, value)
        made.low, made.high = low, high
        return made

    def __getnewargs__(self) -> tuple[float, float | None, float | None]:  # type: ignore[override]
        return float(self), self.low, self.high

    def __eq__(self, other: object) -> bool:
        ends = not isinstance(other, Estimate) or (self.low, self.high) == (other.low, other.high)
        return ends and float(self) == other

    def __ne__(self, other: object) -> bool:  # float has its own
        return not self == other

    __hash__ = float.__hash__


def times(number: Estimate, factor: float) -> Estimate:
    """The number and its ends times a positive factor."""
    low, high = (None if end is None else end * factor for end in (number.low, number.high))
    return Estimate(float(number) * factor, low, high)


def inverse(number: Estimate, over: float) -> Estimate:
    """`over` divided by the number and its ends, which change places."""
    low, high = (None if end is None else over / end for end in (number.high, number.low))
    return Estimate(over / float(number), low, high)
