"""Laws of learning rate and batch against what published models were trained with."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from moeplan.architecture.conventions import Variables
from moeplan.architecture.published import find_model
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import bundled
from moeplan.laws import Law
from moeplan.laws.hyperparameters import gives_both, hyperparameters


@dataclass(frozen=True)
class Practice:
    """The learning rate and batch that a published model was trained with."""

    name: str
    """Short name."""
    model: str
    """The model."""
    architecture: Architecture
    """The model's shape."""
    tokens: float
    """Its training tokens."""
    seq_len: int
    """Its sequence length [tokens]."""
    learning_rate: float
    """Its peak learning rate."""
    batch_tokens: float
    """Its batch [tokens]."""
    source: str
    """Where it is published."""
    confidence: str
    """How sure it is."""
    note: str
    """A caveat, in words."""


@dataclass(frozen=True)
class HyperParameterPrediction:
    """One law's learning rate and batch for the model."""

    law: str
    """The law."""
    learning_rate: float
    """Its peak learning rate."""
    learning_rate_ratio: float
    """That over the one that was used."""
    batch_tokens: float
    """Its batch [tokens]."""
    batch_ratio: float
    """That over the one that was used."""
    decades: float | None
    """How far its variables lie outside its measured range, in factors of 10, summed; null if it gives no range."""


@dataclass(frozen=True)
class HyperParameterRow:
    """A published model's learning rate and batch beside those of the laws."""

    name: str
    """Short name."""
    model: str
    """The model."""
    tokens: float
    """Training tokens."""
    train_flops: float
    """Training compute [FLOPs]: 6 * non-embedding active params + full attention, no logits."""
    learning_rate: float
    """The peak learning rate that was used."""
    batch_tokens: float
    """The batch that was used [tokens]."""
    source: str
    """Where it is published."""
    confidence: str
    """How sure it is."""
    note: str
    """A caveat, in words."""
    predictions: tuple[HyperParameterPrediction, ...]
    """The laws' predictions."""


@functools.cache
def practices() -> tuple[Practice, ...]:
    """Every published learning rate and batch, in the order of the data file."""
    found = []
    data = bundled("practice.yaml")
    data.only(("models",), ("models",))
    for row in data.sections("models"):
        keys = (
            "name",
            "model",
            "tokens",
            "seq_len",
            "learning_rate",
            "batch_sequences",
            "source",
            "confidence",
            "note",
        )
        row.only(keys, keys)
        seq_len = int(row.number("seq_len"))
        found.append(
            Practice(
                name=row.text("name"),
                model=row.text("model"),
                architecture=find_model(row.text("model")).architecture,
                tokens=row.number("tokens"),
                seq_len=seq_len,
                learning_rate=row.number("learning_rate"),
                batch_tokens=row.number("batch_sequences") * seq_len,
                source=row.text("source"),
                confidence=row.text("confidence"),
                note=row.text("note"),
            )
        )
    return tuple(found)


def hyperparameter_rows(laws: Sequence[Law]) -> tuple[HyperParameterRow, ...]:
    """Every published learning rate and batch, with what those of `laws` say that give both for a MoE."""
    able = [law for law in laws if gives_both(law)]
    return tuple(_row(practice, able) for practice in practices()) if able else ()


def _row(practice: Practice, laws: Sequence[Law]) -> HyperParameterRow:
    variables = Variables(practice.architecture, practice.seq_len)
    found = []
    for law in laws:
        (said,) = hyperparameters([law], practice.architecture, practice.tokens, practice.seq_len)
        fit = law.predicting("learning_rate")
        outside = [o for o in fit.outside(variables, practice.tokens) if o.variable in fit.variables]
        found.append(
            HyperParameterPrediction(
                law=law.name,
                learning_rate=said.learning_rate,
                learning_rate_ratio=said.learning_rate / practice.learning_rate,
                batch_tokens=said.batch_tokens,
                batch_ratio=said.batch_tokens / practice.batch_tokens,
                decades=sum(o.decades for o in outside) if fit.domain else None,
            )
        )
    return HyperParameterRow(
        name=practice.name,
        model=practice.model,
        tokens=practice.tokens,
        train_flops=float(variables.get("train_flops", "non_embedding_full_attention", practice.tokens)),
        learning_rate=practice.learning_rate,
        batch_tokens=practice.batch_tokens,
        source=practice.source,
        confidence=practice.confidence,
        note=practice.note,
        predictions=tuple(found),
    )
