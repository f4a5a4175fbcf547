"""What the laws say of a plan, as blocks of a report: leverage, prices of the limits, optima, hyper-parameters."""

from __future__ import annotations

import dataclasses

from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.document import Design, LawOpinion, Leverage, Plan, Price
from moeplan.report import sources
from moeplan.report.blocks import (
    NONE,
    Block,
    Cell,
    Items,
    Paragraph,
    Source,
    Table,
    at,
    interval,
    mark,
    number,
    percent,
    quantity,
    scientific,
    times,
)
from moeplan.units import format_count, format_flops

_RESOURCES = {"memory": "memory limit", "compute": "compute budget", "tokens": "cap on tokens"}


def size(design: Design) -> str:
    """Total and active params in short, the way such models are named: 35.5B-A3.02B."""
    return f"{format_count(design.total_params)}-A{format_count(design.active_params)}"


def leverage_text(leverage: Leverage) -> str:
    """EL in short, flagged if it is extrapolated."""
    return mark(times(leverage.efficiency_leverage), leverage.decades_outside)


def leverage_interval(leverage: Leverage) -> str:
    """The interval of EL."""
    return f"{percent(leverage.level)} interval {number(leverage.low)}–{number(leverage.high)}"


def leverage_blocks(leverage: Leverage, path: str = "/leverage") -> tuple[Block, ...]:
    """EL by every law that compares with dense models, and the dense model that the plan equals.

    `path` points at the leverage in the report's JSON.
    """
    dense, shape = leverage.dense, leverage.dense.architecture
    rows = [
        (
            LEVERAGE_LAW,
            at(leverage_text(leverage), f"{path}/efficiency_leverage"),
            at(leverage_interval(leverage), f"{path}/level", f"{path}/low", f"{path}/high"),
        ),
        *(
            (
                opinion.law,
                Cell(
                    mark(times(opinion.efficiency_leverage), opinion.extrapolated),
                    _on(sources.opinion(opinion), f"{path}/others/{place}/efficiency_leverage"),
                ),
                Cell(opinion.basis, sources.opinion(opinion)),
            )
            for place, opinion in enumerate(leverage.others)
        ),
    ]
    blocks: list[Block] = [
        Table(
            tuple(rows),
            ("law", "EL", "dense compute / MoE compute at equal loss"),
            right=(1,),
            strong=(0,),
            source=sources.leverage(leverage),
        )
    ]
    others = [opinion.efficiency_leverage for opinion in leverage.others]
    if others:
        spread = " to ".join(dict.fromkeys((times(min(others)), times(max(others)))))
        blocks.append(Paragraph(f"The other laws say {spread}; they are not part of the interval.", sources.OTHERS))
    blocks.append(
        Paragraph(
            f"The dense model it equals: {format_count(dense.total_params)} params "
            f"({format_count(dense.non_embedding_params)} without embeddings; {shape.num_layers} layers, d_model "
            f"{shape.d_model:,}) on {format_count(dense.tokens)} tokens, {format_flops(dense.train_flops)} FLOPs as "
            f"{LEVERAGE_LAW} counts: its compute times EL times {percent(leverage.allocation_efficiency)} (phi), "
            f"because it does not split its compute into size and tokens as {LEVERAGE_LAW} finds best.",
            _on(
                sources.DENSE,
                *(f"{path}/dense/{name}" for name in ("total_params", "non_embedding_params")),
                *(f"{path}/dense/architecture/{name}" for name in ("num_layers", "d_model")),
                *(f"{path}/dense/{name}" for name in ("tokens", "train_flops")),
                f"{path}/allocation_efficiency",
            ),
        )
    )
    blocks.append(Paragraph(f"{leverage.rule[:1].upper()}{leverage.rule[1:]}.", sources.leverage(leverage)))
    return tuple(blocks)


def _on(source: Source, *paths: str) -> Source:
    """The same source, with the places in the JSON."""
    return dataclasses.replace(source, path=" ".join(paths))


def limit_blocks(plan: Plan) -> tuple[Block, ...]:
    """What binds, and what 10 % more of it is worth."""
    names = [_RESOURCES.get(name, name) for name in plan.binding]
    blocks: list[Block] = [Paragraph(f"Binding: {', '.join(names)}.")]
    if plan.prices:
        flagged = plan.leverage.decades_outside
        blocks.append(Items(tuple(_price(price, flagged, f"/prices/{i}") for i, price in enumerate(plan.prices))))
        laws = tuple(dict.fromkeys(law for price in plan.prices for law in price.by_law))
        if len(laws) > 1:
            rows = tuple(
                (
                    law,
                    *(
                        f"+{percent(price.by_law[law] - 1, 2)}" if law in price.by_law else NONE
                        for price in plan.prices
                    ),
                )
                for law in laws
            )
            columns = ("compute, for each law alone", *(f"{_more(price)} {price.resource}" for price in plan.prices))
            blocks.append(Table(rows, columns, right=tuple(range(1, len(columns)))))
    return tuple(blocks)


def _more(price: Price) -> str:
    return f"{price.factor - 1:.0%} more".replace("%", " %")


def _price(price: Price, flagged: object, path: str) -> str:
    gain = price.value_ratio - 1
    worth = f"{percent(gain, 2)} more compute" if gain >= 5e-4 else "nothing"
    leverage = mark(times(price.efficiency_leverage), flagged)
    text = f"{_more(price)} {price.resource} is worth {worth} in V (EL {leverage} then)."
    ratio = ("-",) if gain >= 5e-4 else ()  # the gain is value_ratio - 1
    return at(text, "-", *ratio, f"{path}/efficiency_leverage")


def law_blocks(plan: Plan) -> tuple[Block, ...]:
    """Every law's judgement, its own optimum, and where the plan leaves its domain."""
    rows = []
    for place, law in enumerate(plan.laws):
        judged, source = law.efficiency is not None and law.regret_flops is not None, sources.judged(law)
        rows.append(
            (
                mark(law.law, law.outside),
                law.grade,
                law.role,
                Cell(percent(law.efficiency), _on(source, f"/laws/{place}/efficiency"))
                if law.efficiency is not None and judged
                else NONE,
                Cell(scientific(law.regret_flops), _on(source, f"/laws/{place}/regret_flops"))
                if law.regret_flops is not None and judged
                else NONE,
                Cell(f"{len(law.outside)} outside", source)
                if law.outside
                else "inside"
                if law.has_domain
                else "not given",
            )
        )
    blocks: list[Block] = [
        Table(tuple(rows), ("law", "grade", "role", "efficiency", "regret", "domain"), right=(3, 4)),
        Paragraph(
            "Efficiency and regret [FLOPs]: the plan against the law's own best design under the same limits, in "
            "compute."
        ),
    ]
    optima = tuple(
        (
            law.law,
            *_shape(law.optimum, _on(sources.own_best(law), f"/laws/{place}/optimum")),
            *_shape(law.without, _on(sources.left_out(law, plan), f"/laws/{place}/without"))[:2],
        )
        for place, law in enumerate(plan.laws)
        if law.optimum is not None
    )
    if optima:
        here = ("the plan", *_shape(plan.design, _on(sources.chosen(plan), "/design")), NONE, NONE)
        columns = ("law", "its own best", "tokens", "k+s/E", "g", "without it", "tokens")
        blocks.append(Table((here, *optima), columns, right=(2, 3, 4, 6), strong=(0,)))
    says = tuple(Cell(f"{law.law}: {law.says}.", sources.judged(law)) for law in plan.laws if law.says)
    if says:
        blocks.append(Items(says))
    outside = tuple(_outside(law, f"/laws/{place}/outside") for place, law in enumerate(plan.laws) if law.outside)
    if outside:
        blocks.append(Paragraph("Outside the measured range (in brackets), as each law counts:"))
        blocks.append(Items(outside))
    return tuple(blocks)


def _shape(design: Design | None, source: Source) -> tuple[str, str, str, str]:
    """Size, tokens, experts (routed active + shared / routed) and granularity; `source` points at the design."""
    if design is None:
        return (NONE, NONE, NONE, NONE)
    experts = f"{design.num_active_experts}+{design.num_shared_experts}/{design.num_experts}"
    path = source.path
    return (
        Cell(size(design), _on(source, f"{path}/total_params", f"{path}/active_params")),
        Cell(format_count(design.tokens), _on(source, f"{path}/tokens")),
        Cell(experts, _on(source)),
        Cell(number(design.granularity), _on(source, f"{path}/granularity")),
    )


def _outside(law: LawOpinion, path: str) -> str:
    """Which variables leave the law's measured range, and how far."""
    parts, paths = [], []
    for place, o in enumerate(law.outside):
        ends = interval(o.variable, o.low, o.high)
        parts.append(f"{o.variable} {quantity(o.variable, o.value)} ({ends})")
        paths += [f"{path}/{place}/value", f"{path}/{place}/low", *([f"{path}/{place}/high"] if "–" in ends else [])]
    return Cell(f"{mark(law.law, True)} {', '.join(parts)}", _on(sources.judged(law), *paths))


def hyperparameter_blocks(plan: Plan) -> tuple[Block, ...]:
    """Peak learning rate and batch by each law."""
    rows = []
    for place, law in enumerate(plan.hyperparameters):
        rate, batch, band = law.learning_rate, law.batch_tokens, law.band
        source = sources.hyperparameter(law)
        near: tuple[str, str] = (NONE, NONE)
        if band:
            near = (
                Cell(f"{scientific(rate / band)}–{scientific(rate * band)}", source),
                Cell(interval("tokens", batch / band, batch * band), source),
            )
        rows.append(
            (
                mark(law.law, law.extrapolated) if law.extrapolated is not None else f"{law.law} (range not given)",
                Cell(scientific(rate), _on(source, f"/hyperparameters/{place}/learning_rate")),
                near[0],
                Cell(f"{format_count(batch)} tokens", _on(source, f"/hyperparameters/{place}/batch_tokens")),
                near[1],
            )
        )
    columns = ("law", "peak rate", "near-optimal", "batch", "near-optimal")
    return (Table(tuple(rows), columns, right=(1, 2, 3, 4)), Paragraph("Peak learning rate under AdamW."))


def alternative_blocks(plan: Plan) -> tuple[Block, ...]:
    """The plan above the next best designs."""
    rows = []
    for place, design in enumerate((plan.design, *plan.alternatives)):
        source = sources.alternatives(plan) if place else sources.chosen(plan)
        path = f"/alternatives/{place - 1}" if place else "/design"
        rows.append(
            (
                str(place) if place else "plan",
                *_shape(design, _on(source, path)),
                at(f"{design.num_layers} x {design.d_model:,}", f"{path}/num_layers", f"{path}/d_model"),
                at(times(design.efficiency_leverage), f"{path}/efficiency_leverage"),
                at(format_flops(design.value), f"{path}/value"),
            )
        )
    leverage = mark("EL", plan.leverage.decades_outside)
    columns = ("", "params", "tokens", "k+s/E", "g", "layers x d_model", leverage, "V [FLOPs]")
    return (Table(tuple(rows), columns, right=(2, 3, 4, 5, 6, 7), strong=(0,), source=sources.alternatives(plan)),)
