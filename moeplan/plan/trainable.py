"""What a budget's GPUs train, and how fast: the clock of a search, and why it finds nothing.

Imported late, so that a plan without GPUs starts fast.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from moeplan.cost.training.fastest import Trainer
from moeplan.cost.training.parallelism import read_degrees
from moeplan.cost.training.throughput.settings import load_software
from moeplan.cost.training.throughput.site import Site
from moeplan.plan.budget import Budget, nominal_batch
from moeplan.plan.infeasibility import limits_text, why_none_feasible
from moeplan.plan.measured_runs import measured_site
from moeplan.plan.search.clock import Clock
from moeplan.plan.search.scores import Scores
from moeplan.plan.search.space import Space
from moeplan.units import format_bytes, format_count


def trainer_of(budget: Budget) -> Trainer:
    """The budget's GPUs, with the batch that its compute calls for."""
    assert budget.gpus is not None
    assert budget.usable_training_bytes is not None
    return Trainer(
        gpus=budget.gpus,
        batch=budget.batch or nominal_batch(budget.hyperparameters, budget.flops, budget.seq_len),
        seq_len=budget.seq_len,
        precision=budget.train_precision,
        software=load_software(budget.software),
        optimizer=budget.optimizer,
        usable_bytes=budget.usable_training_bytes,
        given=read_degrees(budget.layout),
        site=site_of_budget(budget)[0],
    )


def site_of_budget(budget: Budget) -> tuple[Site, str]:
    """The site of the budget's GPUs, and in a sentence what measured runs did to it."""
    assert budget.gpus is not None
    return measured_site(
        budget.measured,
        budget.gpus.device,
        precision=budget.train_precision,
        software=load_software(budget.software),
        seq_len=budget.seq_len,
    )


def clock_of(space: Space) -> Clock:
    """What the designs of a space are worth on its budget's GPUs."""
    budget, trainer = space.budget, trainer_of(space.budget)
    if budget.timed:
        return Clock(space, trainer, seconds=budget.seconds)
    return Clock(space, trainer, flops=budget.flops, days=0.0 if budget.mfu else budget.seconds)


def why_untrainable(space: Space, scores: Scores, clock: Clock) -> str:
    """Why the budget's GPUs train none of a space's designs, with the nearest number of them that trains one."""
    if not space.limit(scores).feasible.any():
        return why_none_feasible(space, scores)
    budget, trainer = space.budget, clock.trainer
    assert budget.gpus is not None
    given = f" under {budget.layout}" if budget.layout else ""
    none = f"no design that fits {limits_text(budget)} can be trained on {budget.gpus}{given} with {budget.optimizer}"
    smallest = int(np.argmin(np.where(space.limit(scores).feasible, space.total_params, np.inf)))
    count = trainer.gpus.count
    for more in (2**power for power in range(1, 15)):
        larger = dataclasses.replace(trainer, gpus=dataclasses.replace(trainer.gpus, count=count * more))
        if (larger.fastest(space.designs(smallest)).place >= 0).any():
            params = format_count(float(space.total_params[smallest]))
            return (
                f"{none}: no layout holds weights, gradients, optimizer state and activations; {count * more} GPUs "
                f"would do for the smallest, of {params} params"
            )
    memory = format_bytes(trainer.gpus.device.memory_bytes)
    return f"{none}, nor on more of them: it needs GPUs with more memory than {memory}"
