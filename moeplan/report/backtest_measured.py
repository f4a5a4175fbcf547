"""The back-test on measured losses: rankings of designs, a ladder, learning rates; as sections."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from moeplan.quantities import times
from moeplan.report.blocks import Block, Column, Items, Paragraph, Table, table
from moeplan.report.text import Source, mark
from moeplan.report.view import View
from moeplan.studies.backtest.ladder import LadderRung
from moeplan.studies.backtest.rankings import Ranking, RankingScore
from moeplan.studies.backtest.scores import BackTest

_RANKED = Source("The ratio of compute that the two measured losses give, and that of each law's two designs.")


def measured_sections(test: View[BackTest]) -> list[tuple[str, tuple[Block, ...], Source]]:
    """Rankings, ladder, and learning rate with batch: titles, what stands below, and its source."""
    ladder = Source("Dense compute of equal loss over the MoE's compute, by measured losses and by each law.")
    used = Source("Learning rate and batch as used, and as the laws would have had them.")
    return [
        ("Ranking designs: MoE against MoE at equal compute", _rankings(test) if test.rankings else (), _RANKED),
        ("A ladder of dense models beside one of MoEs", _ladder(test) if test.ladder else (), ladder),
        ("Learning rate and batch", _practice(test) if test.hyperparameters else (), used),
    ]


def ranking_table(test: View[BackTest]) -> Table:
    """The error by law in ranking designs."""
    columns: tuple[Column, ...] = (
        ("law", "{law}"),
        (">rows", "{rows:d}"),
        (">publications", "{publications:d}"),
        (">rms", "{rms:.3f}"),
        (">worst", "{worst:+.3f}"),
        (">in domain", "{inside:d}"),
        (">rms there", "{rms_inside:.3f}"),
        (">over levels", _span),
        ("verdict", lambda score: score.says.partition(":")[0] or "measured"),
    )
    return table(test.ranking_scores, columns)


def _span(score: View[RankingScore]) -> str:
    """The rms over irreducible levels: inside the domain where the law has rankings there."""
    found = [level.rms if level.rms_inside is None else level.rms_inside for level in score.levels]
    return f"{min(found):.3f}–{max(found):.3f}"


def _predicted(law: str) -> Callable[[Any], str]:
    """What a law says of a row, marked where that is extrapolated."""

    def cell(row: Any) -> str:
        said = next(said for said in row.predictions if said.law == law)
        return mark(said("{predicted:times}"), said.outside)

    return cell


def _rankings(test: View[BackTest]) -> tuple[Block, ...]:
    columns: tuple[Column, ...] = (
        ("design / base", lambda row: f"{row.design} / {row.base.rpartition(', ')[2]}"),
        (">FLOPs", "{train_flops}"),
        (">losses", "{loss:.4f} / {base_loss:.4f}"),
        (">measured", "{measured:times}"),
        (">over levels", "{low:.2f}–{high:.2f}"),
        *((f">{score.law}", _predicted(score.law)) for score in test.ranking_scores),
    )
    corrections = dict.fromkeys(row.correction for row in test.rankings)
    text = (
        "Measured: how many times more compute the base would need for the other's loss. It hangs on the correction: "
        f"{'; '.join(corrections)}. Every publication has one vote in a law's rms of ln(predicted/measured), given "
        "also over the rows inside the law's measured range and, there, over the irreducible levels. "
        f"{_verdict(test.it)}"
    )
    tokens = (
        "At the other reading of the studies' tokens the laws that see tokens say: "
        + "; ".join(_otherwise(test.it))
        + "."
    )
    blocks: tuple[Block, ...] = (
        table(test.rankings, columns),
        Paragraph(text),
        ranking_table(test),
        Paragraph(tokens),
    )
    mute = {f"{said.law}: {said.basis}." for row in test.rankings for said in row.predictions if not said.predicted}
    return (*blocks, Items(tuple(sorted(mute)))) if mute else blocks


def _verdict(test: BackTest) -> str:
    """What the rankings do not measure yet."""
    says = dict.fromkeys(score.says for score in test.ranking_scores if score.says)
    return " ".join(f"{text[:1].upper()}{text[1:]}." for text in says)


def _otherwise(test: BackTest) -> Iterable[str]:
    for law in (score.law for score in test.ranking_scores):
        values = [p.predicted_otherwise for row in test.rankings for p in row.predictions if p.law == law]
        if all(values):
            yield f"{law} {', '.join(times(value) for value in values if value)}"


def _ladder(test: View[BackTest]) -> tuple[Block, ...]:
    laws = dict.fromkeys(said.law for row in test.ladder for said in row.predictions)
    columns: tuple[Column, ...] = (
        ("MoE", "{moe}"),
        (">FLOPs", "{train_flops}"),
        (">loss", "{loss:.3f}"),
        (">measured", "{measured:times}"),
        (">over levels", "{low:.2f}–{high:.2f}"),
        (">MFU", lambda row: f"{100 * row.mfu:.1f} / {100 * row.dense_mfu:.1f} %"),
        (">in time", "{measured_in_time:times}"),
        *((f">{law}", _predicted(law)) for law in laws),
    )
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
    return (table(test.ladder, columns), Paragraph(text), Paragraph(voted))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _practice(test: View[BackTest]) -> tuple[Block, ...]:
    rows: list[tuple[str, ...]] = []
    for row in test.hyperparameters:
        rows.append((row.name, "as used", row("{learning_rate:.3g}"), "", row("{batch_tokens}"), "", ""))
        rows += [
            (
                "",
                said.law,
                said("{learning_rate:.3g}"),
                said("{learning_rate_ratio:times}"),
                said("{batch_tokens}"),
                said("{batch_ratio:times}"),
                "not given" if said.decades is None else said("{decades:.1f}"),
            )
            for said in row.predictions
        ]
    columns = ("model", "by", "peak rate", "over used", "batch [tokens]", "over used", "decades outside")
    notes = [f"{row.name}: {row.note} ({row.source}; confidence {row.confidence})" for row in test.hyperparameters]
    return (Table(tuple(rows), columns, right=tuple(range(2, len(columns)))), Paragraph(" ".join(notes)))


def measured_origins(test: BackTest) -> tuple[tuple[str, str, str, str, str, str], ...]:
    """(name, says, source, confidence, assumed, note) of every study of losses, once each."""
    rows: list[Ranking | LadderRung] = [*test.rankings, *test.ladder]
    found = {(row.says, row.source, row.confidence, row.assumed, row.note): row.name for row in reversed(rows)}
    return tuple((name.rpartition("-d")[0], *key) for key, name in reversed(found.items()))
