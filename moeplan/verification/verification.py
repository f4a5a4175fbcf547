"""Answers of `moeplan verify`: `Outline` before anything trains, `Verification` afterwards; both frozen and JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from moeplan import records
from moeplan.architecture.shape import Architecture
from moeplan.estimates import Estimate
from moeplan.laws.law import Outside
from moeplan.quantities import SHARE, TIMES
from moeplan.verification.estimate import MeasuredLeverage
from moeplan.verification.shrink import KeptProperty
from moeplan.verification.verdict import Verdict

SCHEMA = "moeplan.verification/1"
OUTLINE_SCHEMA = "moeplan.verification_outline/1"


@dataclass(frozen=True)
class PlannedRun:
    """Runs that differ only in seed or learning rate."""

    arm: str
    """moe or dense."""
    control: str
    """The control that they belong to; "" if they are measured."""
    purpose: str
    """measure, or tune for those that choose a learning rate."""
    rung: str
    """Budget and size."""
    count: int
    """How many."""
    architecture: Architecture
    """The exact shape."""
    total_params: int
    """N without embeddings [params]."""
    active_params: int
    """N_a without embeddings [params]."""
    tokens: int
    """D of each, training tokens."""
    epochs: float
    """D / unique training tokens."""
    batch_tokens: int
    """Tokens of a step."""
    steps: int
    """Optimizer steps."""
    train_flops: float
    """Compute of each, as the leverage law counts [FLOPs]."""
    seconds: float | None
    """Forecast of each on this machine [s]; null if it was not probed."""
    memory_bytes: float
    """Weights, gradients, optimizer state and about the activations of each [bytes]."""


@dataclass(frozen=True)
class Outline(records.Record):
    """Outline of a study: the runs to come, with time and memory."""

    schema: str
    """Version of this structure, moeplan.verification_outline/1."""
    runs: tuple[PlannedRun, ...]
    """Every run, tuning first, controls last."""
    kept: tuple[KeptProperty, ...]
    """Properties of the plan that the proxies keep; empty for suggested runs."""
    moe_budgets: tuple[float, ...]
    """Budgets at which the leverage is measured; compute of suggested MoE runs [FLOPs]."""
    dense_budgets: tuple[float, ...]
    """Budgets of the dense runs [FLOPs]."""
    seeds: int
    """Seeds of every rung, or of every listed run."""
    seq_len: int
    """Sequence length [tokens]."""
    precision: str
    """Arithmetic of matrix products."""
    data: str
    """Where the text is."""
    data_digest: str
    """Digest of its tokens."""
    train_tokens: int
    """Unique training tokens."""
    validation_tokens: int
    """Tokens that losses are taken over."""
    train_flops: float
    """Compute of all runs together [FLOPs]."""
    seconds: float | None
    """Forecast of the whole [s]; null if the machine was not probed."""
    workers: int
    """Runs at a time that the forecast counts with."""
    device: str
    """The device it was probed on."""
    limit: str
    """The limit that the next larger ladder would break; "" if nothing, and for suggested runs."""
    notes: tuple[str, ...]
    """Caveats, in sentences."""


@dataclass(frozen=True)
class RunSummary:
    """A run and what came of it; the folder has the whole result under its digest."""

    digest: str
    """Name of its file."""
    arm: str
    """moe or dense."""
    control: str
    """The control that it belongs to; "" if it is measured."""
    purpose: str
    """measure or tune."""
    rung: str
    """Budget and size."""
    seed: int
    """Its seed."""
    architecture: Architecture
    """The exact shape."""
    tokens: int
    """Training tokens."""
    epochs: float
    """tokens / unique training tokens."""
    train_flops: float
    """Compute, as the leverage law counts [FLOPs]."""
    batch_tokens: int
    """Tokens of a step."""
    learning_rate: float
    """Peak learning rate of the attempt that counts."""
    status: str
    """finished or diverged."""
    attempts: int
    """2 if it was repeated at half the rate."""
    loss: float
    """Validation loss [nats/token]; 0 if it diverged."""
    seconds: float
    """Time of its training steps [s]."""
    tokens_per_second: float
    """Training speed."""
    mfu: float | None
    """Share of the measured matrix-product peak; null if not measured."""
    load: float | None
    """Largest load of an expert / mean load over all layers; null for dense runs."""
    dead_experts: float | None
    """Largest share of dead experts over all layers; null for dense runs."""
    entropy: float | None
    """Least entropy of the load over all layers, 1 being even; null for dense runs."""
    device: str
    """The device it ran on."""
    execution: str
    """How its steps were run: eager, graph, or eager with the reason why it was no graph on a GPU."""
    expert_products: str | None
    """By what the experts' rows were multiplied: grouped_mm, blocks or loop; null for dense runs."""


@dataclass(frozen=True)
class BestSize:
    """The best size of an arm at one budget."""

    arm: str
    """moe or dense."""
    rung: str
    """Budget and size."""
    train_flops: float
    """Compute of a run [FLOPs]."""
    loss: float
    """Loss, averaged over seeds [nats/token]."""
    seeds: int
    """Runs behind it."""
    seconds: float
    """Time of a run [s]."""


@dataclass(frozen=True)
class LeverageAt:
    """The leverage measured at one budget, and what is said of it."""

    measured: MeasuredLeverage
    """Value, interval, estimators."""
    law: str
    """The law that predicts a leverage."""
    law_here: Annotated[float, TIMES]
    """That law at the compute of these runs."""
    outside: tuple[Outside, ...]
    """Where these runs leave the law's domain; never empty below 1e18 FLOPs."""
    load: float
    """Largest load of an expert / mean load in the MoE runs behind it."""
    dead_experts: Annotated[float, SHARE]
    """Largest share of dead experts in them."""
    entropy: Annotated[float, SHARE]
    """Least entropy of the load in them."""
    verdict: Verdict
    """consistent, inconsistent in sign, underpowered or router unhealthy."""
    reason: str
    """Why."""


@dataclass(frozen=True)
class Power:
    """What would resolve the side of 1."""

    detectable: Annotated[float, TIMES]
    """The smallest leverage above 1 that these runs could have told from 1."""
    seeds: int | None
    """Seeds at the same budgets that would, if the leverage is what was measured; null if no number would."""
    seeds_seconds: float | None
    """Time of that many seeds on the machine of the runs [s]."""
    train_flops: float | None
    """Budget of a MoE run at which the law, extrapolated, would be told from 1; null if there is none."""
    train_flops_seconds: float | None
    """About the time of a ladder up to there on the machine of the runs [s]."""
    says: str
    """What to do, in a sentence."""


@dataclass(frozen=True)
class ControlResult:
    """A comparison whose answer is known."""

    control: str
    """one_expert, frozen_router or second_seed."""
    checks: str
    """What is compared, and what must come out."""
    value: float
    """The leverage; for frozen_router its loss / the trained router's."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    verdict: str
    """as expected, not resolved or not as expected."""


@dataclass(frozen=True)
class Tuning:
    """The learning rates tried for one arm."""

    arm: str
    """moe or dense."""
    rung: str
    """Where."""
    learning_rates: tuple[float, ...]
    """Rates tried."""
    losses: tuple[float | None, ...]
    """Loss of each [nats/token]; null where it diverged."""
    chosen: float
    """The rate taken."""
    at_edge: bool
    """Whether it is the smallest or largest tried, so that the best may lie beyond."""


@dataclass(frozen=True)
class Verification(records.Record):
    """Measured leverage beside the predicted one."""

    schema: str
    """Version of this structure, moeplan.verification/1."""
    plan_name: str
    """The plan, in short."""
    predicted: Annotated[Estimate, TIMES]
    """EL that the plan predicts, pooled over laws; two factors of ten outside and more, only its interval counts."""
    plan_flops: float
    """Compute that the prediction is for [FLOPs]."""
    plan_decades_outside: float
    """How far the plan's compute lies outside everything measured, in factors of 10, as the plan says."""
    verdict: Verdict
    """That of the largest budget."""
    reason: str
    """Why."""
    outside_domain: bool
    """Whether the runs lie outside the law's domain, as everything below 1e18 FLOPs does."""
    leverages: tuple[LeverageAt, ...]
    """The measured leverage at every MoE budget, the smallest first."""
    power: Power
    """What would resolve the side of 1."""
    controls: tuple[ControlResult, ...]
    """Comparisons whose answer is known; empty unless asked for."""
    tuning: tuple[Tuning, ...]
    """Learning rates tried."""
    envelopes: tuple[BestSize, ...]
    """Best size of every budget, both arms."""
    runs: tuple[RunSummary, ...]
    """Every run."""
    outline: Outline
    """The outline of the study, before any run."""
    notes: tuple[str, ...]
    """Divergences, edges and caveats, in sentences."""
    command: str
    """The command line, or the Python call."""
    versions: dict[str, str]
    """Versions of what ran the runs."""

    @classmethod
    def from_json(cls, data: Any) -> Verification:
        """Read what `to_json` wrote; raises `UsageError` for anything else."""
        return records.from_json(cls, data)


def verification_schema() -> dict[str, Any]:
    """The JSON Schema of a verification."""
    return records.json_schema(Verification, SCHEMA)
