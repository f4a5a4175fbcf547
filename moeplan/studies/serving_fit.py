"""Whether a model can be served in a given memory, for how many users at a context, and how fast each is answered."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, get_args

from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import HEADROOM, Device
from moeplan.cost.inference_memory import InferenceSettings, WeightDtype, total_inference_bytes
from moeplan.cost.serving.concurrency import concurrency, serving_gpus
from moeplan.cost.serving.roofline import decode_point, fewest_devices
from moeplan.quantities import BYTES
from moeplan.units import MemoryLimit, format_decimal_bytes

_MOST_TIMES = 64
"""How many times the GPUs are looked at to find how many would hold a model."""


@dataclass(frozen=True)
class ServingFit:
    """A model in a given memory."""

    memory: str
    """The memory limit, as given."""
    num_devices: int
    """Devices that the model is split over, and that speeds are for."""
    usable_bytes: Annotated[float, BYTES]
    """Memory of one device that may be used, headroom left out [bytes]."""
    weight_dtype: str
    """Dtype of the weights."""
    kv_dtype: str
    """Dtype of the cache."""
    context: int
    """Tokens of one sequence that the cache has room for."""
    bytes_per_device: Annotated[float, BYTES]
    """Weights and the cache of one sequence on the fullest device [bytes]."""
    fits: bool
    """Whether that fits."""
    most_sequences: int
    """Most sequences of that context whose cache fits beside the weights; 0 if one does not."""
    device: str
    """The device that speeds are for."""
    tokens_per_second_per_user: float | None
    """With as many sequences as fit: tokens a second of each user; null if none fits."""
    tokens_per_second_per_user_alone: float | None
    """With a single user; null if none fits."""
    tokens_per_second_per_gpu: float | None
    """With as many sequences as fit: tokens a second of each GPU; null if none fits."""
    interval_factor: float
    """80 % interval of these speeds: each divided and multiplied by this."""
    most_tokens_per_second_per_gpu: float | None
    """What no GPU passes with as many sequences, by bytes over bandwidth and FLOPs over peak; null if none fits."""
    says: str
    """Why it does not fit, in a sentence; "" if it does."""


def serving_fit(
    shape: Architecture,
    memory: MemoryLimit,
    serving: InferenceSettings,
    device: Device | None = None,
    *,
    headroom: float = HEADROOM,
) -> ServingFit:
    """Fit weights and caches of `serving.context` tokens into `memory`, less `headroom`, with the speed of decode.

    Speeds are of decode steps with full caches on `serving_gpus(memory, device)`, as they are to be expected
    (`moeplan.cost.serving.throughput`).
    """
    usable = memory.bytes_per_device * (1 - headroom)
    gpus = serving_gpus(memory, device)
    one = int(total_inference_bytes(shape, dataclasses.replace(serving, concurrency=1), memory.num_devices))
    found = concurrency(shape, gpus, serving, memory.num_devices, usable)
    bound = None
    if found.most_sequences:
        bound = decode_point(shape, gpus.device, found.most_sequences, serving.context, serving, gpus.count)
    lack = ""
    if not found.most_sequences:
        lack = f"it needs {format_decimal_bytes(one)} per GPU and {format_decimal_bytes(usable)} are usable"
        lack += _would_do(shape, memory, serving, usable)
    return ServingFit(
        memory=str(memory),
        num_devices=gpus.count,
        usable_bytes=usable,
        weight_dtype=serving.weight_dtype,
        kv_dtype=serving.kv_dtype,
        context=serving.context,
        bytes_per_device=float(one),
        fits=found.most_sequences > 0,
        most_sequences=found.most_sequences,
        device=gpus.device.name,
        tokens_per_second_per_user=found.tokens_per_second_per_user,
        tokens_per_second_per_user_alone=found.tokens_per_second_per_user_alone,
        tokens_per_second_per_gpu=found.tokens_per_second_per_gpu,
        interval_factor=found.interval_factor,
        most_tokens_per_second_per_gpu=bound.tokens_per_second_per_gpu if bound else None,
        says=lack,
    )


def _would_do(shape: Architecture, memory: MemoryLimit, serving: InferenceSettings, usable: float) -> str:
    """With which narrower weights and in how many such GPUs one sequence would fit, in words; "" if in neither."""

    def needed(dtype: WeightDtype) -> int:
        return int(total_inference_bytes(shape, dataclasses.replace(one, weight_dtype=dtype), own_gpus))

    one, own_gpus = dataclasses.replace(serving, concurrency=1), memory.num_devices
    own = needed(serving.weight_dtype)
    words = []
    for dtype in get_args(WeightDtype):
        size = needed(dtype)
        if size <= usable and size < own:
            words.append(f"with --weights {dtype} it needs {format_decimal_bytes(size)}")
            break
    more = fewest_devices(shape, one, usable, first=2 * own_gpus, most=_MOST_TIMES * own_gpus)
    if more is not None:
        words.append(f"{more} such GPUs hold it")
    return "".join(f"; {each}" for each in words)
