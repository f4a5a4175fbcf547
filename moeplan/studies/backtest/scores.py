"""The result of a back-test: `BackTest`, frozen and typed, the same in Python, JSON and every report."""

from __future__ import annotations

from dataclasses import dataclass

from moeplan.laws.law import Outside
from moeplan.studies.backtest.equivalences import Kind, Loss
from moeplan.studies.backtest.ladder import LadderRung
from moeplan.studies.backtest.practice import HyperParameterRow
from moeplan.studies.backtest.rankings import Ranking, RankingScore

SCHEMA = "moeplan.backtest/1"


@dataclass(frozen=True)
class Ratio:
    """A ratio of the other side to the MoE, counted one way."""

    value: float
    """The ratio."""
    of: str
    """The quotient, and how its compute is counted."""
    computed: bool
    """Whether it is computed here from both shapes; else it is as published."""


@dataclass(frozen=True)
class EquivalencePrediction:
    """One law's prediction of one equivalence."""

    law: str
    """The law."""
    claimed: float | None
    """The ratio of compute in this law's own FLOPs; as published for pairs and where a side is not known."""
    predicted: float | None
    """The law's ratio; null where it cannot say."""
    basis: str
    """How the law compares, or why it cannot."""
    ratio: float | None
    """predicted / claimed."""
    error: float | None
    """ln(predicted / claimed), 0 where a bound is kept; null for what is not scored."""
    best_dense: float | None
    """EL as plans show it: against the law's own best dense model in place of the study's."""
    at_published_flops: float | None
    """EL by a leverage law at the compute that the publication counts itself."""
    low: float | None
    """Lower end of the law's own interval, if its file has a rule."""
    high: float | None
    """Upper end of that interval."""
    outside: tuple[Outside, ...]
    """Where the MoE leaves the law's measured range."""
    has_domain: bool
    """Whether the law file gives a range; without one nothing is known to be inside."""
    decades: float
    """How far the equation's own variables lie outside, in factors of 10, summed."""


@dataclass(frozen=True)
class Result:
    """One equivalence with what every law says of it."""

    name: str
    """Short name."""
    kind: Kind
    """study (scored), sign, pair, or claim (context)."""
    moe: str
    """The MoE."""
    against: str
    """The dense model, or the other MoE."""
    moe_flops: float | None
    """Training compute of the MoE [FLOPs]: 6 * non-embedding active params + full attention, no logits."""
    moe_flops_published: float | None
    """The same by the publication's own count [FLOPs]."""
    loss: Loss
    """The MoE's loss against the other side's: equal; lower: the claimed ratio is a lower bound; higher: an upper."""
    says: str
    """The quantities held equal, and the finding."""
    source: str
    """Where it is published."""
    confidence: str
    """How sure that is."""
    assumed: str
    """Parts of shapes or tokens that are not published."""
    note: str
    """A caveat, in words."""
    ratios: tuple[Ratio, ...]
    """The claim, as published and as computed, under each convention."""
    predictions: tuple[EquivalencePrediction, ...]
    """The laws' predictions."""


@dataclass(frozen=True)
class Score:
    """How far a law is off over the studies."""

    law: str
    """The law."""
    equal: int
    """Studies of equal loss that it speaks on: each has an error."""
    bounds: int
    """Studies of bounded loss that it speaks on: each has an error only where the bound is crossed."""
    crossed: int
    """Bounds crossed."""
    inside: int
    """Studies among both inside the law's measured range, every variable."""
    rms: float | None
    """Root mean square of ln(predicted/claimed) over studies of equal loss and bounds crossed; kept bounds add none."""
    bias: float | None
    """Mean of the same."""
    factor: float | None
    """exp(rms): the typical factor between predicted and claimed, either way."""
    bias_factor: float | None
    """exp(bias): the geometric mean of predicted / claimed."""
    rms_inside: float | None
    """The rms over those inside the law's measured range."""
    rms_outside: float | None
    """The rms over those outside it."""
    factor_best_dense: float | None
    """The typical factor with EL as plans show it, against the law's own best dense model."""
    signs: int
    """Signs that it gets right."""
    of_signs: int
    """Signs that it speaks on."""


@dataclass(frozen=True)
class Widening:
    """How fast a leverage law's error grows outside its measured range, by the studies."""

    law: str
    """The law."""
    rms: float
    """Residual of ln EL inside the measured range, as its file states it."""
    per_decade: float
    """Widening by the studies: sqrt(sum(error^2 - rms^2) / sum(decades^2)) over the errors outside the range."""
    per_decade_in_file: float
    """Widening in the law file, which intervals use."""
    studies: int
    """Errors outside the range that it is from."""
    most_decades: float
    """How far outside the farthest of them is, in factors of 10."""
    held: int
    """Studies whose claim the file's interval holds."""
    of: int
    """Studies."""


@dataclass(frozen=True)
class OwnClaim:
    """A claim of a law's paper beside the prediction of its bundled digits."""

    law: str
    """The law."""
    says: str
    """The claim."""
    stated: float
    """Its ratio."""
    found: float
    """The ratio that the digits give."""
    source: str
    """Where it is published."""


@dataclass(frozen=True)
class LaterRun:
    """A run made after its law was fitted."""

    law: str
    """The law."""
    run: str
    """The run."""
    predicted: float
    """Loss by the law [nats/token]."""
    measured: float
    """Loss of the run [nats/token]."""
    excess: float
    """predicted - measured [nats/token]."""
    source: str
    """Where it is published."""
    confidence: str
    """How sure it is."""


@dataclass(frozen=True)
class Votes:
    """How far a law's leverage is off when every publication counts once, however many rows it has."""

    law: str
    """The law."""
    publications: int
    """Publications that it has an error on: at equal loss, with a bound crossed, or interpolated on a ladder."""
    rows: int
    """Their rows."""
    rms: float
    """Root of the mean over publications of their mean square ln(predicted/claimed)."""
    factor: float
    """exp(rms)."""


@dataclass(frozen=True)
class Silent:
    """A law that cannot compare with dense models."""

    law: str
    """The law."""
    why: str
    """Why not."""


@dataclass(frozen=True)
class StudyIntervals:
    """The intervals of one study's leverage, made without its publication."""

    study: str
    """The study, or the MoE of a ladder."""
    publication: str
    """What was left out, and counts as one voice."""
    claimed_low: float | None
    """The least leverage that it allows, in the leverage law's FLOPs; null for an upper bound."""
    claimed_high: float | None
    """The largest; null for a lower bound."""
    intervals: dict[str, tuple[float, ...]]
    """Both ends by each method."""


@dataclass(frozen=True)
class IntervalScore:
    """How good a method's intervals are."""

    method: str
    """The method: the pool, a law's own interval, or a constant."""
    score: float
    """Mean interval score in ln EL, one vote a publication; lower is better."""
    coverage: float
    """Share of the studies whose claim the interval holds."""
    width: float
    """Median width in ln EL."""
    by_publication: dict[str, float]
    """Mean interval score on each publication, left out."""


@dataclass(frozen=True)
class Calibration:
    """What the studies say of the pool, nothing left out."""

    scatter: float
    """How far a law is off in ln EL on studies, less what lies outside its range; one vote a publication."""
    measured_low: float
    """Least compute of everything measured [FLOPs]."""
    measured_high: float
    """Largest compute of everything measured [FLOPs]."""
    studies: int
    """Studies, and MoEs of ladders, that the intervals are judged by."""


@dataclass(frozen=True)
class BackTest:
    """Every law against every published equivalence."""

    schema: str
    """moeplan.backtest/1."""
    version: str
    """moeplan's version."""
    law_digests: dict[str, str]
    """Digest of every law file that was read (SHA-256, 16 hex digits)."""
    scores: tuple[Score, ...]
    """The error by law."""
    widening: tuple[Widening, ...]
    """Widths that the errors ask of the intervals of leverage laws."""
    results: tuple[Result, ...]
    """Studies, signs, pairs and claims."""
    rankings: tuple[Ranking, ...]
    """MoE against MoE at equal compute, by losses."""
    ranking_scores: tuple[RankingScore, ...]
    """The error by law over the rankings."""
    ladder: tuple[LadderRung, ...]
    """MoEs beside a ladder of dense models, by losses."""
    votes: tuple[Votes, ...]
    """The error by law over studies and ladder rungs, each publication with one vote."""
    pool: Calibration | None
    """What the studies say of the pooled leverage; null unless every pooled law is asked."""
    intervals: tuple[StudyIntervals, ...]
    """Intervals of the studies' leverage, each publication left out; empty unless every pooled law is asked."""
    interval_scores: tuple[IntervalScore, ...]
    """How good they are, by method."""
    hyperparameters: tuple[HyperParameterRow, ...]
    """Learning rate and batch of published models, and by the laws."""
    own_claims: tuple[OwnClaim, ...]
    """The claims of the laws' own papers."""
    runs: tuple[LaterRun, ...]
    """Runs made after their law was fitted; losses of one law and its own measurement only."""
    silent: tuple[Silent, ...]
    """Laws that say nothing about dense models."""
