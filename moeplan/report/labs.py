"""What laboratories chose, beside what moeplan chooses in their place: a table of models, and how near it comes."""

from __future__ import annotations

from moeplan.quantities import number
from moeplan.report.blocks import Items, Paragraph, Section, Table
from moeplan.report.text import NONE, Source
from moeplan.studies.labs import MEMORY_SLACK, Choice, Labs
from moeplan.units import format_count

_COUNTED = Source(
    "Counted from exact shapes; chosen by a search over the declared grid with equal weights of the laws.",
    convention="params with embeddings; FLOPs 6 x active params without input embedding + causal attention",
)
_COLUMNS = ("served", "params", "tokens", "k+s/E", "g", "layers x d_model", "N_a / lab's", "D / lab's", "V / lab's")


def labs_sections(found: Labs) -> list[Section]:
    """The whole report."""
    return [
        Section("", (Paragraph(_headline(found), _COUNTED),)),
        Section("How near", (_agreement(found),)),
        *(Section(lab.model, (_table(lab_number, found),)) for lab_number, lab in enumerate(found.labs)),
        Section("Notes", (Items(_notes(found)),)),
    ]


def _headline(found: Labs) -> str:
    best = min(found.agreement, key=lambda each: each.median_factor)
    alone = next((each for each in found.agreement if each.demand == 0), None)
    trained = f" For training alone it is {number(alone.median_factor)}x off." if alone and alone != best else ""
    return (
        f"With the budget, memory and vocabulary of {len(found.labs)} published models, and {best.demand:g} times "
        f"their training tokens to serve, moeplan's choice of active params is within {number(best.median_factor)}x of "
        f"the laboratory's (median; worst {number(best.worst_factor)}x, {best.worst}).{trained}"
    )


def _agreement(found: Labs) -> Table:
    rows = tuple(
        (f"{each.demand:g}", f"{number(each.median_factor)}x", f"{number(each.worst_factor)}x", each.worst)
        for each in found.agreement
    )
    columns = ("served tokens / lab's training tokens", "median factor of N_a", "worst", "of")
    return Table(rows, columns, right=(0, 1, 2), source=_COUNTED)


def _table(place: int, found: Labs) -> Table:
    lab = found.labs[place]
    rows = [("the lab", *_cells(lab.choice), NONE, NONE, NONE)]
    for each in lab.chosen:
        name = f"{each.demand:g} x D"
        if each.choice is None:
            rows.append((name, each.says, *[NONE] * 7))
            continue
        factors = (each.active_params_factor, each.tokens_factor, each.value_factor)
        rows.append((name, *_cells(each.choice), *(f"{factor:.2f}" for factor in factors if factor is not None)))
    return Table(tuple(rows), _COLUMNS, right=tuple(range(1, 9)), strong=(0,), source=_COUNTED)


def _cells(choice: Choice) -> tuple[str, ...]:
    return (
        f"{format_count(choice.total_params)}-A{format_count(choice.active_params)}",
        format_count(choice.tokens),
        f"{choice.num_active_experts}+{choice.num_shared_experts}/{choice.num_experts}",
        number(choice.granularity),
        f"{choice.num_layers} x {choice.d_model:,}",
    )


def _notes(found: Labs) -> tuple[str, ...]:
    return (
        "Budget: training FLOPs of the laboratory + 2 x its N_a for each served token; moeplan pays 2 x its own N_a "
        "for the same served tokens out of the same budget.",
        f"Memory: weights as served and one sequence of 8,192 cached tokens of the laboratory's model, times "
        f"{MEMORY_SLACK:g}, without headroom.",
        f"V by {', '.join(found.laws)} with equal weights.",
        "Weak evidence: laboratories follow each other, their choices had reasons that no law sees, and their N_a "
        "enters the budget. It weighs no law.",
    )
