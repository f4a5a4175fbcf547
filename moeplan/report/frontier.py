"""A frontier as sections of text, a table and charts. Every number is the frontier's."""

from __future__ import annotations

import dataclasses
from typing import Any

from moeplan.quantities import quantity
from moeplan.report import sources
from moeplan.report.blocks import Block, Column, Paragraph, Section, table
from moeplan.report.frontier_charts import leverage_chart, profile_chart, worth_chart
from moeplan.report.frontier_words import gain_text, headline, notes, x_text
from moeplan.report.opinions import EXPERTS, SIZE
from moeplan.report.sections import held_text
from moeplan.report.text import NONE, Source, Text, attention_text, joined, judges, mark
from moeplan.report.view import View
from moeplan.studies.frontier.curves import Frontier, Point
from moeplan.studies.frontier.ranges import RANGES
from moeplan.texts import counted

ROWS = 10
"""Points that the table shows of many."""


_SAID = Source("Said by moeplan of this curve: numbers of its points, which the table and the charts show, in words.")
_POINT = Source(
    "The design that moeplan recommends at this point: the largest V of the declared grid under the limits.",
    convention="params include embeddings; FLOPs of the exact shape, forward + backward; EL by "
    "all laws that know dense models with its 90 % interval; V/C in shares of the budget",
)


def frontier_sections(found: Frontier) -> list[Section]:
    """The whole report of a frontier."""
    seen = View(found)
    blocks: dict[str, tuple[Block, ...]]
    if found.over in RANGES:
        blocks = {
            "Along the curve": curve_table(seen),
            "Efficiency Leverage": (leverage_chart(seen), *_fitted(seen, _LEVERAGE)),
            "Quality (V)": (worth_chart(seen), *_fitted(seen, _WORTH)),
        }
    else:
        blocks = {f"Over {found.over}": curve_table(seen), "Efficiency by law": (profile_chart(seen),)}
    return [
        Section("", (Paragraph(headline(found)), Paragraph(_conditions(seen), sources.ASKED)), source=_SAID),
        *(Section(name, below, source=_POINT) for name, below in blocks.items()),
        Section("Notes", notes(found), source=_SAID),
    ]


def _conditions(found: View[Frontier]) -> Text:
    """What was asked and assumed."""
    request, count = found.request, len(found.points)
    laws = judges(request.laws, request.weights)
    parts = [
        f"For {limits_text(found)}, judged by {laws}",
        f"{counted(count, 'point(s)')}, each what moeplan recommend answers there"
        if found.over in RANGES
        else f"{counted(count, 'value(s)')}, everything else re-optimised at each",
        *(f"{name} held at the recommendation's {quantity(name, x)} (within 2 %)" for name, x in found.held.items()),
    ]
    if request.fix or request.ranges:
        parts.append(f"with {held_text(request)}")
    parts.append(
        f"sequences of {{request.seq_len}} tokens, {attention_text(request)}; served in {{request.weight_dtype}} "
        "with a {request.kv_dtype} cache of {request.context} tokens x {request.concurrency} and "
        "{request.headroom} headroom"
    )
    return found("; ".join(parts) + ".")


def limits_text(found: View[Frontier]) -> str:
    """What all points have in common of the budget, as a template."""
    request, over = found.request, found.over
    limits = []
    if request.gpus and over != "gpus":
        limits.append("{request.gpus}")
    if request.days and over != "days":
        limits.append("{request.days:number} day(s)")
    if not request.days and over != "flops":
        limits.insert(0, "{request.flops} FLOPs")
    if request.memory and over != "memory":
        limits.append("{request.memory}")
    return " and ".join((", ".join(limits[:-1]), limits[-1])) if len(limits) > 1 else limits[0]


def _place(found: View[Frontier]) -> Column:
    """The column of places on the curve."""
    names = {"flops": "FLOPs", "gpus": "GPUs", "concurrency": "sequences"}
    return f">{names.get(found.over, found.over)}", lambda point: place_text(found, point)


def place_text(found: View[Frontier], point: View[Point]) -> Text:
    """A place on the curve, as its number."""
    return joined([dataclasses.replace(point.number_at("x"), text=x_text(found.it, point.x, point.memory))])


def curve_table(found: View[Frontier], short: bool = False) -> tuple[Block, ...]:
    """About ten points of the curve; unless `short`, with what 10 % more memory or compute is worth at each."""
    best = found.recommended.design.it if found.recommended else None
    chosen = {place for place, point in enumerate(found.points) if point.design.it == best}
    places = sorted({*_shown(len(found.points)), *chosen})
    prices = [name for name in ("memory", "compute") if not short and (found.over == "flops" or name == found.over)]
    columns: list[Column] = [
        _place(found),
        ("params", lambda point: point.design(SIZE)),
        (">tokens", "{design.tokens}"),
        ("k+s/E", lambda point: point.design(EXPERTS)),
        (">g", "{design.granularity}"),
        (">leverage", lambda point: mark(point("{pooled_leverage:2}"), point.pooled_decades_outside)),
        (">90 %", "{pooled_low:2}–{pooled_high:2}"),
        (">quality", "{value_ratio}"),
        *_times(found),
        *((f">10 % {name[:3]}.", _gain(f"{name}_price")) for name in prices),
    ]
    # What the curve runs over needs no second column.
    left = {{"tokens": ">tokens", "granularity": ">g"}.get(found.over)}
    if short:
        left |= {">g"} | ({">quality"} if any(head == _FLOPS for head, _ in columns) else set())
    kept = [column for place, column in enumerate(columns) if not place or column[0] not in left]
    strong = [row for row, place in enumerate(places) if place in chosen]
    shown = table([found.points[place] for place in places], kept, strong=strong, source=_POINT)
    text = (
        "Quality (V) is what the limits leave of the budget, by all laws together; the rest is how much more compute "
        f"10 % more {' or '.join(prices)} is worth in V."
    )
    return (shown, Paragraph(text)) if prices else (shown,)


_FLOPS = ">V [FLOPs]"
"""The column of V itself, where budgets differ along the curve."""


def _times(found: View[Frontier]) -> list[Column]:
    """V, training time and speed of the served, where they differ along the curve."""
    columns: list[Column] = []
    if found.over in ("gpus", "days", "concurrency"):
        columns.append((_FLOPS, "{design.value}"))
    if any(point.mfu is not None for point in found.points):
        columns.append((">MFU", "{mfu}"))
        columns += [(">days", "{days:number}")] if found.over != "days" else []
    if found.over == "concurrency":
        columns.append((">tok/s a user", "{tokens_per_second_per_user:number}"))
    return columns


def _gain(price: str) -> Any:
    return lambda point: f"+{gain_text(getattr(point, price))}" if getattr(point, price) else NONE


def _shown(count: int) -> list[int]:
    """Places of about ten points, the ends among them, or of all if there are few more."""
    most = count if count <= ROWS + 4 else ROWS
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)}) if most > 1 else [0]


_LEVERAGE = (
    "EL", "leverage_by_law", "leverage_ends_by_law", "number",
    "dense compute / MoE compute at equal loss, in the law's own FLOPs",
)  # fmt: skip
_WORTH = (
    "C_l/C", "compute_ratio_by_law", "compute_ends_by_law", "share",
    "compute of the law's own best design, without a memory limit, that is as good / compute; under a draw, of the "
    "draw's own best design",
)  # fmt: skip
"""Numbers that fitted laws give with an interval: name, field by law, field of the ends, their kind, convention."""


def _fitted(found: View[Frontier], judged: tuple[str, str, str, str, str]) -> tuple[Block, ...]:
    """What fitted laws say with an interval, at the points of the table."""
    name, values, ends, kind, convention = judged
    laws = list(dict.fromkeys(law for point in found.points for law in getattr(point, ends)))
    if not laws:
        return ()

    def value(law: str) -> Any:
        return lambda p: mark(p(f"{{{values}[{law}]}}"), law in p.outside) if law in getattr(p, ends) else NONE

    def interval(law: str) -> Any:
        low, high = (f"{{{ends}[{law}][{end}]:{kind}}}" for end in (0, 1))
        return lambda point: point(f"{low}–{high}") if law in getattr(point, ends) else NONE

    pairs = [column for law in laws for column in ((f">{name} {law}", value(law)), (">90 %", interval(law)))]
    drawn = Source(
        "By the law's equation; the interval is the middle 90 % of draws of its coefficients.", convention=convention
    )
    text = (
        f"90 % of {' and '.join(laws)}: what the runs leave open of the law's coefficients; not an error of its "
        "equation, nor what may change beyond the runs."
    )
    points = [found.points[place] for place in _shown(len(found.points))]
    return (table(points, (_place(found), *pairs), source=drawn), Paragraph(text))
