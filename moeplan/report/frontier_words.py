"""A frontier in words: its headline, its notes, and how its numbers are written. Every number is its own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.quantities import percent, quantity, times
from moeplan.report.blocks import Block, Items, Paragraph, legend
from moeplan.report.text import NONE, mark
from moeplan.studies.frontier.curves import Frontier, Line, Point
from moeplan.studies.frontier.ranges import RANGES
from moeplan.units import format_bytes, format_count, format_flops

LITTLE = 1.01
"""Below this multiple of V, 10 % more of something is hardly worth it."""
ALLOCATED = 0.995
"""A split of compute that keeps this much of EL is not worth a note."""


def setting(found: Frontier) -> str:
    """What does not change along the curve, in few words, for titles: the budget, the memory."""
    request = found.request
    budget = f"{request.days:g} days of {request.gpus}" if request.days else f"{format_flops(request.flops)} FLOPs"
    if found.over == "days":
        budget = str(request.gpus)
    elif found.over == "gpus" and request.days:
        budget = f"{request.days:g} days"
    if found.over == "memory":
        return budget
    memory = request.memory or f"the memory of {request.gpus}"
    return memory if found.over == "flops" else f"{budget} and {memory}"


def title(found: Frontier) -> str:
    """What the curve is of."""
    points = found.points
    ends = {
        "memory": f"memory from {points[0].memory} to {points[-1].memory}",
        "flops": f"compute from {format_flops(points[0].x)} to {format_flops(points[-1].x)} FLOPs",
        "gpus": f"{points[0].x:g} to {points[-1].x:g} GPUs",
        "days": f"{points[0].x:g} to {points[-1].x:g} days",
        "concurrency": f"{points[0].x:g} to {points[-1].x:g} sequences at a time",
    }
    over = f"along {ends[found.over]}" if found.over in ends else f"over {found.over}"
    return f"Recommendations {over}, at {setting(found)}"


def headline(found: Frontier) -> str:
    """What the curve says, in words."""
    if found.over == "memory":
        return _memory_headline(found)
    if found.over in ("gpus", "days", "concurrency"):
        return _budget_headline(found)
    return _flops_headline(found) if found.over == "flops" else _profile_headline(found)


def _memory_headline(found: Frontier) -> str:
    first, last = found.points[0], found.points[-1]
    text = (
        f"At {format_flops(first.flops)} FLOPs, memory from {first.memory} to {last.memory} takes quality (V) from "
        f"{percent(first.value_ratio)} to {percent(last.value_ratio)} of the budget and EL from {el_text(first)} to "
        f"{el_text(last)}. "
    )
    little = [point.memory_price is not None and point.memory_price < LITTLE for point in found.points]
    enough = _onwards(found.points, little)
    if enough is not None:
        where = f"At {enough.memory}" if enough is last else f"From {enough.memory} on"
        return f"{text}{where}, 10 % more memory is worth less than 1 % of compute: more hardly pays."
    if any(little):
        return (
            f"{text}10 % more memory is worth {gain_text(first.memory_price)} more compute at {first.memory} and "
            f"{gain_text(last.memory_price)} at {last.memory}, with stretches between where it is worth less than 1 %."
        )
    return (
        f"{text}More memory pays all the way: 10 % more is worth {gain_text(first.memory_price)} more compute at "
        f"{first.memory} and still {gain_text(last.memory_price)} at {last.memory}."
    )


def _budget_headline(found: Frontier) -> str:
    """What more GPUs, days or users at a time change."""
    first, last = found.points[0], found.points[-1]
    what = {"gpus": "GPUs", "days": "days", "concurrency": "sequences at a time"}[found.over]
    low, high = (format_flops(point.design.value) for point in (first, last))
    text = (
        f"From {x_text(found, first.x)} to {x_text(found, last.x)} {what}, V goes from {low} to {high} FLOPs and the "
        f"model from {_size(first)} to {_size(last)}. "
    )
    if found.over == "concurrency":
        return text.strip()
    halves = last.x / first.x, last.design.value / first.design.value
    return text + f"{times(halves[0])} the {what} are worth {times(halves[1])} the V."


def _size(point: Point) -> str:
    design = point.design
    params = f"{format_count(design.total_params)}-A{format_count(design.active_params)}"
    return f"{params} on {format_count(design.tokens)} tokens"


def _flops_headline(found: Frontier) -> str:
    first, last = found.points[0], found.points[-1]
    best = max(found.points, key=lambda point: point.pooled_low * point.pooled_high)
    limit = f"Within {last.memory}" if last.memory else "Within the memory of the GPUs"
    text = f"{limit}, EL is {el_text(first)} at {format_flops(first.x)} FLOPs"
    if best is first or best is last:
        text += f" and {el_text(last)} at {format_flops(last.x)}. "
    else:
        text += (
            f", the largest, {el_text(best)}, at {format_flops(best.x)}, and {el_text(last)} at "
            f"{format_flops(last.x)}, where V is {percent(last.value_ratio)} of the budget. "
        )
    dearer = [bool(p.memory_price and p.compute_price and p.memory_price > p.compute_price) for p in found.points]
    crossed = _onwards(found.points, dearer)
    if crossed is not None:
        where = f"{format_flops(crossed.x)} FLOPs"
        text += (
            f"{f'At {where}' if crossed is last else f'From {where} on'}, 10 % more memory is worth more than 10 % "
            f"more compute ({gain_text(crossed.memory_price)} against {gain_text(crossed.compute_price)} in V)."
        )
    elif first.compute_price and last.compute_price:
        text += (
            f"10 % more compute is worth {gain_text(first.compute_price)} in V at {format_flops(first.x)} and "
            f"{gain_text(last.compute_price)} at {format_flops(last.x)}."
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
    ends = f"from {x_text(found, min(flat))} to {x_text(found, max(flat))}"
    return (
        f"The recommendation has {found.over} {x_text(found, found.recommended.x)}; V is within 1 % of its best "
        f"{ends if len(flat) > 1 else 'nowhere else on the curve'}. Each law alone would choose: {', '.join(own)}."
    )


def _own_choice(found: Frontier, line: Line) -> str:
    """The best value by one law, flagged if extrapolated; at an end of the curve it may lie beyond."""
    best = max(range(len(line.x)), key=line.relative.__getitem__)
    text = f"{line.law} {mark(x_text(found, line.x[best]), not line.inside[best])}"
    return f"{text} (where the curve ends)" if best in (0, len(line.x) - 1) else text


def notes(found: Frontier) -> tuple[Block, ...]:
    """What a curve must say aloud, and what it was made from."""
    texts = [f"{text[:1].upper()}{text[1:]}." for text in found.left_out]
    if found.over in RANGES:
        texts += _bindings(found)
        texts += _grid_edges(found)
    texts += [*found.notes, *_domains(found), *splits(found)]
    made = found.provenance
    command = f"; {made.command}" if made.command else ""
    grids = " and ".join(made.grid_digests)
    flagged = any(not all(line.inside) for line in found.lines) or any(p.decades_outside for p in found.points)
    return (Items(tuple(texts)), *legend(flagged), Paragraph(f"moeplan {made.version}, grid {grids}{command}"))


def _stretches(points: Sequence[Point], bound: str) -> list[tuple[Point, Point]]:
    """Where something binds: the first and the last of consecutive points."""
    groups = (tuple(group) for binds, group in itertools.groupby(points, lambda p: bound in p.binding) if binds)
    return [(group[0], group[-1]) for group in groups]


def _bindings(found: Frontier) -> list[str]:
    """Where the memory limit and the cap on tokens bind."""
    texts = []
    for name, what in (("memory", "The memory limit"), ("tokens", "The cap on tokens")):
        parts = [
            f"from {x_text(found, first.x, first.memory)} to {x_text(found, last.x, last.memory)}"
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
        first, last = (x_text(found, point.x, point.memory) for point in (on[0], on[-1]))
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
            first, last = (x_text(found, point.x, point.memory) for point in (inside[0], inside[-1]))
            where = f"{len(inside)} of {count} points, {first} to {last}" if len(inside) > 1 else f"{first} alone"
            texts.append(f"Inside the measured range of {law}: {where}.")
    if never:
        texts.append(f"Extrapolated at every point: {', '.join(never)}.")
    return texts


def splits(found: Frontier) -> list[str]:
    """What the splits of compute into size and tokens keep of the leverage law's EL, at worst and at best."""
    low, high = (pick(found.points, key=lambda point: point.allocation_efficiency) for pick in (min, max))
    if low.allocation_efficiency >= ALLOCATED:
        return []
    low_text, high_text = (
        f"{percent(point.allocation_efficiency)} of it at {x_text(found, point.x, point.memory)}"
        for point in (low, high)
    )
    return [
        f"{LEVERAGE_LAW}'s EL is at the best split of compute into size and tokens; the splits here keep from "
        f"{low_text} to {high_text} (an inferred rule), which V counts."
    ]


def x_text(found: Frontier, x: float, memory: str | None = None) -> str:
    """A place on the curve as text."""
    if found.over == "memory":
        return memory or format_bytes(x)
    if found.over in ("gpus", "days", "concurrency"):
        return f"{x:,.4g}" if found.over == "days" else f"{x:,.0f}"
    return format_flops(x, 4) if found.over == "flops" else quantity(found.over, x)


def el_text(point: Point) -> str:
    """EL by all laws that know dense models, or its interval where there is no point; flagged if extrapolated."""
    if point.pooled_leverage is None:
        return mark(f"{times(point.pooled_low, 2)}–{times(point.pooled_high, 2)}", True)
    return mark(times(point.pooled_leverage, 2), point.pooled_decades_outside)


def gain_text(price: float | None) -> str:
    """A multiple of V as what it adds, in per cent."""
    return NONE if price is None else percent(price - 1, 2) if price - 1 >= 5e-4 else "0 %"
