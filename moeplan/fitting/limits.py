"""What suggested runs must keep within: compute, params, memory, and the time of the GPUs that there are.

A run is made on all of the GPUs, in its fastest layout without pipeline stages, and the runs one after another; time
and memory are those of `moeplan.cost.training`, whose model of time is calibrated on published runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeplan.architecture import counting
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import Gpus, flops_of_time, parse_gpus
from moeplan.cost.training.memory import training_bytes, training_memory
from moeplan.cost.training.memory_settings import TrainingSettings
from moeplan.cost.training.parallelism import Layout
from moeplan.errors import UsageError
from moeplan.numerics import Floats
from moeplan.plan.budget import GOODPUT, Budget
from moeplan.plan.layouts import predicted_run
from moeplan.plan.search.designs import Designs
from moeplan.plan.trainable import trainer_of
from moeplan.plan.training_run import TrainingRun
from moeplan.texts import counted
from moeplan.units import format_bytes, format_count, format_flops

SHARE_WITH_DAYS, SHARE = 0.1, 0.01
"""Most compute of a run unless it is given, in units of the target's: where days limit it, and where they do not."""
_LEAST_MFU = 0.03
"""Utilisation that the smallest proxy reaches on hundreds of GPUs."""
_LEAST_FLOPS = 1e15
"""Compute whose batch smaller runs have as well: a plan's least [FLOPs]."""
_DAY = 86_400.0
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """Limits of each run, and of all of them together. Raises `UsageError` for values that cannot be."""

    max_flops: float
    """Most compute of one run [FLOPs]."""
    max_params: float = math.inf
    """Most params of one run, embeddings included."""
    max_memory: float = math.inf
    """Most memory that training a run takes on one GPU, a sequence at a time [bytes]."""
    gpus: Gpus | None = None
    """What the runs are made on; each must fit."""
    days: float = 0.0
    """Days on them for all runs together, pauses included; 0 for no limit."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.max_flops) and self.max_flops > 0):
            raise UsageError(f"max_flops {self.max_flops} must be positive and finite, for example 1e20")
        for name, example in (("max_params", "1e9"), ("max_memory", "24GB")):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} {getattr(self, name)} must be above 0, for example {example}")
        if not (math.isfinite(self.days) and self.days >= 0):
            raise UsageError(f"days {self.days} must be above 0 and finite, for example 2")
        if self.days and self.gpus is None:
            raise UsageError("days need gpus, for example 8xA100-80GB")

    def __str__(self) -> str:
        words = [f"{format_flops(self.max_flops)} FLOPs"]
        if math.isfinite(self.max_params):
            words.append(f"{format_count(self.max_params)} params")
        if math.isfinite(self.max_memory):
            words.append(f"{format_bytes(self.max_memory)} to train on one GPU")
        if self.gpus is not None:
            words.append(f"what fits {self.gpus}" + (f" for {counted(self.days, 'day(s)')}" if self.days else ""))
        return ", ".join(words)

    def allows(self, shape: Designs | Architecture, seq_len: int) -> Bools:
        """Whether each of some designs, or one architecture, keeps within params and memory, (I,)."""
        allowed = np.atleast_1d(counting.total_params(shape)) <= self.max_params
        if math.isfinite(self.max_memory):
            allowed = allowed & (one_gpu_bytes(shape, seq_len) <= self.max_memory)
        return np.asarray(allowed)

    def tokens_per_second(self, shape: Designs | Architecture, seq_len: int, share: float) -> Floats:
        """Of all GPUs together, in the batch of a run of a `share` of the most compute, (I,); 0 where none fits.

        A run of more compute has a larger batch and is no slower.
        """
        assert self.gpus is not None
        most = self.max_flops
        if self.days:
            most = min(most, flops_of_time(self.gpus, self.days, _LEAST_MFU))
        trainer = trainer_of(self._budget(seq_len, share * most))
        if isinstance(shape, Architecture):
            ranked = trainer.ranking(shape)
            return np.array([trainer.scale * ranked[0].tokens_per_second if ranked else 0.0])
        return trainer.fastest(shape).tokens_per_second

    def most_flops(self, per_token: Floats, tokens_per_second: Floats) -> Floats:
        """Most compute of one run of each of some shapes, which may take all of the time [FLOPs]."""
        most = np.full(len(per_token), self.max_flops)
        return np.minimum(most, per_token * tokens_per_second * self.days * _DAY * GOODPUT) if self.days else most

    def days_of(self, tokens: Floats, tokens_per_second: Floats) -> Floats:
        """Days of runs of some shapes, pauses included; 0 at infinite speed, not finite where none fits."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(tokens / tokens_per_second / _DAY / GOODPUT)

    def training(self, architecture: Architecture, seq_len: int, tokens: float) -> TrainingRun:
        """One run on the GPUs: its days with their interval, its memory."""
        train_flops = float(architecture.flops_per_token(seq_len)) * tokens
        return predicted_run(architecture, tokens, self._budget(seq_len, train_flops))

    def _budget(self, seq_len: int, train_flops: float) -> Budget:
        return Budget(flops=max(train_flops, _LEAST_FLOPS), gpus=self.gpus, seq_len=seq_len, layout="pp=1")


def make_limits(
    budget: Budget,
    max_flops: float | None = None,
    *,
    max_params: float = math.inf,
    max_memory: float = math.inf,
    gpus: Gpus | str | None = None,
    days: float | None = None,
) -> RunLimits:
    """The limits of runs for a target; without `max_flops` a run has `SHARE_WITH_DAYS` or `SHARE` of its compute.

    Raises `UsageError` for values that cannot be, and for runs as large as the target.
    """
    if days is not None and not days > 0:
        raise UsageError(f"days {days} must be above 0 and finite, for example 2")
    if max_flops is None:
        max_flops = budget.flops * (SHARE_WITH_DAYS if days else SHARE)
    limits = RunLimits(
        max_flops=max_flops,
        max_params=max_params,
        max_memory=max_memory,
        gpus=None if gpus is None else parse_gpus(gpus),
        days=days or 0.0,
    )
    if max_flops >= budget.flops:
        raise UsageError(
            f"max_flops {format_flops(max_flops)} must be below the {format_flops(budget.flops)} FLOPs of the target; "
            f"with as much a run could be the target itself"
        )
    return limits


def one_gpu_bytes(shape: Designs | Architecture, seq_len: int) -> Floats:
    """Memory of training on one GPU, a sequence at a time, nothing recomputed [bytes], (I,)."""
    settings = TrainingSettings(seq_len=seq_len, num_micro_batches=1)
    if isinstance(shape, Architecture):
        return np.array([training_memory(shape, Layout(), settings).total])
    return np.broadcast_to(training_bytes(shape, Layout(), settings), len(shape))
