"""Curves along what a budget is asked for: every point is what `recommend` answers there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from moeplan.errors import InfeasibleError
from moeplan.plan.assembly import request_for
from moeplan.plan.budget import Budget
from moeplan.plan.choice import Choice
from moeplan.plan.document import Request
from moeplan.plan.law_selection import LawSelection
from moeplan.plan.notes import open_coefficients
from moeplan.plan.planner import search
from moeplan.plan.search.space import MORE
from moeplan.plan.sweep import Sweep
from moeplan.plan.sweep_spaces import Vocabulary
from moeplan.studies.frontier.curves import SCHEMA, Frontier, Point
from moeplan.studies.frontier.intervals import ComputeEnds
from moeplan.studies.frontier.points import bar, measured_ranges, point, provenance
from moeplan.studies.frontier.ranges import Value, amount
from moeplan.texts import counted
from moeplan.units import format_flops


def along(
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
            points[place] = point(choice, laws, x, along=name, priced=name in ("flops", "memory"))
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
        for place, found in points.items():
            vocabulary = _vocabulary(budgets[place])
            with_more = best.get((vocabulary, found.flops * MORE))
            if with_more is not None:
                price = math.exp(with_more - best[vocabulary, found.flops])
                points[place] = dataclasses.replace(found, compute_price=price)
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
        notes=tuple(open_coefficients(laws.everyone)),
        recommended=None,
        held={},
        lines=(),
        ranges=measured_ranges("train_flops", laws) if name == "flops" else (),
        provenance=provenance(laws, budgets, command),
    )


def _memory_place(budget: Budget, counted: bool) -> float:
    """Where a budget stands along memory [bytes]: that of a device, or of all where their number is what changes."""
    assert budget.memory is not None
    return float(budget.memory.bytes_per_device) * (budget.num_devices if counted else 1)


def _one_by_one(sweep: Sweep, done: Callable[[int, Choice], None], count: int) -> None:
    """The choices of a sweep, each by a search of its own."""
    for step in range(count):
        try:
            choice = search(sweep.budgets[step], sweep.laws, threads=sweep.threads, say=lambda _: None)
        except InfeasibleError as error:
            sweep.infeasible[step] = error
        else:
            done(step, choice)


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


def _vocabulary(budget: Budget) -> Vocabulary:
    return budget.vocab_size, bool(budget.tied_embeddings), budget.num_devices
