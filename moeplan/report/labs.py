"""Designs of laboratories beside moeplan's in their place, as sections: a table of models, and how near it comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moeplan.quantities import number
from moeplan.report.blocks import Column, Items, Paragraph, Section, Table, table
from moeplan.report.opinions import shape_cells
from moeplan.report.screen.paper import paper_parts
from moeplan.report.text import NONE, Source
from moeplan.report.view import View
from moeplan.studies.labs import HOURS_DEVICE, HOURS_MFU, MEMORY_SLACK, SEQUENCES, SPEED, Labs

_COUNTED = Source(
    "Counted from exact shapes; chosen by a search over the declared grid with equal weights of the laws.",
    convention="params with embeddings; FLOPs 6 x active params without input embedding + causal attention",
)
BASIS = "What this rests on"
"""The section that says how choices were made comparable."""
_COLUMNS = (
    "served", "params", "tokens", "k+s/E", "g", "layers x d_model", "V / C", "N_a / lab's", "D / lab's", "V / lab's",
)  # fmt: skip


def labs_sections(found: Labs) -> list[Section]:
    """The whole report."""
    seen = View(found, lambda parts: _COUNTED)
    return [
        Section("", (Paragraph(_headline(found), _COUNTED),)),
        Section("How near", (_agreement(seen),)),
        *(Section(lab.model, (_table(lab),)) for lab in seen.labs),
        Section(BASIS, (Items(_notes(found)),)),
    ]


def labs_summary(report: Sequence[Section]) -> list[Section]:
    """What a print begins with: how near moeplan's choices come, and what that is worth."""
    return paper_parts(report, None, ("How near", BASIS))


def _headline(found: Labs) -> str:
    by_flops = [each for each in found.agreement if each.paid_in == "flops"]
    best = min(by_flops, key=lambda each: each.median_factor)
    alone = next((each for each in by_flops if each.demand == 0), None)
    trained = f" For training alone it is {number(alone.median_factor)}x off." if alone and alone != best else ""
    return (
        f"With the budget, memory and vocabulary of {len(found.labs)} published models, and {best.demand:g} times "
        f"their training tokens to serve, moeplan's choice of active params is within {number(best.median_factor)}x of "
        f"the laboratory's (median; worst {number(best.worst_factor)}x, {best.worst}).{trained}"
    )


def _agreement(seen: View[Labs]) -> Table:
    columns: tuple[Column, ...] = (
        (">served tokens / lab's training tokens", "{demand:g}"),
        ("paid in", lambda each: "FLOPs" if each.paid_in == "flops" else f"{HOURS_DEVICE}-hours"),
        (">median factor of N_a", "{median_factor:number}x"),
        (">worst", "{worst_factor:number}x"),
        ("of", "{worst}"),
    )
    return table(seen.agreement, columns, source=_COUNTED)


def _table(lab: View[Any]) -> Table:
    rows = [("the lab", *_cells(lab.choice), lab("{value_ratio}"), NONE, NONE, NONE)]
    for each in lab.chosen:
        name = f"{each.demand:g} x D" + (", hours" if each.paid_in == "gpu_hours" else "")
        if each.choice is None:
            rows.append((name, each.says, *[NONE] * 8))
            continue
        factors = ("{value_ratio}", "{active_params_factor:.2f}", "{tokens_factor:.2f}", "{value_factor:.2f}")
        rows.append((name, *_cells(each.choice), *map(each, factors)))
    return Table(tuple(rows), _COLUMNS, right=tuple(range(1, 10)), strong=(0,), source=_COUNTED)


def labs_table(found: Labs, demand: float) -> Table:
    """One row a model: its design, N_a of training alone over its own, and the choice with a demand beside it."""
    rows = []
    for lab in View(found, lambda parts: _COUNTED).labs:
        by_demand = {each.demand: each for each in lab.chosen if each.paid_in == "flops"}
        alone, served = by_demand[0.0], by_demand[demand]
        choice = (*_cells(served.choice),) if served.choice else (NONE,) * 5
        factors = [served(f"{{{name}:.2f}}") for name in ("active_params_factor", "tokens_factor", "value_factor")]
        in_hours = [each for each in lab.chosen if (each.demand, each.paid_in) == (demand, "gpu_hours")]
        hours = [each("{active_params_factor:.2f}") for each in in_hours] or [NONE]
        rows.append((lab.model, *_cells(lab.choice), alone("{active_params_factor:.2f}"), *choice, *factors, *hours))
    shape = ("params", "tokens", "k+s/E", "g", "layers x d_model")
    columns = ("model", *shape, "N_a, trained alone", *shape, "N_a", "D", "V", f"N_a, {HOURS_DEVICE}-hours")
    return Table(tuple(rows), columns, right=tuple(range(2, len(columns))), source=_COUNTED)


def _cells(choice: View[Any]) -> tuple[str, ...]:
    return (*shape_cells(choice), choice("{num_layers:d} x {d_model}"))


def _notes(found: Labs) -> tuple[str, ...]:
    hybrids = ", ".join(lab.model for lab in found.labs if lab.is_hybrid)
    own = "Blocks with windows, linear attention, states or an indexer, which moeplan's own designs do not have:"
    return (
        "Budget: training FLOPs of the laboratory + 2 x its N_a for each served token; moeplan pays 2 x its own N_a "
        "for the same served tokens out of the same budget.",
        f"Memory: weights as served and one sequence of 8,192 cached tokens of the laboratory's model, times "
        f"{MEMORY_SLACK:g}, without headroom.",
        f"V by {', '.join(found.laws)} with equal weights; C: the laboratory's training compute. The choice is the "
        "best of the declared grid, which holds no laboratory's design, so V / lab's may lie below 1.",
        *([f"{own} {hybrids}."] if hybrids else []),
        f"In hours: training at {100 * HOURS_MFU:g} % of the bf16 peak of {HOURS_DEVICE}, serving by the model of "
        f"serving throughput at {SPEED:g} tokens a second for each user, answers of 1,024 tokens to prompts of 1,024, "
        f"on the fewest {HOURS_DEVICE} that hold the laboratory's model and {SEQUENCES} sequences of 8,192 tokens.",
        "Weak evidence: laboratories follow each other, their choices had reasons that no law sees, and their N_a "
        "enters the budget. It weighs no law.",
    )
