"""Laws on MoE against MoE at equal compute: how well they rank designs, which is what the search uses them for.

A study gives two losses; the compute law of its own project turns them into the ratio of compute that the better design
saves. A leverage law predicts the ratio of the two EL at that compute. A loss law predicts like for like: how many
times more compute the base design needs, its params and tokens growing as that project finds best, to reach the law's
loss of the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from moeplan.architecture.conventions import Variables
from moeplan.laws import Fit, Law, load_law
from moeplan.laws.law import Outside
from moeplan.studies.backtest.compute import compute_multiple, fitted_exponent
from moeplan.studies.backtest.equivalences import publication
from moeplan.studies.backtest.evidence import SEQ_LEN, RankingRung, RankingStudy, ranking_studies

INDEPENDENT = 3
"""Publications from which on the error of a law on rankings counts as measured."""
_LEVELS = 5
"""Irreducible levels at which a ratio is computed, the ends of the study's range among them."""
_GROWS = ("total_params", "active_params")
"""Variables that grow with a design's compute, beside its tokens."""


@dataclass(frozen=True)
class RatioAt:
    """A ratio of compute at one irreducible level."""

    irreducible: float
    """The level [nats/token]."""
    exponent: float
    """The exponent of compute, fitted again through the base's losses."""
    ratio: float
    """The ratio."""


@dataclass(frozen=True)
class RankingPrediction:
    """One law's order of the models of one ranking, beside the measured order."""

    law: str
    """The law."""
    predicted: float | None
    """The law's ratio of compute; null where it cannot say."""
    predicted_otherwise: float | None
    """The same at the tokens by the study's other reading."""
    ratio: float | None
    """predicted / measured."""
    error: float | None
    """ln(predicted / measured)."""
    basis: str
    """How the law compares, or why it cannot."""
    outside: tuple[Outside, ...]
    """Where either design leaves the law's measured range."""
    has_domain: bool
    """Whether the law file gives a range."""


@dataclass(frozen=True)
class Ranking:
    """A MoE against another at equal compute and tokens, with what every law says of them."""

    name: str
    """Short name."""
    publication: str
    """The publication, which has one vote however many studies it brings."""
    design: str
    """The design that is compared."""
    base: str
    """The design that it is compared with."""
    train_flops: float
    """Training compute of both by the study's own count [FLOPs]."""
    tokens: float
    """Training tokens of both."""
    tokens_otherwise: float
    """Training tokens by another reading of the study."""
    loss: float
    """Loss of the design, measured [nats/token]."""
    base_loss: float
    """Loss of the base, measured [nats/token]."""
    correction: str
    """How losses become a ratio of compute."""
    measured: float
    """How many times more compute the base would need for the design's loss."""
    low: float
    """The lowest of this over irreducible levels: its sensitivity to the correction."""
    high: float
    """The highest."""
    levels: tuple[RatioAt, ...]
    """The ratio at each level."""
    says: str
    """The quantities held equal, and the finding."""
    source: str
    """Where it is published."""
    confidence: str
    """How sure the measurement is; the correction is what the range shows."""
    assumed: str
    """Differences of the shapes here from the study's."""
    note: str
    """A caveat, in words."""
    predictions: tuple[RankingPrediction, ...]
    """The laws' predictions."""


@dataclass(frozen=True)
class LevelScore:
    """A law's error over rankings at one irreducible level."""

    irreducible: float
    """The level [nats/token]."""
    rms: float
    """Root mean square of ln(predicted/measured)."""
    rms_inside: float | None
    """The same over rankings inside the law's measured range."""


@dataclass(frozen=True)
class RankingScore:
    """How far a law is off in ranking designs."""

    law: str
    """The law."""
    rows: int
    """Rankings that it speaks on."""
    publications: int
    """Publications that they are from; each has one vote."""
    rms: float
    """Root mean square of ln(predicted/measured)."""
    bias: float
    """Mean of the same."""
    worst: float
    """The one farthest from 0."""
    inside: int
    """Rankings inside the law's measured range."""
    rms_inside: float | None
    """The rms over those."""
    levels: tuple[LevelScore, ...]
    """The rms at each irreducible level, exponents fitted again."""
    says: str
    """Whether that measures the law."""


def correcting_laws() -> tuple[Law, ...]:
    """The laws whose loss over compute turns the studies' losses into ratios."""
    return tuple(load_law(name) for name in dict.fromkeys(study.law for study in ranking_studies()))


def rankings(laws: Sequence[Law]) -> tuple[Ranking, ...]:
    """Every published ranking with what `laws` say of it."""
    return tuple(
        _ranking(study, rung, experts, laws)
        for study in ranking_studies()
        for rung in study.rungs
        for experts in rung.designs
        if experts != study.base
    )


def _ranking(study: RankingStudy, rung: RankingRung, experts: int, laws: Sequence[Law]) -> Ranking:
    design, base, origin = rung.designs[experts], rung.designs[study.base], study.origin
    law = load_law(study.law)
    rule = law.predicting("loss").coefficients
    levels = tuple(_levels(study, design.loss, base.loss))
    measured = compute_multiple(design.loss, base.loss, rule["irreducible"], -rule["exponent"])
    ratios = [measured, *(level.ratio for level in levels)]
    predictions = tuple(_prediction(law, study, rung, experts, measured) for law in laws)
    return Ranking(
        name=f"{origin.name}-{rung.title}-{experts}-vs-{study.base}",
        publication=publication(origin.source),
        design=design.title,
        base=base.title,
        train_flops=rung.train_flops,
        tokens=base.tokens,
        tokens_otherwise=rung.tokens_otherwise,
        loss=design.loss,
        base_loss=base.loss,
        correction=(
            f"L = {rule['irreducible']:g} + A*C^{rule['exponent']:g} of {law.name}; over irreducible levels from "
            f"{study.irreducible_range[0]:g} to {study.irreducible_range[1]:g} the exponent is fitted again"
        ),
        measured=measured,
        low=min(ratios),
        high=max(ratios),
        levels=levels,
        says=origin.says,
        source=origin.source,
        confidence=origin.confidence,
        assumed=origin.assumed,
        note=origin.note,
        predictions=tuple(prediction for prediction in predictions if prediction is not None),
    )


def _levels(study: RankingStudy, loss: float, base_loss: float) -> Iterable[RatioAt]:
    """The ratio at irreducible levels over the study's range, the exponent fitted through the base's own rungs."""
    flops = [rung.train_flops for rung in study.rungs]
    losses = [rung.designs[study.base].loss for rung in study.rungs]
    for irreducible in np.linspace(*study.irreducible_range, _LEVELS).round(6):
        _, exponent = fitted_exponent(flops, losses, float(irreducible))
        yield RatioAt(float(irreducible), exponent, compute_multiple(loss, base_loss, float(irreducible), exponent))


def _prediction(
    law: Law, study: RankingStudy, rung: RankingRung, experts: int, measured: float
) -> RankingPrediction | None:
    """One law on one ranking; None for a law that judges no MoE."""
    fit = law.objective
    if fit is None or fit.is_dense_only:
        return None
    design, base = rung.designs[experts], rung.designs[study.base]
    one, other = (Variables(side.architecture, SEQ_LEN) for side in (design, base))
    tokens = base.tokens
    if fit.predicts == "efficiency_leverage":  # it sees compute, which the study counts itself
        tokens = rung.train_flops / float(other.get("flops_per_token", fit.convention("train_flops")))
    predicted, basis = _saving(fit, one, other, tokens, study.law)
    otherwise, _ = _saving(fit, one, other, rung.tokens_otherwise, study.law)
    outside = {o.variable: o for variables in (other, one) for o in fit.outside(variables, tokens)}
    return RankingPrediction(
        law=law.full_name,
        predicted=predicted,
        predicted_otherwise=otherwise,
        ratio=predicted / measured if predicted else None,
        error=math.log(predicted / measured) if predicted else None,
        basis=basis,
        outside=tuple(outside.values()),
        has_domain=bool(fit.domain),
    )


def _saving(fit: Fit, design: Variables, base: Variables, tokens: float, allocation: str) -> tuple[float | None, str]:
    """The ratio of compute by one law at `tokens`, and how it was found or why it was not."""
    here, there = float(fit.at(design, tokens)), float(fit.at(base, tokens))
    if fit.predicts == "efficiency_leverage":
        return here / there, "EL of the one over EL of the other, at equal compute"
    if "tokens" not in fit.variables:
        return None, "it sees no tokens, so it knows no equal compute"
    if here == there:
        return None, "it does not see what differs"
    exponents = [load_law(allocation).predicting(what).coefficients["exponent"] for what in ("active_params", "tokens")]
    share = exponents[0] / sum(exponents)
    values: dict[str, Any] = dict(zip(fit.variables, base.select(fit.variables, fit.conventions, tokens), strict=True))

    def gap(ln_multiple: float) -> float:
        grown = {name: value * math.exp(share * ln_multiple) for name, value in values.items() if name in _GROWS}
        grown["tokens"] = tokens * math.exp((1 - share) * ln_multiple)
        return float(fit(*(grown.get(name, value) for name, value in values.items()))) - here

    from scipy.optimize import brentq

    ends = (math.log(0.01), math.log(100))
    if gap(ends[0]) * gap(ends[1]) > 0:
        return None, "no multiple of the base's compute up to 100 has so low a loss"
    return math.exp(float(brentq(gap, *ends, xtol=1e-12))), "compute at which the base has its loss of the other"


def ranking_scores(rows: Sequence[Ranking]) -> tuple[RankingScore, ...]:
    """Every law's error over the rankings, each publication with one vote; laws that say nothing have none."""
    laws = dict.fromkeys(prediction.law for row in rows for prediction in row.predictions)
    return tuple(score for law in laws if (score := _score(law, rows)) is not None)


def _score(law: str, rows: Sequence[Ranking]) -> RankingScore | None:
    said = [(row, p) for row in rows for p in row.predictions if p.law == law and p.error is not None]
    if not said:
        return None
    errors = [float(p.error or 0) for _, p in said]
    names = [row.publication for row, _ in said]
    inside = [p.has_domain and not p.outside for _, p in said]
    levels = []
    for number, level in enumerate(said[0][0].levels):
        off = [math.log((p.predicted or math.nan) / row.levels[number].ratio) for row, p in said]
        levels.append(LevelScore(level.irreducible, voted_rms(names, off), _inside(names, off, inside)))
    voices = len(set(names))
    return RankingScore(
        law=law,
        rows=len(said),
        publications=voices,
        rms=voted_rms(names, errors),
        bias=float(np.mean(errors)),
        worst=max(errors, key=abs),
        inside=sum(inside),
        rms_inside=_inside(names, errors, inside),
        levels=tuple(levels),
        says="" if voices >= INDEPENDENT else f"not measurable: {INDEPENDENT} independent publications are needed",
    )


def _inside(names: Sequence[str], errors: Sequence[float], inside: Sequence[bool]) -> float | None:
    kept = [(name, error) for name, error, keep in zip(names, errors, inside, strict=True) if keep]
    return voted_rms(*zip(*kept, strict=True)) if kept else None


def voted_rms(publications: Sequence[str], errors: Sequence[float]) -> float:
    """Root of the mean over publications of their mean square error: one vote for each, however many rows it has."""
    rows = sorted(zip(publications, errors, strict=True))
    votes = [np.mean([error**2 for _, error in of_one]) for _, of_one in groupby(rows, key=lambda row: row[0])]
    return math.sqrt(float(np.mean(votes)))
