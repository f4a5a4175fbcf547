"""A law file's statements on its terms, as text: `a falls with expansion_ratio where active_params < 1.34e10`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_STATEMENT = re.compile(r"(\w+) (falls|rises|turns) with (\w+)(?: where (\w+) ([<>]) ([\d.e+-]+))?")


@dataclass(frozen=True)
class Statement:
    """A statement of a law's file on one term and one variable."""

    term: str
    """The term."""
    direction: str
    """falls, rises or turns."""
    variable: str
    """The variable that is moved."""
    where: str = ""
    """The variable that bounds the region; "" for everywhere."""
    below: bool = False
    """Whether the region is below the bound."""
    bound: float = 0.0
    """The bound."""

    @property
    def region(self) -> str:
        """Where it holds, in words."""
        bound = f"{self.bound:g}".replace("e+", "e")
        return f"{self.where} {'<' if self.below else '>'} {bound}" if self.where else "everywhere"

    def __str__(self) -> str:
        region = f" where {self.region}" if self.where else ""
        return f"{self.term} {self.direction} with {self.variable}{region}"


def read_statement(text: str) -> Statement | None:
    """A statement from its text; None for a text that is none."""
    match = _STATEMENT.fullmatch(text)
    if match is None:
        return None
    term, direction, variable, where, side, bound = match.groups()
    try:
        return Statement(term, direction, variable, where or "", side == "<", float(bound or 0))
    except ValueError:
        return None
