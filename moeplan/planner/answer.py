"""What the page draws of a plan: numbers as text, written as in all reports, and the few values that are drawn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from moeplan.plan.candidate import integers_of
from moeplan.plan.choice import Choice
from moeplan.plan.document import Plan
from moeplan.plan.search.variables import DESIGN_VARIABLES, Design
from moeplan.quantities import BYTES, kind_of, percent, quantity
from moeplan.report.charts import tick_text, ticks
from moeplan.report.opinions import EXPERTS, SIZE, pooled_text
from moeplan.report.plan_page import page_title, plan_card
from moeplan.report.sections import headline, held_text, seen
from moeplan.report.view import View

WITHIN = 0.05
"""Designs within this share of the best V are shown."""
STRIPS, EACH = 48, 5
"""Into so many strips of active params designs are sorted, and so many of the best of each are shown."""
_COMPARED = ("total_params", "active_params", "tokens", "tokens_per_param", "num_experts", "num_active_experts",
             "granularity", "d_model", "num_layers", "num_heads", "d_expert")  # fmt: skip
_STOPS = 60


def plan_answer(plan: Plan) -> dict[str, Any]:
    """A plan as the page shows it."""
    card, p = plan_card(plan), seen(plan)
    return {
        "title": str(page_title(plan)),
        "lead": str(headline(plan)),
        "command": plan.provenance.command,
        "card": [
            {
                "name": row[0],
                "value": str(row[1]),
                "note": [str(text) for text in row[2:]],
                "strong": place in card.strong,
            }
            for place, row in enumerate(card.rows)
        ],
        "shape": _shape(plan),
        "rows": _rows(plan),
        "choices": _choices(plan),
        "variables": _variables(plan),
        "notes": list(plan.notes),
        "asked": _asked(plan),
        "bar": str(
            p("{size} on {design.tokens} tokens, EL {leverage}", size=p.design(SIZE), leverage=pooled_text(p.leverage))
        ),
        **_places(plan),
    }


def designs_answer(choice: Choice) -> dict[str, Any]:
    """The designs near the best V as points: active params, V as a share of the best, and what is said of them.

    Of many, the best few of each strip of active params are shown, so that none above them is left out.
    """
    near = np.flatnonzero(choice.ln_value >= choice.best_ln_value + math.log1p(-WITHIN))
    sizes = choice.space.values("active_params", near, choice.scores).astype(float)
    low, high = np.log(sizes.min()), np.log(sizes.max())
    strips = np.minimum((np.log(sizes) - low) / max(high - low, 1e-12) * STRIPS, STRIPS - 1).astype(int)
    order = np.lexsort((-choice.ln_value[near], strips))
    place = np.arange(len(near)) - np.searchsorted(strips[order], strips[order])
    shown = near[np.sort(order[place < EACH])]
    points = []
    for index in map(int, shown):
        design = choice.describe(index, choice.ln_value)
        points.append(
            {
                "x": design.active_params,
                "y": (share := math.exp(float(choice.ln_value[index]) - choice.best_ln_value)),
                "share": percent(share),
                **_told(design),
            }
        )
    return {
        "points": points,
        "count": len(near),
        "x": _axis([point["x"] for point in points], "count", log=True),
        "y": _axis([*(point["y"] for point in points), 1.0], "share"),
    }


def curve_answer(points: list[tuple[float, Choice]]) -> dict[str, Any]:
    """Choices along memory as points: bytes of a device, V/C, and what is said of each."""
    found = []
    for limit, choice in points:
        design = choice.design
        share = design.value / choice.flops
        found.append({"x": limit, "y": share, "share": percent(share), "memory": BYTES.text(limit), **_told(design)})
    if not found:
        return {"points": []}
    return {
        "points": found,
        "x": _axis([point["x"] for point in found], "bytes", log=True),
        "y": _axis([0.0, *(point["y"] for point in found)], "share"),
    }


def _axis(values: list[float], kind: str, log: bool = False) -> dict[str, Any]:
    """An axis that holds some values, with ticks as all charts have them."""
    low, high = min(values), max(values)
    if log:
        low, high = low / 1.02, high * 1.02
    elif low > 0:
        low, high = low - 0.04 * (high - low or 0.01), high + 0.04 * (high - low or 0.01)
    found = [(value, tick_text(kind, value)) for value in ticks(low, high, kind, log, most=6)]
    return {"low": low, "high": high, "log": log, "ticks": found}


def _told(design: Design) -> dict[str, Any]:
    """A design in few words, and the values that fix it."""
    p = View(design)
    return {
        "size": str(p(SIZE)),
        "experts": str(p(EXPERTS)),
        "tokens": quantity("tokens", design.tokens),
        "fix": [f"{name}={value:g}" for name, value in integers_of(design).items()],
    }


def _asked(plan: Plan) -> str:
    """What was asked, in short: budget, memory, what is fixed."""
    p, request = seen(plan), plan.request
    budget = "{request.days} days of {request.gpus}" if request.days else "{request.flops} FLOPs"
    parts = [str(p(budget)), *([request.memory] if request.memory else []), held_text(p.request)]
    return ", ".join(part for part in parts if part)


def _places(plan: Plan) -> dict[str, Any]:
    """Where the plan stands on both charts, with the words for it."""
    share = plan.design.value / plan.best_value
    says = f"The plan: {seen(plan).design(SIZE)}, quality {percent(share)} of the best."
    found: dict[str, Any] = {"point": {"x": plan.design.active_params, "y": share, "says": says}, "memory_point": None}
    if plan.memory.limit_bytes is not None:
        says = f"The plan: {plan.request.memory}, quality {percent(plan.value_ratio)} of the budget."
        found["memory_point"] = {"x": plan.memory.limit_bytes, "y": plan.value_ratio, "says": says}
    return found


def _shape(plan: Plan) -> str:
    """The layers in a sentence."""
    p, shape = seen(plan), plan.architecture
    dense = shape.num_dense_layers
    first = "" if not dense else ", the first dense" if dense == 1 else f", the first {dense} dense"
    return str(
        p(
            "{n} layers{first}, d_model {design.d_model}; {design.num_heads} heads; {design.num_active_experts:d} of "
            "{design.num_experts:d} experts of {design.d_expert} and {design.num_shared_experts:d} shared",
            n=str(shape.num_layers),
            first=first,
        )
    )


def _rows(plan: Plan) -> list[dict[str, Any]]:
    """What two plans are compared by: a name, its text, its value where a ratio of two says something."""
    design, pooled = plan.design, plan.leverage.pooled
    rows: list[tuple[str, str, float | None]] = [
        (name, quantity(name, getattr(design, name)), float(getattr(design, name))) for name in _COMPARED
    ]
    rows.append(("train_flops", quantity("train_flops", plan.counts.train_flops), plan.counts.train_flops))
    leverage = pooled.efficiency_leverage
    card = {row[0]: str(row[1]) for row in plan_card(plan).rows}
    rows.append(("Efficiency Leverage", card["Efficiency Leverage"], leverage))
    rows.append(("memory to serve", BYTES.text(plan.memory.total_bytes), float(plan.memory.total_bytes)))
    rows.append(("V [FLOPs]", quantity("flops", design.value), design.value))
    rows.append(("V/C", percent(plan.value_ratio), None))
    if plan.training.gpu_hours:
        rows.append(("gpu_hours", quantity("gpu_hours", plan.training.gpu_hours), plan.training.gpu_hours))
    return [{"name": name, "text": text, "value": value} for name, text, value in rows]


def _choices(plan: Plan) -> list[dict[str, Any]]:
    """The near-equal choices and the alternatives, each with the values that fix it."""
    best = plan.best_value
    rows = [{"rule": row.rule, "share": percent(row.value_share), **_told(row.design)} for row in plan.near_equal]
    for number, design in enumerate(plan.alternatives, 1):
        rows.append({"rule": f"alternative {number}", "share": percent(design.value / best), **_told(design)})
    return rows


def _variables(plan: Plan) -> list[dict[str, Any]]:
    """Every design variable: its value, its band within 5 % of V, and values that a slider stops at."""
    found = []
    for band in plan.bands:
        variable = DESIGN_VARIABLES[band.variable]
        kind = kind_of(band.variable)
        low, high = band.low_5, band.high_5
        found.append(
            {
                "name": band.variable,
                "meaning": variable.meaning,
                "value": _typed(band.variable, band.value),
                "text": kind.text(band.value),
                "band": " to ".join(kind.ends(low, high)),
                "stops": _stops(band.variable, variable.integer, band.value, low, high),
            }
        )
    return found


def _stops(name: str, integer: bool, value: float, low: float, high: float) -> list[str]:
    """Values from half the least to twice the largest that is near-optimal, as they are typed."""
    if value <= 0 or low <= 0:
        return sorted({_typed(name, x) for x in (0, 1, 2, value)}, key=float)
    ends = low / 2, high * 2
    if integer:
        step = {"d_model": 128, "d_expert": 64, "num_experts": 8, "num_heads": 4}.get(name, 1)
        first, last = max(step, math.floor(ends[0] / step) * step), math.ceil(ends[1] / step) * step
        every = max(1, (last - first) // step // (2 * _STOPS)) * step
        return [str(x) for x in sorted({*range(first, last + 1, every), round(value)})]
    texts = dict.fromkeys(_typed(name, x) for x in np.geomspace(*ends, _STOPS))
    return list(texts)


def _typed(name: str, value: float) -> str:
    """A value as it is typed after --fix."""
    if DESIGN_VARIABLES[name].integer:
        return str(round(value))
    if kind_of(name).name == "count":
        return quantity(name, value)
    return f"{value:.3g}"
