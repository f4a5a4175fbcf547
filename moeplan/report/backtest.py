"""The back-test as sections of text and tables. Every number is the back-test's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moeplan.plan.document import OutsideDomain
from moeplan.report.backtest_measured import measured_origins, measured_sections
from moeplan.report.blocks import (
    NONE,
    Block,
    Cell,
    Chart,
    Items,
    Paragraph,
    Section,
    Series,
    Source,
    Table,
    interval,
    mark,
    number,
    quantity,
    times,
)
from moeplan.studies.backtest.scores import BackTest, Prediction, Result, Score, Widening
from moeplan.units import format_flops

_SIGN = {"equal": "", "lower": "≥ ", "higher": "≤ ", "unknown": ""}
_BY_PARAMS = "active params without embeddings"
_BY_FLOPS = "no logits"
"""What tells tian2025's own FLOPs among the ways of counting."""


def backtest_sections(test: BackTest) -> list[Section]:
    """The whole report: the error by law, then what it is made of, then what is context only."""
    studies = _of(test, "study")
    laws = ", ".join(score.law for score in test.scores)
    scored = Source("Every law's predictions over the studies' claims, summed up.", laws)
    claimed = Source("Stated by the publication, or counted from the exact shapes of both models; see Sources.")
    predicted = Source("The law's dense compute of equal loss over the MoE's compute, both as the law counts.", laws)
    sections = [
        Section("", (Paragraph(_headline(test, studies)), score_table(test), Paragraph(_LEGEND)), source=scored),
        Section("What the studies claim", _claimed(studies), source=claimed),
        Section("What the laws predict", _predicted(test, studies), source=predicted),
        Section("Equal compute: which is better", _signs(test), source=claimed),
        *measured_sections(test),
        Section("MoE against MoE, sizes assumed", _pairs(test), source=predicted),
    ]
    if test.own_claims:
        sections.append(Section("What the laws' papers claim", _own_claims(test), source=claimed))
    if test.runs:
        within = Source("The law's own prediction, made before the run, and what the run measured.", "marin2026")
        sections.append(Section("Runs made after their law", _runs(test), source=within))
    sections.append(Section("Context, not scored", _context(test), source=claimed))
    if test.widening:
        texts = tuple(Paragraph(_widening(w)) for w in test.widening)
        sections.append(Section("The interval of EL", texts, source=scored))
    if test.silent:
        sections.append(Section("Silent", (Items(tuple(f"{x.law}: {x.why}." for x in test.silent)),), source=scored))
    sections.append(Section("Sources", (Items(_origins(test)),), source=Source("Read in the publication named.")))
    return sections


def score_table(test: BackTest) -> Table:
    """The error by law."""
    rows = tuple(
        (
            score.law,
            f"{score.equal} + {score.bounds}",
            str(score.inside),
            _times(score.factor, f"/scores/{i}/factor", score),
            _times(score.bias_factor, f"/scores/{i}/bias_factor", score),
            f"{score.bounds - score.crossed} of {score.bounds}",
            _times(score.factor_best_dense, f"/scores/{i}/factor_best_dense", score),
            f"{score.signs} of {score.of_signs}",
        )
        for i, score in enumerate(test.scores)
    )
    columns = ("law", "studies", "in domain", "error", "bias", "bounds", "in plans", "signs")
    return Table(rows, columns, right=tuple(range(1, len(columns))))


_LEGEND = (
    "Studies: of equal loss + of bounded loss; in domain: those whose every variable the law was measured on. Error: "
    "the typical factor between predicted and claimed, exp of the rms of its logarithm, over studies of equal loss and "
    "bounds crossed; a bound that is kept shows no error and counts in none. Bias: their geometric mean. In plans: the "
    "error of EL as plans show it, against the law's own best dense model, which splits its compute otherwise. Bounds: "
    "those kept. Signs: studies at equal compute where the law, too, finds the MoE better."
)


def _times(factor: float | None, path: str, score: Score) -> str:
    if factor is None:
        return NONE
    says = f"over {score.equal} studies of equal loss and {score.crossed} bounds crossed"
    return Cell(times(factor), Source(says, law=score.law, convention="factor, exp of a mean in ln", path=path))


def _of(test: BackTest, kind: str) -> list[tuple[int, Result]]:
    return [(i, result) for i, result in enumerate(test.results) if result.kind == kind]


def _headline(test: BackTest, studies: Sequence[tuple[int, Result]]) -> str:
    equal = sum(result.loss == "equal" for _, result in studies)
    laws = f"{len(test.scores)} laws" if len(test.scores) > 1 else test.scores[0].law
    return (
        f"{laws} against {len(studies)} published studies that trained a MoE and a dense model on the same data: "
        f"{equal} end at equal loss, {len(studies) - equal} bound the ratio from one side."
    )


def _claimed(studies: Sequence[tuple[int, Result]]) -> tuple[Block, ...]:
    rows = []
    for i, result in studies:
        rows.append(
            (
                result.name,
                f"{result.moe} / {result.against}",
                format_flops(result.moe_flops or 0),
                _ratio(i, result, _BY_PARAMS),
                _ratio(i, result, _BY_FLOPS),
                _stated(result) or NONE,
            )
        )
    columns = ("study", "MoE / dense", "FLOPs", "by params", "by FLOPs", "as published")
    text = (
        "Dense over MoE, computed from both shapes and their tokens: by active params without embeddings, and by "
        "training FLOPs of those params with full attention; JSON has every convention. ≥ is a lower bound (the MoE's "
        "loss is lower), ≤ an upper one."
    )
    return (Table(tuple(rows), columns, right=(2, 3, 4)), Paragraph(text))


def _ratio(i: int, result: Result, of: str) -> str:
    for j, ratio in enumerate(result.ratios):
        if ratio.computed and ratio.of.endswith(of):
            source = Source("computed from both shapes", convention=ratio.of, path=f"/results/{i}/ratios/{j}/value")
            return Cell(_SIGN[result.loss] + times(ratio.value), source)
    return NONE


def _predicted(test: BackTest, studies: Sequence[tuple[int, Result]]) -> tuple[Block, ...]:
    rows = []
    for i, result in studies:
        for j, said in enumerate(result.predictions):
            rows.append(
                (
                    "" if j else result.name,
                    mark(said.law, said.outside),
                    NONE if said.claimed is None else _SIGN[result.loss] + times(said.claimed),
                    _cell(said, said.predicted, f"/results/{i}/predictions/{j}/predicted"),
                    _cell(said, said.ratio, f"/results/{i}/predictions/{j}/ratio"),
                    _verdict(result, said),
                    _domain(said),
                )
            )
    columns = ("study", "law", "claimed", "predicted", "ratio", "bound", "domain")
    mute = {f"{said.law}: {said.basis}" for _, r in studies for said in r.predictions if said.predicted is None}
    text = (
        "Claimed: in the law's own FLOPs. Predicted: by a leverage law its EL; by a loss law, like for like, the claim "
        "times the dense size that reaches the MoE's loss on the study's dense tokens over the study's size. Domain: "
        "variables outside the measured range (decades that those of the equation are outside)."
    )
    blocks: list[Block] = [Table(tuple(rows), columns, right=(2, 3, 4)), Paragraph(text)]
    if any(result.loss == "lower" for _, result in studies):
        overshoot = (
            "A ratio above 1 at a ≥ overshoots what the study counted; but there the MoE's loss is lower, so a dense "
            "model that equals it would cost more, by how much was not measured: no error is counted."
        )
        blocks.append(Paragraph(overshoot))
    if mute:
        blocks.append(Items(tuple(f"{text}." for text in sorted(mute))))
    return (*blocks, backtest_chart(test), *_published_counts(studies))


def _published_counts(studies: Sequence[tuple[int, Result]]) -> tuple[Block, ...]:
    """EL where a publication counts the MoE's compute in its own way, against its own ratios."""
    rows = []
    for i, result in studies:
        for j, said in enumerate(result.predictions):
            if said.at_published_flops is None or result.moe_flops_published is None:
                continue
            path = f"/results/{i}/predictions/{j}/at_published_flops"
            source = Source("the law's formula at the publication's own compute", law=said.law, path=path)
            rows.append(
                (
                    result.name,
                    mark(said.law, said.outside),
                    format_flops(result.moe_flops_published),
                    Cell(times(said.at_published_flops), source),
                    _SIGN[result.loss] + _stated(result),
                    _ratio(i, result, _BY_FLOPS),
                )
            )
    if not rows:
        return ()
    columns = ("study", "law", "its own FLOPs", "predicted", "as published", "by FLOPs")
    return (
        Paragraph("At the compute that the publications count themselves:"),
        Table(tuple(rows), columns, right=(2, 3, 5)),
    )


def _stated(result: Result) -> str:
    return "; ".join(f"{times(ratio.value)} {ratio.of}" for ratio in result.ratios if not ratio.computed)


def _cell(said: Prediction, value: float | None, path: str, *, flagged: bool = False) -> str:
    """A number of a prediction with its source, marked where it is extrapolated if its row does not say so."""
    if value is None:
        return NONE
    ranges = ", ".join(_range(o) for o in said.outside)
    inside = "inside the measured range" if said.has_domain else "no measured range given"
    domain = f"outside the measured range: {ranges}" if ranges else inside
    text = mark(times(value), flagged and said.outside)
    return Cell(text, Source(said.basis, law=said.law, convention="the law's own", domain=domain, path=path))


def _range(o: OutsideDomain) -> str:
    return f"{o.variable} {quantity(o.variable, o.value)} ({interval(o.variable, o.low, o.high)})"


def _verdict(result: Result, said: Prediction) -> str:
    if said.error is None or result.loss == "equal":
        return ""
    return "crossed" if said.error else "kept"


def _domain(said: Prediction) -> str:
    if not said.outside:
        return "inside" if said.has_domain else "not given"
    decades = f" ({number(said.decades, 2)})" if said.decades else ""
    return f"{len(said.outside)} outside{decades}"


def _signs(test: BackTest) -> tuple[Block, ...]:
    laws = [score.law for score in test.scores]
    rows = []
    for i, result in _of(test, "sign"):
        said = {x.law: (j, x) for j, x in enumerate(result.predictions)}
        cells = []
        for law in laws:
            place, prediction = said[law]
            path = f"/results/{i}/predictions/{place}/ratio"
            cells.append(_cell(prediction, prediction.ratio, path, flagged=True))
        rows.append((result.name, f"{result.moe} / {result.against}", *cells))
    columns = ("study", "MoE / dense", *laws)
    text = "In both the MoE was better. Above 1 the law says so too: predicted over claimed, which is about 1 here."
    return (Table(tuple(rows), columns, right=tuple(range(2, len(columns)))), Paragraph(text))


def _pairs(test: BackTest) -> tuple[Block, ...]:
    laws = [score.law for score in test.scores]
    rows = []
    for i, result in _of(test, "pair"):
        said = {x.law: (j, x) for j, x in enumerate(result.predictions)}
        cells = []
        for law in laws:
            place, prediction = said[law]
            path = f"/results/{i}/predictions/{place}/predicted"
            cells.append(_cell(prediction, prediction.predicted, path, flagged=True))
        rows.append((f"{result.moe} / {result.against}", times(result.ratios[0].value), *cells))
    columns = ("MoE / MoE", "claimed", *laws)
    text = "FLOPs to the same loss against the ratio of EL by each law, both at equal compute; the sizes are assumed."
    return (Table(tuple(rows), columns, right=tuple(range(1, len(columns)))), Paragraph(text))


def _own_claims(test: BackTest) -> tuple[Block, ...]:
    rows = tuple(
        (
            claim.law,
            claim.says,
            times(claim.stated),
            Cell(times(claim.found), Source(claim.source, law=claim.law, path=f"/own_claims/{i}/found")),
        )
        for i, claim in enumerate(test.own_claims)
    )
    text = "Each by its own law alone; they differ by an order of magnitude and are not averaged."
    return (Table(rows, ("law", "claim", "stated", "here"), right=(2, 3)), Paragraph(text))


def _runs(test: BackTest) -> tuple[Block, ...]:
    rows = tuple(
        (
            run.law,
            run.run,
            f"{run.predicted:.3f}",
            f"{run.measured:.3f}",
            Cell(f"{run.excess:+.3f}", Source(run.source, law=run.law, convention="nats", path=f"/runs/{i}/excess")),
        )
        for i, run in enumerate(test.runs)
    )
    text = "Loss [nats] of one law against its own measurement, outside the range it was fitted on."
    return (Table(rows, ("law", "run", "predicted", "measured", "excess"), right=(2, 3, 4)), Paragraph(text))


def _context(test: BackTest) -> tuple[Block, ...]:
    leading = next((w.law for w in test.widening), test.scores[0].law)
    rows = []
    for i, result in _of(test, "claim"):
        said = {x.law: (j, x) for j, x in enumerate(result.predictions)}
        cell, interval_text = NONE, NONE
        if leading in said:
            place, found = said[leading]
            path = f"/results/{i}/predictions/{place}/best_dense"
            cell = _cell(found, found.best_dense, path, flagged=True)
            if found.low is not None and found.high is not None:
                interval_text = f"{number(found.low)}–{number(found.high)}"
        pair = f"{result.moe} / {result.against}"
        rows.append((pair, _stated(result), _ratio(i, result, _BY_FLOPS), cell, interval_text))
    columns = ("MoE / dense", "as published", "by FLOPs", leading, "interval")
    text = (
        "Products, other data or recipes, time and energy. By FLOPs: computed where both shapes are known (without "
        "tokens, of one token). None of these says that the losses are equal."
    )
    return (Table(tuple(rows), columns, right=(2, 3)), Paragraph(text))


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
    studies = [result for _, result in _of(test, "study") if result.loss == "equal"]
    claims = [said.claimed for result in studies for said in result.predictions if said.claimed]
    ends = (min(claims), max(claims))
    series = [Series("predicted = claimed", ends, ends)]
    for score in test.scores:
        said = [(r, x, x.claimed) for r in studies for x in r.predictions if x.law == score.law and x.claimed]
        series.append(
            Series(
                score.law,
                tuple(claimed for _, _, claimed in said),
                tuple(x.predicted for _, x, _ in said),
                kind="points",
                inside=tuple(not x.outside for _, x, _ in said),
                low=_ends(x.low for _, x, _ in said),
                high=_ends(x.high for _, x, _ in said),
                texts=tuple(f"{r.name}: {times(claimed)} claimed" for r, _, claimed in said),
                strong=any(w.law == score.law for w in test.widening),
                source=Source("predicted by the law, claimed by the study, both in the law's own FLOPs", law=score.law),
            )
        )
    return Chart(
        "Predicted against claimed, studies of equal loss",
        "claimed: dense compute / MoE compute",
        "predicted: dense compute / MoE compute",
        tuple(series),
        x_quantity="times",
        y_quantity="times",
        x_log=True,
        y_log=True,
    )


def _ends(values: Iterable[float | None]) -> tuple[float | None, ...]:
    ends = tuple(values)
    return ends if any(end is not None for end in ends) else ()
