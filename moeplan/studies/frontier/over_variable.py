"""A curve over a design variable at one budget, everything else re-optimised at each of its values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from moeplan.architecture.conventions import Variables
from moeplan.errors import UsageError
from moeplan.laws import Law
from moeplan.numerics import Floats
from moeplan.plan.assembly import request_for
from moeplan.plan.budget import Budget
from moeplan.plan.choice import Choice
from moeplan.plan.law_selection import LawSelection
from moeplan.plan.notes import open_coefficients
from moeplan.plan.sweep import Sweep
from moeplan.studies.frontier.curves import SCHEMA, Frontier, Line
from moeplan.studies.frontier.intervals import line_ends
from moeplan.studies.frontier.points import bar, measured_ranges, point, provenance

SHOWN_WORTH = 0.25
"""A curve over a variable reaches to where V falls to this share of its best."""
HELD_WITHIN = 0.02
"""How near total_params stays to the recommendation's on a curve over active_param_ratio."""


def over_variable(
    over: str,
    num_points: int,
    budget: Budget,
    laws: LawSelection,
    threads: int,
    say: Callable[[str], None],
    command: str,
) -> Frontier:
    """The best designs at each value of a variable."""
    # One search scores every design at the budget: the curve is the best of each value among these scores.
    choice = Sweep([budget], laws, threads=threads, say=say).choice(0)
    space, scores = choice.space, choice.scores
    everything = np.arange(len(space))
    values = space.values(over, everything, scores).astype(float)
    eligible, held = scores.feasible if choice.clock is None else space.limit(scores).feasible, {}
    if over == "active_param_ratio" and not budget.limits("total_params"):
        # N_a/N falls as N fills the memory: with N free the curve would show size, not sparsity.
        params = choice.design.total_params
        held = {"total_params": float(params)}
        sizes = space.values("total_params", everything, scores)
        eligible = eligible & (np.abs(sizes / params - 1) <= HELD_WITHIN)
    ln_value = np.where(eligible, scores.unlimited_mean(choice.laws), -np.inf)
    shown = ln_value >= float(ln_value.max()) + math.log(SHOWN_WORTH)
    # Rounded expert widths make many granularities of which few designs have each: the grid's own steps tell more.
    steps = space.grid.granularity if over == "granularity" and not space.grid.d_expert else ()
    places = _bins(values, shown, num_points, steps)
    if choice.clock is not None:
        for place in np.unique(places[eligible & (places >= 0)]):
            choice.settle(eligible & (places == place))
        eligible = eligible & scores.feasible
        ln_value = np.where(eligible, scores.unlimited_mean(choice.laws), -np.inf)
    kept = np.unique(places[eligible & (places >= 0)])
    if len(kept) < 2:
        raise UsageError(
            f"{over} has the one value {values[choice.index]:.4g} under these conditions, so there is no curve over it"
        )
    points = []
    alone = {law.full_name: np.where(eligible, scores.of(law), -np.inf) for law in space.laws}
    tops: dict[str, list[int]] = {name: [] for name in alone}
    for done, place in enumerate(kept, 1):
        here = np.flatnonzero(places == place)
        masked = np.full(len(space), -np.inf)
        masked[here] = ln_value[here]
        index = choice.best_by(masked)
        found = point(choice.at(index), laws, float(values[index]))
        share = found.flops / choice.flops  # where time is the budget, compute differs; all are told by the same
        if share != 1:
            ratios = {law: ratio * share for law, ratio in found.compute_ratio_by_law.items()}
            found = dataclasses.replace(found, value_ratio=found.value_ratio * share, compute_ratio_by_law=ratios)
        points.append(dataclasses.replace(found, binding=()))  # what binds is told of the best design
        for name, top in tops.items():
            top.append(int(here[np.argmax(alone[name][here])]))
        say(bar(done, len(kept)))
    return Frontier(
        schema=SCHEMA,
        over=over,
        request=request_for(budget, laws, flops=choice.flops),
        points=tuple(points),
        left_out=(),
        notes=tuple(open_coefficients(laws.everyone)),
        recommended=point(choice, laws, float(values[choice.index]), priced=True),
        held=held,
        lines=tuple(_line(choice, laws, law, tops[law.full_name], values) for law in space.laws),
        ranges=measured_ranges(over, laws),
        provenance=provenance(laws, [budget], command),
    )


def _bins(values: Floats, shown: NDArray[np.bool_], most: int, steps: Sequence[float]) -> NDArray[np.intp]:
    """The place of each value on the curve, from 0: one for each of `steps`, or for each distinct value, or even steps.

    -1 is off the curve.
    """
    distinct = np.unique(values[shown])
    low, high = float(distinct[0]), float(distinct[-1])
    inside = (low <= values) & (values <= high)
    if 1 < len(steps) <= most:
        ordered = np.array(sorted(steps))
        places = np.searchsorted(np.sqrt(ordered[1:] * ordered[:-1]), values)  # the nearest step, in ratio
    elif len(distinct) <= most:
        places = np.searchsorted(distinct, np.where(inside, values, low))
        inside &= distinct[places] == values
    else:
        scale = np.log if low > 0 else np.asarray
        ends = scale(np.array([low, high]))
        along = (scale(np.where(inside, values, low)) - ends[0]) / (ends[1] - ends[0]) * most
        places = np.minimum(along.astype(np.intp), most - 1)
    return np.where(inside, places, -1)


def _line(choice: Choice, laws: LawSelection, law: Law, indices: list[int], values: Floats) -> Line:
    ln_compute = choice.scores.of(law)
    ratios = [math.exp(float(ln_compute[index])) / choice.flops for index in indices]
    most = max(ratios)
    inside = []
    for index in indices:
        variables = Variables(choice.space.architecture(index), choice.budget.seq_len)
        inside.append(not law.require_objective().outside(variables, float(choice.scores.tokens[index])))
    low, high = line_ends(choice, laws, law, indices)
    return Line(
        law=law.full_name,
        x=tuple(float(values[index]) for index in indices),
        compute_ratio=tuple(ratios),
        relative=tuple(ratio / most for ratio in ratios),
        low=low,
        high=high,
        inside=tuple(inside),
    )
