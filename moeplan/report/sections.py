"""A plan as sections of text and tables, the same for terminal, Markdown and notebook. Every number is the plan's."""

from __future__ import annotations

from moeplan.architecture import counting
from moeplan.architecture.shape import Architecture
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.document import Plan
from moeplan.plan.near_equal import RULES
from moeplan.quantities import quantity, symbol
from moeplan.report import sources
from moeplan.report.blocks import Block, Items, Paragraph, Section, Table, legend, table
from moeplan.report.goal import goal_blocks
from moeplan.report.life import if_served_text, life_blocks
from moeplan.report.opinions import (
    SIZE,
    alternative_blocks,
    hyperparameter_blocks,
    law_blocks,
    leverage_blocks,
    limit_blocks,
    near_equal_blocks,
    pooled_text,
    worth_text,
)
from moeplan.report.text import Source, Text, attention_text, judges
from moeplan.report.training import serving_blocks, training_blocks
from moeplan.report.uncertainty import uncertainty_blocks, uncertainty_title
from moeplan.report.view import View


def plan_sections(plan: Plan) -> list[Section]:
    """The whole report of a plan."""
    p = seen(plan)
    made = "moeplan {version}, grid {grid_digest} of {num_designs} designs, {num_feasible} feasible"
    command = f"; {plan.provenance.command}" if plan.provenance.command else ""
    parts = [
        ("The target", goal_blocks(p) if plan.goal else (), sources.NOTE),
        ("The model", _model(p), sources.COUNTED),
        ("Compute", _compute(p), sources.COUNTED),
        ("Efficiency Leverage", leverage_blocks(p.leverage), p.source_at("leverage")),
        ("Memory", _memory(p), sources.MEMORY),
        ("Training", training_blocks(p), p.source_at("training")),
        ("Serving", (*serving_blocks(p), *_if_concurrent(p)), sources.SERVING),
        ("The model's life", life_blocks(p) if plan.life else (), sources.LIFE),
        ("What limits it", (*limit_blocks(p), *_if_served(p)), p.source_at("prices")),
        ("What the laws say", law_blocks(p), sources.NOTE),
        *([(uncertainty_title(plan.spread), uncertainty_blocks(p), p.source_at("spread"))] if plan.spread else []),
        ("Learning rate and batch", hyperparameter_blocks(p), sources.NOTE),
        ("Near-equal choices", near_equal_blocks(p), p.source_at("near_equal")),
        ("Alternatives", alternative_blocks(p) if plan.alternatives else (), p.source_at("alternatives")),
        (
            "Notes",
            (Items(plan.notes), *legend(_flagged(plan)), Paragraph(p.provenance(made + "{c}", c=command))),
            sources.NOTE,
        ),
    ]
    lead = Section("", (Paragraph(headline(plan), answer_source(plan)), Paragraph(_conditions(p), sources.ASKED)))
    return [lead, *(Section(title, blocks, source=source) for title, blocks, source in parts if blocks)]


def seen(plan: Plan) -> View[Plan]:
    """A plan whose every number knows its place and source."""
    return View(plan, sources.plan_source(plan))


def headline(plan: Plan) -> Text:
    """The answer in one sentence."""
    p = seen(plan)
    return p(
        "Train a {size} MoE on {design.tokens} tokens: leverage {leverage}, as good as {dense}.",
        size=p.design(SIZE),
        leverage=pooled_text(p.leverage),
        dense=worth_text(p.leverage),
    )


def answer_source(plan: Plan) -> Source:
    """What the headline sums up."""
    return Source(
        "The answer in short: the best design of the declared grid for what was asked, and its leverage by all laws "
        "that know dense models, with the dense model that it is worth. The tables say more of each number.",
        ", ".join(dict.fromkeys((*plan.request.laws, *plan.leverage.pooled.weights))),
        "params with embeddings; tokens; EL is dense compute / MoE compute at equal loss",
    )


def _conditions(p: View[Plan]) -> Text:
    """What was asked and assumed, defaults included."""
    request = p.request
    budget = "{request.flops} FLOPs"
    if request.days:
        budget = "{request.days} day(s) of {request.gpus}, {training.goodput} of them training: {request.flops} FLOPs"
    memory = " and {request.memory}" if request.memory else ""
    where = "there" if request.days else "on {request.gpus}"
    trained = f", trained {where} within their memory" if request.gpus else ""
    vocabulary = "tied" if request.tied_embeddings else "untied"
    parts = [
        f"For {budget}{memory}{trained}, judged by {{laws}}",
        f"vocabulary {{request.vocab_size}} ({vocabulary}), sequences of {{request.seq_len}} tokens, "
        f"{attention_text(request)}, at most {{request.max_tokens}} tokens",
        "served in {request.weight_dtype} with a {request.kv_dtype} cache of {request.context} tokens x "
        "{request.concurrency} and {request.headroom} headroom",
    ]
    if request.choose != "best":
        rule = RULES.get(request.choose, "a rule of another version")
        parts.append(f"the {request.choose} choice: {rule}")
    if request.layout:
        parts.append("trained under {request.layout}")
    if request.multiple_of:
        sizes = ", ".join(f"{name} of {size}" for name, size in request.multiple_of.items())
        parts.append(f"multiples: {sizes}")
    if request.fix or request.ranges:
        parts.append("with {chosen}")
    if request.tokens_available is not None:
        parts.append("{request.tokens_available} unique tokens for at most {request.max_epochs} epochs")
    if request.inference_tokens:
        parts.append("{request.inference_tokens} tokens served out of the budget")
    if request.serve_gpus:
        speed = " at {request.tokens_per_second_per_user} tokens a second per user or more"
        parts.append(
            "answers of {request.answer_tokens:,} tokens to prompts of {request.prompt_tokens:,} on "
            "{request.serve_gpus}"
            + (" for {request.serve_price_per_gpu_hour} an hour" if request.serve_price_per_gpu_hour else "")
            + (speed if request.tokens_per_second_per_user else "")
        )
    if request.served:
        parts.append("{request.served} tokens served out of the budget")
    return p("; ".join(parts) + ".", laws=judges(request.laws, request.weights), chosen=held_text(request))


def held_text(request: View[object]) -> str:
    """Variables that were fixed or bounded, with their values."""
    held = [f"{name}={quantity(name, value)}" for name, value in request.fix.items()]
    held += [f"{name}={'..'.join(quantity(name, x) for x in ends)}" for name, ends in request.ranges.items()]
    return ", ".join(held)


def _if_served(p: View[Plan]) -> tuple[Block, ...]:
    """What the plan would be if its budget also had to serve."""
    return (Paragraph(if_served_text(p), p.source_at("if_served")),) if p.it.if_served else ()


def _if_concurrent(p: View[Plan]) -> tuple[Block, ...]:
    """What the plan would be if it served more users at a time."""
    if p.it.if_concurrent is None:
        return ()
    found = p.if_concurrent
    text = (
        f"For {{concurrency:d}} sequences at a time in the same memory (--concurrency {{concurrency:d}}): {SIZE} on "
        "{tokens} tokens, {value_ratio} of the best V."
    )
    return (Paragraph(found(text), p.source_at("if_concurrent")),)


def _attention(shape: View[Architecture]) -> str:
    """The attention of its blocks in words, with how many have each."""
    found = counting.attentions(shape.it)
    if len(found) == 1:
        return found[0][1].words()
    return ", ".join(f"{layers} blocks of {attention.label} ({attention.words()})" for layers, attention in found)


def _model(p: View[Plan]) -> tuple[Block, ...]:
    shape = p.architecture
    first = "first" if shape.num_dense_layers == 1 else "first {num_dense_layers}"
    dense = f", the {first} dense (d_ff {{d_ff}})" if shape.num_dense_layers else ""
    tied = "tied" if shape.tied_embeddings else "untied"
    latent = ", experts {d_latent} wide between two maps" if shape.d_latent else ""
    built = shape(
        f"{{num_layers}} layers{dense}{latent}; {_attention(shape)}; embedding of {{vocab_size}} rows, {tied}"
    )
    return (
        table(
            p.bands,
            (
                ("", lambda band: symbol(band.variable)),
                ("variable", "{variable}"),
                (">plan", "{value}"),
                (">within 1 % of V", "{low_1..high_1}"),
                (">within 5 % of V", "{low_5..high_5}"),
            ),
        ),
        Paragraph(
            p(
                "{built}. Params include embeddings, widths are in features. Bands: everything else re-optimised; "
                "designs within 1 % of the best V: {designs_within_1}, within 5 %: {designs_within_5}.",
                built=built,
            )
        ),
    )


PARAMS = {
    "with_embeddings": "params, all",
    "without_input_embedding": "params, without input embedding",
    "non_embedding": "params, without embeddings",
}
"""Ways of counting params."""


def _compute(p: View[Plan]) -> tuple[Block, ...]:
    counts, spent = p.counts, "{request.flops} FLOPs"
    rows = (
        ("budget", p(f"{{request.days}} day(s), in which it trains {spent}" if p.request.days else spent)),
        ("training", p("{counts.train_flops} FLOPs on {design.tokens:,} tokens")),
        (
            "FLOPs per token",
            counts(
                "{flops_per_token}: 6 x active params without input embedding + causal attention, forward + backward"
            ),
        ),
        (
            f"as {LEVERAGE_LAW} counts",
            counts("{flops_per_token_tian2025}: non-embedding params, full attention, no logits"),
        ),
        *(
            (PARAMS.get(name, name), counts(f"{{total_params[{name}]:4}} total, {{active_params[{name}]:4}} active"))
            for name in counts.total_params
        ),
        ("quality (V)", p("{design.value} FLOPs, {value_ratio} of the budget")),
    )
    return (Table(rows), Paragraph(_worth(p)))


def _worth(p: View[Plan]) -> Text:
    request = p.request
    if request.fix or request.ranges or "tokens" in p.binding or "training" in request.memory_for:
        cause = "Your conditions leave"
    elif "memory" in p.binding:
        cause = "Your memory limit leaves"
    else:
        cause = "No design is best by every law; this one keeps"
    return p(
        f"{cause} {{value_ratio:2}} of the budget: the plan reaches what each law's own best design of the declared "
        "grid, without a memory limit, reaches with {design.value} FLOPs (geometric mean over the laws)."
    )


def _memory(p: View[Plan]) -> tuple[Block, ...]:
    memory = p.memory
    used = [group for group, size in memory.by_group.items() if size]
    what = dict.fromkeys(used, Text(""))
    what |= {group: p("weights, {request.weight_dtype}") for group in [g for g in used if g != "kv_cache"][:1]}
    what |= {"kv_cache": p("{request.context} tokens x {request.concurrency}, {request.kv_dtype}")}
    rows = [(group, memory(f"{{by_group[{group}]}}"), what[group]) for group in used]
    if memory.usable_bytes is None:
        return (
            Table((*rows, ("total", memory("{total_bytes}"), "no limit is given")), right=(1,), strong=(len(rows),)),
        )
    each = ", each of {memory.num_devices} devices; the fullest is shown" if memory.num_devices > 1 else ""
    total = ("total", memory("{total_bytes}"), memory("of {usable_bytes} usable"))
    limit = ("limit", memory("{limit_bytes}"), p(f"with {{request.headroom}} headroom{each}"))
    return (Table((*rows, total, limit), right=(1,), strong=(len(rows),)),)


def _flagged(plan: Plan) -> bool:
    """Whether anything in the report is marked as extrapolated."""
    return (
        plan.leverage.decades_outside > 0
        or plan.leverage.pooled.decades_outside > 0
        or any(law.outside for law in plan.laws)
        or any(law.extrapolated for law in plan.hyperparameters)
        or any(law.extrapolated for law in plan.leverage.others)
        or (plan.spread is not None and any(law.inside is False for law in plan.spread.laws))
    )
