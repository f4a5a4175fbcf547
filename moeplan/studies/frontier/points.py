"""A point of a curve, and what points of every curve share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from moeplan import __version__
from moeplan.architecture.conventions import Variables, default_convention
from moeplan.cost.serving.concurrency import decode_seconds
from moeplan.laws import Law
from moeplan.plan.assembly import leverage_of
from moeplan.plan.budget import Budget
from moeplan.plan.choice import Choice
from moeplan.plan.design_time import mfu_and_days
from moeplan.plan.law_selection import LawSelection
from moeplan.plan.notes import edges
from moeplan.plan.search.space import MORE
from moeplan.plan.training_and_serving import serving_gpus_of
from moeplan.studies.frontier.curves import FrontierProvenance, MeasuredRange, Point
from moeplan.studies.frontier.intervals import leverage_ends
from moeplan.texts import counted

BINDS = 1.001
"""Memory binds if 10 % more of it raises V by more than .1 %."""


def bar(done: int, of: int) -> str:
    """Progress as text: [######......] 20 of 40 points."""
    filled = 24 * done // of
    return f"[{'#' * filled}{'.' * (24 - filled)}] {done} of {counted(of, 'point(s)')}"


def point(choice: Choice, laws: LawSelection, x: float, *, along: str = "", priced: bool = False) -> Point:
    """A choice as a point at `x`; with its price of memory where `priced`, its speed where `along` is concurrency."""
    budget, design = choice.budget, choice.design
    leverage = leverage_of(choice, laws.everyone)
    variables = Variables(choice.architecture, budget.seq_len)
    price, time = None, None
    if choice.clock is not None:
        time = mfu_and_days(choice, choice.index)
    if budget.memory is not None and priced:
        price = math.exp(choice.with_more(memory=MORE).best_ln_value - choice.best_ln_value)
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


def measured_ranges(variable: str, laws: LawSelection) -> tuple[MeasuredRange, ...]:
    """Where each law that searches was measured, of a variable."""
    found = []
    for law in laws.searching:
        fit = law.require_objective()
        counted_alike = variable == "train_flops" or fit.convention(variable) == default_convention(variable)
        if variable in fit.domain and counted_alike:
            found.append(MeasuredRange(law.full_name, *fit.domain[variable]))
    return tuple(found)


def provenance(laws: LawSelection, budgets: Sequence[Budget], command: str) -> FrontierProvenance:
    """What a curve was made from."""
    grids = dict.fromkeys(budget.grid(budget.declared_grid()).digest for budget in budgets)
    return FrontierProvenance(
        version=__version__,
        command=command,
        law_digests={law.full_name: law.digest for law in sorted(laws.everyone, key=_name)},
        grid_digests=tuple(grids),
    )


def _name(law: Law) -> str:
    return law.full_name
