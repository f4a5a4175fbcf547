"""The answer: `Plan`, frozen and typed, the same in Python, JSON and every report.

`Plan.to_json()` and `Plan.from_json(data)` are inverses; `plan_schema()` is the JSON Schema, every field explained.
Params and memory are exact counts of the exact architecture; compute is in FLOPs, memory in bytes, loss in nats/token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from moeplan import records
from moeplan.architecture.hybrid import HybridArchitecture
from moeplan.architecture.shape import Architecture
from moeplan.errors import UsageError
from moeplan.files import read_json
from moeplan.laws.hyperparameters import HyperParameters
from moeplan.laws.law import Outside
from moeplan.laws.leverage import Leverage
from moeplan.notebook import Searched
from moeplan.plan.goal import Goal
from moeplan.plan.life import IfServed, Life
from moeplan.plan.search.variables import Design
from moeplan.plan.serving_run import ServingUse
from moeplan.plan.training_run import DesignTime, TrainingRun
from moeplan.plan.uncertainty.result import PlanUncertainty
from moeplan.quantities import BY_KEY, BY_VARIABLE, BYTES, COUNT, FLOPS, NUMBER, SHARE
from moeplan.records import Digest, Line, Version, Word

SCHEMA = "moeplan.plan/2"


@dataclass(frozen=True)
class Request:
    """The question that a plan answers: budget, limits and fixed values, as resolved."""

    flops: float
    """Compute budget [FLOPs]."""
    memory: Line | None
    """Memory limit of the served model, as in 80GB or 8x80GB; null if there is none."""
    laws: tuple[Line, ...]
    """The laws whose geometric mean was maximised."""
    weights: Annotated[dict[Line, float], NUMBER]
    """Their weights in it, by law; empty where all are equal."""
    vocab_size: int
    """Rows of the embedding."""
    tied_embeddings: bool
    """Whether the output head is the embedding."""
    seq_len: int
    """Training sequence length [tokens]."""
    attention: Word
    """Attention: a kind, or a pattern of two."""
    latent: int
    """How many times narrower than the model its routed experts are inside; 1 where they are as wide."""
    weight_dtype: Word
    """Dtype of the served weights."""
    kv_dtype: Word
    """Dtype of the KV cache."""
    context: int
    """Tokens of one served sequence."""
    concurrency: int
    """Served sequences at a time."""
    headroom: Annotated[float, SHARE]
    """Share of the memory kept free."""
    fix: Annotated[dict[Word, float], BY_KEY]
    """Design variables that were fixed."""
    ranges: Annotated[dict[Word, tuple[float, ...]], BY_KEY]
    """Design variables that were bounded: least and largest value."""
    tokens_available: Annotated[float | None, COUNT]
    """Unique training tokens; null if not limited."""
    max_epochs: float
    """Most repeats of them."""
    max_tokens: float
    """Most training tokens."""
    inference_tokens: float
    """Tokens served over the lifetime, paid out of the budget."""
    served: Annotated[float, COUNT]
    """Tokens served over the lifetime, on serve_gpus; 0 for none."""
    serve_gpus: Line | None
    """Devices that hold one copy of the served model, as in 8xH100; null if not given."""
    prompt_tokens: int
    """Tokens of a served prompt."""
    answer_tokens: int
    """Tokens of its answer."""
    tokens_per_second_per_user: float
    """Least speed of an answer [tokens/s]; 0 if none was asked."""
    serve_price_per_gpu_hour: float | None
    """Price of an hour of a serving device; null if not given."""
    gpus: Line | None
    """Devices to train on, as in 256xH100; null if not given."""
    days: float
    """Days on them that are the budget; 0 if it was given in FLOPs. With them, `flops` is what the design trains."""
    mfu: float
    """Share of the dense bf16 peak that was given; 0 if not."""
    goodput: Annotated[float, SHARE]
    """Share of the days that trains."""
    optimise: Word
    """What designs were compared at equal amounts of: flops, time or money."""
    train_precision: Word
    """Of matrix products in training."""
    software: Line
    """Preset of the training software."""
    layout: Line
    """What of the training layout was given; "" if nothing."""
    batch: int
    """Most sequences of a training step that were given; 0 if not."""
    multiple_of: Annotated[dict[Word, int], BY_KEY]
    """Sizes of the design that had to be multiples."""
    measured: tuple[Line, ...]
    """Runs measured at the site, or files of them, that were given."""
    price_per_gpu_hour: float | None
    """Price of a device-hour; null if not given."""
    memory_for: tuple[Word, ...]
    """Uses whose memory must fit: inference, training or both."""
    optimizer: Word
    """Scheme of weights, gradients and optimizer state in training."""
    alternatives: int
    """Other designs asked for."""
    choose: Word
    """The rule that the design was chosen by: best, lean, rich or robust."""
    hyperparameters: Line
    """The law whose learning rate and batch are taken: the plan's first."""


@dataclass(frozen=True)
class Counts:
    """Exact counts of the architecture."""

    total_params: dict[Line, int]
    """N [params] under the three conventions."""
    active_params: dict[Line, int]
    """N_a [params] under the three conventions."""
    params_by_group: Annotated[dict[Line, int], COUNT]
    """Params by group; they add up to total_params with embeddings."""
    flops_per_token: float
    """Training FLOPs per token: 6*(active params without input embedding) + causal attention, forward + backward."""
    flops_per_token_tian2025: Annotated[float, FLOPS]
    """The same as the leverage law counts: non-embedding params, full attention, no logits."""
    train_flops: float
    """flops_per_token * tokens [FLOPs]."""


@dataclass(frozen=True)
class MemoryUse:
    """Inference memory of the exact architecture on the fullest device."""

    by_group: Annotated[dict[Line, int], BYTES]
    """Bytes by group of params, and of the KV cache."""
    total_bytes: int
    """Their sum [bytes]."""
    usable_bytes: int | None
    """Memory of one device less the headroom [bytes]; null without a limit."""
    limit_bytes: int | None
    """Memory of one device [bytes]; null without a limit."""
    num_devices: int
    """Devices the model is spread over."""


@dataclass(frozen=True)
class Band:
    """Values of one variable among near-optimal designs, everything else re-optimised."""

    variable: Word
    """The design variable."""
    value: Annotated[float, BY_VARIABLE]
    """Its value in the plan."""
    low_1: Annotated[float, BY_VARIABLE]
    """Least value within 1 % of the best V."""
    high_1: Annotated[float, BY_VARIABLE]
    """Largest value within 1 % of the best V."""
    low_5: Annotated[float, BY_VARIABLE]
    """Least value within 5 % of the best V."""
    high_5: Annotated[float, BY_VARIABLE]
    """Largest value within 5 % of the best V."""


@dataclass(frozen=True)
class Price:
    """Worth of 10 % more memory or compute."""

    resource: Line
    """memory or compute."""
    factor: float
    """How much more of it."""
    value_ratio: Annotated[float, NUMBER]
    """Best V with it / best V without: the compute multiple it is worth."""
    by_law: dict[Line, float]
    """The same for each chosen law alone."""
    efficiency_leverage: float
    """EL of the best design with it; not the objective, it may fall."""


@dataclass(frozen=True)
class LawOpinion:
    """One law's view of the plan."""

    law: Line
    """The law."""
    grade: Word
    """How sure its digits are."""
    role: Line
    """objective, or second opinion."""
    optimum: Design | None
    """The law's own best design under the same limits; null if it cannot choose one."""
    efficiency: Annotated[float | None, SHARE]
    """C_l of the plan / C_l of the law's own optimum under the same limits."""
    regret_flops: float | None
    """C_l of the law's own optimum less C_l of the plan [FLOPs]."""
    outside: tuple[Outside, ...]
    """Where the plan leaves the law's domain."""
    has_domain: bool
    """Whether the law file gives a domain; without one nothing is known to be inside."""
    without: Design | None
    """Where the optimum goes if this law is left out; null for second opinions and single laws."""
    says: Line
    """The law's statement in words, where it cannot judge a design."""


@dataclass(frozen=True)
class NearEqual:
    """A design that stands beside the best one by a rule of its own (`moeplan.plan.near_equal`)."""

    rule: Line
    """best, lean, rich, robust, or without a law of which a term has turned its sign."""
    design: Design
    """The design."""
    value_share: Annotated[float, SHARE]
    """V / the best V: what is left of it."""
    worst_efficiency: Annotated[float, SHARE]
    """C_l / C_l of the law's own optimum under the same limits, by the objective law where that is least."""
    worst_law: Line
    """That law."""
    time: DesignTime | None
    """Its training time beside the plan's; null without GPUs."""


@dataclass(frozen=True)
class IfConcurrent:
    """The best design for the same limits if more users were served at a time (`moeplan.plan.if_concurrent`)."""

    concurrency: int
    """Sequences that are served at a time."""
    total_params: int
    """Params, embeddings included."""
    active_params: int
    """Params a token passes through, embeddings included."""
    tokens: int
    """Training tokens."""
    value_ratio: Annotated[float, SHARE]
    """Its V over the best V of the plan's own question."""


@dataclass(frozen=True)
class Provenance:
    """Version, command and digests behind a plan."""

    version: Version
    """moeplan's version."""
    command: Line
    """The command line, or the Python call."""
    law_digests: dict[Line, Digest]
    """Digest of every law file that was read (SHA-256, 16 hex digits)."""
    grid_digest: Digest
    """Digest of the declared grid."""
    num_designs: int
    """Designs on the grid."""
    num_feasible: int
    """Designs that meet every condition; on GPUs, that a layout trains them is asked of those near the best alone."""


@dataclass(frozen=True)
class Plan(records.Record, Searched):
    """An exact Mixture-of-Experts model for a budget, with everything said about it."""

    schema: Line
    """Version of this structure, moeplan.plan/2."""
    request: Request
    """The question."""
    design: Design
    """The design in numbers."""
    architecture: Architecture | HybridArchitecture
    """The exact integer shape."""
    counts: Counts
    """Exact counts."""
    memory: MemoryUse
    """Inference memory."""
    leverage: Leverage
    """Predicted Efficiency Leverage."""
    hyperparameters: tuple[HyperParameters, ...]
    """Learning rate and batch, by law."""
    training: TrainingRun
    """GPU time and layouts."""
    serving: ServingUse
    """Users served at a time, decode and prompt speeds."""
    life: Life | None
    """What training and serving take out of the budget; null if nothing is served out of it."""
    if_served: IfServed | None
    """The best design if the budget also had to serve; null if it has to, or nothing can be served."""
    if_concurrent: IfConcurrent | None
    """The best design if 64 users were served at a time; null if the plan has room for them, or no design has."""
    value_ratio: float
    """V/C: what the constraints leave of the budget."""
    best_value: Annotated[float, FLOPS]
    """The largest V on the grid [FLOPs]; the plan may lie up to .5 % below, where ties are broken, or further where
    another rule than the best V chose it."""
    binding: tuple[Line, ...]
    """The constraints that hold the plan back: compute, memory, tokens, or an edge of the grid."""
    prices: tuple[Price, ...]
    """Worth of 10 % more memory or compute."""
    bands: tuple[Band, ...]
    """Near-optimal values of every variable."""
    designs_within_1: int
    """Designs within 1 % of the best V."""
    designs_within_5: int
    """Designs within 5 % of the best V."""
    laws: tuple[LawOpinion, ...]
    """Every law's view."""
    near_equal: tuple[NearEqual, ...]
    """The best design and those that other rules choose."""
    alternatives: tuple[Design, ...]
    """The next best designs that differ markedly."""
    alternative_times: tuple[DesignTime, ...]
    """Their training times beside the plan's, one each; empty without GPUs."""
    notes: tuple[Line, ...]
    """Extrapolation and caveats, in sentences."""
    goal: Goal | None
    """The target that the budget was found for; null where the budget was given."""
    spread: PlanUncertainty | None
    """Intervals from what the runs behind fitted laws leave open; null where no chosen law gives a covariance."""
    provenance: Provenance
    """Version, command and digests behind it."""

    @classmethod
    def from_json(cls, data: Any) -> Plan:
        """Read what `to_json` wrote; raises `UsageError` for another schema version or anything malformed."""
        if not isinstance(data, Mapping) or "schema" not in data:
            raise UsageError("this is no plan: it lacks the key 'schema'")
        if data["schema"] != SCHEMA:
            raise UsageError(
                f"the plan has schema {data['schema']!r}, this version of moeplan reads {SCHEMA}; "
                f"make a new one with {_command_of(data)}"
            )
        return records.from_json(cls, data)


def _command_of(data: Mapping[str, Any]) -> str:
    """The command that a plan of another version says it was made by, or how to make any."""
    try:
        command = str(data["provenance"]["command"])
    except (KeyError, TypeError):
        command = ""
    # It stands in a file that nobody has checked, and someone may paste it: plain words alone, and no file to write.
    command = re.sub(r" --(?:output|html|plot)[ =]\S+", "", command)
    plain = re.fullmatch(r"moeplan recommend(?: [\w.,:=/+@%~-]+)+", command)
    return f"{command if plain else 'moeplan recommend --flops FLOPS --memory SIZE'} --output PLAN.json"


def read_plan(path: str | Path) -> Plan:
    """Read a plan file; raises `UsageError` naming the file for anything that is not one."""
    return plan_from(read_json(path, instead=", so no plan file; make one with --output"), path)


def plan_from(data: Any, path: str | Path) -> Plan:
    """`read_plan` of JSON that was read from `path` already."""
    try:
        return Plan.from_json(data)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def plan_schema() -> dict[str, Any]:
    """The JSON Schema of a plan file."""
    return records.json_schema(Plan, SCHEMA)
