"""Published measurements that give losses rather than ratios: bundled as data with source and confidence.

A ranking study trains MoEs of one shape at equal compute and varies one thing; a ladder trains dense models and MoEs of
growing size. What turns their losses into ratios of compute stands with them, for every ratio hangs on it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from moeplan.architecture.shape import Architecture
from moeplan.laws.reader import FileSection
from moeplan.studies.backtest.equivalences import backtest_file, read_shape

SEQ_LEN = 4096
"""Sequence length of these studies [tokens]."""


@dataclass(frozen=True)
class StudySource:
    """Where a study is from."""

    name: str
    """Short name."""
    says: str
    """The quantities held equal, and the finding."""
    source: str
    """Where it is published."""
    confidence: str
    """How sure the measurement is: high or medium."""
    assumed: str
    """Parts of the shapes that are not published, or stand here otherwise; "" if none."""
    note: str
    """A caveat, in words."""


@dataclass(frozen=True)
class TrainedModel:
    """A trained model."""

    title: str
    """Its name in the study."""
    architecture: Architecture
    """Its exact shape."""
    tokens: float
    """Training tokens."""
    loss: float
    """Its loss [nats/token]."""
    train_flops: float | None = None
    """Training compute by the study's own count [FLOPs]."""
    mfu: float | None = None
    """Utilisation of the GPUs' peak in training."""


@dataclass(frozen=True)
class RankingRung:
    """MoEs of one shape at one compute, by their number of routed experts."""

    title: str
    """Name of the rung."""
    designs: dict[int, TrainedModel]
    """The models by their number of routed experts."""
    train_flops: float
    """Training compute by the study's own count [FLOPs]."""
    tokens_otherwise: float
    """Training tokens by another reading of the study."""


@dataclass(frozen=True)
class RankingStudy:
    """MoEs against MoEs at equal compute."""

    origin: StudySource
    """Where it is from."""
    base: int
    """Number of experts that the others are compared with."""
    law: str
    """The law whose loss over compute turns losses into ratios, and whose best sizes and tokens predictions follow."""
    irreducible_range: tuple[float, float]
    """Irreducible levels over which a ratio's sensitivity is shown [nats/token]."""
    rungs: tuple[RankingRung, ...]
    """Its rungs."""


@dataclass(frozen=True)
class ModelLadder:
    """Dense models and MoEs of growing size on the same data."""

    origin: StudySource
    """Where it is from."""
    irreducible: float
    """Irreducible level between whose rungs compute is interpolated [nats/token]."""
    irreducible_range: tuple[float, float]
    """Levels over which a ratio's sensitivity is shown."""
    dense: tuple[TrainedModel, ...]
    """The dense models by rising compute."""
    moe: tuple[TrainedModel, ...]
    """The MoEs."""


_ORIGIN = ("name", "says", "source", "confidence", "assumed", "note")


def _origin(row: FileSection) -> StudySource:
    return StudySource(*(row.text(key, "" if key in ("assumed", "note") else None) for key in _ORIGIN))


def _range(row: FileSection, key: str) -> tuple[float, float]:
    bounds = row[key]
    if not isinstance(bounds, list) or len(bounds) != 2 or not all(isinstance(b, float) for b in bounds):
        raise row.error(key, f"is {bounds!r}, must be [lowest, highest]")
    return bounds[0], bounds[1]


@functools.cache
def ranking_studies() -> tuple[RankingStudy, ...]:
    """Every ranking study, in the order of the data file."""
    found = []
    for row in backtest_file().sections("rankings"):
        keys = (*_ORIGIN, "base", "law", "irreducible_range", "rungs")
        row.only(keys, keys)
        rungs = tuple(_ranking_rung(rung) for rung in row.sections("rungs"))
        levels = _range(row, "irreducible_range")
        found.append(RankingStudy(_origin(row), int(row.number("base")), row.text("law"), levels, rungs))
    return tuple(found)


def _ranking_rung(row: FileSection) -> RankingRung:
    keys = ("title", "architecture", "train_flops", "tokens", "tokens_otherwise", "losses")
    row.only(keys, keys)
    title, tokens = row.text("title"), row.number("tokens")
    designs = {
        int(experts): TrainedModel(
            f"{title}, {experts} experts", read_shape(row, num_experts=int(experts)), tokens, loss
        )
        for experts, loss in row.section("losses").numbers().items()
    }
    return RankingRung(title, designs, row.number("train_flops"), row.number("tokens_otherwise"))


@functools.cache
def ladders() -> tuple[ModelLadder, ...]:
    """Every ladder, in the order of the data file."""
    found = []
    for row in backtest_file().sections("ladders"):
        keys = (*_ORIGIN, "irreducible", "irreducible_range", "dense", "moe")
        row.only(keys, keys)
        dense, moe = (tuple(_design(design) for design in row.sections(side)) for side in ("dense", "moe"))
        found.append(ModelLadder(_origin(row), row.number("irreducible"), _range(row, "irreducible_range"), dense, moe))
    return tuple(found)


def _design(row: FileSection) -> TrainedModel:
    keys = ("title", "architecture", "tokens", "loss", "train_flops", "mfu")
    row.only(keys, keys)
    numbers = (row.number(key) for key in keys[2:])
    return TrainedModel(row.text("title"), read_shape(row), *numbers)
