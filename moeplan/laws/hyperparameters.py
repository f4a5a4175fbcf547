"""Learning rate and batch for a plan, by every law that gives both, each in its own convention."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from moeplan.architecture.conventions import Variables
from moeplan.architecture.shape import Architecture
from moeplan.errors import UsageError
from moeplan.laws import Law, load_law
from moeplan.laws.roles import HYPERPARAMETER_LAWS, LEVERAGE_LAW
from moeplan.records import Line


@dataclass(frozen=True)
class HyperParameters:
    """Peak learning rate (AdamW) and batch by one law."""

    law: Line
    """The law."""
    learning_rate: float
    """Peak learning rate."""
    batch_tokens: float
    """Batch [tokens]."""
    band: float
    """Near-optimal within x/band to x*band; 0 if the paper gives none."""
    extrapolated: bool | None
    """Whether the plan lies outside the law's domain; null if the law file gives none."""


def gives_both(law: Law) -> bool:
    """Whether a law gives both a learning rate and a batch of a MoE."""
    fits = [fit for fit in law.fits.values() if not fit.is_dense_only]
    return {"learning_rate", "batch_tokens"} <= {fit.predicts for fit in fits}


def hyperparameter_laws(first: str = LEVERAGE_LAW) -> tuple[Law, ...]:
    """The laws asked for learning rate and batch, that of which they are taken ahead.

    Raises `UsageError` for a law that does not give both.
    """
    own = load_law(first)
    if not gives_both(own):
        raise UsageError(
            f"law {first} does not give both a learning rate and a batch of a MoE; {' and '.join(HYPERPARAMETER_LAWS)} "
            "do"
        )
    return (own, *(load_law(name) for name in HYPERPARAMETER_LAWS if name != own.name))


def hyperparameters(
    laws: Iterable[Law], architecture: Architecture, tokens: float, seq_len: int
) -> tuple[HyperParameters, ...]:
    """Peak learning rate (AdamW) and batch [tokens] of a model trained on `tokens`, by each law.

    For a dense architecture a law's own dense fits are used where it has them. Raises `LawError` for a law without
    such fits.
    """
    variables = Variables(architecture, seq_len)
    found = []
    for law in laws:
        prefix = "dense_" if architecture.is_dense and "dense_learning_rate" in law.fits else ""
        rate = law.predicting("learning_rate", f"{prefix}learning_rate")
        batch = law.predicting("batch_tokens", f"{prefix}batch_tokens")
        found.append(
            HyperParameters(
                law=law.name,
                learning_rate=float(rate.at(variables, tokens)),
                batch_tokens=float(batch.at(variables, tokens)),
                band=rate.band,
                extrapolated=bool(rate.outside(variables, tokens)) if rate.domain else None,
            )
        )
    return tuple(found)
