"""How many sequences of a context a memory limit holds, on which devices, and how fast each is decoded.

What fits is asked of the memory limit alone: weights and caches on its fullest device, replicas included, within what
its headroom leaves (`moeplan.cost.inference_memory`), with the model split by tensors, or with sequences held apart.
Speeds are for a number of devices that hold that memory.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from dataclasses import dataclass

from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import Device, Gpus, load_device
from moeplan.cost.inference_memory import MOST_CACHED_TOKENS, InferenceSettings, inference_bytes, total_inference_bytes
from moeplan.cost.serving.settings import spread
from moeplan.cost.serving.throughput import SPLITS, Load, serving_step
from moeplan.units import MemoryLimit

MOST_SEQUENCES = 2**20
"""No more sequences than this are counted."""
_BY_MEMORY = ("H100", "H200", "B200", "B300")
"""Devices that a memory limit is taken to be of where none is named: the first that has so much memory."""
_SLACK = 0.08
"""How much larger a stated memory may be than a device's: 80GiB are 85.9GB."""
_Z80 = 1.2815515655446004
"""Standard deviations on either side that hold 80 % of a normal distribution."""


@dataclass(frozen=True)
class Concurrency:
    """Sequences of one context that are served at a time, and their speed as it is to be expected."""

    context: int
    """Tokens in the cache of each sequence."""
    most_sequences: int
    """Most sequences whose caches fit beside the weights; 0 if not even one does."""
    tokens_per_second_per_user: float | None
    """With as many sequences as fit: tokens a second of each user; null if none fits."""
    tokens_per_second_per_user_alone: float | None
    """With a single user; null if none fits."""
    tokens_per_second_per_gpu: float | None
    """With as many sequences as fit: tokens a second of each GPU; null if none fits."""
    interval_factor: float
    """80 % interval of these speeds: each divided and multiplied by this."""


def serving_gpus(memory: MemoryLimit, device: Device | None = None) -> Gpus:
    """The devices whose speed stands for a memory limit, all of them alike.

    "8x80GB" are 8 of `device`; one size that no single device has takes the fewest, a power of two, that hold it.
    Without a `device` it is the first of `_BY_MEMORY` that has the memory, else the first of these.
    """
    known = [load_device(name) for name in _BY_MEMORY]
    fitting = (each for each in known if memory.bytes_per_device <= each.memory_bytes * (1 + _SLACK))
    device = device or next(fitting, known[0])
    if memory.num_devices > 1 or memory.bytes_per_device <= device.memory_bytes * (1 + _SLACK):
        return Gpus(memory.num_devices, device)
    return Gpus(2 ** math.ceil(math.log2(memory.bytes_per_device / device.memory_bytes)), device)


def fits(shape: Architecture, settings: InferenceSettings, num_devices: int, usable_bytes: float) -> bool:
    """Whether weights and caches fit the fullest of `num_devices` of `usable_bytes` each, split either way."""
    if total_inference_bytes(shape, settings, num_devices) <= usable_bytes:
        return True
    return settings.concurrency <= _held_apart(shape, settings, num_devices, usable_bytes)


def most_sequences(shape: Architecture, settings: InferenceSettings, num_devices: int, usable_bytes: float) -> int:
    """Most sequences of `settings.context` tokens that fit, split either way; 0 if one does not."""
    counts = range(1, min(MOST_SEQUENCES, MOST_CACHED_TOKENS // settings.context) + 1)

    def too_many(sequences: int) -> bool:
        own = dataclasses.replace(settings, concurrency=sequences)
        return bool(total_inference_bytes(shape, own, num_devices) > usable_bytes)

    # memory never falls with the number of sequences, so the first that is too many is found by bisection
    together = bisect.bisect_left(counts, True, key=too_many)
    return max(together, min(_held_apart(shape, settings, num_devices, usable_bytes), counts[-1]))


def _held_apart(shape: Architecture, settings: InferenceSettings, num_devices: int, usable_bytes: float) -> int:
    """Sequences that fit where each device holds its own, beside a copy of all weights but the routed experts.

    Latents of MLA, which tensor parallelism copies to every device, are so held once.
    """
    if num_devices == 1:
        return 0
    one = dataclasses.replace(settings, concurrency=1)
    groups = inference_bytes(shape, one)
    cache = groups.pop("kv_cache")
    experts = groups.pop("routed_experts")
    if shape.num_experts:
        experts = experts * -(-shape.num_experts // num_devices) / shape.num_experts
    return max(0, int((usable_bytes - sum(groups.values()) - experts) // cache)) * num_devices


def decode_seconds(
    shape: Architecture, gpus: Gpus, context: int, batch: int, settings: InferenceSettings, usable_bytes: float
) -> float:
    """Time of a decode step of `batch` sequences of `context` cached tokens, by the better split that fits [s]."""
    load = Load(prompt_tokens=max(context - 1, 1), answer_tokens=1)
    steps = [
        serving_step(shape, gpus, load, settings, split, usable_bytes=usable_bytes)
        for split in (SPLITS if gpus.count > 1 else SPLITS[:1])
    ]
    holding = [step for step in steps if step.most_sequences >= batch]
    return min(float(step.seconds(batch)) for step in holding or steps)


def concurrency(
    shape: Architecture, gpus: Gpus, settings: InferenceSettings, num_devices: int, usable_bytes: float
) -> Concurrency:
    """Sequences of `settings.context` tokens that fit `num_devices` of `usable_bytes`, and their speed on `gpus`."""
    most = most_sequences(shape, settings, num_devices, usable_bytes)
    each = usable_bytes * num_devices / gpus.count

    def speed(batch: int) -> float:
        return 1 / decode_seconds(shape, gpus, settings.context, batch, settings, each)

    together = speed(most) if most else None
    return Concurrency(
        context=settings.context,
        most_sequences=most,
        tokens_per_second_per_user=together,
        tokens_per_second_per_user_alone=speed(1) if most else None,
        tokens_per_second_per_gpu=together * most / gpus.count if together else None,
        interval_factor=interval_factor(),
    )


def interval_factor() -> float:
    """An 80 % interval of a speed is the speed divided and multiplied by this."""
    return math.exp(_Z80 * spread().ln_sd)
