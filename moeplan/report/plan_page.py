"""A plan's page and pictures: its sections with charts in place, and the answer on a card."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.document import Plan
from moeplan.report import sources
from moeplan.report.blocks import (
    Block,
    Cell,
    Chart,
    Level,
    Section,
    Series,
    Source,
    Table,
    at,
    interval,
    number,
    percent,
)
from moeplan.report.opinions import leverage_text, size
from moeplan.report.pictures import write_pictures
from moeplan.report.sections import plan_sections
from moeplan.units import format_bytes, format_count, format_flops

_BANDS = ("total_params", "active_params", "tokens", "granularity", "num_experts", "num_active_experts", "d_model",
          "num_layers")  # fmt: skip
"""Variables whose near-optimal ranges are drawn; the others follow from these, or hardly matter."""


def write_plan(plan: Plan, *, plot: str | None, html: str | None, more: Sequence[Section] = ()) -> None:
    """Write a plan's charts, its page, or both; `more` sections stand before the plan's own on the page."""
    found = page_sections(plan)
    write_pictures(
        plot=plot,
        html=html,
        title=page_title(plan),
        sections=[found[0], *(dataclasses.replace(x, source=sources.CHANGED) for x in more), *found[1:]],
        charts=plan_charts(plan),
        data=plan.to_json(),
        card=plan_card(plan),
        record="plan.json",
    )


def page_title(plan: Plan) -> Cell:
    """What the page is about."""
    limit = f" and {plan.request.memory}" if plan.request.memory else ""
    return Cell(
        f"A {size(plan.design)} mixture of experts for {format_flops(plan.request.flops)} FLOPs{limit}",
        _on(sources.chosen(plan), "/design/total_params /design/active_params /request/flops"),
    )


def page_sections(plan: Plan) -> list[Section]:
    """The plan's report with a chart in four of its sections."""
    charts: dict[str, Chart] = {
        "The model": band_chart(plan),
        "Efficiency Leverage": leverage_chart(plan),
        "Memory": memory_chart(plan),
        "What the laws say": efficiency_chart(plan),
    }
    return [
        dataclasses.replace(section, blocks=_second(section.blocks, charts[section.title]))
        if section.title in charts
        else section
        for section in plan_sections(plan)
    ]


def _second(blocks: tuple[Block, ...], chart: Chart) -> tuple[Block, ...]:
    return (blocks[0], chart, *blocks[1:])


def plan_charts(plan: Plan) -> tuple[Chart, ...]:
    """What --plot draws."""
    return (leverage_chart(plan), band_chart(plan), efficiency_chart(plan), memory_chart(plan))


def plan_card(plan: Plan) -> Table:
    """The answer as a card: name, number, what else is to say of it."""
    design, leverage, run, memory = plan.design, plan.leverage, plan.training, plan.memory
    usable = (
        at(f"of {format_bytes(memory.usable_bytes)} usable{_each(plan)}", "/memory/usable_bytes")
        if memory.usable_bytes is not None
        else "no limit is given"
    )
    time = (
        at(f"{run.device}-hours: {number(run.days)} days on {run.num_gpus:,} at {percent(run.mfu)} MFU",
           "/training/days", "/training/num_gpus", "/training/mfu")
        if run.days is not None and run.num_gpus
        else at(f"{run.device}-hours at {percent(run.mfu)} MFU", "/training/mfu")
    )  # fmt: skip
    ends = f"{percent(leverage.level)} interval {number(leverage.low)}–{number(leverage.high)}, by {LEVERAGE_LAW}"
    dense = leverage.dense
    return Table(
        (
            (
                "Efficiency Leverage",
                Cell(leverage_text(leverage), _on(sources.leverage(leverage), "/leverage/efficiency_leverage")),
                at(ends, "/leverage/level", "/leverage/low", "/leverage/high"),
            ),
            (
                "Total params (N)",
                _chosen(plan, "total_params", format_count(design.total_params)),
                Cell(_experts(plan), _on(sources.chosen(plan, "num_experts"), _EXPERT_PATHS)),
            ),
            (
                "Active params (N_a)",
                _chosen(plan, "active_params", format_count(design.active_params)),
                Cell(
                    f"{percent(design.active_param_ratio)} of the total",
                    _on(sources.chosen(plan, "active_param_ratio"), "/design/active_param_ratio"),
                ),
            ),
            (
                "Training tokens (D)",
                _chosen(plan, "tokens", format_count(design.tokens)),
                Cell(
                    f"{number(design.tokens_per_param)} per active param",
                    _on(sources.chosen(plan, "tokens_per_param"), "/design/tokens_per_param"),
                ),
            ),
            (
                "Dense equivalent",
                Cell(format_count(dense.total_params), _on(sources.DENSE, "/leverage/dense/total_params")),
                at(f"on {format_count(dense.tokens)} tokens, as this budget is split", "/leverage/dense/tokens"),
            ),
            ("Memory to serve", Cell(format_bytes(memory.total_bytes), _on(sources.MEMORY, "/memory/total_bytes")),
             usable),
            ("GPU time", Cell(format_count(run.gpu_hours), _on(sources.training(plan), "/training/gpu_hours")), time),
            (
                "Worth (V)",
                Cell(percent(plan.value_ratio), _on(sources.worth(plan), "/value_ratio")),
                at(f"of the budget: {format_flops(design.value)} FLOPs", "/design/value"),
            ),
        ),
        strong=(0,),
    )  # fmt: skip


_EXPERT_PATHS = "/design/num_active_experts /design/num_experts /design/num_shared_experts"


def _experts(plan: Plan) -> str:
    design = plan.design
    return f"{design.num_active_experts} of {design.num_experts} experts, {design.num_shared_experts} shared"


def _each(plan: Plan) -> str:
    return " on the fullest device" if plan.memory.num_devices > 1 else ""


def _chosen(plan: Plan, variable: str, text: str) -> Cell:
    return Cell(text, _on(sources.chosen(plan, variable), f"/design/{variable}"))


def _on(source: Source, path: str) -> Source:
    return dataclasses.replace(source, path=path)


def leverage_chart(plan: Plan) -> Chart:
    """EL by every law that compares with dense models; the prediction with its interval."""
    found = plan.leverage
    return Chart(
        "Efficiency Leverage by law",
        "",
        "dense compute / MoE compute at equal loss",
        (
            Series(
                f"the prediction, {percent(found.level)} interval",
                (0,),
                (found.efficiency_leverage,),
                "points",
                (not found.decades_outside,),
                (found.low,),
                (found.high,),
                strong=True,
                source=_on(sources.leverage(found), "/leverage/efficiency_leverage /leverage/low /leverage/high"),
            ),
            Series(
                "other laws",
                tuple(range(1, len(found.others) + 1)),
                tuple(other.efficiency_leverage for other in found.others),
                "points",
                tuple(not other.extrapolated for other in found.others),
                sources=tuple(
                    _on(sources.opinion(other), f"/leverage/others/{place}/efficiency_leverage")
                    for place, other in enumerate(found.others)
                ),
            ),
        ),
        y_quantity="times",
        y_log=True,
        levels=(Level("a dense model", 1.0),),
        labels=(LEVERAGE_LAW, *(other.law for other in found.others)),
        note="The other laws stand beside the prediction; they are not part of its interval.",
    )


def band_chart(plan: Plan) -> Chart:
    """How far each variable may move at 1 % and at 5 % of V, as multiples of the plan's value."""
    bands = [band for band in plan.bands if band.variable in _BANDS and band.value > 0 and band.low_5 > 0]

    def stretch(share: int, ends: list[tuple[float, float]]) -> Series:
        return Series(
            f"within {share} % of V",
            tuple(range(len(bands))),
            (1.0,) * len(bands),
            low=tuple(low / band.value for band, (low, _) in zip(bands, ends, strict=True)),
            high=tuple(high / band.value for band, (_, high) in zip(bands, ends, strict=True)),
            texts=tuple(interval(band.variable, *pair) for band, pair in zip(bands, ends, strict=True)),
            strong=share == 1,
            sources=tuple(
                _on(
                    sources.band(plan, share),
                    " ".join(f"/bands/{plan.bands.index(band)}/{end}_{share}" for end in ("low", "high")),
                )
                for band in bands
            ),
        )

    return Chart(
        "How far each variable may move",
        "",
        "value / the plan's value, everything else re-optimised",
        (
            stretch(5, [(band.low_5, band.high_5) for band in bands]),
            stretch(1, [(band.low_1, band.high_1) for band in bands]),
        ),
        y_quantity="times",
        y_log=True,
        levels=(Level("the plan", 1.0),),
        labels=tuple(band.variable for band in bands),
    )


def memory_chart(plan: Plan) -> Chart:
    """Bytes of the fullest device by group, against what is usable."""
    groups = [(group, used) for group, used in plan.memory.by_group.items() if used]
    usable = plan.memory.usable_bytes
    return Chart(
        "Memory of the served model",
        "",
        "bytes on the fullest device" if plan.memory.num_devices > 1 else "bytes",
        (
            Series(
                "",
                tuple(range(len(groups))),
                tuple(used for _, used in groups),
                "bars",
                sources=tuple(_on(sources.MEMORY, f"/memory/by_group/{group}") for group, _ in groups),
            ),
        ),
        y_quantity="bytes",
        levels=(Level("usable", usable),) if usable is not None else (),
        labels=tuple(group for group, _ in groups),
    )


def efficiency_chart(plan: Plan) -> Chart:
    """What each law finds the plan worth against the law's own best design under the same limits."""
    judged = [law for law in plan.laws if law.efficiency is not None and law.regret_flops is not None]
    return Chart(
        "What each law finds the plan worth",
        "",
        "share of the compute of the law's own best design under the same limits",
        (
            Series(
                "",
                tuple(range(len(judged))),
                tuple(law.efficiency for law in judged),
                "bars",
                tuple(not law.outside for law in judged),
                sources=tuple(_on(sources.judged(law), f"/laws/{plan.laws.index(law)}/efficiency") for law in judged),
            ),
        ),
        y_quantity="share",
        labels=tuple(law.law for law in judged),
    )
