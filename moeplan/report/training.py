"""What a plan says of its training: GPU time, money, layouts that fit."""

from __future__ import annotations

from moeplan.plan import LayoutOption, Plan, TrainingRun
from moeplan.report.blocks import NONE, Block, Paragraph, Table, number, percent
from moeplan.serving import DecodePoint
from moeplan.units import format_bytes, format_count, format_flops

_DEGREES = ("tp", "pp", "ep", "etp", "cp", "dp")


def training_blocks(plan: Plan) -> tuple[Block, ...]:
    """GPU-hours, days and money at a stated utilisation, and the fastest layouts."""
    run = plan.training
    tokens = run.batch_sequences * plan.request.seq_len
    rows = [
        ("GPU time", f"{format_count(run.gpu_hours)} {run.device}-hours{_days(run)}"),
        ("at", f"{percent(run.mfu)} of the dense bf16 peak (MFU): {run.mfu_basis}"),
        ("batch", f"{run.batch_sequences:,} sequences, {format_count(tokens)} tokens: tian2025's, rounded to the GPUs"),
        ("optimizer", run.optimizer),
    ]
    if run.money is not None:
        price = number(plan.request.price_per_gpu_hour or 0.0)
        rows.insert(1, ("price", f"{run.money:,.0f} at {price} a {run.device}-hour"))
    blocks: list[Block] = [Table(tuple(rows))]
    if run.layouts:
        names = [name for name in _DEGREES if any(getattr(x, name) > 1 for x in run.layouts)]
        columns = (*names, "micro-batch", "recompute", "memory a GPU", "step", "largest terms")
        blocks.append(Table(tuple(_row(x, names) for x in run.layouts), columns, right=tuple(range(len(names) + 1))))
        usable = format_bytes(run.usable_bytes or 0)
        blocks.append(
            Paragraph(
                f"Layouts on {run.num_gpus:,} GPUs, of {usable} usable each, the fastest first by a stated model of a "
                "step's time (moeplan.training.step_time); times are relative to the first."
            )
        )
    elif plan.request.gpus:
        blocks.append(Paragraph(f"No layout is listed: {run.layout_note}."))
    return tuple(blocks)


def serving_blocks(plan: Plan) -> tuple[Block, ...]:
    """Decode speeds at best by batch and context, and the prompt."""
    use, request = plan.serving, plan.request
    if not use.points:
        return (Paragraph(f"More than 1,024 {use.device} would be needed to serve it."),)
    contexts = sorted({point.context for point in use.points})
    speeds = {(point.batch, point.context): point for point in use.points}
    rows = []
    for batch in sorted({point.batch for point in use.points}):
        at = [speeds.get((batch, context)) for context in contexts]
        first = next(point for point in at if point)
        experts, read = number(first.experts_hit), format_bytes(first.weight_bytes)
        rows.append((str(batch), experts, read, format_flops(first.flops), *(_speed(point) for point in at)))
    prompts = ", ".join(
        f"{int(tokens):,} tokens {format_flops(flops)} FLOPs ({number(use.prefill_seconds[tokens])} s)"
        for tokens, flops in use.prefill_flops.items()
    )
    columns = ("batch", "experts hit", "weights read", "FLOPs", *(f"tok/s at {c:,}" for c in contexts))
    bounds = {point.bound for point in use.points}
    devices = f"{use.num_devices} {use.device}"
    return (
        Table(tuple(rows), columns, right=tuple(range(len(columns)))),
        Paragraph(
            f"Decode on {devices}, upper bounds by bytes over bandwidth and FLOPs over peak (bound by "
            f"{' or '.join(sorted(bounds))}): tokens a second of one device at a cache of so many tokens a sequence, "
            f"{request.weight_dtype} weights; bytes and FLOPs are one step's on one device. Prompts take at least: "
            f"{prompts}."
        ),
    )


def _speed(point: DecodePoint | None) -> str:
    if point is None:
        return NONE
    return number(point.tokens_per_second_per_gpu) + ("" if point.fits else " (too large)")


def _days(run: TrainingRun) -> str:
    return f", {number(run.days)} days on {run.num_gpus:,}" if run.days is not None and run.num_gpus else ""


def _row(layout: LayoutOption, names: list[str]) -> tuple[str, ...]:
    terms = sorted(layout.step_terms.items(), key=lambda item: -item[1])[:3]
    return (
        *(str(getattr(layout, name)) for name in names),
        str(layout.micro_batch),
        layout.recompute if layout.recompute != "none" else NONE,
        format_bytes(layout.bytes_per_gpu),
        f"{layout.step_time:.2f}",
        ", ".join(f"{name} {percent(share, 2)}" for name, share in terms),
    )
