"""Suggested proxy runs as sections: the runs, what they should bring, and what to beware of."""

from __future__ import annotations

from moeplan.architecture.shape import Architecture
from moeplan.fitting.suggestion import Suggestion
from moeplan.report.blocks import Items, Paragraph, Section, Source, Table, number, percent, quantity
from moeplan.units import format_count, format_flops


def suggestion_sections(found: Suggestion) -> list[Section]:
    """What to run next, for whom, and at what cost."""
    target = f"{format_flops(found.target_flops)} FLOPs" + (
        f" and {found.target_memory}" if found.target_memory else ""
    )
    return [
        Section(
            f"What to run next, for {target}",
            (Paragraph(_headline(found)), _runs(found), Paragraph(_told(found)), _expected(found), Items(found.notes)),
        )
    ]


def _source(found: Suggestion, says: str, path: str) -> Source:
    return Source(says, law=f"{found.law} ({found.form})", convention="params with embeddings", path=path)


def _headline(found: Suggestion) -> str:
    count = len(found.runs)
    return (
        f"Now the law's recommendation wastes {percent(found.regret_now, 2)} of the budget on average over "
        f"{found.draws} draws of its coefficients; after {'this run' if count == 1 else f'these {count} runs'} of "
        f"{format_flops(found.train_flops)} FLOPs in all, {percent(found.regret_after, 2)} are to be expected, if the "
        f"law's equation is right."
    )


def _runs(found: Suggestion) -> Table:
    rows = tuple(
        (
            str(place),
            shape_text(run.architecture),
            experts_text(run.architecture),
            format_count(run.total_params),
            format_count(run.active_params),
            format_count(run.tokens),
            format_flops(run.train_flops),
            number(run.predicted, 4),
            percent(run.regret_after, 2),
        )
        for place, run in enumerate(found.runs, 1)
    )
    columns = ("", "d x layers", "experts", "N", "Na", "tokens", "FLOPs", "loss by the law", "wasted then")
    source = _source(found, "Least weighted variance left of the value of designs that may be the best.", "/runs")
    return Table(rows, columns, right=(3, 4, 5, 6, 7, 8), source=source)


def shape_text(shape: Architecture) -> str:
    """Width and depth."""
    return f"{shape.d_model} x {shape.num_layers}"


def experts_text(shape: Architecture) -> str:
    """Active and shared of routed experts and their width, or the width of a dense model's block."""
    if shape.is_dense:
        return f"dense, {shape.d_ff}"
    shared = f" + {shape.num_shared_experts}" if shape.num_shared_experts else ""
    return f"{shape.num_active_experts}{shared} of {shape.num_experts}, {shape.d_expert}"


def _told(found: Suggestion) -> str:
    return (
        f"Experts: active + shared of routed, width. Chosen from {found.candidates:,} runs of at most "
        f"{format_flops(found.max_flops)} FLOPs, the most valuable first; wasted then: of the budget, with this run "
        f"and those above it. One run's loss scatters by {percent(found.noise, 2)} about the law."
    )


def _expected(found: Suggestion) -> Table:
    rows = tuple(
        (
            _name(x.quantity),
            _shown(x.quantity, x.value),
            f"{_shown(x.quantity, x.low)} to {_shown(x.quantity, x.high)}",
            f"{_shown(x.quantity, x.low_after)} to {_shown(x.quantity, x.high_after)}",
        )
        for x in found.expected
    )
    level = f"{100 * found.level:g} % interval"
    columns = ("at the target", "by the law", f"{level} now", "to expect then")
    says = "The best design found anew under every draw; then with the covariance that the runs leave."
    return Table(rows, columns, right=(1, 2, 3), source=_source(found, says, "/expected"))


def _name(name: str) -> str:
    return {"loss": "loss of the recommended design", "efficiency_leverage": "its EL"}.get(name, f"best {name}")


def _shown(name: str, value: float) -> str:
    return number(value, 4) if name == "loss" else quantity(name, value)
