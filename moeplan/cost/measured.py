"""Measurements of a device: the block `measured` of a device's file, which `moeplan hardware --measure` writes.

Speeds are sustained ones on random data, times the median of several. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from moeplan import records
from moeplan.architecture.shape import Architecture
from moeplan.errors import UsageError


@dataclass(frozen=True)
class TimedLayer:
    """One transformer layer, forward and backward, without optimizer."""

    architecture: dict[str, Any]
    """Its exact shape, as `Architecture.to_dict` writes it, with one layer."""
    sequences: int
    """Sequences that it read at once."""
    seq_len: int
    """Tokens of each."""
    seconds: float
    """Time as a framework runs it, operation by operation [s]."""
    graph_seconds: float | None
    """Time as one CUDA graph, without the host's share [s]; null on a CPU, and where it could not be captured."""
    flops: float
    """Model FLOPs of it: 6 per active param and token, with causal attention."""
    expert_products: str | None
    """By what the experts' rows were multiplied: grouped_mm, blocks or loop; null for a dense layer."""

    def __post_init__(self) -> None:
        Architecture.from_dict(self.architecture)


_MOST = 1e30
"""What no speed, time or size that is measured reaches."""


@dataclass(frozen=True)
class Collective:
    """A collective operation over one group of devices."""

    ranks: int
    """Devices that take part."""
    bytes_per_rank: int
    """Bytes of the operation's input that a device holds; of an all-gather it is its share."""
    seconds: float
    """Time of the slowest device [s]."""
    bytes_per_second: float
    """Bytes a second that a device sends to others meanwhile."""


@dataclass(frozen=True)
class MeasuredSpeeds:
    """Measured speeds of one device, and of its links where several were measured together."""

    precision: str
    """bf16 or fp32: the type of all products below, the faster one on this device."""
    product_flops: float
    """A large square matrix product, sustained for seconds [FLOP/s]."""
    product_size: int
    """Its edge."""
    grouped_product_flops: dict[str, float]
    """Forward product of rows grouped by expert, by tokens of an expert [FLOP/s]."""
    grouped_gradient_flops: dict[str, float]
    """The product that gives the gradient of the experts' weights, likewise [FLOP/s]."""
    grouped_shape: tuple[int, ...]
    """Experts, rows of a matrix and its columns in these products."""
    attention_flops: float
    """Causal attention, forward, counting the lower half of the scores [FLOP/s]."""
    attention_backward_flops: float
    """The same of its backward pass, which has 2.5 times the work [FLOP/s]."""
    attention_shape: tuple[int, ...]
    """Sequences, heads, tokens of a sequence and head_dim in it."""
    copy_bytes_per_second: float
    """A large copy within its memory, read and written bytes together [bytes/s]."""
    permute_bytes_per_second: float
    """Rows of tokens gathered in the order of experts, likewise [bytes/s]."""
    launch_seconds: float
    """Seconds that the host takes to start one small operation."""
    sync_seconds: float
    """A small operation and waiting for its result [s]."""
    dense_layer: TimedLayer
    """One dense layer."""
    moe_layer: TimedLayer
    """One MoE layer with all experts on the device."""
    all_to_all: dict[str, Collective]
    """All-to-all by where: "node" within one, "network" between devices of different nodes; empty for one device."""
    all_gather: dict[str, Collective]
    """All-gather likewise."""
    versions: dict[str, str]
    """Versions of what measured."""


def read_measured(section: dict[str, Any], where: str) -> MeasuredSpeeds:
    """The block `measured` of a device's file; raises `UsageError` with the key of anything missing or wrong."""
    found = records.from_json(MeasuredSpeeds, section, where)
    _check_positive(found, where)
    return found


def _check_positive(value: Any, where: str) -> None:
    """Refuse numbers of a record, or of what it holds, that are not above 0 and finite: times, speeds and sizes."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.name != "architecture":  # whose own class checks it
                _check_positive(getattr(value, field.name), f"{where}.{field.name}")
    elif isinstance(value, dict):
        for key, each in value.items():
            _check_positive(each, f"{where}.{key}")
    elif isinstance(value, tuple):
        for place, each in enumerate(value):
            _check_positive(each, f"{where}[{place}]")
    elif isinstance(value, (int, float)) and not 0 < value < _MOST:
        raise UsageError(f"{where} is {value:g}, must be above 0 and below {_MOST:g}")
