"""The pooled interval of leverage on every publication left out, against simpler intervals: `leverage_intervals`.

Intervals of ln EL are judged by their interval score, width + 2/alpha * miss (Gneiting, Raftery, JASA 102 (2007) 359),
alpha = 1 - LEVEL: wide ones pay for their width, narrow ones twentyfold for what they miss by. A study at equal loss
has one true value, a bound all values on its side, a MoE below its ladder's dense models the range over irreducible
levels. Every publication has one vote. What is left out is left out whole: of the pool its rows and the law that is its
own, and what is fitted is fitted anew. The laws are asked like for like, for the study's own dense model: a study does
not measure how far that is from the best one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, median, stdev

from moeplan.laws import Law
from moeplan.laws.pooling import LEVEL, PER_DECADE, beyond, farthest, pool
from moeplan.laws.roles import LEVERAGE_LAW, POOLED_LAWS
from moeplan.studies.backtest.equivalences import publication
from moeplan.studies.backtest.ladder import LadderRung, RungPrediction
from moeplan.studies.backtest.scores import Calibration, EquivalencePrediction, IntervalScore, Result, StudyIntervals

CONSTANT = "constant"
"""A log-normal fitted to the studies' own leverages, whatever the design: Student's predictive interval."""
POOLED = "pooled"
"""The rule of `moeplan.laws.pooling`."""
METHODS = (POOLED, LEVERAGE_LAW, CONSTANT)
"""What is judged: the pool, the leverage law's own interval, and a constant."""
_LEAST_SCATTER = 0.05
"""A law's errors on the studies are taken for no smaller than this, in ln."""


@dataclass(frozen=True)
class _Study:
    """A controlled study with what the laws say, in ln EL."""

    name: str
    publication: str
    low: float
    high: float
    train_flops: float
    opinions: dict[str, tuple[float, float]]
    """ln EL and decades outside, by law."""
    own: tuple[float, float]
    """The leverage law's interval."""

    @property
    def equal(self) -> bool:
        return self.low == self.high


def leverage_intervals(
    laws: Sequence[Law], results: Sequence[Result], rungs: Sequence[LadderRung]
) -> tuple[Calibration | None, tuple[StudyIntervals, ...], tuple[IntervalScore, ...]]:
    """The pool's calibration, every study's intervals and the methods' scores; nothing unless all pooled laws speak."""
    pooled = [law for law in laws if law.full_name in POOLED_LAWS]
    if len(pooled) < len(POOLED_LAWS):
        return None, (), ()
    studies = [
        *(_of_result(r, pooled) for r in results if r.kind == "study"),
        *(_of_rung(rung, pooled) for rung in rungs),
    ]
    rows = []
    for study in studies:
        left = [one for one in studies if one.publication != study.publication]
        heard = [law for law in pooled if f"arXiv {law.citation.arxiv}" != study.publication]
        rows.append({POOLED: _pooled(study, left, heard), LEVERAGE_LAW: study.own, CONSTANT: _constant(left)})
    shown = tuple(_shown(study, made) for study, made in zip(studies, rows, strict=True))
    scores = tuple(_score(method, studies, [made[method] for made in rows]) for method in METHODS)
    return Calibration(_scatter(studies, pooled), *_measured(studies, pooled), len(studies)), shown, scores


def _of_result(result: Result, laws: Sequence[Law]) -> _Study:
    said = {p.law: p for p in result.predictions}
    claimed = said[LEVERAGE_LAW].claimed
    assert claimed is not None
    assert result.moe_flops is not None
    log = math.log(claimed)
    low, high = {"lower": (log, math.inf), "higher": (-math.inf, log)}.get(result.loss, (log, log))
    return _study(result.name, publication(result.source), (low, high), result.moe_flops, said, laws)


def _of_rung(rung: LadderRung, laws: Sequence[Law]) -> _Study:
    said = {p.law: p for p in rung.predictions}
    claimed = said[LEVERAGE_LAW].claimed
    ends = (claimed, claimed) if claimed else (rung.low, rung.high)
    return _study(rung.name, rung.publication, (math.log(ends[0]), math.log(ends[1])), rung.train_flops, said, laws)


def _study(
    name: str,
    publication: str,
    claim: tuple[float, float],
    train_flops: float,
    said: dict[str, EquivalencePrediction] | dict[str, RungPrediction],
    laws: Sequence[Law],
) -> _Study:
    here = said[LEVERAGE_LAW]
    opinions = {}
    for law in laws:
        one = said[law.full_name]
        if one.predicted:
            # Each law claims and predicts in its own FLOPs; what it is off by is read in the leverage law's.
            counted = here.claimed / one.claimed if here.claimed and one.claimed else 1.0
            opinions[law.full_name] = math.log(one.predicted * counted), farthest(one.outside)
    (own,) = (law for law in laws if law.full_name == LEVERAGE_LAW)
    rule = own.predicting("efficiency_leverage").uncertainty
    half_width = rule.half_width(here.decades) if rule else math.inf
    log = opinions[LEVERAGE_LAW][0]
    return _Study(name, publication, *claim, train_flops, opinions, (log - half_width, log + half_width))


def _pooled(study: _Study, left: Sequence[_Study], laws: Sequence[Law]) -> tuple[float, float]:
    """The pool's interval by what is left in."""
    heard = [study.opinions[law.full_name] for law in laws if law.full_name in study.opinions]
    out = beyond(study.train_flops, _measured(left, laws))
    logs, decades = zip(*heard, strict=True)
    found = pool(logs, decades, out, _scatter(left, laws))
    return found.mean - found.half_width, found.mean + found.half_width


def _scatter(studies: Sequence[_Study], laws: Sequence[Law]) -> float:
    """Root of the mean over publications of error^2 - (PER_DECADE*d)^2, at equal loss."""
    names = [law.full_name for law in laws]
    excess = [
        (study.publication, (log - study.low) ** 2 - (PER_DECADE * decades) ** 2)
        for study in studies
        if study.equal
        for name, (log, decades) in study.opinions.items()
        if name in names
    ]
    return max(_LEAST_SCATTER, math.sqrt(max(0.0, fmean(_votes(excess).values()))))


def _measured(studies: Sequence[_Study], laws: Sequence[Law]) -> tuple[float, float]:
    """Range of compute of the laws' runs and of studies at equal loss [FLOPs]."""
    domains = [law.require_objective().domain.get("train_flops") for law in laws]
    ends = [end for domain in domains if domain for end in domain]
    ends += [study.train_flops for study in studies if study.equal]
    return min(ends), max(ends)


def _constant(studies: Sequence[_Study]) -> tuple[float, float]:
    """Student's predictive interval of ln EL, fitted to one mean a publication, of studies at equal loss."""
    from scipy.special import stdtrit

    votes = list(_votes((study.publication, study.low) for study in studies if study.equal).values())
    student = float(stdtrit(len(votes) - 1, (1 + LEVEL) / 2))
    half_width = student * stdev(votes) * math.sqrt(1 + 1 / len(votes))
    return fmean(votes) - half_width, fmean(votes) + half_width


def _votes(rows: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The mean of each publication's values."""
    ordered = sorted(rows, key=lambda row: row[0])
    return {name: fmean(value for _, value in own) for name, own in groupby(ordered, key=lambda row: row[0])}


def _miss(study: _Study, low: float, high: float) -> float:
    """How far an interval is from what the study allows."""
    return max(0.0, study.low - high, low - study.high)


def _score(method: str, studies: Sequence[_Study], intervals: Sequence[tuple[float, float]]) -> IntervalScore:
    rows = list(zip(studies, intervals, strict=True))
    scores = [(s.publication, high - low + 2 / (1 - LEVEL) * _miss(s, low, high)) for s, (low, high) in rows]
    by_publication = _votes(scores)
    return IntervalScore(
        method=method,
        score=fmean(by_publication.values()),
        coverage=fmean(not _miss(study, *ends) for study, ends in rows),
        width=median(high - low for low, high in intervals),
        by_publication={name: by_publication[name] for name in dict.fromkeys(study.publication for study in studies)},
    )


def _shown(study: _Study, made: dict[str, tuple[float, float]]) -> StudyIntervals:
    low, high = (math.exp(end) if math.isfinite(end) else None for end in (study.low, study.high))
    ends = {method: tuple(map(math.exp, interval)) for method, interval in made.items()}
    return StudyIntervals(study.name, study.publication, low, high, ends)
