"""The laws on the models of a comparison, as blocks of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.quantities import number, quantity
from moeplan.report.blocks import Block, Column, Items, Paragraph, Table, table
from moeplan.report.opinions import SIZE
from moeplan.report.text import NONE, Text, joined, mark
from moeplan.report.view import View
from moeplan.studies.comparison.answers import Answer, LawColumn
from moeplan.studies.comparison.candidate import Candidate
from moeplan.studies.comparison.optima import Saving
from moeplan.studies.comparison.result import Comparison

MODEL = f"{SIZE} MoE on {{tokens}} tokens"
"""A MoE in short: 35.6B-A3.18B MoE on 535B tokens."""


def law_blocks(c: View[Comparison]) -> tuple[Block, ...]:
    """Each law's answers in its own column; the spread of the MoE's below."""
    columns = [column for column in c.laws if any(a.ratio is not None for a in column.answers)]
    if not columns:
        return (Paragraph("No law here compares with dense models."),)
    written = [work_cells(column) for column in columns]
    rows = [(model.name, *(cells[place] for cells in written)) for place, model in enumerate(c.models)]
    known = {column.law: column.answers[0].ratio for column in columns if column.answers[0].ratio}
    if len(known) > 1:
        ends = {min(known, key=lambda law: known[law]): "lowest", max(known, key=lambda law: known[law]): "highest"}
        rows.append(("spread, MoE", *(ends.get(column.law, "") for column in columns)))
    blocks: list[Block] = [
        Table(
            tuple(rows), ("", *(column.law for column in columns)), right=tuple(range(1, len(columns) + 1)), strong=(0,)
        ),
        Paragraph(
            "Dense compute: that of the law's own best dense model that is as good, over the MoE's compute, both as "
            "the law counts; so a column can be read, and two columns cannot be averaged. Dense models of equal "
            "compute are not at 1 where a law counts embeddings or attention otherwise, or splits the compute "
            "otherwise."
        ),
    ]
    blocks += [
        Paragraph(
            f"{column.law}: in brackets the 90 % interval over {column.draws} draws of its coefficients: what its runs "
            "leave open of them, not an error of its equation or what may change beyond the runs."
        )
        for column in columns
        if column.draws
    ]
    mute = tuple(f"{column.law}: {column.answers[0].says}." for column in columns if column.answers[0].says)
    if mute:
        blocks.append(Items(mute))
    for column in c.laws:
        own = column.answers[0]
        if own.ratio is None and own.leverage is not None:
            text = (f"{column.law}: ", mark(own("{leverage}"), own.outside), f" for the MoE ({column.basis}).")
            blocks.append(Paragraph(joined(text)))
    return tuple(blocks)


def work_cells(column: View[LawColumn]) -> list[str]:
    """A law's ratios of work, one cell a model."""
    pairs = [(ratio_text(answer), interval_text(answer) if column.draws else "") for answer in column.answers]
    return [joined((text, " (", between, ")")) if between else text for text, between in pairs]


def ratio_text(answer: View[Answer]) -> Text:
    """A ratio of dense compute in short, flagged if it is extrapolated."""
    return mark(answer("{ratio}"), answer.outside)


def interval_text(answer: View[Answer]) -> str:
    """The interval of a ratio, if the law gives one."""
    return answer("{ratio.low}–{ratio.high}") if answer.ratio and answer.ratio.low else ""


def spread_text(answers: Sequence[Any], template: str = "{ratio}") -> Text:
    """From the lowest to the highest ratio of several answers; one where they read alike."""
    ends = [pick(answers, key=lambda answer: answer.ratio)(template) for pick in (min, max)]
    alike = ends[0] == ends[1] and template == "{ratio}"
    return mark(ends[0] if alike else joined((ends[0], "–", ends[1])), any(answer.outside for answer in answers))


def equal_loss_blocks(c: View[Comparison]) -> tuple[Block, ...]:
    """Each law's own dense model that is as good as the MoE."""
    columns: tuple[Column, ...] = (
        ("law", "{law}"),
        (">its compute", lambda twin: mark(twin("{ratio}"), twin.extrapolated)),
        (">FLOPs", "{dense_compute}"),
        (">params", "{total_params}"),
        (">tokens", "{tokens}"),
    )
    text = "Sizes and FLOPs as each law counts them; its compute in units of the MoE's."
    return (table(c.equal_loss, columns), Paragraph(text))


def savings_blocks(c: View[Comparison]) -> tuple[Block, ...]:
    """Every saving, or in an overview the largest of each fit."""
    shortened = c.regime == "overview"
    largest = {saving.law: saving.it for saving in sorted(c.savings, key=lambda saving: saving.times)}
    columns: tuple[Column, ...] = (
        ("law", "{law}"),
        ("its best MoE with", _settings),
        (">compute saved", lambda saving: mark(saving("{saving}"), saving.outside)),
        (">C/C_moe", "{times}"),
        (">C_dense/C", lambda saving: _beyond(saving, "leverage")),
    )
    shown = [saving for saving in c.savings if not shortened or largest[saving.law] is saving.it]
    blocks: list[Block] = [table(shown, columns)]
    spread = c.savings_spread
    if spread is not None:
        text = spread(
            "Spread of the laws' largest: C/C_moe {low} by {low_law} to {high} by {high_law}; C_dense/C {first} to "
            "{second}. They are not averaged.",
            first=_beyond(spread, "low_leverage"),
            second=_beyond(spread, "high_leverage"),
        )
        blocks.append(Paragraph(text))
    text = c(
        "C is {models[0].train_flops} FLOPs, as each law counts its own models. C_moe is where the best MoE is as good "
        "as the best dense model at C, C_dense where the best dense model is as good as the best MoE at C; sizes "
        f"continuous, no memory limit. {LEVERAGE_LAW} has no such optimum: its EL grows as the activation ratio falls."
        f"{' Every ratio measured: --equal compute.' if shortened else ''}"
    )
    return (*blocks, Paragraph(text))


def _beyond(view: View[Any], field: str) -> Text:
    return Text("beyond any") if getattr(view, field) is None else view(f"{{{field}}}")


def _settings(saving: View[Saving]) -> str:
    names = {"expansion_ratio": "expansion", "activation_ratio": "A", "granularity": "g"}
    return ", ".join(
        f"{names.get(name, name)} {quantity(name, value) if name == 'activation_ratio' else number(value)}"
        for name, value in saving.settings.items()
    )


def pair_blocks(c: View[Comparison]) -> tuple[Block, ...]:
    """EL, dense equivalents and C_l of both models, each law a row with the better one."""
    first, second = c.models
    against = c.versus[0]

    def better(column: View[LawColumn]) -> str:
        judged = against.quality.get(column.law, against.own_compute.get(column.law))
        return NONE if judged is None else "1" if judged > 1 else "2"

    columns: tuple[Column, ...] = (
        ("law", lambda column: mark(column.law, any(answer.outside for answer in column.answers))),
        (">EL 1", lambda column: _leverage(column.answers[0], first)),
        (">EL 2", lambda column: _leverage(column.answers[1], second)),
        (">dense 1/2", lambda column: against(f"{{quality[{column.law}]}}")),
        (">C_l 1", "{answers[0].own_compute}"),
        (">C_l 2", "{answers[1].own_compute}"),
        (">C_l 1/2", lambda column: against(f"{{own_compute[{column.law}]}}")),
        (">better", better),
    )
    return (
        table(c.laws, columns),
        Paragraph(
            f"1 is {first.name}, 2 is {second.name}. EL: dense compute over the model's own, at equal loss; "
            f"{LEVERAGE_LAW}'s is at the best split of compute into size and tokens. dense 1/2: ratio of the compute "
            f"of the law's best dense models that are as good, by {LEVERAGE_LAW} less what each model's own split "
            "costs (an inferred rule). C_l: compute at which the law's own best MoE without a memory limit is as "
            "good [FLOPs]. Dense compute, "
            f"above: it over the compute of {first.name}, both as the law counts."
        ),
        *_domains(c),
    )


def _leverage(answer: View[Answer], model: View[Candidate]) -> Text:
    return Text("dense") if answer.leverage is None and model.is_dense else answer("{leverage}")


def _domains(c: View[Comparison]) -> tuple[Block, ...]:
    texts = []
    for column in c.laws:
        for model, answer in zip(c.models, column.answers, strict=True):
            if answer.outside:
                parts = ", ".join(f"{o.variable} {quantity(o.variable, o.value)}" for o in answer.outside)
                texts.append(f"{column.law}*, {model.name}: {parts}")
    return (Paragraph("Outside the measured range:"), Items(tuple(texts))) if texts else ()
