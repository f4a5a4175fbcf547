"""Training a model on given GPUs: memory of a GPU by group, tokens a second, utilisation, days.

For one stated layout, or for the fastest layouts that fit. Memory is counted tensor by tensor
(`moeplan.cost.training.memory`), time by the calibrated model of a step (`moeplan.cost.training.throughput`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import HEADROOM, Gpus
from moeplan.cost.training.fastest import Trainer
from moeplan.cost.training.layout import search_layouts
from moeplan.cost.training.memory import TrainingMemory, TrainingSettings, training_memory
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.states import load_scheme
from moeplan.cost.training.throughput.estimate import TrainingEstimate, training_estimate
from moeplan.cost.training.throughput.settings import load_software
from moeplan.cost.training.throughput.step import StepTime
from moeplan.cost.training.throughput.words import DEFAULT_SOFTWARE, MFU_CONVENTION
from moeplan.errors import InfeasibleError
from moeplan.estimates import Estimate, times
from moeplan.laws import load_law
from moeplan.laws.hyperparameters import hyperparameters
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.document import Plan
from moeplan.plan.training_and_serving import batch_sequences
from moeplan.quantities import BYTES
from moeplan.units import format_decimal_bytes

LISTED = 3
"""Layouts that are listed where none is stated."""


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """How a model is to be trained."""

    gpus: Gpus
    """On which GPUs."""
    layout: Layout | None = None
    """How it is spread over them; None lists the fastest that fit."""
    batch: int | None = None
    """Sequences of a step; None takes the leverage law's for the training tokens."""
    precision: str = ""
    """Of matrix products; "" takes the plan's, or bf16."""
    software: str = ""
    """Preset of the training software; "" takes the plan's, or partial graphs."""
    optimizer: str = ""
    """Scheme of weights, gradients and optimizer state; "" takes the plan's, or megatron."""
    balanced: bool = False
    """Whether routing is forced to be even, as benchmarks do."""

    def resolved(self, plan: Plan | None) -> TrainingRequest:
        """The same with what is left open taken from the plan that the model is of, or the defaults."""
        asked, batch = plan.request if plan else None, self.batch
        if batch is None and plan is not None and plan.training.num_gpus:
            step = self.layout.dp * self.layout.micro_batch if self.layout else 1
            batch = plan.training.batch_sequences if plan.training.batch_sequences % step == 0 else None
        return dataclasses.replace(
            self,
            batch=batch,
            precision=self.precision or (asked.train_precision if asked else "bf16"),
            software=self.software or (asked.software if asked else DEFAULT_SOFTWARE),
            optimizer=self.optimizer or (asked.optimizer if asked else "megatron"),
        )


@dataclass(frozen=True)
class TrainedLayout:
    """One layout, with what it needs and how fast it is."""

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
    virtual_stages: int
    """Chunks of layers a pipeline stage holds."""
    micro_batch: int
    """Sequences of a micro-batch."""
    recompute: str
    """Activations that the backward pass computes again: none, selective or full."""
    tokens_per_second_per_gpu: Estimate
    """Tokens a second of one GPU, with its 80 % interval."""
    site_ln_sd: float
    """Part of the interval that is common to all models at a site, as a standard deviation of the logarithm."""
    design_ln_sd: float
    """Part that differs from model to model."""
    mfu: float
    """Model FLOPs utilisation, by `mfu_convention`."""
    step_seconds: float
    """Time of a step [s]."""
    step_terms: dict[str, float]
    """Share of the step by term."""
    days: float | None
    """Days to train the tokens without a pause, or with those of the plan's goodput; null without tokens."""
    bytes_per_gpu: Annotated[float, BYTES]
    """Memory of a GPU of the heaviest stage [bytes]."""
    bytes_by_group: dict[str, float]
    """The same by group."""
    fits: bool
    """Whether that fits a GPU, headroom left free."""


@dataclass(frozen=True)
class TrainingFit:
    """Training a model on given GPUs."""

    device: str
    """The device."""
    num_gpus: int
    """How many."""
    seq_len: int
    """Tokens of a sequence."""
    batch_sequences: int
    """Sequences of a step."""
    precision: str
    """Of matrix products."""
    software: str
    """Preset of the training software."""
    optimizer: str
    """Scheme of weights, gradients and optimizer state."""
    usable_bytes: Annotated[float, BYTES]
    """Memory of a GPU that may be used [bytes]."""
    tokens: float | None
    """Training tokens that days are for; null if not known."""
    mfu_convention: str
    """The FLOPs and the peak that utilisation is counted by."""
    layouts: tuple[TrainedLayout, ...]
    """The stated layout, or the fastest that fit; empty if none does."""
    says: str
    """Why nothing fits, in a sentence; "" if something does."""


def training_fit(
    shape: Architecture,
    request: TrainingRequest,
    *,
    seq_len: int,
    tokens: float | None = None,
    plan: Plan | None = None,
) -> TrainingFit:
    """The stated layout of `request`, or the fastest that fit its GPUs; those of a `plan`, where the model is one.

    A stated layout may leave GPUs idle; tokens/s and utilisation are of all of them.

    Raises `InfeasibleError` for a stated layout that the architecture, the batch or the GPUs cannot have, and
    `UsageError` for a precision that the device does not have.
    """
    request, gpus = request.resolved(plan), request.gpus
    goodput = plan.training.goodput if plan is not None else 1.0
    batch = request.batch or _batch(shape, tokens, seq_len, gpus.count, request.layout)
    usable = gpus.device.memory_bytes * (1 - HEADROOM)
    settings = TrainingSettings(seq_len=seq_len, optimizer=request.optimizer)
    layouts: list[TrainedLayout] = []
    says = ""
    if request.layout is not None:
        estimate = _estimate(shape, request, request.layout, batch, seq_len)
        micro_batches = batch // (request.layout.dp * request.layout.micro_batch)
        memory = training_memory(shape, request.layout, dataclasses.replace(settings, num_micro_batches=micro_batches))
        layouts.append(_trained(estimate, memory, usable, tokens, request.layout.num_gpus / gpus.count, goodput))
        if not layouts[0].fits:
            says = f"it needs {format_decimal_bytes(memory.total)} a GPU and {format_decimal_bytes(usable)} are usable"
    elif plan is not None and not request.balanced:
        trainer = Trainer(
            gpus=gpus, batch=batch, seq_len=seq_len, precision=request.precision,
            software=load_software(request.software), optimizer=request.optimizer, usable_bytes=usable,
        )  # fmt: skip
        for each in trainer.ranking(shape, LISTED):
            estimate = _estimate(shape, request, each.spread.layout, each.spread.batch, seq_len)
            layouts.append(
                _trained(estimate, each.memory, usable, tokens, each.spread.layout.num_gpus / gpus.count, goodput)
            )
        says = "" if layouts else f"no layout of {gpus} fits"
    else:
        try:
            found = search_layouts(
                shape, gpus, batch, settings, precision=request.precision,
                software=request.software, balanced=request.balanced,
            )  # fmt: skip
        except InfeasibleError as error:
            says = str(error)
        else:
            for ranked in found.ranked[:LISTED]:
                estimate = _estimate(shape, request, ranked.layout, batch, seq_len, ranked.time)
                layouts.append(_trained(estimate, ranked.memory, usable, tokens))
    return TrainingFit(
        device=gpus.device.name,
        num_gpus=gpus.count,
        seq_len=seq_len,
        batch_sequences=batch,
        precision=request.precision,
        software=request.software,
        optimizer=request.optimizer,
        usable_bytes=usable,
        tokens=tokens,
        mfu_convention=MFU_CONVENTION,
        layouts=tuple(layouts),
        says=says,
    )


def _batch(shape: Architecture, tokens: float | None, seq_len: int, num_gpus: int, layout: Layout | None) -> int:
    """The leverage law's batch for the tokens, by default 20 an active param, rounded to what the layout divides."""
    law = load_law(LEVERAGE_LAW)
    (own,) = hyperparameters([law], shape, tokens or 20.0 * shape.active_params(), seq_len)
    if layout is None:
        return batch_sequences(own.batch_tokens, seq_len, num_gpus)
    multiple = layout.dp * layout.micro_batch
    return max(1, round(own.batch_tokens / seq_len / multiple)) * multiple


def _estimate(
    shape: Architecture,
    request: TrainingRequest,
    layout: Layout,
    batch: int,
    seq_len: int,
    time: StepTime | None = None,
) -> TrainingEstimate:
    return training_estimate(
        shape,
        dataclasses.replace(request.gpus, count=layout.num_gpus),
        layout,
        batch=batch,
        seq_len=seq_len,
        precision=request.precision,
        software=request.software,
        balanced=request.balanced,
        sharded_weights="weights" in load_scheme(request.optimizer).split,
        time=time,
    )


def _trained(
    estimate: TrainingEstimate,
    memory: TrainingMemory,
    usable: float,
    tokens: float | None,
    used: float = 1.0,
    goodput: float = 1.0,
) -> TrainedLayout:
    """One layout that uses such a share of the GPUs, and trains for such a share of the days."""
    layout = estimate.layout
    seconds = estimate.step_seconds
    return TrainedLayout(
        tp=layout.tp,
        pp=layout.pp,
        ep=layout.ep,
        etp=layout.etp,
        cp=layout.cp,
        dp=layout.dp,
        virtual_stages=layout.virtual_stages,
        micro_batch=layout.micro_batch,
        recompute=layout.recompute,
        tokens_per_second_per_gpu=times(Estimate(estimate.tokens_per_second_per_gpu, *estimate.interval), used),
        site_ln_sd=estimate.spread.site_ln_sd,
        design_ln_sd=estimate.spread.design_ln_sd,
        mfu=used * estimate.mfu,
        step_seconds=seconds,
        step_terms={name: float(value) / seconds for name, value in estimate.time.terms().items()},
        days=estimate.days(tokens) / goodput if tokens else None,
        bytes_per_gpu=float(memory.total),
        bytes_by_group={name: float(size) for name, size in memory.heaviest.groups.items()},
        fits=memory.total <= usable,
    )
