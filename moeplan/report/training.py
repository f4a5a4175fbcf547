"""What a plan says of its training and serving: GPU time, money, layouts that fit, decode speeds."""

from __future__ import annotations

from typing import Any

from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.document import LayoutOption, Plan
from moeplan.report import sources
from moeplan.report.blocks import Block, Column, Paragraph, Table, table
from moeplan.report.text import NONE, Text, joined, listed
from moeplan.report.view import View

_DEGREES = ("tp", "pp", "ep", "etp", "cp", "dp")


def training_blocks(plan: View[Plan]) -> tuple[Block, ...]:
    """GPU-hours, days and money at a stated utilisation, and the fastest layouts."""
    run = plan.training
    days = ", {days} days on {num_gpus}" if run.days is not None and run.num_gpus else ""
    price = plan("{training.money:,.0f} at {request.price_per_gpu_hour} a {training.device}-hour")
    batch = run(
        "{batch_sequences} sequences, {tokens} tokens: {law}'s, rounded to the GPUs",
        law=LEVERAGE_LAW,
        tokens=plan.kind_at("design.tokens").text(run.batch_sequences * plan.request.seq_len),
    )
    rows = (
        ("GPU time", run(f"{{gpu_hours}} {{device}}-hours{days}")),
        *([("price", price)] if run.money is not None else []),
        ("at", run("{mfu} of the dense bf16 peak (MFU): {mfu_basis}")),
        ("batch", batch),
        ("optimizer", run.optimizer),
    )
    blocks: list[Block] = [Table(rows)]
    if run.layouts:
        degrees = [name for name in _DEGREES if any(getattr(x, name) > 1 for x in run.layouts)]
        columns: tuple[Column, ...] = (
            *((f">{name}", f"{{{name}:d}}") for name in degrees),
            (">micro-batch", "{micro_batch:d}"),
            ("recompute", lambda layout: NONE if layout.recompute == "none" else layout.recompute),
            ("memory a GPU", "{bytes_per_gpu}"),
            ("step", "{step_time:.2f}"),
            ("largest terms", _terms),
        )
        blocks.append(table(run.layouts, columns, source=sources.LAYOUT))
        text = (
            "Layouts on {num_gpus} GPUs, of {usable_bytes} usable each, the fastest first by a calibrated model of "
            "a step's time (moeplan.cost.training.throughput); times are relative to the first."
        )
        blocks.append(Paragraph(run(text), sources.LAYOUT))
    elif plan.request.gpus:
        blocks.append(Paragraph(f"No layout is listed: {run.layout_note}."))
    return tuple(blocks)


def _terms(layout: View[LayoutOption]) -> Text:
    terms = sorted(layout.step_terms, key=lambda name: -layout.step_terms[name])[:3]
    return listed(layout(f"{name} {{step_terms[{name}]:2}}") for name in terms)


def serving_blocks(plan: View[Plan]) -> tuple[Block, ...]:
    """Decode speeds at best by batch and context, and the prompt."""
    use = plan.serving
    if not use.points:
        return (Paragraph(f"More than 1,024 {use.device} would be needed to serve it."),)
    contexts = sorted({point.context for point in use.points})
    speeds = {(point.batch, point.context): point for point in use.points}

    def first(template: str) -> Any:
        return lambda batch: next(point for point in use.points if point.batch == batch)(template)

    def speed(context: int) -> Any:
        return lambda batch: _speed(speeds.get((batch, context)))

    columns: tuple[Column, ...] = (
        (">batch", first("{batch:d}")),
        (">experts hit", first("{experts_hit}")),
        (">weights read", first("{weight_bytes}")),
        (">FLOPs", first("{flops}")),
        *((f">tok/s at {context:,}", speed(context)) for context in contexts),
    )
    bounds = " or ".join(sorted({point.bound for point in use.points}))
    prompts = listed(
        use(f"{int(tokens):,} tokens {{prefill_flops[{tokens}]}} FLOPs ({{prefill_seconds[{tokens}]}} s)")
        for tokens in use.prefill_flops
    )
    text = (
        f"Decode on {{serving.num_devices:d}} {{serving.device}}, upper bounds by bytes over bandwidth and FLOPs over "
        f"peak (bound by {bounds}): tokens a second of one device at a cache of so many tokens a sequence, "
        "{request.weight_dtype} weights; bytes and FLOPs are one step's on one device. Prompts take at least: "
        "{prompts}."
    )
    rows = sorted({point.batch for point in use.points})
    return (table(rows, columns), Paragraph(plan(text, prompts=prompts)))


def _speed(point: Any) -> str:
    if point is None:
        return NONE
    return joined((point("{tokens_per_second_per_gpu}"), "" if point.fits else " (too large)"))
