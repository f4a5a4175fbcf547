"""A plan as sections of text and tables, the same for terminal, Markdown and notebook. Every number is the plan's."""

from __future__ import annotations

import dataclasses

from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.document import Plan
from moeplan.report import sources
from moeplan.report.blocks import (
    EXTRAPOLATED,
    Block,
    Cell,
    Items,
    Paragraph,
    Section,
    Source,
    Table,
    at,
    interval,
    number,
    percent,
    quantity,
    times,
)
from moeplan.report.goal import goal_blocks
from moeplan.report.opinions import (
    alternative_blocks,
    hyperparameter_blocks,
    law_blocks,
    leverage_blocks,
    leverage_interval,
    leverage_text,
    limit_blocks,
    size,
)
from moeplan.report.spread import spread_blocks, spread_source, spread_title
from moeplan.report.training import serving_blocks, training_blocks
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


def plan_sections(plan: Plan) -> list[Section]:
    """The whole report of a plan."""
    return [
        Section("", (Paragraph(headline(plan), _answer(plan)), Paragraph(_conditions(plan), sources.ASKED))),
        *([Section("The target", goal_blocks(plan, plan.goal), source=sources.NOTE)] if plan.goal else []),
        Section("The model", _model(plan), source=sources.COUNTED),
        Section("Compute", _compute(plan), source=sources.COUNTED),
        Section("Efficiency Leverage", leverage_blocks(plan.leverage), source=sources.leverage(plan.leverage)),
        Section("Memory", _memory(plan), source=sources.MEMORY),
        Section("Training", training_blocks(plan), source=sources.training(plan)),
        Section("Serving", serving_blocks(plan), source=sources.SERVING),
        Section("What limits it", limit_blocks(plan), source=sources.price(plan)),
        Section("What the laws say", law_blocks(plan), source=sources.NOTE),
        *(
            [
                Section(
                    spread_title(plan.spread), spread_blocks(plan, plan.spread), source=spread_source(plan, plan.spread)
                )
            ]
            if plan.spread
            else []
        ),
        Section("Learning rate and batch", hyperparameter_blocks(plan), source=sources.NOTE),
        *(
            [Section("Alternatives", alternative_blocks(plan), source=sources.alternatives(plan))]
            if plan.alternatives
            else []
        ),
        Section(
            "Notes", (Items(plan.notes), *_legend(plan), Paragraph(_provenance(plan), _made(plan))), source=sources.NOTE
        ),
    ]


def headline(plan: Plan) -> str:
    """The answer in one sentence."""
    leverage = plan.leverage
    dense = leverage.dense
    return (
        f"Train a {size(plan.design)} MoE on {format_count(plan.design.tokens)} tokens: Efficiency Leverage "
        f"{leverage_text(leverage)} ({leverage_interval(leverage)}) by {LEVERAGE_LAW}, "
        f"{times(leverage.efficiency_leverage * leverage.allocation_efficiency)} as this budget is split: the work of "
        f"a dense {format_count(dense.total_params)} model on {format_count(dense.tokens)} tokens."
    )


def _answer(plan: Plan) -> Source:
    """Where the numbers of the headline stand, in their order."""
    return Source(
        f"The answer in short: the best design of the declared grid for what was asked, and {LEVERAGE_LAW}'s "
        "leverage of it "
        "with the dense model that it equals. The tables say more of each number.",
        ", ".join(dict.fromkeys((*plan.request.laws, LEVERAGE_LAW))),
        "params with embeddings; tokens; EL is dense compute / MoE compute at equal loss",
        path="/design/total_params /design/active_params /design/tokens /leverage/efficiency_leverage /leverage/level "
        "/leverage/low /leverage/high - /leverage/dense/total_params /leverage/dense/tokens",
    )


def _budget(plan: Plan) -> str:
    """Compute and memory, as given."""
    request = plan.request
    text = f"{format_flops(request.flops)} FLOPs"
    if request.days:
        text += f" ({number(request.days)} days of {request.gpus} at {percent(plan.training.mfu)} of peak)"
    if request.memory:
        text += f" and {request.memory}"
    return text + (f", trained within the memory of {request.gpus}" if "training" in request.memory_for else "")


def _conditions(plan: Plan) -> str:
    """What was asked and assumed, defaults included."""
    request = plan.request
    vocabulary = "tied" if request.tied_embeddings else "untied"
    parts = [
        f"For {_budget(plan)}, judged by {', '.join(request.laws)}",
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
            Cell(
                quantity(band.variable, band.value),
                dataclasses.replace(sources.chosen(plan, band.variable), path=f"/bands/{place}/value"),
            ),
            at(interval(band.variable, band.low_1, band.high_1), f"/bands/{place}/low_1", f"/bands/{place}/high_1"),
            at(interval(band.variable, band.low_5, band.high_5), f"/bands/{place}/low_5", f"/bands/{place}/high_5"),
        )
        for place, band in enumerate(plan.bands)
    ]
    first = "first" if shape.num_dense_layers == 1 else f"first {shape.num_dense_layers}"
    dense = f", the {first} dense (d_ff {shape.d_ff:,})" if shape.num_dense_layers else ""
    return (
        Table(
            tuple(rows),
            ("", "variable", "plan", "within 1 % of V", "within 5 % of V"),
            right=(2, 3, 4),
            sources=(None, None, None, sources.band(plan, 1), sources.band(plan, 5)),
        ),
        Paragraph(
            f"{shape.num_layers} layers{dense}; {shape.uniform_attention.words()}; "
            f"embedding of {shape.vocab_size:,} rows, "
            f"{'tied' if shape.tied_embeddings else 'untied'}. Params include embeddings, widths are in features. "
            f"Bands: everything else re-optimised; designs within 1 % of the best V: {plan.designs_within_1:,}, "
            f"within 5 %: {plan.designs_within_5:,}."
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
        (
            names.get(name, name),
            at(
                f"{format_count(total, 4)} total, {format_count(counts.active_params[name], 4)} active",
                f"/counts/total_params/{name}",
                f"/counts/active_params/{name}",
            ),
        )
        for name, total in counts.total_params.items()
    )
    return (
        Table(
            (
                ("budget", Cell(f"{format_flops(plan.request.flops)} FLOPs", _asked("/request/flops"))),
                (
                    "training",
                    at(
                        f"{format_flops(counts.train_flops)} FLOPs on {plan.design.tokens:,} tokens",
                        "/counts/train_flops",
                        "/design/tokens",
                    ),
                ),
                (
                    "FLOPs per token",
                    at(
                        f"{format_flops(counts.flops_per_token)}: 6 x active params without input embedding + causal "
                        "attention, forward + backward",
                        "/counts/flops_per_token",
                    ),
                ),
                (
                    f"as {LEVERAGE_LAW} counts",
                    at(
                        f"{format_flops(counts.flops_per_token_tian2025)}: non-embedding params, full attention, no "
                        "logits",
                        "/counts/flops_per_token_tian2025",
                    ),
                ),
                *params,
                (
                    "worth (V)",
                    Cell(
                        f"{format_flops(plan.design.value)} FLOPs, {percent(plan.value_ratio)} of the budget",
                        dataclasses.replace(sources.worth(plan), path="/design/value /value_ratio"),
                    ),
                ),
            )
        ),
        Paragraph(_worth(plan), dataclasses.replace(sources.worth(plan), path="/value_ratio /design/value")),
    )


def _worth(plan: Plan) -> str:
    request = plan.request
    conditions = bool(request.fix or request.ranges or "tokens" in plan.binding or "training" in request.memory_for)
    if conditions:
        cause = "Your conditions leave"
    elif "memory" in plan.binding:
        cause = "Your memory limit leaves"
    else:
        cause = "No design is best by every law; this one keeps"
    return (
        f"{cause} {percent(plan.value_ratio, 2)} of the budget: the plan reaches what each law's own best "
        f"design of the declared grid, without a memory limit, reaches with {format_flops(plan.design.value)} FLOPs "
        "(geometric mean over the laws)."
    )


def _memory(plan: Plan) -> tuple[Block, ...]:
    memory, request = plan.memory, plan.request
    cached = f"{request.context:,} tokens x {request.concurrency:,}, {request.kv_dtype}"
    rows: list[tuple[str, ...]] = []
    for group, used in memory.by_group.items():
        if used:
            what = Cell(cached, _asked("/request/context /request/concurrency")) if group == "kv_cache" else ""
            rows.append((group, at(format_bytes(used), f"/memory/by_group/{group}"), what))
    weights = [i for i, row in enumerate(rows) if row[0] != "kv_cache"]
    if weights:
        rows[weights[0]] = (*rows[weights[0]][:2], f"weights, {request.weight_dtype}")
    total = at(format_bytes(memory.total_bytes), "/memory/total_bytes")
    if memory.usable_bytes is None or memory.limit_bytes is None:
        rows.append(("total", total, "no limit is given"))
        return (Table(tuple(rows), right=(1,), strong=(len(rows) - 1,)),)
    rows.append(("total", total, at(f"of {format_bytes(memory.usable_bytes)} usable", "/memory/usable_bytes")))
    limit = f"with {percent(request.headroom)} headroom"
    if memory.num_devices > 1:
        limit += f", each of {memory.num_devices} devices; the fullest is shown"
    rows.append(
        (
            "limit",
            Cell(format_bytes(memory.limit_bytes), _asked("/memory/limit_bytes")),
            Cell(limit, _asked("/request/headroom /memory/num_devices")),
        )
    )
    return (Table(tuple(rows), right=(1,), strong=(len(rows) - 2,)),)


def _asked(path: str) -> Source:
    return dataclasses.replace(sources.ASKED, path=path)


def _made(plan: Plan) -> Source:
    return Source("What the plan was made from.", path="/provenance/num_designs /provenance/num_feasible")


def _legend(plan: Plan) -> tuple[Block, ...]:
    flagged = (
        plan.leverage.decades_outside > 0
        or any(law.outside for law in plan.laws)
        or any(law.extrapolated for law in plan.hyperparameters)
        or any(law.extrapolated for law in plan.leverage.others)
        or (plan.spread is not None and any(law.inside is False for law in plan.spread.laws))
    )
    text = f"Marked {EXTRAPOLATED}: extrapolated, outside the range that the law was measured on."
    return (Paragraph(text),) if flagged else ()


def _provenance(plan: Plan) -> str:
    made = plan.provenance
    command = f"; {made.command}" if made.command else ""
    return (
        f"moeplan {made.version}, grid {made.grid_digest} of {made.num_designs:,} designs, {made.num_feasible:,} "
        f"feasible{command}"
    )
