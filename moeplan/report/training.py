"""Training and serving of a plan, as blocks of a report: GPU time, money, layouts that fit, decode speeds."""

from __future__ import annotations

from moeplan.cost.serving.published import published_sizes
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.document import Plan
from moeplan.plan.training_run import LayoutOption
from moeplan.quantities import percent
from moeplan.report import sources
from moeplan.report.blocks import Block, Column, Paragraph, Table, table
from moeplan.report.life import load_text
from moeplan.report.text import NONE, Text, listed
from moeplan.report.view import View
from moeplan.units import format_count

_SHORT = {"virtual_stages": "virtual"}
_DEGREES = ("tp", "pp", "ep", "etp", "cp", "dp")


def training_blocks(plan: View[Plan]) -> tuple[Block, ...]:
    """GPU-hours, days and money at the predicted speed, and the fastest layouts."""
    run = plan.training
    days = ", {days} day(s) on {num_gpus}" if run.days is not None and run.num_gpus else ""
    pauses = ", {goodput} of them training"
    price = plan("{training.money:,.0f} at {request.price_per_gpu_hour} a {training.device}-hour")
    given = plan.request.batch
    law = plan.it.hyperparameters[0].law if plan.it.hyperparameters else LEVERAGE_LAW
    whose = f"at most {given:,} were asked for" if given else f"{law}'s"
    if run.num_gpus:
        whose += ", rounded to the GPUs" if given else " at the compute of the budget, rounded to the GPUs"
    batch = run(
        f"{{batch_sequences}} sequences, {{tokens}} tokens: {whose}",
        tokens=plan.kind_at("design.tokens").text(run.batch_sequences * plan.request.seq_len),
    )
    rows = [("GPU time", run(f"{{gpu_hours}} {{device}}-hours{days}"))]
    if run.days is not None and run.days.low is not None:
        interval = "; 80 % interval {days.low}–{days.high} days"
        rows[0] = ("GPU time", run(f"{{gpu_hours}} {{device}}-hours{days}{pauses}{interval}"))
    elif run.gpu_hours is None:
        rows[0] = ("GPU time", run("not known: {mfu_basis}"))
    elif run.gpu_hours.low is not None:
        interval = "; 80 % interval {gpu_hours.low}–{gpu_hours.high}"
        rows[0] = ("GPU time", run(f"{{gpu_hours}} {{device}}-hours{pauses}{interval}"))
    if run.money is not None:
        rows.append(("price", price))
    if run.tokens_per_second_per_gpu is not None:
        idle = ", of which {idle_gpus} stay idle" if run.idle_gpus else ""
        ends = run.tokens_per_second_per_gpu.low is not None
        interval = " ({tokens_per_second_per_gpu.low}–{tokens_per_second_per_gpu.high})" if ends else ""
        speed = f"{{tokens_per_second_per_gpu}}{interval} tokens/s per GPU{idle}; {{precision}}, {{software}}"
        rows.append(("speed", run(speed)))
    band = " ({mfu.low..high})" if run.mfu.low is not None else ""
    if run.site_note:
        rows.append(("site", run("{site_note}")))
    rows += [
        ("MFU", run(f"{{mfu}}{band} of the dense bf16 peak: {{mfu_basis}}")),
        ("batch", batch),
        ("optimizer", run.optimizer),
    ]
    blocks: list[Block] = [Table(tuple(rows))]
    if run.layouts:
        names = (*_DEGREES, "virtual_stages")
        degrees = [name for name in names if any(getattr(x, name) > 1 for x in run.layouts)]
        columns: list[Column] = [
            *((f">{_SHORT.get(name, name)}", f"{{{name}:d}}") for name in degrees),
            (">micro-batch", "{micro_batch:d}"),
            ("recompute", lambda layout: NONE if layout.recompute == "none" else layout.recompute),
            ("memory per GPU", "{bytes_per_gpu}"),
        ]
        if all(x.tokens_per_second_per_gpu is not None for x in run.layouts):
            columns += [(">tokens/s/GPU", "{tokens_per_second_per_gpu}"), (">MFU", "{mfu}"), (">days", "{days}")]
        else:
            columns.append(("step", "{step_time:.2f}"))
        columns.append(("largest terms", _terms))
        blocks.append(table(run.layouts, tuple(columns), source=sources.LAYOUT))
        text = (
            "Layouts on {num_gpus} GPU(s), of {usable_bytes} usable on each, the fastest first. MFU: {mfu_convention}."
        )
        blocks.append(Paragraph(run(text), sources.LAYOUT))
        if run.site_ln_sd is not None and run.design_ln_sd is not None:
            parts = (
                "The interval of time has two parts, as standard deviations: {site} by site, which all designs share, "
                "and {design} by design. Designs were compared at speeds drawn towards what is usual for their size, "
                "so that what the model cannot tell apart does not decide; the speeds here are its own."
            )
            timed = plan.request.optimise == "time"
            said = parts if timed else parts[: parts.index(" Designs were")]
            blocks.append(Paragraph(said.format(site=percent(run.site_ln_sd), design=percent(run.design_ln_sd))))
    elif plan.request.gpus:
        blocks.append(Paragraph(f"No layout is listed: {run.layout_note}."))
    return tuple(blocks)


def _terms(layout: View[LayoutOption]) -> Text:
    terms = sorted(layout.step_terms, key=lambda name: -layout.step_terms[name])[:3]
    return listed(layout(f"{name} {{step_terms[{name}]:2}}") for name in terms)


def serving_blocks(plan: View[Plan]) -> tuple[Block, ...]:
    """Users that fit and their speed, decode by batch and context, and the prompt."""
    use = plan.serving
    if not use.points:
        return (Paragraph(f"More than 1,024 {use.device} would be needed to serve it."),)
    columns: tuple[Column, ...] = (
        (">sequences", "{batch:d}"),
        (">tokens each", "{context:,}"),
        (">experts hit", "{experts_hit}"),
        (">weights read", "{weight_bytes}"),
        (">cache read", "{kv_bytes}"),
        (">tok/s per user", "{expected_tokens_per_second_per_user:number}"),
        (">tok/s per GPU", "{expected_tokens_per_second_per_gpu:number}"),
        (">at most per GPU", "{tokens_per_second_per_gpu:number}"),
        ("", lambda point: "" if point.fits else "does not fit"),
    )
    bounds = " or ".join(sorted({point.bound for point in use.points}))
    prompts = listed(
        use(f"{int(tokens):,} tokens {{prefill_flops[{tokens}]}} FLOPs ({{prefill_seconds[{tokens}]}} s)")
        for tokens in use.prefill_flops
    )
    spread = ""
    if plan.it.serving.num_devices > 1:
        spread = (
            ", caches spread evenly, the least of any split (split by KV heads, as Memory counts, there may be copies)"
        )
    text = (
        f"Decode on {{serving.num_devices:d}} {{serving.device}}, {{request.weight_dtype}} weights, bytes of one step "
        f"on one device{spread}. Speeds are those to be expected of today's software, by a model fitted to published "
        "figures (80 % interval: divided and multiplied by {serving.concurrency.interval_factor:number}); no GPU "
        f'passes "at most", by bytes over bandwidth and FLOPs over peak (bound by {bounds}). Prompts take at least: '
        "{prompts}."
    )
    fewest, most = published_sizes()
    if not fewest <= plan.design.active_params <= most:
        text += f" The figures are of {format_count(fewest)} to {format_count(most)} active params: extrapolated here."
    return (
        Paragraph(_concurrency(plan)),
        *([Paragraph(load_text(plan))] if use.load is not None else []),
        table(use.points, columns),
        Paragraph(plan(text, prompts=prompts)),
    )


def _concurrency(plan: View[Plan]) -> Text:
    """How many sequences of the stated context fit, and how fast each is."""
    found = plan.serving.concurrency
    memory, hold = "{serving.num_devices:d} {serving.device}", "hold" if plan.serving.num_devices > 1 else "holds"
    if plan.request.memory:
        memory, hold = "{request.memory}", "holds"
    if not found.most_sequences:
        return plan(f"{memory} {hold} no sequence of {{serving.concurrency.context:,}} tokens.")
    speed = (
        "{serving.concurrency.tokens_per_second_per_user:number} tokens a second per user and "
        "{serving.concurrency.tokens_per_second_per_gpu:number} per GPU with all of them, "
        "{serving.concurrency.tokens_per_second_per_user_alone:number} for one user alone"
    )
    return plan(
        f"{memory} {hold} {{serving.concurrency.most_sequences:,}} sequence(s) of "
        f"{{serving.concurrency.context:,}} tokens at a time: {speed}, on "
        "{serving.num_devices:d} {serving.device}."
    )
