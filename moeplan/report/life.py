"""What a plan says of its model's life: training and serving out of one budget, and what serving would change."""

from __future__ import annotations

from moeplan.plan.document import Plan
from moeplan.report.blocks import Block, Table
from moeplan.report.text import Text, joined
from moeplan.report.view import View


def life_blocks(plan: View[Plan]) -> tuple[Block, ...]:
    """Training and serving beside each other."""
    life = plan.life
    share = life("{serve_share} of both")
    if life.paid_in == "flops":
        served = life("{serve_flops} FLOPs on {served} tokens, 2 N_a FLOPs each: {share}", share=share)
        return (Table((("training", life("{train_flops} FLOPs")), ("serving", served))),)
    train, serve = (
        plan(f" for {{life.{part}_money:,.0f}}") if life.train_money is not None else "" for part in ("train", "serve")
    )
    rows = (
        ("training", joined((plan("{life.train_gpu_hours} {training.device}-hours"), train))),
        (
            "serving",
            joined(
                (
                    plan("{life.serve_gpu_hours} {serving.load.device}-hours"),
                    serve,
                    plan(" on {life.served} tokens: "),
                    share,
                )
            ),
        ),
    )
    return (Table(rows),)


def load_text(plan: View[Plan]) -> Text:
    """What the serving devices reach on the prompts and answers that are asked."""
    ways = {"tensor": "every matrix split", "data": "each device with its own sequences, experts spread"}
    split = ways.get(plan.serving.load.split, "")
    devices = "{serving.load.num_devices:d} {serving.load.device}"
    return plan(
        f"{devices} ({split}) answer {{serving.load.sequences:,}} users at a time, prompts of "
        "{serving.load.prompt_tokens:,} tokens with {serving.load.answer_tokens:,} tokens each, at "
        "{serving.load.tokens_per_second_per_user:number} tokens a second per user and "
        "{serving.load.tokens_per_second_per_gpu:number} per GPU; "
        "{serving.load.served_tokens_per_second_per_gpu:number} per GPU with the prompts' tokens. One user alone would "
        "see {serving.load.fastest:number}. At full load, whatever the hour of the day."
    )


def if_served_text(plan: View[Plan]) -> Text:
    """What the plan would be if its budget also had to serve, in a line."""
    found = plan.if_served
    change = f"{100 * (found.value_ratio - 1):+.2g} %"
    return plan(
        "If this budget also served {if_served.served} tokens ({if_served.multiple:g} x its own): "
        "{if_served.total_params}-A{if_served.active_params} on {if_served.tokens} tokens, V {change}.",
        change=change,
    )
