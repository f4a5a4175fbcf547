"""What a design of attention and experts buys: caches and decode speed at two lengths, and rows sent to experts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from moeplan.architecture import counting
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import DEFAULT_DEVICE, HEADROOM, Device, Gpus, load_device
from moeplan.cost.inference_memory import InferenceSettings, cache_bytes
from moeplan.cost.serving.concurrency import decode_seconds
from moeplan.cost.serving.roofline import devices_needed
from moeplan.errors import InfeasibleError

LENGTHS = (8192, 131072)
"""Tokens of the sequences that designs are set side by side at."""
_BF16 = 2
_WAYS = 4
"""Times a token's rows travel: to the experts and back, forward and backward."""


@dataclass(frozen=True)
class SequenceCost:
    """One sequence of a length, served alone."""

    context: int
    """Its tokens."""
    cache_bytes: int
    """Its KV cache and states [bytes]."""
    tokens_per_second: float | None
    """Tokens a second that its user gets, expected; null where no number of devices holds it."""


@dataclass(frozen=True)
class LongSequences:
    """What sequences of 8,192 and of 131,072 tokens cost in serving, and a token's rows in training."""

    device: str
    """The device that speeds are for."""
    num_devices: int | None
    """How many of them serve one copy; null where no number of them holds the longest sequence."""
    sequences: tuple[SequenceCost, ...]
    """Each length."""
    expert_row_bytes: int | None
    """Bytes that a token's rows to experts and back are in training, all layers, forward and backward, in bf16, where
    each expert is sent its own: the traffic of expert parallelism; null for a dense model."""


def expert_row_bytes(shape: Architecture) -> int | None:
    """4 * MoE layers * active experts * the width that experts take in * 2 bytes [bytes a token]; None if dense."""
    if shape.is_dense:
        return None
    return _WAYS * _BF16 * shape.num_moe_layers * shape.num_active_experts * int(counting.expert_width(shape))


def long_sequences(shape: Architecture, serving: InferenceSettings, gpus: Gpus | Device | None = None) -> LongSequences:
    """The costs of one model, on devices that are given, or on as many of one device as hold the longest sequence."""
    longest = dataclasses.replace(serving, context=LENGTHS[-1], concurrency=1)
    if not isinstance(gpus, Gpus):
        device = gpus or load_device(DEFAULT_DEVICE)
        try:
            gpus = Gpus(devices_needed(shape, device, longest), device)
        except InfeasibleError:
            gpus = None
    else:
        device = gpus.device

    def cost(context: int) -> SequenceCost:
        settings = dataclasses.replace(longest, context=context)
        cached = int(cache_bytes(shape, context, serving.kv_dtype))
        if gpus is None:
            return SequenceCost(context, cached, None)
        usable = gpus.device.memory_bytes * (1 - HEADROOM)
        return SequenceCost(context, cached, 1 / decode_seconds(shape, gpus, context, 1, settings, usable))

    costs = tuple(map(cost, LENGTHS))
    return LongSequences(device.name, gpus.count if gpus else None, costs, expert_row_bytes(shape))
