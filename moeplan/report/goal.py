"""The target that a budget was found for, as blocks of a plan's report."""

from __future__ import annotations

from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.document import Plan, Request
from moeplan.quantities import number, times
from moeplan.report.blocks import Block, Items, Paragraph, table
from moeplan.report.opinions import SIZE
from moeplan.report.sources import SEARCHED
from moeplan.report.text import Text, mark
from moeplan.report.view import View

_UNITS = {"flops": "flops", "days": "number", "memory": "bytes"}
"""Unit of the limit that was found."""
_SUFFIXES = {"flops": " FLOPs", "number": " day(s)", "bytes": ""}


def budget_words(request: Request) -> str:
    """The budget as it was given, to be filled in: days on GPUs, or FLOPs."""
    return "{request.days} day(s) on {request.gpus}" if request.days else "{request.flops} FLOPs"


def goal_blocks(plan: View[Plan]) -> tuple[Block, ...]:
    """What was asked for, what was found, how sure and how flat that is."""
    goal = plan.goal
    unit = _UNITS[goal.finds]
    heads = {"flops": "compute [FLOPs]", "days": "days", "memory": "memory"}
    columns = (
        (f">{heads[goal.finds]}", f"{{budget:{unit}}}"),
        ("params", SIZE),
        (">tokens", "{tokens}"),
        (f">{LEVERAGE_LAW}'s EL", "{efficiency_leverage}"),
        (">of what was asked", "{reached}"),
    )
    found = [place for place, point in enumerate(goal.neighbours) if point.budget == goal.found]
    return (
        Paragraph(_found(plan, unit), SEARCHED),
        Items(tuple(_sure(plan, unit)), SEARCHED),
        table(goal.neighbours, columns, strong=found, source=SEARCHED),
    )


def _limit(name: str, unit: str) -> str:
    return f"{{goal.{name}:{unit}}}{_SUFFIXES[unit]}"


def _found(plan: View[Plan], unit: str) -> Text:
    dense = plan.goal.dense
    named = ("memory",) if unit == "flops" and plan.request.memory else ("gpus", "memory")
    limits = " and ".join(f"{{request.{name}}}" for name in named if getattr(plan.request, name))
    within = budget_words(plan.request) if unit == "bytes" else limits
    what = {"flops": "compute", "number": "time", "bytes": "memory"}[unit]
    found = f"In steps of 1 %, the smallest {what} whose recommendation reaches it is {_limit('found', unit)}"
    if plan.goal.gpu_hours is not None:
        money = " for {goal.money:,.0f}" if plan.goal.money is not None else ""
        life = "training and serving" if plan.life is not None else "training"
        found += f", {{goal.gpu_hours}} {{training.device}}-hours{money} of {life}"
    if dense is None:
        asked = (
            f"Asked for: an Efficiency Leverage of {{goal.target_efficiency_leverage:g}} within {within}, by "
            f"{LEVERAGE_LAW} alone. {found}: "
        )
        own = mark(plan.leverage("{efficiency_leverage}"), plan.leverage.decades_outside)
        return plan(f"{asked}{{own}}.", own=own)
    kind = "a dense {goal.dense.asked} model" if dense.asked[:1].isdigit() else "{goal.dense.asked}"
    if unit != "bytes" and str(plan.request.memory) == dense.memory:
        within += ", what it needs itself"
    own = plan.counts.flops_per_token_tian2025 * plan.design.tokens
    less = f", {times(dense.train_flops / own)} less than the dense model's" if unit == "flops" else ""
    return plan(
        f"Asked for: to be as good as {kind} ({{goal.dense.total_params}} params) on {{goal.dense.tokens}} tokens "
        f"within {within}. That is {{goal.dense.train_flops}} FLOPs as {LEVERAGE_LAW} counts, of which "
        "{goal.dense.allocation_efficiency} count, because they are not split into size and tokens as it finds "
        f"best for dense models. {found}{less}."
    )


def _sure(plan: View[Plan], unit: str) -> list[str]:
    goal = plan.goal
    searched = f"{_limit('least', unit)} to {_limit('most', unit)}"
    worse = f"it takes {_limit('high', unit)}" if goal.high else f"no budget of those searched, {searched}, reaches it"
    better = _limit("low", unit) if goal.low < goal.found else "the same"
    texts: list[str] = [
        plan(
            f"How sure: if {LEVERAGE_LAW}'s EL is {{goal.interval_factor}} times larger than predicted (the end of its "
            f"own {{leverage.level}} interval), {better} would do; if it is {{goal.interval_factor}} times smaller, "
            f"{worse}."
        ),
        plan(
            "How flat: of the limits up to 25 % larger, {goal.also_above} reach it too. Recommendations maximise V, "
            "not EL, so what they reach can fall as the limit grows; every step of 1 % was in question, "
            f"{searched}, and a limit between two steps may do."
        ),
    ]
    if goal.found == goal.least:
        texts.append("The smallest limit that is searched reaches it already; a smaller one may do.")
    if goal.dense is not None and goal.dense.work_by_law:
        works = ", ".join(f"{number(work)} ({law})" for law, work in goal.dense.work_by_law.items())
        texts.append(
            f"By other laws the plan is as good as so many times the dense model's compute: {works}; not averaged."
        )
    return texts
