"""The next runs to make: `Suggestion`, frozen and typed, the same in Python, JSON and every report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeplan import records
from moeplan.architecture.shape import Architecture
from moeplan.errors import UsageError
from moeplan.estimates import Estimate
from moeplan.files import read_json

SCHEMA = "moeplan.suggestion/1"


@dataclass(frozen=True)
class SuggestedRun:
    """A proxy run worth making."""

    architecture: Architecture
    """The exact shape."""
    total_params: int
    """N, embeddings included."""
    active_params: int
    """Na, embeddings included."""
    tokens: int
    """D, training tokens."""
    train_flops: float
    """Compute [FLOPs], as moeplan counts budgets."""
    predicted: float
    """Loss by the fitted law."""
    memory_bytes: float
    """Memory that training it takes: of each of the GPUs, or without these of one GPU alone, a sequence at a time
    [bytes]."""
    days: Estimate | None
    """Days that it takes on the GPUs, pauses included, with an 80 % interval; null without GPUs."""
    sees: dict[str, float]
    """The law's variables, in its own conventions."""
    regret_after: float
    """Regret to expect once this run and those before it are made [share of the budget]."""


@dataclass(frozen=True)
class Expected:
    """An interval now, and the one to expect after the runs."""

    quantity: str
    """The quantity: the predicted loss, or a variable of the best design at the target."""
    value: float
    """By the fitted law."""
    low: float
    """Lower end now."""
    high: float
    """Upper end now."""
    low_after: float
    """Lower end to expect, about the same value."""
    high_after: float
    """Upper end to expect, about the same value."""


@dataclass(frozen=True)
class Suggestion(records.Record):
    """The proxy runs that shrink most the regret of a law's recommendation at a budget."""

    schema: str
    """Version of this structure, moeplan.suggestion/1."""
    moeplan_version: str
    """Version that made it."""
    command: str
    """The command line, or the Python call."""
    law: str
    """The fitted law."""
    form: str
    """Its form."""
    target_flops: float
    """Budget of the recommendation [FLOPs]."""
    target_memory: str
    """Its memory limit; "" for none."""
    max_flops: float
    """Most compute of one run [FLOPs]."""
    max_params: float | None
    """Most params of one run; null for any number."""
    max_memory: float | None
    """Most memory to train a run on one GPU [bytes]; null for no limit."""
    gpus: str
    """What the runs are made on, one after another; "" if that was not said."""
    max_days: float | None
    """Days on them for all runs together; null for no limit."""
    seq_len: int
    """Sequence length of the runs [tokens]."""
    runs: tuple[SuggestedRun, ...]
    """The runs, the most valuable first."""
    train_flops: float
    """Compute of all of them [FLOPs]."""
    days: Estimate | None
    """Days of all of them, one after another; null without GPUs."""
    candidates: int
    """Runs that they were chosen from."""
    noise: float
    """Standard deviation of one run's ln loss about the law, as the fit's residuals have it."""
    regret_now: float
    """Regret of the recommendation as it is: mean share of the budget that it wastes, over the law's draws."""
    regret_after: float
    """The same, to expect once the runs are made and the law fitted again."""
    expected: tuple[Expected, ...]
    """Intervals now and after."""
    level: float
    """Probability that the intervals are meant to cover, if the law's equation is right."""
    draws: int
    """Draws of the coefficients behind all this."""
    notes: tuple[str, ...]
    """Warnings, a sentence each."""


def read_suggestion(path: str | Path) -> Suggestion:
    """Read a suggestion's file; raises `UsageError` for anything else."""
    return suggestion_from(read_json(path, instead="; moeplan fit --suggest writes one"), path)


def suggestion_from(data: Any, path: str | Path) -> Suggestion:
    """The suggestion in the JSON that `path` holds; raises what `read_suggestion` does."""
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise UsageError(f"{path}: is no suggestion; its schema must be {SCHEMA}, as moeplan fit --suggest writes it")
    try:
        return records.from_json(Suggestion, data)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
