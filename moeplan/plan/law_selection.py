"""The laws that a plan is made by: those whose geometric mean is maximised, and second opinions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from moeplan.errors import UsageError
from moeplan.laws import Law, load_law
from moeplan.laws.roles import LEVERAGE_LAW, OBJECTIVE_LAWS, SECOND_OPINIONS
from moeplan.plan.uncertainty.drawn import DrawnLaw, draw


@dataclass(frozen=True)
class LawSelection:
    """The laws that a plan is made by."""

    objective: tuple[Law, ...]
    """Those whose geometric mean is maximised."""
    second_opinions: tuple[Law, ...]
    """Those that are heard besides."""

    @property
    def everyone(self) -> tuple[Law, ...]:
        """All of them, the objective laws first."""
        return (*self.objective, *self.second_opinions)

    @property
    def searching(self) -> tuple[Law, ...]:
        """Those that can choose a design, the objective laws first (which all must)."""
        return (*self.objective, *(law for law in self.second_opinions if law.can_search))

    @cached_property
    def drawn(self) -> dict[str, DrawnLaw]:
        """The objective laws whose files say how far off their coefficients may be, with draws of these."""
        found = {law.full_name: draw(law) for law in self.objective}
        return {name: drawn for name, drawn in found.items() if drawn is not None}


def select_laws(names: Sequence[str | Path] | None) -> LawSelection:
    """The objective laws by name or file, by default `OBJECTIVE_LAWS`, with the second opinions.

    Raises `UsageError` for none and for one that is named twice.
    """
    if isinstance(names, (str, Path)):
        names = [names]
    objective = tuple(load_law(name) for name in (names if names is not None else OBJECTIVE_LAWS))
    if not objective:
        raise UsageError(f"no law is chosen; name at least one, for example {LEVERAGE_LAW}")
    if len({(law.path, law.objective.name if law.objective else "") for law in objective}) < len(objective):
        raise UsageError("a law is named twice; name each once")
    own = {law.name for law in objective}
    return LawSelection(
        objective, tuple(load_law(name) for name in (LEVERAGE_LAW, *SECOND_OPINIONS) if name not in own)
    )
