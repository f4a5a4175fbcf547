"""Choices that stand beside the best design: `near_equal(choice)`.

* **best**: the largest V, ties broken as the search does.
* **lean**: the cheapest to serve of those within `NEAR` of the best V, by active params: a served token costs
  about 2*N_a FLOPs, which is also how `inference_tokens` are paid for.
* **rich**: the most active params of those within `NEAR` of the best V, so the fewest tokens: for few data, or where
  the sparsest designs are further from all that was measured.
* **robust**: the least worst case over the objective laws: the largest min_l C_l(x)/max_y C_l(y), where y is any design
  under the same limits. Weights are no part of it: every law might be the right one.
* **without a law**: the best by the other laws, where a term of that law has turned its sign beyond all that it was
  measured on (`moeplan.laws.terms`) and the law moves N_a by more than `MOVES`.

Designs within .5 % of a rule's best are ties for that rule as for any law, and go the same way. Where training must
fit, each is the first by its rule that some layout trains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from moeplan.architecture.conventions import Variables
from moeplan.errors import InfeasibleError
from moeplan.laws import Law
from moeplan.laws.terms import extrapolated_turns
from moeplan.numerics import Floats
from moeplan.plan.choice import Choice, Pick, choose_by, worst
from moeplan.plan.design_time import design_times
from moeplan.plan.document import NearEqual
from moeplan.plan.search.scores import Scores

RULES = {
    "best": "the largest V, ties of 0.5 % broken",
    "lean": "the fewest active params within 5 % of the best V",
    "rich": "the most active params within 5 % of the best V",
    "robust": "the least loss by the law that loses most",
}
"""The rules that a plan can be chosen by, with what each takes."""
NEAR = 0.05
"""Share of V that the lean and the rich design may cost."""
MOVES = 0.20
"""By what share of N_a a law with a turned term must move the choice for the choice without it to be listed."""


def near_equal(choice: Choice) -> dict[str, Choice]:
    """The choices beside the best one, by rule; one of which nothing can be trained is left out."""
    found = {"best": choice}
    for name, pick in (*_by_size(choice), ("robust", _robust(choice)), *_without(choice)):
        try:
            other = choice.chosen_by(pick)
        except InfeasibleError:
            continue
        if name in RULES or abs(_active(other) / _active(choice) - 1) > MOVES:
            found[name] = other
    return found


def near_equal_rows(choices: dict[str, Choice], plan: Choice) -> tuple[NearEqual, ...]:
    """The choices as a plan lists them; `plan` is the one that it is of."""
    best = choices["best"]
    own = ln_efficiencies(best, best.scores, [choice.index for choice in choices.values()])
    rows = []
    for (name, choice), here in zip(choices.items(), own.T, strict=True):
        worst = int(np.argmin(here))
        rows.append(
            NearEqual(
                rule=name,
                design=choice.design,
                value_share=math.exp(float(best.ln_value[choice.index]) - best.best_ln_value),
                worst_efficiency=math.exp(float(here[worst])),
                worst_law=best.laws[worst].full_name,
                time=next(iter(design_times(plan, [choice.index])), None),
            )
        )
    return tuple(rows)


def ln_efficiencies(choice: Choice, scores: Scores, index: list[int] | slice = slice(None)) -> Floats:
    """ln of C_l(x) / the largest C_l of any design under the same limits, by objective law (rows) and design."""
    return np.stack([scores.of(law)[index] - choice.scores.mean([law]).max() for law in choice.laws])


def _by_size(choice: Choice) -> tuple[tuple[str, Pick], tuple[str, Pick]]:
    """The lean and the rich rule."""
    space = choice.space
    size = np.log(space.values("active_params", np.arange(len(space)), choice.scores))
    near = choice.ln_value >= choice.best_ln_value + math.log1p(-NEAR)

    def pick(wanted: Floats) -> Pick:
        return lambda scores: choose_by(space, np.where(near & scores.feasible, wanted, -np.inf), scores)

    return ("lean", pick(-size)), ("rich", pick(size))


def _robust(choice: Choice) -> Pick:
    least = worst(choice.laws, choice.scores)
    return lambda scores: choose_by(choice.space, np.where(scores.feasible, least, -np.inf), scores)


def _without(choice: Choice) -> Iterator[tuple[str, Pick]]:
    variables = Variables(choice.architecture, choice.budget.seq_len)
    for law in choice.laws:
        rest = [other for other in choice.laws if other != law]
        if rest and extrapolated_turns(law.require_objective(), variables, choice.tokens):
            yield f"without {law.full_name}", _by(choice, rest)


def _by(choice: Choice, laws: list[Law]) -> Pick:
    return lambda scores: choose_by(choice.space, scores.mean(laws), scores)


def _active(choice: Choice) -> int:
    return choice.architecture.active_params()
