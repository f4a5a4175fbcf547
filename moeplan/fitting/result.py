"""The answer of `moeplan fit`: `FittedLaw`, frozen and typed, the same in Python, JSON and every report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moeplan import records
from moeplan.estimates import Estimate
from moeplan.fitting.suggestion import Suggestion
from moeplan.notebook import Framed

SCHEMA = "moeplan.fit/1"


@dataclass(frozen=True)
class ExcludedRun:
    """A run that was left out."""

    line: int
    """Line of the runs file."""
    reason: str
    """Why."""


@dataclass(frozen=True)
class RunsUsed:
    """Which runs the law was fitted to, and how their columns were read."""

    file: str
    """The runs file."""
    digest: str
    """SHA-256 of the file, first 16 hex digits."""
    rows: int
    """Runs in the file."""
    used: int
    """Runs that the law was fitted to."""
    excluded: tuple[ExcludedRun, ...]
    """Runs that were left out."""
    columns: dict[str, str]
    """Column of each quantity that was read."""
    derived: dict[str, str]
    """How each computed quantity was computed."""
    least_flops: float | None
    """Least training compute of the runs used [FLOPs]; null where the runs do not say."""
    most_flops: float | None
    """Largest training compute of the runs used [FLOPs]; null where the runs do not say."""


@dataclass(frozen=True)
class Method:
    """How it was fitted."""

    delta: float | None
    """Where the Huber objective on ln residuals turns from quadratic to linear; null for least squares."""
    objective: float
    """The objective at the fit."""
    minima: int
    """Distinct minima that the starts reached."""
    draws: int
    """Bootstrap draws behind the intervals; 0 for none."""
    unit: str
    """The unit that is drawn: run, or the column of clusters."""
    seed: int
    """Seed of the draws."""
    level: float
    """Probability that the intervals are meant to cover."""
    interval: str
    """How the intervals are made, in words."""


@dataclass(frozen=True)
class Coefficient:
    """One coefficient of the fitted law."""

    name: str
    """The paper's letter."""
    value: float
    """Its value."""
    stderr: float | None
    """Standard deviation over the draws (value * that of the logarithm where that was fitted); null without."""
    low: float | None
    """Lower end of its interval; null without draws. Of a coefficient that is only just identified the end nearer to
    0 reaches further than the draws do (`moeplan.fitting.only_just`)."""
    high: float | None
    """Upper end of its interval; null without draws."""
    coordinate: str
    """ln or linear: whether its logarithm was fitted, or it itself."""
    identified: bool
    """Whether the runs determine it."""
    says: str
    """Why not, if not, or that only just; and whether it stands at a bound of the form."""


@dataclass(frozen=True)
class Quality:
    """How well the law describes the runs it was fitted to."""

    rms: float
    """Root mean square residual in ln."""
    median: float
    """Median absolute residual in ln."""
    largest: float
    """Largest absolute residual in ln."""
    degrees_of_freedom: int
    """Runs less coefficients."""
    explained: float
    """Share of the variance of the ln observations that is explained."""


@dataclass(frozen=True)
class RunResidual:
    """One run against the law."""

    line: int
    """Line of the runs file."""
    train_flops: float | None
    """Training compute [FLOPs], where known."""
    observed: float
    """Measured."""
    predicted: float
    """By the law."""
    residual: float
    """ln(observed / predicted)."""
    scaled: float
    """The residual in units of the residuals' own spread (1.4826 * median absolute)."""
    variables: dict[str, float]
    """The run's values of the law's variables, in the law's conventions."""


@dataclass(frozen=True)
class HoldOut:
    """The largest runs, predicted by a fit to the others."""

    share: float
    """Share of the runs held out, the largest by compute."""
    fitted: int
    """Runs fitted."""
    held_out: int
    """Runs predicted."""
    from_flops: float
    """Least compute of the runs held out [FLOPs]."""
    rms_fitted: float
    """Root mean square residual of the fitted runs, in ln."""
    rms: float
    """Root mean square error of the predicted runs, in ln."""
    bias: float
    """Mean of ln(observed / predicted) over them: above 0 where the law is too optimistic about a loss."""


@dataclass(frozen=True)
class FormScore:
    """One form among those compared by held-out error."""

    form: str
    """The form."""
    coefficients: int
    """How many it has."""
    held_out: float | None
    """Root mean square held-out error in ln; null where it could not be fitted."""
    rms: float | None
    """Root mean square residual on all runs in ln."""
    says: str
    """Why it was not fitted, if so."""
    unidentified: tuple[str, ...]
    """Coefficients that the runs do not determine."""


@dataclass(frozen=True)
class Shrinkage:
    """The effect of a prior on one coefficient."""

    name: str
    """The coefficient."""
    prior: float
    """The prior's value."""
    width: float
    """Its standard deviation, in the coordinate fitted (ln or linear)."""
    basis: str
    """Where the width comes from."""
    without: float
    """The value that the runs alone give."""
    value: float
    """The value with the prior."""
    weight: float
    """Share of the way from what the runs alone say to the prior, by precision: 0 is the runs alone, 1 the prior."""


@dataclass(frozen=True)
class Optimum:
    """The law's prediction at a budget, at its own best size under C = 6*Na*D, with everything else held."""

    train_flops: float
    """Budget [FLOPs]."""
    inside: bool
    """Whether the runs reach this budget."""
    active_params: Estimate | None
    """Active params of least loss; null where the law has none at a finite size, or sees no size."""
    tokens: Estimate | None
    """Tokens."""
    value: Estimate | None
    """Predicted loss there."""


@dataclass(frozen=True)
class Profile:
    """The law over sizes at one budget."""

    train_flops: float
    """Budget [FLOPs]."""
    inside: bool
    """Whether the runs reach this budget."""
    active_params: tuple[float, ...]
    """Sizes."""
    value: tuple[float, ...]
    """Predicted loss at each."""
    low: tuple[float, ...]
    """Lower ends of its interval; empty without draws."""
    high: tuple[float, ...]
    """Upper ends of its interval."""


@dataclass(frozen=True)
class BundledOptimum:
    """A bundled law's optimum at a budget, judged by the fitted law."""

    law: str
    """The bundled law."""
    train_flops: float
    """Budget [FLOPs]."""
    active_params: float
    """Its best active params there, everything else as in the runs."""
    tokens: float
    """Its tokens."""
    efficiency: float | None
    """Budget at which the fitted law's own best design is as good / this budget; null where there is none."""


@dataclass(frozen=True)
class FittedCovariance:
    """Covariance of the coefficients in the coordinates they were fitted in."""

    coordinates: dict[str, str]
    """ln or linear, by coefficient, in the matrix's order."""
    matrix: tuple[tuple[float, ...], ...]
    """The covariance."""
    draws: tuple[tuple[float, ...], ...]
    """The first of the draws, as coefficients in the matrix's order; other commands make their intervals of them."""


@dataclass(frozen=True)
class FittedLaw(records.Record, Framed):
    """A law fitted to a user's own runs."""

    schema: str
    """Version of this structure, moeplan.fit/1."""
    moeplan_version: str
    """Version that fitted it."""
    command: str
    """The command line, or the Python call."""
    name: str
    """Name of the law."""
    runs: RunsUsed
    """The runs."""
    form: str
    """The fitted form."""
    equation: str
    """Its equation."""
    predicts: str
    """The quantity it predicts."""
    method: Method
    """How it was fitted."""
    coefficients: tuple[Coefficient, ...]
    """The coefficients, in the form's order."""
    covariance: FittedCovariance | None
    """Their covariance; null without draws."""
    quality: Quality
    """How well it describes the runs."""
    unidentified: tuple[str, ...]
    """Coefficients that the runs leave open, a sentence each."""
    hold_out: HoldOut | None
    """The largest runs predicted by the others; null where too few are left to fit, or the compute is not known."""
    hold_out_says: str
    """Why there is no hold-out, if so."""
    compared: tuple[FormScore, ...]
    """Forms compared by held-out error, the best first; empty unless the form was auto."""
    prior: str
    """The law that the prior comes from; "" for none."""
    shrinkage: tuple[Shrinkage, ...]
    """Effects of the prior, by coefficient."""
    residuals: tuple[RunResidual, ...]
    """Every run against the law, the largest residual first."""
    optima: tuple[Optimum, ...]
    """Best sizes at budgets within and beyond the runs; for forms that do not trade size against tokens what they
    predict there, and empty for those that no budget decides."""
    profiles: tuple[Profile, ...]
    """The law over sizes at these budgets."""
    held: dict[str, float]
    """Variables held at the runs' middle in optima, profiles and comparisons; total_over_active is N/N_a."""
    comparisons: tuple[BundledOptimum, ...]
    """Bundled laws of the same reach: their optima, judged by the fitted law."""
    conventions: dict[str, str]
    """How each variable is counted."""
    domain: dict[str, tuple[float, ...]]
    """Least and largest value of each variable over the runs."""
    fixed: dict[str, float]
    """Values that all runs share."""
    warnings: tuple[str, ...]
    """Warnings, a sentence each."""
    suggestion: Suggestion | None = None
    """The next runs to make; null unless asked for."""

    @property
    def values(self) -> dict[str, float]:
        """Coefficients by name."""
        return {coefficient.name: coefficient.value for coefficient in self.coefficients}


def fitted_schema() -> dict[str, Any]:
    """The JSON Schema of `FittedLaw`, every field explained."""
    return records.json_schema(FittedLaw, SCHEMA)
