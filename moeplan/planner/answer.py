"""What the page draws of a plan: numbers as text, written as in all reports, and the few values that are drawn."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeplan.plan.choice import Choice
from moeplan.plan.document import Plan
from moeplan.plan.search.grid import AXES
from moeplan.plan.search.scores import Scores
from moeplan.plan.search.space import Space
from moeplan.plan.search.variables import DESIGN_VARIABLES
from moeplan.planner.warm import Curve
from moeplan.quantities import BYTES, kind_of, percent, quantity
from moeplan.report.blocks import Items, Paragraph
from moeplan.report.charts import tick_text, ticks
from moeplan.report.opinions import EXPERTS, SIZE, limit_blocks, pooled_text
from moeplan.report.plan_page import page_title, plan_card
from moeplan.report.sections import headline, held_text, seen

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
        "limits": _limits(plan),
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
    shares = np.exp(choice.ln_value[shown] - choice.best_ln_value)
    points = [
        {"x": told["active_params"], "y": share, "share": percent(share), **told["said"]}
        for told, share in zip(_designs(choice.space, choice.scores, shown), map(float, shares), strict=True)
    ]
    return {
        "points": points,
        "count": len(near),
        "x": _axis([point["x"] for point in points], "count", log=True),
        "y": _axis([*(point["y"] for point in points), 1.0], "share"),
    }


def curve_answer(curve: Curve | None, flops: float) -> dict[str, Any]:
    """Choices along memory as points: bytes of a device, V/C, and what is said of each."""
    if curve is None or not curve.limits:
        return {"points": []}
    places, inverse = np.unique(curve.chosen, return_inverse=True)
    told = _designs(curve.space, curve.scores, places)
    shares = np.exp(curve.ln_value) / flops
    points = [
        {"x": limit, "y": share, "share": percent(share), "memory": BYTES.text(limit), **told[place]["said"]}
        for limit, share, place in zip(curve.limits, map(float, shares), inverse, strict=True)
    ]
    return {
        "points": points,
        "x": _axis(curve.limits, "bytes", log=True),
        "y": _axis([0.0, *(point["y"] for point in points)], "share"),
    }


def _designs(space: Space, scores: Scores, index: NDArray[np.intp]) -> list[dict[str, Any]]:
    """Designs at `index` (sorted): their active params, and what is said of each."""
    names = ("total_params", "active_params", "tokens", *AXES)
    columns = [space.values(name, index, scores).tolist() for name in names]
    found = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return [{"active_params": each["active_params"], "said": _said(each)} for each in found]


def _axis(values: list[float], kind: str, log: bool = False) -> dict[str, Any]:
    """An axis that holds some values, with ticks as all charts have them."""
    low, high = min(values), max(values)
    if log:
        low, high = low / 1.02, high * 1.02
    elif low > 0:
        low, high = low - 0.04 * (high - low or 0.01), high + 0.04 * (high - low or 0.01)
    found = [(value, tick_text(kind, value)) for value in ticks(low, high, kind, log, most=6)]
    return {"low": low, "high": high, "log": log, "ticks": found}


def _said(design: Mapping[str, Any]) -> dict[str, Any]:
    """A design in few words, and the values that fix it."""
    sizes = {name: quantity(name, design[name]) for name in ("total_params", "active_params")}
    return {
        "size": SIZE.format(**sizes),
        "experts": EXPERTS.format(**{name: int(design[name]) for name in AXES}),
        "tokens": quantity("tokens", design["tokens"]),
        "fix": [f"{name}={int(design[name])}" for name in AXES],
    }


def _asked(plan: Plan) -> str:
    """What was asked, in short: budget, memory, what is fixed."""
    p, request = seen(plan), plan.request
    budget = "{request.days} day(s) of {request.gpus}" if request.days else "{request.flops} FLOPs"
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


def _limits(plan: Plan) -> list[str]:
    """What binds, and what 10 % more of it is worth, in sentences."""
    texts: list[str] = []
    for block in limit_blocks(seen(plan)):
        texts += [str(block.text)] if isinstance(block, Paragraph) else []
        texts += map(str, block.texts) if isinstance(block, Items) else []
    return texts


def _choices(plan: Plan) -> list[dict[str, Any]]:
    """The near-equal choices and the alternatives, each with the values that fix it."""
    rows = [(row.rule, row.value_share, row.design) for row in plan.near_equal]
    rows += [
        (f"alternative {number}", design.value / plan.best_value, design)
        for number, design in enumerate(plan.alternatives, 1)
    ]
    return [
        {"rule": rule, "share": percent(share), **_said(dataclasses.asdict(design))} for rule, share, design in rows
    ]


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
