"""The back-test as sections of text and tables. Every number is the back-test's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from moeplan.quantities import number, times
from moeplan.report.backtest_intervals import interval_blocks
from moeplan.report.backtest_measured import measured_origins, measured_sections
from moeplan.report.blocks import Block, Chart, Column, Items, Paragraph, Section, Series, Table, series, table
from moeplan.report.screen.paper import paper_parts
from moeplan.report.sources import outside_text
from moeplan.report.text import NONE, Source, mark
from moeplan.report.view import View
from moeplan.studies.backtest.scores import BackTest, EquivalencePrediction, Result, Widening
from moeplan.units import format_flops

INTERVALS = "The interval of leverage, publications left out"
"""The section that judges intervals."""
_SIGN = {"equal": "", "lower": "≥ ", "higher": "≤ ", "unknown": ""}
_BY_PARAMS = "active params without embeddings"
_BY_FLOPS = "no logits"
"""What tells tian2025's own FLOPs among the ways of counting."""


def backtest_sections(test: BackTest) -> list[Section]:
    """The whole report: the error by law, then what it is made of, then what is context only."""
    seen, laws = _seen(test), ", ".join(score.law for score in test.scores)
    studies = _of(seen, "study")
    scored = Source("Every law's predictions over the studies' claims, summed up.", laws)
    claimed = Source("Stated by the publication, or counted from the exact shapes of both models; see Sources.")
    predicted = Source("The law's dense compute of equal loss over the MoE's compute, both as the law counts.", laws)
    within = Source("The law's own prediction, made before the run, and what the run measured.", "marin2026")
    judged = Source("Intervals made without the study's publication, against what the study allows.", laws)
    read = Source("Read in the publication named.")
    sections = [
        ("", (Paragraph(_headline(test, studies)), score_table(test), Paragraph(_LEGEND)), scored),
        ("What the studies claim", _claimed(studies), claimed),
        ("What the laws predict", _predicted(seen, studies), predicted),
        ("Equal compute: which is better", _signs(seen), claimed),
        *measured_sections(seen),
        ("MoE against MoE, sizes assumed", _pairs(seen), predicted),
        ("What the laws' papers claim", _own_claims(seen), claimed),
        ("Runs made after their law", _runs(seen), within),
        ("Context, not scored", _context(seen), claimed),
        (INTERVALS, interval_blocks(seen), judged),
        ("The widening of a law's own interval", tuple(Paragraph(_widening(w)) for w in test.widening), scored),
        ("Silent", (Items(tuple(f"{x.law}: {x.why}." for x in test.silent)),) if test.silent else (), scored),
        ("Sources", (Items(_origins(test)),), read),
    ]
    return [Section(title, blocks, source=source) for title, blocks, source in sections if blocks]


def backtest_summary(test: BackTest, report: Sequence[Section]) -> list[Section]:
    """What a print begins with: the error by law, predictions over claims, and how the intervals did."""
    return paper_parts(report, backtest_chart(test), (INTERVALS,))


def _seen(test: BackTest) -> View[BackTest]:
    """A back-test whose every number knows its place and source."""

    def source(parts: list[str]) -> Source | None:
        match parts:
            case ["scores", place, _]:
                score = test.scores[int(place)]
                says = f"over {score.equal} studies of equal loss and {score.crossed} bounds crossed"
                return Source(says, score.law, "factor, exp of a mean in ln")
            case ["results", place, "ratios", ratio, *_]:
                return Source("computed from both shapes", convention=test.results[int(place)].ratios[int(ratio)].of)
            case ["results", place, "predictions", law, "at_published_flops"]:
                said = test.results[int(place)].predictions[int(law)]
                return Source("the law's formula at the publication's own compute", said.law)
            case ["results", place, "predictions", law, *_]:
                return _prediction(test.results[int(place)].predictions[int(law)])
            case ["rankings", place, "measured"]:
                return Source(test.rankings[int(place)].correction)
            case ["rankings", place, "predictions", law, _]:
                found = test.rankings[int(place)].predictions[int(law)]
                return Source(found.basis, found.law, "the law's own")
            case ["ranking_scores", place, *_]:
                return Source("ln(predicted / measured)", test.ranking_scores[int(place)].law, "ln of a ratio")
            case ["ladder", place, "measured"]:
                return Source(test.ladder[int(place)].correction)
            case ["ladder", place, "predictions", law, _]:
                rung = test.ladder[int(place)].predictions[int(law)]
                return Source(rung.basis, rung.law)
            case ["interval_scores", place, *_]:
                method = test.interval_scores[int(place)].method
                return Source("width + 20 x what is missed, in ln EL, publications left out", method)
            case ["pool", *_]:
                return Source("fitted to all studies, one vote a publication")
            case ["own_claims", place, _]:
                return Source(test.own_claims[int(place)].source, test.own_claims[int(place)].law)
            case ["runs", place, _]:
                return Source(test.runs[int(place)].source, test.runs[int(place)].law, "nats")
        return None

    return View(test, source)


def _prediction(said: EquivalencePrediction) -> Source:
    inside = "inside the measured range" if said.has_domain else "no measured range given"
    domain = f"outside the measured range: {outside_text(said.outside)}" if said.outside else inside
    return Source(said.basis, said.law, "the law's own", domain)


def score_table(test: BackTest) -> Table:
    """The error by law."""
    columns: tuple[Column, ...] = (
        ("law", "{law}"),
        (">studies", lambda score: f"{score.equal} + {score.bounds}"),
        (">in domain", lambda score: str(score.inside)),
        (">error", "{factor:times}"),
        (">bias", "{bias_factor:times}"),
        (">bounds", lambda score: f"{score.bounds - score.crossed} of {score.bounds}"),
        (">in plans", "{factor_best_dense:times}"),
        (">signs", lambda score: f"{score.signs} of {score.of_signs}"),
    )
    return table(_seen(test).scores, columns)


_LEGEND = (
    "Studies: of equal loss + of bounded loss; in domain: those whose every variable the law was measured on. Error: "
    "the typical factor between predicted and claimed, exp of the rms of its logarithm, over studies of equal loss and "
    "bounds crossed; a bound that is kept shows no error and counts in none. Bias: their geometric mean. In plans: the "
    "error of EL as plans show it, against the law's own best dense model, which splits its compute otherwise. Bounds: "
    "those kept. Signs: studies at equal compute where the law, too, finds the MoE better."
)


def _of(test: View[BackTest], kind: str) -> list[View[Result]]:
    return [result for result in test.results if result.kind == kind]


def _headline(test: BackTest, studies: Sequence[View[Result]]) -> str:
    equal = sum(result.loss == "equal" for result in studies)
    laws = f"{len(test.scores)} laws" if len(test.scores) > 1 else test.scores[0].law
    return (
        f"{laws} against {len(studies)} published studies that trained a MoE and a dense model on the same data: "
        f"{equal} end at equal loss, {len(studies) - equal} bound the ratio from one side."
    )


def _pair(result: View[Result]) -> str:
    return f"{result.moe} / {result.against}"


def _claimed(studies: Sequence[View[Result]]) -> tuple[Block, ...]:
    columns: tuple[Column, ...] = (
        ("study", "{name}"),
        ("MoE / dense", _pair),
        (">FLOPs", lambda result: format_flops(result.moe_flops or 0)),
        (">by params", _ratio(_BY_PARAMS)),
        (">by FLOPs", _ratio(_BY_FLOPS)),
        ("as published", lambda result: _stated(result) or NONE),
    )
    text = (
        "Dense over MoE, computed from both shapes and their tokens: by active params without embeddings, and by "
        "training FLOPs of those params with full attention; JSON has every convention. ≥ is a lower bound (the MoE's "
        "loss is lower), ≤ an upper one."
    )
    return (table(studies, columns), Paragraph(text))


def _ratio(of: str) -> Callable[[View[Result]], str]:
    """The ratio that is computed from both shapes in one way of counting."""

    def cell(result: View[Result]) -> str:
        found = next((ratio for ratio in result.ratios if ratio.computed and ratio.of.endswith(of)), None)
        return found(f"{_SIGN[result.loss]}{{value:times}}") if found else NONE

    return cell


def _predicted(test: View[BackTest], studies: Sequence[View[Result]]) -> tuple[Block, ...]:
    said = [(result, said) for result in studies for said in result.predictions]
    columns: tuple[Column, ...] = (
        ("study", lambda row: "" if row[1].it is not row[0].predictions[0].it else row[0].name),
        ("law", lambda row: mark(row[1].law, row[1].outside)),
        (">claimed", lambda row: row[1](f"{_SIGN[row[0].loss]}{{claimed:times}}")),
        (">predicted", lambda row: row[1]("{predicted:times}")),
        (">ratio", lambda row: row[1]("{ratio:times}")),
        ("bound", lambda row: _verdict(*row)),
        ("domain", lambda row: _domain(row[1])),
    )
    text = (
        "Claimed: in the law's own FLOPs. Predicted: by a leverage law its EL; by a loss law, like for like, the claim "
        "times the dense size that reaches the MoE's loss on the study's dense tokens over the study's size. Domain: "
        "variables outside the measured range (decades that those of the equation are outside)."
    )
    blocks: list[Block] = [table(said, columns), Paragraph(text)]
    if any(result.loss == "lower" for result in studies):
        overshoot = (
            "A ratio above 1 at a ≥ overshoots what the study counted; but there the MoE's loss is lower, so a dense "
            "model that equals it would cost more, by how much was not measured: no error is counted."
        )
        blocks.append(Paragraph(overshoot))
    mute = {f"{x.law}: {x.basis}." for _, x in said if x.predicted is None}
    if mute:
        blocks.append(Items(tuple(sorted(mute))))
    return (*blocks, backtest_chart(test.it), *_published_counts(said))


def _published_counts(said: Sequence[tuple[View[Result], View[EquivalencePrediction]]]) -> tuple[Block, ...]:
    """EL where a publication counts the MoE's compute in its own way, against its own ratios."""
    shown = [row for row in said if row[1].at_published_flops is not None and row[0].moe_flops_published is not None]
    columns: tuple[Column, ...] = (
        ("study", lambda row: row[0].name),
        ("law", lambda row: mark(row[1].law, row[1].outside)),
        (">its own FLOPs", lambda row: row[0]("{moe_flops_published:flops}")),
        (">predicted", lambda row: row[1]("{at_published_flops:times}")),
        ("as published", lambda row: _SIGN[row[0].loss] + _stated(row[0])),
        (">by FLOPs", lambda row: _ratio(_BY_FLOPS)(row[0])),
    )
    lead = Paragraph("At the compute that the publications count themselves:")
    return (lead, table(shown, columns)) if shown else ()


def _stated(result: View[Result]) -> str:
    return "; ".join(f"{times(ratio.value)} {ratio.of}" for ratio in result.ratios if not ratio.computed)


def _verdict(result: View[Result], said: View[EquivalencePrediction]) -> str:
    if said.error is None or result.loss == "equal":
        return ""
    return "crossed" if said.error else "kept"


def _domain(said: View[EquivalencePrediction]) -> str:
    if not said.outside:
        return "inside" if said.has_domain else "not given"
    decades = f" ({number(said.decades, 2)})" if said.decades else ""
    return f"{len(said.outside)} outside{decades}"


def _by_law(test: View[BackTest], field: str) -> tuple[Column, ...]:
    """A column for each law: what it says of each result, marked where that is extrapolated."""

    def column(law: str) -> Column:
        return f">{law}", lambda result: _said(result, law, field)

    return tuple(column(score.law) for score in test.scores)


def _said(result: View[Result], law: str, field: str) -> str:
    said = next((x for x in result.predictions if x.law == law), None)
    return mark(said(f"{{{field}:times}}"), said.outside and getattr(said, field) is not None) if said else NONE


def _signs(test: View[BackTest]) -> tuple[Block, ...]:
    columns: tuple[Column, ...] = (("study", "{name}"), ("MoE / dense", _pair), *_by_law(test, "ratio"))
    text = "In both the MoE was better. Above 1 the law says so too: predicted over claimed, which is about 1 here."
    return (table(_of(test, "sign"), columns), Paragraph(text))


def _pairs(test: View[BackTest]) -> tuple[Block, ...]:
    claimed = (">claimed", lambda result: result.ratios[0]("{value:times}"))
    text = "FLOPs to the same loss against the ratio of EL by each law, both at equal compute; the sizes are assumed."
    return (table(_of(test, "pair"), (("MoE / MoE", _pair), claimed, *_by_law(test, "predicted"))), Paragraph(text))


def _own_claims(test: View[BackTest]) -> tuple[Block, ...]:
    columns: tuple[Column, ...] = (
        ("law", "{law}"), ("claim", "{says}"), (">stated", "{stated:times}"), (">here", "{found:times}"),
    )  # fmt: skip
    text = "Each by its own law alone; they differ by an order of magnitude and are not averaged."
    return (table(test.own_claims, columns), Paragraph(text)) if test.own_claims else ()


def _runs(test: View[BackTest]) -> tuple[Block, ...]:
    columns: tuple[Column, ...] = (
        ("law", "{law}"), ("run", "{run}"), (">predicted", "{predicted:.3f}"), (">measured", "{measured:.3f}"),
        (">excess", "{excess:+.3f}"),
    )  # fmt: skip
    text = "Loss [nats] of one law against its own measurement, outside the range it was fitted on."
    return (table(test.runs, columns), Paragraph(text)) if test.runs else ()


def _context(test: View[BackTest]) -> tuple[Block, ...]:
    leading = next((w.law for w in test.widening), test.scores[0].law)

    def interval(result: View[Result]) -> str:
        said = next((x for x in result.predictions if x.law == leading), None)
        return said("{low}–{high}") if said else NONE

    columns: tuple[Column, ...] = (
        ("MoE / dense", _pair),
        ("as published", _stated),
        (">by FLOPs", _ratio(_BY_FLOPS)),
        (f">{leading}", lambda result: _said(result, leading, "best_dense")),
        (">interval", interval),
    )
    text = (
        "Products, other data or recipes, time and energy. By FLOPs: computed where both shapes are known (without "
        "tokens, of one token). None of these says that the losses are equal."
    )
    return (table(_of(test, "claim"), columns), Paragraph(text))


def _widening(found: Widening) -> str:
    return (
        f"{found.law}: its residual inside the measured range is {found.rms:g} in ln EL. The {found.studies} errors "
        f"that studies show outside give {found.per_decade:.3f} for each decade outside, added in squares: "
        f"sqrt(sum(error^2 - {found.rms:g}^2) / sum(decades^2)), up to {found.most_decades:.1f} decades. Its file "
        f"states {found.per_decade_in_file:g}, and with that the interval holds {found.held} of {found.of} studies, "
        "bounds included. The studies do not split their compute as the law finds best, so that is in their errors."
    )


def _origins(test: BackTest) -> tuple[str, ...]:
    """Where each comes from; those that say the same stand together."""
    together: dict[tuple[str, ...], list[str]] = {}
    for result in test.results:
        key = (result.says, result.source, result.confidence, result.assumed, result.note)
        together.setdefault(key, []).append(result.name)
    equivalences = tuple(_origin(", ".join(names), *key) for key, names in together.items())
    return (*equivalences, *(_origin(*origin) for origin in measured_origins(test)))


def _origin(name: str, says: str, source: str, confidence: str, assumed: str, note: str) -> str:
    parts = [f"{name}: {says} ({source}; confidence {confidence})."]
    if assumed:
        parts.append(f"Assumed: {assumed}.")
    return " ".join([*parts, note] if note else parts)


def backtest_chart(test: BackTest) -> Chart:
    """Predicted over claimed for the studies of equal loss, a law a series; a bound has no place on the diagonal."""
    studies = [result for result in _of(_seen(test), "study") if result.loss == "equal"]
    said = [(result, x) for result in studies for x in result.predictions if x.claimed]
    claims = [x.claimed for _, x in said]
    ends = (min(claims), max(claims))
    lines = [Series("predicted = claimed", ends, ends)]
    for score in test.scores:
        own = [(result, x) for result, x in said if x.law == score.law]
        style: dict[str, Any] = {
            "inside": tuple(not x.outside for _, x in own),
            "texts": tuple(f"{result.name}: {times(x.claimed)} claimed" for result, x in own),
            "strong": any(w.law == score.law for w in test.widening),
            "source": Source("predicted by the law, claimed by the study, both in the law's own FLOPs", score.law),
        }
        points = [x for _, x in own]
        lines.append(series(score.law, points, "predicted", "low", "high", x="claimed", kind="points", **style))
    return Chart(
        "Predicted against claimed, studies of equal loss",
        "claimed: dense compute / MoE compute",
        "predicted: dense compute / MoE compute",
        tuple(lines),
        x_quantity="times",
        y_quantity="times",
        x_log=True,
        y_log=True,
    )
