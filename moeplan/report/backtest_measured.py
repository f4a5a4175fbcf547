"""What the back-test makes of measured losses: rankings of designs, a ladder, learning rates; as sections."""

from __future__ import annotations

from collections.abc import Iterable

from moeplan.report.blocks import NONE, Block, Cell, Items, Paragraph, Section, Source, Table, mark, times
from moeplan.studies.backtest.ladder import LadderRung
from moeplan.studies.backtest.practice import HyperParameterRow
from moeplan.studies.backtest.rankings import Ranking, RankingScore
from moeplan.studies.backtest.scores import BackTest
from moeplan.units import format_count, format_flops

_RANKED = Source("The ratio of compute that the two measured losses give, and that of each law's two designs.")


def measured_sections(test: BackTest) -> list[Section]:
    """Rankings, ladder, and learning rate with batch, those that there are."""
    sections = []
    if test.rankings:
        sections.append(Section("Ranking designs: MoE against MoE at equal compute", _rankings(test), source=_RANKED))
    if test.ladder:
        ladder = Source("Dense compute of equal loss over the MoE's compute, by measured losses and by each law.")
        sections.append(Section("A ladder of dense models beside one of MoEs", _ladder(test), source=ladder))
    if test.hyperparameters:
        used = Source("Learning rate and batch as used, and as the laws would have had them.")
        sections.append(Section("Learning rate and batch", _practice(test), source=used))
    return sections


def ranking_table(test: BackTest) -> Table:
    """The error by law in ranking designs."""
    rows = tuple(
        (
            score.law,
            str(score.rows),
            str(score.publications),
            _off(f"{score.rms:.3f}", score),
            _off(f"{score.worst:+.3f}", score, f"/ranking_scores/{i}/worst"),
            str(score.inside),
            NONE if score.rms_inside is None else _off(f"{score.rms_inside:.3f}", score),
            _span(score),
            score.says.partition(":")[0] or "measured",
        )
        for i, score in enumerate(test.ranking_scores)
    )
    columns = ("law", "rows", "publications", "rms", "worst", "in domain", "rms there", "over levels", "verdict")
    return Table(rows, columns, right=tuple(range(1, len(columns) - 1)))


def _off(text: str, score: RankingScore, path: str = "") -> str:
    return Cell(text, Source("ln(predicted / measured)", law=score.law, convention="ln of a ratio", path=path))


def _span(score: RankingScore) -> str:
    """The rms over irreducible levels: inside the domain where the law has rankings there."""
    found = [level.rms if level.rms_inside is None else level.rms_inside for level in score.levels]
    return f"{min(found):.3f}–{max(found):.3f}"


def _rankings(test: BackTest) -> tuple[Block, ...]:
    laws = [score.law for score in test.ranking_scores]
    rows = []
    for i, row in enumerate(test.rankings):
        said = {x.law: (j, x) for j, x in enumerate(row.predictions)}
        cells = []
        for law in laws:
            j, found = said[law]
            if found.predicted is None:
                cells.append(NONE)
                continue
            path = f"/rankings/{i}/predictions/{j}/predicted"
            source = Source(found.basis, law=law, convention="the law's own", path=path)
            cells.append(Cell(mark(times(found.predicted), found.outside), source))
        measured = Cell(times(row.measured), Source(row.correction, path=f"/rankings/{i}/measured"))
        losses = f"{row.loss:.4f} / {row.base_loss:.4f}"
        name = f"{row.design} / {row.base.rpartition(', ')[2]}"
        rows.append((name, format_flops(row.train_flops), losses, measured, _ends(row.low, row.high), *cells))
    columns = ("design / base", "FLOPs", "losses", "measured", "over levels", *laws)
    corrections = dict.fromkeys(row.correction for row in test.rankings)
    text = (
        "Measured: how many times more compute the base would need for the other's loss. It hangs on the correction: "
        f"{'; '.join(corrections)}. Every publication has one vote in a law's rms of ln(predicted/measured), given "
        "also over the rows inside the law's measured range and, there, over the irreducible levels. "
        f"{_verdict(test)}"
    )
    tokens = (
        "At the other reading of the studies' tokens the laws that see tokens say: " + "; ".join(_otherwise(test)) + "."
    )
    blocks: tuple[Block, ...] = (
        Table(tuple(rows), columns, right=tuple(range(1, len(columns)))),
        Paragraph(text),
        ranking_table(test),
        Paragraph(tokens),
    )
    mute = {f"{p.law}: {p.basis}" for row in test.rankings for p in row.predictions if p.predicted is None}
    return (*blocks, Items(tuple(f"{text}." for text in sorted(mute)))) if mute else blocks


def _verdict(test: BackTest) -> str:
    """What the rankings do not measure yet."""
    says = dict.fromkeys(score.says for score in test.ranking_scores if score.says)
    return " ".join(f"{text[:1].upper()}{text[1:]}." for text in says)


def _otherwise(test: BackTest) -> Iterable[str]:
    for law in (score.law for score in test.ranking_scores):
        values = [p.predicted_otherwise for row in test.rankings for p in row.predictions if p.law == law]
        if all(values):
            yield f"{law} {', '.join(times(value) for value in values if value)}"


def _ends(low: float, high: float) -> str:
    return f"{low:.2f}–{high:.2f}"


def _ladder(test: BackTest) -> tuple[Block, ...]:
    laws = list(dict.fromkeys(p.law for row in test.ladder for p in row.predictions))
    rows = [_ladder_row(i, row, laws) for i, row in enumerate(test.ladder)]
    columns = ("MoE", "FLOPs", "loss", "measured", "over levels", "MFU", "in time", *laws)
    text = (
        "Measured: dense compute of equal loss over the MoE's, by the study's own count. Between two dense models it "
        "is interpolated and the laws are scored on it; below the best dense model there is only the range over "
        "irreducible levels. MFU: of the MoE / of the dense model of its width, by which the ratio shrinks in time. "
        f"{_sentence(test.ladder[0].assumed)} {test.ladder[0].note}"
    )
    votes = "; ".join(
        f"{vote.law} {times(vote.factor)} over {vote.rows} rows of {vote.publications} publications"
        for vote in test.votes
    )
    voted = f"Leverage, studies and scored rungs together, one vote a publication, typical factor off: {votes}."
    return (Table(tuple(rows), columns, right=tuple(range(1, len(columns)))), Paragraph(text), Paragraph(voted))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _ladder_row(i: int, row: LadderRung, laws: list[str]) -> tuple[str, ...]:
    said = {x.law: (j, x) for j, x in enumerate(row.predictions)}
    cells = []
    for law in laws:
        j, found = said[law]
        if found.predicted is None:
            cells.append(NONE)
            continue
        source = Source(found.basis, law=law, path=f"/ladder/{i}/predictions/{j}/predicted")
        cells.append(Cell(mark(times(found.predicted), found.outside), source))
    measured = NONE
    if row.measured is not None:
        measured = Cell(times(row.measured), Source(row.correction, path=f"/ladder/{i}/measured"))
    mfu = f"{100 * row.mfu:.1f} / {100 * row.dense_mfu:.1f} %"
    in_time = NONE if row.measured_in_time is None else times(row.measured_in_time)
    ends = _ends(row.low, row.high)
    return (row.moe, format_flops(row.train_flops), f"{row.loss:.3f}", measured, ends, mfu, in_time, *cells)


def _practice(test: BackTest) -> tuple[Block, ...]:
    rows = [line for row in test.hyperparameters for line in _practice_rows(row)]
    columns = ("model", "by", "peak rate", "over used", "batch [tokens]", "over used", "decades outside")
    notes = [f"{row.name}: {row.note} ({row.source}; confidence {row.confidence})" for row in test.hyperparameters]
    return (Table(tuple(rows), columns, right=tuple(range(2, len(columns)))), Paragraph(" ".join(notes)))


def _practice_rows(row: HyperParameterRow) -> Iterable[tuple[str, ...]]:
    yield (row.name, "as used", f"{row.learning_rate:.3g}", "", format_count(row.batch_tokens), "", "")
    for said in row.predictions:
        decades = "not given" if said.decades is None else f"{said.decades:.1f}"
        rate, batch = times(said.learning_rate_ratio), times(said.batch_ratio)
        yield ("", said.law, f"{said.learning_rate:.3g}", rate, format_count(said.batch_tokens), batch, decades)


def measured_origins(test: BackTest) -> tuple[tuple[str, str, str, str, str, str], ...]:
    """(name, says, source, confidence, assumed, note) of every study of losses, once each."""
    rows: list[Ranking | LadderRung] = [*test.rankings, *test.ladder]
    found = {(row.says, row.source, row.confidence, row.assumed, row.note): row.name for row in reversed(rows)}
    return tuple((name.rpartition("-d")[0], *key) for key, name in reversed(found.items()))
