"""A plan as sections of text and tables, the same for terminal, Markdown and notebook. Every number is the plan's."""

from __future__ import annotations

from moeplan.plan import Plan
from moeplan.report.blocks import (
    EXTRAPOLATED,
    Block,
    Items,
    Paragraph,
    Section,
    Table,
    interval,
    number,
    percent,
    quantity,
    times,
)
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
        Section("", (Paragraph(headline(plan)), Paragraph(_conditions(plan)))),
        Section("The model", _model(plan)),
        Section("Compute", _compute(plan)),
        Section("Efficiency Leverage", leverage_blocks(plan.leverage)),
        Section("Memory", _memory(plan)),
        Section("Training", training_blocks(plan)),
        Section("Serving", serving_blocks(plan)),
        Section("What limits it", limit_blocks(plan)),
        Section("What the laws say", law_blocks(plan)),
        Section("Learning rate and batch", hyperparameter_blocks(plan)),
        *([Section("Alternatives", alternative_blocks(plan))] if plan.alternatives else []),
        Section("Notes", (Items(plan.notes), *_legend(plan), Paragraph(_provenance(plan)))),
    ]


def headline(plan: Plan) -> str:
    """The answer in one sentence."""
    leverage = plan.leverage
    dense = leverage.dense
    return (
        f"Train a {size(plan.design)} MoE on {format_count(plan.design.tokens)} tokens: Efficiency Leverage "
        f"{leverage_text(leverage)} ({leverage_interval(leverage)}) by tian2025, "
        f"{times(leverage.efficiency_leverage * leverage.allocation_efficiency)} as this budget is split: the work of "
        f"a dense {format_count(dense.total_params)} model on {format_count(dense.tokens)} tokens."
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
            quantity(band.variable, band.value),
            interval(band.variable, band.low_1, band.high_1),
            interval(band.variable, band.low_5, band.high_5),
        )
        for band in plan.bands
    ]
    heads = f"{shape.num_heads} heads"
    if shape.attention == "mla":
        queries = f", queries from one of {shape.q_lora_rank}" if shape.q_lora_rank else ""
        heads += (
            f" of {shape.qk_nope_head_dim}+{shape.qk_rope_head_dim} by MLA (latent of {shape.kv_lora_rank}{queries})"
        )
    else:
        heads += f" of {shape.head_dim}, {shape.num_kv_heads} KV heads"
    first = "first" if shape.num_dense_layers == 1 else f"first {shape.num_dense_layers}"
    dense = f", the {first} dense (d_ff {shape.d_ff:,})" if shape.num_dense_layers else ""
    return (
        Table(tuple(rows), ("", "variable", "plan", "within 1 % of V", "within 5 % of V"), right=(2, 3, 4)),
        Paragraph(
            f"{shape.num_layers} layers{dense}; {heads}; embedding of {shape.vocab_size:,} rows, "
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
                    f"{format_flops(counts.flops_per_token)}: 6 x active params without input embedding + causal "
                    "attention, forward + backward",
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
    rows = [(group, format_bytes(size), "") for group, size in memory.by_group.items() if size]
    cached = f"{request.context:,} tokens x {request.concurrency:,}, {request.kv_dtype}"
    rows = [(group, size, cached if group == "kv_cache" else what) for group, size, what in rows]
    weights = [i for i, row in enumerate(rows) if row[0] != "kv_cache"]
    if weights:
        rows[weights[0]] = (*rows[weights[0]][:2], f"weights, {request.weight_dtype}")
    if memory.usable_bytes is None or memory.limit_bytes is None:
        rows.append(("total", format_bytes(memory.total_bytes), "no limit is given"))
        return (Table(tuple(rows), right=(1,), strong=(len(rows) - 1,)),)
    rows.append(("total", format_bytes(memory.total_bytes), f"of {format_bytes(memory.usable_bytes)} usable"))
    limit = f"with {percent(request.headroom)} headroom"
    if memory.num_devices > 1:
        limit += f", each of {memory.num_devices} devices; the fullest is shown"
    rows.append(("limit", format_bytes(memory.limit_bytes), limit))
    return (Table(tuple(rows), right=(1,), strong=(len(rows) - 2,)),)


def _legend(plan: Plan) -> tuple[Block, ...]:
    flagged = (
        plan.leverage.decades_outside > 0
        or any(law.outside for law in plan.laws)
        or any(law.extrapolated for law in plan.hyperparameters)
        or any(law.extrapolated for law in plan.leverage.others)
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
