"""What a plan says of its training: GPU time, money, layouts that fit."""

from __future__ import annotations

import dataclasses

from moeplan.cost.serving import DecodePoint
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.document import LayoutOption, Plan, TrainingRun
from moeplan.report import sources
from moeplan.report.blocks import NONE, Block, Cell, Paragraph, Source, Table, at, number, percent
from moeplan.units import format_bytes, format_count, format_flops

_DEGREES = ("tp", "pp", "ep", "etp", "cp", "dp")


def training_blocks(plan: Plan) -> tuple[Block, ...]:
    """GPU-hours, days and money at a stated utilisation, and the fastest layouts."""
    run = plan.training
    tokens = run.batch_sequences * plan.request.seq_len
    rows = [
        (
            "GPU time",
            at(
                f"{format_count(run.gpu_hours)} {run.device}-hours{_days(run)}",
                "/training/gpu_hours",
                "/training/days",
                "/training/num_gpus",
            ),
        ),
        (
            "at",
            at(f"{percent(run.mfu)} of the dense bf16 peak (MFU): {run.mfu_basis}", "/training/mfu"),
        ),
        (
            "batch",
            Cell(
                f"{run.batch_sequences:,} sequences, {format_count(tokens)} tokens: {LEVERAGE_LAW}'s, rounded to the "
                "GPUs",
                dataclasses.replace(sources.BATCH, path="/training/batch_sequences"),
            ),
        ),
        ("optimizer", run.optimizer),
    ]
    if run.money is not None:
        price = number(plan.request.price_per_gpu_hour or 0.0)
        money = f"{run.money:,.0f} at {price} a {run.device}-hour"
        rows.insert(1, ("price", at(money, "/training/money", "/request/price_per_gpu_hour")))
    blocks: list[Block] = [Table(tuple(rows))]
    if run.layouts:
        names = [name for name in _DEGREES if any(getattr(x, name) > 1 for x in run.layouts)]
        columns = (*names, "micro-batch", "recompute", "memory a GPU", "step", "largest terms")
        listed = tuple(_row(x, names, f"/training/layouts/{place}") for place, x in enumerate(run.layouts))
        blocks.append(Table(listed, columns, right=tuple(range(len(names) + 1)), source=sources.LAYOUT))
        usable = format_bytes(run.usable_bytes or 0)
        blocks.append(
            Paragraph(
                f"Layouts on {run.num_gpus:,} GPUs, of {usable} usable each, the fastest first by a stated model of a "
                "step's time (moeplan.cost.training.step_time); times are relative to the first.",
                Source(sources.LAYOUT.says, path="/training/num_gpus /training/usable_bytes"),
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
    speeds = {(point.batch, point.context): (i, point) for i, point in enumerate(use.points)}
    rows = []
    for batch in sorted({point.batch for point in use.points}):
        found = [speeds.get((batch, context)) for context in contexts]
        place, first = next(point for point in found if point)
        path = f"/serving/points/{place}"
        rows.append(
            (
                at(str(batch), f"{path}/batch"),
                at(number(first.experts_hit), f"{path}/experts_hit"),
                at(format_bytes(first.weight_bytes), f"{path}/weight_bytes"),
                at(format_flops(first.flops), f"{path}/flops"),
                *(_speed(*point) if point else NONE for point in found),
            )
        )
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
            f"{prompts}.",
            dataclasses.replace(
                sources.SERVING,
                path=" ".join(
                    (
                        "/serving/num_devices",
                        *(f"- /serving/prefill_flops/{n} /serving/prefill_seconds/{n}" for n in use.prefill_flops),
                    )
                ),
            ),
        ),
    )


def _speed(place: int, point: DecodePoint) -> str:
    text = number(point.tokens_per_second_per_gpu) + ("" if point.fits else " (too large)")
    return at(text, f"/serving/points/{place}/tokens_per_second_per_gpu")


def _days(run: TrainingRun) -> str:
    return f", {number(run.days)} days on {run.num_gpus:,}" if run.days is not None and run.num_gpus else ""


def _row(layout: LayoutOption, names: list[str], path: str) -> tuple[str, ...]:
    terms = sorted(layout.step_terms.items(), key=lambda item: -item[1])[:3]
    return (
        *(at(str(getattr(layout, name)), f"{path}/{name}") for name in names),
        at(str(layout.micro_batch), f"{path}/micro_batch"),
        layout.recompute if layout.recompute != "none" else NONE,
        at(format_bytes(layout.bytes_per_gpu), f"{path}/bytes_per_gpu"),
        at(f"{layout.step_time:.2f}", f"{path}/step_time"),
        at(
            ", ".join(f"{name} {percent(share, 2)}" for name, share in terms),
            *(f"{path}/step_terms/{name}" for name, _ in terms),
        ),
    )
