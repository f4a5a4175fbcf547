"""What a notebook asks of an answer, in methods that lead up to the floors which search and draw; no others do."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from typing import Any

from moeplan.errors import UsageError
from moeplan.records import hints, to_json

FIRST = ("alternatives", "points", "models", "coefficients")
"""The list that an answer's frame is of where none is named, by what it has."""


class Framed:
    """An answer whose lists become data frames."""

    def to_frame(self, of: str = "") -> Any:
        """A list of the answer as a pandas data frame, one row an item, columns named as in JSON.

        Of a plan: alternatives, bands, laws, layouts, near_equal, ...; of a frontier: points. What an item holds in
        another (`memory.total_bytes`) is a column of that path; a design's variables stand by their own names. Raises
        `UsageError` for a list that there is not, naming those that there are, and without pandas.
        """
        known = lists(type(self))
        name = of or next(name for name in FIRST if name in known)
        if name not in known:
            raise UsageError(f"there is no list {of!r} to make a frame of; there are {', '.join(sorted(known))}")
        items: Any = functools.reduce(getattr, known[name].split("."), self)
        return frame([flat(to_json(item)) for item in items])

    def plot(self, of: str = "") -> Any:
        """The charts of the answer, as a notebook shows them; with `of` those whose title has this word: "memory".

        Has `save("plan.svg")`, `to_svg()` and `to_png()`. Raises `UsageError` for a word that no title has.
        """
        from moeplan.report.notebook import drawing

        return drawing(self, of)


def lists(kind: type, path: str = "") -> dict[str, str]:
    """The lists of records that an answer holds, or a record in it does, by name with the way to each."""
    found: dict[str, str] = {}
    below: dict[str, str] = {}
    for field in dataclasses.fields(kind):
        hint = hints(kind)[field.name]
        items = typing.get_args(hint)
        if typing.get_origin(hint) is tuple and dataclasses.is_dataclass(items[0]):
            found[field.name] = f"{path}{field.name}"
        elif dataclasses.is_dataclass(hint) and isinstance(hint, type) and not path:
            below |= lists(hint, f"{field.name}.")
    return below | found


class Searched(Framed):
    """A plan, whose search can be asked again, and which shows itself as tables."""

    def candidates(self, within: float = 0.05, **options: Any) -> Any:
        """Every design that lacks at most `within` of the best V; see `moeplan.plan.candidates.candidates`."""
        from moeplan.plan.candidates import candidates

        return candidates(self, within, **options)  # type: ignore[arg-type]  # a plan is what has this method

    def _repr_html_(self) -> str:
        from moeplan.report.notebook import fragment

        return fragment(self)  # type: ignore[arg-type]


def flat(item: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """One level of what may be several."""
    row: dict[str, Any] = {}
    for name, value in item.items():
        inside = path if name == "design" else f"{path}{name}."
        row |= flat(value, inside) if isinstance(value, Mapping) else {f"{path}{name}": value}
    return row


def frame(data: Any) -> Any:
    """Rows, or columns by name, as a data frame; raises `UsageError` without pandas."""
    try:
        import pandas
    except ImportError:
        raise UsageError("a data frame needs pandas, which is not installed; run: pip install pandas") from None
    return pandas.DataFrame(data)
