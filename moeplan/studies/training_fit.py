"""Training a model on given GPUs: memory of a GPU by group, tokens a second, utilisation, days.

For one stated layout, or for the fastest layouts that fit. Memory is counted tensor by tensor
(`moeplan.cost.training.memory`), time by the calibrated model of a step (`moeplan.cost.training.throughput`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import HEADROOM, Gpus, parse_gpus
from moeplan.cost.training.degrees import Spread
from moeplan.cost.training.fastest import Trainer
from moeplan.cost.training.memory import training_memory
from moeplan.cost.training.memory_settings import TrainingSettings
from moeplan.cost.training.parallelism import Layout, read_degrees, read_layout
from moeplan.cost.training.throughput.settings import load_software, peak_flops
from moeplan.cost.training.throughput.words import DEFAULT_SOFTWARE, MFU_CONVENTION
from moeplan.errors import InfeasibleError, UsageError
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.budget import nominal_batch
from moeplan.plan.document import Plan
from moeplan.plan.layouts import LISTED, layout_option, ranked_options, why_none
from moeplan.plan.measured_runs import measured_site
from moeplan.plan.training_run import LayoutOption
from moeplan.quantities import BYTES
from moeplan.units import format_decimal_bytes


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
    measured: tuple[str, ...] = ()
    """Runs measured at the site, or files of them (`moeplan.plan.measured_runs`)."""
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
            measured=self.measured or (asked.measured if asked else ()),
            optimizer=self.optimizer or (asked.optimizer if asked else "megatron"),
        )


def training_request(
    *,
    gpus: str | Gpus | None = None,
    layout: str | Layout | None = None,
    train_precision: str | None = None,
    balanced: bool = False,
    measured: Sequence[str] = (),
    **given: Any,
) -> TrainingRequest | None:
    """What the words of the command line ask of training; None without `gpus`, which the others need.

    A layout whose dp is stated may leave GPUs idle; without, dp takes all that are left.
    """
    chosen = {name: value for name, value in {"precision": train_precision, **given}.items() if value is not None}
    if gpus is None:
        if layout is not None or balanced or measured or chosen:
            raise UsageError("--layout, --batch and other options of training need --gpus, for example 64xH100")
        return None
    found = parse_gpus(gpus)
    if isinstance(layout, str):
        own = Layout(**read_degrees(layout))
        idle = "dp=" in layout and own.num_gpus < found.count
        layout = own if idle else read_layout(layout, found.count)
    return TrainingRequest(gpus=found, layout=layout, balanced=balanced, measured=tuple(measured), **chosen)


@dataclass(frozen=True)
class TrainingFit:
    """Training a model on given GPUs."""

    device: str
    """The device."""
    num_gpus: int
    """How many."""
    idle_gpus: int
    """How many of them the first layout leaves idle."""
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
    site_note: str
    """What runs measured at the site did to its speed and interval; "" without any."""
    layouts: tuple[LayoutOption, ...]
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
    software = load_software(request.software)
    site, site_note = measured_site(
        request.measured, gpus.device, precision=request.precision, software=software, seq_len=seq_len
    )
    trainer = Trainer(
        gpus=gpus,
        batch=request.batch or _batch(shape, tokens, seq_len, request.layout),
        seq_len=seq_len,
        precision=request.precision,
        software=software,
        optimizer=request.optimizer,
        usable_bytes=gpus.device.memory_bytes * (1 - (plan.request.headroom if plan else HEADROOM)),
        balanced=request.balanced,
        site=site,
    )
    peak_flops(gpus.device, request.precision)
    goodput = plan.training.goodput if plan is not None else 1.0
    layouts: tuple[LayoutOption, ...]
    says = ""
    if request.layout is not None:
        layouts = (_stated(shape, request.layout, trainer, tokens, goodput),)
        if not layouts[0].fits:
            needed, usable = (format_decimal_bytes(x) for x in (layouts[0].bytes_per_gpu, trainer.usable_bytes))
            says = f"it needs {needed} per GPU and {usable} are usable"
    else:
        layouts = ()
        try:
            ranked = trainer.ranking(shape, LISTED)
            layouts = ranked_options(shape, ranked, trainer, tokens=tokens, goodput=goodput)
            says = "" if layouts else why_none(shape, trainer)
        except InfeasibleError as error:  # blocks whose training is not modelled
            says = str(error)
    return TrainingFit(
        device=gpus.device.name,
        num_gpus=gpus.count,
        idle_gpus=gpus.count - layouts[0].num_gpus if layouts else 0,
        seq_len=seq_len,
        batch_sequences=layouts[0].batch_sequences if layouts else trainer.batch,
        precision=request.precision,
        software=request.software,
        optimizer=request.optimizer,
        usable_bytes=trainer.usable_bytes,
        tokens=tokens,
        mfu_convention=MFU_CONVENTION,
        site_note=site_note,
        layouts=layouts,
        says=says,
    )


def _stated(
    shape: Architecture, layout: Layout, trainer: Trainer, tokens: float | None, goodput: float
) -> LayoutOption:
    """The layout that is stated, whether or not it fits."""
    micro_batches, rest = divmod(trainer.batch, layout.dp * layout.micro_batch)
    if rest or not micro_batches:
        raise InfeasibleError(
            f"batch {trainer.batch} must be a multiple of dp {layout.dp} times micro_batch {layout.micro_batch}"
        )
    settings = TrainingSettings(seq_len=trainer.seq_len, optimizer=trainer.optimizer, num_micro_batches=micro_batches)
    layout.check(shape, trainer.seq_len)
    memory = training_memory(shape, layout, settings)
    return layout_option(shape, Spread(layout, micro_batches), memory, trainer, tokens=tokens, goodput=goodput)


def _batch(shape: Architecture, tokens: float | None, seq_len: int, layout: Layout | None) -> int:
    """The leverage law's batch for the tokens, by default 20 an active param, in multiples that a layout divides."""
    flops = float(shape.flops_per_token(seq_len)) * (tokens or 20.0 * shape.active_params())
    wanted = nominal_batch(LEVERAGE_LAW, flops, seq_len)
    multiple = layout.dp * layout.micro_batch if layout else 1
    return max(1, round(wanted / multiple)) * multiple
