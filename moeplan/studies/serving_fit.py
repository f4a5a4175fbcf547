"""Whether a model can be served in a given memory, for how many users at a context, and how fast each is answered."""

from __future__ import annotations

import bisect
import dataclasses
from dataclasses import dataclass
from typing import Annotated

from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import HEADROOM, Device
from moeplan.cost.inference_memory import MOST_CACHED_TOKENS, InferenceSettings, total_inference_bytes
from moeplan.cost.serving.roofline import decode_point
from moeplan.quantities import BYTES
from moeplan.units import MemoryLimit, format_bytes

MOST_SEQUENCES = 2**20
"""No more sequences than this are counted."""


@dataclass(frozen=True)
class ServingFit:
    """A model in a given memory."""

    memory: str
    """The memory limit, as given."""
    num_devices: int
    """Devices that the model is split over."""
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
    """At most, with as many sequences as fit: tokens a second of each user; null if none fits."""
    tokens_per_second_per_user_alone: float | None
    """At most, with a single user; null if none fits."""
    tokens_per_second_per_gpu: float | None
    """At most, with as many sequences as fit: tokens a second of each GPU; null if none fits."""
    says: str
    """Why it does not fit, in a sentence; "" if it does."""


def serving_fit(
    shape: Architecture, memory: MemoryLimit, serving: InferenceSettings, device: Device, *, headroom: float = HEADROOM
) -> ServingFit:
    """Fit weights and caches of `serving.context` tokens into `memory`, less `headroom`, and bound the decode speed.

    Sequences are counted until the fullest device is full, replicas included
    (`moeplan.cost.inference_memory.total_inference_bytes`). Speeds are rooflines of one decode step with full caches
    (`moeplan.cost.serving.roofline`), so upper bounds.
    """
    usable = memory.bytes_per_device * (1 - headroom)
    n = memory.num_devices

    def needed(sequences: int) -> int:
        settings = dataclasses.replace(serving, concurrency=sequences)
        return int(total_inference_bytes(shape, settings, n))

    one = needed(1)
    # memory never falls with the number of sequences, so the first that is too many is found by bisection
    counts = range(1, min(MOST_SEQUENCES, MOST_CACHED_TOKENS // serving.context) + 1)
    most = bisect.bisect_left(counts, True, key=lambda sequences: needed(sequences) > usable)
    alone = together = None
    if most:
        alone = decode_point(shape, device, 1, serving.context, serving, n)
        together = decode_point(shape, device, most, serving.context, serving, n)
    lack = "" if most else f"it needs {format_bytes(one)} a device and {format_bytes(usable)} are usable"
    return ServingFit(
        memory=str(memory),
        num_devices=n,
        usable_bytes=usable,
        weight_dtype=serving.weight_dtype,
        kv_dtype=serving.kv_dtype,
        context=serving.context,
        bytes_per_device=float(one),
        fits=most > 0,
        most_sequences=most,
        device=device.name,
        tokens_per_second_per_user=1 / together.seconds if together else None,
        tokens_per_second_per_user_alone=1 / alone.seconds if alone else None,
        tokens_per_second_per_gpu=together.tokens_per_second_per_gpu if together else None,
        says=lack,
    )
