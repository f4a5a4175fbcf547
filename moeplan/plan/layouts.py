"""Training of a model on GPUs: the fastest layouts that fit, their speed, days and memory.

Every time of training that is not by a utilisation of the user's own comes from here, and so from the calibrated model
(`moeplan.cost.training.throughput`): of plans, comparisons, inspections and upcycled models alike.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import DEFAULT_DEVICE, MOST_GPUS, Gpus, load_device
from moeplan.cost.serving.demand import Demand
from moeplan.cost.training.degrees import Spread
from moeplan.cost.training.fastest import Ranked, Trainer
from moeplan.cost.training.layout import LayoutSpace, least_training_bytes
from moeplan.cost.training.memory import TrainingMemory
from moeplan.cost.training.memory_settings import TrainingSettings
from moeplan.cost.training.states import load_scheme
from moeplan.cost.training.throughput.estimate import training_estimate
from moeplan.cost.training.throughput.words import MFU_CONVENTION
from moeplan.estimates import Estimate, inverse, times
from moeplan.plan.budget import NOMINAL_MFU, Budget
from moeplan.plan.trainable import site_of_budget, trainer_of
from moeplan.plan.training_run import LayoutOption, TrainingRun
from moeplan.units import format_decimal_bytes

LISTED = 3
"""Layouts that are listed."""
_LEAST_SPACE = LayoutSpace(micro_batches=(1,), recompute=("full",))
"""The layouts that need least memory: smallest micro-batch, everything recomputed."""
_USUAL_DAYS = 30.0
"""In about so many days the machine trains that is taken where none is given."""
_MORE = 6
"""So many powers of two more of it are tried where a model needs more memory than its state alone says."""


def least_bytes(architecture: Architecture, budget: Budget, batch: int) -> float | None:
    """The least memory a GPU [bytes] by any layout on the budget's GPUs; None if no layout breaks no rule."""
    assert budget.gpus is not None
    settings = TrainingSettings(seq_len=budget.seq_len, optimizer=budget.optimizer)
    least = least_training_bytes(architecture, budget.gpus.count, batch, settings, _LEAST_SPACE)
    return None if least is None else float(least[1].total)


def predicted_run(architecture: Architecture, tokens: float, budget: Budget) -> TrainingRun:
    """Speed, GPU-hours, days, money and the fastest layouts of one training run, pauses included.

    Without GPUs, GPU-hours and speed are those of a machine that the run names: as many devices, in powers of two, as
    would train the budget in about 30 days at a nominal utilisation, and more where the model needs their memory.
    """
    given = budget.gpus is not None
    trainer, ranked = _ranked(architecture, budget)
    flops = float(architecture.flops_per_token(budget.seq_len)) * tokens
    gpus = trainer.gpus
    goodput = 1.0 if budget.mfu else budget.goodput
    options = ranked_options(architecture, ranked, trainer, tokens=tokens, goodput=budget.goodput)
    first = options[0] if options else None
    mfu, basis, speed = Estimate(0.0), "no layout trains it", None
    if budget.mfu:
        mfu, basis = Estimate(budget.mfu), "as given, pauses included"
        speed = Estimate(gpus.device.bf16_flops * mfu * tokens / flops)
    elif first is not None and first.tokens_per_second_per_gpu is not None:
        speed = first.tokens_per_second_per_gpu
        mfu = times(speed, flops / tokens / gpus.device.bf16_flops)
        basis = "predicted for the first layout" if given else f"predicted on {gpus}, as no GPUs are given"
    hours = None if speed is None else inverse(speed, tokens / goodput / 3600)
    own = None if budget.mfu else first
    return TrainingRun(
        device=gpus.device.name,
        num_gpus=gpus.count if given else None,
        idle_gpus=gpus.count - first.num_gpus if first and given else 0,
        precision=budget.train_precision,
        software=budget.software,
        goodput=goodput,
        tokens_per_second_per_gpu=speed,
        mfu=mfu,
        mfu_convention=MFU_CONVENTION,
        mfu_basis=basis,
        site_ln_sd=own.site_ln_sd if own else None,
        design_ln_sd=own.design_ln_sd if own else None,
        site_note=site_of_budget(budget)[1] if given else "",
        gpu_hours=hours,
        days=None if hours is None or not given else times(hours, 1 / gpus.count / 24),
        money=None if hours is None or budget.price_per_gpu_hour is None else times(hours, budget.price_per_gpu_hour),
        optimizer=budget.optimizer,
        batch_sequences=first.batch_sequences if first else trainer.batch,
        usable_bytes=budget.usable_training_bytes,
        layouts=options if given else (),
        layout_note="no GPUs are given" if not given else "" if options else why_none(architecture, trainer),
    )


def machine_of(architecture: Architecture, budget: Budget) -> Trainer:
    """The budget's GPUs, or those that a plan's time is told on where none are given."""
    return _ranked(architecture, budget)[0]


def _ranked(architecture: Architecture, budget: Budget) -> tuple[Trainer, list[Ranked]]:
    """The fastest layouts on the budget's GPUs, or on those that are taken where none are given."""
    if budget.gpus is not None:
        trainer = trainer_of(budget)
        return trainer, trainer.ranking(architecture, LISTED)
    device = load_device(DEFAULT_DEVICE)
    hours = budget.flops / (device.bf16_flops * NOMINAL_MFU * budget.goodput) / 3600
    # What is served costs hours of other devices, which say nothing of how this one trains.
    trainer = trainer_of(dataclasses.replace(budget, gpus=Gpus(1, device), demand=Demand()))
    memory = trainer.least_state_bytes * architecture.total_params() / trainer.usable_bytes
    power = max(0, math.ceil(math.log2(max(hours / 24 / _USUAL_DAYS, memory))))
    for count in (2**more for more in range(power, power + _MORE)):
        trainer = dataclasses.replace(trainer, gpus=Gpus(min(count, MOST_GPUS), device))
        ranked = trainer.ranking(architecture)
        if ranked:
            break
    return trainer, ranked


def why_none(architecture: Architecture, trainer: Trainer) -> str:
    """What the layout that needs the least memory would need, in words."""
    least = trainer.least_bytes(architecture)
    if not math.isfinite(least):
        return f"no layout of {trainer.gpus} divides this architecture within a batch of {trainer.batch} sequences"
    return (
        f"no layout of {trainer.gpus} fits; the smallest needs {format_decimal_bytes(least)} a GPU, and "
        f"{format_decimal_bytes(trainer.usable_bytes)} are usable: use more GPUs"
    )


def ranked_options(
    architecture: Architecture, ranked: Sequence[Ranked], trainer: Trainer, *, tokens: float | None, goodput: float
) -> tuple[LayoutOption, ...]:
    """Layouts that fit, fastest first, as they are listed."""
    return tuple(
        layout_option(
            architecture,
            each.spread,
            each.memory,
            trainer,
            tokens=tokens,
            goodput=goodput,
            step_time=ranked[0].tokens_per_second / each.tokens_per_second,
        )
        for each in ranked
    )


def layout_option(
    architecture: Architecture,
    spread: Spread,
    memory: TrainingMemory,
    trainer: Trainer,
    *,
    tokens: float | None,
    goodput: float,
    step_time: float = 1.0,
) -> LayoutOption:
    """One layout with its speed, days and memory; tokens/s and utilisation are of all GPUs, idle ones too.

    `step_time` is the time of a token beside that of the first that is listed. Raises what `training_estimate` does.
    """
    layout, gpus = spread.layout, trainer.gpus
    estimate = training_estimate(
        architecture,
        dataclasses.replace(gpus, count=layout.num_gpus),
        layout,
        batch=spread.batch,
        seq_len=trainer.seq_len,
        precision=trainer.precision,
        software=trainer.software,
        balanced=trainer.balanced,
        sharded_weights="weights" in load_scheme(trainer.optimizer).split,
        site=trainer.site,
    )
    share = layout.num_gpus / gpus.count
    speed = times(Estimate(estimate.tokens_per_second_per_gpu, *estimate.interval), share)
    total = estimate.step_seconds
    return LayoutOption(
        tp=layout.tp,
        pp=layout.pp,
        ep=layout.ep,
        etp=layout.etp,
        cp=layout.cp,
        dp=layout.dp,
        micro_batch=layout.micro_batch,
        virtual_stages=layout.virtual_stages,
        recompute=layout.recompute,
        num_gpus=layout.num_gpus,
        batch_sequences=spread.batch,
        tokens_per_second_per_gpu=speed,
        site_ln_sd=estimate.spread.site_ln_sd,
        design_ln_sd=estimate.spread.design_ln_sd,
        mfu=share * estimate.mfu,
        days=inverse(speed, tokens / goodput / gpus.count / 86400) if tokens else None,
        bytes_per_gpu=float(memory.total),
        bytes_by_group={name: float(size) for name, size in memory.heaviest.groups.items()},
        fits=memory.total <= trainer.usable_bytes,
        step_seconds=total,
        step_time=step_time,
        step_terms={name: float(seconds) / total for name, seconds in estimate.time.terms().items()},
    )
