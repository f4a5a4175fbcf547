"""Bounds on serving: the decode roofline of a batch, and the FLOPs of a prompt.

One decode step of a batch of B sequences reads every weight that some token needs and every cached token, and computes:

    seconds = max(bytes read / bandwidth, FLOPs / peak)

each shared evenly by n equal devices, which no way of splitting the model beats. Of E routed experts a layer, B tokens
that choose k each at random reach E*(1 - (1 - k/E)^B). Nothing else is counted (no exchange between devices, no
scheduling), so that speeds are upper bounds (Williams et al., Roofline, doi 10.1145/1498765.1498785).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from moeplan.architecture import counting
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import HEADROOM, Device
from moeplan.cost.inference_memory import InferenceSettings, inference_bytes, total_inference_bytes
from moeplan.errors import InfeasibleError, UsageError
from moeplan.records import Word
from moeplan.units import format_decimal_bytes

BATCHES = (1, 8, 64)
"""Batches that an estimate shows unless told otherwise."""
CONTEXTS = (1024, 8192, 32768)
"""Tokens in the cache of each sequence that an estimate shows unless told otherwise."""
_MOST_DEVICES = 1024


@dataclass(frozen=True)
class DecodePoint:
    """One decode step: a token for each sequence of a batch."""

    batch: int
    """Sequences."""
    context: int
    """Tokens in the cache of each."""
    experts_hit: float
    """Routed experts of a layer that some token of the batch reaches, on average."""
    weight_bytes: float
    """Weights that each device reads [bytes]."""
    kv_bytes: float
    """Cached keys, values or latents that each device reads where sequences are spread evenly, the least of any split
    [bytes]; where matrices are split over more devices than KV heads, each holds a copy of one and reads more."""
    flops: float
    """What each device computes [FLOPs]."""
    seconds: float
    """Least time of the step [s]."""
    bound: Word
    """What takes that time: "memory" or "compute"."""
    tokens_per_second_per_gpu: float
    """Most tokens a second of one device."""
    fits: bool
    """Whether weights and caches of the batch fit the fullest device (`memory.inference_bytes`, replicas counted)."""


@dataclass(frozen=True)
class ServingEstimate:
    """Decode steps over batches and contexts, and prompts, on a number of equal devices."""

    device: Device
    """The device."""
    num_devices: int
    """How many serve one copy of the model."""
    settings: InferenceSettings
    """How weights and cache are stored."""
    points: tuple[DecodePoint, ...]
    """One for each batch and context."""
    prefill_flops: dict[int, float]
    """FLOPs of a prompt by its tokens."""
    prefill_seconds: dict[int, float]
    """Least time of a prompt on all devices by its tokens [s]."""


def experts_hit(architecture: Architecture, batch: float) -> float:
    """Routed experts of a layer that `batch` tokens reach, routed evenly and independently: E*(1 - (1 - k/E)^B)."""
    e = architecture.num_experts
    if not e:
        return 0.0
    return float(e * (1 - (1 - architecture.num_active_experts / e) ** batch))


def decode_flops(architecture: Architecture, context: int) -> float:
    """FLOPs of one token of decode: 2*active params without input embedding + attention to `context` cached tokens.

    Attention is the sum over blocks of `Attention.decode_flops`.
    """
    a = architecture
    linear = 2 * (a.active_params() - a.embedding_params + a.vocab_size * a.d_model)
    scores = sum(layers * attention.decode_flops(context) for layers, attention in counting.attentions(a))
    return float(linear + scores)


def prefill_flops(architecture: Architecture, prompt: int) -> float:
    """FLOPs of a prompt of `prompt` tokens: 2*(active params without embeddings) each, causal attention, logits once.

    Attention is the sum over blocks of `Attention.prefill_flops`.
    """
    a = architecture
    linear = 2 * (a.active_params() - a.embedding_params) * prompt
    scores = sum(layers * attention.prefill_flops(prompt) for layers, attention in counting.attentions(a))
    return float(linear + scores + 2 * a.vocab_size * a.d_model)


def fewest_devices(
    architecture: Architecture, settings: InferenceSettings, usable: float, first: int = 1, most: int = _MOST_DEVICES
) -> int | None:
    """The fewest of `first`, twice, four times ... so many devices, up to `most`, that hold the model and its cache in
    `usable` bytes each; None if none does."""
    n = first
    while n <= most:
        if total_inference_bytes(architecture, settings, n) <= usable:
            return n
        n *= 2
    return None


def devices_needed(
    architecture: Architecture, device: Device, settings: InferenceSettings | None = None, headroom: float = HEADROOM
) -> int:
    """The smallest power of two of devices that hold the model and its cache; raises `InfeasibleError` beyond 1024."""
    settings = settings or InferenceSettings()
    usable = device.memory_bytes * (1 - headroom)
    found = fewest_devices(architecture, settings, usable)
    if found is not None:
        return found
    needed = total_inference_bytes(architecture, settings, _MOST_DEVICES)
    raise InfeasibleError(
        f"each of {_MOST_DEVICES} {device.name} needs {format_decimal_bytes(needed)} and "
        f"{format_decimal_bytes(usable)} are usable; lower context or concurrency"
    )


def decode_point(
    architecture: Architecture,
    device: Device,
    batch: int,
    context: int,
    settings: InferenceSettings | None = None,
    num_devices: int = 1,
) -> DecodePoint:
    """One decode step of `batch` sequences with `context` cached tokens each, by the module's roofline.

    `settings` gives the dtypes; fp8 weights compute at the device's fp8 peak where it has one.
    """
    settings = dataclasses.replace(settings or InferenceSettings(), context=context, concurrency=batch)
    fits = total_inference_bytes(architecture, settings, num_devices) <= device.memory_bytes
    stored = inference_bytes(architecture, settings)
    kv = float(stored.pop("kv_cache")) / num_devices
    hit = experts_hit(architecture, batch)
    if architecture.num_experts:
        stored["routed_experts"] *= hit / architecture.num_experts
    # Of the input embedding a step reads one row a token; a tied one is read whole as the output head.
    if not architecture.tied_embeddings:
        stored["input_embedding"] = 2 * batch * architecture.d_model
    weights = float(sum(stored.values())) / num_devices
    flops = batch * decode_flops(architecture, context) / num_devices
    peak = _peak(device, settings)
    by_memory, by_compute = (weights + kv) / device.bandwidth, flops / peak
    seconds = max(by_memory, by_compute)
    return DecodePoint(
        batch,
        context,
        hit,
        weights,
        kv,
        flops,
        seconds,
        "memory" if by_memory >= by_compute else "compute",
        batch / seconds / num_devices,
        fits,
    )


def _peak(device: Device, settings: InferenceSettings) -> float:
    if settings.weight_dtype == "fp8" and device.fp8_flops is not None:
        return device.fp8_flops
    return device.bf16_flops


def serving_estimate(
    architecture: Architecture,
    device: Device,
    settings: InferenceSettings | None = None,
    *,
    num_devices: int | None = None,
    batches: Iterable[int] = BATCHES,
    contexts: Iterable[int] = CONTEXTS,
) -> ServingEstimate:
    """Decode at every batch and context, and the prompt of each context.

    `num_devices` None takes the fewest that hold the model with the settings' own context and concurrency. Raises
    `UsageError` for a batch or context below 1.
    """
    settings = settings or InferenceSettings()
    batches, contexts = tuple(batches), tuple(contexts)
    for name, values in (("batch", batches), ("context", contexts)):
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} {value!r} must be a whole number of at least 1")
    n = num_devices if num_devices is not None else devices_needed(architecture, device, settings)
    points = tuple(decode_point(architecture, device, b, c, settings, n) for b in batches for c in contexts)
    flops = {context: prefill_flops(architecture, context) for context in contexts}
    peak = n * _peak(device, settings)
    return ServingEstimate(device, n, settings, points, flops, {c: x / peak for c, x in flops.items()})
