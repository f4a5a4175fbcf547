"""What is exported: an architecture with how it is to be trained and served, from a plan or for an existing model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from moeplan import __version__
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import DEFAULT_DEVICE, HEADROOM, Device, load_device
from moeplan.cost.inference_memory import InferenceSettings, WeightDtype
from moeplan.cost.serving.roofline import devices_needed
from moeplan.cost.training.parallelism import Layout, Recompute
from moeplan.cost.training.throughput.settings import Software, load_software
from moeplan.cost.training.throughput.words import DEFAULT_SOFTWARE
from moeplan.errors import InfeasibleError, UsageError
from moeplan.laws import load_law
from moeplan.laws.hyperparameters import HyperParameters, hyperparameters
from moeplan.laws.roles import HYPERPARAMETER_LAWS, LEVERAGE_LAW
from moeplan.plan import candidate
from moeplan.plan.budget import FEWEST_TOKENS
from moeplan.plan.budget_fields import SERVING
from moeplan.plan.document import Plan
from moeplan.plan.existing import ExistingModel, read_model
from moeplan.plan.training_and_serving import batch_sequences
from moeplan.units import parse_count

SOFTWARE = DEFAULT_SOFTWARE
"""The software of an existing model's export, which `moeplan.cost.training.fastest.Trainer` times with."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A model to train and to serve, as targets need it."""

    name: str
    """What it is, for sentences."""
    architecture: Architecture
    """Its integer shape."""
    seq_len: int
    """Training sequence length [tokens]."""
    tokens: int | None
    """Training tokens; None if nothing says how many."""
    hyperparameters: tuple[HyperParameters, ...]
    """Learning rate and batch, by law; what is written is the first's."""
    batch_sequences: int
    """Sequences of a step."""
    num_gpus: int | None
    """Devices to train on; None if not given."""
    device: str
    """The device that it is trained on."""
    train_precision: str = "bf16"
    """Of matrix products in training."""
    optimizer: str
    """Scheme of weights, gradients and optimizer state that memory is counted for."""
    software: Software
    """What the training software does."""
    layouts: tuple[Layout, ...]
    """Layouts that fit, fastest first."""
    step_times: tuple[float, ...]
    """Time of a step of each, relative to the first."""
    serving: InferenceSettings
    """How it is served."""
    serving_devices: int
    """Devices that it is served on; 0 if 1024 do not hold it."""
    headroom: float
    """Share of their memory kept free."""
    version: str
    """The version of moeplan that planned it."""

    @property
    def context(self) -> int:
        """Most tokens of one sequence, in training or served."""
        return max(self.seq_len, self.serving.context)


def job_of_plan(plan: Plan) -> Job:
    """What a plan asks for. Raises `UsageError` where its architecture is not the design that it states."""
    for name in ("total_params", "active_params"):
        counted, stated = getattr(plan.architecture, name)(), getattr(plan.design, name)
        if counted != stated:
            raise UsageError(
                f"the plan's architecture has {counted:,} {name} but its design says {stated:,}; plan anew"
            )
    request, training = plan.request, plan.training
    serving: dict[str, Any] = {name: getattr(request, name) for name in SERVING}
    return Job(
        name="the plan",
        architecture=plan.architecture,
        seq_len=request.seq_len,
        tokens=plan.design.tokens,
        hyperparameters=plan.hyperparameters,
        batch_sequences=training.batch_sequences,
        num_gpus=training.num_gpus,
        device=training.device,
        train_precision=request.train_precision,
        optimizer=request.optimizer,
        software=load_software(request.software),
        layouts=planned_layouts(plan),
        step_times=tuple(option.step_time for option in training.layouts),
        serving=InferenceSettings(**serving),
        serving_devices=plan.memory.num_devices if request.memory else plan.serving.num_devices,
        headroom=request.headroom,
        version=plan.provenance.version,
    )


def job_of(
    model: Plan | str | Path,
    *,
    alternative: int | None = None,
    fix: Mapping[str, float] | None = None,
    tokens: str | float | None = None,
    threads: int = 1,
    progress: Callable[[str], None] | None = None,
) -> Job:
    """What a plan asks for, another design of its search (its `alternative` of that number, or the best with variables
    that are fixed), or an existing model trained anew on `tokens`.

    `model` is a plan, its file, a Hugging Face config.json, its folder, or a bundled published model.
    """
    if alternative is not None and fix:
        raise UsageError("--alternative and --fix both name a design; give one")
    found = None if isinstance(model, Plan) else read_model(model)
    plan = model if isinstance(model, Plan) else found.plan if found else None
    if plan is None:
        assert found is not None
        if alternative is not None or fix:
            raise UsageError(f"--alternative and --fix are of a plan, and {found.name} is none")
        count = None if tokens is None else round(parse_count(tokens, "tokens"))
        if count is not None and count < FEWEST_TOKENS:
            raise UsageError(f"tokens {tokens!r} must be at least {FEWEST_TOKENS:g}, fewer are too few to train on")
        return job_of_model(found, count)
    if tokens is not None:
        raise UsageError("--tokens is of an existing model; a plan has its own")
    if alternative is not None:
        plan = candidate.alternative(plan, alternative, threads=threads, progress=progress)
    elif fix:
        plan = candidate.candidate(plan, fix, threads=threads, progress=progress)
    return job_of_plan(plan)


def job_of_model(model: ExistingModel, tokens: int | None = None) -> Job:
    """An existing model, trained anew on `tokens` (default: as published).

    Raises `InfeasibleError` for a model that is not counted whole, or whose layers differ.
    """
    shape = model.architecture
    if model.gaps or not isinstance(shape, Architecture):
        what = "; ".join(gap.what for gap in model.gaps) or "layers that differ from each other"
        raise InfeasibleError(f"{model.name}: no target is written for {what}")
    if tokens is None and model.tokens is not None:
        tokens = round(model.tokens)
    return job_of_shape(model.name, shape, model.seq_len, tokens, model.weight_dtype or "bf16")


def job_of_shape(
    name: str, shape: Architecture, seq_len: int, tokens: int | None, weight_dtype: WeightDtype = "bf16"
) -> Job:
    """A shape, trained on `tokens` by the laws' learning rate and batch, and served on the fewest H100 that hold it."""
    hyper = hyperparameters(map(load_law, HYPERPARAMETER_LAWS), shape, tokens, seq_len) if tokens else ()
    batch = next((own.batch_tokens for own in hyper if own.law == LEVERAGE_LAW), 0.0)
    serving = InferenceSettings(weight_dtype=weight_dtype)
    device = load_device(DEFAULT_DEVICE)
    return Job(
        name=name,
        architecture=shape,
        seq_len=seq_len,
        tokens=tokens,
        hyperparameters=hyper,
        batch_sequences=batch_sequences(batch, seq_len, 1),
        num_gpus=None,
        device=device.name,
        optimizer="megatron",
        software=load_software(SOFTWARE),
        layouts=(),
        step_times=(),
        serving=serving,
        serving_devices=_devices(shape, device, serving),
        headroom=HEADROOM,
        version=__version__,
    )


def _devices(shape: Architecture, device: Device, serving: InferenceSettings) -> int:
    try:
        return devices_needed(shape, device, serving)
    except InfeasibleError:
        return 0


def with_hyperparameters(job: Job, law: str) -> Job:
    """The job with the learning rate and batch of `law` first, which exports take.

    Raises `UsageError` for a law that the plan holds none of.
    """
    by_name = {own.law: own for own in job.hyperparameters}
    if law not in by_name:
        known = " or ".join(by_name) or "none"
        raise UsageError(f"{job.name} has no learning rate and batch by {law!r}; it has those of {known}")
    chosen = by_name[law]
    if chosen is job.hyperparameters[0]:
        return job
    others = (own for own in job.hyperparameters if own is not chosen)
    batch = batch_sequences(chosen.batch_tokens, job.seq_len, job.num_gpus or 1)
    return dataclasses.replace(job, hyperparameters=(chosen, *others), batch_sequences=batch)


def planned_layouts(plan: Plan) -> tuple[Layout, ...]:
    """The layouts that the plan lists, fastest first."""
    names = ("tp", "pp", "ep", "etp", "cp", "dp", "micro_batch")
    return tuple(
        Layout(**{name: getattr(option, name) for name in names}, recompute=cast(Recompute, option.recompute))
        for option in plan.training.layouts
    )
