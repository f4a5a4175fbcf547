"""Training of a plan on its GPUs: the fastest layouts, their speed, days and memory, and the layout of least memory."""

from __future__ import annotations

import dataclasses
import math

from moeplan.architecture.shape import Architecture
from moeplan.cost.training.fastest import Ranked, Trainer
from moeplan.cost.training.layout import LayoutSpace, least_training_bytes
from moeplan.cost.training.memory import TrainingSettings
from moeplan.cost.training.states import load_scheme
from moeplan.cost.training.throughput.estimate import TrainingEstimate, training_estimate
from moeplan.cost.training.throughput.words import MFU_CONVENTION
from moeplan.estimates import Estimate, inverse, times
from moeplan.plan.budget import Budget
from moeplan.plan.trainable import trainer_of
from moeplan.plan.training_run import LayoutOption, TrainingRun
from moeplan.units import format_bytes

LISTED = 3
"""Layouts that a plan lists."""
_LEAST_SPACE = LayoutSpace(micro_batches=(1,), recompute=("full",))
"""The layouts that need least memory: smallest micro-batch, everything recomputed."""


def least_bytes(architecture: Architecture, budget: Budget, batch: int) -> float | None:
    """The least memory a GPU [bytes] by any layout on the budget's GPUs; None if no layout breaks no rule."""
    assert budget.gpus is not None
    settings = TrainingSettings(seq_len=budget.seq_len, optimizer=budget.optimizer)
    least = least_training_bytes(architecture, budget.gpus.count, batch, settings, _LEAST_SPACE)
    return None if least is None else float(least[1].total)


def run_on_gpus(architecture: Architecture, tokens: float, budget: Budget) -> TrainingRun:
    """Speed, GPU-hours, days, money and the fastest layouts of one training run, pauses included."""
    trainer = trainer_of(budget)
    flops = float(architecture.flops_per_token(budget.seq_len)) * tokens
    gpus = trainer.gpus
    goodput = 1.0 if budget.mfu else budget.goodput
    ranked = trainer.ranking(architecture, LISTED)
    options = tuple(_option(each, ranked[0], architecture, tokens, budget, trainer) for each in ranked)
    note = "" if ranked else _why_none(architecture, trainer)
    mfu = speed = spread = None
    if budget.mfu:
        mfu = Estimate(budget.mfu)
        speed = Estimate(gpus.device.bf16_flops * mfu * tokens / flops)
    elif ranked:
        estimate = _estimate(ranked[0], architecture, budget, trainer)
        speed, spread = options[0].tokens_per_second_per_gpu, estimate.spread
        mfu = _mfu(options[0])
    hours = None if speed is None else inverse(speed, tokens / goodput / 3600)
    return TrainingRun(
        device=gpus.device.name,
        num_gpus=gpus.count,
        idle_gpus=gpus.count - options[0].num_gpus if options else 0,
        precision=budget.train_precision,
        software=budget.software,
        goodput=goodput,
        tokens_per_second_per_gpu=speed,
        mfu=mfu or Estimate(0.0),
        mfu_convention=MFU_CONVENTION,
        mfu_basis="as given, pauses included" if budget.mfu else "predicted for the first layout",
        site_ln_sd=None if spread is None else spread.site_ln_sd,
        design_ln_sd=None if spread is None else spread.design_ln_sd,
        gpu_hours=hours or Estimate(0.0),
        days=None if hours is None else times(hours, 1 / gpus.count / 24),
        money=None if hours is None or budget.price_per_gpu_hour is None else times(hours, budget.price_per_gpu_hour),
        optimizer=budget.optimizer,
        batch_sequences=options[0].batch_sequences if options else trainer.batch,
        usable_bytes=budget.usable_training_bytes,
        layouts=options,
        layout_note=note,
    )


def _mfu(option: LayoutOption) -> Estimate:
    """Utilisation under a layout with the interval of its speed, to which it is proportional."""
    speed, mfu = option.tokens_per_second_per_gpu, option.mfu
    assert speed is not None
    assert mfu is not None
    return Estimate(mfu, *(None if end is None else mfu * end / speed for end in (speed.low, speed.high)))


def _why_none(architecture: Architecture, trainer: Trainer) -> str:
    """What the best that no memory limits would need."""
    unlimited = dataclasses.replace(trainer, usable_bytes=math.inf)
    ranked = unlimited.ranking(architecture)
    if not ranked:
        return f"no layout of {trainer.gpus} divides this architecture within a batch of {trainer.batch} sequences"
    return (
        f"no layout of {trainer.gpus} fits; the fastest would need {format_bytes(ranked[0].memory.total)} a GPU, and "
        f"{format_bytes(trainer.usable_bytes)} are usable"
    )


def _estimate(ranked: Ranked, architecture: Architecture, budget: Budget, trainer: Trainer) -> TrainingEstimate:
    spread = ranked.spread
    used = dataclasses.replace(trainer.gpus, count=spread.layout.num_gpus)
    return training_estimate(
        architecture,
        used,
        spread.layout,
        batch=spread.batch,
        seq_len=budget.seq_len,
        precision=budget.train_precision,
        software=budget.software,
        sharded_weights="weights" in load_scheme(budget.optimizer).split,
    )


def _option(
    ranked: Ranked, first: Ranked, architecture: Architecture, tokens: float, budget: Budget, trainer: Trainer
) -> LayoutOption:
    layout, spread = ranked.spread.layout, ranked.spread
    estimate = _estimate(ranked, architecture, budget, trainer)
    share = layout.num_gpus / trainer.gpus.count
    low, high = estimate.interval
    speed = Estimate(*(share * x for x in (estimate.tokens_per_second_per_gpu, low, high)))
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
        mfu=share * estimate.mfu,
        days=inverse(speed, tokens / budget.goodput / trainer.gpus.count / 86400),
        bytes_per_gpu=float(ranked.memory.total),
        bytes_by_group={name: float(size) for name, size in ranked.memory.heaviest.groups.items()},
        step_time=first.tokens_per_second / ranked.tokens_per_second,
        step_terms={name: float(seconds) / total for name, seconds in estimate.time.terms().items()},
    )
