"""The answer about upcycling: `Upcycling`, the same in Python, JSON and every report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from moeplan import records
from moeplan.architecture.shape import Architecture
from moeplan.estimates import Estimate
from moeplan.quantities import BYTES, COUNT, FLOPS, SHARE

SCHEMA = "moeplan.upcycling/1"


@dataclass(frozen=True)
class DenseModel:
    """The model that is upcycled."""

    name: str
    """The file, or the model's name."""
    total_params: int
    """Its params."""
    tokens: Annotated[float, COUNT]
    """Tokens it was trained on."""
    train_flops: Annotated[float, FLOPS]
    """What that took [FLOPs]."""


@dataclass(frozen=True)
class Crossing:
    """What the upcycling law says; of the dense model's size and tokens, whatever the MoE."""

    tokens: float | None
    """Tokens of further training at which the MoE from scratch has the lower loss; null if there are none."""
    train_flops: float | None
    """The same in compute of this MoE [FLOPs]."""
    same_as_scratch: Annotated[float | None, COUNT]
    """Tokens from scratch that are worth the budget's tokens of the upcycled model; null if none are."""
    inside: bool
    """Whether size, both tokens and experts lie where the law was measured."""
    outside: tuple[str, ...]
    """What does not."""


@dataclass(frozen=True)
class Scratch:
    """What `moeplan recommend` trains from scratch with the same budget, memory and vocabulary."""

    total_params: int
    """Its params."""
    active_params: int
    """Those active."""
    tokens: int
    """Its training tokens."""
    num_experts: int
    """Routed experts a layer."""
    num_active_experts: int
    """Those a token reaches."""
    num_shared_experts: int
    """Experts that every token passes."""


@dataclass(frozen=True)
class Finding:
    """What a publication measured."""

    text: str
    """The finding."""
    source: str
    """Where it stands."""
    grade: str
    """How sure it is."""
    enough: Annotated[float | None, SHARE]
    """Share of the dense training compute up to which upcycling was better; null where it says none."""
    too_much: Annotated[float | None, SHARE]
    """Share from which training from scratch is better; null where it says none."""


@dataclass(frozen=True)
class Moefication:
    """The dense model's own neurons as experts, without training: its params stay, fewer are active."""

    low: Annotated[float, COUNT]
    """Active params with the least share of the feed-forward blocks."""
    high: Annotated[float, COUNT]
    """Active params with the largest share."""
    text: str
    """What was measured, under which conditions."""
    source: str
    """Where it stands."""
    holds: bool
    """Whether the model's activation is the one that it was measured with."""


@dataclass(frozen=True)
class Upcycling:
    """Whether to upcycle, with the MoE that comes of it and the one from scratch beside it."""

    schema: str
    """Version of this structure, moeplan.upcycling/1."""
    verdict: str
    """upcycle, scratch, or open."""
    reason: str
    """Why, in a sentence."""
    extrapolated: bool
    """Whether it lies outside what the law was measured on."""
    dense: DenseModel
    """What is upcycled."""
    budget_flops: Annotated[float, FLOPS]
    """Compute for further training [FLOPs]."""
    budget_share: Annotated[float, SHARE]
    """The same as a share of the dense model's training."""
    architecture: Architecture
    """The upcycled model."""
    granularity_of_copies: int
    """Experts that one block is cut into."""
    total_params: int
    """Params of the upcycled model."""
    active_params: int
    """Those active."""
    copied_params: Annotated[int, COUNT]
    """Params that start as the dense model's; the rest, the routers, start anew."""
    seq_len: int
    """Sequence length of further training [tokens]."""
    flops_per_token: Annotated[float, FLOPS]
    """Training FLOPs a token: 6*(active params without input embedding) + causal attention."""
    tokens: Annotated[int, COUNT]
    """Tokens that the budget pays for."""
    scratch_tokens: Annotated[int, COUNT]
    """Tokens of the same model from scratch with the budget and what the dense model took."""
    memory_bytes: Annotated[int, BYTES]
    """What serving it needs on the fullest device, at the default context [bytes]."""
    usable_bytes: Annotated[int | None, BYTES]
    """Memory of one device less the headroom [bytes]; null without a limit."""
    num_devices: int
    """Devices that it is spread over."""
    fits: bool | None
    """Whether it fits; null without a limit."""
    device: str
    """The device that time is counted on."""
    gpu_hours: Estimate | None
    """Device-hours of further training, pauses included, with an 80 % interval; null where no layout trains it."""
    days: Estimate | None
    """Days on the devices given; null without them."""
    mfu_basis: str
    """Where these are from, or why they are not known."""
    crossing: Crossing
    """What the law of upcycling says."""
    scratch: Scratch | None
    """The best MoE from scratch for the same budget and memory; null where there is none."""
    scratch_note: str
    """Why not; "" if there is one."""
    findings: tuple[Finding, ...]
    """What publications measured."""
    moefication: Moefication
    """The variant without training."""

    def to_json(self) -> dict[str, Any]:
        """The answer as JSON's types."""
        data: dict[str, Any] = records.to_json(self)
        return data
