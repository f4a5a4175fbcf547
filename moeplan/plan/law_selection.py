"""The laws that a plan is made by: those whose geometric mean is maximised, with weights, and second opinions."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from moeplan.errors import UsageError
from moeplan.laws import Law, law_names, load_law
from moeplan.laws.roles import LEVERAGE_LAW, OBJECTIVE_LAWS, SECOND_OPINIONS
from moeplan.plan.uncertainty.drawn import DrawnLaw, draw

Name = str | Path
"""A law by its name, or its file."""


@dataclass(frozen=True)
class LawSelection:
    """The laws that a plan is made by."""

    objective: tuple[Law, ...]
    """Those whose geometric mean is maximised, each with its weight."""
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

    @property
    def weights(self) -> dict[str, float]:
        """Weights by law, in the words that it was asked for by; empty if all are equal."""
        given = {law.source: law.weight for law in self.objective}
        return given if len(set(given.values())) > 1 else {}

    @cached_property
    def drawn(self) -> dict[str, DrawnLaw]:
        """The objective laws whose files say how far off their coefficients may be, with draws of these."""
        found = {law.full_name: draw(law) for law in self.objective}
        return {name: drawn for name, drawn in found.items() if drawn is not None}


Laws = LawSelection | Mapping[Name, float | None] | Sequence[Name] | Name | None
"""What a plan's laws can be given as."""


def select_laws(laws: Laws = None, within: Sequence[Law] | None = None) -> LawSelection:
    """The objective laws, each with its weight, and the second opinions.

    A name or file alone belongs to the set that is maximised, with weight 1. "zhao2025=0.5", or a mapping's entry with
    a number, sets the weight of a law: of the set named beside it, else of `within`, by default `OBJECTIVE_LAWS`; a law
    that is not in there joins. A file whose name holds "=" is that file. Only ratios of weights matter.

    Raises `UsageError` for no law, for one that is named twice, and for a weight that is no finite number above 0.
    """
    if isinstance(laws, LawSelection):
        return laws
    if isinstance(laws, (str, Path)):
        laws = [laws]
    pairs = laws.items() if isinstance(laws, Mapping) else map(_read, laws or ())
    named = [(load_law(name), None if weight is None else _weight(weight, name)) for name, weight in pairs]
    if laws is not None and not named:
        raise UsageError(f"no law is chosen; name at least one, for example {LEVERAGE_LAW}")
    if len({_identity(law) for law, _ in named}) < len(named):
        raise UsageError("a law is named twice; name each once")
    chosen = {}
    if not any(weight is None for _, weight in named):
        chosen = {_identity(law): law for law in (map(load_law, OBJECTIVE_LAWS) if within is None else within)}
    for law, weight in named:
        chosen[_identity(law)] = law if weight is None else dataclasses.replace(law, weight=weight)
    own = {law.name for law in chosen.values()}
    return LawSelection(
        tuple(chosen.values()), tuple(load_law(name) for name in (LEVERAGE_LAW, *SECOND_OPINIONS) if name not in own)
    )


def laws_again(before: Sequence[str], weights: Mapping[str, float], given: Sequence[str]) -> Laws:
    """The laws of a plan made again: those `given` now, else those `before`; weights given alone are of the latter."""
    if not given and not weights:
        return before
    own = select_laws({name: weights.get(name, 1.0) for name in before}, within=())
    if not given:
        return own
    return given if any(weight is None for _, weight in map(_read, given)) else select_laws(given, own.objective)


def law_words(laws: Laws) -> tuple[str, ...]:
    """The words that ask for the same laws again, as `select_laws` reads them; none for the default."""
    if not laws:
        return ()
    if not isinstance(laws, LawSelection):
        return (str(laws),) if isinstance(laws, (str, Path)) else tuple(map(str, laws))
    first = laws.objective[0].weight  # only ratios matter, and a set is named by a law without a weight
    return tuple(
        law.source if law.weight == first else f"{law.source}={law.weight / first:.10g}" for law in laws.objective
    )


def _identity(law: Law) -> tuple[str, str]:
    """What tells one law from another, whatever it is asked for by."""
    return law.path, law.objective.name if law.objective else ""


def _read(text: Name) -> tuple[Name, float | None]:
    """A law's name or file, with the weight that stands behind it."""
    if isinstance(text, Path) or "=" not in text or os.path.exists(text):
        return text, None
    name, _, weight = text.rpartition("=")
    try:
        return name, float(weight)
    except ValueError:
        if name.partition("/")[0] in law_names() or os.path.exists(name):
            raise UsageError(f"weight {weight!r} of law {name} must be a number above 0, as in {name}=0.5") from None
        return text, None


def _weight(weight: object, name: Name) -> float:
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not number or not 0 < float(weight) < math.inf:  # type: ignore[arg-type]
        raise UsageError(
            f"weight {weight!r} of law {name} must be a finite number above 0, as in {name}=0.5; a law is left out by "
            "naming the others"
        )
    return float(weight)  # type: ignore[arg-type]
