"""Intervals of a curve by fitted laws: its own designs, judged under draws of the laws' coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moeplan.architecture.conventions import Variables
from moeplan.laws import Law
from moeplan.plan.choice import Choice
from moeplan.plan.law_selection import LawSelection
from moeplan.plan.search.reference import Reference
from moeplan.plan.uncertainty.drawn import ends
from moeplan.plan.uncertainty.redraw import designs_ln_compute, drawn_ln_compute


def leverage_ends(laws: LawSelection, v: Variables, tokens: float) -> dict[str, tuple[float, ...]]:
    """Intervals of EL of a design trained on (the worth of) `tokens`, by the fitted laws."""
    found: dict[str, tuple[float, ...]] = {}
    for name, drawn in laws.drawn.items():
        leverages = drawn.leverages(v, tokens)
        between = None if leverages is None else ends(leverages)
        if between is not None:
            found[name] = between
    return found


def line_ends(
    choice: Choice, laws: LawSelection, law: Law, indices: Sequence[int]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Lower and upper ends of C_l of designs / its largest among them, by one law; empty without draws."""
    drawn = laws.drawn.get(law.full_name)
    if drawn is None:
        return (), ()
    ln_ratio = drawn_ln_compute(choice, drawn, np.array(indices))
    found = [ends(np.exp(one)) for one in (ln_ratio - ln_ratio.max(axis=1, keepdims=True)).T]
    if any(one is None for one in found):
        return (), ()
    return tuple(one[0] for one in found if one), tuple(one[1] for one in found if one)


class ComputeEnds:
    """Intervals of C_l/C of the designs along memory or compute: under each draw, against that draw's own best designs.

    The draws change the reference curves, which designs of one vocabulary share: all are judged together, at the end.
    """

    def __init__(self, laws: LawSelection) -> None:
        self.laws = laws
        self._flops: dict[int, float] = {}
        self._designs: dict[tuple[str, Reference], dict[int, tuple[Variables, float, float]]] = {}

    def see(self, place: int, choice: Choice) -> None:
        """Remember the design at a place of the curve."""
        budget, space = choice.budget, choice.space
        self._flops[place] = choice.flops
        v, worth = Variables(choice.architecture, budget.seq_len), float(budget.worth(choice.tokens))
        for law, reference in zip(space.laws, space.references, strict=True):
            if law.full_name in self.laws.drawn:
                design = v, worth, float(v.get("flops_per_token", space.flops)) * worth
                self._designs.setdefault((law.full_name, reference), {})[place] = design

    def by_place(self) -> dict[int, dict[str, tuple[float, ...]]]:
        """The ends, by place and law."""
        found: dict[int, dict[str, tuple[float, ...]]] = {place: {} for place in self._flops}
        for (law, reference), designs in self._designs.items():
            ln_compute = designs_ln_compute(reference, self.laws.drawn[law], list(designs.values()))
            for place, under in zip(designs, ln_compute.T, strict=True):
                between = ends(np.exp(under) / self._flops[place])
                if between is not None:
                    found[place][law] = between
        return found
