"""Suggested proxy runs as sections: the runs, what they should bring, and what to beware of."""

from __future__ import annotations

from moeplan.architecture.shape import Architecture
from moeplan.fitting.suggestion import Expected, Suggestion
from moeplan.quantities import LOSS, NUMBER, Kind, kind_of
from moeplan.report.blocks import Block, Column, Items, Paragraph, table
from moeplan.report.view import View


def suggestion_sections(found: View[Suggestion]) -> list[tuple[str, tuple[Block, ...]]]:
    """What to run next, for whom, and at what cost: titles with what stands below."""
    target = found("{target_flops} FLOPs" + (" and {target_memory}" if found.target_memory else ""))
    these = "this run" if len(found.runs) == 1 else f"these {len(found.runs)} runs"
    headline = found(
        "Now the law's recommendation wastes {regret_now:share2} of the budget on average over {draws} draws of its "
        f"coefficients; after {these} of {{train_flops}} FLOPs in all, {{regret_after:share2}} are to be expected, if "
        "the law's equation is right."
    )
    time: tuple[Block, ...] = ()
    if found.days is not None:
        time = (
            Paragraph(
                found(
                    "One after another on {gpus} they take {days:number} day(s) (80 %: {days.low:number} to "
                    "{days.high:number})"
                    + (" of {max_days:number}" if found.max_days else "")
                    + ", pauses of 10 % included, tuning of learning rates not; each fits these GPUs."
                )
            ),
        )
    told = found(
        "Experts: active + shared of routed, width. Chosen from {candidates} runs of at most {max_flops} FLOPs, the "
        "most valuable first; wasted then: of the budget, with this run and those above it. One run's loss scatters by "
        "{noise:share2} about the law."
    )
    listed = found.runs
    runs: tuple[Column, ...] = (
        ("", lambda run: str(listed.index(run) + 1)),
        ("d x layers", lambda run: shape_text(run.architecture)),
        ("experts", lambda run: experts_text(run.architecture)),
        (">N", "{total_params}"),
        (">Na", "{active_params}"),
        (">tokens", "{tokens}"),
        (">FLOPs", "{train_flops}"),
        *(((">days", "{days:number}"),) if found.days is not None else ()),
        (">memory", "{memory_bytes:bytes}"),
        (">loss by the law", "{predicted:loss}"),
        (">wasted then", "{regret_after:share2}"),
    )
    level = f"{100 * found.level:g} % interval"
    expected: tuple[Column, ...] = (
        ("at the target", _name),
        (">by the law", lambda x: x(f"{{value:{_kind(x).name}}}")),
        (f">{level} now", lambda x: x(f"{{low:{_kind(x).name}}} to {{high:{_kind(x).name}}}")),
        (">to expect then", lambda x: x(f"{{low_after:{_kind(x).name}}} to {{high_after:{_kind(x).name}}}")),
    )
    blocks = (
        Paragraph(headline),
        table(listed, runs),
        *time,
        Paragraph(told),
        table(found.expected, expected),
        Items(found.notes),
    )
    return [(f"What to run next, for {target}", blocks)]


def shape_text(shape: Architecture) -> str:
    """Width and depth."""
    return f"{shape.d_model} x {shape.num_layers}"


def experts_text(shape: Architecture) -> str:
    """Active and shared of routed experts and their width, or the width of a dense model's block."""
    if shape.is_dense:
        return f"dense, {shape.d_ff}"
    shared = f" + {shape.num_shared_experts}" if shape.num_shared_experts else ""
    return f"{shape.num_active_experts}{shared} of {shape.num_experts}, {shape.d_expert}"


def _name(expected: View[Expected]) -> str:
    names = {"loss": "loss of the recommended design", "efficiency_leverage": "its EL"}
    return names.get(expected.quantity, f"best {expected.quantity}")


def _kind(expected: View[Expected]) -> Kind:
    """How an expected quantity is written."""
    return {"loss": LOSS, "efficiency_leverage": NUMBER}.get(expected.quantity, kind_of(expected.quantity))
