"""What a budget was found for, as blocks of a plan's report."""

from __future__ import annotations

from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.document import Plan
from moeplan.plan.goal import Goal
from moeplan.report.blocks import Block, Items, Paragraph, Source, Table, at, mark, number, percent, times
from moeplan.units import format_bytes, format_count, format_flops

SEARCHED = Source(
    "Found by searching the limits in steps of 1 % for the first whose recommendation reaches the target; the "
    "interval's ends are searched for in the same way, with the target multiplied and divided.",
    LEVERAGE_LAW,
    f"FLOPs of the exact shape, forward + backward; a dense model's work in {LEVERAGE_LAW}'s FLOPs: C*phi against "
    "C*EL*phi",
)


def goal_blocks(plan: Plan, goal: Goal) -> tuple[Block, ...]:
    """What was asked for, what was found, how sure and how flat that is."""
    return (
        Paragraph(_found(plan, goal), SEARCHED),
        Items(tuple(_sure(plan, goal)), SEARCHED),
        Table(
            tuple(_row(goal, place) for place in range(len(goal.neighbours))),
            ("compute [FLOPs]" if goal.finds == "flops" else "memory", "params", "tokens", "EL", "of what was asked"),
            right=(0, 2, 3, 4),
            strong=tuple(i for i, point in enumerate(goal.neighbours) if point.budget == goal.found),
            source=SEARCHED,
        ),
    )


def _limit(goal: Goal, value: float) -> str:
    return f"{format_flops(value)} FLOPs" if goal.finds == "flops" else format_bytes(value)


def _found(plan: Plan, goal: Goal) -> str:
    leverage = plan.leverage
    within = str(plan.request.memory) if goal.finds == "flops" else f"{format_flops(plan.request.flops)} FLOPs"
    what = "compute" if goal.finds == "flops" else "memory"
    found = f"In steps of 1 %, the smallest {what} whose recommendation reaches it is {_limit(goal, goal.found)}"
    if goal.dense is None:
        assert goal.target_efficiency_leverage is not None
        return (
            f"Asked for: an Efficiency Leverage of {goal.target_efficiency_leverage:g} within {within}. {found}: "
            f"{mark(times(leverage.efficiency_leverage), leverage.decades_outside)}."
        )
    dense = goal.dense
    kind = f"a dense {dense.asked} model" if dense.asked[:1].isdigit() else dense.asked
    if within == dense.memory:
        within += ", what it needs itself"
    text = (
        f"Asked for: the work of {kind} ({format_count(dense.total_params)} params) on {format_count(dense.tokens)} "
        f"tokens within {within}. That is {format_flops(dense.train_flops)} FLOPs as {LEVERAGE_LAW} counts, of which "
        f"{percent(dense.allocation_efficiency)} count (phi), because they are not split into size and tokens as it "
        f"finds best for dense models. {found}"
    )
    if goal.finds == "flops":
        own = plan.counts.flops_per_token_tian2025 * plan.design.tokens
        text += f", {times(dense.train_flops / own)} less than the dense model's"
    return f"{text}."


def _sure(plan: Plan, goal: Goal) -> list[str]:
    factor = number(goal.interval_factor)
    searched = f"{_limit(goal, goal.least)} to {_limit(goal, goal.most)}"
    worse = (
        f"it takes {_limit(goal, goal.high)}" if goal.high else f"no budget of those searched, {searched}, reaches it"
    )
    better = _limit(goal, goal.low) if goal.low < goal.found else "the same"
    texts = [
        f"How sure: if EL is {factor} times larger than predicted (the end of its {percent(plan.leverage.level)} "
        f"interval), {better} would do; if it is {factor} times smaller, {worse}.",
        f"How flat: of the limits up to 25 % larger, {percent(goal.also_above)} reach it too. Recommendations "
        "maximise V, not EL, so what they reach can fall as the limit grows; every step of 1 % was in question, "
        f"{searched}, and a limit between two steps may do.",
    ]
    if goal.found == goal.least:
        texts.append("The smallest limit that is searched reaches it already; a smaller one may do.")
    if goal.dense is not None and goal.dense.work_by_law:
        works = ", ".join(f"{number(work)} ({law})" for law, work in goal.dense.work_by_law.items())
        texts.append(f"By other laws the plan does so many times the dense model's work: {works}; not averaged.")
    return texts


def _row(goal: Goal, place: int) -> tuple[str, ...]:
    point, path = goal.neighbours[place], f"/goal/neighbours/{place}"
    size = f"{format_count(point.total_params)}-A{format_count(point.active_params)}"
    limit = format_flops(point.budget) if goal.finds == "flops" else format_bytes(point.budget)
    return (
        at(limit, f"{path}/budget"),
        at(size, f"{path}/total_params", f"{path}/active_params"),
        at(format_count(point.tokens), f"{path}/tokens"),
        at(times(point.efficiency_leverage), f"{path}/efficiency_leverage"),
        at(percent(point.reached), f"{path}/reached"),
    )
