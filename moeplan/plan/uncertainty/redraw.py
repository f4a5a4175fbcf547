"""A plan under a fitted law as it might have come out: the optimum found again for every draw of the coefficients.

For each draw (`moeplan.laws.draws`) of the chosen laws that have draws, the others at their own coefficients, V is
judged anew, its reference curves included (`LossReference.under`), and the best design chosen by the search's own rule.
Only designs that can be near the best are asked (`moeplan.numerics.branch_and_bound`). Intervals are percentiles over
the draws, as in a fit's own report (`moeplan.numerics.intervals`).

Two laws' draws are independent of each other. Whether some layout can train a design is not asked again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from moeplan.architecture.conventions import Variables
from moeplan.errors import LawError
from moeplan.estimates import Estimate
from moeplan.laws import Law
from moeplan.laws.draws import DRAWS, SEED, Drawn, law_draws
from moeplan.laws.law import relative_weights
from moeplan.laws.leverage import leverage_by
from moeplan.numerics import Floats, Indices
from moeplan.numerics.branch_and_bound import Boxes, Part
from moeplan.plan.choice import Choice
from moeplan.plan.search.reference import Reference
from moeplan.plan.search.scores import Scores
from moeplan.plan.search.space import TIE, Space
from moeplan.plan.search.variables import DESIGN_VARIABLES
from moeplan.plan.uncertainty.drawn import LEVEL, DrawnLaw, ends
from moeplan.plan.uncertainty.result import LawUncertainty, PlanUncertainty, VariableUncertainty

REACHES = ((0.5, 0.5), (3.0, 1.5), (9.0, 4.0))
"""How far below and above the laws' C_l near the best V the reference curves are drawn anew, in ln C: the next where
the designs that matter lie beyond."""
_NEAR = 0.05
"""Share of V below the best within which designs say where that is."""
_COVERS = (
    "Intervals cover what the runs leave open of the law's coefficients (and, for one run's loss, the scatter of the "
    "runs about the law). They do not cover an error of the equation itself, nor what may change beyond the runs."
)


@dataclasses.dataclass(frozen=True)
class Optima:
    """The best design under each draw."""

    chosen: Indices
    """Its index in the scores, ties broken as the search does, one for each usable draw."""
    regret: Floats
    """ln of the best V / the plan's V, one for each usable draw."""
    unusable: int
    """Draws that give no finite number."""


def plan_uncertainty(choice: Choice, *, count: int = DRAWS, seed: int = SEED) -> PlanUncertainty | None:
    """Intervals of a choice from what the runs behind its laws leave open; None if no law has draws."""
    laws, scores = choice.laws, choice.scores
    draws = {law.full_name: law_draws(law, count, seed) for law in laws}
    drawn = [law for law in laws if draws[law.full_name]]
    if not drawn:
        return None
    optima = redraw(choice, draws, count)
    # Many draws choose the same design: each is described once.
    v, tokens = Variables(choice.architecture, choice.budget.seq_len), choice.budget.worth(choice.tokens)
    distinct, back = np.unique(optima.chosen, return_inverse=True)
    variables = []
    for name in DESIGN_VARIABLES:
        values = choice.space.values(name, distinct, scores)[back].astype(float)
        own = float(choice.space.values(name, np.array([choice.index]), scores)[0])
        shares = (0.5 - LEVEL / 2, 0.5, 0.5 + LEVEL / 2)
        # Nearest, so that the ends are values of real designs: no 7.5 experts.
        low, middle, high = (float(x) for x in np.quantile(values, shares, method="nearest"))
        variables.append(VariableUncertainty(name, own, low, middle, high))
    return PlanUncertainty(
        level=LEVEL,
        draws=count,
        unusable=optima.unusable,
        held=tuple(law.full_name for law in laws if law not in drawn),
        variables=tuple(variables),
        laws=tuple(law_uncertainty(DrawnLaw(law, draws[law.full_name], seed), v, float(tokens)) for law in drawn),
        same_design=float(np.mean(optima.regret <= -math.log1p(-TIE))),
        efficiency_median=math.exp(-float(np.quantile(optima.regret, 0.5))),
        efficiency_low=math.exp(-float(np.quantile(optima.regret, LEVEL))),
        covers=_COVERS,
    )


def redraw(choice: Choice, draws: Mapping[str, Mapping[str, Drawn]], count: int) -> Optima:
    """The best design of a choice's scores under every draw of its laws, beside the chosen one."""
    space, scores, laws = choice.space, choice.scores, choice.laws
    feasible = np.flatnonzero(scores.feasible)
    ln_value = choice.ln_value
    # Draws move R(C) and L(x) together, so that designs near the best stay near it: the knots around their C_l suffice
    # under most draws, and fewer knots cost less. `REACHES` widens where they do not.
    near = np.flatnonzero(ln_value >= choice.best_ln_value + math.log1p(-_NEAR))
    references: list[tuple[Law, list[Reference]]] = []
    addend, weights, shares = np.zeros(len(feasible)), [], relative_weights(laws)
    for law, weight in zip(laws, shares, strict=True):
        if draws[law.full_name]:
            ln_compute = scores.of(law)[np.append(near, choice.index)]
            references.append((law, _around(space.reference(law), ln_compute)))
            weights.append(weight)
        else:
            addend += weight * scores.of(law)[feasible]  # a law without draws says the same under every draw
    whole = sum(shares)
    addend /= whole
    coordinates = _Coordinates(space, scores, [law for law, _ in references], feasible)
    boxes = Boxes(coordinates.columns, addend)
    # Designs whose V bounds the best of a draw from below before any search: the plan's, the best at the laws' own
    # coefficients, and every optimum found so far. The higher the bound, the more boxes are left unasked.
    known = [int(np.searchsorted(feasible, place)) for place in (choice.index, int(np.argmax(ln_value)))]
    ties: list[Indices] = []
    regret = []
    for place in range(count):
        drawn = _under(references, draws, place, *coordinates.designs(coordinates.columns[:, known]))
        value = coordinates.value(drawn, weights, whole)
        at_known = value(coordinates.columns[:, known]) + addend[known]
        if not np.isfinite(at_known).all():
            continue  # counted as unusable; half of them are refused below
        parts = coordinates.parts(drawn, weights, whole)
        found, values = boxes.near(value, float(at_known.max()), -math.log1p(-TIE), parts)
        best = int(found[np.argmax(values)])
        if best not in known:
            known.append(best)
        ties.append(feasible[found])
        regret.append(float(values.max()) - float(at_known[0]))
    # Percentiles of a minority of the draws would be those of the draws that happen to work.
    if 2 * len(ties) <= count:
        raise LawError(
            f"law {', '.join(law.full_name for law, _ in references)} gives no finite number for the plan under "
            f"{count - len(ties)} of {count} draws of its coefficients; check its covariance"
        )
    return Optima(_chosen(space, scores, ties), np.array(regret), count - len(ties))


def drawn_ln_compute(choice: Choice, drawn: DrawnLaw, indices: Indices) -> Floats:
    """ln C_l of the designs at `indices` of a choice's scores, under each draw of a law, (draws, designs)."""
    distinct, back = np.unique(indices, return_inverse=True)
    coordinates = _Coordinates(choice.space, choice.scores, [drawn.law], distinct)
    designs = coordinates.designs(coordinates.columns)
    return _judged(choice.space.reference(drawn.law), drawn, *designs, coordinates.columns[-1])[:, back]


def designs_ln_compute(
    reference: Reference, drawn: DrawnLaw, designs: Sequence[tuple[Variables, float, float]]
) -> Floats:
    """ln C_l of designs by one law under each draw, (draws, designs); within 3 % over four decades of compute.

    A design is its variables, (the worth of) its tokens, and the training FLOPs of these.
    """
    variables, tokens, train = zip(*designs, strict=True)
    stacked = {key: np.array([float(v.get(*key)) for v in variables]) for key in sorted(_seen(drawn.law))}
    v = Variables.known(stacked, variables[0].seq_len)
    return _judged(reference, drawn, v, np.array(tokens), np.array(train))


def _judged(reference: Reference, drawn: DrawnLaw, v: Variables, tokens: Floats, train: Floats) -> Floats:
    """ln C_l of designs under each draw, (draws, designs)."""
    references = [(drawn.law, _around(reference, reference.judge(v, tokens, train)))]
    draws = {drawn.law.full_name: drawn.draws}
    under = (_under(references, draws, place, v, tokens)[0] for place in range(drawn.count))
    return np.array([one.judge(v, tokens, train) for one in under])


def _around(reference: Reference, ln_compute: Floats) -> list[Reference]:
    """The reference around ln C_l of the designs that matter, within each reach."""
    low, high = float(ln_compute.min()), float(ln_compute.max())
    return [reference.around(low - below, high + above) for below, above in REACHES]


def _under(
    references: Sequence[tuple[Law, list[Reference]]],
    draws: Mapping[str, Mapping[str, Drawn]],
    place: int,
    v: Variables,
    tokens: Floats,
) -> list[Reference]:
    """The references under one draw, each of the least reach that holds the designs that matter."""
    found: list[Reference] = []
    for law, reaches in references:
        fit = law.require_objective()
        drawn = draws[law.full_name][fit.name].fit(fit, place)
        for reference in reaches:
            under = reference.under(drawn)
            if under.covers(v, tokens):
                break
        found.append(under)
    return found


def _chosen(space: Space, scores: Scores, ties: Sequence[Indices]) -> Indices:
    """The design that the search chooses among the ties of each draw: their order is the same under every draw."""
    distinct, back = np.unique(np.concatenate(ties), return_inverse=True)
    rank = space.rank(distinct, scores)[back]
    stops = np.cumsum([len(tie) for tie in ties])[:-1]
    return np.array([tie[np.argmin(r)] for tie, r in zip(ties, np.split(rank, stops), strict=True)])


def _seen(law: Law) -> set[tuple[str, str]]:
    """Variables of a law's equation but tokens, each with its convention."""
    seen: set[tuple[str, str]] = set()
    for fit in (law.require_objective(), law.allocation):
        for name in fit.variables if fit else ():
            if name == "tokens_per_param":
                seen.add(("active_params", "with_embeddings"))
            elif name != "tokens" and fit:
                seen.add(("flops_per_token" if name == "train_flops" else name, fit.convention(name)))
    return seen


class _Coordinates:
    """Coordinates of each design in the drawn laws: their variables by convention, tokens, and training FLOPs."""

    def __init__(self, space: Space, scores: Scores, laws: Sequence[Law], kept: Indices) -> None:
        self.seq_len, budget = space.budget.seq_len, space.budget
        keys: dict[tuple[str, str], None] = {}
        self._seen: list[set[tuple[str, str]]] = []
        self._leverage = [law.require_objective().predicts == "efficiency_leverage" for law in laws]
        for law in laws:
            self._seen.append(_seen(law))
            keys |= dict.fromkeys(sorted(self._seen[-1]))
        self.keys = list(keys)

        def rows(v: Variables, tokens: Floats) -> Floats:
            own = [np.broadcast_to(v.get(name, convention), tokens.shape) for name, convention in self.keys]
            worth = budget.worth(tokens)
            return np.stack([*own, worth, v.get("flops_per_token", space.flops) * worth])

        self.columns: Floats = space.each(rows, scores)[:, kept]
        # Losses do not see moeplan's count of FLOPs, and each coordinate doubles the corners of a box.
        if not any(self._leverage):
            self.columns = self.columns[:-1]

    def designs(self, columns: Floats) -> tuple[Variables, Floats]:
        """Coordinates as variables, and tokens."""
        return Variables.known(dict(zip(self.keys, columns, strict=False)), self.seq_len), columns[len(self.keys)]

    def parts(self, references: Sequence[Reference], weights: Sequence[float], whole: float) -> list[Part]:
        """The value of each reference, with the coordinates that it sees: variables, tokens, FLOPs for leverage."""
        # V is a sum over laws, and each law sees few coordinates: bounds over its own alone are far tighter.
        found: list[Part] = []
        for reference, weight, seen, leverage in zip(references, weights, self._seen, self._leverage, strict=True):
            rows = [place for place, key in enumerate(self.keys) if key in seen]
            rows += [len(self.keys), *([len(self.keys) + 1] if leverage else [])]
            found.append((rows, self.value([reference], [weight], whole)))
        return found

    def value(
        self, references: Sequence[Reference], weights: Sequence[float], whole: float
    ) -> Callable[[Floats], Floats]:
        """Of coordinates: the weighted sum of ln C_l over the references / the `whole` weight of all laws."""

        def judged(columns: Floats) -> Floats:
            v, tokens = self.designs(columns)
            train = columns[-1]
            total: Any = 0.0
            for reference, weight in zip(references, weights, strict=True):
                total = total + weight * reference.judge(v, tokens, train)
            return np.asarray(total / whole)

        return judged


def law_uncertainty(drawn: DrawnLaw, v: Variables, tokens: float) -> LawUncertainty:
    """Loss and leverage, with intervals, of one design trained on (the worth of) `tokens` by a law with draws."""
    law, fit = drawn.law, drawn.law.require_objective()
    loss, runs, leverage = None, None, None
    if fit.predicts == "loss":
        under = drawn.predictions(v, tokens)
        loss = Estimate(float(fit.at(v, tokens)), *(ends(under) or ()))
        measured = drawn.run_losses(under)
        runs = None if measured is None else ends(measured)
    if law.has_dense:
        leverage = leverage_by(law, v, tokens).efficiency_leverage
    leverages = drawn.leverages(v, tokens)
    between = None if leverages is None else ends(leverages)
    source = drawn.draws[fit.name]
    basis = "the fit's own draws"
    if not source.stored:
        basis = "drawn from the normal with its file's covariance, too wide where coefficients trade along a curve"
    if source.held:
        basis += f"; {source.held} of {drawn.count} draws held at a bound of the form"
    return LawUncertainty(
        law=law.full_name,
        loss=loss,
        run_low=runs[0] if runs else None,
        run_high=runs[1] if runs else None,
        efficiency_leverage=leverage if leverage is not None and math.isfinite(leverage) else None,
        leverage_low=between[0] if between else None,
        leverage_high=between[1] if between else None,
        basis=basis,
        sees=fit.variables,
        inside=not fit.outside(v, tokens) if fit.domain else None,
    )
