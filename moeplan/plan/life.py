"""A model's life: what training and serving take together out of one budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from moeplan.architecture.shape import Architecture
from moeplan.cost.serving.throughput import SPLITS
from moeplan.plan.budget import Budget
from moeplan.quantities import COUNT, FLOPS, NUMBER, SHARE
from moeplan.records import Line, Word


@dataclass(frozen=True)
class ServedLoad:
    """What the serving devices reach on the prompts and answers that are asked."""

    device: Line
    """The device."""
    num_devices: int
    """Devices that hold one copy."""
    prompt_tokens: int
    """Tokens of a prompt."""
    answer_tokens: int
    """Tokens of an answer."""
    sequences: int
    """Answers at a time: the most that memory and the asked speed allow."""
    tokens_per_second_per_user: float
    """Tokens a second of each answer, prompts of others read between them."""
    tokens_per_second_per_gpu: float
    """Answer tokens a second of one device."""
    served_tokens_per_second_per_gpu: float
    """Prompt and answer tokens a second of one device."""
    fastest: float
    """Tokens a second of a user alone."""
    split: Word
    """How the devices share the model: tensor (every matrix is split) or data (each has its own sequences)."""


@dataclass(frozen=True)
class Life:
    """Training and serving out of one budget."""

    served: Annotated[float, COUNT]
    """Tokens served over the life, prompts and answers."""
    paid_in: Word
    """gpu_hours, by the serving model, or flops, 2*N_a a token."""
    train_flops: Annotated[float, FLOPS]
    """Compute of training."""
    serve_flops: Annotated[float | None, FLOPS]
    """Compute of serving, 2*N_a a token; null where it is paid in GPU-hours."""
    train_gpu_hours: Annotated[float | None, COUNT]
    """Device-hours of training; null where serving is paid in FLOPs."""
    serve_gpu_hours: Annotated[float | None, COUNT]
    """Device-hours of serving; null where it is paid in FLOPs."""
    serve_share: Annotated[float, SHARE]
    """Share of both that serving takes: of FLOPs, or of hours at their prices."""
    train_money: Annotated[float | None, NUMBER]
    """Price of training; null without one."""
    serve_money: Annotated[float | None, NUMBER]
    """Price of serving; null without one."""

    def gpu_hours(self, serving_hour: float = 1.0) -> float | None:
        """Hours of training GPUs in all, one of a serving device counted as `serving_hour`; None if paid in FLOPs."""
        if self.train_gpu_hours is None or self.serve_gpu_hours is None:
            return None
        return self.train_gpu_hours + self.serve_gpu_hours * serving_hour

    @property
    def money(self) -> float | None:
        """Price of training and serving; None without one."""
        if self.train_money is None or self.serve_money is None:
            return None
        return self.train_money + self.serve_money


@dataclass(frozen=True)
class IfServed:
    """The best design if the same budget also had to serve some tokens."""

    served: Annotated[float, COUNT]
    """Tokens served: `multiple` times the plan's own training tokens."""
    multiple: float
    """How many times."""
    total_params: int
    """N [params]."""
    active_params: int
    """N_a [params]."""
    tokens: int
    """D, training tokens."""
    value_ratio: Annotated[float, NUMBER]
    """Its V / the best V without serving."""


def served_load(architecture: Architecture, budget: Budget) -> ServedLoad | None:
    """What the budget's serving devices reach; None without them, or if they cannot serve it as asked."""
    demand = budget.demand
    if demand.serve_gpus is None:
        return None
    found = demand.throughput(architecture, budget.serving, 1 - budget.headroom)
    if not found.batch:
        return None
    per_gpu = float(found.tokens_per_second_per_gpu)
    return ServedLoad(
        device=demand.serve_gpus.device.name,
        num_devices=demand.serve_gpus.count,
        prompt_tokens=demand.prompt_tokens,
        answer_tokens=demand.answer_tokens,
        sequences=int(found.batch),
        tokens_per_second_per_user=float(found.tokens_per_second_per_user),
        tokens_per_second_per_gpu=per_gpu,
        served_tokens_per_second_per_gpu=per_gpu * demand.load.tokens_per_answer_token,
        fastest=float(found.fastest),
        split=SPLITS[int(found.split)],
    )


def life_of(architecture: Architecture, train_flops: float, train_hours: float, budget: Budget) -> Life | None:
    """What training and serving take; None if nothing is served.

    `train_hours` are the device-hours of training. Serving in GPU-hours takes those of its own devices, and in FLOPs
    2*N_a a token.
    """
    served = budget.served_tokens
    if not served:
        return None
    if not budget.pays_hours:
        flops = 2.0 * architecture.active_params() * served
        share = flops / (train_flops + flops)
        return Life(served, "flops", train_flops, flops, None, None, share, None, None)
    found = budget.demand.throughput(architecture, budget.serving, 1 - budget.headroom)
    seconds = float(found.gpu_seconds_per_token)
    hours, price = float(budget.demand.gpu_hours(seconds)), budget.price_per_gpu_hour
    return Life(
        served=served,
        paid_in="gpu_hours",
        train_flops=train_flops,
        serve_flops=None,
        train_gpu_hours=float(train_hours),
        serve_gpu_hours=hours,
        serve_share=hours * budget.serving_hour / (train_hours + hours * budget.serving_hour),
        train_money=None if price is None else train_hours * price,
        serve_money=None if price is None else hours * price * budget.serving_hour,
    )
