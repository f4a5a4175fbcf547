"""A frontier as sections of text, a table and charts. Every number is the frontier's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.report import sources
from moeplan.report.blocks import (
    NONE,
    Block,
    Paragraph,
    Section,
    Source,
    Table,
    at,
    mark,
    number,
    percent,
    quantity,
    times,
)
from moeplan.report.frontier_charts import leverage_chart, profile_chart, worth_chart
from moeplan.report.frontier_words import el_text, gain_text, headline, notes, x_text
from moeplan.report.opinions import size
from moeplan.studies.frontier.curves import Frontier, Point
from moeplan.studies.frontier.ranges import RANGES
from moeplan.units import format_count, format_flops

ROWS = 10
"""Points that the table shows of many."""


def frontier_sections(found: Frontier) -> list[Section]:
    """The whole report of a frontier."""
    if found.over in RANGES:
        title, charts = (
            "Along the curve",
            {
                "Efficiency Leverage": (leverage_chart(found), *_fitted(found, _LEVERAGE)),
                "Worth of the budget": (worth_chart(found), *_fitted(found, _WORTH)),
            },
        )
    else:
        title, charts = f"Over {found.over}", {"Efficiency by law": (profile_chart(found),)}
    return [
        Section("", (Paragraph(headline(found)), Paragraph(_conditions(found), sources.ASKED)), source=_SAID),
        Section(title, _table(found), source=_POINT),
        *(Section(name, blocks, source=_POINT) for name, blocks in charts.items()),
        Section("Notes", notes(found), source=_SAID),
    ]


def _conditions(found: Frontier) -> str:
    """What was asked and assumed."""
    request = found.request
    memory = f" and {request.memory}" if request.memory else ""
    limits = {"memory": f"{format_flops(request.flops)} FLOPs", "flops": request.memory or str(request.gpus)}
    parts = [
        f"For {limits.get(found.over, f'{format_flops(request.flops)} FLOPs{memory}')}, judged by "
        f"{', '.join(request.laws)}",
        f"{len(found.points)} points, each what moeplan recommend answers there"
        if found.over in limits
        else f"{len(found.points)} values, everything else re-optimised at each",
    ]
    parts += [
        f"{name} held at the recommendation's {quantity(name, value)} (within 2 %)"
        for name, value in found.held.items()
    ]
    chosen = [f"{name}={quantity(name, value)}" for name, value in request.fix.items()]
    chosen += [f"{name}={'..'.join(quantity(name, x) for x in ends)}" for name, ends in request.ranges.items()]
    if chosen:
        parts.append(f"with {', '.join(chosen)}")
    parts.append(
        f"sequences of {request.seq_len:,} tokens, {request.attention.upper()}; served in {request.weight_dtype} with "
        f"a {request.kv_dtype} cache of {request.context:,} tokens x {request.concurrency:,} and "
        f"{percent(request.headroom)} headroom"
    )
    return "; ".join(parts) + "."


def _table(found: Frontier) -> tuple[Block, ...]:
    """About ten points of the curve."""
    best = found.recommended.design if found.recommended else None
    chosen = {place for place, point in enumerate(found.points) if point.design == best}
    places = sorted({*_shown(len(found.points)), *chosen})
    prices = [name for name in ("memory", "compute") if found.over == "flops" or name == found.over]
    rows = [_row(found, place, prices) for place in places]
    first = "FLOPs" if found.over == "flops" else found.over
    columns = [first, "params", "tokens", "k+s/E", "g", "EL", "90 %", "V/C", *(f"10 % {name[:3]}." for name in prices)]
    # What the curve runs over needs no second column.
    twice = {"tokens": 2, "granularity": 4}.get(found.over)
    kept = [i for i in range(len(columns)) if i != twice]
    columns, rows = [columns[i] for i in kept], [tuple(row[i] for i in kept) for row in rows]
    right = tuple(i for i, column in enumerate(columns) if column not in ("params", "k+s/E"))
    strong = tuple(row for row, place in enumerate(places) if place in chosen)
    blocks: list[Block] = [Table(tuple(rows), tuple(columns), right=right, strong=strong, source=_POINT)]
    if prices:
        blocks.append(
            Paragraph(
                "V/C is what the limits leave of the budget, by all laws together; the rest is how much more compute "
                f"10 % more {' or '.join(prices)} is worth in V."
            )
        )
    return tuple(blocks)


def _row(found: Frontier, place: int, prices: Sequence[str]) -> tuple[str, ...]:
    point, path, design = found.points[place], f"/points/{place}", found.points[place].design
    worth = {"memory": point.memory_price, "compute": point.compute_price}
    return (
        at(x_text(found, point.x, point.memory), f"{path}/x"),
        at(size(design), f"{path}/design/total_params", f"{path}/design/active_params"),
        at(format_count(design.tokens), f"{path}/design/tokens"),
        f"{design.num_active_experts}+{design.num_shared_experts}/{design.num_experts}",
        at(number(design.granularity), f"{path}/design/granularity"),
        at(el_text(point), f"{path}/efficiency_leverage"),
        at(f"{number(point.low)}–{number(point.high)}", f"{path}/low", f"{path}/high"),
        at(percent(point.value_ratio), f"{path}/value_ratio"),
        *(f"+{gain_text(worth[name])}" if worth[name] else NONE for name in prices),
    )


_SAID = Source("Said by moeplan of this curve: numbers of its points, which the table and the charts show, in words.")


_POINT = Source(
    "The design that moeplan recommends at this point: the largest V of the declared grid under the limits.",
    convention=f"params include embeddings; FLOPs of the exact shape, forward + backward; EL by {LEVERAGE_LAW} with "
    "its "
    "90 % interval; V/C in shares of the budget",
)


def _shown(count: int) -> list[int]:
    """Places of about ten points, the ends among them, or of all if there are few more."""
    most = count if count <= ROWS + 4 else ROWS
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)}) if most > 1 else [0]


@dataclass(frozen=True)
class _Judged:
    """A number of each point that fitted laws give with an interval."""

    name: str
    values: str
    """The field of a point that holds it by law."""
    ends: str
    """The field that holds its intervals."""
    write: Callable[[float], str]
    write_end: Callable[[float], str]
    convention: str


_LEVERAGE = _Judged(
    "EL", "leverage_by_law", "leverage_ends_by_law", times, number,
    "dense compute / MoE compute at equal loss, in the law's own FLOPs",
)  # fmt: skip
_WORTH = _Judged(
    "C_l/C", "compute_ratio_by_law", "compute_ends_by_law", percent, percent,
    "compute of the law's own best design, without a memory limit, that is as good / compute; under a draw, of the "
    "draw's own best design",
)  # fmt: skip


def _fitted(found: Frontier, judged: _Judged) -> tuple[Block, ...]:
    """What fitted laws say with an interval, at the points of the table."""
    laws = list(dict.fromkeys(law for point in found.points for law in getattr(point, judged.ends)))
    if not laws:
        return ()
    rows = []
    for place in _shown(len(found.points)):
        point = found.points[place]
        cells = [_fitted_cells(point, law, judged, f"/points/{place}") for law in laws]
        rows.append((x_text(found, point.x, point.memory), *(cell for pair in cells for cell in pair)))
    first = "FLOPs" if found.over == "flops" else found.over
    columns = (first, *(x for law in laws for x in (f"{judged.name} {law}", "90 %")))
    drawn = Source(
        "By the law's equation; the interval is the middle 90 % of draws of its coefficients.",
        convention=judged.convention,
    )
    return (
        Table(tuple(rows), columns, right=tuple(range(len(columns))), source=drawn),
        Paragraph(
            f"90 % of {' and '.join(laws)}: what the runs leave open of the law's coefficients; not an error of its "
            "equation, nor what may change beyond the runs."
        ),
    )


def _fitted_cells(point: Point, law: str, judged: _Judged, path: str) -> tuple[str, str]:
    ends, value = getattr(point, judged.ends).get(law), getattr(point, judged.values).get(law)
    if ends is None or value is None:
        return NONE, NONE
    places = [f"{path}/{judged.ends}/{law}/{end}" for end in (0, 1)]
    return (
        at(mark(judged.write(value), law in point.outside), f"{path}/{judged.values}/{law}"),
        at("–".join(judged.write_end(end) for end in ends), *places),
    )
