"""Published equivalences of MoE and dense models, bundled as data with source and confidence."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, cast

from moeplan.architecture.published import find_model
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import bundled
from moeplan.errors import UsageError
from moeplan.laws.reader import FileSection

Kind = Literal["study", "sign", "pair", "claim"]
"""A study is scored; of a sign only the better side is known; a pair is two MoEs; a claim is context."""
Loss = Literal["equal", "lower", "higher", "unknown"]
"""The MoE's loss against the other side's: equal, lower (its ratio is a lower bound), higher (an upper bound)."""
_KINDS: dict[str, Kind] = {"studies": "study", "signs": "sign", "pairs": "pair", "claims": "claim"}


@dataclass(frozen=True)
class Side:
    """One of the two models of an equivalence."""

    title: str
    """Its name."""
    architecture: Architecture | None
    """Its exact shape; None where it is not known, or not expressed whole."""
    tokens: float | None
    """Training tokens; None where not published."""


@dataclass(frozen=True)
class Stated:
    """A ratio as the publication gives it."""

    ratio: float
    """The other side over the MoE."""
    what: str
    """Of what."""


@dataclass(frozen=True)
class Equivalence:
    """A MoE and another model that were compared."""

    name: str
    """Short name."""
    kind: Kind
    """How it is scored (`Kind`)."""
    moe: Side
    """The MoE."""
    against: Side
    """The dense model, or in a pair the other MoE."""
    seq_len: int
    """Sequence length that FLOPs are counted at [tokens]."""
    loss: Loss
    """The MoE's loss against the other side's."""
    stated: tuple[Stated, ...]
    """Ratios as published."""
    moe_flops: float | None
    """Training compute of the MoE by the publication's own count [FLOPs]; None where it gives none."""
    says: str
    """The quantities held equal, and the finding."""
    source: str
    """Where it is published."""
    confidence: str
    """How sure it is: high or medium."""
    assumed: str
    """Parts of shapes or tokens that are not published; "" if none."""
    note: str
    """A caveat, in words."""


@dataclass(frozen=True)
class LawClaim:
    """A prediction about MoE against dense that a law's own paper prints."""

    law: str
    """The law."""
    says: str
    """The claim."""
    stated: float
    """Its ratio."""
    source: str
    """Where it is published."""
    given: dict[str, float]
    """Values of the law's variables; train_flops is the MoE's [FLOPs]."""
    over: tuple[str, float, float] | None
    """The continuous size that is optimised, with its range; None for a claim at given values."""
    choices: dict[str, tuple[float, ...]]
    """Fixed choices among which the best counts."""


@dataclass(frozen=True)
class Preregistered:
    """A run that was made after its law was fitted."""

    law: str
    """The law."""
    run: str
    """The run."""
    measured: float
    """Loss of the run [nats/token]."""
    given: dict[str, float]
    """Values of the law's variables."""
    source: str
    """Where it is published."""
    confidence: str
    """How sure it is."""


@functools.cache
def equivalences() -> tuple[Equivalence, ...]:
    """Every equivalence, in the order of the data file: studies, signs, pairs, claims."""
    return tuple(_equivalence(row, kind) for key, kind in _KINDS.items() for row in backtest_file().sections(key))


@functools.cache
def law_claims() -> tuple[LawClaim, ...]:
    """The claims of the laws' own papers, in the order of the data file."""
    claims = []
    for row in backtest_file().sections("law_claims"):
        row.only(("law", "says", "stated", "source", "given", "over", "choices"), ("law", "says", "stated", "given"))
        ranges = [(name, float(low), float(high)) for name, (low, high) in row.section("over", optional=True).items()]
        choices = {name: tuple(map(float, values)) for name, values in row.section("choices", optional=True).items()}
        given = row.section("given").numbers()
        claims.append(
            LawClaim(
                row.text("law"),
                row.text("says"),
                row.number("stated"),
                row.text("source"),
                given,
                ranges[0] if ranges else None,
                choices,
            )
        )
    return tuple(claims)


@functools.cache
def preregistered() -> tuple[Preregistered, ...]:
    """Runs made after their law was fitted, in the order of the data file."""
    keys = ("law", "run", "measured", "given", "source", "confidence")
    runs = []
    for row in backtest_file().sections("preregistered"):
        row.only(keys, keys)
        given = row.section("given").numbers()
        texts = (row.text("source"), row.text("confidence"))
        runs.append(Preregistered(row.text("law"), row.text("run"), row.number("measured"), given, *texts))
    return tuple(runs)


@functools.cache
def backtest_file() -> FileSection:
    """The data file, its sections checked."""
    root = bundled("backtest.yaml")
    keys = (*_KINDS, "rankings", "ladders", "law_claims", "preregistered")
    root.only(keys, keys)
    return root


def publication(source: str) -> str:
    """The publication of a source, which has one vote: "arXiv 2401.06066" of "arXiv 2401.06066, Table 3"."""
    return source.split(",")[0]


def _equivalence(row: FileSection, kind: Kind) -> Equivalence:
    required = ("name", "moe", "against", "says", "source", "confidence")
    row.only((*required, "seq_len", "loss", "stated", "moe_flops", "assumed", "note"), required)
    loss = row.text("loss", "unknown")
    if loss not in (("unknown",) if kind == "claim" else ("equal", "lower", "higher")):
        raise row.error("loss", f"is {loss!r}, must be equal, lower or higher")
    return Equivalence(
        name=row.text("name"),
        kind=kind,
        moe=_side(row.section("moe")),
        against=_side(row.section("against")),
        seq_len=int(row.number("seq_len", 4096)),
        loss=cast(Loss, loss),
        stated=tuple(_stated(stated) for stated in row.sections("stated")),
        moe_flops=row.number("moe_flops") if "moe_flops" in row else None,
        says=row.text("says"),
        source=row.text("source"),
        confidence=row.text("confidence"),
        assumed=row.text("assumed", ""),
        note=row.text("note", ""),
    )


def _side(row: FileSection) -> Side:
    row.only(("model", "title", "architecture", "tokens"))
    tokens = row.number("tokens") if "tokens" in row else None
    if "model" in row:
        model = find_model(row.text("model"))
        return Side(model.name, None if model.not_counted else model.architecture, tokens)
    if "architecture" not in row:
        return Side(row.text("title"), None, tokens)
    return Side(row.text("title"), read_shape(row), tokens)


def read_shape(row: FileSection, **fields: int) -> Architecture:
    """The exact shape under `architecture`, with `fields` that stand elsewhere."""
    try:
        return Architecture.from_dict({**row.section("architecture"), **fields})
    except UsageError as error:
        raise row.error("architecture", f"is no shape: {error}") from None


def _stated(row: FileSection) -> Stated:
    row.only(("ratio", "against", "moe", "what"), ("what",))
    ratio = row.number("ratio") if "ratio" in row else row.number("against") / row.number("moe")
    return Stated(ratio, row.text("what"))
