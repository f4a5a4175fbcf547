"""Training and serving a plan: GPU time, money, batch and layouts of training, and the speed of serving."""

from __future__ import annotations

import dataclasses

from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import DEFAULT_DEVICE, Gpus, gpu_time, load_device
from moeplan.cost.serving.concurrency import concurrency, decode_seconds, fits, serving_gpus
from moeplan.cost.serving.roofline import DecodePoint, devices_needed, serving_estimate
from moeplan.cost.training.states import load_scheme
from moeplan.cost.training.throughput.words import MFU_CONVENTION
from moeplan.errors import InfeasibleError
from moeplan.estimates import Estimate
from moeplan.plan.budget import Budget
from moeplan.plan.life import served_load
from moeplan.plan.serving_run import ServingPoint, ServingUse
from moeplan.plan.training_run import TrainingRun


def batch_sequences(batch_tokens: float, seq_len: int, num_gpus: int) -> int:
    """A batch in sequences near `batch_tokens`: a multiple of the largest divisor of the GPUs that is not above it."""
    wanted = max(1, round(batch_tokens / seq_len))
    multiple = max(divisor for divisor in range(1, min(num_gpus, wanted) + 1) if num_gpus % divisor == 0)
    return max(multiple, round(wanted / multiple) * multiple)


def state_bytes_per_gpu(total_params: float, optimizer: str, num_gpus: int) -> float:
    """Least bytes of weights, gradients and optimizer state on a GPU: all of them spread over all GPUs."""
    scheme = load_scheme(optimizer)
    # Embeddings, router and norms may carry more state; the lower of both keeps this a bound from below.
    return min(sum(scheme.state_bytes(total_params, 1, vector=v).values()) for v in (False, True)) / num_gpus


def training_run(architecture: Architecture, tokens: float, batch_tokens: float, budget: Budget) -> TrainingRun:
    """Speed, GPU-hours, days, money and the fastest layouts of one training run, pauses included."""
    batch = batch_sequences(batch_tokens, budget.seq_len, 1)
    if budget.gpus is None and budget.mfu:
        flops = float(architecture.flops_per_token(budget.seq_len)) * tokens
        return _at_given_utilisation(flops, batch, budget)
    from moeplan.plan.layouts import predicted_run  # late, so that the search starts fast

    run = predicted_run(architecture, tokens, budget)
    return run if budget.gpus else dataclasses.replace(run, batch_sequences=batch)


def _at_given_utilisation(flops: float, batch: int, budget: Budget) -> TrainingRun:
    """Hours of one device at the utilisation given, which needs no layout."""
    gpus = Gpus(1, budget.hours_device if budget.pays_hours else load_device(DEFAULT_DEVICE))
    time = gpu_time(flops, gpus, budget.mfu, price_per_gpu_hour=budget.price_per_gpu_hour)
    return TrainingRun(
        device=gpus.device.name,
        num_gpus=None,
        idle_gpus=0,
        precision=budget.train_precision,
        software=budget.software,
        goodput=1.0,
        tokens_per_second_per_gpu=None,
        mfu=Estimate(budget.mfu),
        mfu_convention=MFU_CONVENTION,
        mfu_basis="as given",
        site_ln_sd=None,
        design_ln_sd=None,
        site_note="",
        gpu_hours=Estimate(time.gpu_hours),
        days=None,
        money=None if time.money is None else Estimate(time.money),
        optimizer=budget.optimizer,
        batch_sequences=batch,
        usable_bytes=None,
        layouts=(),
        layout_note="no GPUs are given",
    )


def serving_gpus_of(architecture: Architecture, budget: Budget) -> Gpus:
    """The devices that serve one copy: those given, else of the memory limit, else the fewest that hold the model.

    Raises `InfeasibleError` without a limit if 1024 do not hold it.
    """
    if budget.demand.serve_gpus is not None:
        return budget.demand.serve_gpus
    device = budget.gpus.device if budget.gpus else None
    if budget.memory is not None:
        return serving_gpus(budget.memory, device)
    device = device or load_device(DEFAULT_DEVICE)
    return Gpus(devices_needed(architecture, device, budget.serving, budget.headroom), device)


def serving_use(architecture: Architecture, budget: Budget) -> ServingUse:
    """Users of the stated context that fit and their speed, and decode and prompt speeds by batch and context."""
    try:
        gpus = serving_gpus_of(architecture, budget)
    except InfeasibleError:
        return ServingUse(DEFAULT_DEVICE, 0, None, None, (), {}, {})
    found = serving_estimate(architecture, gpus.device, budget.serving, num_devices=gpus.count)
    usable = gpus.device.memory_bytes * (1 - budget.headroom) if budget.memory is None else budget.usable_bytes
    devices = gpus.count if budget.memory is None else budget.num_devices

    each = usable * devices / gpus.count

    def point(decode: DecodePoint) -> ServingPoint:
        settings = dataclasses.replace(budget.serving, context=decode.context, concurrency=decode.batch)
        seconds = decode_seconds(architecture, gpus, decode.context, decode.batch, settings, each)
        values = {field.name: getattr(decode, field.name) for field in dataclasses.fields(DecodePoint)}
        values["fits"] = fits(architecture, settings, devices, usable)
        return ServingPoint(
            **values,
            expected_tokens_per_second_per_user=1 / seconds,
            expected_tokens_per_second_per_gpu=decode.batch / seconds / gpus.count,
        )

    return ServingUse(
        device=gpus.device.name,
        num_devices=gpus.count,
        concurrency=concurrency(architecture, gpus, budget.serving, devices, usable),
        load=served_load(architecture, budget),
        points=tuple(map(point, found.points)),
        prefill_flops={str(tokens): flops for tokens, flops in found.prefill_flops.items()},
        prefill_seconds={str(tokens): seconds for tokens, seconds in found.prefill_seconds.items()},
    )
