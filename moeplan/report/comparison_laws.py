"""What the laws say of the models of a comparison, as blocks of a report."""

from __future__ import annotations

from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.report.blocks import (
    NONE,
    Block,
    Cell,
    Items,
    Paragraph,
    Source,
    Table,
    mark,
    number,
    percent,
    quantity,
    times,
)
from moeplan.studies.comparison.result import Answer, Comparison, Contender, LawColumn, Saving
from moeplan.units import format_count, format_flops

WORK = "compute of the law's best dense model that is as good / compute of the first model, both as the law counts"
"""What a ratio of work is."""


def model_text(model: Contender) -> str:
    """A model in short: 35.6B-A3.18B MoE on 535B tokens."""
    kind = f"dense {format_count(model.total_params)} model"
    if not model.is_dense:
        kind = f"{format_count(model.total_params)}-A{format_count(model.active_params)} MoE"
    return f"{'a' if model.is_dense else 'A'} {kind} on {format_count(model.tokens)} tokens"


def law_blocks(found: Comparison) -> tuple[Block, ...]:
    """Each law's answers in its own column; the spread of the MoE's below."""
    columns = [column for column in found.laws if any(a.ratio is not None for a in column.answers)]
    if not columns:
        return (Paragraph("No law here compares with dense models."),)
    written = [work_cells(column, found.laws.index(column)) for column in columns]
    rows = [(model.name, *(cells[place] for cells in written)) for place, model in enumerate(found.models)]
    known = {column.law: column.answers[0].ratio for column in columns if column.answers[0].ratio}
    if len(known) > 1:
        low, high = min(known, key=lambda law: known[law] or 0), max(known, key=lambda law: known[law] or 0)
        ends = {low: "lowest", high: "highest"}
        rows.append(("spread, MoE", *(ends.get(column.law, "") for column in columns)))
    blocks: list[Block] = [
        Table(
            tuple(rows),
            ("", *(column.law for column in columns)),
            right=tuple(range(1, len(columns) + 1)),
            strong=(0,),
        ),
        Paragraph(
            "Work: compute of the law's own best dense model that is as good, over the MoE's compute, both as the law "
            "counts; so a column can be read, and two columns cannot be averaged. Dense models of equal compute are "
            "not at 1 where a law counts embeddings or attention otherwise, or splits the compute otherwise."
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
    mute = tuple(f"{c.law}: {c.answers[0].says}." for c in columns if c.answers[0].says)
    if mute:
        blocks.append(Items(mute))
    sized = [c for c in found.laws if c.answers[0].ratio is None and c.answers[0].leverage is not None]
    blocks += [
        Paragraph(f"{c.law}: {mark(times(c.answers[0].leverage or 0), c.answers[0].outside)} for the MoE ({c.basis}).")
        for c in sized
    ]
    return tuple(blocks)


def work_cells(column: LawColumn, place: int) -> list[str]:
    """A law's ratios of work, one cell a model; `place` is its place among the laws."""
    cells: list[str] = []
    for index, answer in enumerate(column.answers):
        path = f"/laws/{place}/answers/{index}/ratio"
        outside = ", ".join(o.variable for o in answer.outside)
        domain = f"outside the measured range of {outside}" if outside else "inside the measured range"
        text, between = ratio_text(answer), interval_text(answer)
        if column.draws and between:
            text, path = f"{text} ({between})", f"{path} {path}_low {path}_high"
        cells.append(Cell(text, Source(column.basis, column.law, WORK, domain, path)))
    return cells


def ratio_text(answer: Answer) -> str:
    """A ratio of work in short, flagged if it is extrapolated."""
    return NONE if answer.ratio is None else mark(times(answer.ratio), answer.outside)


def interval_text(answer: Answer) -> str:
    """The interval of a ratio, if the law gives one."""
    if answer.ratio_low is None or answer.ratio_high is None:
        return ""
    return f"{number(answer.ratio_low)}–{number(answer.ratio_high)}"


def spread_text(low: float, high: float) -> str:
    """From the lowest to the highest of several ratios."""
    texts = (times(low), times(high))
    return texts[0] if texts[0] == texts[1] else f"{texts[0]}–{texts[1]}"


def equal_loss_blocks(found: Comparison) -> tuple[Block, ...]:
    """Each law's own dense model that is as good as the MoE."""
    rows = []
    for place, twin in enumerate(found.equal_loss):
        outside = "the MoE or that model is outside the measured range" if twin.extrapolated else "inside"
        cells = [
            Cell(
                text,
                Source("the law's own best dense model of equal loss", twin.law, "as the law counts", outside, path),
            )
            for text, path in (
                (mark(times(twin.ratio), twin.extrapolated), f"/equal_loss/{place}/ratio"),
                (format_flops(twin.dense_compute), f"/equal_loss/{place}/dense_compute"),
                (format_count(twin.total_params), f"/equal_loss/{place}/total_params"),
                (format_count(twin.tokens), f"/equal_loss/{place}/tokens"),
            )
        ]
        rows.append((twin.law, *cells))
    return (
        Table(tuple(rows), ("law", "its compute", "FLOPs", "params", "tokens"), right=(1, 2, 3, 4)),
        Paragraph("Sizes and FLOPs as each law counts them; its compute in units of the MoE's."),
    )


def savings_blocks(found: Comparison) -> tuple[Block, ...]:
    """Every saving, or in an overview the largest of each fit."""
    shortened = found.regime == "overview"
    largest = {saving.law: saving for saving in sorted(found.savings, key=lambda saving: saving.times)}
    rows = []
    for place, saving in enumerate(found.savings):
        if shortened and largest[saving.law] is not saving:
            continue
        domain = f"outside the measured range of {', '.join(saving.outside)}" if saving.outside else "inside"
        cells = [
            Cell(
                text,
                Source(says, saving.law, "continuous sizes, the law's own FLOPs", domain, f"/savings/{place}/{key}"),
            )
            for text, key, says in (
                (mark(percent(saving.saving), saving.outside), "saving", "1 - C_moe/C at equal loss"),
                (times(saving.times), "times", "C/C_moe at equal loss"),
                (_times(saving.leverage), "leverage", "C_dense/C: the best MoE at C against the best dense model"),
            )
        ]
        rows.append((saving.law, _settings(saving), *cells))
    blocks: list[Block] = [
        Table(
            tuple(rows),
            ("law", "its best MoE with", "compute saved", "C/C_moe", "C_dense/C"),
            right=(2, 3, 4),
        )
    ]
    spread = found.savings_spread
    if spread is not None:
        blocks.append(
            Paragraph(
                f"Spread of the laws' largest: C/C_moe {times(spread.low)} by {spread.low_law} to "
                f"{times(spread.high)} by {spread.high_law}; C_dense/C {_times(spread.low_leverage)} to "
                f"{_times(spread.high_leverage)}. They are not averaged."
            )
        )
    blocks.append(
        Paragraph(
            f"C is {format_flops(found.models[0].train_flops)} FLOPs, as each law counts its own models. C_moe is "
            "where the best MoE is as good as the best dense model at C, C_dense where the best dense model is as good "
            f"as the best MoE at C; sizes continuous, no memory limit. {LEVERAGE_LAW} has no such optimum: its EL "
            "grows as "
            f"the activation ratio falls.{' Every ratio measured: --equal compute.' if shortened else ''}"
        )
    )
    return tuple(blocks)


def _times(ratio: float | None) -> str:
    return "beyond any" if ratio is None else times(ratio)


def _settings(saving: Saving) -> str:
    names = {"expansion_ratio": "expansion", "activation_ratio": "A", "granularity": "g"}
    return ", ".join(f"{names.get(name, name)} {_setting(name, value)}" for name, value in saving.settings.items())


def _setting(name: str, value: float) -> str:
    return quantity(name, value) if name == "activation_ratio" else number(value)


def pair_blocks(found: Comparison) -> tuple[Block, ...]:
    """EL, dense equivalents and C_l of both models, each law a row with the better one."""
    first, second = found.models
    against = found.versus[0]
    rows = []
    for place, column in enumerate(found.laws):
        a, b = column.answers
        judged = against.quality.get(column.law, against.own_compute.get(column.law))
        better = NONE if judged is None else "1" if judged > 1 else "2"
        cells = [
            Cell(text, Source(column.basis, column.law, path=path))
            for text, path in (
                (_leverage(a, first), f"/laws/{place}/answers/0/leverage"),
                (_leverage(b, second), f"/laws/{place}/answers/1/leverage"),
                (_of(against.quality, column.law), f"/versus/0/quality/{column.law}"),
                (_flops(a.own_compute), f"/laws/{place}/answers/0/own_compute"),
                (_flops(b.own_compute), f"/laws/{place}/answers/1/own_compute"),
                (_of(against.own_compute, column.law), f"/versus/0/own_compute/{column.law}"),
            )
        ]
        flagged = bool(a.outside or b.outside)
        rows.append((mark(column.law, flagged), *cells, better))
    columns = ("law", "EL 1", "EL 2", "dense 1/2", "C_l 1", "C_l 2", "C_l 1/2", "better")
    return (
        Table(tuple(rows), columns, right=(1, 2, 3, 4, 5, 6, 7)),
        Paragraph(
            f"1 is {first.name}, 2 is {second.name}. EL: dense compute over the model's own, at equal loss; "
            f"{LEVERAGE_LAW}'s "
            "is at the best split of compute into size and tokens. dense 1/2: ratio of the compute of the law's best "
            f"dense models that are as good, by {LEVERAGE_LAW} less what each model's own split costs (phi, an "
            "inferred "
            "rule). C_l: compute at which the law's own best MoE without a memory limit is as good [FLOPs]. Work, "
            f"above: that dense compute over the compute of {first.name}, both as the law counts."
        ),
        *_domains(found),
    )


def _leverage(answer: Answer, model: Contender) -> str:
    if answer.leverage is None:
        return "dense" if model.is_dense else NONE
    return times(answer.leverage)


def _flops(value: float | None) -> str:
    return NONE if value is None else format_flops(value)


def _of(ratios: dict[str, float], law: str) -> str:
    return times(ratios[law]) if law in ratios else NONE


def _domains(found: Comparison) -> tuple[Block, ...]:
    texts = []
    for column in found.laws:
        for model, answer in zip(found.models, column.answers, strict=True):
            if answer.outside:
                parts = ", ".join(f"{o.variable} {quantity(o.variable, o.value)}" for o in answer.outside)
                texts.append(f"{column.law}*, {model.name}: {parts}")
    return (Paragraph("Outside the measured range:"), Items(tuple(texts))) if texts else ()
