"""A plan as sections of text and tables, the same for terminal, Markdown and notebook. Every number is the plan's."""

from __future__ import annotations

from moeplan.changes import Change
from moeplan.design import DESIGN_VARIABLES
from moeplan.plan import Design, LawOpinion, Leverage, Plan, Price
from moeplan.report.blocks import (
    EXTRAPOLATED,
    NONE,
    Block,
    Items,
    Paragraph,
    Section,
    Table,
    interval,
    mark,
    number,
    percent,
    quantity,
    scientific,
    times,
)
from moeplan.units import format_bytes, format_count, format_flops

_SYMBOLS = {
    "total_params": "N",
    "active_params": "N_a",
    "active_param_ratio": "N_a/N",
    "tokens": "D",
    "tokens_per_param": "D/N_a",
    "G": "G",
    "shared_ratio": "S",
    "granularity": "g",
    "activation_ratio": "A",
    "num_experts": "E",
    "num_active_experts": "k",
    "num_shared_experts": "s",
}
_RESOURCES = {"memory": "memory limit", "compute": "compute budget", "tokens": "cap on tokens"}


def plan_sections(plan: Plan) -> list[Section]:
    """The whole report of a plan."""
    return [
        Section("", (Paragraph(headline(plan)), Paragraph(_conditions(plan)))),
        Section("The model", _model(plan)),
        Section("Compute", _compute(plan)),
        Section("Efficiency Leverage", _leverage(plan.leverage)),
        Section("Memory", _memory(plan)),
        Section("What limits it", _limits(plan)),
        Section("What the laws say", _laws(plan)),
        Section("Learning rate and batch", _hyperparameters(plan)),
        *([Section("Alternatives", _alternatives(plan))] if plan.alternatives else []),
        Section("Notes", (Items(plan.notes), *_legend(plan), Paragraph(_provenance(plan)))),
    ]


def size(design: Design) -> str:
    """Total and active params in short, the way such models are named: 35.5B-A3.02B."""
    return f"{format_count(design.total_params)}-A{format_count(design.active_params)}"


def headline(plan: Plan) -> str:
    """The answer in one sentence."""
    leverage = plan.leverage
    return (
        f"Train a {size(plan.design)} MoE on {format_count(plan.design.tokens)} tokens: the work of a dense "
        f"{format_count(leverage.dense.total_params)} model trained with {_leverage_text(leverage)} the compute "
        f"({_interval(leverage)})."
    )


def _leverage_text(leverage: Leverage) -> str:
    return mark(times(leverage.efficiency_leverage), leverage.decades_outside)


def _interval(leverage: Leverage) -> str:
    return f"{percent(leverage.level)} interval {number(leverage.low)}–{number(leverage.high)}"


def _conditions(plan: Plan) -> str:
    """What was asked and assumed, defaults included."""
    request = plan.request
    vocabulary = "tied" if request.tied_embeddings else "untied"
    parts = [
        f"For {format_flops(request.flops)} FLOPs and {request.memory}, judged by {', '.join(request.laws)}",
        f"vocabulary {request.vocab_size:,} ({vocabulary}), sequences of {request.seq_len:,} tokens, "
        f"{request.attention.upper()}, at most {format_count(request.max_tokens)} tokens",
        f"served in {request.weight_dtype} with a {request.kv_dtype} cache of {request.context:,} tokens x "
        f"{request.concurrency:,} and {percent(request.headroom)} headroom",
    ]
    chosen = [f"{name}={quantity(name, value)}" for name, value in request.fix.items()]
    chosen += [f"{name}={'..'.join(quantity(name, x) for x in ends)}" for name, ends in request.ranges.items()]
    if chosen:
        parts.append(f"with {', '.join(chosen)}")
    if request.tokens_available is not None:
        epochs = number(request.max_epochs)
        parts.append(f"{format_count(request.tokens_available)} unique tokens for at most {epochs} epochs")
    if request.inference_tokens:
        parts.append(f"{format_count(request.inference_tokens)} tokens served out of the budget")
    return "; ".join(parts) + "."


def _model(plan: Plan) -> tuple[Block, ...]:
    shape = plan.architecture
    rows = [
        (
            _SYMBOLS.get(band.variable, ""),
            band.variable,
            quantity(band.variable, getattr(plan.design, band.variable)),
            interval(band.variable, band.low_1, band.high_1),
            interval(band.variable, band.low_5, band.high_5),
        )
        for band in plan.bands
    ]
    heads = f"{shape.num_heads} heads"
    if shape.attention == "mla":
        heads += f" by MLA (latents of {shape.q_lora_rank} and {shape.kv_lora_rank})"
    else:
        heads += f" of {shape.head_dim}, {shape.num_kv_heads} KV heads"
    first = "first" if shape.num_dense_layers == 1 else f"first {shape.num_dense_layers}"
    dense = f", the {first} dense (d_ff {shape.d_ff:,})" if shape.num_dense_layers else ""
    return (
        Table(tuple(rows), ("", "variable", "plan", "within 1 % of V", "within 5 % of V"), right=(2, 3, 4)),
        Paragraph(
            f"{shape.num_layers} layers{dense}; {heads}; embedding of {shape.vocab_size:,} rows, "
            f"{'tied' if shape.tied_embeddings else 'untied'}. Params include embeddings, widths are in features. Bands: "
            f"everything else re-optimised; {plan.designs_within_1:,} designs lie within 1 % of the best V, "
            f"{plan.designs_within_5:,} within 5 %."
        ),
    )


def _compute(plan: Plan) -> tuple[Block, ...]:
    counts = plan.counts
    names = {
        "with_embeddings": "params, all",
        "without_input_embedding": "params, without input embedding",
        "non_embedding": "params, without embeddings",
    }
    params = tuple(
        (names.get(name, name), f"{format_count(total, 4)} total, {format_count(counts.active_params[name], 4)} active")
        for name, total in counts.total_params.items()
    )
    return (
        Table(
            (
                ("budget", f"{format_flops(plan.request.flops)} FLOPs"),
                ("training", f"{format_flops(counts.train_flops)} FLOPs on {plan.design.tokens:,} tokens"),
                (
                    "FLOPs per token",
                    f"{format_flops(counts.flops_per_token)}: 6 x active params without input embedding + causal attention",
                ),
                (
                    "as tian2025 counts",
                    f"{format_flops(counts.flops_per_token_tian2025)}: non-embedding params, full attention, no logits",
                ),
                *params,
                ("worth (V)", f"{format_flops(plan.design.value)} FLOPs, {percent(plan.value_ratio)} of the budget"),
            )
        ),
        Paragraph(_worth(plan)),
    )


def _worth(plan: Plan) -> str:
    limits = "memory limit leaves" if "memory" in plan.binding else "conditions leave"
    return (
        f"Your {limits} {percent(plan.value_ratio, 2)} of the budget: the plan reaches what each law's own best design, "
        f"without a memory limit, reaches with {format_flops(plan.design.value)} FLOPs (geometric mean over the laws)."
    )


def _leverage(leverage: Leverage) -> tuple[Block, ...]:
    dense, shape = leverage.dense, leverage.dense.architecture
    rows = [
        ("tian2025", _leverage_text(leverage), _interval(leverage)),
        *(
            (opinion.law, mark(times(opinion.efficiency_leverage), opinion.extrapolated), opinion.basis)
            for opinion in leverage.others
        ),
    ]
    blocks: list[Block] = [
        Table(tuple(rows), ("law", "EL", "dense compute / MoE compute at equal loss"), right=(1,), strong=(0,))
    ]
    others = [opinion.efficiency_leverage for opinion in leverage.others]
    if others:
        spread = " to ".join(dict.fromkeys((times(min(others)), times(max(others)))))
        blocks.append(Paragraph(f"The other laws say {spread}; they are not part of the interval."))
    blocks.append(
        Paragraph(
            f"The dense model it equals: {format_count(dense.total_params)} params "
            f"({format_count(dense.non_embedding_params)} without embeddings; {shape.num_layers} layers, d_model "
            f"{shape.d_model:,}) on {format_count(dense.tokens)} tokens, {format_flops(dense.train_flops)} FLOPs as "
            f"tian2025 counts. {leverage.rule[:1].upper()}{leverage.rule[1:]}."
        )
    )
    return tuple(blocks)


def _memory(plan: Plan) -> tuple[Block, ...]:
    memory, request = plan.memory, plan.request
    rows = [(group, format_bytes(size), "") for group, size in memory.by_group.items() if size]
    cached = f"{request.context:,} tokens x {request.concurrency:,}, {request.kv_dtype}"
    rows = [(group, size, cached if group == "kv_cache" else what) for group, size, what in rows]
    weights = [i for i, row in enumerate(rows) if row[0] != "kv_cache"]
    if weights:
        rows[weights[0]] = (*rows[weights[0]][:2], f"weights, {request.weight_dtype}")
    rows.append(("total", format_bytes(memory.total_bytes), f"of {format_bytes(memory.usable_bytes)} usable"))
    limit = f"with {percent(request.headroom)} headroom"
    if memory.num_devices > 1:
        limit += f", each of {memory.num_devices} devices; the fullest is shown"
    rows.append(("limit", format_bytes(memory.limit_bytes), limit))
    return (Table(tuple(rows), right=(1,), strong=(len(rows) - 2,)),)


def _limits(plan: Plan) -> tuple[Block, ...]:
    names = [_RESOURCES.get(name, name) for name in plan.binding]
    blocks: list[Block] = [Paragraph(f"Binding: {', '.join(names)}.")]
    if plan.prices:
        flagged = plan.leverage.decades_outside
        blocks.append(Items(tuple(_price(price, flagged) for price in plan.prices)))
        laws = tuple(dict.fromkeys(law for price in plan.prices for law in price.by_law))
        if len(laws) > 1:
            rows = tuple(
                (law, *(f"+{percent(price.by_law[law] - 1, 2)}" if law in price.by_law else NONE for price in plan.prices))
                for law in laws
            )
            columns = ("compute, for each law alone", *(f"{_more(price)} {price.resource}" for price in plan.prices))
            blocks.append(Table(rows, columns, right=tuple(range(1, len(columns)))))
    return tuple(blocks)


def _more(price: Price) -> str:
    return f"{price.factor - 1:.0%} more".replace("%", " %")


def _price(price: Price, flagged: object) -> str:
    gain = price.value_ratio - 1
    worth = f"{percent(gain, 2)} more compute" if gain >= 5e-4 else "nothing"
    return f"{_more(price)} {price.resource} is worth {worth} in V (EL {mark(times(price.efficiency_leverage), flagged)} then)."


def _laws(plan: Plan) -> tuple[Block, ...]:
    rows = []
    for law in plan.laws:
        judged = law.efficiency is not None and law.regret_flops is not None
        rows.append(
            (
                mark(law.law, law.outside),
                law.grade,
                law.role,
                percent(law.efficiency) if law.efficiency is not None and judged else NONE,
                format_flops(law.regret_flops) if law.regret_flops is not None and judged else NONE,
                f"{len(law.outside)} outside" if law.outside else "inside",
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
        (law.law, *_shape(law.optimum), *(_shape(law.without)[:2])) for law in plan.laws if law.optimum is not None
    )
    if optima:
        here = ("the plan", *_shape(plan.design), NONE, NONE)
        columns = ("law", "its own best", "tokens", "k+s/E", "g", "without it", "tokens")
        blocks.append(Table((here, *optima), columns, right=(2, 3, 4, 6), strong=(0,)))
    says = tuple(f"{law.law}: {law.says}." for law in plan.laws if law.says)
    if says:
        blocks.append(Items(says))
    outside = tuple(_outside(law) for law in plan.laws if law.outside)
    if outside:
        blocks.append(Paragraph("Outside the measured range (in brackets), as each law counts:"))
        blocks.append(Items(outside))
    return tuple(blocks)


def _shape(design: Design | None) -> tuple[str, str, str, str]:
    """Size, tokens, experts (routed active + shared / routed) and granularity."""
    if design is None:
        return (NONE, NONE, NONE, NONE)
    experts = f"{design.num_active_experts}+{design.num_shared_experts}/{design.num_experts}"
    return (size(design), format_count(design.tokens), experts, number(design.granularity))


def _outside(law: LawOpinion) -> str:
    """Which variables leave the law's measured range, and how far."""
    parts = [
        f"{o.variable} {quantity(o.variable, o.value)} ({interval(o.variable, o.low, o.high)})" for o in law.outside
    ]
    return f"{mark(law.law, True)} {', '.join(parts)}"


def _hyperparameters(plan: Plan) -> tuple[Block, ...]:
    rows = []
    for law in plan.hyperparameters:
        rate, batch, band = law.learning_rate, law.batch_tokens, law.band
        near = (NONE, NONE)
        if band:
            near = (f"{scientific(rate / band)}–{scientific(rate * band)}", interval("tokens", batch / band, batch * band))
        rows.append(
            (
                mark(law.law, law.extrapolated),
                scientific(rate),
                near[0],
                f"{format_count(batch)} tokens",
                near[1],
            )
        )
    columns = ("law", "peak rate", "near-optimal", "batch", "near-optimal")
    return (Table(tuple(rows), columns, right=(1, 2, 3, 4)), Paragraph("Peak learning rate under AdamW."))


def _alternatives(plan: Plan) -> tuple[Block, ...]:
    rows = []
    for place, design in enumerate((plan.design, *plan.alternatives)):
        rows.append(
            (
                str(place) if place else "plan",
                *_shape(design),
                f"{design.num_layers} x {design.d_model:,}",
                times(design.efficiency_leverage),
                format_flops(design.value),
            )
        )
    leverage = mark("EL", plan.leverage.decades_outside)
    columns = ("", "params", "tokens", "k+s/E", "g", "layers x d_model", leverage, "V [FLOPs]")
    return (Table(tuple(rows), columns, right=(2, 3, 4, 5, 6, 7), strong=(0,)),)


def _legend(plan: Plan) -> tuple[Block, ...]:
    flagged = plan.leverage.decades_outside or any(law.outside for law in plan.laws)
    flagged = flagged or any(law.extrapolated for law in (*plan.hyperparameters, *plan.leverage.others))
    text = f"Marked {EXTRAPOLATED}: extrapolated, outside the range that the law was measured on."
    return (Paragraph(text),) if flagged else ()


def _provenance(plan: Plan) -> str:
    made = plan.provenance
    command = f"; {made.command}" if made.command else ""
    return (
        f"moeplan {made.version}, grid {made.grid_digest} of {made.num_designs:,} designs, {made.num_feasible:,} "
        f"feasible{command}"
    )


def change_section(changes: tuple[Change, ...], source: str) -> Section:
    """What differs between a plan and the one it was made from."""
    title = f"Changed since {source}"
    if not changes:
        return Section(title, (Paragraph("Nothing: the plan is the same."),))
    rows = tuple((change.name, _plain(change.name, change.before), _plain(change.name, change.after)) for change in changes)
    return Section(title, (Table(rows, ("what", "before", "now")),))


def _plain(name: str, value: object) -> str:
    """A value of any kind as text."""
    last = name.rpartition(".")[2]
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(name, item) for item in value)
    if isinstance(value, (int, float)):
        if last in ("flops", "value"):
            return f"{format_flops(value, 4)} FLOPs"
        if last == "total_bytes":
            return format_bytes(value, 4)
        if last in DESIGN_VARIABLES or last in ("max_tokens", "tokens_available", "inference_tokens"):
            kind = "tokens" if last not in DESIGN_VARIABLES else last
            return format_count(value, 4) if kind in ("tokens", "total_params", "active_params") else quantity(kind, value)
        return f"{value:,}" if isinstance(value, int) else number(value, 4)
    return str(value)
