"""A plan's page and pictures: its sections with charts in place, and the answer on a card."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from moeplan.cost.inference_memory import InferenceSettings, inference_bytes
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.budget_fields import SERVING
from moeplan.plan.candidate import architecture_of
from moeplan.plan.document import Plan
from moeplan.plan.search.variables import Design
from moeplan.quantities import percent
from moeplan.report import sources
from moeplan.report.blocks import Block, Chart, Level, Section, Series, Table, series
from moeplan.report.goal import budget_words
from moeplan.report.opinions import SIZE, pooled_text
from moeplan.report.pictures import write_pictures
from moeplan.report.screen.paper import paper_summary
from moeplan.report.screen.plan import plan_screen
from moeplan.report.sections import plan_sections, seen
from moeplan.report.text import Text
from moeplan.units import format_count

_BANDS = ("total_params", "active_params", "tokens", "granularity", "num_experts", "num_active_experts", "d_model",
          "num_layers")  # fmt: skip
"""Variables whose near-optimal ranges are drawn; the others follow from these, or hardly matter."""
_COMPARED = 5
"""Designs whose memory is drawn, the plan's own first."""


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
        summary=plan_summary(plan),
        record="plan.json",
    )


def plan_html(plan: Plan) -> str:
    """A plan's page as text."""
    from moeplan.report.page import page_html

    return page_html(
        page_sections(plan),
        title=page_title(plan),
        data=plan.to_json(),
        card=plan_card(plan),
        summary=plan_summary(plan),
        record="plan.json",
    )


def page_title(plan: Plan) -> Text:
    """What the page is about."""
    p = seen(plan)
    limit = " and {request.memory}" if plan.request.memory else ""
    return p(f"A {{size}} mixture of experts for {budget_words(plan.request)}{limit}", size=p.design(SIZE))


def plan_summary(plan: Plan) -> list[Section]:
    """What a print begins with: the headline, what one screen says, and the leverage by law as a chart."""
    first, *others = plan_screen(plan)
    screen = [dataclasses.replace(first, source=sources.COUNTED), *others]
    return paper_summary(plan_sections(plan), screen, leverage_chart(plan), sources.NOTE)


def page_sections(plan: Plan) -> list[Section]:
    """The plan's report with charts in its sections."""
    charts: dict[str, Chart | None] = {
        "The model": band_chart(plan),
        "Efficiency Leverage": leverage_chart(plan),
        "Memory": memory_chart(plan),
        "Training": training_chart(plan),
        "What the laws say": efficiency_chart(plan),
    }
    return [
        dataclasses.replace(section, blocks=_after_table(section.blocks, chart))
        if (chart := charts.get(section.title)) is not None
        else section
        for section in plan_sections(plan)
    ]


def _after_table(blocks: tuple[Block, ...], chart: Chart) -> tuple[Block, ...]:
    place = next((place for place, block in enumerate(blocks, 1) if isinstance(block, Table)), 1)
    return (*blocks[:place], chart, *blocks[place:])


def plan_charts(plan: Plan) -> tuple[Chart, ...]:
    """What --plot draws."""
    trained = training_chart(plan)
    own = (leverage_chart(plan), band_chart(plan), efficiency_chart(plan), memory_chart(plan))
    return own if trained is None else (*own, trained)


def plan_card(plan: Plan) -> Table:
    """The answer as a card: name, number, what else is to say of it."""
    p, run, memory = seen(plan), plan.training, plan.memory
    days = ": {training.days} day(s) on {training.num_gpus}" if run.days is not None and run.num_gpus else ""
    each = " on the fullest device" if memory.num_devices > 1 else ""
    usable = "no limit is given" if memory.usable_bytes is None else f"of {{memory.usable_bytes}} usable{each}"
    experts = "{design.num_active_experts:d} of {design.num_experts:d} experts, {design.num_shared_experts:d} shared"
    rows = (
        ("Total params (N)", "{design.total_params}", experts),
        ("Active params (N_a)", "{design.active_params}", "{design.active_param_ratio} of the total"),
        ("Training tokens (D)", "{design.tokens}", "{design.tokens_per_param} per active param"),
        *_dense_row(plan),
        ("Memory to serve", "{memory.total_bytes}", usable),
        ("GPU time", "{training.gpu_hours}", f"{{training.device}}-hours{days} at {{training.mfu}} MFU"),
        ("Quality (V)", "{value_ratio}", "of the budget: {design.value} FLOPs"),
    )
    pooled = p.leverage.pooled
    basis = pooled("{laws} law(s), {studies:d} studies, {level} interval", laws=str(len(pooled.weights)))
    lead = ("Efficiency Leverage", pooled_text(p.leverage), basis)
    return Table((lead, *((name, p(value), p(more)) for name, value, more in rows)), strong=(0,))


def _dense_row(plan: Plan) -> tuple[tuple[str, str, str], ...]:
    """The dense model that the plan is worth, with its interval; without a point there is the interval."""
    ends = "{leverage.pooled.dense_low.total_params:2} to {leverage.pooled.dense_high.total_params:2}"
    if plan.leverage.pooled.dense is None:
        return (("Dense equivalent", ends, "a range, for nothing so large was measured"),)
    return (("Dense equivalent", "{leverage.pooled.dense.total_params:2}", f"{ends}, as this budget is split"),)


def leverage_chart(plan: Plan) -> Chart:
    """EL by every law that compares with dense models, as this compute is split; the pooled one with its interval."""
    p, found = seen(plan), plan.leverage
    pooled = p.leverage.pooled
    inside = (not pooled.decades_outside,)
    name = f"pooled, {percent(found.pooled.level)} interval"
    if pooled.efficiency_leverage is None:  # a stretch without a point
        ends: dict[str, Any] = {"low": (pooled.low,), "high": (pooled.high,), "texts": (pooled("{low:2}–{high:2}"),)}
        own = Series(name, (0.0,), (pooled.middle,), strong=True, source=pooled.source_at(), **ends)
    else:
        own = series(name, [pooled], "efficiency_leverage", "low", "high", kind="points", inside=inside, strong=True)
    alone = Series(
        f"{LEVERAGE_LAW}, as split",
        (1.0,),
        (found.efficiency_leverage * found.allocation_efficiency,),
        kind="points",
        inside=(not found.decades_outside,),
        source=p.leverage.source_at(),
    )
    others = series("other laws", p.leverage.others, "efficiency_leverage", kind="points",
                    inside=tuple(not other.extrapolated for other in found.others))  # fmt: skip
    return Chart(
        f"Efficiency Leverage of {size_of(plan.design)}, by law",
        "",
        "dense compute / MoE compute at equal loss",
        (own, alone, dataclasses.replace(others, x=tuple(range(2, len(found.others) + 2)))),
        y_quantity="times",
        y_log=True,
        levels=(Level("a dense model", 1.0),),
        labels=("pooled", LEVERAGE_LAW, *(other.law for other in found.others)),
        note="Every law with a weight is part of the pooled leverage.",
    )


def band_chart(plan: Plan) -> Chart:
    """How far each variable may move at 1 % and at 5 % of V, as multiples of the plan's value."""
    bands = [band for band in seen(plan).bands if band.variable in _BANDS and band.value > 0 and band.low_5 > 0]

    def stretch(share: int) -> Series:
        return Series(
            f"within {share} % of V",
            tuple(range(len(bands))),
            (1.0,) * len(bands),
            low=tuple(getattr(band, f"low_{share}") / band.value for band in bands),
            high=tuple(getattr(band, f"high_{share}") / band.value for band in bands),
            texts=tuple(band(f"{{low_{share}..high_{share}}}") for band in bands),
            strong=share == 1,
            source=seen(plan).source_at(f"bands/0/low_{share}"),
        )

    return Chart(
        f"How far each variable of {size_of(plan.design)} may move",
        "",
        "value / the plan's value, everything else re-optimised",
        (stretch(5), stretch(1)),
        y_quantity="times",
        y_log=True,
        levels=(Level("the plan", 1.0),),
        labels=tuple(band.variable for band in bands),
    )


_KINDS = {"routed experts": ("routed_experts",), "KV cache and states": ("kv_cache", "state")}
"""Parts of served memory, by groups; all others are other weights."""


def memory_chart(plan: Plan) -> Chart:
    """Bytes of the fullest device, of the plan and of choices that are nearly as good, against what is usable."""
    chosen = {choice.rule: choice.design for choice in plan.near_equal if choice.design != plan.design}
    listed = {f"alternative {place}": design for place, design in enumerate(plan.alternatives, 1)}
    settings = InferenceSettings(**{name: getattr(plan.request, name) for name in SERVING})
    held = {"the plan": plan.memory.by_group}
    for name, design in {**chosen, **listed}.items():
        shape = architecture_of(plan, design) if len(held) < _COMPARED else None
        if shape is not None:
            held[f"{name}, {size_of(design)}"] = inference_bytes(shape, settings, plan.memory.num_devices)
    named = {group for groups in _KINDS.values() for group in groups}

    def part(name: str, has: Callable[[str], bool]) -> Series:
        sums = tuple(float(sum(used for group, used in own.items() if has(group))) for own in held.values())
        return Series(name, tuple(range(len(sums))), sums, "bars", source=sources.MEMORY)

    usable = plan.memory.usable_bytes
    (experts, in_experts), (cache, in_cache) = _KINDS.items()
    return Chart(
        f"Memory to serve {size_of(plan.design)} and near-equal choices",
        "",
        "bytes on the fullest device" if plan.memory.num_devices > 1 else "bytes",
        (
            part(experts, lambda group: group in in_experts),
            part("other weights", lambda group: group not in named),
            part(cache, lambda group: group in in_cache),
        ),
        y_quantity="bytes",
        levels=(Level("usable", usable),) if usable is not None else (),
        labels=tuple(held),
        stacked=True,
    )


def training_chart(plan: Plan) -> Chart | None:
    """Bytes of a training GPU in each layout listed, against what is usable; None without layouts."""
    layouts = plan.training.layouts
    if not layouts:
        return None
    groups = list(dict.fromkeys(group for layout in layouts for group, used in layout.bytes_by_group.items() if used))
    p = seen(plan)
    return Chart(
        f"Memory of each training GPU of {size_of(plan.design)}, by layout",
        "",
        "bytes of the heaviest stage",
        tuple(
            Series(
                group.replace("_", " "),
                tuple(range(len(layouts))),
                tuple(layout.bytes_by_group.get(group, 0.0) for layout in layouts),
                "bars",
                source=p.source_at("training/layouts/0/bytes_per_gpu"),
            )
            for group in groups
        ),
        y_quantity="bytes",
        levels=(Level("usable", plan.training.usable_bytes),) if plan.training.usable_bytes else (),
        labels=tuple(
            f"TP{x.tp} PP{x.pp} EP{x.ep}{f' CP{x.cp}' if x.cp > 1 else ''} DP{x.dp}, micro-batch {x.micro_batch}"
            for x in layouts
        ),
        stacked=True,
    )


def size_of(design: Design) -> str:
    """A design in few characters, as in 35.6B-A3.18B."""
    return f"{format_count(design.total_params)}-A{format_count(design.active_params)}"


def efficiency_chart(plan: Plan) -> Chart:
    """What each law finds the plan worth against the law's own best design under the same limits."""
    judged = [law for law in seen(plan).laws if law.efficiency is not None and law.regret_flops is not None]
    inside = tuple(not law.outside for law in judged)
    return Chart(
        f"{size_of(plan.design)} by each law",
        "",
        "share of the compute of the law's own best design under the same limits",
        (series("", judged, "efficiency", kind="bars", inside=inside),),
        y_quantity="share",
        labels=tuple(law.law for law in judged),
    )
