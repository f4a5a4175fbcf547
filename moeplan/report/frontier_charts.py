"""A frontier as charts: leverage, what the limits leave of the budget, and efficiency by law over a variable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.search.variables import DESIGN_VARIABLES
from moeplan.report.blocks import Chart, Quantity, Series, Shade, Source
from moeplan.report.frontier_words import splits
from moeplan.report.opinions import size
from moeplan.studies.frontier.curves import Frontier, Point
from moeplan.units import format_count, parse_memory

_QUANTITIES: dict[str, Quantity] = {"memory": "bytes", "flops": "flops"}


def leverage_chart(found: Frontier) -> Chart:
    """EL of the recommendation by every law that compares with dense models."""
    points = found.points
    laws = list(dict.fromkeys(law for point in points for law in point.leverage_by_law))
    series = [
        Series(
            name=LEVERAGE_LAW,
            x=tuple(point.x for point in points),
            y=tuple(point.efficiency_leverage for point in points),
            inside=_inside(points, LEVERAGE_LAW),
            low=tuple(point.low for point in points),
            high=tuple(point.high for point in points),
            texts=_texts(points),
            strong=True,
            look=_look(points, LEVERAGE_LAW),
            source=Source("EL = dense compute / MoE compute at equal loss, of the recommendation.", LEVERAGE_LAW),
        )
    ]
    series += [
        Series(
            name=law,
            x=tuple(point.x for point in points),
            y=tuple(point.leverage_by_law.get(law) for point in points),
            inside=_inside(points, law),
            low=_end([point.leverage_ends_by_law for point in points], law, 0),
            high=_end([point.leverage_ends_by_law for point in points], law, 1),
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
        shades=_shades(found, [LEVERAGE_LAW]),
        note="Each law counts in its own FLOPs. EL is not what is maximised: it may fall."
        + (f" {LEVERAGE_LAW}'s is at the best split of compute into size and tokens." if splits(found) else ""),
    )


def _look(points: Sequence[Point], law: str) -> int:
    """A law's place among colours and shapes: that of its line on the chart of V's worth, which V begins."""
    judges = dict.fromkeys(points[0].compute_ratio_by_law)
    others = dict.fromkeys(name for point in points for name in (LEVERAGE_LAW, *point.leverage_by_law))
    return 1 + list(judges | others).index(law)


def _end(known: Sequence[Mapping[str, tuple[float, ...]]], law: str, which: int) -> tuple[float | None, ...]:
    """One end of a law's intervals, of those known at each point; empty where no point has any."""
    own = [ends.get(law) for ends in known]
    return tuple(ends[which] if ends else None for ends in own) if any(own) else ()


def worth_chart(found: Frontier) -> Chart:
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
            low=_end([point.compute_ends_by_law for point in points], law, 0),
            high=_end([point.compute_ends_by_law for point in points], law, 1),
            texts=_texts(points),
            source=Source("Compute of the law's own best design, without a memory limit, that is as good.", law),
        )
        for law in points[0].compute_ratio_by_law
    ]
    drawn = any(point.compute_ends_by_law for point in points)
    return Chart(
        title="What the limits leave of the budget",
        x_title=_x_title(found),
        y_title="C_l / C",
        series=tuple(series),
        x_quantity=_QUANTITIES[found.over],
        y_quantity="share",
        x_log=True,
        y_log=found.over == "flops",
        note="C_l: the compute at which the law's own best design, without a memory limit, is as good. No losses meet."
        + (" Bands of fitted laws: the same designs under draws of the coefficients." if drawn else ""),
    )


def profile_chart(found: Frontier) -> Chart:
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
