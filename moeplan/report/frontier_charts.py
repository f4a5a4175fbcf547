"""A frontier as charts: leverage, what the limits leave of the budget, and efficiency by law over a variable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.quantities import QUANTITIES, kind_of
from moeplan.report.blocks import Chart, Series, Shade, series
from moeplan.report.frontier_words import setting, splits
from moeplan.report.opinions import SIZE
from moeplan.report.text import Source
from moeplan.report.view import View
from moeplan.studies.frontier.curves import Frontier, Point
from moeplan.units import parse_memory

_KINDS = {"memory": "bytes", "flops": "flops", "gpus": "count", "days": "number", "concurrency": "count"}
_AXES = {
    "memory": "memory",
    "flops": "compute",
    "gpus": "GPUs",
    "days": "days of training",
    "concurrency": "sequences served at a time",
}


def leverage_chart(found: View[Frontier]) -> Chart:
    """EL of the recommendation by every law that compares with dense models."""
    points = found.points
    # A law looks as on the chart of V's worth, which V begins.
    others = dict.fromkeys(law for point in points for law in point.leverage_by_law)
    order = list(dict.fromkeys((*points[0].compute_ratio_by_law, LEVERAGE_LAW, *others)))

    def line(law: str, says: str, *fields: str) -> Series:
        return _line(points, law, law, Source(says, law), *fields, look=1 + order.index(law))

    together = Source("EL by all laws that know dense models, weighted, with its interval.")
    fields = ("pooled_leverage", "pooled_low", "pooled_high")
    inside = tuple(not point.pooled_decades_outside for point in points)
    lines = [_line(points, "pooled", "", together, *fields, inside=inside, strong=True, look=1 + len(order))]
    lines.append(line(LEVERAGE_LAW, "EL by the law's own formula.", "efficiency_leverage"))
    says = "Compute of the law's best dense model of equal loss / compute of the MoE."
    lines += [line(law, says, *_by_law("leverage", law)) for law in others]
    return Chart(
        title=f"Efficiency Leverage against {_AXES[found.over]}, at {setting(found.it)}",
        x_title=_x_title(found),
        y_title="EL of the recommendation",
        series=tuple(lines),
        x_quantity=_KINDS[found.over],
        y_quantity="times",
        x_log=True,
        y_log=True,
        shades=_shades(found, [LEVERAGE_LAW]),
        note="Each law counts in its own FLOPs. EL is not what is maximised: it may fall."
        + (f" {LEVERAGE_LAW}'s is at the best split of compute into size and tokens." if splits(found.it) else ""),
    )


def _line(points: Sequence[Any], name: str, law: str, source: Source, *fields: str, **style: Any) -> Series:
    """A law's line over the points; dashed where they are outside its measured range."""
    inside = tuple(law not in point.outside for point in points)
    y, low, high = (*fields, "", "")[:3]
    style = {"inside": inside, "texts": _texts(points), "source": source} | style
    return series(name, points, y, low, high, x="x", **style)


def _by_law(what: str, law: str) -> tuple[str, ...]:
    """The fields of a law's value and of the ends of its interval."""
    values = {"leverage": "leverage_by_law", "compute": "compute_ratio_by_law"}[what]
    return (f"{values}[{law}]", *(f"{what}_ends_by_law[{law}][{end}]" for end in (0, 1)))


def worth_chart(found: View[Frontier]) -> Chart:
    """V/C and C_l/C of the recommendation."""
    points = found.points
    says = Source("V/C: the geometric mean of C_l/C over the laws that are maximised.")
    lines = [_line(points, "V, all laws", "", says, "value_ratio", inside=_all_inside(found), strong=True)]
    best = "Compute of the law's own best design, without a memory limit, that is as good."
    lines += [
        _line(points, law, law, Source(best, law), *_by_law("compute", law)) for law in points[0].compute_ratio_by_law
    ]
    drawn = any(point.compute_ends_by_law for point in points)
    return Chart(
        title=f"What the limits leave of the budget, at {setting(found.it)}",
        x_title=_x_title(found),
        y_title="C_l / C",
        series=tuple(lines),
        x_quantity=_KINDS[found.over],
        y_quantity="share",
        x_log=True,
        y_log=found.over == "flops",
        note="C_l: the compute at which the law's own best design, without a memory limit, is as good. No losses meet."
        + (" Bands of fitted laws: the same designs under draws of the coefficients." if drawn else ""),
    )


def profile_chart(found: View[Frontier]) -> Chart:
    """Every law's own best over the variable, relative to its best on the curve."""
    best, recommended = max(point.value_ratio for point in found.points), found.recommended
    says = "C_l of the law's own best design there / its largest on the curve."

    def worth(name: str, points: Sequence[Any], **style: Any) -> Series:
        values = tuple(point.value_ratio / best for point in points)
        return Series(name, tuple(point.x for point in points), values, texts=_texts(points), **style)

    lines = [
        worth(
            "V, all laws",
            found.points,
            inside=_all_inside(found),
            source=Source("V of the best design there / the largest V on the curve."),
        ),
        *(
            Series(line.law, line.x, line.relative, inside=line.inside, low=line.low, high=line.high,
                   source=Source(says, line.law))
            for line in found.lines
        ),
        worth("recommended", [recommended], kind="points", strong=True),
    ]  # fmt: skip
    xs = [x for one in lines for x in one.x]
    drawn = any(line.low for line in found.lines)
    return Chart(
        title=f"Efficiency over {found.over}, at {setting(found.it)}",
        x_title=f"{found.over}: {QUANTITIES[found.over].meaning}",
        y_title="C_l / its best",
        series=tuple(lines),
        x_quantity=kind_of(found.over).name,
        y_quantity="share",
        x_log=min(xs) > 0 and max(xs) > 4 * min(xs),
        shades=_shades(found, [measured.law for measured in found.ranges]),
        note="C_l of the best design there, of each law alone, in units of the largest on its line: no losses meet."
        + (" Intervals of fitted laws: the same designs under draws of the coefficients." if drawn else ""),
    )


def _x_title(found: View[Frontier]) -> str:
    if found.over == "flops":
        return "training compute [FLOPs]"
    if found.over != "memory":
        return _AXES[found.over]
    devices = parse_memory(found.points[0].memory or "1B").num_devices
    return f"memory of each of {devices} devices" if devices > 1 else "memory"


def _shades(found: View[Frontier], laws: Sequence[str]) -> tuple[Shade, ...]:
    """Where laws were measured, as far as the curve reaches."""
    xs = [point.x for point in found.points]
    low, high = min(xs), max(xs)
    parts = [(r.law, max(r.low, low), min(r.high, high)) for r in found.ranges if r.law in laws]
    return tuple(
        Shade(f"{law} measured", least, most)
        for law, least, most in parts
        if low > 0 and least < most and math.log(most / least) > 0.05 * math.log(high / low)
    )


def _all_inside(found: View[Frontier]) -> tuple[bool, ...]:
    """Whether each point lies in the measured range of every law that is maximised; they stand first."""
    count = len(found.request.laws)
    return tuple(not {*list(point.compute_ratio_by_law)[:count]} & {*point.outside} for point in found.points)


def _texts(points: Sequence[View[Point]]) -> tuple[str, ...]:
    return tuple(point.design(f"{SIZE} on {{tokens}} tokens") for point in points)
