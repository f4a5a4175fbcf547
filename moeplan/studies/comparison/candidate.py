"""One model of a comparison with its costs: training time and memory, serving memory, decode speed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from moeplan.architecture.hybrid import HybridArchitecture
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import DEFAULT_DEVICE, Gpus, load_device
from moeplan.cost.inference_memory import kv_cache_bytes_per_token, total_inference_bytes
from moeplan.cost.serving.concurrency import decode_seconds, fits, serving_gpus
from moeplan.cost.serving.roofline import BATCHES, decode_point, devices_needed
from moeplan.cost.training.states import load_scheme
from moeplan.errors import InfeasibleError
from moeplan.estimates import Estimate
from moeplan.plan.budget import Budget
from moeplan.plan.law_selection import LawSelection
from moeplan.plan.layouts import least_bytes
from moeplan.plan.training_and_serving import training_run
from moeplan.plan.training_run import TrainingRun
from moeplan.quantities import BYTES, COUNT
from moeplan.studies.long_sequences import LongSequences, long_sequences
from moeplan.units import MemoryLimit

NO_LIMIT = MemoryLimit(2**62)
"""Stands for a memory limit where none is given."""
_MOST_DEVICES = 1024
_VECTORS = ("input_embedding", "output_head", "router", "norms")
"""Groups of params that an optimizer scheme may keep more state for."""


@dataclass(frozen=True)
class DecodeSpeed:
    """One decode step at best, by bytes over bandwidth and FLOPs over peak (`moeplan.cost.serving.roofline`)."""

    batch: int
    """Sequences, each with `context` tokens in the cache."""
    tokens_per_second: float
    """Most tokens a second of one device."""
    bound: str
    """The resource that takes the time: memory or compute."""
    fits: bool
    """Whether weights and caches of the batch fit the memory limit, headroom left free."""
    expected_tokens_per_second_per_user: float
    """Tokens a second of each user, expected (`moeplan.cost.serving.throughput`)."""
    expected_tokens_per_second_per_gpu: float
    """Tokens a second of one device, expected."""


@dataclass(frozen=True)
class Candidate:
    """One model of a comparison: an exact shape with its tokens, and what it costs."""

    name: str
    """Its name in this comparison."""
    role: str
    """recommended, compute_optimal, equal_total_params, equal_active_params, equal_loss or given."""
    says: str
    """How it was chosen, in a sentence."""
    architecture: Architecture | HybridArchitecture
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
    mfu: float | None
    """Share of the dense bf16 peak that training reaches; null where no layout trains it."""
    mfu_basis: str
    """Where that share is from, or why there is none."""
    gpu_hours: Estimate | None
    """Device-hours of training, pauses included, with an 80 % interval; null where no layout trains it."""
    days: Estimate | None
    """Days of training, pauses included; null without a number of devices."""
    money: Estimate | None
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
    """Devices that the decode speeds are for, the same for all models."""
    decode: tuple[DecodeSpeed, ...]
    """Decode speeds by batch."""
    long_sequences: LongSequences
    """Caches and decode speed at 8,192 and 131,072 tokens, and rows sent to experts."""


@dataclass(frozen=True)
class ComparisonSetting:
    """Budget, serving and hardware behind a comparison."""

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
    """The device that GPU time is for."""
    num_gpus: int | None
    """Training GPUs; null if not given."""
    serving_device: str
    """The device that decode speeds are for."""
    num_serving_devices: int
    """How many of them serve one copy of each model."""
    optimizer: str
    """Scheme of weights, gradients and optimizer state in training."""
    laws: tuple[str, ...]
    """The laws that chose the MoE; empty where two models are compared."""
    weights: dict[str, float]
    """Their weights in its choice, by law; empty where all are equal."""


def candidate(
    name: str,
    role: str,
    says: str,
    architecture: Architecture,
    tokens: float,
    budget: Budget,
    serving: Gpus,
    batch: int = 0,
) -> Candidate:
    """A model trained on `tokens`, under a budget's hardware, serving and optimizer.

    `serving` are the devices that decode speeds are for; `batch` [sequences] is that of the training layout; 0 asks for
    none.
    """
    tokens = math.floor(tokens)
    per_token = float(architecture.flops_per_token(budget.seq_len))
    run, basis = _run(architecture, tokens, budget)
    served = int(total_inference_bytes(architecture, budget.serving, budget.num_devices))
    return Candidate(
        name=name,
        role=role,
        says=says,
        architecture=architecture,
        is_dense=architecture.is_dense,
        total_params=architecture.total_params(),
        active_params=architecture.active_params(),
        tokens=tokens,
        tokens_per_param=tokens / architecture.active_params(),
        flops_per_token=per_token,
        train_flops=per_token * tokens,
        epochs=tokens / budget.tokens_available if math.isfinite(budget.tokens_available) else None,
        mfu=run.mfu if run else None,
        mfu_basis=basis,
        gpu_hours=run.gpu_hours if run else None,
        days=run.days if run else None,
        money=run.money if run else None,
        state_bytes=state_bytes(architecture, budget.optimizer),
        training_bytes_per_gpu=least_bytes(architecture, budget, batch) if budget.gpus and batch else None,
        serving_bytes=served,
        kv_bytes_per_token=int(kv_cache_bytes_per_token(architecture, budget.serving.kv_dtype)),
        fits_memory=served <= budget.usable_bytes if budget.memory else None,
        num_devices=serving.count,
        decode=_decode(architecture, budget, serving),
        long_sequences=long_sequences(architecture, budget.serving, serving),
    )


def _run(architecture: Architecture, tokens: int, budget: Budget) -> tuple[TrainingRun | None, str]:
    """The training run of a model and where its speed is from; none, and why, where nothing trains it."""
    try:
        run = training_run(architecture, tokens, 0.0, budget)
    except InfeasibleError as error:  # blocks whose training is not modelled
        return None, str(error)
    return (run, run.mfu_basis) if run.gpu_hours else (None, run.layout_note or run.mfu_basis)


def state_bytes(architecture: Architecture, optimizer: str) -> float:
    """Weights, gradients and optimizer state of one copy of a model under a scheme, in all [bytes]."""
    scheme = load_scheme(optimizer)
    groups = architecture.params_by_group()
    vectors = sum(params for name, params in groups.items() if name in _VECTORS)
    matrices = architecture.total_params() - vectors
    parts = (scheme.state_bytes(matrices, 1), scheme.state_bytes(vectors, 1, vector=True))
    return float(sum(size for part in parts for size in part.values()))


def serving_devices(shapes: Sequence[Architecture], budget: Budget) -> Gpus:
    """The devices that all models are served on: those of the memory limit, else as many as the largest needs."""
    device = budget.gpus.device if budget.gpus else None
    if budget.memory is not None and budget.memory != NO_LIMIT:
        return serving_gpus(budget.memory, device)
    device = device or load_device(DEFAULT_DEVICE)

    def needed(shape: Architecture) -> int:
        try:
            return devices_needed(shape, device, budget.serving, budget.headroom)
        except InfeasibleError:
            return _MOST_DEVICES

    return Gpus(max(map(needed, shapes)), device)


def _decode(architecture: Architecture, budget: Budget, serving: Gpus) -> tuple[DecodeSpeed, ...]:
    context = budget.serving.context
    limited = budget.memory not in (None, NO_LIMIT)
    usable = budget.usable_bytes if limited else serving.device.memory_bytes * (1 - budget.headroom)
    devices = budget.num_devices if limited else serving.count
    speeds = []
    for batch in BATCHES:
        settings = dataclasses.replace(budget.serving, concurrency=batch)
        bound = decode_point(architecture, serving.device, batch, context, settings, serving.count)
        seconds = decode_seconds(architecture, serving, context, batch, settings, usable * devices / serving.count)
        speeds.append(
            DecodeSpeed(
                batch,
                bound.tokens_per_second_per_gpu,
                bound.bound,
                fits(architecture, settings, devices, usable),
                1 / seconds,
                batch / seconds / serving.count,
            )
        )
    return tuple(speeds)


def setting(budget: Budget, serving: Gpus, laws: LawSelection | None = None) -> ComparisonSetting:
    """The setting of a comparison at a budget, with the devices that its models are served on."""
    return ComparisonSetting(
        flops=budget.flops,
        memory=str(budget.memory) if budget.memory else None,
        usable_bytes=budget.usable_bytes if budget.memory else None,
        memory_devices=budget.num_devices,
        tokens_available=budget.tokens_available if math.isfinite(budget.tokens_available) else None,
        seq_len=budget.seq_len,
        context=budget.serving.context,
        concurrency=budget.serving.concurrency,
        weight_dtype=budget.serving.weight_dtype,
        kv_dtype=budget.serving.kv_dtype,
        device=(budget.gpus.device if budget.gpus else load_device(DEFAULT_DEVICE)).name,
        num_gpus=budget.gpus.count if budget.gpus else None,
        serving_device=serving.device.name,
        num_serving_devices=serving.count,
        optimizer=budget.optimizer,
        laws=tuple(law.source for law in laws.objective) if laws else (),
        weights=laws.weights if laws else {},
    )
