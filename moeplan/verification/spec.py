"""One proxy run, asked for and done: `RunSpec` and `RunResult`.

A run is a pure function of its spec. Its result is kept in a JSON file named by the spec's digest, so that a rerun, or
another machine, takes what is finished instead of training it again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from moeplan import records
from moeplan.architecture.shape import PLAIN, Architecture
from moeplan.errors import UsageError

SPEC_SCHEMA = "moeplan.run/2"
_FIXED = PLAIN | {"attention": "gqa", "qk_norm": "head", "moe_layer_pattern": None}
"""Values that these fields of a proxy must have; all others are free."""


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides a run's result, and nothing else."""

    arm: Literal["moe", "dense"]
    """Which side of the comparison it is on."""
    control: Literal["", "one_expert", "frozen_router", "second_seed"]
    """The control that it belongs to; "" for a run that is measured."""
    rung: str
    """Its place in the ladder, as in 1e13/d64: budget and size."""
    purpose: Literal["measure", "tune"]
    """Whether its loss counts, or only chooses a learning rate."""
    architecture: Architecture
    """The exact shape."""
    embedding_parts: int
    """Parts of a token's embedding, all but the first taken from the tokens before it; 1 leaves it whole."""
    seq_len: int
    """Sequence length [tokens]."""
    batch_sequences: int
    """Sequences of a step."""
    steps: int
    """Optimizer steps; tokens = steps * batch_sequences * seq_len."""
    learning_rate: float
    """Peak learning rate of AdamW; linear decay to zero after the warm-up."""
    warmup_steps: int
    """Steps over which the rate rises from zero."""
    weight_decay: float
    """AdamW's weight decay on matrices."""
    balance_rate: float
    """First size of the sign update of the router's correction bias; decays to zero with the rate. 0 for dense runs."""
    frozen_router: bool
    """Whether the router's weights keep their start and tokens take experts in turn, whatever they are (a control).
    By a random start that sees the token experts do as well at this scale as by a trained router."""
    seed: int
    """Seeds weights and the order of the data; runs of both arms with one seed see the same data in the same order."""
    precision: Literal["fp32", "bf16"]
    """Arithmetic of the matrix products; master weights are fp32."""
    data: str
    """Where the data is: builtin, or a path."""
    data_digest: str
    """Digest of the tokens, so that a run on other data has another name."""
    validation_tokens: int
    """Tokens of the validation documents that the loss is taken over."""

    @property
    def tokens(self) -> int:
        """D, training tokens, repeats included."""
        return self.steps * self.batch_sequences * self.seq_len

    def schedule(self) -> list[float]:
        """Share of the peak rate at every step: up to 1 over the warm-up, then down in a straight line towards zero."""
        warmup, down = self.warmup_steps + 1, max(1, self.steps - self.warmup_steps)
        return [min((step + 1) / warmup, (self.steps - step) / down) for step in range(self.steps)]

    @property
    def digest(self) -> str:
        """Name of the run: SHA-256 of the spec as JSON, first 16 hex digits."""
        text = json.dumps({"schema": SPEC_SCHEMA, **records.to_json(self)}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_architecture(architecture: Architecture) -> None:
    """Raise `UsageError` for a shape that `moeplan.verification.model.Model` does not build, naming the field."""
    for name, wanted in _FIXED.items():
        value = getattr(architecture, name)
        if value != wanted:
            raise UsageError(f"a proxy model cannot have {name} {value!r}; it must be {wanted!r}")
    if architecture.num_kv_layers != architecture.num_layers:
        raise UsageError(f"a proxy model cannot have num_kv_layers {architecture.num_kv_layers}; leave it 0")
    if architecture.head_dim % 2:
        raise UsageError(f"head_dim {architecture.head_dim} must be even for rotary positions")


@dataclass(frozen=True)
class RoutingHealth:
    """How the router spread its tokens over the experts, counted over the last tenth of the training steps."""

    load: tuple[float, ...]
    """Largest load of an expert / mean load, for each MoE layer."""
    dead_experts: tuple[float, ...]
    """Share of the experts of each MoE layer that less than 1 % of the mean load reaches."""
    entropy: tuple[float, ...]
    """Entropy of the load of each MoE layer / ln num_experts: 1 is even."""


@dataclass(frozen=True)
class RunResult:
    """The result of a run."""

    schema: str
    """Version of this structure, moeplan.run/2."""
    spec: RunSpec
    """The run's specification."""
    status: Literal["finished", "diverged"]
    """diverged: the loss was not a number, or ended above where it began, twice."""
    learning_rate: float
    """Peak learning rate of the attempt that counts: the spec's, or half of it after a divergence."""
    attempts: int
    """1, or 2 after a divergence."""
    loss: float
    """Mean validation loss [nats/token]; 0 if it diverged."""
    document_losses: tuple[float, ...]
    """Summed loss of each validation document [nats], in the data's order."""
    document_tokens: tuple[int, ...]
    """Tokens of each."""
    train_losses: tuple[float, ...]
    """Training loss along the run, averaged over equal stretches (at most 100) [nats/token]."""
    train_loads: tuple[float, ...]
    """Largest load of an expert / mean load along the run, over the same stretches; none of dense models."""
    epochs: float
    """tokens / unique training tokens."""
    train_flops: float
    """FLOPs of the run by the leverage law's convention: non-embedding params, full attention, no logits."""
    seconds: float
    """Wall-clock of the training steps [s], without start-up and validation."""
    tokens_per_second: float
    """Training tokens a second."""
    mfu: float | None
    """Share of the device's measured matrix-product peak that training reached, counting causal
    attention and logits; null if not measured."""
    routing: RoutingHealth | None
    """How the router fared; null for dense models."""
    device: str
    """The device it ran on."""
    execution: str
    """How its steps were run: eager, graph (replayed by a GPU as one CUDA graph), or eager with the reason why not."""
    expert_products: str | None
    """By what the experts' rows were multiplied: grouped_mm, blocks or loop; null for dense models."""
    versions: dict[str, str]
    """Versions of what ran it: moeplan, torch, python."""


def spec_text(spec: RunSpec) -> str:
    """A spec as one line of JSON."""
    return json.dumps({"schema": SPEC_SCHEMA, **records.to_json(spec)})


def read_spec(text: str, where: str) -> RunSpec:
    """The inverse of `spec_text`; raises `UsageError` naming `where`."""
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or data.pop("schema", None) != SPEC_SCHEMA:
            raise UsageError(f"is no run's spec of schema {SPEC_SCHEMA}")
        return records.from_json(RunSpec, data)
    except (ValueError, UsageError) as error:
        raise UsageError(f"{where}: {error}") from None
