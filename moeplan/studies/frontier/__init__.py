"""Curves of recommendations: along what a budget is asked for (`RANGES`), or over one design variable at a budget.

`frontier(Budget("1e22", "80GB"), memory="24GB..640GB")`. Every point of a curve along memory, compute, GPUs, days or
served sequences is what `recommend` answers there. Over a design variable, everything else is re-optimised at each of
its values, by V and by each law alone; a law's line is C_l of its own best design there in units of its best on the
whole curve, so that no two laws' losses meet.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeplan import __version__
from moeplan.architecture.conventions import Variables, default_convention
from moeplan.cost.serving.concurrency import decode_seconds
from moeplan.errors import InfeasibleError, UsageError
from moeplan.laws import Law
from moeplan.numerics import Floats
from moeplan.plan.assembly import leverage_of, request_for
from moeplan.plan.budget import Budget
from moeplan.plan.budget_fields import make_budget
from moeplan.plan.choice import Choice
from moeplan.plan.design_time import mfu_and_days
from moeplan.plan.document import Request
from moeplan.plan.law_selection import Laws, LawSelection, select_laws
from moeplan.plan.notes import edges
from moeplan.plan.planner import check_whole, search
from moeplan.plan.search.space import MORE
from moeplan.plan.search.variables import DESIGN_VARIABLES
from moeplan.plan.sweep import Sweep
from moeplan.plan.sweep_spaces import Vocabulary
from moeplan.plan.training_and_serving import serving_gpus_of
from moeplan.studies.frontier.curves import SCHEMA, Frontier, FrontierProvenance, Line, MeasuredRange, Point
from moeplan.studies.frontier.intervals import ComputeEnds, leverage_ends, line_ends
from moeplan.studies.frontier.ranges import RANGES, Value, amount, read_values
from moeplan.texts import counted
from moeplan.units import MemoryLimit, format_flops

MOST_POINTS = 400
"""Most points of a curve."""
SHOWN_WORTH = 0.25
"""A curve over a variable reaches to where V falls to this share of its best."""
HELD_WITHIN = 0.02
"""How near total_params stays to the recommendation's on a curve over active_param_ratio."""
BINDS = 1.001
"""Memory binds if 10 % more of it raises V by more than .1 %."""


def frontier(
    budget: Budget | str | float | None = None,
    memory: str | MemoryLimit | None = None,
    *,
    flops: str | float | None = None,
    over: str | None = None,
    points: int = 40,
    laws: Laws = None,
    threads: int = 1,
    command: str = "",
    progress: Callable[[str], None] | None = None,
    **fields: Any,
) -> Frontier:
    """Recommendations along a range of memory, compute, GPUs, days or concurrency, or over one design variable.

    Parameters
    ----------
    budget : Budget, or str or float, optional
        The budget, of which what else is given takes the place; or its compute alone, as `flops`.
    flops, memory : str or float, optional
        Compute [FLOPs] and memory limit [bytes]. One of these, or of `gpus`, `days` and `concurrency`, is a range,
        "24GB..640GB", "1e20..1e25", "64xH100..1024xH100", "7..90" or "1..64", both ends included. None is one with a
        design variable in `over`.
    over : str, optional
        A design variable: active_param_ratio (total_params held at the recommendation's unless fixed or bounded),
        granularity, tokens, ...; or again the name of what is given as a range.
    points : int
        How many points, evenly spaced in the logarithm.
    laws, threads, command, progress
        As `moeplan.plan.planner.recommend` takes them.
    **fields
        The other fields of `moeplan.plan.budget.Budget` and of `InferenceSettings`, by name.

    Raises
    ------
    UsageError
        For no range, two, or one that cannot be.
    InfeasibleError
        If no design meets the conditions at any point.
    """
    check_whole("points", points, 2, MOST_POINTS)
    check_whole("threads", threads, 1, 1024)
    say = progress or (lambda _: None)
    selected = select_laws(laws)
    given: dict[str, Any] = dict(budget.words) if isinstance(budget, Budget) else {"flops": budget}
    given.update(
        (n, value) for n, value in (*fields.items(), ("flops", flops), ("memory", memory)) if value is not None
    )
    given = {name: value for name, value in given.items() if value is not None}
    if over in RANGES and ".." in str(given.get(over)):  # said twice
        over = None
    if over is not None:
        ranged = next((name for name in RANGES if ".." in str(given.get(name))), None)
        if ranged:
            raise UsageError(
                f"a curve over {over} is drawn at one budget; give --{ranged} as a number, not as {given[ranged]}"
            )
        _check_variable(over)
        return _over(over, points, make_budget(given), selected, threads, say, command)
    read = {name: read_values(name, given[name], points) for name in RANGES if name in given}
    several = [name for name, values in read.items() if len(values) > 1]
    if len(several) > 1:
        both = " and ".join(several)
        raise UsageError(f"{both} are both ranges; give one as a range and one as a number")
    if not several:
        budget_range = "days" if "days" in given else "flops"
        raise UsageError(
            f"nothing to draw a curve over; give a range, --memory {RANGES['memory']} or --{budget_range} "
            f"{RANGES[budget_range]}, or a design variable, --over granularity"
        )
    (name,) = several
    budgets = [make_budget({**given, name: value}) for value in read[name]]
    return _along(name, budgets, read[name], selected, threads, say, command)


def _memory_place(budget: Budget, counted: bool) -> float:
    """Where a budget stands along memory [bytes]: that of a device, or of all where their number is what changes."""
    assert budget.memory is not None
    return float(budget.memory.bytes_per_device) * (budget.num_devices if counted else 1)


def _check_variable(over: str) -> None:
    if over in RANGES:
        raise UsageError(f"a curve over {over} is asked for by a range, --{over} {RANGES[over]}")
    if over not in DESIGN_VARIABLES:
        near = difflib.get_close_matches(over, DESIGN_VARIABLES, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(DESIGN_VARIABLES)}"
        raise UsageError(f"unknown design variable {over!r}; {hint}")


def bar(done: int, of: int) -> str:
    """Progress as text: [######......] 20 of 40 points."""
    filled = 24 * done // of
    return f"[{'#' * filled}{'.' * (24 - filled)}] {done} of {counted(of, 'point(s)')}"


def _along(
    name: str,
    budgets: list[Budget],
    values: list[Value],
    laws: LawSelection,
    threads: int,
    say: Callable[[str], None],
    command: str,
) -> Frontier:
    """The recommendations along what is given as a range."""
    # A sweep answers budgets from tight to loose with shared searches, so they are sorted; those of one vocabulary have
    # one grid and go together. Along compute, 10 % more of each is asked too, at place -1, to price it.
    groups = list(dict.fromkeys(_vocabulary(budget) for budget in budgets))
    more = {budget.flops * MORE: budget for budget in budgets} if name == "flops" else {}
    steps = [(budget, place) for place, budget in enumerate(budgets)]
    steps += [(dataclasses.replace(budget, flops=flops), -1) for flops, budget in more.items()]
    steps.sort(key=lambda step: (groups.index(_vocabulary(step[0])), step[0].flops, step[0].usable_bytes, -step[1]))
    sweep = Sweep([budget for budget, _ in steps], laws, threads=threads, say=say)
    best: dict[tuple[Vocabulary, float], float] = {}
    points: dict[int, Point] = {}
    requests: dict[int, Request] = {}
    intervals = ComputeEnds(laws)
    counted = len({budget.num_devices for budget in budgets}) > 1

    def done(step: int, choice: Choice) -> None:
        budget, place = steps[step]
        best[_vocabulary(budget), budget.flops] = choice.best_ln_value
        if place >= 0:  # steps come in any order: halves between known ones
            x = _memory_place(budget, counted) if name == "memory" else amount(values[place])
            points[place] = _point(choice, laws, x, along=name, priced=name in ("flops", "memory"))
            intervals.see(place, choice)
            requests[place] = request_for(budget, laws)
            say(bar(len(points), len(budgets)))

    if name == "concurrency":  # each has its own memory of every design
        _one_by_one(sweep, done, len(steps))
    else:
        sweep.choices(done)
    if not points:
        raise sweep.infeasible[0 if name == "concurrency" else len(steps) - 1]
    if name == "flops":
        for place, point in points.items():
            vocabulary = _vocabulary(budgets[place])
            with_more = best.get((vocabulary, point.flops * MORE))
            if with_more is not None:
                price = math.exp(with_more - best[vocabulary, point.flops])
                points[place] = dataclasses.replace(point, compute_price=price)
    for place, ends in intervals.by_place().items():
        points[place] = dataclasses.replace(points[place], compute_ends_by_law=ends)
    failed = {place: sweep.infeasible[step] for step, (_, place) in enumerate(steps) if step in sweep.infeasible}
    failed.pop(-1, None)
    last = max(points)
    return Frontier(
        schema=SCHEMA,
        over=name,
        request=requests[last],
        points=tuple(points[place] for place in sorted(points)),
        left_out=_left_out(name, failed, budgets),
        recommended=None,
        held={},
        lines=(),
        ranges=_ranges("train_flops", laws) if name == "flops" else (),
        provenance=_origin(laws, budgets, command),
    )


def _one_by_one(sweep: Sweep, done: Callable[[int, Choice], None], count: int) -> None:
    """The choices of a sweep, each by a search of its own."""
    for step in range(count):
        try:
            choice = search(sweep.budgets[step], sweep.laws, threads=sweep.threads, say=lambda _: None)
        except InfeasibleError as error:
            sweep.infeasible[step] = error
        else:
            done(step, choice)


def _over(
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
        point = _point(choice.at(index), laws, float(values[index]))
        share = point.flops / choice.flops  # where time is the budget, compute differs; all are told by the same
        if share != 1:
            ratios = {law: ratio * share for law, ratio in point.compute_ratio_by_law.items()}
            point = dataclasses.replace(point, value_ratio=point.value_ratio * share, compute_ratio_by_law=ratios)
        points.append(dataclasses.replace(point, binding=()))  # what binds is told of the best design
        for name, top in tops.items():
            top.append(int(here[np.argmax(alone[name][here])]))
        say(bar(done, len(kept)))
    return Frontier(
        schema=SCHEMA,
        over=over,
        request=request_for(budget, laws, flops=choice.flops),
        points=tuple(points),
        left_out=(),
        recommended=_point(choice, laws, float(values[choice.index]), priced=True),
        held=held,
        lines=tuple(_line(choice, laws, law, tops[law.full_name], values) for law in space.laws),
        ranges=_ranges(over, laws),
        provenance=_origin(laws, [budget], command),
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


def _point(choice: Choice, laws: LawSelection, x: float, *, along: str = "", priced: bool = False) -> Point:
    budget, design = choice.budget, choice.design
    leverage = leverage_of(choice, laws.everyone)
    variables = Variables(choice.architecture, budget.seq_len)
    price, time = None, None
    if choice.clock is not None:
        time = mfu_and_days(choice, choice.index)
    if budget.memory is not None and priced:
        with_more = float(choice.with_more(memory=MORE).mean(choice.laws).max())
        price = math.exp(with_more - choice.best_ln_value)
    binding = ["memory"] if price is not None and price > BINDS else []
    return Point(
        x=x,
        flops=choice.flops,
        memory=None if budget.memory is None else str(budget.memory),
        design=design,
        value_ratio=design.value / choice.flops,
        pooled_leverage=leverage.pooled.efficiency_leverage,
        pooled_low=leverage.pooled.low,
        pooled_high=leverage.pooled.high,
        pooled_decades_outside=leverage.pooled.decades_outside,
        efficiency_leverage=leverage.efficiency_leverage,
        low=leverage.low,
        high=leverage.high,
        decades_outside=leverage.decades_outside,
        allocation_efficiency=leverage.allocation_efficiency,
        leverage_by_law={opinion.law: opinion.efficiency_leverage for opinion in leverage.others},
        leverage_ends_by_law=leverage_ends(laws, variables, float(budget.worth(choice.tokens))),
        compute_ratio_by_law={
            law.full_name: math.exp(float(choice.scores.of(law)[choice.index])) / choice.flops
            for law in choice.space.laws
        },
        compute_ends_by_law={},
        outside=tuple(law.full_name for law in laws.everyone if law.speaks_by.outside(variables, choice.tokens)),
        memory_price=price,
        compute_price=None,
        binding=(*binding, *(["tokens"] if choice.tokens >= math.floor(budget.token_cap) else [])),
        edges=tuple(edges(choice.space.grid, design, budget)),
        mfu=time[0] if time else None,
        days=time[1] if time else None,
        tokens_per_second_per_user=_speed(choice) if along == "concurrency" else None,
    )


def _speed(choice: Choice) -> float:
    """Tokens a second that each of the sequences served at a time sees."""
    budget, architecture = choice.budget, choice.architecture
    gpus = serving_gpus_of(architecture, budget)
    usable = gpus.device.memory_bytes * (1 - budget.headroom)
    serving = budget.serving
    return 1 / decode_seconds(architecture, gpus, serving.context, serving.concurrency, serving, usable)


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


def _ranges(variable: str, laws: LawSelection) -> tuple[MeasuredRange, ...]:
    found = []
    for law in laws.searching:
        fit = law.require_objective()
        counted_alike = variable == "train_flops" or fit.convention(variable) == default_convention(variable)
        if variable in fit.domain and counted_alike:
            found.append(MeasuredRange(law.full_name, *fit.domain[variable]))
    return tuple(found)


def _left_out(name: str, failed: dict[int, InfeasibleError], budgets: list[Budget]) -> tuple[str, ...]:
    """One sentence for all points that have no answer."""
    if not failed:
        return ()
    last = budgets[max(failed)]
    limit = {
        "memory": str(last.memory),
        "gpus": str(last.gpus),
        "days": counted(last.days or 0, "day(s)"),
        "concurrency": counted(last.serving.concurrency, "sequence(s)"),
    }.get(name, f"{format_flops(last.flops)} FLOPs")
    some = "1 point is" if len(failed) == 1 else f"{len(failed)} points are"
    return (f"{some} left out, up to {limit}: {failed[max(failed)]}",)


def _origin(laws: LawSelection, budgets: Sequence[Budget], command: str) -> FrontierProvenance:
    grids = dict.fromkeys(budget.grid(budget.declared_grid()).digest for budget in budgets)
    return FrontierProvenance(
        version=__version__,
        command=command,
        law_digests={law.full_name: law.digest for law in sorted(laws.everyone, key=_name)},
        grid_digests=tuple(grids),
    )


def _name(law: Law) -> str:
    return law.full_name


def _vocabulary(budget: Budget) -> Vocabulary:
    return budget.vocab_size, bool(budget.tied_embeddings), budget.num_devices
