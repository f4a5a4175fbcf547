"""What a comparison says: `Comparison`, frozen and typed, the same in Python, JSON and every report.

Params and memory are exact counts of exact shapes; compute is in FLOPs, memory in bytes. What a law says of a model is
compute: that of the law's own best dense model with the same loss. Losses of two laws never meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from moeplan import records
from moeplan.architecture.shape import Architecture
from moeplan.errors import UsageError
from moeplan.laws.law import Outside
from moeplan.quantities import BYTES, COUNT, FLOPS, SHARE, TIMES

SCHEMA = "moeplan.comparison/1"


@dataclass(frozen=True)
class DecodeSpeed:
    """One decode step at best, by bytes over bandwidth and FLOPs over peak (`moeplan.cost.serving.roofline`)."""

    batch: int
    """Sequences, each with `context` tokens in the cache."""
    tokens_per_second: float
    """Most tokens a second of one device."""
    bound: str
    """What takes the time: memory or compute."""
    fits: bool
    """Whether weights and caches of the batch fit the devices."""


@dataclass(frozen=True)
class Candidate:
    """One model of a comparison: an exact shape with its tokens, and what it costs."""

    name: str
    """What it is called in this comparison."""
    role: str
    """recommended, compute_optimal, equal_total_params, equal_active_params, equal_loss or given."""
    says: str
    """How it was chosen, in a sentence."""
    architecture: Architecture
    """The exact integer shape."""
    is_dense: bool
    """Whether no layer has experts."""
    total_params: int
    """N [params], embeddings included."""
    active_params: int
    """N_a [params], what a token passes through, embeddings included."""
    tokens: int
    """D, training tokens."""
    tokens_per_param: float
    """D/N_a, tokens per active param."""
    flops_per_token: float
    """Training FLOPs per token: 6*(active params without input embedding) + causal attention, forward + backward."""
    train_flops: float
    """flops_per_token * tokens [FLOPs]."""
    epochs: float | None
    """tokens / unique tokens available; null if these are not limited."""
    mfu: float
    """Share of the dense bf16 peak assumed in training."""
    mfu_basis: str
    """Where that share is from."""
    gpu_hours: float
    """Device-hours of training."""
    days: float | None
    """Days of training; null without a number of devices."""
    money: float | None
    """Price of training; null without a price."""
    state_bytes: float
    """Weights, gradients and optimizer state of one copy in training, in all [bytes]."""
    training_bytes_per_gpu: Annotated[float | None, BYTES]
    """Least memory of a training GPU by any layout [bytes]; null without GPUs, or if no layout is allowed."""
    serving_bytes: int
    """Weights and full KV cache [bytes]; with several devices, on the fullest."""
    kv_bytes_per_token: int
    """KV cache of one token [bytes]."""
    fits_memory: bool | None
    """Whether it can be served within the memory limit less its headroom; null without a limit."""
    num_devices: int
    """Devices that the decode speeds are for: the fewest (a power of two) that hold it; 0 if 1024 do not."""
    decode: tuple[DecodeSpeed, ...]
    """Decode speeds by batch."""


@dataclass(frozen=True)
class Answer:
    """What one law says of one model."""

    dense_compute: Annotated[float | None, FLOPS]
    """Compute of the law's own best dense model that is as good [FLOPs, as the law counts]; null if it cannot say."""
    ratio: Annotated[float | None, TIMES]
    """Work: dense_compute / the compute of the comparison's first model, both as the law counts."""
    ratio_low: float | None
    """Lower end of its interval; null where the law gives none."""
    ratio_high: float | None
    """Upper end of its interval."""
    leverage: Annotated[float | None, TIMES]
    """EL: dense_compute / the model's own compute, for leverage laws before any discount; null for a dense model."""
    own_compute: Annotated[float | None, FLOPS]
    """C_l: the compute at which the law's best MoE without a memory limit is as good; null if it was not asked."""
    outside: tuple[Outside, ...]
    """Where the model leaves the law's measured range."""
    says: str
    """Why the law cannot say, if so."""

    @property
    def extrapolated(self) -> bool:
        """Whether the model lies outside the law's measured range."""
        return bool(self.outside)


@dataclass(frozen=True)
class LawColumn:
    """One law's answers, one for each model in order."""

    law: str
    """The law."""
    grade: str
    """How sure its digits are."""
    basis: str
    """How it compares, in words."""
    answers: tuple[Answer, ...]
    """One for each model."""
    draws: int = 0
    """Draws of a fitted law's coefficients behind its intervals; 0 for a law without."""


@dataclass(frozen=True)
class SilentLaw:
    """A law that says nothing about dense models."""

    law: str
    """The law."""
    reason: str
    """Why."""


@dataclass(frozen=True)
class EqualLoss:
    """One law's own best dense model that is as good as the MoE."""

    law: str
    """The law."""
    dense_compute: Annotated[float, FLOPS]
    """Its compute [FLOPs, as the law counts]."""
    total_params: float
    """Its size [params, as the law counts]."""
    tokens: float
    """Its training tokens."""
    ratio: Annotated[float, TIMES]
    """dense_compute / the MoE's compute, as the law counts."""
    extrapolated: bool
    """Whether the MoE, or that dense model, lies outside the law's measured range."""


@dataclass(frozen=True)
class Versus:
    """The first model against another, as ratios first / other."""

    other: str
    """The other model."""
    quality: Annotated[dict[str, float], TIMES]
    """Dense-equivalent compute, by each law that can say it of both."""
    quality_low: Annotated[float | None, TIMES]
    """The lowest of these by another law than the leverage law; null if none speaks."""
    quality_high: Annotated[float | None, TIMES]
    """The highest of these by another law than the leverage law."""
    own_compute: Annotated[dict[str, float], TIMES]
    """C_l, by each law that judged both; empty unless two models are compared."""
    train_flops: Annotated[float, TIMES]
    """Training compute."""
    gpu_hours: Annotated[float, TIMES]
    """GPU time of training."""
    tokens: Annotated[float, TIMES]
    """Training tokens."""
    state_bytes: Annotated[float, TIMES]
    """Weights, gradients and optimizer state in training."""
    serving_bytes: Annotated[float, TIMES]
    """Memory of serving."""
    kv_bytes_per_token: Annotated[float, TIMES]
    """KV cache of one token."""
    decode: Annotated[dict[str, float], TIMES]
    """Decode speed of one device, by batch; only batches that fit both."""


@dataclass(frozen=True)
class Saving:
    """What a law's own best MoE saves against its own best dense model, sizes continuous, in its own FLOPs."""

    law: str
    """The law, with the fit where it has several."""
    settings: dict[str, float]
    """What was fixed of the MoE (expansion_ratio, activation_ratio) and chosen (granularity)."""
    saving: Annotated[float, SHARE]
    """1 - C_moe/C: C_moe is where the best MoE reaches the loss of the best dense model at C."""
    times: Annotated[float, TIMES]
    """C/C_moe."""
    leverage: Annotated[float | None, TIMES]
    """C_dense/C: C_dense is where the best dense model reaches the loss of the best MoE at C; null if it never does."""
    outside: tuple[str, ...]
    """Variables in which that MoE leaves the law's measured range."""


@dataclass(frozen=True)
class SavingsSpread:
    """The largest saving of each law, which is as far as laws can be set beside each other."""

    low_law: str
    """The law that saves least."""
    low: Annotated[float, TIMES]
    """Its C/C_moe."""
    low_leverage: Annotated[float | None, TIMES]
    """Its C_dense/C."""
    high_law: str
    """The law that saves most."""
    high: Annotated[float, TIMES]
    """Its C/C_moe."""
    high_leverage: Annotated[float | None, TIMES]
    """Its C_dense/C."""


@dataclass(frozen=True)
class MeasuredRate:
    """One measured MoE of li2025."""

    active_rate: Annotated[float, SHARE]
    """N_a/N, without vocabulary."""
    bits_per_char: float
    """Its loss [bits per character]."""
    beats_dense: bool
    """Whether a dense model of the same size and compute is worse."""


@dataclass(frozen=True)
class StrictStudy:
    """MoE against dense at equal size and compute, as li2025 measured it at one size."""

    name: str
    """Its name: 2B or 7B."""
    total_params: float
    """N [params], without vocabulary."""
    train_flops: float
    """C [FLOPs] of each model."""
    dense_bits_per_char: float
    """Loss of the dense model of the same size and compute [bits per character]."""
    points: tuple[MeasuredRate, ...]
    """The MoEs measured."""
    best_active_rate: Annotated[float, SHARE]
    """The best of the measured rates."""
    region_low: Annotated[float | None, SHARE]
    """Rate from which the MoE beats the dense model, interpolated; null if every lower rate measured does too."""
    region_high: Annotated[float | None, SHARE]
    """Rate up to which it does, interpolated; null if every higher rate measured does too."""
    zhao2025_low: Annotated[float, SHARE]
    """Best rate by zhao2025 at this N and C = 6*N_a*D."""
    zhao2025_high: Annotated[float, SHARE]
    """The same with the attention that li2025 counts."""


@dataclass(frozen=True)
class EqualResources:
    """li2025's strict comparison: the same size, compute and unique data, so that the MoE repeats data."""

    study: StrictStudy
    """The study whose table is used: the one nearest in size."""
    studies: tuple[StrictStudy, ...]
    """Every study."""
    total_params: int
    """N of the MoE [params], without vocabulary."""
    train_flops: float
    """C of the MoE as li2025 counts: (6*N_a + 12*d_model*seq_len*layers)*D, without vocabulary [FLOPs]."""
    active_rate: Annotated[float, SHARE]
    """N_a/N of the MoE, without vocabulary."""
    bits_per_char: float | None
    """Loss at that rate in the study, interpolated [bits per character]; null outside the rates measured."""
    verdict: str
    """moe, dense or not_measured: which one wins at that rate in the study."""
    zhao2025_low: Annotated[float, SHARE]
    """Best rate by zhao2025 at the MoE's own N and C = 6*N_a*D."""
    zhao2025_high: Annotated[float, SHARE]
    """The same with the attention that li2025 counts."""
    unique_tokens: float
    """Unique data that both have [tokens]."""
    unique_basis: str
    """Where that number is from."""
    epochs: float
    """tokens / unique_tokens of the MoE."""
    dense_epochs: float
    """The same of the dense model."""
    reuse: dict[str, float]
    """Loss by epochs as li2025 measured it at 7B [bits per character]."""
    reuse_bits_per_char: float | None
    """The same at the MoE's epochs, interpolated; null beyond what was measured."""
    worth_share: Annotated[float, SHARE]
    """Share of the MoE's tokens that counts by muennighoff2023: D'/D at these epochs, fitted on dense models."""
    dense_worth_share: Annotated[float, SHARE]
    """The same of the dense model."""


@dataclass(frozen=True)
class Finding:
    """What a paper found when it compared MoE and dense models."""

    topic: str
    """data, knowledge, memory, quality, reasoning, speed or design."""
    text: str
    """The finding."""
    source: str
    """Where it stands."""


@dataclass(frozen=True)
class ComparisonSetting:
    """What the comparison was made under."""

    flops: float | None
    """Compute budget [FLOPs]; null where two models are compared."""
    memory: str | None
    """Memory limit of the served model; null if there is none."""
    usable_bytes: int | None
    """Memory of one device less the headroom [bytes]; null without a limit."""
    memory_devices: int
    """Devices that the memory limit is for."""
    tokens_available: Annotated[float | None, COUNT]
    """Unique training tokens; null if not limited."""
    seq_len: int
    """Sequence length that training FLOPs are counted at [tokens]."""
    context: int
    """Tokens of one served sequence."""
    concurrency: int
    """Served sequences at a time."""
    weight_dtype: str
    """Dtype of the served weights."""
    kv_dtype: str
    """Dtype of the KV cache."""
    device: str
    """The device that GPU time and decode speeds are for."""
    num_gpus: int | None
    """Training GPUs; null if not given."""
    optimizer: str
    """Scheme of weights, gradients and optimizer state in training."""
    laws: tuple[str, ...]
    """The laws that chose the MoE; empty where two models are compared."""
    weights: dict[str, float]
    """Their weights in its choice, by law; empty where all are equal."""


@dataclass(frozen=True)
class ComparisonProvenance:
    """What the comparison was made from."""

    version: str
    """moeplan's version."""
    command: str
    """The command line, or the Python call."""
    law_digests: dict[str, str]
    """Digest of every law file that was read (SHA-256, 16 hex digits)."""
    grid_digest: str
    """Digest of the declared grid that the MoE, or C_l, is from."""


@dataclass(frozen=True)
class Comparison(records.Record):
    """Models side by side: a recommended MoE and dense models, or any two."""

    schema: str
    """Version of this structure, moeplan.comparison/1."""
    regime: str
    """overview, compute, memory, loss, resources, or models for any two."""
    setting: ComparisonSetting
    """What it was made under."""
    models: tuple[Candidate, ...]
    """The models; the first is the one the others stand beside."""
    laws: tuple[LawColumn, ...]
    """The laws that speak, the leverage law first; two laws' answers are never averaged."""
    silent: tuple[SilentLaw, ...]
    """The laws that do not, with their reasons."""
    versus: tuple[Versus, ...]
    """The first model against each other one."""
    equal_loss: tuple[EqualLoss, ...]
    """Each law's own dense model that is as good as the MoE."""
    savings: tuple[Saving, ...]
    """What each law's own best MoE saves at this compute."""
    savings_spread: SavingsSpread | None
    """How far the laws' largest savings lie apart."""
    resources: EqualResources | None
    """The strict comparison; null in other regimes."""
    findings: tuple[Finding, ...]
    """What papers found."""
    notes: tuple[str, ...]
    """Caveats, in sentences."""
    provenance: ComparisonProvenance
    """What it was made from."""

    @classmethod
    def from_json(cls, data: Any) -> Comparison:
        """Read what `to_json` wrote; raises `UsageError` for another schema version or anything malformed."""
        found = data.get("schema") if isinstance(data, dict) else None
        if found != SCHEMA:
            raise UsageError(f"the comparison has schema {found!r}, this version of moeplan reads {SCHEMA}")
        return records.from_json(cls, data)

    def law(self, name: str) -> LawColumn:
        """The answers of the law called `name`; raises `UsageError` if it does not speak."""
        for column in self.laws:
            if column.law == name:
                return column
        raise UsageError(f"law {name!r} does not speak here; {', '.join(column.law for column in self.laws)} do")
