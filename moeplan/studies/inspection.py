"""The facts of an existing model: `inspect("config.json")`, `inspect("plan.json")`, `inspect("deepseek-v3")`.

Counts, ratios, FLOPs and memory need the file alone. With training tokens (or compute) the laws speak too: Efficiency
Leverage, efficiency against each law's own optimum at that compute and memory, and what `moeplan recommend` would have
chosen there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeplan import records
from moeplan.architecture import counting
from moeplan.architecture.conventions import CONVENTIONS
from moeplan.architecture.hf.safetensors import has_weights
from moeplan.architecture.hybrid import HybridArchitecture
from moeplan.architecture.published import Publication
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import HEADROOM, Device, Gpus
from moeplan.cost.inference_memory import (
    InferenceSettings,
    inference_bytes,
    kv_cache_bytes_per_token,
    state_bytes,
)
from moeplan.cost.serving.concurrency import fits, serving_gpus
from moeplan.errors import UsageError
from moeplan.plan.budget_fields import SERVING
from moeplan.plan.existing import read_model
from moeplan.studies.law_evaluation import LawEvaluation, evaluate_laws
from moeplan.studies.long_sequences import LENGTHS, LongSequences, long_sequences
from moeplan.studies.serving_fit import ServingFit, serving_fit
from moeplan.studies.stored_weights import StoredWeights, stored_weights
from moeplan.studies.training_fit import TrainingFit, TrainingRequest, training_fit, training_request
from moeplan.units import MemoryLimit, parse_count, parse_flops, parse_memory

SCHEMA = "moeplan.inspection/1"


@dataclass(frozen=True)
class ExpertRatios:
    """Ratios of a model's experts, which need no count of attention."""

    num_layers: int
    """Blocks."""
    num_moe_layers: int
    """Blocks with experts."""
    d_model: int
    """Width of the residual stream [features]."""
    num_experts: int
    """Routed experts a MoE layer; 0 for a dense model."""
    num_active_experts: int
    """Routed experts a token reaches."""
    num_shared_experts: int
    """Shared experts a MoE layer."""
    d_expert: int
    """Width of one expert [features]."""
    d_shared_expert: int
    """Width of one shared expert [features]."""
    activation_ratio: float
    """A = num_active_experts/num_experts, routed only."""
    G: int
    """Active experts per token including shared ones."""
    shared_ratio: float
    """S = shared/(active + shared) experts."""
    granularity: float
    """2*d_model/d_expert."""
    expansion_ratio: float
    """Total expert width / active expert width, shared included."""


@dataclass(frozen=True)
class ServedMemory:
    """Memory that serving a model takes on one device."""

    weight_dtype: str
    """Dtype of the weights."""
    kv_dtype: str
    """Dtype of the KV cache."""
    context: int
    """Tokens of one sequence."""
    concurrency: int
    """Sequences at a time."""
    by_group: dict[str, int]
    """Bytes by group of params, and of the KV cache."""
    weight_bytes: int
    """Bytes of all weights."""
    kv_bytes_per_token: int
    """Bytes of the KV cache for one token, in blocks without a window."""
    state_bytes: int
    """Bytes that one sequence keeps however long it is: states of linear attention and state spaces."""
    total_bytes: int
    """Weights and full KV cache [bytes]."""


@dataclass(frozen=True)
class Inspection(records.Record):
    """An existing model in numbers. Where something is not counted, what depends on it is null."""

    schema: str
    """Version of this structure, moeplan.inspection/1."""
    name: str
    """The file, or the model's name."""
    kind: str
    """config, plan or published."""
    model_type: str
    """The model_type of its configuration; "" if none."""
    architecture: Architecture | HybridArchitecture | None
    """The exact integer shape; null where the model has more than it expresses."""
    shape: ExpertRatios
    """Its experts in ratios."""
    not_counted: tuple[str, ...]
    """Parts that are not counted; with parts of the language model among it there is no total."""
    assumptions: tuple[str, ...]
    """Points that the file leaves open, and how they were read."""
    at_least_params: int | None
    """Where there is no total: the params of the groups that are counted, embeddings included; null otherwise."""
    total_params: dict[str, int] | None
    """N [params] under the three conventions."""
    active_params: dict[str, int] | None
    """N_a [params] under the three conventions."""
    params_by_group: dict[str, int]
    """Params by group, those that are counted."""
    active_param_ratio: float | None
    """N_a/N."""
    mtp_layers: int
    """Multi-token-prediction layers, in no total."""
    mtp_params: int | None
    """Their params."""
    seq_len: int
    """Sequence length that FLOPs are counted at [tokens]."""
    flops_per_token: float | None
    """Training FLOPs per token: 6*(active params without input embedding) + causal attention, forward + backward."""
    flops_per_token_tian2025: float | None
    """The same as the leverage law counts: non-embedding params, full attention, no logits."""
    memory: ServedMemory | None
    """Inference memory on one device."""
    long_sequences: LongSequences | None
    """Caches and decode speed at 8,192 and 131,072 tokens, and rows sent to experts."""
    publication: Publication | None
    """Its makers' figures, for a bundled model."""
    planned_tokens: float | None
    """Training tokens of a plan or as published; what --tokens would be."""
    training: TrainingFit | None
    """Layouts, memory and time of training it on given GPUs; null without them."""
    serving: ServingFit | None
    """Whether and how it can be served in a given memory; null without one."""
    judgement: LawEvaluation | None
    """The laws evaluated at it; null without tokens or compute."""
    stored: StoredWeights | None
    """What the weight files of its folder hold; null without them."""


def inspect(
    source: str | Path,
    *,
    tokens: str | float | None = None,
    flops: str | float | None = None,
    seq_len: int | None = None,
    serving: InferenceSettings | None = None,
    memory: str | MemoryLimit | None = None,
    training: TrainingRequest | None = None,
    threads: int = 1,
    progress: Callable[[str], None] | None = None,
    **words: Any,
) -> Inspection:
    """Count a model, and with `tokens` or `flops` evaluate the laws at it.

    Parameters
    ----------
    source : str or Path
        A `config.json`, its folder, a plan file, or the name of a bundled model.
    tokens, flops : str or float, optional
        Training tokens ("15T"), or training compute [FLOPs] ("3e24"); not both.
    seq_len : int, optional
        Sequence length that FLOPs are counted at [tokens]; default 4096, or the plan's.
    serving : InferenceSettings, optional
        How the model is served; without it, or a `weight_dtype`, weights are stored as the file's quantization_config
        says, where it says so.
    memory : str or MemoryLimit, optional
        Memory that the model is to be served in, with 10 % headroom; also the limit of the laws' comparison, which by
        default is exactly what the model itself needs.
    training : TrainingRequest, optional
        GPUs to train it on, with layout, batch and precision. Decode speeds are then of that device, else of one that
        has the memory.
    threads : int
        Threads to search with.
    progress : callable, optional
        Called with a few words before each step.
    **words
        What `serving` and `training` hold, by itself, as on the command line: weight_dtype, kv_dtype, context and
        concurrency; gpus, layout, batch, train_precision, software, optimizer and balanced.

    Raises
    ------
    UsageError
        For a file that is no model config, and for laws' questions about a model that is not fully counted.
    """
    subject = read_model(source)
    seq_len = subject.seq_len if seq_len is None else seq_len
    if isinstance(seq_len, bool) or not isinstance(seq_len, int) or not 1 <= seq_len <= 2**24:
        raise UsageError(f"seq_len {seq_len!r} must be a whole number from 1 to {2**24}")
    served = {name: words.pop(name) for name in SERVING if words.get(name) is not None}
    own_weights = serving is None and "weight_dtype" not in served
    serving = dataclasses.replace(serving or InferenceSettings(), **served)
    training = training or training_request(**{name: value for name, value in words.items() if name not in SERVING})
    device = training.gpus.device if training else None
    if own_weights and subject.weight_dtype is not None:
        serving = dataclasses.replace(serving, weight_dtype=subject.weight_dtype)
    shape = subject.architecture
    unknown = {group for gap in subject.gaps for group in gap.groups}
    complete = not unknown
    judgement, count = None, None
    limit = parse_memory(memory) if memory is not None else None
    if (limit is not None or training is not None) and not complete:
        raise UsageError(
            f"{subject.name}: its memory is not known: not counted are {'; '.join(gap.what for gap in subject.gaps)}"
        )
    if tokens is not None or flops is not None:
        if tokens is not None and flops is not None:
            raise UsageError("--tokens and --flops exclude each other; give one")
        if not complete:
            raise UsageError(
                f"{subject.name}: its FLOPs are not known, so no law can judge it: not counted are "
                f"{'; '.join(gap.what for gap in subject.gaps)}"
            )
        per_token = float(shape.flops_per_token(seq_len))
        count = parse_count(tokens, "tokens") if tokens is not None else parse_flops(flops or 0) / per_token
        judgement = evaluate_laws(
            shape, count, seq_len=seq_len, serving=serving, memory=limit, threads=threads, progress=progress
        )
    groups = shape.params_by_group()
    full = float(counting.flops_per_token(shape, seq_len, attention="full", logits=False))
    return Inspection(
        schema=SCHEMA,
        name=subject.name,
        kind=subject.kind,
        model_type=subject.model_type,
        architecture=shape if complete else None,
        shape=_shape(shape),
        not_counted=tuple(gap.what for gap in subject.gaps),
        assumptions=subject.assumptions,
        at_least_params=None if complete else sum(n for name, n in groups.items() if name not in unknown),
        total_params={name: shape.total_params(name) for name in CONVENTIONS["total_params"]} if complete else None,  # type: ignore[arg-type]
        active_params={name: shape.active_params(name) for name in CONVENTIONS["active_params"]} if complete else None,  # type: ignore[arg-type]
        params_by_group={name: params for name, params in groups.items() if name not in unknown},
        active_param_ratio=shape.active_param_ratio if complete else None,
        mtp_layers=shape.num_mtp_layers,
        mtp_params=shape.mtp_params if complete and len(counting.attentions(shape)) == 1 else None,
        seq_len=seq_len,
        flops_per_token=float(shape.flops_per_token(seq_len)) if complete else None,
        flops_per_token_tian2025=full if complete else None,
        memory=served_memory(shape, serving) if complete else None,
        long_sequences=long_sequences(shape, serving, _served_on(shape, serving, limit, device)) if complete else None,
        publication=subject.publication,
        planned_tokens=subject.tokens,
        training=training_fit(shape, training, seq_len=seq_len, tokens=count or subject.tokens, plan=subject.plan)
        if training
        else None,
        serving=serving_fit(shape, limit, serving, device) if limit else None,
        judgement=judgement,
        stored=_stored(source),
    )


def _served_on(
    shape: Architecture, serving: InferenceSettings, limit: MemoryLimit | None, device: Device | None
) -> Gpus | Device | None:
    """What long sequences are served on: the GPUs of the memory limit, where they hold one, or as many such as do."""
    if limit is None:
        return device
    gpus = serving_gpus(limit, device)
    longest = dataclasses.replace(serving, context=LENGTHS[-1], concurrency=1)
    return gpus if fits(shape, longest, gpus.count, limit.bytes_per_device * (1 - HEADROOM)) else gpus.device


def _stored(source: str | Path) -> StoredWeights | None:
    """What the weight files of a folder hold, if it is one and has them."""
    path = Path(source)
    return stored_weights(path) if path.is_dir() and has_weights(path) else None


def _shape(a: Architecture) -> ExpertRatios:
    names = (f for f in ExpertRatios.__dataclass_fields__)
    return ExpertRatios(**{name: getattr(a, name) for name in names})


def served_memory(shape: Architecture, serving: InferenceSettings) -> ServedMemory:
    """Weights and KV cache of a model on one device."""
    groups = inference_bytes(shape, serving)
    total = sum(groups.values())
    return ServedMemory(
        weight_dtype=serving.weight_dtype,
        kv_dtype=serving.kv_dtype,
        context=serving.context,
        concurrency=serving.concurrency,
        by_group=groups,
        weight_bytes=total - groups["kv_cache"],
        kv_bytes_per_token=kv_cache_bytes_per_token(shape, serving.kv_dtype),
        state_bytes=state_bytes(shape),
        total_bytes=total,
    )
