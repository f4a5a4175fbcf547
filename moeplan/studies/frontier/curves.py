"""The result of a frontier: `Frontier`, frozen and typed, the same in Python, JSON and every report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from moeplan import records
from moeplan.notebook import Framed
from moeplan.plan.document import Request
from moeplan.plan.search.variables import Design
from moeplan.quantities import NUMBER, SHARE, TIMES

SCHEMA = "moeplan.frontier/1"


@dataclass(frozen=True)
class Point:
    """One recommendation of a curve."""

    x: float
    """Where it stands: memory of one device [bytes], or of all where their number changes; compute [FLOPs], GPUs, days,
    sequences, or the variable's value."""
    flops: float
    """Compute budget [FLOPs]; where time is the budget, what the design trains for in it."""
    memory: str | None
    """Memory limit, as in 80GB; null if there is none."""
    design: Design
    """The design."""
    value_ratio: float
    """V/C: what the limits leave of the budget."""
    pooled_leverage: Annotated[float | None, TIMES]
    """EL by all laws that know dense models, for this split of compute; null beyond two factors of ten outside."""
    pooled_low: Annotated[float, TIMES]
    """Lower end of its interval."""
    pooled_high: Annotated[float, TIMES]
    """Upper end of its interval."""
    pooled_decades_outside: float
    """How far the compute lies outside everything measured, in factors of 10."""
    efficiency_leverage: float
    """EL by the leverage law alone, at its best split of compute."""
    low: float
    """Lower end of its own interval."""
    high: float
    """Upper end of its own interval."""
    decades_outside: float
    """How far outside its measured range the leverage law's leverage is asked, in factors of 10."""
    allocation_efficiency: float
    """phi: what the design's split of compute into size and tokens keeps of that EL (an inferred rule)."""
    leverage_by_law: dict[str, float]
    """EL by the other laws that compare with dense models."""
    leverage_ends_by_law: dict[str, tuple[float, ...]]
    """Ends of the 90 % interval of EL by fitted laws that compare with dense models, over draws of their
    coefficients."""
    compute_ratio_by_law: dict[str, float]
    """C_l/C by each law that can search."""
    compute_ends_by_law: dict[str, tuple[float, ...]]
    """Ends of the 90 % interval of C_l/C by fitted laws: this design under draws of their coefficients, each against
    that draw's own best designs; only along memory or compute."""
    outside: tuple[str, ...]
    """The laws whose measured range the design leaves."""
    memory_price: float | None
    """Best V with 10 % more memory / best V; of points along memory or compute, and of the recommendation on
    a curve over a design variable; null without a memory limit."""
    compute_price: float | None
    """Best V with 10 % more compute / best V; only along compute."""
    binding: tuple[str, ...]
    """memory, if 10 % more of it raises V by more than .1 %; tokens, at their cap."""
    edges: tuple[str, ...]
    """Axes of the declared grid on whose end the design lies."""
    mfu: Annotated[float | None, SHARE]
    """Model FLOPs utilisation of training under its fastest layout that fits; null without GPUs."""
    days: Annotated[float | None, NUMBER]
    """Days of training it on the GPUs, pauses included; null without GPUs."""
    tokens_per_second_per_user: Annotated[float | None, NUMBER]
    """Tokens a second that each of the served sequences sees, expected; only along concurrency."""


@dataclass(frozen=True)
class Line:
    """One law's own best designs over a variable."""

    law: str
    """The law; V for the geometric mean of the chosen ones."""
    x: tuple[float, ...]
    """The variable's value in its best design there."""
    compute_ratio: tuple[float, ...]
    """C_l/C of that design."""
    relative: tuple[float, ...]
    """The same / the largest on the curve."""
    low: tuple[float, ...]
    """Lower ends of `relative`, the same designs judged under draws of a fitted law's coefficients; empty without."""
    high: tuple[float, ...]
    """Upper ends of `relative`; empty without draws."""
    inside: tuple[bool, ...]
    """Whether that design lies in the law's measured range."""


@dataclass(frozen=True)
class MeasuredRange:
    """Where a law was measured on the curve's axis."""

    law: str
    """The law."""
    low: float
    """Least value."""
    high: float
    """Largest value."""


@dataclass(frozen=True)
class FrontierProvenance:
    """Version, command and digests behind a curve."""

    version: str
    """moeplan's version."""
    command: str
    """The command line, or the Python call."""
    law_digests: dict[str, str]
    """Digest of every law file (SHA-256, 16 hex digits)."""
    grid_digests: tuple[str, ...]
    """Digests of the grids, one for each vocabulary."""


@dataclass(frozen=True)
class Frontier(records.Record, Framed):
    """A curve of recommendations."""

    schema: str
    """Version of this structure, moeplan.frontier/1."""
    over: str
    """The axis: memory, flops, gpus, days, concurrency or a design variable."""
    request: Request
    """The budget asked for; what the curve runs along is that of the last point."""
    points: tuple[Point, ...]
    """The recommendations, from the smallest x to the largest."""
    left_out: tuple[str, ...]
    """Why points are missing, in sentences."""
    notes: tuple[str, ...]
    """What the runs behind fitted laws leave open, in sentences."""
    recommended: Point | None
    """The recommendation at the budget; only over a design variable."""
    held: dict[str, float]
    """Variables held at the recommendation's value (within 2 %), beside those of the request."""
    lines: tuple[Line, ...]
    """Each law's own best; only over a design variable."""
    ranges: tuple[MeasuredRange, ...]
    """Where laws were measured on the axis, for those that count it as moeplan does."""
    provenance: FrontierProvenance
    """Version, command and digests behind it."""
