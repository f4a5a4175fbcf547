"""A frontier as sections of text, a table and charts. Every number is the frontier's."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from moeplan.design import DESIGN_VARIABLES
from moeplan.frontiers.curves import Frontier, Line, Point
from moeplan.report import sources
from moeplan.report.blocks import (
    EXTRAPOLATED,
    NONE,
    Block,
    Chart,
    Items,
    Paragraph,
    Quantity,
    Section,
    Series,
    Shade,
    Source,
    Table,
    at,
    mark,
    number,
    percent,
    quantity,
    times,
)
from moeplan.report.opinions import size
from moeplan.units import format_bytes, format_count, format_flops, parse_memory

ROWS = 10
"""Points that the table shows of many."""
LITTLE = 1.01
"""Below this multiple of V, 10 % more of something is hardly worth it."""
ALLOCATED = 0.995
"""A split of compute that keeps this much of EL is not worth a note."""
_QUANTITIES: dict[str, Quantity] = {"memory": "bytes", "flops": "flops"}
_LAW = "tian2025"


def frontier_sections(found: Frontier) -> list[Section]:
    """The whole report of a frontier."""
    along = found.over in _QUANTITIES
    table = Section("Along the curve" if along else f"Over {found.over}", _table(found), source=_POINT)
    if along:
        charts = [("Efficiency Leverage", _leverage_chart(found)), ("Worth of the budget", _worth_chart(found))]
    else:
        charts = [("Efficiency by law", _profile_chart(found))]
    return [
        Section("", (Paragraph(headline(found)), Paragraph(_conditions(found), sources.ASKED)), source=_SAID),
        table,
        *(
            Section(title, (chart, *(_fitted(found) if title == "Efficiency Leverage" else ())), source=_POINT)
            for title, chart in charts
        ),
        Section("Notes", _notes(found), source=_SAID),
    ]


def headline(found: Frontier) -> str:
    """What the curve says, in words."""
    if found.over == "memory":
        return _memory_headline(found)
    return _flops_headline(found) if found.over == "flops" else _profile_headline(found)


def _memory_headline(found: Frontier) -> str:
    first, last = found.points[0], found.points[-1]
    text = (
        f"At {format_flops(first.flops)} FLOPs, memory from {first.memory} to {last.memory} takes V from "
        f"{percent(first.value_ratio)} to {percent(last.value_ratio)} of the budget and EL from {_el(first)} to "
        f"{_el(last)}. "
    )
    little = [point.memory_price is not None and point.memory_price < LITTLE for point in found.points]
    enough = _onwards(found.points, little)
    if enough is not None:
        where = f"At {enough.memory}" if enough is last else f"From {enough.memory} on"
        return f"{text}{where}, 10 % more memory is worth less than 1 % of compute: more hardly pays."
    if any(little):
        return (
            f"{text}10 % more memory is worth {_gain(first.memory_price)} more compute at {first.memory} and "
            f"{_gain(last.memory_price)} at {last.memory}, with stretches between where it is worth less than 1 %."
        )
    return (
        f"{text}More memory pays all the way: 10 % more is worth {_gain(first.memory_price)} more compute at "
        f"{first.memory} and still {_gain(last.memory_price)} at {last.memory}."
    )


def _flops_headline(found: Frontier) -> str:
    first, last = found.points[0], found.points[-1]
    best = max(found.points, key=lambda point: point.efficiency_leverage)
    limit = f"Within {last.memory}" if last.memory else "Within the memory of the GPUs"
    text = f"{limit}, EL is {_el(first)} at {format_flops(first.x)} FLOPs"
    if best is first or best is last:
        text += f" and {_el(last)} at {format_flops(last.x)}. "
    else:
        text += (
            f", the largest, {_el(best)}, at {format_flops(best.x)}, and {_el(last)} at {format_flops(last.x)}, where "
            f"V is {percent(last.value_ratio)} of the budget. "
        )
    dearer = [bool(p.memory_price and p.compute_price and p.memory_price > p.compute_price) for p in found.points]
    crossed = _onwards(found.points, dearer)
    if crossed is not None:
        where = f"{format_flops(crossed.x)} FLOPs"
        text += (
            f"{f'At {where}' if crossed is last else f'From {where} on'}, 10 % more memory is worth more than 10 % "
            f"more compute ({_gain(crossed.memory_price)} against {_gain(crossed.compute_price)} in V)."
        )
    elif first.compute_price and last.compute_price:
        text += (
            f"10 % more compute is worth {_gain(first.compute_price)} in V at {format_flops(first.x)} and "
            f"{_gain(last.compute_price)} at {format_flops(last.x)}."
        )
    return text.strip()


def _onwards(points: Sequence[Point], holds: Sequence[bool]) -> Point | None:
    """The first point from which on something holds at every point."""
    count = len(list(itertools.takewhile(bool, reversed(holds))))
    return points[-count] if count else None


def _profile_headline(found: Frontier) -> str:
    assert found.recommended is not None
    best = max(point.value_ratio for point in found.points)
    flat = [point.x for point in found.points if point.value_ratio >= 0.99 * best]
    own = [_own_choice(found, line) for line in found.lines]
    text = f"The recommendation has {found.over} {_x(found, found.recommended.x)}; V is within 1 % of its best from "
    text += f"{_x(found, min(flat))} to {_x(found, max(flat))}" if len(flat) > 1 else "nowhere else on the curve"
    text = text.replace("of its best from nowhere", "of its best nowhere")
    return f"{text}. Each law alone would choose: {', '.join(own)}."


def _own_choice(found: Frontier, line: Line) -> str:
    """The best value by one law, flagged if extrapolated; at an end of the curve it may lie beyond."""
    best = max(range(len(line.x)), key=line.relative.__getitem__)
    text = f"{line.law} {mark(_x(found, line.x[best]), not line.inside[best])}"
    return f"{text} (where the curve ends)" if best in (0, len(line.x) - 1) else text


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
        at(_x(found, point.x, point.memory), f"{path}/x"),
        at(size(design), f"{path}/design/total_params", f"{path}/design/active_params"),
        at(format_count(design.tokens), f"{path}/design/tokens"),
        f"{design.num_active_experts}+{design.num_shared_experts}/{design.num_experts}",
        at(number(design.granularity), f"{path}/design/granularity"),
        at(_el(point), f"{path}/efficiency_leverage"),
        at(f"{number(point.low)}–{number(point.high)}", f"{path}/low", f"{path}/high"),
        at(percent(point.value_ratio), f"{path}/value_ratio"),
        *(f"+{_gain(worth[name])}" if worth[name] else NONE for name in prices),
    )


_SAID = Source("Said by moeplan of this curve: numbers of its points, which the table and the charts show, in words.")
_POINT = Source(
    "The design that moeplan recommends at this point: the largest V of the declared grid under the limits.",
    convention="params include embeddings; FLOPs of the exact shape, forward + backward; EL by tian2025 with its "
    "90 % interval; V/C in shares of the budget",
)


def _shown(count: int) -> list[int]:
    """Places of about ten points, the ends among them, or of all if there are few more."""
    most = count if count <= ROWS + 4 else ROWS
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)}) if most > 1 else [0]


def _leverage_chart(found: Frontier) -> Chart:
    """EL of the recommendation by every law that compares with dense models."""
    points = found.points
    laws = list(dict.fromkeys(law for point in points for law in point.leverage_by_law))
    series = [
        Series(
            name=_LAW,
            x=tuple(point.x for point in points),
            y=tuple(point.efficiency_leverage for point in points),
            inside=_inside(points, _LAW),
            low=tuple(point.low for point in points),
            high=tuple(point.high for point in points),
            texts=_texts(points),
            strong=True,
            look=_look(points, _LAW),
            source=Source("EL = dense compute / MoE compute at equal loss, of the recommendation.", _LAW),
        )
    ]
    series += [
        Series(
            name=law,
            x=tuple(point.x for point in points),
            y=tuple(point.leverage_by_law.get(law) for point in points),
            inside=_inside(points, law),
            low=_end(points, law, 0),
            high=_end(points, law, 1),
            texts=_texts(points),
            look=_look(points, law),
            source=Source("Compute of the law's best dense model of equal loss / compute of the MoE.", law),
        )
        for law in laws
    ]
    return Chart(
        title=f"Efficiency Leverage against {'memory' if found.over == 'memory' else 'compute'}",
        x_title=_x_title(found),
        y_title="EL of the recommendation",
        series=tuple(series),
        x_quantity=_QUANTITIES[found.over],
        y_quantity="times",
        x_log=True,
        y_log=True,
        shades=_shades(found, [_LAW]),
        note="Each law counts in its own FLOPs. EL is not what is maximised: it may fall."
        + (f" {_LAW}'s is at the best split of compute into size and tokens." if _splits(found) else ""),
    )


def _look(points: Sequence[Point], law: str) -> int:
    """A law's place among colours and shapes: that of its line on the chart of V's worth, which V begins."""
    judges = dict.fromkeys(points[0].compute_ratio_by_law)
    others = dict.fromkeys(name for point in points for name in (_LAW, *point.leverage_by_law))
    return 1 + list(judges | others).index(law)


def _fitted(found: Frontier) -> tuple[Block, ...]:
    """EL by fitted laws with its interval, at the points of the table."""
    laws = list(dict.fromkeys(law for point in found.points for law in point.leverage_ends_by_law))
    if not laws:
        return ()
    rows = []
    for place in _shown(len(found.points)):
        point = found.points[place]
        cells = [_fitted_cells(point, law, f"/points/{place}") for law in laws]
        rows.append((_x(found, point.x, point.memory), *(cell for pair in cells for cell in pair)))
    columns = ("FLOPs" if found.over == "flops" else found.over, *(x for law in laws for x in (f"EL {law}", "90 %")))
    return (
        Table(tuple(rows), columns, right=tuple(range(len(columns))), source=_DRAWS),
        Paragraph(
            f"90 % of {' and '.join(laws)}: what the runs leave open of the law's coefficients; not an error of its "
            "equation, nor what may change beyond the runs."
        ),
    )


def _fitted_cells(point: Point, law: str, path: str) -> tuple[str, str]:
    ends, value = point.leverage_ends_by_law.get(law), point.leverage_by_law.get(law)
    if ends is None or value is None:
        return NONE, NONE
    places = [f"{path}/leverage_ends_by_law/{law}/{end}" for end in (0, 1)]
    return (
        at(mark(times(value), law in point.outside), f"{path}/leverage_by_law/{law}"),
        at(f"{number(ends[0])}–{number(ends[1])}", *places),
    )


_DRAWS = Source(
    "By the law's equation; the interval is the middle 90 % of draws of its coefficients.",
    convention="dense compute / MoE compute at equal loss, in the law's own FLOPs",
)


def _end(points: Sequence[Point], law: str, which: int) -> tuple[float | None, ...]:
    """One end of a law's intervals of EL; empty where no point has any."""
    known = [point.leverage_ends_by_law.get(law) for point in points]
    return tuple(ends[which] if ends else None for ends in known) if any(known) else ()


def _worth_chart(found: Frontier) -> Chart:
    """V/C and C_l/C of the recommendation."""
    points = found.points
    x = tuple(point.x for point in points)
    series = [
        Series(
            "V, all laws",
            x,
            tuple(point.value_ratio for point in points),
            inside=_all_inside(found),
            texts=_texts(points),
            strong=True,
            source=Source("V/C: the geometric mean of C_l/C over the laws that are maximised."),
        )
    ]
    series += [
        Series(
            law,
            x,
            tuple(point.compute_ratio_by_law.get(law) for point in points),
            inside=_inside(points, law),
            texts=_texts(points),
            source=Source("Compute of the law's own best design, without a memory limit, that is as good.", law),
        )
        for law in points[0].compute_ratio_by_law
    ]
    return Chart(
        title="What the limits leave of the budget",
        x_title=_x_title(found),
        y_title="C_l / C",
        series=tuple(series),
        x_quantity=_QUANTITIES[found.over],
        y_quantity="share",
        x_log=True,
        y_log=found.over == "flops",
        note="C_l: the compute at which the law's own best design, without a memory limit, is as good. No losses meet.",
    )


def _profile_chart(found: Frontier) -> Chart:
    """Every law's own best over the variable, relative to its best on the curve."""
    best = max(point.value_ratio for point in found.points)
    recommended = found.recommended
    assert recommended is not None
    series = [
        Series(
            "V, all laws",
            tuple(point.x for point in found.points),
            tuple(point.value_ratio / best for point in found.points),
            inside=_all_inside(found),
            texts=_texts(found.points),
            source=Source("V of the best design there / the largest V on the curve."),
        ),
        *(
            Series(
                line.law,
                line.x,
                line.relative,
                inside=line.inside,
                low=line.low,
                high=line.high,
                source=Source("C_l of the law's own best design there / its largest on the curve.", line.law),
            )
            for line in found.lines
        ),
        Series(
            "recommended", (recommended.x,), (recommended.value_ratio / best,), kind="points",
            texts=_texts([recommended]), strong=True,
        ),
    ]  # fmt: skip
    xs = [x for one in series for x in one.x]
    drawn = any(line.low for line in found.lines)
    return Chart(
        title=f"Efficiency over {found.over}",
        x_title=f"{found.over}: {DESIGN_VARIABLES[found.over].meaning}",
        y_title="C_l / its best",
        series=tuple(series),
        x_quantity=_quantity(found.over),
        y_quantity="share",
        x_log=min(xs) > 0 and max(xs) > 4 * min(xs),
        shades=_shades(found, [measured.law for measured in found.ranges]),
        note="C_l of the best design there, of each law alone, in units of the largest on its line: no losses meet."
        + (" Intervals of fitted laws: the same designs under draws of the coefficients." if drawn else ""),
    )


def _quantity(variable: str) -> Quantity:
    if variable in ("total_params", "active_params", "tokens"):
        return "count"
    return "share" if variable.endswith("ratio") and variable != "expansion_ratio" else "number"


def _x_title(found: Frontier) -> str:
    if found.over == "flops":
        return "training compute [FLOPs]"
    devices = parse_memory(found.points[0].memory or "1B").num_devices
    return f"memory of each of {devices} devices" if devices > 1 else "memory"


def _shades(found: Frontier, laws: Sequence[str]) -> tuple[Shade, ...]:
    """Where laws were measured, as far as the curve reaches."""
    xs = [point.x for point in found.points]
    low, high = min(xs), max(xs)
    parts = [(r.law, max(r.low, low), min(r.high, high)) for r in found.ranges if r.law in laws]
    return tuple(
        Shade(f"{law} measured", least, most)
        for law, least, most in parts
        if low > 0 and least < most and math.log(most / least) > 0.05 * math.log(high / low)
    )


def _inside(points: Sequence[Point], law: str) -> tuple[bool, ...]:
    return tuple(law not in point.outside for point in points)


def _all_inside(found: Frontier) -> tuple[bool, ...]:
    """Whether each point lies in the measured range of every law that is maximised; they stand first."""
    count = len(found.request.laws)
    return tuple(not {*list(point.compute_ratio_by_law)[:count]} & {*point.outside} for point in found.points)


def _texts(points: Sequence[Point]) -> tuple[str, ...]:
    return tuple(f"{size(point.design)} on {format_count(point.design.tokens)} tokens" for point in points)


def _x(found: Frontier, x: float, memory: str | None = None) -> str:
    if found.over == "memory":
        return memory or format_bytes(x)
    return format_flops(x, 4) if found.over == "flops" else quantity(found.over, x)


def _el(point: Point) -> str:
    return mark(times(point.efficiency_leverage), point.decades_outside)


def _gain(price: float | None) -> str:
    return NONE if price is None else percent(price - 1, 2) if price - 1 >= 5e-4 else "0 %"


def _splits(found: Frontier) -> list[str]:
    """What the splits of compute into size and tokens keep of tian2025's EL, at worst and at best."""
    low, high = (pick(found.points, key=lambda point: point.allocation_efficiency) for pick in (min, max))
    if low.allocation_efficiency >= ALLOCATED:
        return []
    low_text, high_text = (
        f"{percent(point.allocation_efficiency)} of it at {_x(found, point.x, point.memory)}" for point in (low, high)
    )
    return [
        f"{_LAW}'s EL is at the best split of compute into size and tokens; the splits here keep from {low_text} to "
        f"{high_text} (phi, an inferred rule), which V counts."
    ]


def _notes(found: Frontier) -> tuple[Block, ...]:
    texts = [f"{text[:1].upper()}{text[1:]}." for text in found.left_out]
    if found.over in _QUANTITIES:
        texts += _bindings(found)
        texts += _grid_edges(found)
    texts += [*_domains(found), *_splits(found)]
    made = found.provenance
    command = f"; {made.command}" if made.command else ""
    grids = " and ".join(made.grid_digests)
    blocks: list[Block] = [Items(tuple(texts))]
    flagged = any(not all(line.inside) for line in found.lines)
    if flagged or any(point.decades_outside for point in found.points):
        blocks.append(
            Paragraph(f"Marked {EXTRAPOLATED}: extrapolated, outside the range that the law was measured on.")
        )
    blocks.append(Paragraph(f"moeplan {made.version}, grid {grids}{command}"))
    return tuple(blocks)


def _stretches(points: Sequence[Point], bound: str) -> list[tuple[Point, Point]]:
    """Where something binds: the first and the last of consecutive points."""
    groups = (tuple(group) for binds, group in itertools.groupby(points, lambda p: bound in p.binding) if binds)
    return [(group[0], group[-1]) for group in groups]


def _bindings(found: Frontier) -> list[str]:
    """Where the memory limit and the cap on tokens bind."""
    texts = []
    for name, what in (("memory", "The memory limit"), ("tokens", "The cap on tokens")):
        parts = [
            f"from {_x(found, first.x, first.memory)} to {_x(found, last.x, last.memory)}"
            for first, last in _stretches(found.points, name)
        ]
        if len(parts) == 1 and all(name in point.binding for point in found.points):
            texts.append(f"{what} binds at every point.")
        elif parts:
            texts.append(f"{what} binds {', '.join(parts)}.")
    return texts


def _grid_edges(found: Frontier) -> list[str]:
    """Where points lie on the edge of the declared grid."""
    axes = dict.fromkeys(axis for point in found.points for axis in point.edges)
    parts = []
    for axis in axes:
        on = [point for point in found.points if axis in point.edges]
        first, last = (_x(found, point.x, point.memory) for point in (on[0], on[-1]))
        between = f"at {len(on)} points, {first} to {last}" if len(on) > 1 else f"at {first}"
        parts.append(f"{axis} {between}")
    return [f"On the edge of the declared grid, which --range widens: {'; '.join(parts)}."] if parts else []


def _domains(found: Frontier) -> list[str]:
    """How much of the curve each law was measured on."""
    count = len(found.points)
    laws = dict.fromkeys((*found.points[0].compute_ratio_by_law, *found.points[0].leverage_by_law))
    never = [law for law in laws if all(law in point.outside for point in found.points)]
    texts = []
    for law in laws:
        inside = [point for point in found.points if law not in point.outside]
        if law not in never and len(inside) < count:
            first, last = (_x(found, point.x, point.memory) for point in (inside[0], inside[-1]))
            where = f"{len(inside)} of {count} points, {first} to {last}" if len(inside) > 1 else f"{first} alone"
            texts.append(f"Inside the measured range of {law}: {where}.")
    if never:
        texts.append(f"Extrapolated at every point: {', '.join(never)}.")
    return texts
