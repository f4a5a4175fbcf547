"""The answer of `moeplan verify` for suggested runs: `ProxyRuns`, frozen and JSON, beside a plan's `Verification`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from moeplan import records
from moeplan.architecture.shape import Architecture
from moeplan.errors import UsageError
from moeplan.quantities import SHARE
from moeplan.verification.verification import Outline, RunSummary, Tuning

SCHEMA = "moeplan.proxy_runs/1"


@dataclass(frozen=True)
class ProxyRun:
    """A suggested run and what came of it."""

    places: tuple[int, ...]
    """Its places in the list, from 1; every one is trained with seeds of its own."""
    arm: str
    """moe or dense."""
    architecture: Architecture
    """The shape that was suggested, with the vocabulary of the text at hand."""
    total_params: int
    """N of that, embeddings included."""
    active_params: int
    """Na, embeddings included."""
    suggested_tokens: int
    """Training tokens that were suggested."""
    tokens: int
    """D, training tokens, in whole steps."""
    train_flops: float
    """Compute of one seed, as the leverage law counts [FLOPs]."""
    status: Literal["finished", "partly diverged", "diverged"]
    """Whether all of its seeds gave a loss, some, or none."""
    seeds: tuple[int, ...]
    """Its seeds."""
    losses: tuple[float | None, ...]
    """Validation loss of each; null where it diverged [nats/token]."""
    loss: float | None
    """Their mean; null where all diverged [nats/token]."""
    load: float | None
    """Largest load of an expert / mean load over layers and seeds; null for dense runs."""
    dead_experts: Annotated[float | None, SHARE]
    """Largest share of dead experts over layers and seeds; null for dense runs."""
    entropy: Annotated[float | None, SHARE]
    """Least entropy of the load over layers and seeds, 1 being even; null for dense runs."""
    seconds: float
    """Mean time of the training steps of a seed [s]."""


@dataclass(frozen=True)
class ProxyRuns(records.Record):
    """Suggested runs, made.

    It does not hold the losses that the law predicts: they are those of the text and tokenizer of the runs that the
    law was fitted to, and losses under two tokenizers do not compare.
    """

    schema: str
    """Version of this structure, moeplan.proxy_runs/1."""
    law: str
    """The fitted law that the runs were suggested for."""
    form: str
    """Its form."""
    proxies: tuple[ProxyRun, ...]
    """The suggested runs, in the order of the list."""
    tuning: tuple[Tuning, ...]
    """Learning rates tried."""
    runs: tuple[RunSummary, ...]
    """Every run, those that chose a learning rate included."""
    outline: Outline
    """The plan of the runs, before any was made."""
    notes: tuple[str, ...]
    """Divergences, edges and caveats, in sentences."""
    command: str
    """The command line, or the Python call."""
    versions: dict[str, str]
    """Versions of what ran the runs."""

    @classmethod
    def from_json(cls, data: Any) -> ProxyRuns:
        """Read what `to_json` wrote; raises `UsageError` for anything else."""
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise UsageError(f"these are no proxy runs; their schema must be {SCHEMA}")
        return records.from_json(cls, data)
