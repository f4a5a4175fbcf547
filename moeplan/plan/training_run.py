"""Training of a model as plans and inspections say it: `TrainingRun`, and `LayoutOption`, a layout with its speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from moeplan.estimates import Estimate
from moeplan.quantities import BYTES, NUMBER, SHARE
from moeplan.records import Line, Word


@dataclass(frozen=True)
class LayoutOption:
    """One way to spread training over the GPUs that fits their memory."""

    tp: int
    """Tensor parallelism."""
    pp: int
    """Pipeline stages."""
    ep: int
    """Expert parallelism."""
    etp: int
    """Expert tensor parallelism."""
    cp: int
    """Context parallelism."""
    dp: int
    """Data parallelism."""
    micro_batch: int
    """Sequences of a micro-batch."""
    virtual_stages: int
    """Chunks of layers a pipeline stage holds."""
    recompute: Word
    """Activations that the backward pass computes again: none, selective or full."""
    num_gpus: int
    """GPUs that it uses; others stay idle."""
    batch_sequences: int
    """Sequences of its step."""
    tokens_per_second_per_gpu: Estimate | None
    """Tokens a second of each of all GPUs, idle ones too, with an 80 % interval; null in older plans."""
    site_ln_sd: float
    """Part of the interval that is common to all models at a site, as a standard deviation of the logarithm."""
    design_ln_sd: float
    """Part that differs from model to model."""
    mfu: Annotated[float | None, SHARE]
    """Model FLOPs utilisation of all GPUs, idle ones too, by `training.mfu_convention`; null in older plans."""
    days: Estimate | None
    """Days of the run at the goodput stated beside it; null without tokens, and in older plans."""
    bytes_per_gpu: Annotated[float, BYTES]
    """Peak memory of a GPU of the heaviest stage [bytes]."""
    bytes_by_group: Annotated[dict[Line, float], BYTES]
    """The same by group."""
    fits: bool
    """Whether that fits a GPU, headroom left free."""
    step_seconds: float
    """Time of a step [s]."""
    step_time: float
    """Time of a token by `moeplan.cost.training.throughput`, relative to the first layout listed."""
    step_terms: Annotated[dict[Line, float], SHARE]
    """Its terms as shares of this layout's step."""


@dataclass(frozen=True)
class TrainingRun:
    """Cost of training, and layouts for it."""

    device: Line
    """The device that time is counted on."""
    num_gpus: int | None
    """How many of them; null if not given."""
    idle_gpus: int
    """How many of them the layout leaves idle, paid for all the same."""
    precision: Word
    """Of matrix products."""
    software: Line
    """Preset of the training software."""
    goodput: Annotated[float, SHARE]
    """Share of the days that trains."""
    tokens_per_second_per_gpu: Estimate | None
    """Tokens a second of each of all GPUs while they train, with an 80 % interval; null in older plans."""
    mfu: Annotated[Estimate, SHARE]
    """Model FLOPs utilisation while they train, by `mfu_convention`, with an 80 % interval where it is predicted."""
    mfu_convention: Line
    """FLOPs and peak that utilisation is counted by."""
    mfu_basis: Line
    """Where it is from."""
    site_ln_sd: float | None
    """Part of the interval that all designs at a site have in common, as a standard deviation of the logarithm; null
    where the utilisation was given."""
    design_ln_sd: float | None
    """Part that differs from design to design."""
    site_note: Line
    """What runs measured at the site did to its speed and interval; "" without any."""
    gpu_hours: Estimate | None
    """Device-hours of the whole run, pauses included; null where no layout trains it."""
    days: Estimate | None
    """Days of the run, pauses included; null without a number of devices."""
    money: Estimate | None
    """Price of the run; null without a price."""
    optimizer: Word
    """Scheme of weights, gradients and optimizer state."""
    batch_sequences: int
    """Sequences of a step: those of the batch that the first layout takes."""
    usable_bytes: float | None
    """Memory of a training GPU less the headroom [bytes]; null without GPUs."""
    layouts: tuple[LayoutOption, ...]
    """The fastest layouts that fit; empty without GPUs or if none fits."""
    layout_note: Line
    """Why there are none, if there are none."""


@dataclass(frozen=True)
class DesignTime:
    """What a design takes to train on the plan's GPUs, beside the plan's own design."""

    mfu: Annotated[float, SHARE]
    """Model FLOPs utilisation of all GPUs under its fastest layout that fits."""
    days: Annotated[float, NUMBER]
    """Days to train its own tokens, pauses included."""
    value_at_equal_flops: Annotated[float, NUMBER]
    """Its V / the plan's, both trained with the plan's FLOPs."""
    time_at_equal_flops: Annotated[float, NUMBER]
    """Its time / the plan's, both trained with the plan's FLOPs."""
